//! The one thread that changes the store.
//!
//! It takes every batch that waits (a group), looks at each batch's checks in order against the tree
//! and the batches before it in the group, applies those that hold as one batch of sled, makes them
//! durable by one flush and one sync, and only then answers anybody. Since it alone writes, a check
//! that holds here holds until the commit. After a failure in the middle it writes nothing more.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::cells::{Cells, Changes, Image, Images};
use super::layout::place_key;
use super::{SyncData, reach, reason_of_commit};
use crate::store::{Batch, CommitError, Place, Write, failed_checks};

/// The most batches in a group.
const GROUP_BATCHES_MAX: usize = 512;
/// A group that has reached this many bytes of keys and values takes no further batch.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A batch and who waits for it.
pub(super) struct Job {
    /// What is to be committed.
    pub batch: Batch,
    /// Told how it went.
    pub done: oneshot::Sender<Result<(), CommitError>>,
}

pub(super) struct Writer {
    /// The cells that readers see.
    pub cells: Arc<Cells>,
    /// The file that is synced.
    pub data: File,
    /// How it is synced.
    pub sync: SyncData,
    /// The number of the last group.
    pub number: u64,
    /// The store's folder.
    pub folder: PathBuf,
}

impl Writer {
    /// Works until no more jobs can come, and has answered all of them then.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut broken: Option<String> = None;
        while let Some(first) = jobs.blocking_recv() {
            let mut bytes = batch_bytes(&first.batch);
            let mut group = vec![first];
            while group.len() < GROUP_BATCHES_MAX && bytes < GROUP_BYTES_MAX {
                let Ok(job) = jobs.try_recv() else { break };
                bytes = bytes.saturating_add(batch_bytes(&job.batch));
                group.push(job);
            }
            match &broken {
                Some(reason) => refuse(group, reason),
                None => broken = self.commit(group).err(),
            }
        }
        if broken.is_none()
            && let Err(error) = reach::leave(&self.folder, self.number)
        {
            tracing::warn!(%error, "the store could not note that it was closed in order; its next start checks less");
        }
    }

    /// Commits a group and answers it; an error if nothing must be written any more.
    fn commit(&mut self, jobs: Vec<Job>) -> Result<(), String> {
        let mut group = Group { cells: &self.cells, before: Images::new(), after: Changes::new() };
        let mut verdicts = Vec::with_capacity(jobs.len());
        for job in jobs {
            let verdict = group.take(job.batch);
            verdicts.push((job.done, verdict));
        }
        let Group { before, after, .. } = group;
        let settled = if after.is_empty() {
            Ok(())
        } else {
            self.number = self.number.saturating_add(1);
            self.cells.settle(before, after, self.number, &self.data, &self.sync)
        };
        for (done, verdict) in verdicts {
            // A conflict, too, is told only now: it may rest on a batch of this very group, and who
            // reads again must see what they ran into. Nobody may listen any more; that is theirs.
            let _heard = done.send(match &settled {
                Ok(()) => verdict,
                Err(reason) => Err(CommitError::SyncFailed(reason.clone())),
            });
        }
        settled
    }
}

fn refuse(group: Vec<Job>, reason: &str) {
    for job in group {
        let _heard = job.done.send(Err(CommitError::SyncFailed(format!(
            "an earlier commit could not be made durable, and nothing is written since ({reason})"
        ))));
    }
}

/// What a group does: the cells it looks at as they were, and the cells it changes as they will be.
struct Group<'a> {
    cells: &'a Cells,
    before: Images,
    after: Changes,
}

impl Group<'_> {
    /// Takes a batch into the group if its checks hold.
    fn take(&mut self, batch: Batch) -> Result<(), CommitError> {
        let failed = failed_checks(&batch.checks, |place| self.version(place))?;
        if !failed.is_empty() {
            return Err(CommitError::Conflict(failed));
        }
        // All that may fail comes before the first change, so that a batch is taken whole or not.
        for write in &batch.writes {
            self.version(write.place())?;
        }
        for write in batch.writes {
            match write {
                Write::Put(place, cell) => self.after.insert(place_key(&place), Some(cell)),
                Write::Delete(place) => self.after.insert(place_key(&place), None),
            };
        }
        Ok(())
    }

    /// The version of the cell as the batches before left it.
    fn version(&mut self, place: &Place) -> Result<Option<u64>, CommitError> {
        let key = place_key(place);
        if let Some(cell) = self.after.get(&key) {
            return Ok(cell.as_ref().map(|cell| cell.version));
        }
        if let Some(image) = self.before.get(&key) {
            return Ok(image.as_ref().map(Image::version));
        }
        let found = self.cells.applied(&key).map_err(|reason| reason_of_commit(place.table, &reason))?;
        let version = found.as_ref().map(Image::version);
        self.before.insert(key, found);
        Ok(version)
    }
}

fn batch_bytes(batch: &Batch) -> usize {
    let cell = |write: &Write| match write {
        Write::Put(place, cell) => place.key.len() + cell.value.len(),
        Write::Delete(place) => place.key.len(),
    };
    batch.writes.iter().map(cell).sum()
}
