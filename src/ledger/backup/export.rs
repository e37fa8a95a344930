//! Makes a backup: one reading of every cell, then what was logged meanwhile, until nothing is left.
//!
//! While others write, a reading of the whole store shows no one moment. But every change is in the log,
//! with the names of its cells. So the cells named by entries since the reading began are read again,
//! round by round, each shorter than the one before; for the last, shortest one the writer pauses, and
//! what is read then is as the newest checkpoint left it. The pause is bounded by count, bytes and time;
//! where it does not suffice, another round comes first. A store that shows one moment by itself
//! (`Store::snapshot`), or that nobody else uses, needs no rounds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::item::{Item, known};
use super::stream::{SealError, Sealer};
use crate::access_log::ENTRY_BYTES;
use crate::access_log::tile::TileRef;
use crate::entropy::Entropy;
use crate::keys::Keyring;
use crate::ledger::recovery::{checkpoint_place, leaf_key, tile_place};
use crate::ledger::writer::PauseError;
use crate::ledger::{Ledger, log_prefix, manifest};
use crate::store::{KEYS_END, Place, Snapshot, Store, StoreError, Table};
use crate::tables;

/// How many cells are read at a time.
const PAGE: usize = 256;
/// With no more entries than this left, the writer is asked to pause.
const PAUSE_ENTRIES: u64 = 256;
/// The most that is read while the writer pauses.
const PAUSE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The most rounds, pauses included, before it is given up; each is a part of the one before.
const ROUNDS_MAX: usize = 40;
/// After so many rounds that did not become shorter, what is left is tried in a pause, whatever it is: then a slow
/// disk, on which the rounds are written as they are read, no longer matters.
const LONGER_MAX: usize = 2;
/// After so many entries others get their turn.
const TURN: u64 = 16;
/// How many places of changed cells are held at a time.
const PLACES: usize = 2_000;

/// Why no backup was made.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] SealError),
    /// The log does not read.
    #[error("the log is damaged: {0}; run `jadegate store verify` and `jadegate audit` on the stopped gateway")]
    Damaged(String),
    /// More is written all the time than is read.
    #[error("the gateway writes faster than the backup reads; make it at a quieter hour")]
    TooBusy,
    /// The gateway ends.
    #[error("the gateway has stopped; make the backup from the stopped store")]
    Stopped,
}

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// Cells written, some more than once where they changed meanwhile.
    pub cells: u64,
    /// The file's length.
    pub bytes: u64,
    /// For how long the writer paused.
    pub paused: Duration,
}

/// Where cells are read.
enum View<'a> {
    Store(&'a dyn Store),
    Moment(Box<dyn Snapshot>),
}

impl View<'_> {
    async fn scan(
        &mut self,
        table: Table,
        from: &[u8],
        to: &[u8],
    ) -> Result<Vec<(Vec<u8>, crate::store::Cell)>, StoreError> {
        match self {
            Self::Store(store) => store.scan(table, from, to, PAGE).await,
            Self::Moment(moment) => moment.scan(table, from, to, PAGE).await,
        }
    }
}

struct Exporter<'a, W> {
    sealer: Sealer<'a, W>,
    cells: u64,
    progress: &'a mut (dyn FnMut(u64) + Send),
}

impl<W: AsyncWrite + Unpin> Exporter<'_, W> {
    async fn put(&mut self, item: Item) -> Result<(), SealError> {
        self.cells += 1;
        if self.cells.is_multiple_of(1_000) {
            (self.progress)(self.cells);
        }
        self.sealer.item(|out| item.encode(out)).await
    }

    /// Copies the cells of a table from one key to another.
    async fn range(&mut self, view: &mut View<'_>, table: Table, from: &[u8], to: &[u8]) -> Result<(), ExportError> {
        let mut next = from.to_vec();
        loop {
            let cells = view.scan(table, &next, to).await?;
            let Some((last, _)) = cells.last() else { return Ok(()) };
            next = [last.as_slice(), &[0]].concat();
            for (key, cell) in cells {
                self.put(Item::Cell(Place::new(table, key), cell)).await?;
            }
            // The store reads where it is called: others get their turn here.
            tokio::task::yield_now().await;
        }
    }
}

