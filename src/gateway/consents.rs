//! A person gives a consent, declines in the form of one, takes it back, makes a code for a counter.

use jiff::{SignedDuration, Timestamp};

use super::publish::Loaded;
use super::{Gateway, GatewayError, Refusal, TRIES_MAX, at, next_version, unchanged};
use crate::access::{Action, Condition, Role};
use crate::access_log::entry::{Body, LogAction, Subject};
use crate::authority::{Authority, Login};
use crate::code::{PartyId, RuleId, ScenarioId};
use crate::consent::{CODE_SECONDS, CodeMac, CodeRow, Consent, ConsentId, LastCode, OneTimeCode, Token};
use crate::ledger::Change;
use crate::scenario::Scenario;
use crate::store::{Cell, Place, Write};
use crate::tables;
use crate::vault::{Part, PersonKeys, VaultError};

/// How many consents one chunk of a person's list holds.
const MINE_CHUNK: usize = 200;
/// How many chunks are read: more consents than anybody gives.
const MINE_CHUNKS_MAX: usize = 1_000;

/// What a person wants to allow.
#[derive(Clone, Default)]
pub struct ConsentRequest {
    /// The scenario's id.
    pub scenario: String,
    /// The party; may be left out where the scenario has only one.
    pub party: Option<String>,
    /// How many answers; the scenario's own number unless said.
    pub uses: Option<u32>,
    /// For how many days of 24 hours; the scenario's own number unless said.
    pub days: Option<u32>,
    /// Whether this is a decline that looks like any other.
    pub decline: bool,
}

/// Without what the person sent.
impl std::fmt::Debug for ConsentRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConsentRequest(..)")
    }
}

/// A consent just made.
pub struct NewConsent {
    /// Its id.
    pub id: ConsentId,
    /// Its token, shown once.
    pub token: String,
    /// What it is.
    pub consent: Consent,
}

impl std::fmt::Debug for NewConsent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewConsent(..)")
    }
}

/// A consent in its person's list.
#[derive(Debug)]
pub struct ConsentView {
    /// Its id.
    pub id: ConsentId,
    /// What it is.
    pub consent: Consent,
    /// Where a restore of the store has ended it: the instant before which all are lapsed.
    pub lapsed: Option<Timestamp>,
}

/// A one-time code just made.
#[derive(Debug)]
pub struct NewCode {
    /// `XXXX-XXXX-XXXX`.
    pub code: OneTimeCode,
    /// Seconds from now.
    pub expires_in: i64,
}

/// A consent opened for its own person.
struct Opened {
    place: Place,
    cell: Cell,
    key: u32,
    consent: Consent,
}

impl Gateway {
    /// Makes a consent and its token.
    pub async fn give_consent(&self, login: &Login, request: &ConsentRequest) -> Result<NewConsent, GatewayError> {
        let (now, _, policies) = self.moment().await?;
        let rule = own_rule(&policies, Action::Consent)?;
        let scenario = ScenarioId::parse(&request.scenario).ok();
        let scenario = scenario.and_then(|id| policies.scenarios.get(&id)).ok_or(Refusal::UnknownScenario)?;
        let party = choose_party(scenario, request.party.as_deref())?;
        let uses = within(scenario, "uses", request.uses, scenario.uses, scenario.uses_max)?;
        let days = within(scenario, "days", request.days, scenario.days, scenario.days_max)?;
        // Which cells were fixed today before the restore is not known: no answer before the next day.
        self.consents_count(now)?;
        let hours = SignedDuration::from_hours(i64::from(days) * 24);
        let consent = Consent {
            person: *login.person(),
            party: party.clone(),
            scenario: scenario.id.clone(),
            made: now,
            ends: now.saturating_add(hours).unwrap_or(Timestamp::MAX),
            uses,
            uses_left: uses,
            decline: request.decline,
            revoked: None,
            last_code: None,
            asked: 0,
        };
        for _ in 0..TRIES_MAX {
            if let Some(made) = self.give_once(login, &consent, &rule).await? {
                return Ok(made);
            }
        }
        Err(Refusal::Busy.into())
    }

