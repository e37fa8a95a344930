//! Opening the log: the same reading after a clean stop, after kill -9 and after an unknown outcome.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::outside::Outside;
use super::{Head, LogSigner, log_prefix};
use crate::access_log::checkpoint::{Checkpoint, NoteSigner};
use crate::access_log::proof;
use crate::access_log::tile::{RightEdge, TileRef, Tiles};
use crate::access_log::{ENTRY_BYTES, Hash, empty_root, entry, leaf_hash};
use crate::clock::STEP_MAX;
use crate::store::{Place, Store, StoreError};
use crate::tables;

/// Why the log cannot be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The origin is no name for a log.
    #[error("the log's origin is not usable: {0}")]
    Origin(String),
    /// The store cannot be read.
    #[error("{0}. If that does not pass, keep a copy of the store and restore a backup")]
    Store(#[from] StoreError),
    /// The outside copy cannot be read or written.
    #[error("the folder of outside checkpoints cannot be used ({0}); make it readable and writable for the gateway")]
    Outside(#[from] std::io::Error),
    /// The checkpoint is not signed by this keyring's log key.
    #[error(
        "the keys do not fit the store: its checkpoint is not signed by this keyring's log key ({0}); put together the keys and the store of one deployment"
    )]
    Keys(String),
    /// The store's log does not make the tree that its checkpoint signs.
    #[error("the store is damaged: {0}; nothing was signed over it. Restore a backup")]
    Damaged(String),
    /// An import into this store was cut off.
    #[error(
        "an import into this store was begun and not finished; begin it again with the same file (`jadegate store import`), or import into an empty store"
    )]
    Unfinished,
    /// The store holds less than what was released.
    #[error(
        "the store is older than the checkpoint kept outside it: {store} entries here, {outside} in {place}. The store was rolled back or emptied; restore the newest one. If this is the newest there is, `jadegate serve --restored-under NEW_ORIGIN` goes on from it under a new log, with every consent lapsed"
    )]
    RolledBack {
        /// Entries in the store.
        store: u64,
        /// Entries of the outside checkpoint.
        outside: u64,
        /// The folder of the outside copy.
        place: String,
    },
    /// The store holds another history than what was released.
    #[error(
        "the store's log is not the one whose checkpoint is kept in {0}: both have {1} entries there, but other ones. Restore the store that goes with it, and see whether a second gateway wrote under this log's name"
    )]
    Forked(String, u64),
    /// The outside copy is gone.
    #[error(
        "the store has a log of {0} entries, but {1} holds no readable copy of its checkpoint: without it a rolled-back store would not show. Put the copy back"
    )]
    OutsideMissing(u64, String),
    /// The clock is wrong.
    #[error("the clock says {now}, but the newest log entry is of {newest}; set the clock right")]
    ClockBehind {
        /// The clock.
        now: Timestamp,
        /// The newest entry's time.
        newest: Timestamp,
    },
}

/// What the writer goes on from.
pub(super) struct State {
    /// The newest checkpoint and its right edge.
    pub head: Head,
    /// The version of the checkpoint's cell; none before the first commit.
    pub version: Option<u64>,
    /// The newest hour that has a row.
    pub hour: Option<i64>,
    /// The newest entry's time: times never go back within a log.
    pub newest: Timestamp,
}

pub(super) fn checkpoint_place(origin: &str) -> Place {
    Place::new(tables::CHECKPOINT, log_prefix(origin))
}

pub(super) fn leaf_key(origin: &str, index: u64, chunk: u16) -> Vec<u8> {
    tables::key(&[&log_prefix(origin), &index.to_be_bytes(), &chunk.to_be_bytes()])
}

pub(super) fn tile_place(origin: &str, tile: TileRef) -> Place {
    Place::new(tables::TILE, tables::key(&[&log_prefix(origin), &[tile.level], &tile.index.to_be_bytes()]))
}

pub(super) fn hour_place(origin: &str, hour: i64) -> Place {
    Place::new(tables::HOUR, tables::key(&[&log_prefix(origin), &hour.to_be_bytes()]))
}

/// Tiles read ahead, for the synchronous tree functions.
#[derive(Debug, Default)]
pub(super) struct Fetched(pub BTreeMap<TileRef, Vec<Hash>>);

impl Tiles for Fetched {
    fn tile(&self, tile: TileRef, width: u16) -> Option<&[Hash]> {
        self.0.get(&tile).filter(|hashes| hashes.len() >= usize::from(width)).map(Vec::as_slice)
    }
}

/// The root of the subtree that a full tile spans.
pub(super) fn tile_root(hashes: &[Hash]) -> Hash {
    let mut edge = RightEdge::new();
    hashes.iter().for_each(|hash| edge.append(*hash, &mut Vec::new()));
    edge.root()
}

/// The hashes of a full tile.
pub(super) async fn full_tile(
    store: &Arc<dyn Store>,
    origin: &str,
    tile: TileRef,
) -> Result<Option<Vec<Hash>>, StoreError> {
    let cell = store.get(&tile_place(origin, tile)).await?;
    Ok(cell.map(|cell| cell.value.as_chunks::<32>().0.to_vec()))
}

/// Entries `from..to` as their leaf cells hold them.
pub(super) async fn entries(
    store: &Arc<dyn Store>,
    origin: &str,
    from: u64,
    to: u64,
) -> Result<Option<Vec<[u8; ENTRY_BYTES]>>, StoreError> {
    let mut found = Vec::new();
    for index in from..to {
        let cell = store.get(&Place::new(tables::LEAF, leaf_key(origin, index, 0))).await?;
        let Some(entry) = cell.and_then(|cell| cell.value.first_chunk::<ENTRY_BYTES>().copied()) else {
            return Ok(None);
        };
        found.push(entry);
    }
    Ok(Some(found))
}

