//! A provider reports records. A record is in the score before its call returns.

use std::collections::{BTreeMap, BTreeSet};

use super::batches::BatchId;
use super::dossier::{Dossier, RECORDS_MAX};
use super::publish::Loaded;
use super::sent;
use super::upload::{Batch, Effect, Intake, RejectedLine, Touched};
use super::{Gateway, GatewayError, Refusal, TRIES_MAX, unchanged};
use crate::access_log::entry::LogAction;
use crate::catalogue::Category;
use crate::code::RecordId;
use crate::intake::{self, LineCode, LineError, RecordRules, Source};
use crate::ledger::Change;
use crate::person::PersonId;
use crate::record::Held;
use crate::store::{Cell, Place};

impl Gateway {
    pub(super) async fn report_batch(&self, batch: &Batch<'_>, lines: &[(u64, &[u8])]) -> Result<Intake, GatewayError> {
        let (catalogue, prohibited) = (&batch.policies.catalogue, &batch.policies.prohibited);
        let rules = RecordRules { catalogue, prohibited, today: batch.day, source: Source::Party(&batch.caller.party) };
        let read = |line: &[u8]| {
            let held = intake::record(line, &rules)?;
            let origin = self.origin_place(&held.record.provider, &held.record.id);
            let person = self.vault.person_id(&held.record.identity);
            Ok(Reported { person, origin, held })
        };
        let parsed: Vec<Line> = lines.iter().map(|(number, line)| (*number, read(line))).collect();
        let people: Vec<PersonId> =
            parsed.iter().filter_map(|(_, record)| Some(record.as_ref().ok()?.person)).collect();
        let mut turn = self.person_lanes.line_up(people.iter().map(|person| person.0.as_slice()));
        // Two batches of a large file nearly always have somebody in common; all others are read while those are waited for.
        let mut touched = Touched::none(batch.rule);
        for person in people.into_iter().filter(|person| !turn.is_shared(&person.0)) {
            self.touch(&mut touched, person).await?;
        }
        turn.come().await;
        for _ in 0..TRIES_MAX {
            let touched = std::mem::replace(&mut touched, Touched::none(batch.rule));
            if let Some(intake) = self.report_once(batch, lines, &parsed, touched).await? {
                return Ok(intake);
            }
        }
        Err(Refusal::Busy.into())
    }

    async fn report_once(
        &self,
        batch: &Batch<'_>,
        lines: &[(u64, &[u8])],
        parsed: &[Line],
        touched: Touched,
    ) -> Result<Option<Intake>, GatewayError> {
        let good = parsed.iter().filter_map(|(_, record)| record.as_ref().ok());
        let origins = self.origins(good.map(|reported| reported.origin.clone()).collect()).await?;
        let mut read = Read { touched, origins, listed: Vec::new() };
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
        let mut signed = None;
        if !batch.dry {
            let receipt = self.add_receipt(&mut change, batch, lines, &intake)?;
            self.add_origins(&mut change, batch, receipt.id, &read).await?;
            signed = Some(receipt);
        }
        let Some(entry) = self.record(change, nonce.as_ref()).await? else { return Ok(None) };
        intake.batches.extend(signed.map(|signed| signed.logged(&entry)).transpose()?);
        Ok(Some(intake))
    }

    /// Writes who holds the batch's records now, and where they stand in their provider's list.
    async fn add_origins(
        &self,
        change: &mut Change,
        batch: &Batch<'_>,
        id: BatchId,
        read: &Read,
    ) -> Result<(), GatewayError> {
        let listed = self.add_listed(change, batch, id, &read.listed).await?;
        for (place, origin) in &read.origins {
            let Some(holder) = origin.holder() else { continue };
            let before =
                origin.stored.unwrap_or(sent::Origin { holder, listed: None, withdrawn: false, objections: 0 });
            let place_in_list = origin.listed_as.as_ref().and_then(|id| listed.get(id)).copied();
            let after = sent::Origin { holder, listed: before.listed.or(place_in_list), ..before };
            if origin.doubted {
                change.checks.push(unchanged(place, origin.cell.as_ref()));
            }
            if origin.stored != Some(after) {
                self.write_origin(change, place, origin.cell.as_ref(), &after)?;
            }
        }
        Ok(())
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
        let market = policies.catalogue.get(held.record.indicator.as_str());
        let market = market.is_some_and(|indicator| indicator.category == Category::Market);
        let (_, day) = self.now()?;
        let dossier = self.touch(&mut read.touched, person).await?;
        if market && !dossier.permits(&held.record, day) {
            let message = match dossier.counts_from() {
                None => "the person has given no consent of this id to this provider for this indicator, or has taken it back: ask them for a new one".to_owned(),
                Some(from) => format!(
                    "the person has given no consent of this id to this provider for this indicator since {0}, or has taken it back: ask them for a new one. The store was restored, and every consent of before is lapsed; a form on paper signed since says its day: paper:{0}:NUMBER",
                    crate::clock::day_of(from)
                ),
            };
            return Ok(Err(LineError::new(LineCode::ConsentRequired, message)));
        }

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
            } else if let Some(origin) = read.origins.get_mut(place) {
                // Moved to somebody else since its origin was read, most likely: then all is to be read anew.
                origin.doubted = true;
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
        if let Some(origin) = read.origins.get_mut(place) {
            if moves_in {
                origin.moved_to = Some(person);
            }
            if origin.listed_as.is_none() && origin.stored.is_none_or(|stored| stored.listed.is_none()) {
                origin.listed_as = Some(id.clone());
                read.listed.push(id);
            }
        }
        Ok(Ok(effect))
    }

    /// Who holds the last versions of a batch's records, in one round trip.
    async fn origins(&self, places: BTreeSet<Place>) -> Result<BTreeMap<Place, Origin>, GatewayError> {
        let places: Vec<Place> = places.into_iter().collect();
        let cells = self.store.get_many(&places).await?;
        let origin = |(place, cell): (Place, Option<Cell>)| {
            let stored = cell.as_ref().map(|cell| self.open_origin(&place, cell)).transpose()?;
            Ok((place, Origin { cell, stored, moved_to: None, listed_as: None, doubted: false }))
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
    /// Those that come into the provider's list, in the order of their lines.
    listed: Vec<RecordId>,
}

/// Who holds a record's last version, and where it is listed.
struct Origin {
    cell: Option<Cell>,
    stored: Option<sent::Origin>,
    moved_to: Option<PersonId>,
    /// Its id, where this batch brings it into the list.
    listed_as: Option<RecordId>,
    /// Whether its holder turned out not to hold it.
    doubted: bool,
}

impl Origin {
    fn holder(&self) -> Option<PersonId> {
        self.moved_to.or(self.stored.map(|stored| stored.holder))
    }
}
