//! Replays all logs against the store: what was rolled back, deleted, moved or put there shows.
//!
//! A single cell that is brought back whole, with the version that it had, opens as it did then; only
//! a log knows that it is old. The audit reads every leaf of every log, recomputes the trees that the
//! checkpoints sign, takes the newest line of all manifests about each cell, whichever log it stands
//! in, and compares the cells with it. It changes nothing, and needs the keys of the deployment.
//! Sessions alone have no entries. Where a part of the store cannot be read, each cell that the logs
//! name is looked up by itself, so that one damaged page does not hide the state of the others.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::outside::Outside;
use super::recovery::{checkpoint_place, tile_place};
use super::{log_prefix, manifest};
use crate::access_log::checkpoint::{Checkpoint, VerifierKey};
use crate::access_log::tile::RightEdge;
use crate::access_log::{ENTRY_BYTES, Hash, entry, leaf_hash};
use crate::keys::{Keyring, LogKey};
use crate::store::{Cell, KEYS_END, Place, Store, StoreError, Table};
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
    /// The log that says otherwise, or that is damaged itself.
    pub log: Option<String>,
    /// Its entry.
    pub entry: Option<u64>,
    /// What is wrong, in words that an operator can act on.
    pub what: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "table {}", self.table)?;
        if let Some(key) = &self.key {
            write!(f, ", cell {}", crate::hex::hex(key))?;
        }
        if let Some(log) = &self.log {
            write!(f, ", log {log}")?;
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
    /// Entries replayed, of all logs.
    pub entries: u64,
    /// Cells compared.
    pub cells: u64,
    /// Logs of which no outside copy was at hand: each host keeps that of the log it writes.
    pub unwitnessed: Vec<String>,
    /// What is wrong, in the order of tables and keys.
    pub findings: Vec<Finding>,
}

/// The newest line of all logs about a cell.
struct Logged {
    version: u64,
    digest: Hash,
    log: usize,
    entry: u64,
}

/// One log, as far as it was read.
struct Replayed<'a> {
    key: &'a LogKey,
    prefix: [u8; 8],
    signed: Option<Checkpoint>,
    /// Kept checkpoints by size, whose roots the tree must pass through.
    outside: BTreeMap<u64, Hash>,
    edge: RightEdge,
    /// The entry that must come next.
    expected: u64,
    /// The leaf whose cells are being read.
    leaf: Option<(u64, Vec<u8>)>,
    /// An entry's hash is not known, so that neither tiles nor roots can be recomputed from there on.
    broken: bool,
}

impl Replayed<'_> {
    fn size(&self) -> u64 {
        self.signed.as_ref().map_or(0, |signed| signed.size)
    }
}

/// Reads every log and every cell, and compares them.
struct Auditor<'a> {
    store: &'a Arc<dyn Store>,
    logs: Vec<Replayed<'a>>,
    audit: Audit,
    newest: BTreeMap<(String, Vec<u8>), Logged>,
    /// What each full tile must hold, by the key of its cell; those met are taken out.
    tiles: BTreeMap<Vec<u8>, Hash>,
    /// What some entry says it wrote is not known: the newest lines may not be the newest.
    unread: bool,
}

/// Audits all logs of these keys in a store that no gateway is using.
///
/// `outside` gives the copies that are at hand, of whichever logs; that of the log which these keys
/// write must be among them.
pub async fn audit(
    store: &Arc<dyn Store>,
    keys: &Keyring,
    outside: &dyn Outside,
    progress: &mut dyn FnMut(u64),
) -> Result<Audit, StoreError> {
    let log = |key: &'_ Arc<LogKey>| log_prefix(key.origin());
    let logs = keys.logs().iter().map(|key| Replayed {
        key,
        prefix: log(key),
        signed: None,
        outside: BTreeMap::new(),
        edge: RightEdge::new(),
        expected: 0,
        leaf: None,
        broken: false,
    });
    let mut auditor = Auditor {
        store,
        logs: logs.collect(),
        audit: Audit::default(),
        newest: BTreeMap::new(),
        tiles: BTreeMap::new(),
        unread: false,
    };
    let kept = match outside.kept() {
        Ok(kept) => kept,
        Err(e) => {
            auditor.found(tables::CHECKPOINT, None, None, format!("the outside copies cannot be read: {e}"));
            Vec::new()
        }
    };
    for at in 0..auditor.logs.len() {
        auditor.checkpoint(at, &kept, keys.log().number()).await?;
    }
    auditor.replay(progress).await?;
    for at in 0..auditor.logs.len() {
        auditor.tree(at);
    }
    for table in tables::ALL.iter().filter(|table| **table != tables::SESSION) {
        auditor.compare(*table).await?;
    }
    auditor.missing();
    Ok(auditor.audit)
}

