//! The one door: every change of state goes through here, in one batch with its log entry.
//!
//! One task gathers what concurrent callers want written, drops those whose checks fail, gives the
//! entries their places, seals what depends on a place, and commits writes, leaves and the new
//! checkpoint together with one flush. Then it writes the checkpoint's outside copy, and only then
//! does any caller get its [`Receipt`]. INVARIANT (no receipt, no answer): a receipt has no other
//! maker. INVARIANT (one door): sessions aside, nothing else commits. A ledger writes one log; its
//! checkpoint moves by compare-and-swap, so two processes never release two histories.

pub mod audit;
pub mod backup;
pub mod health;
pub mod manifest;
pub mod outside;
mod logs;
mod reader;
pub mod restored;
mod recovery;
mod release;
mod writer;

pub use logs::{LogName, Logs};
pub use reader::{LogReader, ReadError};
pub use recovery::OpenError;

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::access_log::checkpoint::{Checkpoint, NoteSigner, VerifierKey};
use crate::access_log::entry::Body;
use crate::access_log::proof::{self, Proof};
use crate::access_log::tile::{RememberedTile, RightEdge, TileRef, Tiles};
use crate::access_log::{ENTRY_BYTES, Hash};
use crate::entropy::Entropy;
use crate::keys::{FIRST_LOG, Keyring, LogKey};
use crate::store::{Check, Place, Store, Write};
use outside::Outside;

/// How many calls one commit takes at most.
pub const GROUP_CALLS_MAX: usize = 512;
/// How many writes one commit takes at most, one large call aside.
pub const GROUP_WRITES_MAX: usize = 4_000;

/// Which entry of which log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// The log's number.
    pub log: u16,
    /// The entry's index in it.
    pub index: u64,
}

impl EntryId {
    /// How many bytes an id has in a cell.
    pub const BYTES: usize = 10;

    /// The id as cells hold it.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes
            .iter_mut()
            .zip(self.log.to_be_bytes().into_iter().chain(self.index.to_be_bytes()))
            .for_each(|(to, from)| *to = from);
        bytes
    }

    /// The id of these bytes.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let [a, b, index @ ..] = bytes;
        Self { log: u16::from_be_bytes([*a, *b]), index: u64::from_be_bytes(*index) }
    }

    /// Reads an id in its one spelling.
    pub fn parse(text: &str) -> Option<Self> {
        let (log, index) = text.split_once('-').unwrap_or(("1", text));
        let id = Self { log: log.parse().ok()?, index: index.parse().ok()? };
        (id.to_string() == text).then_some(id)
    }
}

impl std::fmt::Display for EntryId {
    /// Its index, behind the log's number where that is not the first: `17`, `2-17`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.log {
            FIRST_LOG => write!(f, "{}", self.index),
            log => write!(f, "{log}-{}", self.index),
        }
    }
}

/// Where an entry stands: its log, its index, and the size of the tree that its group commit made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafPlace {
    /// The log's number.
    pub log: u16,
    /// The entry's index.
    pub index: u64,
    /// The size of the first checkpoint that holds it.
    pub size: u64,
}

impl LeafPlace {
    /// Which entry it is.
    pub fn id(self) -> EntryId {
        EntryId { log: self.log, index: self.index }
    }
}

/// Seals the value of a cell that depends on the entry's place. It may be called again with another
/// place when the group is put together anew.
pub type SealAt = Box<dyn Fn(LeafPlace) -> Result<Vec<u8>, String> + Send + Sync>;

/// A write whose value depends on the entry's place.
pub struct PlacedWrite {
    /// The cell.
    pub place: Place,
    /// Its new version.
    pub version: u64,
    /// Makes its value.
    pub seal: SealAt,
}

/// What one call wants changed and logged.
pub struct Change {
    /// What must still hold at the commit.
    pub checks: Vec<Check>,
    /// What is written.
    pub writes: Vec<Write>,
    /// What is written and depends on the entry's place.
    pub placed: Vec<PlacedWrite>,
    /// What the entry commits to: the SHA-256 of an attestation, or 32 random bytes.
    pub commitment: Hash,
    /// What the entry says.
    pub body: Body,
}