    async fn give_once(
        &self,
        login: &Login,
        consent: &Consent,
        rule: &RuleId,
    ) -> Result<Option<NewConsent>, GatewayError> {
        let id = ConsentId::generate(&*self.entropy)?;
        let key = self.vault.consent_key(consent.made)?;
        let token = Token::make(id, key, &*self.vault, &consent.party, &consent.scenario)
            .ok_or_else(|| GatewayError::Fault("no key for a token".into()))?;
        let mut change = Change::entry(self.random()?, entry_of(id, consent, consent.made, rule, LogAction::Consent));
        let place = Place::new(tables::CONSENT, id.as_bytes());
        let value = self.vault.seal_consent(id, key, 1, consent)?;
        change.checks.push(unchanged(&place, None));
        change.writes.push(Write::Put(place, Cell { version: 1, value }));

        let keys = self.person_keys(login).await?;
        let chunks = self.mine(&keys).await?;
        let (number, cell, mut ids) = match chunks.into_iter().last() {
            Some((number, cell, ids)) if ids.len() < MINE_CHUNK => (number, Some(cell), ids),
            Some((number, ..)) => (number + 1, None, Vec::new()),
            None => (0, None, Vec::new()),
        };
        ids.push(id);
        let place = mine_place(&keys, number);
        let version = next_version(cell.as_ref());
        let content: Vec<u8> = ids.iter().flat_map(|id| *id.as_bytes()).collect();
        let value = self.vault.seal_own(&keys, Part::Own, at(&place, version), &content)?;
        change.checks.push(unchanged(&place, cell.as_ref()));
        change.writes.push(Write::Put(place, Cell { version, value }));
        let receipt = self.record(change, None).await?;
        Ok(receipt.map(|_| NewConsent { id, token, consent: consent.clone() }))
    }

    /// The person's consents, newest first.
    pub async fn consents(&self, login: &Login) -> Result<Vec<ConsentView>, GatewayError> {
        self.consents_of(login, &self.person_keys(login).await?).await
    }

    pub(super) async fn consents_of(
        &self,
        authority: &dyn Authority,
        keys: &PersonKeys,
    ) -> Result<Vec<ConsentView>, GatewayError> {
        let mut views = Vec::new();
        for (_, _, ids) in self.mine(keys).await? {
            for id in ids {
                // Of a consent whose keys were destroyed, long after its end, nothing is left to show.
                let Some(opened) = self.find_consent(authority, id).await? else { continue };
                let lapsed = self.consents_from.filter(|_| opened.consent.lapsed(self.consents_from));
                views.push(ConsentView { id, consent: opened.consent, lapsed });
            }
        }
        views.reverse();
        Ok(views)
    }

    /// Takes a consent back, at once; taking it back again changes nothing.
    pub async fn revoke(&self, login: &Login, id: &str) -> Result<(), GatewayError> {
        let (now, day) = self.now()?;
        let rule = own_rule(&self.policies_on(day), Action::Revoke)?;
        let id = ConsentId::parse(id).ok_or(Refusal::NotFound)?;
        for _ in 0..TRIES_MAX {
            let opened = self.open_consent(login, id).await?;
            if opened.consent.revoked.is_some() {
                return Ok(());
            }
            let after = Consent { revoked: Some(now), ..opened.consent.clone() };
            let body = entry_of(id, &after, now, &rule, LogAction::Revoke);
            if self.write_consent(id, opened, &after, Change::entry(self.random()?, body)).await? {
                return Ok(());
            }
        }
        Err(Refusal::Busy.into())
    }

    /// Makes a one-time code; it ends the one before.
    pub async fn make_code(&self, login: &Login, id: &str) -> Result<NewCode, GatewayError> {
        let (now, _, policies) = self.moment().await?;
        let rule = own_rule(&policies, Action::MakeCode)?;
        let id = ConsentId::parse(id).ok_or(Refusal::NotFound)?;
        for _ in 0..TRIES_MAX {
            let opened = self.open_consent(login, id).await?;
            let before = &opened.consent;
            if before.revoked.is_some()
                || before.lapsed(self.consents_from)
                || before.uses_left == 0
                || now >= before.ends
            {
                return Err(Refusal::ConsentOver.into());
            }
            let code = OneTimeCode::generate(&*self.entropy)?;
            let mac = self.vault.code_mac(&code);
            let after = Consent { last_code: Some(LastCode { mac: mac.clone(), used: false }), ..before.clone() };
            let mut change = Change::entry(self.random()?, entry_of(id, &after, now, &rule, LogAction::MakeCode));
            let ends = now.saturating_add(SignedDuration::from_secs(CODE_SECONDS)).unwrap_or(Timestamp::MAX);
            let row = CodeRow { consent: id, party: after.party.clone(), scenario: after.scenario.clone(), ends };
            self.put_indexed(&mut change, code_place(&mac), None, &encode_code(&row), 256)?;
            if self.write_consent(id, opened, &after, change).await? {
                return Ok(NewCode { code, expires_in: CODE_SECONDS });
            }
        }
        Err(Refusal::Busy.into())
    }

    /// What the store keeps of a code.
    pub(super) async fn code_row(&self, mac: &CodeMac) -> Result<Option<CodeRow>, GatewayError> {
        let place = code_place(mac);
        let Some(cell) = self.get(&place).await? else { return Ok(None) };
        let content = self.vault.open_indexed(at(&place, cell.version), &cell.value)?;
        let row = decode_code(&content).ok_or_else(|| GatewayError::Fault("a code's cell does not read".into()))?;
        Ok(Some(row))
    }

