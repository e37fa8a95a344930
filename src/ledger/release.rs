//! The step after the commit: the checkpoint's outside copy, then the receipts.
//!
//! Apart from the writer so that the next group can be put together and committed while the copy of
//! the one before is being synced. Groups are released in the order in which they were committed;
//! those that wait together share one copy, the newest, which says all that the older ones said.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::outside::Outside;
use super::{GroupTiles, Head, LeafPlace, Receipt, Waiting, fail_all};
use crate::access_log::ENTRY_BYTES;

/// How many groups may be durable in the store before their copy outside is.
pub(super) const UNRELEASED_GROUPS_MAX: usize = 2;

/// A group that is durable in the store.
pub(super) struct Committed {
    /// Who waits for the receipts, in the order of the entries.
    pub waiting: Vec<Waiting>,
    /// The group's entries, the last ones of the tree.
    pub entries: Vec<[u8; ENTRY_BYTES]>,
    /// The log as the group left it.
    pub head: Head,
    /// What proofs are cut from.
    pub tiles: Arc<GroupTiles>,
}

pub(super) struct Releaser {
    /// The number of the log, for places.
    pub log: u16,
    /// Where the newest checkpoint is kept.
    pub outside: Box<dyn Outside>,
    /// Tells readers of each new head.
    pub head: watch::Sender<Head>,
    /// Tells why it has stopped for good.
    pub stop: watch::Sender<Option<String>>,
}

impl Releaser {
    /// Releases what comes until no more can come.
    pub(super) async fn run(mut self, mut receiver: mpsc::Receiver<Committed>) {
        while let Some(first) = receiver.recv().await {
            let mut groups = vec![first];
            while let Ok(next) = receiver.try_recv() {
                groups.push(next);
            }
            let Some(note) = groups.last().map(|newest| newest.head.note.clone()) else { return };
            let mut outside = self.outside;
            // If we crash here, the next start finds the store ahead of its copy, which is clean.
            let kept = tokio::task::spawn_blocking(move || {
                let kept = outside.keep(&note);
                (outside, kept)
            });
            match kept.await {
                Ok((outside, kept)) => {
                    self.outside = outside;
                    for group in groups {
                        match &kept {
                            Ok(()) => release(self.log, &self.head, group),
                            Err(e) => fail_all(
                                group.waiting,
                                &format!("the checkpoint's outside copy could not be written: {e}"),
                            ),
                        }
                    }
                }
                Err(e) => {
                    // Without its copy a rolled-back store would not show: nothing more is written.
                    let reason = format!("the outside copy of the checkpoint is lost: {e}");
                    tracing::error!(%reason, "the ledger has stopped");
                    self.stop.send_replace(Some(reason.clone()));
                    groups.into_iter().for_each(|group| fail_all(group.waiting, &reason));
                    return;
                }
            }
        }
    }
}

/// INVARIANT (no receipt, no answer): receipts are made here, of entries that are durable in the store and outside.
fn release(log: u16, head: &watch::Sender<Head>, group: Committed) {
    let size = group.head.checkpoint.size;
    let first = size - group.entries.len() as u64;
    head.send_replace(group.head.clone());
    for ((waiting, entry), index) in group.waiting.into_iter().zip(group.entries).zip(first..) {
        let place = LeafPlace { log, index, size };
        let receipt =
            Receipt { place, entry: Box::new(entry), note: group.head.note.clone(), tiles: group.tiles.clone() };
        // A caller that has gone away does not undo what is durable.
        let _ = waiting.answer.send(Ok(receipt));
    }
}