/// Reads the log's head from the store: the checkpoint, and the right edge that must make its root.
pub(super) async fn read_head(store: &Arc<dyn Store>, signer: &LogSigner) -> Result<(Head, Option<u64>), OpenError> {
    let origin = signer.verifier().name().to_owned();
    let Some(cell) = store.get(&checkpoint_place(&origin)).await? else {
        let checkpoint = Checkpoint { origin, size: 0, root: empty_root() };
        let note = checkpoint.sign(signer).into();
        return Ok((Head { checkpoint, note, edge: Arc::new(RightEdge::new()) }, None));
    };
    let note = String::from_utf8(cell.value).map_err(|_| OpenError::Damaged("its checkpoint is no text".into()))?;
    let checkpoint = signer.verifier().open(&note).map_err(|e| OpenError::Keys(e.to_string()))?;
    let size = checkpoint.size;
    let mut partial = Fetched::default();
    for (tile, width) in RightEdge::tiles_of(size) {
        let missing = |what: String| OpenError::Damaged(format!("{what} of the log is missing"));
        let mut hashes = Vec::with_capacity(usize::from(width));
        let first = tile.index * 256;
        if tile.level == 0 {
            let range = first..first + u64::from(width);
            let found = entries(store, &origin, range.start, range.end).await?;
            let found = found.ok_or_else(|| missing(format!("an entry of {}..{}", range.start, range.end)))?;
            hashes.extend(found.iter().map(|entry| leaf_hash(entry)));
        } else {
            for index in first..first + u64::from(width) {
                let below = TileRef { level: tile.level - 1, index };
                let full = full_tile(store, &origin, below).await?;
                let full = full.ok_or_else(|| missing(format!("tile {}/{index}", below.level)))?;
                hashes.push(tile_root(&full));
            }
        }
        partial.0.insert(tile, hashes);
    }
    let edge = RightEdge::restore(size, &checkpoint.root, |tile, _| partial.0.get(&tile).cloned()).map_err(|e| {
        let from = size - size % 256;
        OpenError::Damaged(format!(
            "the entries from {from} to {size} do not make the tree that its checkpoint signs ({e})"
        ))
    })?;
    Ok((Head { checkpoint, note: note.into(), edge: Arc::new(edge) }, Some(cell.version)))
}

/// Opens the log: head, outside copy, clock.
pub(super) async fn recover(
    store: &Arc<dyn Store>,
    signer: &LogSigner,
    mut outside: Box<dyn Outside>,
    now: Timestamp,
) -> Result<(State, Box<dyn Outside>), OpenError> {
    if super::backup::unfinished(&**store).await? {
        return Err(OpenError::Unfinished);
    }
    let (head, version) = read_head(store, signer).await?;
    let size = head.checkpoint.size;
    let kept: Vec<Checkpoint> = outside.kept()?.iter().filter_map(|note| signer.verifier().open(note).ok()).collect();
    match kept.iter().max_by_key(|checkpoint| checkpoint.size) {
        None if size > 0 => return Err(OpenError::OutsideMissing(size, outside.place())),
        None if !outside.kept()?.is_empty() => return Err(OpenError::Keys(format!("neither is {}", outside.place()))),
        // Before the first commit, so that from then on a missing copy always means something.
        None => outside.keep(&head.note)?,
        Some(newest) if newest.size > size => {
            return Err(OpenError::RolledBack { store: size, outside: newest.size, place: outside.place() });
        }
        Some(newest) => {
            if root_at(store, &head, newest.size).await? != Some(newest.root) {
                return Err(OpenError::Forked(outside.place(), newest.size));
            }
            // A crash between commit and copy leaves the copy behind; from here on it is not.
            outside.keep(&head.note)?;
        }
    }
    let mut newest = Timestamp::UNIX_EPOCH;
    if let Some(last) = size.checked_sub(1) {
        newest = newest_entry(store, signer, last).await?;
        if newest.duration_since(now).unsigned_abs() > STEP_MAX && newest > now {
            return Err(OpenError::ClockBehind { now, newest });
        }
    }
    let hour = (size > 0).then(|| hour_of(newest));
    Ok((State { head, version, hour, newest }, outside))
}

/// The time of the log's last entry.
pub(super) async fn newest_entry(
    store: &Arc<dyn Store>,
    signer: &LogSigner,
    last: u64,
) -> Result<Timestamp, OpenError> {
    let found = entries(store, signer.key.origin(), last, last + 1).await?.unwrap_or_default();
    match found.first().map(|bytes| entry::open(&signer.key, last, bytes)) {
        Some(Ok((body, _))) => Ok(body.at),
        _ => Err(OpenError::Damaged(format!("the newest entry, {last}, does not open"))),
    }
}

/// The hour that a row of the log's is about.
pub(super) fn hour_of(at: Timestamp) -> i64 {
    at.as_second().div_euclid(3600)
}

/// The root that the log had at an earlier size.
pub(super) async fn root_at(store: &Arc<dyn Store>, head: &Head, size: u64) -> Result<Option<Hash>, StoreError> {
    if size == head.checkpoint.size {
        return Ok(Some(head.checkpoint.root));
    }
    let mut tiles = Fetched::default();
    for (tile, width) in proof::root_tiles(size) {
        let hashes = match head.edge.tile(tile, width) {
            Some(hashes) => Some(hashes.to_vec()),
            None => full_tile(store, &head.checkpoint.origin, tile).await?,
        };
        tiles.0.extend(hashes.map(|hashes| (tile, hashes)));
    }
    Ok(proof::root(size, &tiles).ok())
}
