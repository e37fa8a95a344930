//! What a consent's cell holds.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::CodeMac;
use crate::code::{PartyId, ScenarioId};
use crate::person::PersonId;

/// A consent as its own cell has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// Who gave it.
    pub person: PersonId,
    /// To whom.
    pub party: PartyId,
    /// For what.
    pub scenario: ScenarioId,
    /// When it was made.
    pub made: Timestamp,
    /// When its days are over.
    pub ends: Timestamp,
    /// How many answers it allowed.
    pub uses: u32,
    /// How many are left.
    pub uses_left: u32,
    /// Whether the person declined.
    pub decline: bool,
    /// When the person took it back.
    pub revoked: Option<Timestamp>,
    /// The last one-time code made for it: a new one ends the one before.
    pub last_code: Option<LastCode>,
    /// How many calls have shown it: where in the access pages the next one goes.
    pub asked: u32,
}

/// The last code of a consent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastCode {
    /// The code's MAC.
    pub mac: CodeMac,
    /// Whether it was shown.
    pub used: bool,
}

/// A consent's cell does not read as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a consent's cell has an unknown form")]
pub struct ConsentCellError;

#[derive(Serialize, Deserialize)]
struct Stored {
    person: String,
    party: String,
    scenario: String,
    made: i64,
    ends: i64,
    uses: u32,
    left: u32,
    decline: bool,
    revoked: Option<i64>,
    code: Option<(String, bool)>,
    asked: u32,
}

fn bytes(text: &str) -> Result<[u8; 32], ConsentCellError> {
    BASE64.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(ConsentCellError)
}

fn instant(milliseconds: i64) -> Result<Timestamp, ConsentCellError> {
    Timestamp::from_millisecond(milliseconds).map_err(|_| ConsentCellError)
}

impl Consent {
    /// Whether a restore of the store has ended it: it was made before consents count.
    pub fn lapsed(&self, counts_from: Option<Timestamp>) -> bool {
        counts_from.is_some_and(|from| self.made < from)
    }

    /// The bytes to seal.
    pub fn encode(&self) -> Vec<u8> {
        let stored = Stored {
            person: BASE64.encode(self.person.0),
            party: self.party.as_str().to_owned(),
            scenario: self.scenario.as_str().to_owned(),
            made: self.made.as_millisecond(),
            ends: self.ends.as_millisecond(),
            uses: self.uses,
            left: self.uses_left,
            decline: self.decline,
            revoked: self.revoked.map(Timestamp::as_millisecond),
            code: self.last_code.as_ref().map(|last| (BASE64.encode(last.mac.0), last.used)),
            asked: self.asked,
        };
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    /// Reads the opened bytes.
    pub fn decode(opened: &[u8]) -> Result<Self, ConsentCellError> {
        let stored: Stored = serde_json::from_slice(opened).map_err(|_| ConsentCellError)?;
        let last_code = match stored.code {
            Some((mac, used)) => Some(LastCode { mac: CodeMac(bytes(&mac)?), used }),
            None => None,
        };
        Ok(Self {
            person: PersonId(bytes(&stored.person)?),
            party: PartyId::parse(&stored.party).map_err(|_| ConsentCellError)?,
            scenario: ScenarioId::parse(&stored.scenario).map_err(|_| ConsentCellError)?,
            made: instant(stored.made)?,
            ends: instant(stored.ends)?,
            uses: stored.uses,
            uses_left: stored.left,
            decline: stored.decline,
            revoked: stored.revoked.map(instant).transpose()?,
            last_code,
            asked: stored.asked,
        })
    }
}
