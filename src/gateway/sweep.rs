//! Days pass: standings that are due are computed anew, a few at a time, whoever is asked about.
//!
//! Nothing rests on it. A score is right on the day it is asked for without a sweep, since whoever reads a due standing
//! computes the score; the sweep makes that rare, and tells people what changed. It reads the rows of the days that have
//! come (`due`) and no standing that is not due; only when catalogue or model change, or the store was restored, which
//! makes every standing due, it goes through everybody. How far it came is in the store, in the batch of what it did: killed at any point it goes on
//! from there, and several gateways may sweep one store.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::{ToSpan, civil::Date};
use serde::{Deserialize, Serialize};

use super::due::{DueRow, RowOf};
use super::publish::Loaded;
use super::{Gateway, GatewayError, at};
use crate::access_log::entry::{Body, LogAction, Subject};
use crate::authority::Sweep;
use crate::disclosure::Cause;
use crate::hex::{hex, unhex};
use crate::ledger::Change;
use crate::person::PersonId;
use crate::store::{Cell, KEYS_END, Place, Write};
use crate::tables;

/// How many people one entry covers.
const BATCH_PEOPLE: usize = 100;
/// How many people's standings one step looks at when catalogue or model have changed.
const PASS_PEOPLE: usize = 1_000;
/// How often a batch is tried as a whole before its people are taken one by one.
const BATCH_TRIES: usize = 8;
/// Days that were swept are looked at again for so long: another gateway may have been a little behind.
const AGAIN_DAYS: i32 = 2;
/// How far it came is written down at the latest after so many days on which nothing was due.
const KEPT_DAYS: i32 = 30;
/// How long it rests when nothing is due.
const IDLE: Duration = Duration::from_secs(5);

/// What one step did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many standings were computed anew.
    pub renewed: u64,
    /// Whether there may be more to do at once.
    pub more: bool,
}

/// How far the sweep came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// The last day of which nothing was left.
    through: Date,
    /// The rules that everybody's standing was computed by, as far as they were due.
    rules: String,
    /// A pass over everybody under other rules: these, and the person from whom it goes on.
    pass: Option<(String, String)>,
}

/// The state with the cell that it was read from.
struct Read {
    state: State,
    cell: Option<Cell>,
}

/// What became of some rows.
#[derive(Default)]
struct Done {
    /// Rows that are not there any more.
    gone: u64,
    renewed: u64,
    failed: Option<GatewayError>,
}

fn state_place() -> Place {
    Place::new(tables::SWEEP, b"state".as_slice())
}

impl Gateway {
    /// One step of the sweep: at most a hundred standings, in one batch with its entry.
    pub async fn sweep(&self) -> Result<Swept, GatewayError> {
        let (_, day, policies) = self.moment().await?;
        let mut read = self.swept_so_far(day).await?;
        let since = read.state.through.max(self.remembered(day));
        let again = since.saturating_sub((AGAIN_DAYS - 1).days());
        let (mut due, mut failed) = (again.min(day), None);
        while due <= day {
            let prefix = self.due_prefix(due);
            let (mut from, end) = (prefix.to_vec(), tables::after(&prefix));
            loop {
                let cells = self.store.scan(tables::DUE, &from, &end, BATCH_PEOPLE).await?;
                let Some((last, _)) = cells.last() else { break };
                from = [last.as_slice(), &[0]].concat();
                let done = self.sweep_rows(cells, due).await?;
                if done.gone > 0 {
                    return Ok(Swept { renewed: done.renewed, more: true });
                }
                // Damaged ones stay where they are, and hold up nobody behind them.
                failed = done.failed.or(failed);
            }
            due = due.tomorrow().map_err(|e| GatewayError::Fault(e.to_string()))?;
        }
        if let Some(error) = failed {
            return Err(error);
        }
        self.swept_through.store(days_since(day), Ordering::SeqCst);
        let rules = hex(policies.rules());
        if read.state.rules != rules {
            return self.pass_on(&mut read, &rules, day, &policies).await;
        }
        if read.state.through.saturating_add(KEPT_DAYS.days()) < day {
            read.state.through = day;
            let mut change = self.sweep_change()?;
            self.add_state(&mut change, &read)?;
            self.record(change, None).await?;
        }
        Ok(Swept::default())
    }