impl Auditor<'_> {
    fn found(&mut self, table: Table, key: Option<Vec<u8>>, entry: Option<(usize, u64)>, what: impl Into<String>) {
        let log = entry.and_then(|(log, _)| self.logs.get(log)).map(|log| log.key.origin().to_owned());
        let entry = entry.map(|(_, entry)| entry);
        self.audit.findings.push(Finding { table: table.name(), key, log, entry, what: what.into() });
    }

    /// Something about a log as a whole.
    fn found_of(&mut self, at: usize, table: Table, what: impl Into<String>) {
        let log = self.logs.get(at).map(|log| log.key.origin().to_owned());
        self.audit.findings.push(Finding { table: table.name(), key: None, log, entry: None, what: what.into() });
    }

    /// The signed checkpoint of a log, and what the outside copies say of it.
    async fn checkpoint(&mut self, at: usize, kept: &[String], own: u16) -> Result<(), StoreError> {
        let Some(log) = self.logs.get_mut(at) else { return Ok(()) };
        let (key, store) = (log.key, self.store);
        let verifier = VerifierKey::new(key.origin(), key.public()).ok();
        let open = |note: &str| verifier.as_ref().and_then(|verifier| verifier.open(note).ok());
        let cell = store.get(&checkpoint_place(key.origin())).await?;
        log.signed = cell.as_ref().and_then(|cell| open(std::str::from_utf8(&cell.value).ok()?));
        log.outside = kept.iter().filter_map(|note| open(note)).map(|kept| (kept.size, kept.root)).collect();
        let (size, newest) = (log.size(), log.outside.last_key_value().map(|(size, _)| *size));
        if cell.is_some() && log.signed.is_none() {
            self.found_of(at, tables::CHECKPOINT, "is not signed by the log's key");
        }
        match newest {
            None if size > 0 && key.number() == own => {
                self.found_of(at, tables::CHECKPOINT, "there is no outside copy to hold it against");
            }
            None if size > 0 => self.audit.unwitnessed.push(key.origin().to_owned()),
            Some(kept) if kept > size => {
                let what = format!("is of {size} entries, and the copy outside of {kept}: the store was rolled back");
                self.found_of(at, tables::CHECKPOINT, what);
            }
            _ => {}
        }
        Ok(())
    }

    /// The next cells of a table. Each must lie under its key as well: the tree of a damaged store may lead to a cell in
    /// one of the two ways and not in the other, and the gateway goes both.
    async fn page(&self, table: Table, from: &[u8]) -> Result<Vec<(Vec<u8>, Cell)>, StoreError> {
        let cells = self.store.scan(table, from, &KEYS_END, PAGE).await?;
        let places: Vec<Place> = cells.iter().map(|(key, _)| Place::new(table, key.clone())).collect();
        let by_key = self.store.get_many(&places).await?;
        if by_key.iter().zip(&cells).any(|(found, (_, cell))| found.as_ref() != Some(cell)) {
            let reason = "a cell that a scan shows is not there under its key".to_owned();
            return Err(StoreError { doing: format!("read table {}", table.name()), reason });
        }
        Ok(cells)
    }

    /// Reads every leaf of every log in order: tree, entry, manifest.
    async fn replay(&mut self, progress: &mut dyn FnMut(u64)) -> Result<(), StoreError> {
        let mut next = Vec::new();
        let mut read = 0;
        loop {
            let cells = match self.page(tables::LEAF, &next).await {
                Ok(cells) => cells,
                Err(e) => {
                    self.unreadable(tables::LEAF, e).await?;
                    self.leaves_by_themselves().await;
                    break;
                }
            };
            let Some((last, _)) = cells.last() else { break };
            next = [last.as_slice(), &[0]].concat();
            for (key, cell) in cells {
                read += u64::from(self.leaf_cell(key, cell));
            }
            progress(read);
        }
        for at in 0..self.logs.len() {
            self.leaf(at);
            let Some((expected, size)) = self.logs.get(at).map(|log| (log.expected, log.size())) else { continue };
            if expected < size {
                let what = format!("entries {expected} to {} are missing", size - 1);
                self.found(tables::LEAF, None, Some((at, expected)), what);
                self.unread = true;
            }
            self.audit.entries += expected.min(size);
        }
        Ok(())
    }

    /// Takes the next cell of a log; whether a leaf begins with it.
    fn leaf_cell(&mut self, key: Vec<u8>, cell: Cell) -> bool {
        let place = self
            .logs
            .iter()
            .enumerate()
            .find_map(|(at, log)| leaf_place(&log.prefix, &key).map(|(index, chunk)| (at, index, chunk)));
        let Some((at, index, chunk)) = place else {
            self.found(tables::LEAF, Some(key), None, "is no place of a leaf of a log of this keyring");
            return false;
        };
        if cell.version != 1 {
            self.found(tables::LEAF, Some(key.clone()), Some((at, index)), "was written more than once");
        }
        let pending = self.logs.get_mut(at).map(|log| &mut log.leaf);
        match pending {
            Some(Some((current, bytes))) if *current == index && chunk > 0 => {
                bytes.extend(cell.value);
                false
            }
            _ => {
                self.leaf(at);
                if chunk > 0 {
                    self.found(tables::LEAF, Some(key), Some((at, index)), "stands without its first part");
                } else if let Some(log) = self.logs.get_mut(at) {
                    log.leaf = Some((index, cell.value));
                }
                true
            }
        }
    }

    /// What is left of each log, by look-ups of one cell each: some cannot be read.
    async fn leaves_by_themselves(&mut self) {
        for at in 0..self.logs.len() {
            let Some(log) = self.logs.get_mut(at) else { continue };
            let (prefix, size) = (log.prefix, log.size());
            let from = log.leaf.take().map_or(log.expected, |(index, _)| index);
            for index in from..size {
                for chunk in 0..=u16::MAX {
                    let key = [prefix.as_slice(), &index.to_be_bytes(), &chunk.to_be_bytes()].concat();
                    match self.store.get(&Place::new(tables::LEAF, key.clone())).await {
                        Ok(Some(cell)) => drop(self.leaf_cell(key, cell)),
                        Ok(None) => break,
                        Err(e) => {
                            if chunk == 0 {
                                self.leaf(at);
                            }
                            let Some(log) = self.logs.get_mut(at) else { break };
                            // Half a leaf says nothing; without its first part not even its hash is known.
                            log.leaf = None;
                            log.broken = true;
                            let gap = log.expected;
                            log.expected = index + 1;
                            if index > gap {
                                let what = format!("entries {gap} to {} are missing", index - 1);
                                self.found(tables::LEAF, None, Some((at, gap)), what);
                            }
                            let what = format!("cannot be read: {}", e.reason);
                            self.found(tables::LEAF, Some(key), Some((at, index)), what);
                            self.unread = true;
                            break;
                        }
                    }
                }
            }
        }
    }

    /// A table that cannot be read as one. Where nothing can be read at all, that is no finding about the store.
    async fn unreadable(&mut self, table: Table, e: StoreError) -> Result<(), StoreError> {
        for at in 0..self.logs.len() {
            let Some(origin) = self.logs.get(at).map(|log| log.key.origin().to_owned()) else { continue };
            if self.store.get(&checkpoint_place(&origin)).await.is_err() {
                return Err(e);
            }
        }
        let what = format!("cannot be read whole, so that cells which no entry wrote would not show: {}", e.reason);
        self.found(table, None, None, what);
        Ok(())
    }

    /// Takes the leaf that was read whole.
    fn leaf(&mut self, at: usize) {
        let Some(log) = self.logs.get_mut(at) else { return };
        let Some((index, bytes)) = log.leaf.take() else { return };
        let (key, size, expected) = (log.key, log.size(), log.expected);
        let (leaf, place) = (tables::LEAF, Some((at, index)));
        if index >= size {
            return self.found(leaf, None, place, "lies beyond the checkpoint");
        }
        log.expected = index + 1;
        log.broken |= index > expected;
        let mut completed = Vec::new();
        let entry = bytes.split_first_chunk::<ENTRY_BYTES>();
        let mut passed = true;
        match entry {
            Some((entry, _)) if !log.broken => {
                log.edge.append(leaf_hash(entry), &mut completed);
                let kept = log.outside.get(&log.edge.size());
                passed = kept.is_none_or(|root| *root == log.edge.root());
            }
            _ => log.broken = true,
        }
        if index > expected {
            self.found(leaf, None, Some((at, expected)), format!("entries {expected} to {} are missing", index - 1));
            self.unread = true;
        }
        if !passed {
            self.found(leaf, None, place, "the log up to here is not the one kept outside");
        }
        for (tile, hashes) in completed {
            self.tiles.insert(tile_place(key.origin(), tile).key, Sha256::digest(hashes.concat()).into());
        }
        match manifest_of(key, index, &bytes) {
            Ok(lines) => lines.into_iter().for_each(|line| self.line(at, index, line)),
            Err(what) => {
                self.found(leaf, None, place, what);
                self.unread = true;
            }
        }
    }

    /// Takes a line of a manifest, if no log has a newer one of that cell.
    ///
    /// Within a log a later line is the newer one, and its version the higher one: a version that was written twice is a
    /// write that the second did not know of, and took away. Between logs it is that of the higher version: each write
    /// checks the version before it, so no two logs have the same one. A deletion is final between logs: a key whose
    /// cell was deleted is not used again.
    fn line(&mut self, log: usize, entry: u64, line: manifest::Line) {
        let manifest::Line { table, key, version, digest } = line;
        let logged = Logged { version, digest, log, entry };
        let wrong = match self.newest.entry((table, key)) {
            Entry::Vacant(free) => {
                free.insert(logged);
                None
            }
            Entry::Occupied(mut held) if held.get().log == log => {
                let (before, of) = (held.get().version, held.get().entry);
                held.insert(logged);
                let lost = version != 0 && version <= before;
                lost.then(|| {
                    (
                        held.key().clone(),
                        format!("wrote version {version} over version {before} of entry {of}, which is lost"),
                    )
                })
            }
            Entry::Occupied(held) if held.get().version == 0 => None,
            Entry::Occupied(mut held) if version == 0 || held.get().version < version => {
                held.insert(logged);
                None
            }
            Entry::Occupied(held) if held.get().version == version && held.get().digest != digest => {
                Some((held.key().clone(), format!("two logs wrote version {version}")))
            }
            Entry::Occupied(_) => None,
        };
        if let Some(((name, key), what)) = wrong
            && let Some(table) = tables::ALL.iter().find(|table| table.name() == name)
        {
            self.found(*table, Some(key), Some((log, entry)), what);
        }
    }

    /// The leaves must make the tree that the checkpoint signs.
    fn tree(&mut self, at: usize) {
        if self.logs.get(at).is_some_and(|log| log.broken) {
            let what =
                "those of this log cannot be held against its entries, of which some are missing or cannot be read";
            return self.found_of(at, tables::TILE, what);
        }
        if let Some(log) = self.logs.get(at)
            && let Some(signed) = &log.signed
            && (log.edge.size() != signed.size || log.edge.root() != signed.root)
        {
            self.found_of(at, tables::CHECKPOINT, "the entries do not make the tree that it signs");
        }
    }

    /// Compares the cells of a table with what the log says of them.
    async fn compare(&mut self, table: Table) -> Result<(), StoreError> {
        if table == tables::LEAF {
            return Ok(());
        }
        let mut next = Vec::new();
        loop {
            let cells = match self.page(table, &next).await {
                Ok(cells) => cells,
                Err(e) => {
                    self.unreadable(table, e).await?;
                    self.compare_by_themselves(table).await;
                    break;
                }
            };
            let Some((last, _)) = cells.last() else { break };
            next = [last.as_slice(), &[0]].concat();
            for (key, cell) in cells {
                self.compare_cell(table, key, &cell);
            }
        }
        // Where a tree could not be recomputed, it is not known which tiles there must be.
        if table == tables::TILE {
            for key in std::mem::take(&mut self.tiles).into_keys() {
                self.found(table, Some(key), None, "is missing");
            }
        }
        Ok(())
    }

    /// The cells of a table that the logs name and that were not met yet, by look-ups of one cell each.
    async fn compare_by_themselves(&mut self, table: Table) {
        let named = self.newest.keys().filter(|(name, _)| name == table.name()).map(|(_, key)| key.clone());
        let mut keys: Vec<Vec<u8>> = named.collect();
        if table == tables::TILE {
            keys.extend(self.tiles.keys().cloned());
        }
        for key in keys {
            match self.store.get(&Place::new(table, key.clone())).await {
                Ok(Some(cell)) => self.compare_cell(table, key, &cell),
                // It is told of as one that is gone.
                Ok(None) => {}
                Err(e) => {
                    self.tiles.remove(&key);
                    let logged = self.newest.remove(&(table.name().to_owned(), key.clone()));
                    let entry = logged.map(|logged| (logged.log, logged.entry));
                    self.found(table, Some(key), entry, format!("cannot be read: {}", e.reason));
                }
            }
        }
    }

    fn compare_cell(&mut self, table: Table, key: Vec<u8>, cell: &Cell) {
        self.audit.cells += 1;
        let digest: Hash = Sha256::digest(&cell.value).into();
        match table {
            tables::CHECKPOINT => {
                if !self.logs.iter().any(|log| log.prefix.as_slice() == key) {
                    self.found(table, Some(key), None, "no gateway of these keys wrote it");
                }
            }
            tables::TILE => match self.tiles.remove(&key) {
                Some(known) if known == digest && cell.version == 1 => {}
                Some(_) => self.found(table, Some(key), None, "does not hold the hashes of its entries"),
                None if self.logs.iter().any(|log| log.broken && key.starts_with(&log.prefix)) => {}
                None => self.found(table, Some(key), None, "the log has no such tile"),
            },
            _ => self.compare_logged(table, key, cell.version, &digest),
        }
    }

    fn compare_logged(&mut self, table: Table, key: Vec<u8>, version: u64, digest: &Hash) {
        let place = (table.name().to_owned(), key);
        let Some(logged) = self.newest.remove(&place) else {
            let what = if self.unread {
                "no entry that can be read wrote it"
            } else {
                "no entry wrote it: it was copied or put here"
            };
            return self.found(table, Some(place.1), None, what);
        };
        let what = if logged.version == 0 {
            format!("was deleted, and is here again with version {version}")
        } else if version < logged.version {
            format!("was rolled back to version {version}; the newest is {}", logged.version)
        } else if version > logged.version && self.unread {
            format!("has version {version}; of the entries that can be read the newest wrote {}", logged.version)
        } else if version > logged.version {
            format!("has version {version}, which no entry wrote; the newest is {}", logged.version)
        } else if *digest != logged.digest {
            format!("does not hold what was written as version {version}")
        } else {
            return;
        };
        self.found(table, Some(place.1), Some((logged.log, logged.entry)), what);
    }

    /// What the log says is there, and was not met.
    fn missing(&mut self) {
        let left = std::mem::take(&mut self.newest);
        for ((name, key), logged) in left.into_iter().filter(|(_, logged)| logged.version > 0) {
            let mut what = format!("is gone; its newest version is {}", logged.version);
            if self.unread {
                what += ", unless an entry that cannot be read deleted it";
            }
            match tables::ALL.iter().find(|table| table.name() == name) {
                Some(table) => self.found(*table, Some(key), Some((logged.log, logged.entry)), what),
                None => {
                    self.found(tables::LEAF, None, Some((logged.log, logged.entry)), format!("names a table {name:?}"))
                }
            }
        }
    }
}

/// What the entry of a leaf says it wrote.
fn manifest_of(key: &LogKey, index: u64, leaf: &[u8]) -> Result<Vec<manifest::Line>, &'static str> {
    let Some((entry, rest)) = leaf.split_first_chunk::<ENTRY_BYTES>() else { return Err("is cut short") };
    let Ok((_, digest)) = entry::open(key, index, entry) else {
        return Err("does not open: it was changed or moved");
    };
    let manifest = rest.split_first_chunk::<4>().map(|(_, manifest)| manifest).unwrap_or_default();
    let lines = manifest::decode(manifest).filter(|_| manifest::digest(manifest) == digest);
    lines.ok_or("its manifest is not the one that the entry names")
}

/// The index and part of a leaf's cell.
fn leaf_place(log: &[u8], key: &[u8]) -> Option<(u64, u16)> {
    let (index, chunk) = key.strip_prefix(log)?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*index), u16::from_be_bytes(chunk.try_into().ok()?)))
}
