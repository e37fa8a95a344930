//! All logs of a deployment: the one that this process writes, and those of others over the same store.
//!
//! Another's log is read from the store each time somebody needs it: its checkpoint may be newer than
//! anything seen here. What was seen last is kept only so that no more than the new entries are read,
//! and so that a log that gets shorter or other shows.

use std::sync::Arc;

use tokio::sync::{Mutex, watch};

use super::recovery::{self, checkpoint_place};
use super::{EntryId, Head, LogReader, LogSigner, OpenError, ReadError};
use crate::access_log::checkpoint::VerifierKey;
use crate::access_log::leaf_hash;
use crate::access_log::tile::RightEdge;
use crate::keys::{Keyring, path_name};
use crate::store::Store;

/// Beyond this many new entries the tiles are read instead.
const ENTRIES_MAX: u64 = 2_048;

/// Reads every log of a deployment; clones share what was seen.
#[derive(Clone)]
pub struct Logs {
    store: Arc<dyn Store>,
    own: LogReader,
    others: Arc<[Other]>,
}

/// A log that another process writes, or nobody any more.
struct Other {
    signer: LogSigner,
    /// The newest head seen, with the version of its cell.
    seen: Mutex<Option<(u64, Head)>>,
}

/// What a client must know of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogName {
    /// Its number.
    pub number: u16,
    /// Its name in paths.
    pub name: String,
    /// Its verifier key, which begins with its origin.
    pub verifier: VerifierKey,
}

impl Logs {
    pub(super) fn new(store: Arc<dyn Store>, own: LogReader, keys: &Keyring) -> Result<Self, OpenError> {
        let others = keys.logs().iter().filter(|key| key.number() != own.number());
        let other = |key| Ok(Other { signer: LogSigner::new(key)?, seen: Mutex::default() });
        let others = others.map(other).collect::<Result<Arc<[_]>, OpenError>>()?;
        Ok(Self { store, own, others })
    }

    /// The log that this process writes.
    pub fn own(&self) -> &LogReader {
        &self.own
    }

    /// The names of all logs, the first of them first.
    pub fn names(&self) -> Vec<LogName> {
        let mut names: Vec<LogName> = std::iter::once(&self.own.signer)
            .chain(self.others.iter().map(|other| &other.signer))
            .map(|signer| LogName {
                number: signer.key.number(),
                name: path_name(signer.key.origin()),
                verifier: signer.verifier.clone(),
            })
            .collect();
        names.sort_by_key(|name| name.number);
        names
    }

    /// A log as it is now.
    pub async fn log(&self, number: u16) -> Result<LogReader, ReadError> {
        if number == self.own.number() {
            return Ok(self.own.clone());
        }
        let other = self.others.iter().find(|other| other.signer.key.number() == number);
        let unknown = || {
            ReadError::Damaged(format!(
                "a place in log {number} is named, which keyring.json does not have; put the newest keyring.json here"
            ))
        };
        let other = other.ok_or_else(unknown)?;
        let head = other.head(&self.store).await?;
        Ok(LogReader::new(self.store.clone(), other.signer.clone(), watch::channel(head).1))
    }

    /// All logs as they are now, the first of them first.
    pub async fn all(&self) -> Result<Vec<LogReader>, ReadError> {
        let mut logs = Vec::with_capacity(self.others.len() + 1);
        for name in self.names() {
            logs.push(self.log(name.number).await?);
        }
        Ok(logs)
    }

    /// What an entry says, wherever it stands.
    pub async fn body(&self, id: EntryId) -> Result<crate::access_log::entry::Body, ReadError> {
        self.log(id.log).await?.body(id.index).await
    }
}

impl Other {
    /// The newest head that the store holds.
    async fn head(&self, store: &Arc<dyn Store>) -> Result<Head, ReadError> {
        let mut seen = self.seen.lock().await;
        let origin = self.signer.key.origin();
        let cell = store.get(&checkpoint_place(origin)).await?;
        if let (Some((version, head)), Some(cell)) = (&*seen, &cell)
            && cell.version == *version
            && cell.value == head.note.as_bytes()
        {
            return Ok(head.clone());
        }
        let damaged = |what: &str| ReadError::Damaged(format!("the log {origin} {what}"));
        let (head, version) = match &*seen {
            None => recovery::read_head(store, &self.signer).await.map_err(unread)?,
            Some((_, before)) => {
                // INVARIANT (the store is distrusted): what was seen once stays the beginning.
                let cell = cell.ok_or_else(|| damaged("is gone"))?;
                let note = String::from_utf8(cell.value).map_err(|_| damaged("has a checkpoint that is no text"))?;
                let checkpoint = self.signer.verifier.open(&note).map_err(|e| damaged(&e.to_string()))?;
                let (from, size) = (before.checkpoint.size, checkpoint.size);
                if size < from {
                    return Err(damaged(&format!("has {size} entries, and had {from}")));
                }
                if size - from <= ENTRIES_MAX {
                    let reader = LogReader::new(store.clone(), self.signer.clone(), watch::channel(before.clone()).1);
                    let mut edge = RightEdge::clone(&before.edge);
                    for entry in reader.entries(from, size).await? {
                        edge.append(leaf_hash(&entry), &mut Vec::new());
                    }
                    if edge.root() != checkpoint.root {
                        return Err(damaged("is another one than it was"));
                    }
                    let head = Head { checkpoint, note: note.into(), edge: Arc::new(edge) };
                    (head, Some(cell.version))
                } else {
                    let (head, version) = recovery::read_head(store, &self.signer).await.map_err(unread)?;
                    if recovery::root_at(store, &head, from).await? != Some(before.checkpoint.root) {
                        return Err(damaged("is another one than it was"));
                    }
                    (head, version)
                }
            }
        };
        *seen = version.map(|version| (version, head.clone()));
        Ok(head)
    }
}

fn unread(error: OpenError) -> ReadError {
    match error {
        OpenError::Store(error) => error.into(),
        other => ReadError::Damaged(other.to_string()),
    }
}
