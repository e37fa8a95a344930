//! The store on sled 0.34: one process, one machine.
//!
//! It keeps what sled does not promise by itself: a commit is acknowledged after `flush` and a sync
//! of the data file; an emptied folder is never taken for a new one; panics become errors; readers
//! see durable cells only. All tables lie in one tree, so that one `apply_batch` is one durable unit
//! (several trees were measured to be no faster, and a batch over them needs sled's transactions,
//! which retry). Reads are done where they are called: they take microseconds, and a scan is bounded
//! by its limit, so scan by pages of about a thousand.

mod cells;
mod contain;
mod layout;
mod open;
mod reach;
mod writer;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

pub use open::OpenError;

use super::{Batch, Cell, CommitError, Place, Store, StoreError, Table, within_limits};
use cells::Cells;
use layout::place_key;
use open::Folder;
use writer::{Job, Writer};

/// Batches that wait for the writer; a commit beyond them waits for a place.
const QUEUE_MAX: usize = 1024;

/// How the data file is made durable. Tests put a failing one here.
pub type SyncData = Arc<dyn Fn(&File) -> io::Result<()> + Send + Sync>;

/// How a store is opened.
#[derive(Clone)]
pub struct SledOptions {
    /// Memory for sled's page cache, in bytes. The whole store in it is more than enough.
    pub cache_bytes: u64,
    /// How long another process may hold the store before opening it fails: long enough for one
    /// that is just stopping.
    pub lock_wait: Duration,
    /// How the data file is made durable; `sync_data` unless a test wants otherwise.
    pub sync: SyncData,
}

impl Default for SledOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 256 * 1024 * 1024,
            lock_wait: Duration::from_secs(2),
            sync: Arc::new(|data: &File| data.sync_data()),
        }
    }
}

impl fmt::Debug for SledOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledOptions")
            .field("cache_bytes", &self.cache_bytes)
            .field("lock_wait", &self.lock_wait)
            .finish_non_exhaustive()
    }
}

/// A store in a folder of its own, which no other process can open meanwhile.
///
/// Dropping it waits for the commits under way and releases the folder before it returns; in async
/// code, [`SledStore::close`] does the same without blocking.
pub struct SledStore {
    // The order is the order in which they are dropped: no more jobs, the writer ends, sled closes,
    // and only then is the folder free for the next.
    queue: mpsc::Sender<Job>,
    _writer: Joined,
    cells: Arc<Cells>,
    _folder: Folder,
}

impl SledStore {
    /// Whether a store was made in this folder.
    pub fn is_at(path: &Path) -> bool {
        path.join(open::MARKER).exists()
    }

    /// Opens the store in this folder, or makes one there.
    ///
    /// Blocks for as long as sled reads its log. Opening makes nothing up: a folder that was a store
    /// and has lost its data is refused, as is one that this version cannot read.
    pub fn open(path: &Path, options: SledOptions) -> Result<Self, OpenError> {
        let io =
            |doing: &str, reason: String| OpenError::Io { folder: path.to_owned(), doing: doing.to_owned(), reason };
        // In a thread of its own: a panic inside sled may leave that thread's part of its memory
        // reclamation pinned.
        let opened = std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("store-open".to_owned())
                .spawn_scoped(scope, || open::open(path, &options))
                .map_err(|error| io("start a thread", error.to_string()))?
                .join()
                .unwrap_or_else(|_| Err(io("open sled's files", "the opening thread stopped in the middle".to_owned())))
        })?;
        let cells = Arc::new(Cells::new(opened.db));
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        let writer = Writer {
            cells: Arc::clone(&cells),
            data: opened.data,
            sync: options.sync,
            number: opened.number,
            folder: path.to_owned(),
        };
        let handle = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(jobs))
            .map_err(|error| io("start a thread", error.to_string()))?;
        Ok(Self { queue, _writer: Joined(Some(handle)), cells, _folder: opened.folder })
    }

    /// Ends the store: commits under way are finished, then the folder is released.
    pub async fn close(self) {
        let _closed = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

impl fmt::Debug for SledStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SledStore(..)")
    }
}

#[async_trait::async_trait]
impl Store for SledStore {
    async fn get(&self, place: &Place) -> Result<Option<Cell>, StoreError> {
        self.cells
            .get(&place_key(place))
            .map_err(|reason| StoreError { doing: format!("read a cell of table {}", place.table.name()), reason })
    }

    async fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Cell)>, StoreError> {
        let failed = |reason| StoreError { doing: format!("scan table {}", table.name()), reason };
        self.cells.scan(table, from, to, limit).map_err(failed)
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        within_limits(&batch)?;
        let (done, verdict) = oneshot::channel();
        let gone = "the store's writer has ended";
        self.queue.send(Job { batch, done }).await.map_err(|_| CommitError::Failed(gone.to_owned()))?;
        verdict.await.unwrap_or_else(|_| Err(CommitError::Unknown(gone.to_owned())))
    }

    async fn faults(&self) -> Result<Vec<String>, StoreError> {
        let cells = Arc::clone(&self.cells);
        let failed = |reason| StoreError { doing: "read every entry of sled's tree".to_owned(), reason };
        let read = tokio::task::spawn_blocking(move || cells.faults()).await;
        read.unwrap_or_else(|_| Err("the reading stopped in the middle".to_owned())).map_err(failed)
    }
}

/// A thread that is waited for when this is dropped.
struct Joined(Option<JoinHandle<()>>);

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            let _ended = handle.join();
        }
    }
}

/// What sled's error says, without the bytes that some of them carry.
fn reason(error: &sled::Error) -> String {
    match error {
        sled::Error::Io(error) => io_reason(error),
        sled::Error::Unsupported(what) => what.clone(),
        sled::Error::Corruption { at: Some(at), .. } => format!("its data is damaged at {at:?}"),
        sled::Error::Corruption { at: None, .. } => "its data is damaged".to_owned(),
        sled::Error::CollectionNotFound(_) => "a tree is missing".to_owned(),
        sled::Error::ReportableBug(_) => "sled found a fault of its own".to_owned(),
    }
}

/// What the system said. sled keeps its errors as the `Debug` of the system's, which no operator should have to read.
fn io_reason(error: &io::Error) -> String {
    let said = error.to_string();
    let code =
        said.strip_prefix("Os { code: ").and_then(|rest| rest.split(',').next()).and_then(|code| code.parse().ok());
    code.map_or(said, |code| io::Error::from_raw_os_error(code).to_string())
}

/// A commit that could not read what it had to check.
fn reason_of_commit(table: Table, reason: &str) -> CommitError {
    CommitError::Failed(format!("could not read a cell of table {}: {reason}", table.name()))
}