    /// The last day that this process has found nothing left of; a day long past where it has not looked yet.
    fn remembered(&self, day: Date) -> Date {
        match self.swept_through.load(Ordering::SeqCst) {
            0 => Date::MIN,
            days => day.saturating_sub((days_since(day) - days).max(0).days()),
        }
    }

    async fn swept_so_far(&self, day: Date) -> Result<Read, GatewayError> {
        let place = state_place();
        let Some(cell) = self.get(&place).await? else {
            // Nothing was ever swept here: there is no row of an earlier day, and everybody is to be looked at once.
            let through = day.yesterday().map_err(|e| GatewayError::Fault(e.to_string()))?;
            return Ok(Read { state: State { through, rules: String::new(), pass: None }, cell: None });
        };
        let content = self.vault.open_indexed(at(&place, cell.version), &cell.value)?;
        let state = serde_json::from_slice(&content);
        let state = state.map_err(|_| GatewayError::Fault("the sweep's cell does not read".into()))?;
        Ok(Read { state, cell: Some(cell) })
    }

    fn add_state(&self, change: &mut Change, read: &Read) -> Result<(), GatewayError> {
        let content = serde_json::to_vec(&read.state).unwrap_or_default();
        self.put_indexed(change, state_place(), read.cell.as_ref(), &content, 512)
    }

    /// The state of a store that begins today: nobody lives there yet, so nothing is due.
    pub(super) fn add_first_state(&self, change: &mut Change, rules: &[u8; 32], day: Date) -> Result<(), GatewayError> {
        let state = State { through: day, rules: hex(rules), pass: None };
        self.add_state(change, &Read { state, cell: None })
    }

    fn sweep_change(&self) -> Result<Change, GatewayError> {
        let (at, _) = self.now()?;
        let (action, subject) = (LogAction::Sweep, Subject::None);
        Ok(Change::entry(self.random()?, Body { at, party: None, scenario: None, action, rule: None, subject }))
    }

    /// Renews the standings of a day's rows; what cannot be done now is left for the next step.
    async fn sweep_rows(&self, cells: Vec<(Vec<u8>, Cell)>, due: Date) -> Result<Done, GatewayError> {
        let (mut rows, mut done) = (Vec::with_capacity(cells.len()), Done::default());
        for (key, cell) in cells {
            let place = Place::new(tables::DUE, key);
            match self.open_row_of_due(&place, &cell) {
                Ok(row) => rows.push((row, place)),
                Err(error) => done.failed = Some(error),
            }
        }
        let failed = done.failed;
        for _ in 0..BATCH_TRIES {
            if let Some(whole) = self.sweep_rows_once(&rows, due).await? {
                return Ok(Done { failed: whole.failed.or(failed), ..whole });
            }
        }
        // Somebody writes one of them all the time.
        let mut done = Done { failed, ..Done::default() };
        for row in &rows {
            let one = self.sweep_rows_once(std::slice::from_ref(row), due).await?.unwrap_or_default();
            (done.gone, done.renewed) = (done.gone + one.gone, done.renewed + one.renewed);
            done.failed = one.failed.or(done.failed);
        }
        Ok(done)
    }

    async fn sweep_rows_once(&self, rows: &[(DueRow, Place)], due: Date) -> Result<Option<Done>, GatewayError> {
        let (_, day, policies) = self.moment().await?;
        let (authority, mut done) = (Sweep::begun(), Done::default());
        let mut change = self.sweep_change()?;
        for (row, place) in rows {
            let before = (change.checks.len(), change.writes.len());
            match self.renew(&mut change, &authority, row, place, (due, day), &policies).await {
                Ok(renewed) => (done.gone, done.renewed) = (done.gone + 1, done.renewed + u64::from(renewed)),
                Err(error) => {
                    change.checks.truncate(before.0);
                    change.writes.truncate(before.1);
                    done.failed = Some(error);
                }
            }
        }
        if change.writes.is_empty() {
            return Ok(Some(done));
        }
        Ok(self.record(change, None).await?.map(|_| done))
    }

