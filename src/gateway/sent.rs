//! What a provider sent: its records by id, newest first, and the withdrawal of one.
//!
//! The list has ids, times and what became of a record, and nothing about whom it is: a provider learns nothing
//! back, and neither does who has stolen its certificate. Ids stand by the day on which they were first accepted,
//! under a key that is another one each day, so that the store's holder cannot follow a provider from day to day;
//! one small cell a month says on which days there are any.

use std::collections::BTreeMap;

use jiff::{Timestamp, civil::Date};

use super::batches::BatchId;
use super::upload::{Batch, Touched};
use super::{Caller, Gateway, GatewayError, Refusal, TRIES_MAX, at};
use crate::access::Action;
use crate::access_log::entry::{Body, LogAction, Subject};
use crate::code::{PartyId, RecordId, RuleId};
use crate::disclosure::Cause;
use crate::ledger::Change;
use crate::person::PersonId;
use crate::store::{Cell, Place};
use crate::tables;

/// How much of ids one cell takes.
const IDS_BYTES_MAX: usize = 48 * 1024;
/// The longest reason, in characters.
pub const REASON_CHARS_MAX: usize = 1_000;
/// How many months are looked at in one round trip.
const MONTHS_AT_ONCE: usize = 12;
/// The first year of which anything can have been sent.
const FIRST_YEAR: i16 = 2024;

/// Where a record stands in its provider's list: what follows the day in the key of the cell that holds its id.
pub(super) type Listed = [u8; 16];

/// What is known of a record by its provider and id.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    /// Who holds its last version.
    pub holder: PersonId,
    /// Where it stands in the list; none where an earlier build took it.
    pub listed: Option<Listed>,
    /// Whether its provider has withdrawn it.
    pub withdrawn: bool,
    /// How many objections there were to it.
    pub objections: u16,
}

impl Origin {
    /// The bytes to seal.
    pub fn encode(&self) -> Vec<u8> {
        let state = [u8::from(self.withdrawn)];
        [&self.holder.0[..], &self.listed.unwrap_or_default(), &state, &self.objections.to_be_bytes()].concat()
    }

    /// Reads the opened bytes; an earlier build wrote the person alone.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (holder, rest) = bytes.split_first_chunk::<32>()?;
        let (mut listed, mut withdrawn, mut objections) = (None, false, 0);
        if let Some((place, state)) = rest.split_first_chunk::<16>() {
            let (flag, count) = state.split_first()?;
            listed = Some(*place).filter(|place| *place != Listed::default());
            (withdrawn, objections) = (*flag == 1, u16::from_be_bytes(count.try_into().ok()?));
        }
        Some(Self { holder: PersonId(*holder), listed, withdrawn, objections })
    }
}

/// A record in its provider's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentView {
    /// The provider's id of it.
    pub id: RecordId,
    /// When it was first accepted.
    pub at: Timestamp,
    /// In which batch.
    pub batch: BatchId,
    /// Whether its provider has withdrawn it.
    pub withdrawn: bool,
    /// How many objections there were to it.
    pub objections: u16,
}

/// How many of a provider's records were taken back or objected to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SentSummary {
    /// Withdrawn by the provider.
    pub withdrawn: u64,
    /// Objected to at least once.
    pub objected: u64,
}

/// One cell of the list: its batch, and ids in the order of their lines.
struct Row {
    at: Timestamp,
    batch: BatchId,
    ids: Vec<String>,
}

impl Gateway {
    /// Where the origin of a record lies.
    pub(super) fn origin_place(&self, provider: &PartyId, id: &RecordId) -> Place {
        Place::new(tables::ORIGIN, self.vault.lookup("origin", &[provider.as_str().as_bytes(), id.as_str().as_bytes()]))
    }

    pub(super) fn open_origin(&self, place: &Place, cell: &Cell) -> Result<Origin, GatewayError> {
        let content = self.vault.open_indexed(at(place, cell.version), &cell.value)?;
        Origin::decode(&content)
            .ok_or_else(|| GatewayError::Fault("the cell of a record's origin does not read".into()))
    }

    pub(super) fn write_origin(
        &self,
        change: &mut Change,
        place: &Place,
        read: Option<&Cell>,
        origin: &Origin,
    ) -> Result<(), GatewayError> {
        self.put_indexed(change, place.clone(), read, &origin.encode(), 64)
    }

