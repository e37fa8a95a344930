//! What officers see: the log by time, party, scenario and action; by person only with an open case.

use std::collections::BTreeMap;

use jiff::{Timestamp, civil::Date};
use serde::{Deserialize, Serialize};

use super::inspect::entries;
use super::merged::{Merged, not_in_list};
use super::sessions::Staff;
use super::{Gateway, GatewayError, Refusal, TRIES_MAX, at, next_version, unchanged};
use crate::access::{Action, Condition, Role};
use crate::access_log::entry::{Body, LogAction, Subject};
use crate::authority::OpenCase;
use crate::code::{PartyId, RuleId, ScenarioId};
use crate::entropy;
use crate::ledger::{Change, EntryId, PlacedWrite};
use crate::person::{Identity, PersonId};
use crate::store::{Cell, Place};
use crate::tables;

/// How many entries one call reads at most.
const READ_MAX: u64 = 200_000;
/// How many leaf places a page of look-ups holds.
const LOOK_UP_PLACES: usize = 64;
/// The most characters that a case's reason has.
const REASON_CHARS_MAX: usize = 1_000;

/// What an officer wants to see of the log.
#[derive(Clone, Default)]
pub struct LogFilter {
    /// From this instant on.
    pub from: Option<Timestamp>,
    /// Before this instant.
    pub to: Option<Timestamp>,
    /// Of this party.
    pub party: Option<PartyId>,
    /// For this scenario.
    pub scenario: Option<ScenarioId>,
    /// This action.
    pub action: Option<LogAction>,
    /// About the person of this case.
    pub case: Option<String>,
    /// How many lines.
    pub limit: usize,
    /// Those before this one.
    pub before: Option<EntryId>,
}

/// Without what the officer sent.
impl std::fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogFilter(..)")
    }
}

/// A line of the log as officers see it: no outcome, no score, nobody's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The number of the log that the entry stands in.
    pub log: u16,
    /// The entry's index in it.
    pub index: u64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub party: Option<PartyId>,
    /// For what.
    pub scenario: Option<ScenarioId>,
    /// What.
    pub action: &'static str,
    /// By which rule.
    pub rule: Option<RuleId>,
}

/// Counts for charts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// A row for each day, party, scenario and action that occurred, in that order.
    pub rows: Vec<SummaryRow>,
    /// Whether more entries lie before those that were read.
    pub truncated: bool,
}

/// One count.
#[derive(Debug, PartialEq, Eq)]
pub struct SummaryRow {
    /// The civil day in Shanghai.
    pub day: Date,
    /// Who.
    pub party: Option<PartyId>,
    /// For what.
    pub scenario: Option<ScenarioId>,
    /// What.
    pub action: &'static str,
    /// How often.
    pub count: u64,
}

/// What a case is opened with.
#[derive(Clone)]
pub struct CaseRequest {
    /// Why.
    pub reason: String,
    /// About whom.
    pub person: Identity,
}

#[derive(Serialize, Deserialize)]
struct StoredCase {
    person: [u8; 32],
    reason: String,
    opened_by: String,
    confirmed_by: Option<String>,
}

impl Gateway {
    /// Lines of the log, newest first.
    pub async fn access_log(&self, officer: &Staff, filter: &LogFilter) -> Result<Vec<LogLine>, GatewayError> {
        if let Some(case) = &filter.case {
            return self.access_log_of_case(officer, case, filter).await;
        }
        self.officer_rule(officer, Action::ReadLog, &[])?;
        let before = match filter.before {
            Some(id) => {
                let log = self.logs().names().iter().any(|name| name.number == id.log);
                let log = if log { Some(self.logs().log(id.log).await?) } else { None };
                let log = log.filter(|log| id.index < log.size()).ok_or_else(not_in_list)?;
                let named = log.body(id.index).await?;
                if !filter.fits(&named) {
                    return Err(not_in_list().into());
                }
                Some((id, named.at))
            }
            None => None,
        };
        let mut entries = Merged::open(self.logs(), filter.from, filter.to, before).await?;
        let mut lines = Vec::new();
        while lines.len() < filter.limit && entries.read < READ_MAX {
            let Some((id, body)) = entries.next().await? else { break };
            if filter.fits(&body) {
                lines.push(line(id, body));
            }
        }
        Ok(lines)
    }