    /// Renews the standing of a row; `false` where the row leads nowhere, and goes.
    async fn renew(
        &self,
        change: &mut Change,
        authority: &Sweep,
        row: &DueRow,
        place: &Place,
        (due, day): (Date, Date),
        policies: &Loaded,
    ) -> Result<bool, GatewayError> {
        if self.get(place).await?.is_none() {
            // Another gateway was quicker.
            return Ok(false);
        }
        let Some(dossier) = self.dossier(authority, row.person).await? else {
            change.writes.push(Write::Delete(place.clone()));
            return Ok(false);
        };
        let (standing, check) = self.standing_of(&dossier)?;
        if RowOf::of(standing.as_ref()) == (RowOf { day: Some(due), row: row.row }) {
            self.add_dossier(change, &dossier, policies, day, Cause::Days)?;
            return Ok(true);
        }
        // A row that no standing knows.
        change.checks.push(check);
        change.writes.push(Write::Delete(place.clone()));
        Ok(false)
    }

    /// Goes on with the pass over everybody that other rules make necessary.
    async fn pass_on(&self, read: &mut Read, rules: &str, day: Date, policies: &Loaded) -> Result<Swept, GatewayError> {
        let from = match &read.state.pass {
            Some((of, from)) if of == rules => from.clone(),
            _ => String::new(),
        };
        let mut next = unhex(&from).unwrap_or_default();
        let (authority, mut change, mut renewed) = (Sweep::begun(), self.sweep_change()?, 0);
        let (mut looked_at, mut over) = (0, false);
        while looked_at < PASS_PEOPLE && renewed < BATCH_PEOPLE {
            let room = (BATCH_PEOPLE - renewed).min(PASS_PEOPLE - looked_at);
            let people = self.store.scan(tables::PERSON, &next, &KEYS_END, room).await?;
            let Some((last, _)) = people.last() else {
                over = true;
                break;
            };
            next = [last.as_slice(), &[0]].concat();
            looked_at += people.len();
            let ids: BTreeSet<PersonId> =
                people.iter().filter_map(|(key, _)| key.as_slice().try_into().ok().map(PersonId)).collect();
            for person in ids {
                let before = (change.checks.len(), change.writes.len());
                match self.renew_if_stale(&mut change, &authority, person, day, policies).await {
                    Ok(true) => renewed += 1,
                    Ok(false) => {}
                    // One person's damaged cell holds up nobody else; the audit names it.
                    Err(error) => {
                        tracing::error!(%error, "a standing that is due cannot be computed anew");
                        change.checks.truncate(before.0);
                        change.writes.truncate(before.1);
                    }
                }
            }
        }
        if over {
            read.state = State { through: day, rules: rules.to_owned(), pass: None };
        } else {
            read.state.pass = Some((rules.to_owned(), hex(&next)));
        }
        self.add_state(&mut change, read)?;
        let done = self.record(change, None).await?.is_some();
        // Where others wrote meanwhile, or another gateway sweeps, the same is looked at again.
        let renewed = if done { u64::try_from(renewed).unwrap_or(u64::MAX) } else { 0 };
        Ok(Swept { renewed, more: !(over && done) })
    }

    async fn renew_if_stale(
        &self,
        change: &mut Change,
        authority: &Sweep,
        person: PersonId,
        day: Date,
        policies: &Loaded,
    ) -> Result<bool, GatewayError> {
        let Some(Some(standing)) = self.standing_by(authority, person).await? else { return Ok(false) };
        if standing.row != 0 && !standing.due(day, policies.rules()) {
            return Ok(false);
        }
        let Some(dossier) = self.dossier(authority, person).await? else { return Ok(false) };
        self.add_dossier(change, &dossier, policies, day, policies.cause(&standing.rules))?;
        Ok(true)
    }

    /// Sweeps for as long as the gateway runs; after each step it rests for `rest` times as long as the step took.
    pub async fn keep_swept(&self, rest: u32) {
        let mut told = String::new();
        loop {
            let began = self.clock.monotonic();
            let more = match self.sweep().await {
                Ok(swept) => {
                    told.clear();
                    if swept.renewed > 0 {
                        tracing::debug!(standings = swept.renewed, "standings that were due were computed anew");
                    }
                    swept.more
                }
                Err(error) => {
                    if error.to_string() != told {
                        told = error.to_string();
                        tracing::error!(%error, "standings that are due cannot be computed anew; tried again");
                    }
                    false
                }
            };
            let took = self.clock.monotonic().saturating_sub(began);
            tokio::time::sleep(if more { took.saturating_mul(rest) } else { IDLE }).await;
        }
    }
}

/// Days since 1970, as a number that fits an atomic; 0 for none.
fn days_since(day: Date) -> i32 {
    let days = crate::clock::start_of(day).as_second().div_euclid(86_400);
    i32::try_from(days).unwrap_or_default()
}