/// Writes a backup of this store. `running` is the ledger that writes to it meanwhile; without one nobody may.
pub async fn export<W: AsyncWrite + Unpin + Send>(
    store: &Arc<dyn Store>,
    keys: &Keyring,
    running: Option<&Ledger>,
    (now, entropy): (Timestamp, &dyn Entropy),
    out: &mut W,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Exported, ExportError> {
    let mut sealer = Sealer::begin(out, keys, entropy).await?;
    let made = Item::Made(now, env!("CARGO_PKG_VERSION").to_owned());
    sealer.item(|out| made.encode(out)).await?;
    let mut exporter = Exporter { sealer, cells: 0, progress };
    let mut paused = Duration::ZERO;
    match (store.snapshot().await?, running) {
        (Some(moment), _) => whole(&mut exporter, View::Moment(moment)).await?,
        (None, None) => whole(&mut exporter, View::Store(&**store)).await?,
        (None, Some(ledger)) => {
            paused = Rounds { store, ledger, origin: keys.log().origin() }.run(&mut exporter).await?
        }
    }
    let count = exporter.cells;
    let end = Item::End(count);
    exporter.sealer.item(|out| end.encode(out)).await?;
    let bytes = exporter.sealer.end().await?;
    Ok(Exported { cells: count, bytes, paused })
}

/// Everything, of one moment.
async fn whole<W: AsyncWrite + Unpin>(exporter: &mut Exporter<'_, W>, mut view: View<'_>) -> Result<(), ExportError> {
    for table in super::kept() {
        exporter.range(&mut view, table, &[], &KEYS_END).await?;
    }
    Ok(())
}

/// The readings beside a ledger that writes.
struct Rounds<'a> {
    store: &'a Arc<dyn Store>,
    ledger: &'a Ledger,
    origin: &'a str,
}