    /// Lines about the person of a case. The look-up is logged and shown to the person before
    /// anything of it is returned.
    async fn access_log_of_case(
        &self,
        officer: &Staff,
        case: &str,
        filter: &LogFilter,
    ) -> Result<Vec<LogLine>, GatewayError> {
        let (id, stored, _) = self.read_case(case).await?;
        let person = PersonId(stored.person);
        let open = OpenCase::confirmed(person, &stored.opened_by, stored.confirmed_by.as_deref());
        let holds: &[Condition] = if open.is_some() { &[Condition::OpenCase] } else { &[] };
        let permitted = self.officer_rule(officer, Action::LookUp, holds);
        let open = open.ok_or(Refusal::CaseNotOpen)?;
        let rule = permitted?;
        self.log_look_up(&id, &person, &rule).await?;

        let mut places = Vec::new();
        if let Some(dossier) = self.dossier(&open, person).await? {
            places = self.accesses_of(&open, &dossier.keys).await?;
        }
        places.extend(self.look_ups_of(&person).await?);
        let mut fitting = Vec::new();
        for id in places {
            let body = self.logs().body(id).await?;
            if filter.fits(&body) {
                fitting.push((body.at, id, body));
            }
        }
        fitting.sort_unstable_by_key(|(at, id, _)| std::cmp::Reverse((*at, *id)));
        let from = match filter.before {
            None => 0,
            Some(before) => fitting.iter().position(|(_, id, _)| *id == before).ok_or_else(not_in_list)? + 1,
        };
        let wanted = fitting.into_iter().skip(from).take(filter.limit);
        Ok(wanted.map(|(_, id, body)| line(id, body)).collect())
    }

    async fn log_look_up(&self, case: &[u8; 16], person: &PersonId, rule: &RuleId) -> Result<(), GatewayError> {
        for _ in 0..TRIES_MAX {
            let prefix = self.look_up_key(person);
            let pages = self.store.scan(tables::ACCESS, &prefix, &tables::after(&prefix), 10_000).await?;
            let last = pages.len().saturating_sub(1);
            let (mut number, mut cell, mut content) = (last, None, Vec::new());
            if let Some((key, found)) = pages.into_iter().next_back() {
                let place = Place::new(tables::ACCESS, key);
                content = self.vault.open_indexed(at(&place, found.version), &found.value)?.to_vec();
                cell = Some(found);
                if entries(&content).count() >= LOOK_UP_PLACES {
                    (number, cell, content) = (last + 1, None, Vec::new());
                }
            }
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let place = Place::new(tables::ACCESS, tables::key(&[&prefix, &number.to_be_bytes()]));
            let mut change = self.officer_change(LogAction::LookUp, rule, Subject::Case(*case))?;
            change.checks.push(unchanged(&place, cell.as_ref()));
            let (vault, sealed, version) = (self.vault.clone(), place.clone(), next_version(cell.as_ref()));
            let seal = Box::new(move |own: crate::ledger::LeafPlace| {
                let content = [content.as_slice(), &own.id().to_bytes()].concat();
                vault.seal_indexed(at(&sealed, version), &content, 1024).map_err(|e| e.to_string())
            });
            change.placed.push(PlacedWrite { place, version, seal });
            if self.record(change, None).await?.is_some() {
                return Ok(());
            }
        }
        Err(Refusal::Busy.into())
    }

    /// Counts by day, party, scenario and action.
    pub async fn summary(&self, officer: &Staff, filter: &LogFilter) -> Result<Summary, GatewayError> {
        self.officer_rule(officer, Action::ReadLog, &[])?;
        let mut entries = Merged::open(self.logs(), filter.from, filter.to, None).await?;
        let mut counts: BTreeMap<(Date, Option<PartyId>, Option<ScenarioId>, LogAction), u64> = BTreeMap::new();
        let (mut read, mut truncated) = (0, false);
        while let Some((_, body)) = entries.next().await? {
            if read == READ_MAX {
                truncated = true;
                break;
            }
            read += 1;
            if filter.fits(&body) {
                let day = crate::clock::day_of(body.at);
                *counts.entry((day, body.party, body.scenario, body.action)).or_default() += 1;
            }
        }
        let row = |((day, party, scenario, action), count): (_, u64)| {
            let action = LogAction::as_str(action);
            SummaryRow { day, party, scenario, action, count }
        };
        Ok(Summary { rows: counts.into_iter().map(row).collect(), truncated })
    }