    /// Adds the cells that list these ids, in the order of their lines, and tells where each stands.
    pub(super) async fn add_listed(
        &self,
        change: &mut Change,
        batch: &Batch<'_>,
        id: BatchId,
        ids: &[RecordId],
    ) -> Result<BTreeMap<RecordId, Listed>, GatewayError> {
        let (mut listed, mut rest) = (BTreeMap::new(), ids);
        // Newest first, as keys go up: the last of the cells of one batch comes first.
        let before = (u64::MAX - millisecond(batch.now)).to_be_bytes();
        let mut part = u16::MAX;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |id: &&RecordId| {
                bytes += id.as_str().len() * 2 + 8;
                bytes <= IDS_BYTES_MAX
            };
            let (now, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            let [a, b, c, d, e, f] = crate::entropy::bytes::<6>(&*self.entropy)?;
            let [p, q] = part.to_be_bytes();
            let mut place: Listed = [0; 16];
            let suffix = before.into_iter().chain([p, q, a, b, c, d, e, f]);
            place.iter_mut().zip(suffix).for_each(|(to, from)| *to = from);
            let cell =
                Place::new(tables::SENT, tables::key(&[&self.day_prefix(&batch.caller.party, batch.day), &place]));
            let texts: Vec<&str> = now.iter().map(RecordId::as_str).collect();
            let content = serde_json::to_vec(&(id.to_text(), texts)).unwrap_or_default();
            self.put_indexed(change, cell, None, &content, 64)?;
            listed.extend(now.iter().map(|id| (id.clone(), place)));
            (part, rest) = (part.saturating_sub(1), later);
        }
        if !listed.is_empty() {
            self.add_day(change, &batch.caller.party, batch.day).await?;
        }
        Ok(listed)
    }

    /// Marks the day in its month, once.
    async fn add_day(&self, change: &mut Change, provider: &PartyId, day: Date) -> Result<(), GatewayError> {
        let place = self.month_place(provider, day.year(), day.month());
        let cell = self.get(&place).await?;
        let (before, bit) = (self.days_of(&place, cell.as_ref())?, 1u32 << u32::from(day.day().unsigned_abs()));
        if before & bit != 0 {
            return Ok(());
        }
        self.put_indexed(change, place, cell.as_ref(), &(before | bit).to_be_bytes(), 64)
    }

    fn days_of(&self, place: &Place, cell: Option<&Cell>) -> Result<u32, GatewayError> {
        let Some(cell) = cell else { return Ok(0) };
        let content = self.vault.open_indexed(at(place, cell.version), &cell.value)?;
        Ok(content.first_chunk::<4>().map_or(0, |days| u32::from_be_bytes(*days)))
    }

    fn month_place(&self, provider: &PartyId, year: i16, month: i8) -> Place {
        let parts = [provider.as_str().as_bytes(), &year.to_be_bytes(), &month.to_be_bytes()];
        Place::new(tables::SENT, self.vault.lookup("sent month", &parts))
    }

    fn day_prefix(&self, provider: &PartyId, day: Date) -> [u8; 16] {
        let mac = self.vault.lookup("sent day", &[provider.as_str().as_bytes(), day.to_string().as_bytes()]);
        mac.first_chunk::<16>().copied().unwrap_or_default()
    }

    /// A provider's own records, newest first, those behind the one with this id.
    pub async fn sent(
        &self,
        caller: &Caller,
        before: Option<&str>,
        limit: usize,
    ) -> Result<Vec<SentView>, GatewayError> {
        let (_, day, policies) = self.moment().await?;
        let rule = self.permit_party(caller, &policies, Action::ReadSent, &[]).await?;
        let found = match self.page_of(&caller.party, day, before, limit).await? {
            Some(found) => found,
            None => {
                return Err(self.refuse(caller, Refusal::BadPage("before is the id of a record in this list")).await);
            }
        };
        let places: Vec<Place> = found.iter().map(|(id, ..)| self.origin_place(&caller.party, id)).collect();
        let cells = self.store.get_many(&places).await?;
        let mut views = Vec::with_capacity(found.len());
        for ((id, at, batch), (place, cell)) in found.into_iter().zip(places.iter().zip(cells)) {
            let origin = cell.map(|cell| self.open_origin(place, &cell)).transpose()?;
            let (withdrawn, objections) = origin.map_or((false, 0), |origin| (origin.withdrawn, origin.objections));
            views.push(SentView { id, at, batch, withdrawn, objections });
        }
        self.log_reading(caller, &rule).await?;
        Ok(views)
    }

