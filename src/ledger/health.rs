//! The store's own health, without a key: whether every cell can be read, and has a form that a gateway writes.
//!
//! What it shows: that the backend reads whole; that each cell has a version, a length and a form of its
//! table; that the log has all its entries, and that they make the tree whose root the checkpoint names.
//! What it does not: whether a cell is the newest one, in its place, or there at all (the audit, with the
//! keys), whether sealed bytes open, and who signed the checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::audit::Finding;
use super::log_prefix;
use super::recovery::tile_place;
use crate::access_log::checkpoint::Checkpoint;
use crate::access_log::tile::RightEdge;
use crate::access_log::{ENTRY_BYTES, leaf_hash};
use crate::store::{KEYS_END, Store, StoreError, Table};
use crate::{tables, vault};

/// How many cells are read at a time.
const PAGE: usize = 1_000;

/// What a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// The table.
    pub table: &'static str,
    /// Its cells.
    pub cells: u64,
    /// The bytes of their values.
    pub bytes: u64,
}

/// What was read and found.
#[derive(Debug, Default)]
pub struct Health {
    /// Each table that holds something.
    pub tables: Vec<Counted>,
    /// Each log and how many entries it has.
    pub logs: Vec<(String, u64)>,
    /// What the backend finds wrong with itself.
    pub faults: Vec<String>,
    /// What has a form that no gateway writes.
    pub findings: Vec<Finding>,
}

impl Health {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty() && self.findings.is_empty()
    }

    fn found(&mut self, table: Table, key: Option<&[u8]>, entry: Option<u64>, what: impl Into<String>) {
        self.findings.push(Finding {
            table: table.name(),
            key: key.map(<[u8]>::to_vec),
            log: None,
            entry,
            what: what.into(),
        });
    }
}

/// A log as it is read from its first entry.
struct Log {
    checkpoint: Checkpoint,
    edge: RightEdge,
    wanted: usize,
    held: usize,
}

/// Reads everything. `progress` is told how many cells were read.
pub async fn health(store: &Arc<dyn Store>, progress: &mut dyn FnMut(u64)) -> Result<Health, StoreError> {
    let mut health = Health { faults: store.faults().await?, ..Health::default() };
    let mut logs = BTreeMap::new();
    let mut read = 0;
    // Checkpoints first: they say which logs there are.
    for table in std::iter::once(tables::CHECKPOINT).chain(tables::ALL.into_iter().filter(|t| *t != tables::CHECKPOINT))
    {
        let (mut next, mut counted) = (Vec::new(), Counted { table: table.name(), cells: 0, bytes: 0 });
        loop {
            let cells = store.scan(table, &next, &KEYS_END, PAGE).await?;
            let Some((last, _)) = cells.last() else { break };
            next = [last.as_slice(), &[0]].concat();
            for (key, cell) in cells {
                counted.cells += 1;
                counted.bytes += cell.value.len() as u64;
                if cell.version == 0 {
                    health.found(table, Some(&key), None, "has no version");
                }
                match table {
                    tables::CHECKPOINT => checkpoint(&mut health, &mut logs, &key, &cell.value),
                    tables::LEAF => leaf(&mut health, store, &mut logs, &key, &cell.value).await?,
                    _ if !has_form(table, &cell.value) => {
                        health.found(
                            table,
                            Some(&key),
                            None,
                            format!("has a form that no gateway writes ({} bytes)", cell.value.len()),
                        );
                    }
                    _ => {}
                }
            }
            read += counted.cells;
            progress(read);
        }
        if counted.cells > 0 {
            health.tables.push(counted);
        }
    }
    for log in logs.into_values() {
        let (size, entries) = (log.checkpoint.size, log.edge.size());
        if log.held < log.wanted {
            health.found(tables::LEAF, None, entries.checked_sub(1), "its manifest is cut short");
        }
        if entries < size {
            health.found(tables::LEAF, None, Some(entries), format!("entries {entries} to {} are missing", size - 1));
        } else if log.edge.root() != log.checkpoint.root {
            health.found(tables::CHECKPOINT, None, None, "the entries do not make the tree that it names");
        }
        health.logs.push((log.checkpoint.origin, size));
    }
    Ok(health)
}

/// Whether a value has a form that its table has.
fn has_form(table: Table, value: &[u8]) -> bool {
    match table {
        tables::PERSON => vault::looks_like_a_person(value),
        tables::NONCE | tables::HOUR => value.len() == 8,
        tables::TILE => value.len() == 256 * 32,
        // Only an import that is not finished leaves one.
        tables::IMPORT => false,
        _ => vault::looks_sealed(value),
    }
}

fn checkpoint(health: &mut Health, logs: &mut BTreeMap<[u8; 8], Log>, key: &[u8], value: &[u8]) {
    let claimed = std::str::from_utf8(value).ok().and_then(Checkpoint::claimed);
    match claimed {
        Some(checkpoint) if log_prefix(&checkpoint.origin) == key => {
            let log = Log { checkpoint, edge: RightEdge::new(), wanted: 0, held: 0 };
            logs.insert(log_prefix(&log.checkpoint.origin), log);
        }
        _ => health.found(tables::CHECKPOINT, Some(key), None, "is no checkpoint of the log that it lies under"),
    }
}

/// The next cell of a log: an entry, or a further part of its manifest.
async fn leaf(
    health: &mut Health,
    store: &Arc<dyn Store>,
    logs: &mut BTreeMap<[u8; 8], Log>,
    key: &[u8],
    value: &[u8],
) -> Result<(), StoreError> {
    let place = key.split_first_chunk::<8>().and_then(|(log, rest)| {
        let (index, chunk) = rest.split_first_chunk::<8>()?;
        Some((log, u64::from_be_bytes(*index), u16::from_be_bytes(chunk.try_into().ok()?)))
    });
    let Some((log, index, chunk)) = place.and_then(|(log, index, chunk)| Some((logs.get_mut(log)?, index, chunk)))
    else {
        health.found(tables::LEAF, Some(key), None, "is no place of a leaf of a log that has a checkpoint");
        return Ok(());
    };
    let mut wrong = |what: &str| health.found(tables::LEAF, Some(key), Some(index), what);
    if chunk > 0 {
        if index + 1 != log.edge.size() || log.held >= log.wanted {
            wrong("is a part of a manifest that belongs to no entry");
        }
        log.held += value.len();
        return Ok(());
    }
    if log.held < log.wanted {
        wrong("comes before the manifest of the entry before it has ended");
    }
    if index >= log.checkpoint.size {
        wrong("lies beyond the checkpoint");
        return Ok(());
    }
    let next = log.edge.size();
    if index > next {
        wrong("comes where another entry is missing");
    }
    let parts = value
        .split_first_chunk::<ENTRY_BYTES>()
        .and_then(|(entry, rest)| Some((entry, rest.split_first_chunk::<4>()?)));
    let Some((entry, (length, rest))) = parts else {
        wrong("is cut short");
        return Ok(());
    };
    (log.wanted, log.held) = (u32::from_be_bytes(*length) as usize, rest.len());
    let mut completed = Vec::new();
    log.edge.append(leaf_hash(entry), &mut completed);
    for (tile, hashes) in completed {
        let place = tile_place(&log.checkpoint.origin, tile);
        if store.get(&place).await?.is_none_or(|cell| cell.value != hashes.concat()) {
            health.found(tables::TILE, Some(&place.key), Some(index), "does not hold the hashes of its entries");
        }
    }
    Ok(())
}