    /// Opens a case; it lets nobody look until another officer has confirmed it.
    pub async fn open_case(&self, officer: &Staff, request: &CaseRequest) -> Result<String, GatewayError> {
        let rule = self.officer_rule(officer, Action::OpenCase, &[])?;
        let reason = request.reason.trim();
        if reason.is_empty() || reason.chars().count() > REASON_CHARS_MAX {
            let expected = format!("say in 1 to {REASON_CHARS_MAX} characters why the case is opened");
            return Err(Refusal::OutOfRange { field: "reason", expected }.into());
        }
        let id = entropy::bytes::<16>(&*self.entropy)?;
        let stored = StoredCase {
            person: self.vault.person_id(&request.person).0,
            reason: reason.to_owned(),
            opened_by: officer.login.clone(),
            confirmed_by: None,
        };
        let mut change = self.officer_change(LogAction::OpenCase, &rule, Subject::Case(id))?;
        self.add_case(&mut change, &id, &stored, None)?;
        self.record(change, None).await?.ok_or(Refusal::Busy)?;
        Ok(crate::hex::hex(&id))
    }

    /// Confirms a case of another officer.
    pub async fn confirm_case(&self, officer: &Staff, case: &str) -> Result<(), GatewayError> {
        for _ in 0..TRIES_MAX {
            let (id, mut stored, cell) = self.read_case(case).await?;
            let another = stored.opened_by != officer.login;
            let holds: &[Condition] = if another { &[Condition::AnotherOfficer] } else { &[] };
            let permitted = self.officer_rule(officer, Action::ConfirmCase, holds);
            if !another {
                return Err(Refusal::CaseOwn.into());
            }
            let rule = permitted?;
            if stored.confirmed_by.is_some() {
                return Ok(());
            }
            stored.confirmed_by = Some(officer.login.clone());
            let mut change = self.officer_change(LogAction::ConfirmCase, &rule, Subject::Case(id))?;
            self.add_case(&mut change, &id, &stored, Some(&cell))?;
            if self.record(change, None).await?.is_some() {
                return Ok(());
            }
        }
        Err(Refusal::Busy.into())
    }

    async fn read_case(&self, case: &str) -> Result<([u8; 16], StoredCase, Cell), GatewayError> {
        let id = case_id(case).ok_or(Refusal::NotFound)?;
        let place = Place::new(tables::CASE, id);
        let cell = self.get(&place).await?.ok_or(Refusal::NotFound)?;
        let content = self.vault.open_indexed(at(&place, cell.version), &cell.value)?;
        let stored =
            serde_json::from_slice(&content).map_err(|_| GatewayError::Fault("a case's cell does not read".into()))?;
        Ok((id, stored, cell))
    }

    fn add_case(
        &self,
        change: &mut Change,
        id: &[u8; 16],
        stored: &StoredCase,
        read: Option<&Cell>,
    ) -> Result<(), GatewayError> {
        let place = Place::new(tables::CASE, *id);
        let content = serde_json::to_vec(stored).map_err(|e| GatewayError::Fault(e.to_string()))?;
        self.put_indexed(change, place, read, &content, 1024)
    }

    fn officer_rule(&self, officer: &Staff, action: Action, holds: &[Condition]) -> Result<RuleId, GatewayError> {
        if officer.role != Role::Officer {
            return Err(Refusal::NotPermitted.into());
        }
        let (_, day) = self.now()?;
        Ok(Self::permit(&self.policies_on(day), &[officer.role], action, holds)?)
    }

    fn officer_change(&self, action: LogAction, rule: &RuleId, subject: Subject) -> Result<Change, GatewayError> {
        let (at, _) = self.now()?;
        let body = Body { at, party: None, scenario: None, action, rule: Some(rule.clone()), subject };
        Ok(Change::entry(self.random()?, body))
    }
}

impl LogFilter {
    fn fits(&self, body: &Body) -> bool {
        self.from.is_none_or(|from| body.at >= from)
            && self.to.is_none_or(|to| body.at < to)
            && self.party.as_ref().is_none_or(|party| body.party.as_ref() == Some(party))
            && self.scenario.as_ref().is_none_or(|scenario| body.scenario.as_ref() == Some(scenario))
            && self.action.is_none_or(|action| body.action == action)
    }
}

impl LogLine {
    /// The entry's id.
    pub fn id(&self) -> EntryId {
        EntryId { log: self.log, index: self.index }
    }
}

fn line(EntryId { log, index }: EntryId, body: Body) -> LogLine {
    let Body { at, party, scenario, action, rule, .. } = body;
    LogLine { log, index, at, party, scenario, action: action.as_str(), rule }
}

/// A case's id from its text: 32 hexadecimal digits.
fn case_id(text: &str) -> Option<[u8; 16]> {
    crate::hex::unhex(text)?.try_into().ok()
}
