//! Reads one log: for the public, for proofs, and for the people and officers whom it shows.

use std::collections::btree_map::Entry;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use super::recovery::{Fetched, full_tile, leaf_key, tile_root};
use super::{Head, LeafPlace, LogSigner, log_prefix};
use crate::access_log::checkpoint::{Checkpoint, VerifierKey};
use crate::access_log::entry::{self, Body, EntryError};
use crate::access_log::proof::{self, Proof};
use crate::access_log::tile::{TileRef, TileRequest, Tiles};
use crate::access_log::{ENTRY_BYTES, Hash, leaf_hash};
use crate::store::{Store, StoreError};
use crate::tables;

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the store holds is not what was logged.
    #[error("the log is damaged: {0}")]
    Damaged(String),
    /// An entry does not open.
    #[error(transparent)]
    Entry(#[from] EntryError),
}

/// A reader of one log. Of the log that this process writes it follows the head; of another's it sees
/// the head that the store held when [`super::Logs`] gave it.
#[derive(Clone)]
pub struct LogReader {
    store: Arc<dyn Store>,
    pub(super) signer: LogSigner,
    head: watch::Receiver<Head>,
}

impl LogReader {
    pub(super) fn new(store: Arc<dyn Store>, signer: LogSigner, head: watch::Receiver<Head>) -> Self {
        Self { store, signer, head }
    }

    pub(super) fn head(&self) -> Head {
        self.head.borrow().clone()
    }

    /// The newest checkpoint, as a signed note.
    pub fn checkpoint(&self) -> Arc<str> {
        self.head().note
    }

    /// How many entries the newest checkpoint holds.
    pub fn size(&self) -> u64 {
        self.head.borrow().checkpoint.size
    }

    /// The log's verifier key.
    pub fn verifier(&self) -> &VerifierKey {
        &self.signer.verifier
    }

    /// The log's number.
    pub fn number(&self) -> u16 {
        self.signer.key.number()
    }

    fn origin(&self) -> &str {
        self.signer.verifier.name()
    }

    /// A hash tile or an entry bundle as C2SP serves it; none where the log has no such tile.
    pub async fn tile(&self, request: &TileRequest) -> Result<Option<Vec<u8>>, ReadError> {
        let head = self.head();
        if !request.within(head.checkpoint.size) {
            return Ok(None);
        }
        let (tile, width) = request.tile();
        if let TileRequest::Entries { .. } = request {
            let first = tile.index * 256;
            let entries = self.entries(first, first + u64::from(width)).await?;
            let length = u16::try_from(ENTRY_BYTES).unwrap_or(u16::MAX).to_be_bytes();
            return Ok(Some(entries.iter().flat_map(|entry| length.into_iter().chain(*entry)).collect()));
        }
        let hashes = match head.edge.tile(tile, width) {
            Some(hashes) => hashes.to_vec(),
            None => self.stored(tile).await?,
        };
        Ok(hashes.get(..usize::from(width)).map(<[Hash]>::concat))
    }

    /// Entries `from..to`, all of which the log must hold.
    pub async fn entries(&self, from: u64, to: u64) -> Result<Vec<[u8; ENTRY_BYTES]>, ReadError> {
        let (first, end) = (leaf_key(self.origin(), from, 0), leaf_key(self.origin(), to, 0));
        // Large calls have further cells for their manifests, which are skipped here.
        let mut entries = Vec::new();
        let mut next = first;
        loop {
            let cells = self.store.scan(tables::LEAF, &next, &end, 1024).await?;
            let Some((last, _)) = cells.last() else { break };
            next = [last.as_slice(), &[0]].concat();
            let whole = cells.iter().filter(|(key, _)| key.ends_with(&[0, 0]));
            entries.extend(whole.filter_map(|(_, cell)| cell.value.first_chunk::<ENTRY_BYTES>().copied()));
        }
        if entries.len() as u64 == to.saturating_sub(from) {
            Ok(entries)
        } else {
            Err(ReadError::Damaged(format!("an entry of {from}..{to} is missing")))
        }
    }

    /// What entries `from..to` say, with their indexes.
    pub async fn bodies(&self, from: u64, to: u64) -> Result<Vec<(u64, Body)>, ReadError> {
        let entries = self.entries(from, to).await?;
        let open =
            |(entry, index): (&[u8; ENTRY_BYTES], u64)| Ok((index, entry::open(&self.signer.key, index, entry)?.0));
        entries.iter().zip(from..).map(open).collect()
    }

