//! A person's register entry and records, read and written whole.
//!
//! Every change of either writes the person's standing, and checks the version that it read: that one
//! cell puts all changes about a person in an order.

mod stored;

use std::borrow::Cow;
use std::collections::BTreeSet;

use jiff::{Timestamp, civil::Date};

pub(super) use stored::read_person;
use stored::{Stored, write_person};

use super::due::RowOf;
use super::publish::Loaded;
use super::{Gateway, GatewayError, at, next_version, unchanged};
use crate::authority::Authority;
use crate::catalogue::{Catalogue, Category};
use crate::code::{PartyId, RecordId};
use crate::disclosure::{Cause, Standing};
use crate::ledger::Change;
use crate::market::MarketConsents;
use crate::model::Model;
use crate::person::{Person, PersonId};
use crate::policies::PolicySet;
use crate::record::{Held, Record};
use crate::score::{self, Outcome};
use crate::store::{Cell, Check, Place, Write};
use crate::tables;
use crate::vault::{Part, PersonKeys, Vault};

/// How many records a person may have.
pub(super) const RECORDS_MAX: usize = 2_000;
/// How full a chunk may be, so that its sealed cell stays within one size of the vault.
const CHUNK_BYTES_MAX: usize = 56 * 1024;
/// More chunks than the most records can fill.
const CHUNKS_MAX: usize = 512;
/// The part of a dossier, in its keys, that holds what the person said about market information.
const MARKET: u8 = 2;

/// What a dossier's cells hold, opened under an authority.
pub(super) struct Dossier {
    /// The data keys, opened.
    pub keys: PersonKeys,
    /// The register's entry, where the person is registered.
    pub person: Option<Person>,
    chunks: Vec<Chunk>,
    market: MarketConsents,
    market_changed: bool,
    market_cell: Option<Cell>,
    /// The instant before which consents are lapsed, where the store was restored.
    counts_from: Option<Timestamp>,
    person_cell: Option<Cell>,
    standing_cell: Option<Cell>,
    person_changed: bool,
}

struct Chunk {
    part: Part,
    number: u16,
    cell: Option<Cell>,
    held: Vec<Held>,
    bytes: usize,
    changed: bool,
}

/// A cell's content that does not read back.
fn broken(table: &str) -> GatewayError {
    GatewayError::Fault(format!("a cell of table {table} has content of an unknown form"))
}

impl Gateway {
    /// Reads a person's dossier; none where nothing is known of them.
    pub(super) async fn dossier(
        &self,
        authority: &dyn Authority,
        person: PersonId,
    ) -> Result<Option<Dossier>, GatewayError> {
        let Some(person_cell) = self.get(&Place::new(tables::PERSON, person.0)).await? else { return Ok(None) };
        let (keys, entry) = self.vault.open_person(authority, person, person_cell.version, &person_cell.value)?;
        let standing_cell = self.get(&Place::new(tables::STANDING, person.0)).await?;
        let cells = self.store.scan(tables::DOSSIER, &person.0, &tables::after(&person.0), CHUNKS_MAX).await?;
        let mut chunks = Vec::with_capacity(cells.len());
        let (mut market, mut market_cell) = (MarketConsents::default(), None);
        for (key, cell) in cells {
            if key.get(32) == Some(&MARKET) {
                market = open_market(&self.vault, &keys, key, &cell)?;
                market_cell = Some(cell);
            } else {
                chunks.push(open_chunk(&self.vault, &keys, key, cell)?);
            }
        }
        let person = if entry.is_empty() { None } else { Some(read_person(&entry)?) };
        let person_cell = Some(person_cell);
        let (person_changed, market_changed) = (false, false);
        Ok(Some(Dossier {
            keys,
            person,
            chunks,
            market,
            market_changed,
            market_cell,
            counts_from: self.consents_from,
            person_cell,
            standing_cell,
            person_changed,
        }))
    }

