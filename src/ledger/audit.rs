//! Replays the whole log against the store: what was rolled back, deleted, moved or put there shows.
//!
//! A single cell that is brought back whole, with the version that it had, opens as it did then; only
//! the log knows that it is old. The audit reads every leaf, recomputes the tree that the checkpoint
//! signs, takes the newest line of all manifests about each cell, and compares the cells with it.
//! It changes nothing, and needs the keys of the deployment. Sessions alone have no entries.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::outside::Outside;
use super::recovery::{checkpoint_place, tile_place};
use super::{log_prefix, manifest};
use crate::access_log::checkpoint::{Checkpoint, VerifierKey};
use crate::access_log::tile::RightEdge;
use crate::access_log::{ENTRY_BYTES, Hash, entry, leaf_hash};
use crate::keys::Keyring;
use crate::store::{KEYS_END, Store, StoreError, Table};
use crate::tables;

/// How many cells are read at a time.
const PAGE: usize = 1_000;

/// What is not as the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The table.
    pub table: &'static str,
    /// The cell's key, where the finding is about one cell.
    pub key: Option<Vec<u8>>,
    /// The entry that says otherwise, or that is damaged itself.
    pub entry: Option<u64>,
    /// What is wrong, in words that an operator can act on.
    pub what: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "table {}", self.table)?;
        if let Some(key) = &self.key {
            write!(f, ", cell {}", crate::keys::hex(key))?;
        }
        if let Some(entry) = self.entry {
            write!(f, ", entry {entry}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// What an audit has read and found.
#[derive(Debug, Default)]
pub struct Audit {
    /// Entries replayed.
    pub entries: u64,
    /// Cells compared.
    pub cells: u64,
    /// What is wrong, in the order of tables and keys.
    pub findings: Vec<Finding>,
}

/// The newest line of the log about a cell.
struct Logged {
    version: u64,
    digest: Hash,
    entry: u64,
}

/// Reads one log and every cell, and compares them.
struct Auditor<'a> {
    store: &'a Arc<dyn Store>,
    keys: &'a Keyring,
    origin: &'a str,
    audit: Audit,
    newest: BTreeMap<(String, Vec<u8>), Logged>,
    edge: RightEdge,
    /// What each full tile must hold, by the key of its cell; those met are taken out.
    tiles: BTreeMap<Vec<u8>, Hash>,
    /// Kept checkpoints by size, whose roots the tree must pass through.
    outside: BTreeMap<u64, Hash>,
}

/// Audits the log of these keys in a store that no gateway is using.
pub async fn audit(
    store: &Arc<dyn Store>,
    keys: &Keyring,
    outside: &dyn Outside,
    progress: &mut dyn FnMut(u64),
) -> Result<Audit, StoreError> {
    let origin = keys.log().origin();
    let mut auditor = Auditor {
        store,
        keys,
        origin,
        audit: Audit::default(),
        newest: BTreeMap::new(),
        edge: RightEdge::new(),
        tiles: BTreeMap::new(),
        outside: BTreeMap::new(),
    };
    let signed = auditor.checkpoint(outside).await?;
    auditor.replay(signed.as_ref().map_or(0, |checkpoint| checkpoint.size), progress).await?;
    auditor.tree(signed.as_ref());
    for table in tables::ALL.iter().filter(|table| **table != tables::SESSION) {
        auditor.compare(*table).await?;
    }
    auditor.missing();
    Ok(auditor.audit)
}

impl Auditor<'_> {
    fn found(&mut self, table: Table, key: Option<Vec<u8>>, entry: Option<u64>, what: impl Into<String>) {
        self.audit.findings.push(Finding { table: table.name(), key, entry, what: what.into() });
    }

    /// The signed checkpoint of the store, and what the outside copies say of it.
    async fn checkpoint(&mut self, outside: &dyn Outside) -> Result<Option<Checkpoint>, StoreError> {
        let verifier = VerifierKey::new(self.origin, self.keys.log().public()).ok();
        let open = |note: &str| verifier.as_ref().and_then(|verifier| verifier.open(note).ok());
        let cell = self.store.get(&checkpoint_place(self.origin)).await?;
        let signed = cell.as_ref().and_then(|cell| open(std::str::from_utf8(&cell.value).ok()?));
        if cell.is_some() && signed.is_none() {
            self.found(tables::CHECKPOINT, None, None, "is not signed by the log's key");
        }
        let kept = match outside.kept() {
            Ok(kept) => kept,
            Err(e) => {
                self.found(tables::CHECKPOINT, None, None, format!("the outside copies cannot be read: {e}"));
                Vec::new()
            }
        };
        self.outside = kept.iter().filter_map(|note| open(note)).map(|kept| (kept.size, kept.root)).collect();
        let size = signed.as_ref().map_or(0, |checkpoint| checkpoint.size);
        match self.outside.last_key_value() {
            None if size > 0 => {
                self.found(tables::CHECKPOINT, None, None, "there is no outside copy to hold it against")
            }
            Some((kept, _)) if *kept > size => {
                let what = format!("is of {size} entries, and the copy outside of {kept}: the store was rolled back");
                self.found(tables::CHECKPOINT, None, None, what);
            }
            _ => {}
        }
        Ok(signed)
    }

    /// Reads every leaf in order: tree, entry, manifest.
    async fn replay(&mut self, size: u64, progress: &mut dyn FnMut(u64)) -> Result<(), StoreError> {
        let prefix = log_prefix(self.origin);
        let mut next = Vec::new();
        let mut leaf: Option<(u64, Vec<u8>)> = None;
        let mut expected = 0;
        loop {
            let cells = self.store.scan(tables::LEAF, &next, &KEYS_END, PAGE).await?;
            let Some((last, _)) = cells.last() else { break };
            next = [last.as_slice(), &[0]].concat();
            for (key, cell) in cells {
                let Some((index, chunk)) = leaf_place(&prefix, &key) else {
                    self.found(tables::LEAF, Some(key), None, "is no place of a leaf of this log");
                    continue;
                };
                if cell.version != 1 {
                    self.found(tables::LEAF, Some(key.clone()), Some(index), "was written more than once");
                }
                match &mut leaf {
                    Some((current, bytes)) if *current == index && chunk > 0 => bytes.extend(cell.value),
                    _ => {
                        self.leaf(leaf.take(), &mut expected, size);
                        if chunk > 0 {
                            self.found(tables::LEAF, Some(key), Some(index), "stands without its first part");
                        } else {
                            leaf = Some((index, cell.value));
                        }
                    }
                }
            }
            progress(expected);
        }
        self.leaf(leaf, &mut expected, size);
        if expected < size {
            self.found(tables::LEAF, None, Some(expected), format!("entries {expected} to {} are missing", size - 1));
        }
        self.audit.entries = expected.min(size);
        Ok(())
    }

    fn leaf(&mut self, leaf: Option<(u64, Vec<u8>)>, expected: &mut u64, size: u64) {
        let Some((index, bytes)) = leaf else { return };
        if index > *expected && index < size {
            self.found(tables::LEAF, None, Some(*expected), format!("entries {expected} to {} are missing", index - 1));
        }
        if index >= size {
            self.found(tables::LEAF, None, Some(index), "lies beyond the checkpoint");
            return;
        }
        *expected = index + 1;
        let Some((entry, rest)) = bytes.split_first_chunk::<ENTRY_BYTES>() else {
            return self.found(tables::LEAF, None, Some(index), "is cut short");
        };
        let mut completed = Vec::new();
        self.edge.append(leaf_hash(entry), &mut completed);
        for (tile, hashes) in completed {
            self.tiles.insert(tile_place(self.origin, tile).key, Sha256::digest(hashes.concat()).into());
        }
        if let Some(root) = self.outside.get(&self.edge.size())
            && *root != self.edge.root()
        {
            self.found(tables::LEAF, None, Some(index), "the log up to here is not the one kept outside");
        }
        let Ok((_, digest)) = entry::open(self.keys.log(), index, entry) else {
            return self.found(tables::LEAF, None, Some(index), "does not open: it was changed or moved");
        };
        let manifest = rest.split_first_chunk::<4>().map(|(_, manifest)| manifest).unwrap_or_default();
        let lines = manifest::decode(manifest).filter(|_| manifest::digest(manifest) == digest);
        let Some(lines) = lines else {
            return self.found(tables::LEAF, None, Some(index), "its manifest is not the one that the entry names");
        };
        for line in lines {
            let logged = Logged { version: line.version, digest: line.digest, entry: index };
            self.newest.insert((line.table, line.key), logged);
        }
    }

    /// The leaves must make the tree that the checkpoint signs.
    fn tree(&mut self, signed: Option<&Checkpoint>) {
        if let Some(signed) = signed
            && (self.edge.size() != signed.size || self.edge.root() != signed.root)
        {
            self.found(tables::CHECKPOINT, None, None, "the entries do not make the tree that it signs");
        }
    }

    /// Compares the cells of a table with what the log says of them.
    async fn compare(&mut self, table: Table) -> Result<(), StoreError> {
        if table == tables::LEAF {
            return Ok(());
        }
        let mut next = Vec::new();
        loop {
            let cells = self.store.scan(table, &next, &KEYS_END, PAGE).await?;
            let Some((last, _)) = cells.last() else { break };
            next = [last.as_slice(), &[0]].concat();
            for (key, cell) in cells {
                self.audit.cells += 1;
                let digest: Hash = Sha256::digest(&cell.value).into();
                if table == tables::CHECKPOINT {
                    if key != checkpoint_place(self.origin).key {
                        self.found(table, Some(key), None, "no gateway of these keys wrote it");
                    }
                } else if table == tables::TILE {
                    match self.tiles.remove(&key) {
                        Some(known) if known == digest && cell.version == 1 => {}
                        Some(_) => self.found(table, Some(key), None, "does not hold the hashes of its entries"),
                        None => self.found(table, Some(key), None, "the log has no such tile"),
                    }
                } else {
                    self.compare_cell(table, key, cell.version, &digest);
                }
            }
        }
        if table == tables::TILE {
            for key in std::mem::take(&mut self.tiles).into_keys() {
                self.found(table, Some(key), None, "is missing");
            }
        }
        Ok(())
    }

    fn compare_cell(&mut self, table: Table, key: Vec<u8>, version: u64, digest: &Hash) {
        let place = (table.name().to_owned(), key);
        let Some(logged) = self.newest.remove(&place) else {
            return self.found(table, Some(place.1), None, "no entry wrote it: it was copied or put here");
        };
        let what = if logged.version == 0 {
            format!("was deleted, and is here again with version {version}")
        } else if version < logged.version {
            format!("was rolled back to version {version}; the newest is {}", logged.version)
        } else if version > logged.version {
            format!("has version {version}, which no entry wrote; the newest is {}", logged.version)
        } else if *digest != logged.digest {
            format!("does not hold what was written as version {version}")
        } else {
            return;
        };
        self.found(table, Some(place.1), Some(logged.entry), what);
    }

    /// What the log says is there, and was not met.
    fn missing(&mut self) {
        let left = std::mem::take(&mut self.newest);
        for ((name, key), logged) in left.into_iter().filter(|(_, logged)| logged.version > 0) {
            let what = format!("is gone; its newest version is {}", logged.version);
            match tables::ALL.iter().find(|table| table.name() == name) {
                Some(table) => self.found(*table, Some(key), Some(logged.entry), what),
                None => self.found(tables::LEAF, None, Some(logged.entry), format!("names a table {name:?}")),
            }
        }
    }
}

/// The index and part of a leaf's cell.
fn leaf_place(log: &[u8], key: &[u8]) -> Option<(u64, u16)> {
    let (index, chunk) = key.strip_prefix(log)?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*index), u16::from_be_bytes(chunk.try_into().ok()?)))
}
