//! The one task that commits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use super::recovery::{self, State, checkpoint_place, hour_place, leaf_key, tile_place};
use super::release::Committed;
use super::{
    GROUP_CALLS_MAX, GROUP_WRITES_MAX, GroupTiles, Head, Job, LeafPlace, LogSigner, RecordError, Waiting, fail_all,
    manifest,
};
use crate::access_log::checkpoint::Checkpoint;
use crate::access_log::entry::{self, Body};
use crate::access_log::tile::RightEdge;
use crate::access_log::{ENTRY_BYTES, leaf_hash};
use crate::entropy::Entropy;
use crate::store::{Batch, Cell, Check, CommitError, Place, Store, Write};
use crate::tables;

/// How much of a manifest one leaf cell takes.
const MANIFEST_CHUNK_BYTES: usize = 48 * 1024;

/// The longest that the writer pauses for somebody who reads.
const PAUSE_MAX: Duration = Duration::from_millis(1_000);

/// The ledger has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PauseError;

/// A request that the writer pause, as the writer sees it.
pub(super) struct Pause {
    began: oneshot::Sender<()>,
    end: oneshot::Receiver<()>,
}

/// A pause, as whoever reads sees it; ends when it is dropped.
pub(super) struct Paused(oneshot::Sender<()>);

impl Pause {
    pub(super) fn new() -> (Self, oneshot::Receiver<()>, Paused) {
        let (began, has_begun) = oneshot::channel();
        let (ends, end) = oneshot::channel();
        (Self { began, end }, has_begun, Paused(ends))
    }
}

impl Paused {
    /// Ends it; `false` if it had run out before, so that the writer may have written since.
    pub(super) fn end(self) -> bool {
        self.0.send(()).is_ok()
    }
}

pub(super) struct Writer {
    /// Where batches go.
    pub store: Arc<dyn Store>,
    /// The log's key.
    pub signer: LogSigner,
    /// Randomness for sealing.
    pub entropy: Arc<dyn Entropy>,
    /// What it goes on from.
    pub state: State,
    /// Heads that a commit of unknown outcome would have made: it may have happened after all.
    pub tried: Vec<Arc<str>>,
    /// Takes what is durable in the store.
    pub release: mpsc::Sender<Committed>,
    /// Tells why it has stopped for good.
    pub stop: watch::Sender<Option<String>>,
}

/// A group put together: what is committed, and what callers get once it is.
struct Group {
    batch: Batch,
    /// For each check of the batch, the caller that made it (none for the ledger's own) and the cell that it is about.
    checked: Vec<(Option<usize>, Place)>,
    entries: Vec<[u8; ENTRY_BYTES]>,
    head: Head,
    tiles: Arc<GroupTiles>,
    hour: Option<i64>,
    newest: Timestamp,
}

impl Writer {
    pub(super) async fn run(mut self, mut receiver: mpsc::Receiver<Job>) {
        let mut paused = None;
        loop {
            if let Some(Pause { began, end }) = paused.take() {
                // Whoever asked for it may have gone; and one that lasts must not hold answers back.
                if began.send(()).is_ok() {
                    let _ended_or_too_long = tokio::time::timeout(PAUSE_MAX, end).await;
                }
            }
            let first = match receiver.recv().await {
                None => return,
                Some(Job::Pause(pause)) => {
                    paused = Some(pause);
                    continue;
                }
                Some(Job::Change(first)) => first,
            };
            let mut writes = first.change.writes.len();
            let mut group = vec![first];
            while group.len() < GROUP_CALLS_MAX && writes < GROUP_WRITES_MAX && paused.is_none() {
                match receiver.try_recv() {
                    Ok(Job::Change(next)) => {
                        writes += next.change.writes.len();
                        group.push(next);
                    }
                    Ok(Job::Pause(pause)) => paused = Some(pause),
                    Err(_) => break,
                }
            }
            if let Err(reason) = self.commit(group).await {
                tracing::error!(%reason, "the ledger has stopped");
                self.stop.send_replace(Some(reason));
                return;
            }
        }
    }