    /// The dossier of somebody of whom something is about to be known.
    pub(super) async fn dossier_or_new(
        &self,
        authority: &dyn Authority,
        person: PersonId,
    ) -> Result<Dossier, GatewayError> {
        match self.dossier(authority, person).await? {
            Some(dossier) => Ok(dossier),
            None => Ok(Dossier {
                keys: self.vault.new_person(person)?,
                person: None,
                chunks: Vec::new(),
                market: MarketConsents::default(),
                market_changed: false,
                market_cell: None,
                counts_from: self.consents_from,
                person_cell: None,
                standing_cell: None,
                person_changed: true,
            }),
        }
    }

    /// Adds everything that changed in the dossier to a change, with the standing that follows.
    pub(super) fn add_dossier(
        &self,
        change: &mut Change,
        dossier: &Dossier,
        policies: &Loaded,
        day: Date,
        cause: Cause,
    ) -> Result<(), GatewayError> {
        let keys = &dossier.keys;
        let person = Place::new(tables::PERSON, keys.person().0);
        if dossier.person_changed {
            let entry = dossier.person.as_ref().map(write_person).unwrap_or_default();
            let version = next_version(dossier.person_cell.as_ref());
            let value = self.vault.seal_person(keys, version, &entry, self.clock.now())?;
            // A rotation writes this cell too.
            change.checks.push(unchanged(&person, dossier.person_cell.as_ref()));
            change.writes.push(Write::Put(person, Cell { version, value }));
        }
        for chunk in dossier.chunks.iter().filter(|chunk| chunk.changed) {
            let place = chunk_place(keys.person(), chunk.part, chunk.number);
            let version = next_version(chunk.cell.as_ref());
            let stored: Vec<Stored<'_>> = chunk.held.iter().map(Stored::write).collect();
            let mut content = Vec::with_capacity(chunk.bytes + 64);
            serde_json::to_writer(&mut content, &stored).map_err(|_| broken("dossier"))?;
            let value = self.vault.seal_own(keys, chunk.part, at(&place, version), &content)?;
            change.writes.push(Write::Put(place, Cell { version, value }));
        }
        if dossier.market_changed {
            let place = market_place(keys.person());
            let version = next_version(dossier.market_cell.as_ref());
            let value = self.vault.seal_own(keys, Part::Own, at(&place, version), &dossier.market.encode())?;
            change.writes.push(Write::Put(place, Cell { version, value }));
        }
        let (before, check) = self.standing_of(dossier)?;
        let row = if dossier.standing_cell.is_some() { RowOf::of(before.as_ref()) } else { RowOf::none() };
        let mut standing = dossier.standing(policies, day);
        let place = Place::new(tables::STANDING, keys.person().0);
        let version = next_version(dossier.standing_cell.as_ref());
        let next = standing.as_ref().and_then(|standing| standing.next_change);
        let row = self.move_row(change, keys.person(), row, next, version)?;
        if let Some(standing) = &mut standing {
            standing.row = row;
            if let Some(before) = &before {
                standing.follow(before, cause);
            }
        }
        let value = self.vault.seal_standing(keys, version, standing.as_ref())?;
        change.checks.push(check);
        change.writes.push(Write::Put(place, Cell { version, value }));
        Ok(())
    }

    /// The standing as its cell has it, and that it is still so; none for somebody who is not registered.
    pub(super) fn standing_of(&self, dossier: &Dossier) -> Result<(Option<Standing>, Check), GatewayError> {
        let place = Place::new(tables::STANDING, dossier.keys.person().0);
        let check = unchanged(&place, dossier.standing_cell.as_ref());
        let standing = match &dossier.standing_cell {
            Some(cell) => self.vault.open_standing(&dossier.keys, cell.version, &cell.value)?,
            None => None,
        };
        Ok((standing, check))
    }

    /// The same, without the person's records being read; none where nothing is known of them.
    pub(super) async fn standing_by(
        &self,
        authority: &dyn Authority,
        person: PersonId,
    ) -> Result<Option<Option<Standing>>, GatewayError> {
        let [person_cell, standing_cell] = [tables::PERSON, tables::STANDING].map(|table| Place::new(table, person.0));
        let [person_cell, standing_cell] = self.get_all([person_cell, standing_cell]).await?;
        let Some((person_cell, standing_cell)) = person_cell.zip(standing_cell) else { return Ok(None) };
        let (keys, _) = self.vault.open_person(authority, person, person_cell.version, &person_cell.value)?;
        Ok(Some(self.vault.open_standing(&keys, standing_cell.version, &standing_cell.value)?))
    }
}