    /// Ids of the list; none where `before` is not in it.
    async fn page_of(
        &self,
        provider: &PartyId,
        today: Date,
        before: Option<&str>,
        limit: usize,
    ) -> Result<Option<Vec<(RecordId, Timestamp, BatchId)>>, GatewayError> {
        let (mut found, mut from, mut newest) = (Vec::new(), None, today);
        if let Some(before) = before {
            let Some(listed) = self.listed(provider, before).await? else { return Ok(None) };
            newest = crate::clock::day_of(time_of(&listed)?);
            from = Some((listed, before));
        }
        let (mut year, mut month) = (newest.year(), newest.month());
        while year >= FIRST_YEAR && found.len() < limit {
            let mut months = Vec::with_capacity(MONTHS_AT_ONCE);
            while months.len() < MONTHS_AT_ONCE && year >= FIRST_YEAR {
                months.push((year, month));
                (year, month) = if month == 1 { (year - 1, 12) } else { (year, month - 1) };
            }
            let places: Vec<Place> =
                months.iter().map(|(year, month)| self.month_place(provider, *year, *month)).collect();
            let cells = self.store.get_many(&places).await?;
            for ((year, month), (place, cell)) in months.into_iter().zip(places.iter().zip(cells)) {
                let days = self.days_of(place, cell.as_ref())?;
                for day in (1..=31i8).rev().filter(|day| days & (1 << u32::from(day.unsigned_abs())) != 0) {
                    let Ok(day) = Date::new(year, month, day) else { continue };
                    if day <= newest && found.len() < limit {
                        self.of_day(provider, day, &mut from, limit, &mut found).await?;
                    }
                }
            }
        }
        Ok(Some(found))
    }

    /// Adds a day's ids, newest first, from a place on.
    async fn of_day(
        &self,
        provider: &PartyId,
        day: Date,
        from: &mut Option<(Listed, &str)>,
        limit: usize,
        found: &mut Vec<(RecordId, Timestamp, BatchId)>,
    ) -> Result<(), GatewayError> {
        let prefix = self.day_prefix(provider, day);
        let start = from.as_ref().map_or_else(Vec::new, |(listed, _)| listed.to_vec());
        let (mut next, end) = (tables::key(&[&prefix, &start]), tables::after(&prefix));
        while found.len() < limit {
            let cells = self.store.scan(tables::SENT, &next, &end, 4).await?;
            let Some((last, _)) = cells.last() else { return Ok(()) };
            next = [last.as_slice(), &[0]].concat();
            for (key, cell) in cells {
                let Row { at, batch, ids } = self.open_row(key, &cell)?;
                let mut ids: Vec<String> = ids;
                if let Some((_, before)) = from.take()
                    && let Some(place) = ids.iter().position(|id| id == before)
                {
                    ids.truncate(place);
                }
                let room = limit.saturating_sub(found.len());
                let parsed = ids.iter().rev().take(room).filter_map(|id| RecordId::parse(id).ok());
                found.extend(parsed.map(|id| (id, at, batch)));
            }
        }
        Ok(())
    }

    fn open_row(&self, key: Vec<u8>, cell: &Cell) -> Result<Row, GatewayError> {
        let broken = || GatewayError::Fault("a cell of table sent has content of an unknown form".into());
        let listed: Listed = key.get(16..).and_then(|rest| rest.try_into().ok()).ok_or_else(broken)?;
        let place = Place::new(tables::SENT, key);
        let content = self.vault.open_indexed(at(&place, cell.version), &cell.value)?;
        let (batch, ids): (String, Vec<String>) = serde_json::from_slice(&content).map_err(|_| broken())?;
        Ok(Row { at: time_of(&listed)?, batch: BatchId::parse(&batch).ok_or_else(broken)?, ids })
    }

    async fn listed(&self, provider: &PartyId, id: &str) -> Result<Option<Listed>, GatewayError> {
        let Ok(id) = RecordId::parse(id) else { return Ok(None) };
        let place = self.origin_place(provider, &id);
        match self.get(&place).await? {
            Some(cell) => Ok(self.open_origin(&place, &cell)?.listed),
            None => Ok(None),
        }
    }

    /// How many of a provider's records it withdrew, and how many were objected to.
    pub async fn sent_summary(&self, caller: &Caller) -> Result<SentSummary, GatewayError> {
        let (_, _, policies) = self.moment().await?;
        let rule = self.permit_party(caller, &policies, Action::ReadSent, &[]).await?;
        let (_, _, summary) = self.tally(&caller.party).await?;
        self.log_reading(caller, &rule).await?;
        Ok(summary)
    }

