//! A store that fails when it is told to, for tests of everything above a store.
//!
//! It wraps any store. A fault comes in both forms that a real one has: failed and not persisted,
//! failed and persisted anyway. It also writes down which cells were read, checked and written, so
//! a test can hold two calls against each other. Without orders it passes everything through and
//! keeps the whole contract.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Batch, Cell, Check, CommitError, Place, Store, StoreError, Table, Write};

const WHY: &str = "a fault was ordered";

/// How a commit fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is persisted, and the caller is told so: `Failed`.
    Failed,
    /// Nothing is persisted, and the caller cannot know: `Unknown`.
    Lost,
    /// The batch is persisted, and the caller cannot know: `Unknown`.
    Persisted,
    /// Nothing is persisted; `SyncFailed`, and so is every later commit.
    SyncFailed,
    /// The batch is persisted; `SyncFailed`, and so is every later commit (which is not persisted).
    SyncFailedPersisted,
}

/// What was done to a cell, or with a range of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deed {
    /// A cell was read.
    Get,
    /// A range was read; its key is the beginning.
    Scan,
    /// A cell was checked to be absent.
    CheckAbsent,
    /// A cell was checked to have a version.
    CheckVersion,
    /// A cell was written.
    Put,
    /// A cell was deleted.
    Delete,
}

/// One line of what the store was asked for; its `Debug` shows lengths, never bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Touch {
    /// What was done.
    pub deed: Deed,
    /// The table.
    pub table: Table,
    /// The key.
    pub key: Vec<u8>,
    /// Bytes of the value that was read (none if no cell was there; the sum for a scan) or put.
    pub value_bytes: Option<usize>,
}

impl Touch {
    /// The same without the key: what the store's holder sees of two calls that should look alike.
    pub fn shape(&self) -> (Deed, Table, usize, Option<usize>) {
        (self.deed, self.table, self.key.len(), self.value_bytes)
    }
}

impl fmt::Debug for Touch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} key of {} bytes", self.deed, self.table, self.key.len())?;
        self.value_bytes.map_or(Ok(()), |bytes| write!(f, ", value of {bytes} bytes"))
    }
}

#[derive(Default)]
struct State {
    commits: u64,
    reads: u64,
    commit_faults: BTreeMap<u64, Fault>,
    read_faults: BTreeSet<u64>,
    every_commit: Option<Fault>,
    sync_failed: bool,
    log: Option<Vec<Touch>>,
}

impl State {
    fn note(&mut self, deed: Deed, table: Table, key: &[u8], value_bytes: Option<usize>) {
        if let Some(log) = &mut self.log {
            log.push(Touch { deed, table, key: key.to_vec(), value_bytes });
        }
    }
}

/// A store around another one that fails on order, and notes down on order.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    state: Mutex<State>,
}

impl FaultyStore {
    /// Passes everything through to `inner` until told otherwise.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, state: Mutex::default() }
    }

    /// The store inside, untouched by faults and notes.
    pub fn inner(&self) -> &Arc<dyn Store> {
        &self.inner
    }

    /// How many commits were asked for so far, failed ones included.
    pub fn commits(&self) -> u64 {
        self.state().commits
    }

    /// How many reads (gets and scans) were asked for so far.
    pub fn reads(&self) -> u64 {
        self.state().reads
    }

    /// The `nth` commit from now fails (1 is the next one).
    pub fn fail_commit(&self, nth: u64, fault: Fault) {
        let mut state = self.state();
        let at = state.commits.saturating_add(nth);
        state.commit_faults.insert(at, fault);
    }

    /// The `nth` read from now fails (1 is the next one).
    pub fn fail_read(&self, nth: u64) {
        let mut state = self.state();
        let at = state.reads.saturating_add(nth);
        state.read_faults.insert(at);
    }

    /// Every commit fails from now on, until this is called with `None`.
    pub fn fail_every_commit(&self, fault: Option<Fault>) {
        self.state().every_commit = fault;
    }

    /// Begins a new list of reads, checks and writes.
    pub fn start_record(&self) {
        self.state().log = Some(Vec::new());
    }

    /// Ends the list and returns it, in the order in which the store was asked.
    pub fn take_record(&self) -> Vec<Touch> {
        self.state().log.take().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_read(&self, doing: &str) -> Result<(), StoreError> {
        let mut state = self.state();
        state.reads = state.reads.saturating_add(1);
        let at = state.reads;
        if state.read_faults.remove(&at) {
            return Err(StoreError { doing: doing.to_owned(), reason: WHY.to_owned() });
        }
        Ok(())
    }

    fn begin_commit(&self, batch: &Batch) -> Option<Fault> {
        let mut state = self.state();
        for check in &batch.checks {
            let deed = match check {
                Check::Absent(_) => Deed::CheckAbsent,
                Check::Version(..) => Deed::CheckVersion,
            };
            state.note(deed, check.place().table, &check.place().key, None);
        }
        for write in &batch.writes {
            let (deed, bytes) = match write {
                Write::Put(_, cell) => (Deed::Put, Some(cell.value.len())),
                Write::Delete(_) => (Deed::Delete, None),
            };
            state.note(deed, write.place().table, &write.place().key, bytes);
        }
        state.commits = state.commits.saturating_add(1);
        if state.sync_failed {
            return Some(Fault::SyncFailed);
        }
        let at = state.commits;
        let fault = state.commit_faults.remove(&at).or(state.every_commit);
        state.sync_failed = matches!(fault, Some(Fault::SyncFailed | Fault::SyncFailedPersisted));
        fault
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        write!(f, "FaultyStore({} commits, {} reads)", state.commits, state.reads)
    }
}

#[async_trait::async_trait]
impl Store for FaultyStore {
    async fn get(&self, place: &Place) -> Result<Option<Cell>, StoreError> {
        self.begin_read(&format!("read a cell of table {}", place.table.name()))?;
        let found = self.inner.get(place).await?;
        self.state().note(Deed::Get, place.table, &place.key, found.as_ref().map(|cell| cell.value.len()));
        Ok(found)
    }

    async fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Cell)>, StoreError> {
        self.begin_read(&format!("scan table {}", table.name()))?;
        let found = self.inner.scan(table, from, to, limit).await?;
        let bytes = found.iter().map(|(_, cell)| cell.value.len()).sum();
        self.state().note(Deed::Scan, table, from, Some(bytes));
        Ok(found)
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        match self.begin_commit(&batch) {
            None => self.inner.commit(batch).await,
            Some(Fault::Failed) => Err(CommitError::Failed(WHY.to_owned())),
            Some(Fault::Lost) => Err(CommitError::Unknown(WHY.to_owned())),
            // What the inner store says is what the caller must not learn: a batch whose checks
            // fail is then unknown as well, as it is when a connection breaks.
            Some(Fault::Persisted) => {
                let _unheard = self.inner.commit(batch).await;
                Err(CommitError::Unknown(WHY.to_owned()))
            }
            Some(Fault::SyncFailed) => Err(CommitError::SyncFailed(WHY.to_owned())),
            Some(Fault::SyncFailedPersisted) => {
                let _unheard = self.inner.commit(batch).await;
                Err(CommitError::SyncFailed(WHY.to_owned()))
            }
        }
    }
}
