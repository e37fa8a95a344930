//! Reading and changing cells in sled's tree.
//!
//! sled shows a batch to readers as soon as it is applied, long before it is durable. Whoever acted on
//! such a read without a commit of their own (a checkpoint that is served, a page that is shown) would
//! act on what a power cut can still take back. So while the writer makes a group durable, `unsettled`
//! holds the cells of that group as they were before, and readers see these; the group becomes visible
//! in one step when it is durable. If it never does, it never becomes visible.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{PoisonError, RwLock};

use super::contain::contained;
use super::layout::{Entry, decode, encode, piece_keys, table_prefix};
use super::{SyncData, reach, reason};
use crate::store::{Cell, Table};

/// A durable cell as the tree holds it. A short one is not copied out until somebody reads it.
pub(super) enum Image {
    /// Its own entry, which is the whole of it.
    Entry(u64, sled::IVec),
    /// A long one, put together from its pieces.
    Long(Cell),
}

impl Image {
    /// The cell's version.
    pub(super) fn version(&self) -> u64 {
        match self {
            Self::Entry(version, _) => *version,
            Self::Long(cell) => cell.version,
        }
    }

    fn value_bytes(&self) -> usize {
        match self {
            Self::Entry(..) => 0,
            Self::Long(cell) => cell.value.len(),
        }
    }

    fn cell(&self) -> Result<Cell, String> {
        match self {
            Self::Long(cell) => Ok(cell.clone()),
            Self::Entry(_, entry) => match decode(entry) {
                Some(Entry::Whole(version, value)) => Ok(Cell { version, value: value.to_vec() }),
                _ => Err(FOREIGN.to_owned()),
            },
        }
    }
}

const FOREIGN: &str = "an entry is none that this version writes";

/// Durable cells by their key in the tree; `None` where there is none.
pub(super) type Images = BTreeMap<Vec<u8>, Option<Image>>;
/// What cells become; `None` where one is deleted.
pub(super) type Changes = BTreeMap<Vec<u8>, Option<Cell>>;

/// How many faults of the tree are told.
const FAULTS_MAX: usize = 100;

pub(super) struct Cells {
    db: Option<sled::Db>,
    unsettled: RwLock<Images>,
}

impl Cells {
    pub(super) fn new(db: sled::Db) -> Self {
        Self { db: Some(db), unsettled: RwLock::default() }
    }

    fn db(&self) -> Result<&sled::Db, String> {
        self.db.as_ref().ok_or_else(|| "the store is closed".to_owned())
    }