/// What a person said about market information lies beside the records, so that it is read with them.
fn market_place(person: &PersonId) -> Place {
    Place::new(tables::DOSSIER, tables::key(&[&person.0, &[MARKET], &[0, 0]]))
}

fn open_chunk(vault: &Vault, keys: &PersonKeys, key: Vec<u8>, cell: Cell) -> Result<Chunk, GatewayError> {
    let bad = || broken("dossier");
    let (part, number) = match key.get(32..) {
        Some([0, high, low]) => (Part::Kept, u16::from_be_bytes([*high, *low])),
        Some([1, high, low]) => (Part::Own, u16::from_be_bytes([*high, *low])),
        _ => return Err(bad()),
    };
    let place = Place::new(tables::DOSSIER, key);
    let content = vault.open_own(keys, part, at(&place, cell.version), &cell.value)?;
    let stored: Vec<Stored<'_>> = serde_json::from_slice(&content).map_err(|_| bad())?;
    let held = stored.into_iter().map(Stored::read).collect::<Option<Vec<_>>>().ok_or_else(bad)?;
    Ok(Chunk { part, number, bytes: content.len(), held, cell: Some(cell), changed: false })
}

/// The cells of one person's dossier, opened one after the other by whoever reads many people.
pub(super) struct Opened {
    held: Vec<Held>,
    market: MarketConsents,
    counts_from: Option<Timestamp>,
}

impl Opened {
    /// `counts_from` is the instant before which consents are lapsed, where the store was restored.
    pub(super) fn new(counts_from: Option<Timestamp>) -> Self {
        Self { held: Vec::new(), market: MarketConsents::default(), counts_from }
    }

    pub(super) fn add(
        &mut self,
        vault: &Vault,
        keys: &PersonKeys,
        key: Vec<u8>,
        cell: Cell,
    ) -> Result<(), GatewayError> {
        if key.get(32) == Some(&MARKET) {
            self.market = open_market(vault, keys, key, &cell)?;
        } else {
            self.held.extend(open_chunk(vault, keys, key, cell)?.held);
        }
        Ok(())
    }

    /// All records as they count.
    pub(super) fn held(mut self, catalogue: &Catalogue) -> Vec<Held> {
        let said = (&self.market, self.counts_from);
        self.held.iter_mut().filter(|held| has_lapsed(said, catalogue, held)).for_each(|held| held.withdrawn = true);
        self.held
    }
}

fn open_market(vault: &Vault, keys: &PersonKeys, key: Vec<u8>, cell: &Cell) -> Result<MarketConsents, GatewayError> {
    let place = Place::new(tables::DOSSIER, key);
    let content = vault.open_own(keys, Part::Own, at(&place, cell.version), &cell.value)?;
    MarketConsents::decode(&content).ok_or_else(|| broken("dossier"))
}

/// Whether a record is of the market, and the consent that it names does not stand.
fn has_lapsed((market, counts_from): (&MarketConsents, Option<Timestamp>), catalogue: &Catalogue, held: &Held) -> bool {
    let record = &held.record;
    // Looked at first: few records name a consent at all.
    let of_market = || catalogue.get(record.indicator.as_str()).is_some_and(|i| i.category == Category::Market);
    record.consent_ref.is_some() && of_market() && !market.stands(record, counts_from)
}

fn chunk_place(person: &PersonId, part: Part, number: u16) -> Place {
    let part = match part {
        Part::Kept => 0,
        Part::Own => 1,
    };
    Place::new(tables::DOSSIER, tables::key(&[&person.0, &[part], &number.to_be_bytes()]))
}

impl Dossier {
    /// Whether anything is to be written.
    pub fn changed(&self) -> bool {
        self.person_changed || self.market_changed || self.chunks.iter().any(|chunk| chunk.changed)
    }