impl Rounds<'_> {
    async fn run<W: AsyncWrite + Unpin>(&self, exporter: &mut Exporter<'_, W>) -> Result<Duration, ExportError> {
        let begun = self.ledger.log().size();
        let mut view = View::Store(&**self.store);
        let (first, end) = (log_prefix(self.origin), tables::after(&log_prefix(self.origin)));
        for table in super::kept() {
            let own_end: &[u8] = match table {
                // Entries that come meanwhile come with their cells, below.
                tables::LEAF => &leaf_key(self.origin, begun, 0),
                // The newest checkpoint is the last word.
                tables::CHECKPOINT => &first,
                _ => {
                    exporter.range(&mut view, table, &[], &KEYS_END).await?;
                    continue;
                }
            };
            exporter.range(&mut view, table, &[], own_end).await?;
            exporter.range(&mut view, table, &end, &KEYS_END).await?;
        }
        let (mut done, mut paused) = (begun, Duration::ZERO);
        let (mut before, mut longer) = (u64::MAX, 0);
        for _ in 0..ROUNDS_MAX {
            let size = self.ledger.log().size();
            let left = size - done;
            longer += usize::from(left >= before);
            before = left;
            if left > PAUSE_ENTRIES && longer < LONGER_MAX {
                self.copy(exporter, done, size).await?;
                done = size;
                continue;
            }
            let (last, took) = self.last(done).await?;
            paused += took;
            let Some((items, size)) = last else {
                longer = 0;
                continue;
            };
            for item in items {
                exporter.put(item).await?;
            }
            self.tiles(exporter, begun, size).await?;
            return Ok(paused);
        }
        Err(ExportError::TooBusy)
    }

    /// Reads what is left while the writer pauses; none if that was too much, and for how long it paused.
    async fn last(&self, done: u64) -> Result<(Option<(Vec<Item>, u64)>, Duration), ExportError> {
        let pause = match self.ledger.pause().await {
            Ok(pause) => pause,
            Err(PauseError) => return Err(ExportError::Stopped),
        };
        let began = Instant::now();
        let read = self.rest(done).await;
        // A pause that ran out has let the writer go on: what was read may be of two moments.
        let held = pause.end();
        let took = began.elapsed();
        Ok((read?.filter(|_| held), took))
    }

    /// Everything since `done`, and the checkpoint; none if it is too much to be held.
    async fn rest(&self, done: u64) -> Result<Option<(Vec<Item>, u64)>, ExportError> {
        let place = checkpoint_place(self.origin);
        let Some(checkpoint) = self.store.get(&place).await? else { return Ok(Some((Vec::new(), 0))) };
        let damaged = || ExportError::Damaged("its checkpoint is not signed by the log's key".into());
        let note = std::str::from_utf8(&checkpoint.value).map_err(|_| damaged())?;
        let size = self.ledger.log().verifier().open(note).map_err(|_| damaged())?.size;
        let (mut items, mut places, mut bytes) = (Vec::new(), BTreeSet::new(), 0);
        let held = |item: &Item| if let Item::Cell(_, cell) = item { cell.value.len() + 256 } else { 256 };
        for index in done..size {
            let leaf = self.leaf(index, &mut places).await?;
            bytes += leaf.iter().map(held).sum::<usize>();
            items.extend(leaf);
            if bytes > PAUSE_BYTES_MAX {
                return Ok(None);
            }
            tokio::task::yield_now().await;
        }
        for place in places {
            let item = self.now(place).await?;
            bytes += held(&item);
            items.push(item);
            if bytes > PAUSE_BYTES_MAX {
                return Ok(None);
            }
            tokio::task::yield_now().await;
        }
        items.push(Item::Cell(place, checkpoint));
        Ok(Some((items, size)))
    }

    /// Entries `from..to` with their cells, and the cells that they name as they are now.
    async fn copy<W: AsyncWrite + Unpin>(
        &self,
        exporter: &mut Exporter<'_, W>,
        from: u64,
        to: u64,
    ) -> Result<(), ExportError> {
        let mut places = BTreeSet::new();
        for index in from..to {
            for item in self.leaf(index, &mut places).await? {
                exporter.put(item).await?;
            }
            if places.len() >= PLACES || index + 1 == to {
                for place in std::mem::take(&mut places) {
                    exporter.put(self.now(place).await?).await?;
                }
            }
            if index.is_multiple_of(TURN) {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn now(&self, place: Place) -> Result<Item, StoreError> {
        let cell = self.store.get(&place).await?;
        Ok(cell.map_or_else(|| Item::Gone(place.clone()), |cell| Item::Cell(place.clone(), cell)))
    }

    /// The cells of one entry; the places that its manifest names join `places`.
    async fn leaf(&self, index: u64, places: &mut BTreeSet<Place>) -> Result<Vec<Item>, ExportError> {
        let damaged = |what: &str| ExportError::Damaged(format!("entry {index} {what}"));
        let (mut items, mut bytes, mut wanted) = (Vec::new(), Vec::new(), None);
        for chunk in 0..=u16::MAX {
            let place = Place::new(tables::LEAF, leaf_key(self.origin, index, chunk));
            let cell = self.store.get(&place).await?.ok_or_else(|| damaged("is missing"))?;
            bytes.extend(&cell.value);
            items.push(Item::Cell(place, cell));
            let wanted = match wanted {
                Some(wanted) => wanted,
                None => {
                    let length = bytes.get(ENTRY_BYTES..).and_then(|rest| rest.first_chunk::<4>());
                    let length = length.ok_or_else(|| damaged("is cut short"))?;
                    *wanted.insert(ENTRY_BYTES + 4 + u32::from_be_bytes(*length) as usize)
                }
            };
            if bytes.len() >= wanted {
                break;
            }
        }
        let manifest =
            bytes.get(ENTRY_BYTES + 4..).and_then(manifest::decode).ok_or_else(|| damaged("has no manifest"))?;
        for line in manifest {
            let table = known(&line.table).ok_or_else(|| damaged("names a table that is not known"))?;
            places.insert(Place::new(table, line.key));
        }
        Ok(items)
    }

    /// The tiles that became full meanwhile. They never change, so they are read after the pause.
    async fn tiles<W: AsyncWrite + Unpin>(
        &self,
        exporter: &mut Exporter<'_, W>,
        from: u64,
        to: u64,
    ) -> Result<(), ExportError> {
        let mut span = 256_u64;
        for level in 0..8 {
            for index in from / span..to / span {
                let place = tile_place(self.origin, TileRef { level, index });
                match self.now(place).await? {
                    Item::Gone(_) => return Err(ExportError::Damaged(format!("tile {level}/{index} is missing"))),
                    item => exporter.put(item).await?,
                }
            }
            let Some(next) = span.checked_mul(256) else { break };
            span = next;
        }
        Ok(())
    }
}