    async fn tally(&self, provider: &PartyId) -> Result<(Place, Option<Cell>, SentSummary), GatewayError> {
        let place = Place::new(tables::SENT, self.vault.lookup("sent tally", &[provider.as_str().as_bytes()]));
        let cell = self.get(&place).await?;
        let mut summary = SentSummary::default();
        if let Some(cell) = &cell {
            let content = self.vault.open_indexed(at(&place, cell.version), &cell.value)?;
            let broken = |_| GatewayError::Fault("a cell of table sent has content of an unknown form".into());
            (summary.withdrawn, summary.objected) = serde_json::from_slice(&content).map_err(broken)?;
        }
        Ok((place, cell, summary))
    }

    /// Takes a provider's own record out of every score, for good; again changes nothing.
    pub async fn withdraw(&self, caller: &Caller, id: &str, reason: &str) -> Result<(), GatewayError> {
        let (_, _, policies) = self.moment().await?;
        let rule = self.permit_party(caller, &policies, Action::Withdraw, &[]).await?;
        let unseen = |c: char| crate::text::is_bidi_control(c) || (c.is_control() && !matches!(c, '\n' | '\r' | '\t'));
        let blank = reason.trim().is_empty();
        if blank || reason.chars().count() > REASON_CHARS_MAX || reason.chars().any(unseen) {
            let expected =
                format!("1 to {REASON_CHARS_MAX} characters that are not blank, none of them a control character");
            return Err(self.refuse(caller, Refusal::OutOfRange { field: "reason", expected }).await);
        }
        let Ok(id) = RecordId::parse(id) else { return Err(self.refuse(caller, Refusal::NotFound).await) };
        for _ in 0..TRIES_MAX {
            match self.withdraw_once(caller, &rule, &id, reason).await? {
                Some(true) => return Ok(()),
                Some(false) => return Err(self.refuse(caller, Refusal::NotFound).await),
                None => {}
            }
        }
        Err(Refusal::Busy.into())
    }

    /// `Some(false)` where there is no such record.
    async fn withdraw_once(
        &self,
        caller: &Caller,
        rule: &RuleId,
        id: &RecordId,
        reason: &str,
    ) -> Result<Option<bool>, GatewayError> {
        let (now, day, policies) = self.moment().await?;
        let place = self.origin_place(&caller.party, id);
        let Some(cell) = self.get(&place).await? else { return Ok(Some(false)) };
        let origin = self.open_origin(&place, &cell)?;
        let _turn = self.person_lanes.enter([origin.holder.0.as_slice()].into_iter()).await;
        let mut touched = Touched::none(rule);
        let dossier = self.touch(&mut touched, origin.holder).await?;
        // Moved to somebody else since: read again.
        let Some(held) = dossier.find(&caller.party, id).cloned() else { return Ok(None) };
        let body = Body {
            at: now,
            party: Some(caller.party.clone()),
            scenario: None,
            action: LogAction::Withdraw,
            rule: Some(rule.clone()),
            subject: Subject::None,
        };
        let mut change = Change::entry(self.random()?, body);
        let nonce = self.spend_nonce(caller, &mut change);
        if !(held.withdrawn && origin.withdrawn) {
            dossier.remove(&caller.party, id);
            let because = held.withdrawn_because.clone().or_else(|| Some(reason.to_owned()));
            let withdrawn = crate::record::Held { withdrawn: true, withdrawn_because: because, ..held };
            dossier.insert(withdrawn, &policies);
            self.add_dossier(&mut change, dossier, &policies, day, Cause::Withdrawal)?;
            self.write_origin(&mut change, &place, Some(&cell), &Origin { withdrawn: true, ..origin })?;
            let (place, read, summary) = self.tally(&caller.party).await?;
            let content = serde_json::to_vec(&(summary.withdrawn + 1, summary.objected)).unwrap_or_default();
            self.put_indexed(&mut change, place, read.as_ref(), &content, 64)?;
        }
        Ok(self.record(change, nonce.as_ref()).await?.map(|_| true))
    }
}

fn millisecond(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or_default()
}

fn time_of(listed: &Listed) -> Result<Timestamp, GatewayError> {
    let before = listed.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let millisecond = i64::try_from(u64::MAX - before).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(millisecond).map_err(|e| GatewayError::Fault(e.to_string()))
}
