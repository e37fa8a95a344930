//! The one door: every change of state goes through here, in one batch with its log entry.
//!
//! One task gathers what concurrent callers want written, drops those whose checks fail, gives the
//! entries their places, seals what depends on a place, and commits writes, leaves and the new
//! checkpoint together with one flush. Then it writes the checkpoint's outside copy, and only then
//! does any caller get its [`Receipt`]. INVARIANT (no receipt, no answer): a receipt has no other
//! maker. INVARIANT (one door): sessions aside, nothing else commits. The checkpoint moves by
//! compare-and-swap, so two processes never release two histories.

pub mod audit;
pub mod manifest;
pub mod outside;
mod reader;
mod recovery;
mod writer;

pub use reader::{LogReader, ReadError};
pub use recovery::OpenError;

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::access_log::checkpoint::{Checkpoint, NoteSigner, VerifierKey};
use crate::access_log::entry::Body;
use crate::access_log::proof::{self, Proof};
use crate::access_log::tile::{RightEdge, TileRef, Tiles};
use crate::access_log::{ENTRY_BYTES, Hash};
use crate::entropy::Entropy;
use crate::keys::Keyring;
use crate::store::{Check, Place, Store, Write};
use outside::Outside;

/// How many calls one commit takes at most.
pub const GROUP_CALLS_MAX: usize = 256;
/// How many writes one commit takes at most, one large call aside.
pub const GROUP_WRITES_MAX: usize = 4_000;

/// Where an entry stands: its index, and the size of the tree that its group commit made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafPlace {
    /// The entry's index.
    pub index: u64,
    /// The size of the first checkpoint that holds it.
    pub size: u64,
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
struct GroupTiles {
    completed: Vec<(TileRef, Vec<Hash>)>,
    edge: Arc<RightEdge>,
}

impl Tiles for GroupTiles {
    fn tile(&self, tile: TileRef, width: u16) -> Option<&[Hash]> {
        let done = self.completed.iter().find(|(done, _)| *done == tile).map(|(_, hashes)| hashes.as_slice());
        done.or_else(|| self.edge.tile(tile, width))
    }
}

/// Signs checkpoints with the log's key.
struct LogSigner {
    keys: Arc<Keyring>,
    verifier: VerifierKey,
}

impl NoteSigner for LogSigner {
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.keys.log().sign(message)
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

/// A handle to the ledger; clones share it.
#[derive(Clone)]
pub struct Ledger {
    sender: mpsc::Sender<Waiting>,
    reader: LogReader,
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
        let verifier =
            VerifierKey::new(keys.log().origin(), keys.log().public()).map_err(|e| OpenError::Origin(e.to_string()))?;
        let signer = LogSigner { keys: keys.clone(), verifier };
        let state = recovery::recover(&store, &signer, outside, now).await?;
        let (head, head_seen) = watch::channel(state.head.clone());
        let (stop, stopped) = watch::channel(None);
        let (sender, receiver) = mpsc::channel(GROUP_CALLS_MAX * 4);
        let reader = LogReader::new(store.clone(), keys, signer.verifier.clone(), head_seen);
        let writer = writer::Writer { store, signer, entropy, state, head, stop };
        let writer = Arc::new(Mutex::new(Some(tokio::spawn(writer.run(receiver)))));
        Ok(Self { sender, reader, stopped, writer })
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
        self.sender.send(Waiting { change, answer }).await.map_err(|_| gone())?;
        receipt.await.map_err(|_| gone())?
    }

    /// Reads the log.
    pub fn log(&self) -> &LogReader {
        &self.reader
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

/// The eight bytes that a log's cells begin with.
fn log_prefix(origin: &str) -> [u8; 8] {
    use sha2::{Digest, Sha256};
    let digest: [u8; 32] = Sha256::digest(origin.as_bytes()).into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    [a, b, c, d, e, f, g, h]
}
