//! A provider reports records. A record is in the score before its call returns.

use std::collections::BTreeMap;

use jiff::{Timestamp, civil::Date};

use super::dossier::{Dossier, RECORDS_MAX};
use super::publish::Loaded;
use super::{Caller, Gateway, GatewayError, Refusal, TRIES_MAX, at, next_version, unchanged};
use crate::access::{Action, Condition};
use crate::access_log::entry::{Body, LogAction, Subject};
use crate::authority::Report;
use crate::code::RuleId;
use crate::intake::{self, LineCode, LineError, RecordRules, Source};
use crate::ledger::Change;
use crate::person::PersonId;
use crate::record::Held;
use crate::store::{Cell, Place, Write};
use crate::tables;

/// How many lines one entry of the log covers.
pub(super) const BATCH_LINES_MAX: usize = 500;

/// What became of an upload's lines: every line is in one of the four.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Intake {
    /// New ones.
    pub accepted: u64,
    /// Sent before, the same.
    pub unchanged: u64,
    /// Sent before with other content.
    pub replaced: u64,
    /// Refused ones, by line.
    pub rejected: Vec<RejectedLine>,
}

/// A refused line.
#[derive(Debug, PartialEq, Eq)]
pub struct RejectedLine {
    /// Counted from 1.
    pub line: u64,
    /// Why.
    pub error: LineError,
}

/// What one accepted line did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Accepted,
    Unchanged,
    Replaced,
}

impl Intake {
    pub(super) fn count(&mut self, effect: Effect) {
        match effect {
            Effect::Accepted => self.accepted += 1,
            Effect::Unchanged => self.unchanged += 1,
            Effect::Replaced => self.replaced += 1,
        }
    }

    fn add(&mut self, batch: Self) {
        self.accepted += batch.accepted;
        self.unchanged += batch.unchanged;
        self.replaced += batch.replaced;
        self.rejected.extend(batch.rejected);
    }
}

/// The lines of an NDJSON body with their numbers; blank ones are passed over, a byte order mark too.
pub(super) fn lines(body: &[u8]) -> Vec<(u64, &[u8])> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let lines = body.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    (1..).zip(lines).filter(|(_, line)| !line.iter().all(u8::is_ascii_whitespace)).collect()
}

impl Gateway {
    /// Takes an upload of records: good lines are taken even when others are refused.
    pub async fn report(&self, caller: &Caller, body: &[u8]) -> Result<Intake, GatewayError> {
        let (_, day) = self.now()?;
        let policies = self.policies_on(day);
        // Each line's indicator must name its provider; that is judged line by line, by its own code.
        let roles = super::roles(&policies, &caller.party);
        let rule = match Self::permit(&policies, &roles, Action::Report, &[Condition::IndicatorNamesProvider]) {
            Ok(rule) => rule,
            Err(refusal) => return Err(self.refuse(caller, refusal).await),
        };
        let lines = lines(body);
        let mut intake = Intake::default();
        let mut caller = caller.clone();
        for batch in lines.chunks(BATCH_LINES_MAX) {
            intake.add(self.report_batch(&caller, &rule, batch).await?);
            // The signature's nonce is spent by the first batch.
            caller.signature = None;
        }
        if lines.is_empty() {
            self.log_refusal(&caller).await?;
        }
        Ok(intake)
    }

    async fn report_batch(
        &self,
        caller: &Caller,
        rule: &RuleId,
        lines: &[(u64, &[u8])],
    ) -> Result<Intake, GatewayError> {
        let (now, day) = self.now()?;
        let policies = self.policies_on(day);
        let source = Source::Party(&caller.party);
        let rules =
            RecordRules { catalogue: &policies.catalogue, prohibited: &policies.prohibited, today: day, source };
        let parsed: Vec<(u64, Result<Held, LineError>)> =
            lines.iter().map(|(number, line)| (*number, intake::record(line, &rules))).collect();
        let people: Vec<PersonId> = parsed
            .iter()
            .filter_map(|(_, record)| record.as_ref().ok())
            .map(|held| self.vault.person_id(&held.record.identity))
            .collect();
        let _turn = self.person_lanes.enter(people.iter().map(|person| person.0.as_slice())).await;
        for _ in 0..TRIES_MAX {
            if let Some(intake) = self.report_once(caller, rule, &parsed, &policies, now, day).await? {
                return Ok(intake);
            }
        }
        Err(Refusal::Busy.into())
    }