impl Change {
    /// A change that writes nothing but its entry.
    pub fn entry(commitment: Hash, body: Body) -> Self {
        Self { checks: Vec::new(), writes: Vec::new(), placed: Vec::new(), commitment, body }
    }
}

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Somebody else changed what the call had read: these cells. Read again and try again.
    #[error("{} of the cells that the call had read have changed", .0.len())]
    Conflict(Vec<Place>),
    /// The change was not made, or it is not known whether it was.
    #[error("the ledger could not write: {0}")]
    Failed(String),
    /// The ledger has stopped for good; the process must end.
    #[error("the ledger has stopped: {0}")]
    Stopped(String),
}

/// Proof that an entry is durable.
#[derive(Debug, Clone)]
pub struct Receipt {
    place: LeafPlace,
    entry: Box<[u8; ENTRY_BYTES]>,
    note: Arc<str>,
    tiles: Arc<GroupTiles>,
}

impl Receipt {
    /// Where the entry stands.
    pub fn place(&self) -> LeafPlace {
        self.place
    }

    /// The proof that the entry is in the tree of its group's checkpoint.
    pub fn proof(&self) -> Result<Proof, proof::MissingTile> {
        Ok(Proof {
            extra: self.entry.to_vec(),
            index: self.place.index,
            path: proof::inclusion(self.place.index, self.place.size, &*self.tiles)?,
            checkpoint: self.note.to_string(),
        })
    }
}

/// The tiles that a group's proofs are cut from: those it completed, and the right edge after it.
#[derive(Debug)]
struct GroupTiles(Vec<(TileRef, RememberedTile)>);

impl GroupTiles {
    fn new(completed: Vec<(TileRef, Vec<Hash>)>, edge: &RightEdge) -> Self {
        let edge = edge.partials().map(|(tile, hashes)| (tile, hashes.to_vec()));
        Self(completed.into_iter().chain(edge).map(|(tile, hashes)| (tile, RememberedTile::new(hashes))).collect())
    }

    fn at(&self, tile: TileRef, width: u16) -> Option<&RememberedTile> {
        let mut found = self.0.iter().filter(|(at, _)| *at == tile).map(|(_, remembered)| remembered);
        found.next().filter(|remembered| remembered.hashes().len() >= usize::from(width))
    }
}

impl Tiles for GroupTiles {
    fn tile(&self, tile: TileRef, width: u16) -> Option<&[Hash]> {
        self.at(tile, width).map(RememberedTile::hashes)
    }

    fn root_within(&self, tile: TileRef, width: u16, from: usize, to: usize) -> Option<Hash> {
        self.at(tile, width)?.root(from, to)
    }
}

/// Signs checkpoints with the log's key.
#[derive(Clone)]
struct LogSigner {
    key: Arc<LogKey>,
    verifier: VerifierKey,
}

impl LogSigner {
    fn new(key: &Arc<LogKey>) -> Result<Self, OpenError> {
        let verifier = VerifierKey::new(key.origin(), key.public()).map_err(|e| OpenError::Origin(e.to_string()))?;
        Ok(Self { key: key.clone(), verifier })
    }
}

impl NoteSigner for LogSigner {
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message)
    }

    fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }
}

/// The newest state of the log that callers may see: its entries are durable here and outside.
#[derive(Debug, Clone)]
struct Head {
    checkpoint: Checkpoint,
    note: Arc<str>,
    edge: Arc<RightEdge>,
}

struct Waiting {
    change: Change,
    answer: oneshot::Sender<Result<Receipt, RecordError>>,
}

/// What the writer is asked for.
enum Job {
    /// A change, with its entry.
    Change(Waiting),
    /// To write nothing for a moment.
    Pause(writer::Pause),
}

