//! Sessions: who a cookie stands for. The one change of state that has no log entry.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Gateway, GatewayError, Refusal, at};
use crate::access::Role;
use crate::authority::Login;
use crate::code::PartyId;
use crate::entropy;
use crate::person::{IdType, Identity, PersonId};
use crate::store::{Batch, Cell, Check, Place, Write};
use crate::tables;

/// How long a session lasts.
pub const SESSION_SECONDS: i64 = 8 * 3600;

/// Somebody who may log in as officer or operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staff {
    /// The login name.
    pub login: String,
    /// What they may do.
    pub role: Role,
}

/// Who a session is.
#[derive(Clone)]
pub enum Who {
    /// A person, for their own cells.
    Person(Login),
    /// An officer or operator.
    Staff(Staff),
    /// Somebody at a party's counter.
    Party(PartyId),
}

impl fmt::Debug for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Person(_) => "Who::Person(..)",
            Self::Staff(_) => "Who::Staff(..)",
            Self::Party(_) => "Who::Party(..)",
        })
    }
}

#[derive(Serialize, Deserialize)]
enum Stored {
    Person([u8; 32]),
    Staff(String),
    Party(String),
}

impl Gateway {
    /// The demo's login: an identity number, a staff login or a party's id gives a session's token.
    /// There is no password; a deployment has its people and staff logged in elsewhere.
    pub async fn demo_login(&self, name: &str) -> Result<String, GatewayError> {
        let (_, day) = self.now()?;
        if self.staff.iter().any(|staff| staff.login == name) {
            return self.open_session(&Stored::Staff(name.to_owned())).await;
        }
        if PartyId::parse(name).is_ok_and(|party| self.policies_on(day).parties.contains_key(&party)) {
            return self.open_session(&Stored::Party(name.to_owned())).await;
        }
        for id_type in [IdType::ResidentId, IdType::Passport] {
            let Ok(identity) = Identity::parse(id_type, name, day) else { continue };
            let person = self.vault.person_id(&identity);
            let login = Login::of(person);
            let registered = self.dossier(&login, person).await?.is_some_and(|dossier| dossier.person.is_some());
            if registered {
                return self.open_session(&Stored::Person(person.0)).await;
            }
        }
        Err(Refusal::NotFound.into())
    }

    async fn open_session(&self, who: &Stored) -> Result<String, GatewayError> {
        let (now, _) = self.now()?;
        let token = entropy::bytes::<32>(&*self.entropy)?;
        let place = self.session_place(&token);
        let ends = now.saturating_add(SignedDuration::from_secs(SESSION_SECONDS)).unwrap_or(Timestamp::MAX);
        let content = serde_json::to_vec(&(who, ends.as_second())).map_err(|e| GatewayError::Fault(e.to_string()))?;
        let value = self.vault.seal_indexed(at(&place, 1), &content, 256)?;
        let checks = vec![Check::Absent(place.clone())];
        let writes = vec![Write::Put(place, Cell { version: 1, value })];
        self.store.commit(Batch { checks, writes }).await?;
        Ok(BASE64URL.encode(token))
    }

    /// Who the session of this token is; none where there is no such session, or it is over.
    pub async fn session(&self, token: &str) -> Result<Option<Who>, GatewayError> {
        let (now, day) = self.now()?;
        let Ok(token) = BASE64URL.decode(token) else { return Ok(None) };
        let place = self.session_place(&token);
        let Some(cell) = self.get(&place).await? else { return Ok(None) };
        let content = self.vault.open_indexed(at(&place, cell.version), &cell.value)?;
        let stored: Option<(Stored, i64)> = serde_json::from_slice(&content).ok();
        let Some((who, _)) = stored.filter(|(_, ends)| now.as_second() < *ends) else { return Ok(None) };
        Ok(match who {
            Stored::Person(person) => Some(Who::Person(Login::of(PersonId(person)))),
            Stored::Staff(login) => self.staff.iter().find(|staff| staff.login == login).cloned().map(Who::Staff),
            Stored::Party(party) => {
                let party = PartyId::parse(&party).ok();
                party.filter(|party| self.policies_on(day).parties.contains_key(party)).map(Who::Party)
            }
        })
    }

    /// Ends a session.
    pub async fn log_out(&self, token: &str) -> Result<(), GatewayError> {
        if let Ok(token) = BASE64URL.decode(token) {
            let writes = vec![Write::Delete(self.session_place(&token))];
            self.store.commit(Batch { checks: Vec::new(), writes }).await?;
        }
        Ok(())
    }

    fn session_place(&self, token: &[u8]) -> Place {
        Place::new(tables::SESSION, self.vault.lookup("session", &[token]))
    }
}