    /// All records as they count: one of the market whose consent was taken back, or ended with a restore, is withdrawn
    /// here, and its cell knows nothing of it.
    pub fn held(&self, catalogue: &Catalogue) -> Cow<'_, [Held]> {
        let lapsed = |held: &Held| has_lapsed((&self.market, self.counts_from), catalogue, held);
        let own = || self.chunks.iter().filter(|chunk| chunk.part == Part::Own).flat_map(|chunk| &chunk.held);
        let one_lapsed = own().any(lapsed);
        match self.chunks.as_slice() {
            // As nearly everybody's are.
            [chunk] if !one_lapsed => Cow::Borrowed(&chunk.held),
            chunks => {
                let mut all: Vec<Held> = chunks.iter().flat_map(|chunk| chunk.held.iter().cloned()).collect();
                if one_lapsed {
                    all.iter_mut().filter(|held| lapsed(held)).for_each(|held| held.withdrawn = true);
                }
                all.into()
            }
        }
    }

    /// What the person said about market information.
    pub fn said_of_market(&self) -> &MarketConsents {
        &self.market
    }

    /// Whether a market record that is sent on this day rests on a consent that stands.
    pub fn permits(&self, record: &Record, day: Date) -> bool {
        self.market.permits(record, self.counts_from, day)
    }

    /// The instant before which consents are lapsed, where the store was restored.
    pub fn counts_from(&self) -> Option<Timestamp> {
        self.counts_from
    }

    /// What the person said about market information, to be changed.
    pub fn market(&mut self) -> &mut MarketConsents {
        self.market_changed = true;
        &mut self.market
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.held.len()).sum()
    }

    /// The record of this provider with this id.
    pub fn find(&self, provider: &PartyId, id: &RecordId) -> Option<&Held> {
        self.chunks.iter().flat_map(|chunk| &chunk.held).find(|held| same(held, provider, id))
    }

    /// Takes that record out.
    pub fn remove(&mut self, provider: &PartyId, id: &RecordId) -> Option<Held> {
        for chunk in &mut self.chunks {
            if let Some(found) = chunk.held.iter().position(|held| same(held, provider, id)) {
                chunk.changed = true;
                let held = chunk.held.remove(found);
                chunk.bytes = chunk.bytes.saturating_sub(Stored::write(&held).bytes());
                return Some(held);
            }
        }
        None
    }

    /// Puts a record in, where its indicator's category says.
    pub fn insert(&mut self, held: Held, policies: &PolicySet) {
        let indicator = policies.catalogue.get(held.record.indicator.as_str());
        let own = indicator.is_some_and(|indicator| indicator.category.rests_on_consent());
        let part = if own { Part::Own } else { Part::Kept };
        let bytes = Stored::write(&held).bytes();
        let roomy = |chunk: &&mut Chunk| chunk.part == part && chunk.bytes + bytes <= CHUNK_BYTES_MAX;
        match self.chunks.iter_mut().find(roomy) {
            Some(chunk) => {
                chunk.bytes += bytes;
                chunk.changed = true;
                chunk.held.push(held);
            }
            None => {
                let taken: BTreeSet<u16> =
                    self.chunks.iter().filter(|chunk| chunk.part == part).map(|chunk| chunk.number).collect();
                let number = taken.last().map_or(0, |last| last + 1);
                self.chunks.push(Chunk { part, number, cell: None, held: vec![held], bytes: bytes + 2, changed: true });
            }
        }
    }

    /// Sets the register's entry.
    pub fn register(&mut self, person: Person) {
        self.person = Some(person);
        self.person_changed = true;
    }

    /// The score on a day; none for somebody who is not registered.
    pub fn evaluate(&self, policies: &PolicySet, model: &Model, day: Date) -> Option<Outcome> {
        self.person
            .as_ref()
            .map(|person| score::evaluate(person, &self.held(&policies.catalogue), &policies.catalogue, model, day))
    }

    fn standing(&self, policies: &Loaded, day: Date) -> Option<Standing> {
        let (catalogue, model) = (&policies.catalogue, policies.model_in_force());
        let (person, held) = (self.person.as_ref()?, self.held(catalogue));
        let outcome = score::evaluate(person, &held, catalogue, model, day);
        let next_change = score::next_boundary(person, &held, catalogue, model, day);
        Some(Standing::new(outcome, day, next_change, *policies.rules()))
    }
}

fn same(held: &Held, provider: &PartyId, id: &RecordId) -> bool {
    held.record.id == *id && held.record.provider == *provider
}