    async fn report_once(
        &self,
        caller: &Caller,
        rule: &RuleId,
        parsed: &[(u64, Result<Held, LineError>)],
        policies: &Loaded,
        now: Timestamp,
        day: Date,
    ) -> Result<Option<Intake>, GatewayError> {
        let mut batch =
            Reporting { authority: Report::permitted(rule), dossiers: BTreeMap::new(), origins: BTreeMap::new() };
        let mut intake = Intake::default();
        for (line, record) in parsed {
            let error = match record {
                Ok(held) => match self.take(&mut batch, held.clone(), policies).await? {
                    Ok(effect) => {
                        intake.count(effect);
                        continue;
                    }
                    Err(error) => error,
                },
                Err(error) => error.clone(),
            };
            intake.rejected.push(RejectedLine { line: *line, error });
        }
        let body = Body {
            at: now,
            party: Some(caller.party.clone()),
            scenario: None,
            action: LogAction::Report,
            rule: Some(rule.clone()),
            subject: Subject::None,
        };
        let mut change = Change::entry(self.random()?, body);
        let nonce = self.spend_nonce(caller, &mut change);
        for dossier in batch.dossiers.values().filter(|dossier| dossier.changed()) {
            self.add_dossier(&mut change, dossier, policies, day)?;
        }
        for (place, origin) in &batch.origins {
            if let Some(holder) = origin.moved_to {
                let version = next_version(origin.cell.as_ref());
                let value = self.vault.seal_indexed(at(place, version), &holder.0, 64)?;
                change.checks.push(unchanged(place, origin.cell.as_ref()));
                change.writes.push(Write::Put(place.clone(), Cell { version, value }));
            }
        }
        let receipt = self.record(change, nonce.as_ref()).await?;
        Ok(receipt.map(|_| intake))
    }

    /// Puts one record where it belongs, in memory.
    async fn take(
        &self,
        batch: &mut Reporting,
        mut held: Held,
        policies: &Loaded,
    ) -> Result<Result<Effect, LineError>, GatewayError> {
        let person = self.vault.person_id(&held.record.identity);
        let (provider, id) = (held.record.provider.clone(), held.record.id.clone());
        let origin = self.vault.lookup("origin", &[provider.as_str().as_bytes(), id.as_str().as_bytes()]);
        let place = Place::new(tables::ORIGIN, origin);
        self.load_origin(batch, &place).await?;
        let holder = batch.origins.get(&place).and_then(Origin::holder);
        self.load_dossier(batch, person).await?;

        let mut effect = Effect::Accepted;
        if let Some(holder) = holder {
            self.load_dossier(batch, holder).await?;
            let earlier = batch.dossiers.get(&holder).and_then(|dossier| dossier.find(&provider, &id));
            if let Some(earlier) = earlier {
                // INVARIANT: repairs, withdrawals and upheld objections outlive replacement.
                held = held.replacing(earlier);
                if holder == person && *earlier == held {
                    return Ok(Ok(Effect::Unchanged));
                }
                effect = Effect::Replaced;
            }
        }
        let full = |dossier: &Dossier| dossier.len() >= RECORDS_MAX;
        let moves_in = holder != Some(person);
        if moves_in && batch.dossiers.get(&person).is_some_and(full) {
            let message = format!("a person has at most {RECORDS_MAX} records; withdraw some that no longer count");
            return Ok(Err(LineError { code: LineCode::TooLarge, message }));
        }
        if let Some(dossier) = holder.and_then(|holder| batch.dossiers.get_mut(&holder)) {
            dossier.remove(&provider, &id);
        }
        if let Some(dossier) = batch.dossiers.get_mut(&person) {
            dossier.insert(held, policies);
        }
        if let Some(origin) = batch.origins.get_mut(&place).filter(|_| moves_in) {
            origin.moved_to = Some(person);
        }
        Ok(Ok(effect))
    }

    async fn load_origin(&self, batch: &mut Reporting, place: &Place) -> Result<(), GatewayError> {
        if batch.origins.contains_key(place) {
            return Ok(());
        }
        let cell = self.get(place).await?;
        let stored = match &cell {
            Some(cell) => {
                let bytes = self.vault.open_indexed(at(place, cell.version), &cell.value)?;
                bytes.first_chunk::<32>().copied().map(PersonId)
            }
            None => None,
        };
        batch.origins.insert(place.clone(), Origin { cell, stored, moved_to: None });
        Ok(())
    }

    async fn load_dossier(&self, batch: &mut Reporting, person: PersonId) -> Result<(), GatewayError> {
        if !batch.dossiers.contains_key(&person) {
            let dossier = self.dossier_or_new(&batch.authority, person).await?;
            batch.dossiers.insert(person, dossier);
        }
        Ok(())
    }
}

/// What a batch has read and changed so far.
struct Reporting {
    authority: Report,
    dossiers: BTreeMap<PersonId, Dossier>,
    origins: BTreeMap<Place, Origin>,
}

/// Who holds a record's last version.
struct Origin {
    cell: Option<Cell>,
    stored: Option<PersonId>,
    moved_to: Option<PersonId>,
}

impl Origin {
    fn holder(&self) -> Option<PersonId> {
        self.moved_to.or(self.stored)
    }
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn lines_count_from_one_and_blank_ones_are_passed_over() {
        let found = lines(b"\xef\xbb\xbf{\"a\":1}\r\n\n  \n{\"b\":2}\n");
        assert_eq!(found, [(1, b"{\"a\":1}".as_slice()), (4, b"{\"b\":2}".as_slice())]);
    }
}