    /// What one entry says.
    pub async fn body(&self, index: u64) -> Result<Body, ReadError> {
        let found = self.bodies(index, index.saturating_add(1)).await?.pop();
        found.map(|(_, body)| body).ok_or_else(|| ReadError::Damaged(format!("entry {index} is missing")))
    }

    /// The proof of an entry in the tree of `place.size`, the newest where that is zero.
    pub async fn proof(&self, place: LeafPlace) -> Result<Proof, ReadError> {
        let head = self.head();
        let size = if place.size == 0 { head.checkpoint.size } else { place.size };
        let mut tiles = Fetched::default();
        for (tile, width) in proof::inclusion_tiles(place.index, size).into_iter().chain(proof::root_tiles(size)) {
            if let Entry::Vacant(free) = tiles.0.entry(tile) {
                free.insert(self.verified(&head, tile, width).await?);
            }
        }
        let missing = |e: proof::MissingTile| ReadError::Damaged(e.to_string());
        let path = proof::inclusion(place.index, size, &tiles).map_err(missing)?;
        let root = proof::root(size, &tiles).map_err(missing)?;
        let checkpoint = if size == head.checkpoint.size {
            head.note.to_string()
        } else {
            // Signing an earlier checkpoint again gives the same bytes, and is safe because every
            // tile used was checked against the head.
            Checkpoint { origin: self.origin().to_owned(), size, root }.sign(&self.signer)
        };
        let entry = self.entries(place.index, place.index + 1).await?;
        let extra = entry.first().map(|entry| entry.to_vec()).unwrap_or_default();
        if proof::root_from_inclusion(&leaf_hash(&extra), place.index, size, &path) != Some(root) {
            return Err(ReadError::Damaged(format!("entry {} was changed", place.index)));
        }
        Ok(Proof { extra, index: place.index, path, checkpoint })
    }

    async fn stored(&self, tile: TileRef) -> Result<Vec<Hash>, ReadError> {
        let full = full_tile(&self.store, self.origin(), tile).await?;
        full.ok_or_else(|| ReadError::Damaged(format!("tile {}/{} is missing", tile.level, tile.index)))
    }

    /// INVARIANT (the store is distrusted): the hashes of a tile, checked up to the head's own edge,
    /// so that nothing is proved or signed over what the store made up.
    async fn verified(&self, head: &Head, tile: TileRef, width: u16) -> Result<Vec<Hash>, ReadError> {
        if let Some(hashes) = head.edge.tile(tile, width) {
            return Ok(hashes.to_vec());
        }
        let hashes = self.stored(tile).await?;
        let (mut child, mut root) = (tile, tile_root(&hashes));
        loop {
            let wrong = || ReadError::Damaged(format!("tile {}/{} was changed", child.level, child.index));
            let parent = TileRef { level: child.level + 1, index: child.index / 256 };
            let at = usize::try_from(child.index % 256).unwrap_or(usize::MAX);
            let needed = u16::try_from(at + 1).unwrap_or(u16::MAX);
            if let Some(known) = head.edge.tile(parent, needed) {
                return if known.get(at) == Some(&root) { Ok(hashes) } else { Err(wrong()) };
            }
            let above = self.stored(parent).await?;
            if above.get(at) != Some(&root) {
                return Err(wrong());
            }
            (child, root) = (parent, tile_root(&above));
        }
    }

    /// The index of the first entry of `at` or later: times never go back within a log.
    pub async fn since(&self, at: Timestamp) -> Result<u64, ReadError> {
        let (mut low, mut high) = (self.first_since(at).await?, self.size());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.body(middle).await?.at < at {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        Ok(low)
    }

    /// The index of the first entry that may be of `at` or later.
    pub async fn first_since(&self, at: Timestamp) -> Result<u64, ReadError> {
        let prefix = log_prefix(self.origin());
        let hour = at.as_second().div_euclid(3600).max(0);
        // An hour without entries has no row: the next one that has is where it would begin.
        let from = tables::key(&[&prefix, &hour.to_be_bytes()]);
        let rows = self.store.scan(tables::HOUR, &from, &tables::after(&prefix), 1).await?;
        let first = rows.first().and_then(|(_, cell)| <[u8; 8]>::try_from(cell.value.as_slice()).ok());
        Ok(first.map_or_else(|| self.size(), u64::from_be_bytes).min(self.size()))
    }
}