    /// The durable cell under this key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Cell>, String> {
        // Held over the read, so that the writer cannot begin to change this cell, pieces and all.
        let unsettled = self.unsettled.read().unwrap_or_else(PoisonError::into_inner);
        match unsettled.get(key) {
            Some(before) => before.as_ref().map(Image::cell).transpose(),
            None => self.applied(key)?.as_ref().map(Image::cell).transpose(),
        }
    }

    /// Up to `limit` durable cells of a table, in key order, all of one moment.
    pub(super) fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Cell)>, String> {
        if from >= to || limit == 0 {
            return Ok(Vec::new());
        }
        let prefix = table_prefix(table);
        let range = [&prefix, from].concat()..[&prefix, to].concat();
        let unsettled = self.unsettled.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = BTreeMap::new();
        contained(|| {
            for entry in self.db()?.range(range.clone()) {
                if found.len() == limit {
                    break;
                }
                let (key, value) = entry.map_err(|error| reason(&error))?;
                if !unsettled.contains_key(key.as_ref()) {
                    let cell = self.whole(&key, value)?.cell()?;
                    found.insert(key.to_vec(), cell);
                }
            }
            Ok::<_, String>(())
        })??;
        for (key, image) in unsettled.range(range) {
            if let Some(image) = image {
                found.insert(key.clone(), image.cell()?);
            }
        }
        let cells = found.into_iter().take(limit);
        Ok(cells.map(|(key, cell)| (key.get(prefix.len()..).unwrap_or_default().to_vec(), cell)).collect())
    }

    /// Reads every entry of the tree, cells and pieces, and says what none of them is or belongs to.
    ///
    /// sled checks the checksum of each page that it reads. The pieces lie behind all cells, in the order
    /// of their cells, so that one pass with one look-up a cell is enough.
    pub(super) fn faults(&self) -> Result<Vec<String>, String> {
        let mut faults = Vec::new();
        let mut cells = 0_u64;
        contained(|| {
            for entry in self.db()?.iter() {
                let (key, value) = entry.map_err(|error| reason(&error))?;
                if key.as_ref() == reach::NUMBER_KEY {
                    continue;
                }
                cells += 1;
                let fault = match key.strip_prefix(&[super::layout::PIECES]) {
                    Some(piece) => {
                        let owner = piece.split_last().map(|(_, owner)| owner).unwrap_or_default();
                        let owned =
                            match self.db()?.get(owner).map_err(|error| reason(&error))?.as_deref().and_then(decode) {
                                Some(Entry::Pieces(_, length)) => piece_keys(owner, length).any(|known| key == known),
                                _ => false,
                            };
                        (!owned).then(|| "a piece of a long value belongs to no cell".to_owned())
                    }
                    None => self.whole(&key, value).err(),
                };
                if faults.len() < FAULTS_MAX {
                    faults.extend(fault.map(|fault| format!("entry {cells} of the tree: {fault}")));
                }
            }
            Ok::<_, String>(())
        })??;
        Ok(faults)
    }

    /// The cell under this key as the writer left it. Readers go through [`Cells::get`].
    pub(super) fn applied(&self, key: &[u8]) -> Result<Option<Image>, String> {
        contained(|| match self.db()?.get(key).map_err(|error| reason(&error))? {
            Some(value) => self.whole(key, value).map(Some),
            None => Ok(None),
        })?
    }

    fn whole(&self, key: &[u8], entry: sled::IVec) -> Result<Image, String> {
        let (version, length) = match decode(&entry) {
            Some(Entry::Whole(version, _)) => return Ok(Image::Entry(version, entry)),
            Some(Entry::Pieces(version, length)) => (version, length),
            None => return Err(FOREIGN.to_owned()),
        };
        let mut value = Vec::with_capacity(length.min(crate::store::VALUE_BYTES_MAX));
        for piece in piece_keys(key, length) {
            match self.db()?.get(piece).map_err(|error| reason(&error))? {
                Some(piece) => value.extend_from_slice(&piece),
                None => return Err("a piece of a long value is missing".to_owned()),
            }
        }
        if value.len() != length {
            return Err("the pieces of a long value do not have its length".to_owned());
        }
        Ok(Image::Long(Cell { version, value }))
    }

    /// Makes `after` of what was `before`, durably, as the group of this number. `before` has every
    /// key of `after`.
    ///
    /// Where this fails, what the files hold is not known, and readers go on seeing `before`.
    pub(super) fn settle(
        &self,
        before: Images,
        after: Changes,
        number: u64,
        data: &File,
        sync: &SyncData,
    ) -> Result<(), String> {
        let mut batch = sled::Batch::default();
        batch.insert(reach::NUMBER_KEY, &number.to_be_bytes());
        for (key, cell) in after {
            let old_bytes = before.get(&key).and_then(Option::as_ref).map_or(0, Image::value_bytes);
            let mut old_pieces = piece_keys(&key, old_bytes);
            match cell {
                Some(cell) => {
                    for (piece, bytes) in
                        piece_keys(&key, cell.value.len()).zip(cell.value.chunks(super::layout::PIECE_BYTES))
                    {
                        old_pieces.next();
                        batch.insert(piece, bytes);
                    }
                    old_pieces.for_each(|piece| batch.remove(piece));
                    batch.insert(key, encode(&cell));
                }
                None => {
                    old_pieces.for_each(|piece| batch.remove(piece));
                    batch.remove(key);
                }
            }
        }
        *self.unsettled.write().unwrap_or_else(PoisonError::into_inner) = before;
        contained(|| {
            let db = self.db()?;
            db.apply_batch(batch).map_err(|error| reason(&error))?;
            // sled's flush hands its log to the system in order, but does not sync it: without the
            // second step a power cut loses what was acknowledged.
            db.flush().map_err(|error| reason(&error))?;
            sync(data).map_err(|error| error.to_string())
        })??;
        self.unsettled.write().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        let db = self.db.take();
        // sled syncs once more as it closes, and panics if it cannot.
        let _nothing_unacknowledged_is_lost = contained(|| drop(db));
    }
}
