//! A provider reports records. A record is in the score before its call returns.

use std::collections::{BTreeMap, BTreeSet};

use super::dossier::{Dossier, RECORDS_MAX};
use super::publish::Loaded;
use super::upload::{Batch, Effect, Intake, RejectedLine, Touched};
use super::{Gateway, GatewayError, Refusal, TRIES_MAX, at, next_version, unchanged};
use crate::access_log::entry::LogAction;
use crate::intake::{self, LineCode, LineError, RecordRules, Source};
use crate::person::PersonId;
use crate::record::{Held, Record};
use crate::store::{Cell, Place, Write};
use crate::tables;

impl Gateway {
    pub(super) async fn report_batch(&self, batch: &Batch<'_>, lines: &[(u64, &[u8])]) -> Result<Intake, GatewayError> {
        let (catalogue, prohibited) = (&batch.policies.catalogue, &batch.policies.prohibited);
        let rules = RecordRules { catalogue, prohibited, today: batch.day, source: Source::Party(&batch.caller.party) };
        let read = |line: &[u8]| {
            let held = intake::record(line, &rules)?;
            let (person, origin) = (self.vault.person_id(&held.record.identity), self.origin_place(&held.record));
            Ok(Reported { person, origin, held })
        };
        let parsed: Vec<Line> = lines.iter().map(|(number, line)| (*number, read(line))).collect();
        let people = parsed.iter().filter_map(|(_, record)| Some(record.as_ref().ok()?.person.0.as_slice()));
        let _turn = self.person_lanes.enter(people).await;
        for _ in 0..TRIES_MAX {
            if let Some(intake) = self.report_once(batch, &parsed).await? {
                return Ok(intake);
            }
        }
        Err(Refusal::Busy.into())
    }

    async fn report_once(&self, batch: &Batch<'_>, parsed: &[Line]) -> Result<Option<Intake>, GatewayError> {
        let good = parsed.iter().filter_map(|(_, record)| record.as_ref().ok());
        let origins = self.origins(good.map(|reported| reported.origin.clone()).collect()).await?;
        let mut read = Read { touched: Touched::none(batch.rule), origins };
        let mut intake = Intake::default();
        for (line, record) in parsed {
            let taken = match record {
                Ok(reported) => self.take(&mut read, reported, batch.policies).await?,
                Err(error) => Err(error.clone()),
            };
            match taken {
                Ok(effect) => intake.count(effect),
                Err(error) => intake.rejected.push(RejectedLine { line: *line, error }),
            }
        }
        let (mut change, nonce) = self.upload_change(batch, LogAction::Report, &read.touched)?;
        for (place, origin) in &read.origins {
            if let Some(holder) = origin.moved_to.filter(|_| !batch.dry) {
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
        read: &mut Read,
        reported: &Reported,
        policies: &Loaded,
    ) -> Result<Result<Effect, LineError>, GatewayError> {
        let (person, place, mut held) = (reported.person, &reported.origin, reported.held.clone());
        let (provider, id) = (held.record.provider.clone(), held.record.id.clone());
        let holder = read.origins.get(place).and_then(Origin::holder);
        self.touch(&mut read.touched, person).await?;

        let mut effect = Effect::Accepted;
        if let Some(holder) = holder {
            self.touch(&mut read.touched, holder).await?;
            let earlier = read.touched.get(&holder).and_then(|dossier| dossier.find(&provider, &id));
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
        if moves_in && read.touched.get(&person).is_some_and(full) {
            let message = format!("a person has at most {RECORDS_MAX} records; withdraw some that no longer count");
            return Ok(Err(LineError { code: LineCode::TooLarge, message }));
        }
        if let Some(dossier) = holder.and_then(|holder| read.touched.get_mut(&holder)) {
            dossier.remove(&provider, &id);
        }
        if let Some(dossier) = read.touched.get_mut(&person) {
            dossier.insert(held, policies);
        }
        if let Some(origin) = read.origins.get_mut(place).filter(|_| moves_in) {
            origin.moved_to = Some(person);
        }
        Ok(Ok(effect))
    }

    fn origin_place(&self, record: &Record) -> Place {
        let (provider, id) = (record.provider.as_str().as_bytes(), record.id.as_str().as_bytes());
        Place::new(tables::ORIGIN, self.vault.lookup("origin", &[provider, id]))
    }

    /// Who holds the last versions of a batch's records, in one round trip.
    async fn origins(&self, places: BTreeSet<Place>) -> Result<BTreeMap<Place, Origin>, GatewayError> {
        let places: Vec<Place> = places.into_iter().collect();
        let cells = self.store.get_many(&places).await?;
        let origin = |(place, cell): (Place, Option<Cell>)| {
            let stored = match &cell {
                Some(cell) => {
                    let bytes = self.vault.open_indexed(at(&place, cell.version), &cell.value)?;
                    bytes.first_chunk::<32>().copied().map(PersonId)
                }
                None => None,
            };
            Ok((place, Origin { cell, stored, moved_to: None }))
        };
        places.into_iter().zip(cells).map(origin).collect()
    }
}

/// A line's number, and what it reports, or why it is refused.
type Line = (u64, Result<Reported, LineError>);

/// A record, whom it is about, and the cell that says who holds its last version.
struct Reported {
    person: PersonId,
    origin: Place,
    held: Held,
}

/// What a batch has read and changed so far.
struct Read {
    touched: Touched,
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