/// A handle to the ledger; clones share it.
#[derive(Clone)]
pub struct Ledger {
    sender: mpsc::Sender<Job>,
    logs: Logs,
    stopped: watch::Receiver<Option<String>>,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Ledger {
    /// Opens the log in the store, checks it against its outside copy, and starts the writer.
    ///
    /// Must be called within a tokio runtime. The writer ends when the last handle is dropped.
    pub async fn open(
        store: Arc<dyn Store>,
        keys: Arc<Keyring>,
        entropy: Arc<dyn Entropy>,
        outside: Box<dyn Outside>,
        now: Timestamp,
    ) -> Result<Self, OpenError> {
        let signer = LogSigner::new(keys.log())?;
        let (state, outside) = recovery::recover(&store, &signer, outside, now).await?;
        let (head, head_seen) = watch::channel(state.head.clone());
        let (stop, stopped) = watch::channel(None);
        let (sender, receiver) = mpsc::channel(GROUP_CALLS_MAX * 4);
        let own = LogReader::new(store.clone(), signer.clone(), head_seen);
        let logs = Logs::new(store.clone(), own, &keys)?;
        let (release, committed) = mpsc::channel(release::UNRELEASED_GROUPS_MAX);
        let releaser = release::Releaser { log: signer.key.number(), outside, head, stop: stop.clone() };
        let releaser = tokio::spawn(releaser.run(committed));
        let writer = writer::Writer { store, signer, entropy, state, tried: Vec::new(), release, stop };
        let writer = tokio::spawn(async move {
            writer.run(receiver).await;
            // What is durable is released before the ledger counts as closed.
            let _ = releaser.await;
        });
        let writer = Arc::new(Mutex::new(Some(writer)));
        Ok(Self { sender, logs, stopped, writer })
    }

    /// Waits until the writer has ended, so that nothing holds the store any more. Other handles must
    /// be gone.
    pub async fn close(self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(self);
        if let Some(writer) = writer {
            // A writer that panicked has let go of the store as well.
            let _ = writer.await;
        }
    }

    /// Makes a change and its entry durable, together with those of other callers.
    pub async fn record(&self, change: Change) -> Result<Receipt, RecordError> {
        let (answer, receipt) = oneshot::channel();
        let gone = || RecordError::Stopped(self.stopped.borrow().clone().unwrap_or_else(|| "it was shut down".into()));
        self.sender.send(Job::Change(Waiting { change, answer })).await.map_err(|_| gone())?;
        receipt.await.map_err(|_| gone())?
    }

    /// Has the writer write nothing until the pause is ended or has lasted too long; calls wait meanwhile.
    async fn pause(&self) -> Result<writer::Paused, writer::PauseError> {
        let (pause, began, paused) = writer::Pause::new();
        self.sender.send(Job::Pause(pause)).await.map_err(|_| writer::PauseError)?;
        began.await.map_err(|_| writer::PauseError)?;
        Ok(paused)
    }

    /// Reads the log that this ledger writes.
    pub fn log(&self) -> &LogReader {
        self.logs.own()
    }

    /// Reads all logs of the deployment.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// Resolves when the ledger has stopped for good, with the reason; the process must end then.
    pub async fn stopped(&self) -> String {
        let mut stopped = self.stopped.clone();
        let reason = stopped.wait_for(Option::is_some).await.map(|reason| reason.clone().unwrap_or_default());
        match reason {
            Ok(reason) => reason,
            // The writer ended because its callers did: there is nothing to tell.
            Err(_) => std::future::pending().await,
        }
    }
}

fn fail_all(waiting: Vec<Waiting>, reason: &str) {
    for waiting in waiting {
        let _ = waiting.answer.send(Err(RecordError::Failed(reason.to_owned())));
    }
}

/// The eight bytes that a log's cells begin with.
fn log_prefix(origin: &str) -> [u8; 8] {
    use sha2::{Digest, Sha256};
    let digest: [u8; 32] = Sha256::digest(origin.as_bytes()).into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    [a, b, c, d, e, f, g, h]
}