    /// Commits a group; `Err` only when the ledger must stop for good.
    async fn commit(&mut self, waiting: Vec<Waiting>) -> Result<(), String> {
        let mut waiting = drop_collisions(waiting);
        let group = loop {
            if waiting.is_empty() {
                return Ok(());
            }
            let mut group = match self.assemble(&waiting) {
                Ok(group) => group,
                Err((caller, reason)) => {
                    refuse(&mut waiting, caller, RecordError::Failed(reason));
                    continue;
                }
            };
            match self.store.commit(std::mem::take(&mut group.batch)).await {
                Ok(()) => break group,
                Err(CommitError::Conflict(failed)) => self.resolve_conflict(&mut waiting, &group, &failed).await?,
                Err(CommitError::Failed(reason)) => {
                    fail_all(waiting, &reason);
                    return Ok(());
                }
                Err(CommitError::Unknown(reason)) => {
                    // INVARIANT (no receipt, no answer): the checkpoint tells which outcome it was,
                    // before anything else is written.
                    if self.read_again().await?.note == group.head.note {
                        break group;
                    }
                    self.tried.push(group.head.note.clone());
                    fail_all(waiting, &reason);
                    return Ok(());
                }
                Err(CommitError::SyncFailed(reason)) => {
                    fail_all(waiting, &reason);
                    return Err(reason);
                }
            }
        };
        self.committed(waiting, group).await
    }

    /// Goes on from the group, and hands it over for its copy outside and its receipts.
    async fn committed(&mut self, waiting: Vec<Waiting>, group: Group) -> Result<(), String> {
        if self.state.head.note != group.head.note {
            self.state.version = Some(self.state.version.map_or(1, |version| version + 1));
        }
        self.state.head = group.head.clone();
        (self.state.hour, self.state.newest) = (group.hour, group.newest);
        self.tried.clear();
        let Group { entries, head, tiles, .. } = group;
        let gone = |_| "the outside copy of the checkpoint is lost".to_owned();
        self.release.send(Committed { waiting, entries, head, tiles }).await.map_err(gone)
    }

    async fn resolve_conflict(
        &mut self,
        waiting: &mut Vec<Waiting>,
        group: &Group,
        failed: &[usize],
    ) -> Result<(), String> {
        let mut conflicts: BTreeMap<usize, Vec<Place>> = BTreeMap::new();
        let mut own = failed.is_empty();
        for index in failed {
            match group.checked.get(*index) {
                Some((Some(caller), place)) => conflicts.entry(*caller).or_default().push(place.clone()),
                _ => own = true,
            }
        }
        for (caller, places) in conflicts.into_iter().rev() {
            refuse(waiting, caller, RecordError::Conflict(places));
        }
        if own {
            // The checkpoint moved under us. Either an earlier batch of ours was there after all, and
            // we go on from it; or another process writes this log: then one of the two must end.
            let before = self.state.head.note.clone();
            let found = self.read_again().await?.note;
            if found != before && !self.tried.contains(&found) {
                let origin = self.signer.key.origin();
                let reason = format!(
                    "another process writes the log {origin}: each gateway needs a `log_origin` of its own, and no two may run from one configuration"
                );
                fail_all(std::mem::take(waiting), &reason);
                return Err(reason);
            }
        }
        Ok(())
    }

    /// Reads the log's head from the store again.
    async fn read_again(&mut self) -> Result<Head, String> {
        let (head, version) =
            recovery::read_head(&self.store, &self.signer).await.map_err(|e| format!("the log cannot be read: {e}"))?;
        if let Some(last) = head.checkpoint.size.checked_sub(1)
            && head.note != self.state.head.note
        {
            let newest = recovery::newest_entry(&self.store, &self.signer, last).await;
            let newest = newest.map_err(|e| format!("the log cannot be read: {e}"))?;
            self.state.newest = self.state.newest.max(newest);
            self.state.hour = self.state.hour.max(Some(recovery::hour_of(newest)));
        }
        self.state.head = head.clone();
        self.state.version = version;
        Ok(head)
    }

