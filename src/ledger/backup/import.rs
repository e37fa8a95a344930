//! Puts a backup into an empty store: read and checked whole first, then written under a mark.
//!
//! While the mark is there no gateway starts on the store. An import that was cut off is begun again
//! with the same file: all its writes come once more, and change nothing where they had come already.

use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use jiff::Timestamp;

use super::item::Item;
use super::stream::{BackupError, Opener};
use super::{kept, mark};
use crate::keys::Keyring;
use crate::ledger::{LogSigner, OpenError, recovery};
use crate::store::{Batch, Cell, Check, KEYS_END, Store, StoreError, Table, Write};
use crate::tables;

/// How much one batch of an import takes.
const BATCH_WRITES: usize = 1_000;
const BATCH_BYTES: usize = 2 * 1024 * 1024;

/// Why a backup was not imported, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The store holds something.
    #[error("the store is not empty: table {} holds cells. Import into a store of its own, and name that in jadegate.toml", .0.name())]
    NotEmpty(Table),
    /// Another import was cut off in this store.
    #[error(
        "an import of another backup was cut off in this store; begin that one again, or import into an empty store"
    )]
    Another,
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store does not take it.
    #[error(
        "the store does not take it: {0}. Begin the import again with the same file; until then no gateway starts on this store"
    )]
    Write(String),
    /// There is a log that the keyring does not know.
    #[error(
        "the backup holds a log that keyring.json does not have; put the newest keyring.json of the deployment in place, and begin the import again"
    )]
    UnknownLog,
    /// What was imported is no log of these keys.
    #[error("what was imported has no whole log: {0}")]
    Log(#[from] OpenError),
}

/// What a backup is, read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// When it was begun.
    pub made: Timestamp,
    /// By which version.
    pub version: String,
    /// How many cells it holds, those that changed meanwhile more than once.
    pub cells: u64,
}

/// Reads a backup to its end and checks it, without a store.
pub fn inspect(input: impl Read, keys: &Keyring, progress: &mut dyn FnMut(u64)) -> Result<Imported, BackupError> {
    let mut opener = Opener::begin(input, keys)?;
    let mut reading = Reading::default();
    while let Some(chunk) = opener.next()? {
        for item in Item::decode(&chunk)? {
            reading.take(&item)?;
        }
        progress(opener.read());
    }
    reading.end()
}

/// Holds items against the order that they must have.
#[derive(Default)]
struct Reading {
    made: Option<(Timestamp, String)>,
    cells: u64,
    ended: bool,
}

impl Reading {
    fn take(&mut self, item: &Item) -> Result<(), BackupError> {
        let wrong = |what: &str| Err(BackupError::Content(what.to_owned()));
        if self.ended {
            return wrong("it goes on after its last item");
        }
        match item {
            Item::Made(at, version) if self.made.is_none() => self.made = Some((*at, version.clone())),
            _ if self.made.is_none() => return wrong("it does not say when it was made"),
            Item::Made(..) => return wrong("it says twice when it was made"),
            Item::Cell(..) | Item::Gone(_) => self.cells += 1,
            Item::End(count) if *count == self.cells => self.ended = true,
            Item::End(_) => return wrong("it has another number of cells than it says"),
        }
        Ok(())
    }

    fn end(self) -> Result<Imported, BackupError> {
        match self.made {
            Some((made, version)) if self.ended => Ok(Imported { made, version, cells: self.cells }),
            _ => Err(BackupError::Content("it has no last item".into())),
        }
    }
}

/// Imports a backup that [`inspect`] has read to its end.
pub async fn import(
    mut input: impl Read + Seek,
    store: &Arc<dyn Store>,
    keys: &Arc<Keyring>,
    progress: &mut dyn FnMut(u64),
) -> Result<Imported, ImportError> {
    input.seek(SeekFrom::Start(0)).map_err(BackupError::from)?;
    let mut opener = Opener::begin(input, keys)?;
    let marked = Cell { version: 1, value: opener.id.to_vec() };
    match store.get(&mark()).await? {
        Some(found) if found == marked => {}
        Some(_) => return Err(ImportError::Another),
        None => {
            empty(store).await?;
            let batch = Batch { checks: vec![Check::Absent(mark())], writes: vec![Write::Put(mark(), marked)] };
            write(store, batch).await?;
        }
    }
    let (mut batch, mut bytes, mut reading) = (begin(), 0, Reading::default());
    while let Some(chunk) = opener.next()? {
        for item in Item::decode(&chunk)? {
            reading.take(&item)?;
            match item {
                Item::Cell(place, cell) => {
                    bytes += cell.value.len();
                    batch.writes.push(Write::Put(place, cell));
                }
                Item::Gone(place) => batch.writes.push(Write::Delete(place)),
                Item::Made(..) | Item::End(_) => {}
            }
            if batch.writes.len() >= BATCH_WRITES || bytes >= BATCH_BYTES {
                write(store, std::mem::replace(&mut batch, begin())).await?;
                bytes = 0;
            }
        }
        progress(opener.read());
    }
    let imported = reading.end()?;
    write(store, std::mem::replace(&mut batch, begin())).await?;
    whole_logs(store, keys).await?;
    // The last: from here on it is a store like any other.
    batch.writes.push(Write::Delete(mark()));
    write(store, batch).await?;
    Ok(imported)
}

/// Each log that came must be one of these keys, and whole.
async fn whole_logs(store: &Arc<dyn Store>, keys: &Keyring) -> Result<(), ImportError> {
    let mut known = Vec::new();
    for log in keys.logs() {
        let signer = LogSigner::new(log)?;
        recovery::read_head(store, &signer).await?;
        known.push(recovery::checkpoint_place(log.origin()).key);
    }
    let logs = store.scan(tables::CHECKPOINT, &[], &KEYS_END, usize::from(u16::MAX)).await?;
    if logs.iter().all(|(key, _)| known.contains(key)) { Ok(()) } else { Err(ImportError::UnknownLog) }
}

/// A batch that holds only as long as this import is the one under way.
fn begin() -> Batch {
    Batch { checks: vec![Check::Version(mark(), 1)], writes: Vec::new() }
}

async fn write(store: &Arc<dyn Store>, batch: Batch) -> Result<(), ImportError> {
    store.commit(batch).await.map_err(|e| ImportError::Write(e.to_string()))
}

async fn empty(store: &Arc<dyn Store>) -> Result<(), ImportError> {
    for table in kept().chain([tables::SESSION]) {
        if !store.scan(table, &[], &KEYS_END, 1).await?.is_empty() {
            return Err(ImportError::NotEmpty(table));
        }
    }
    Ok(())
}