    async fn write_consent(
        &self,
        id: ConsentId,
        opened: Opened,
        after: &Consent,
        mut change: Change,
    ) -> Result<bool, GatewayError> {
        let version = opened.cell.version + 1;
        let value = self.vault.seal_consent(id, opened.key, version, after)?;
        change.checks.push(unchanged(&opened.place, Some(&opened.cell)));
        change.writes.push(Write::Put(opened.place, Cell { version, value }));
        Ok(self.record(change, None).await?.is_some())
    }

    /// Opens a consent for its own person; somebody else's is as one that never was.
    async fn open_consent(&self, authority: &dyn Authority, id: ConsentId) -> Result<Opened, GatewayError> {
        Ok(self.find_consent(authority, id).await?.ok_or(Refusal::NotFound)?)
    }

    /// The same; none where the consent's keys were destroyed.
    async fn find_consent(&self, authority: &dyn Authority, id: ConsentId) -> Result<Option<Opened>, GatewayError> {
        let place = Place::new(tables::CONSENT, id.as_bytes());
        let cell = self.get(&place).await?.ok_or(Refusal::NotFound)?;
        match self.vault.open_consent_of(authority, id, cell.version, &cell.value) {
            Ok((key, consent)) => Ok(Some(Opened { place, cell, key, consent })),
            Err(VaultError::Over) => Ok(None),
            Err(VaultError::NotReached) => Err(Refusal::NotFound.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// The data keys of whoever has logged in.
    pub(super) async fn person_keys(&self, login: &Login) -> Result<PersonKeys, GatewayError> {
        let cell = self.get(&Place::new(tables::PERSON, login.person().0)).await?.ok_or(Refusal::NotFound)?;
        Ok(self.vault.open_person(login, *login.person(), cell.version, &cell.value)?.0)
    }

    /// The chunks of a person's list of consents, oldest first.
    async fn mine(&self, keys: &PersonKeys) -> Result<Vec<(u16, Cell, Vec<ConsentId>)>, GatewayError> {
        let person = &keys.person().0;
        let cells = self.store.scan(tables::MINE, person, &tables::after(person), MINE_CHUNKS_MAX).await?;
        let mut chunks = Vec::with_capacity(cells.len());
        for (number, (key, cell)) in (0..).zip(cells) {
            let place = Place::new(tables::MINE, key);
            let content = self.vault.open_own(keys, Part::Own, at(&place, cell.version), &cell.value)?;
            let ids = content.as_chunks::<16>().0.iter().map(|id| ConsentId(*id)).collect();
            chunks.push((number, cell, ids));
        }
        Ok(chunks)
    }
}

fn own_rule(policies: &Loaded, action: Action) -> Result<RuleId, Refusal> {
    Gateway::permit(policies, &[Role::Person], action, &[Condition::OwnData])
}

fn choose_party<'a>(scenario: &'a Scenario, named: Option<&str>) -> Result<&'a PartyId, Refusal> {
    match (named, scenario.parties.as_slice()) {
        (Some(named), parties) => {
            let found = parties.iter().find(|party| party.as_str() == named);
            found.ok_or_else(|| Refusal::UnknownParty(parties.to_vec()))
        }
        (None, [only]) => Ok(only),
        (None, parties) => Err(Refusal::PartyRequired(parties.to_vec())),
    }
}

fn within(scenario: &Scenario, field: &'static str, wanted: Option<u32>, own: u32, max: u32) -> Result<u32, Refusal> {
    match wanted.unwrap_or(own) {
        value if (1..=max).contains(&value) => Ok(value),
        _ => Err(Refusal::BeyondLimits { field, max, scenario: scenario.id.clone() }),
    }
}

fn entry_of(id: ConsentId, consent: &Consent, at: Timestamp, rule: &RuleId, action: LogAction) -> Body {
    Body {
        at,
        party: Some(consent.party.clone()),
        scenario: Some(consent.scenario.clone()),
        action,
        rule: Some(rule.clone()),
        subject: Subject::Consent(id),
    }
}

fn mine_place(keys: &PersonKeys, number: u16) -> Place {
    Place::new(tables::MINE, tables::key(&[&keys.person().0, &number.to_be_bytes()]))
}

fn code_place(mac: &CodeMac) -> Place {
    Place::new(tables::CODE, mac.0)
}

fn encode_code(row: &CodeRow) -> Vec<u8> {
    let stored = (row.consent.to_text(), row.party.as_str(), row.scenario.as_str(), row.ends.as_millisecond());
    serde_json::to_vec(&stored).unwrap_or_default()
}

fn decode_code(content: &[u8]) -> Option<CodeRow> {
    let (consent, party, scenario, ends): (String, String, String, i64) = serde_json::from_slice(content).ok()?;
    Some(CodeRow {
        consent: ConsentId::parse(&consent)?,
        party: PartyId::parse(&party).ok()?,
        scenario: ScenarioId::parse(&scenario).ok()?,
        ends: Timestamp::from_millisecond(ends).ok()?,
    })
}