    /// Gives every change its place and seals what depends on it.
    fn assemble(&self, waiting: &[Waiting]) -> Result<Group, (usize, String)> {
        let origin = self.state.head.checkpoint.origin.as_str();
        let mut edge = RightEdge::clone(&self.state.head.edge);
        let first = edge.size();
        let size = first + waiting.len() as u64;
        let (mut batch, mut checked) = (Batch::default(), Vec::new());
        let (mut entries, mut completed, mut hour) = (Vec::with_capacity(waiting.len()), Vec::new(), self.state.hour);
        let (log, mut newest) = (self.signer.key.number(), self.state.newest);
        for (caller, (Waiting { change, .. }, index)) in waiting.iter().zip(first..).enumerate() {
            let failed = |reason: String| (caller, reason);
            let place = LeafPlace { log, index, size };
            // Times never go back within a log: so several are merged, and found, by time.
            newest = newest.max(change.body.at);
            let body = Body { at: newest, ..change.body.clone() };
            let mut writes = change.writes.clone();
            for placed in &change.placed {
                let value = (placed.seal)(place).map_err(failed)?;
                writes.push(Write::Put(placed.place.clone(), Cell { version: placed.version, value }));
            }
            let this_hour = recovery::hour_of(body.at);
            if hour.is_none_or(|seen| this_hour > seen) {
                hour = Some(this_hour);
                let cell = Cell { version: 1, value: index.to_be_bytes().to_vec() };
                writes.push(Write::Put(hour_place(origin, this_hour), cell));
            }
            let manifest = manifest::encode(&writes);
            let (key, digest) = (&self.signer.key, manifest::digest(&manifest));
            let entry = entry::seal(key, index, &change.commitment, &body, &digest, &*self.entropy)
                .map_err(|e| failed(e.to_string()))?;
            edge.append(leaf_hash(&entry), &mut completed);
            batch.writes.extend(writes);
            batch.writes.extend(leaf_cells(origin, index, &entry, &manifest));
            checked.extend(change.checks.iter().map(|check| (Some(caller), check.place().clone())));
            batch.checks.extend(change.checks.iter().cloned());
            entries.push(entry);
        }
        for (tile, hashes) in &completed {
            let cell = Cell { version: 1, value: hashes.concat() };
            batch.writes.push(Write::Put(tile_place(origin, *tile), cell));
        }
        let checkpoint = Checkpoint { origin: origin.to_owned(), size, root: edge.root() };
        let note: Arc<str> = checkpoint.sign(&self.signer).into();
        let place = checkpoint_place(origin);
        let version = self.state.version.unwrap_or(0);
        batch.checks.push(match version {
            0 => Check::Absent(place.clone()),
            _ => Check::Version(place.clone(), version),
        });
        checked.push((None, place.clone()));
        batch.writes.push(Write::Put(place, Cell { version: version + 1, value: note.as_bytes().to_vec() }));
        let tiles = Arc::new(GroupTiles::new(completed, &edge));
        let head = Head { checkpoint, note, edge: Arc::new(edge) };
        Ok(Group { batch, checked, entries, head, tiles, hour, newest })
    }
}

/// The cells of an entry: the first holds the entry itself, then the manifest in pieces.
fn leaf_cells(origin: &str, index: u64, entry: &[u8; ENTRY_BYTES], manifest: &[u8]) -> Vec<Write> {
    let length = u32::try_from(manifest.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut chunks = manifest.chunks(MANIFEST_CHUNK_BYTES);
    let first = [entry.as_slice(), &length, chunks.next().unwrap_or_default()].concat();
    std::iter::once(first)
        .chain(chunks.map(<[u8]>::to_vec))
        .zip(0u16..)
        .map(|(value, chunk)| {
            let place = Place::new(tables::LEAF, leaf_key(origin, index, chunk));
            Write::Put(place, Cell { version: 1, value })
        })
        .collect()
}

/// Drops the callers whose checks an earlier one of the same group makes fail.
fn drop_collisions(waiting: Vec<Waiting>) -> Vec<Waiting> {
    let mut written: std::collections::HashSet<Place> = std::collections::HashSet::new();
    let mut kept = Vec::with_capacity(waiting.len());
    for waiting in waiting {
        let change = &waiting.change;
        let collisions: Vec<Place> =
            change.checks.iter().map(Check::place).filter(|place| written.contains(place)).cloned().collect();
        if collisions.is_empty() {
            written.extend(change.writes.iter().map(|write| write.place().clone()));
            written.extend(change.placed.iter().map(|placed| placed.place.clone()));
            kept.push(waiting);
        } else {
            let _ = waiting.answer.send(Err(RecordError::Conflict(collisions)));
        }
    }
    kept
}

fn refuse(waiting: &mut Vec<Waiting>, caller: usize, error: RecordError) {
    if caller < waiting.len() {
        let _ = waiting.remove(caller).answer.send(Err(error));
    }
}
