//! Calls that would change the same cells follow each other.
//!
//! Without this all but one of them would read, sign and seal in vain, and be told by the ledger to
//! start again. It saves work and keeps turns fair; nothing rests on it, since the ledger's checks
//! hold across lanes and processes.

use std::collections::BTreeSet;

use tokio::sync::{Mutex, MutexGuard};

/// How many lanes there are: many more than calls under way.
const LANES: usize = 4_096;

/// A fixed number of lanes, chosen by the first bytes of an id.
pub(super) struct Lanes(Vec<Mutex<()>>);

impl Lanes {
    /// Lanes that nobody is in.
    pub fn new() -> Self {
        Self((0..LANES).map(|_| Mutex::new(())).collect())
    }

    /// Waits for the lanes of these ids, always in the same order, so that nobody waits in a circle.
    pub async fn enter<'a>(&self, ids: impl Iterator<Item = &'a [u8]>) -> Vec<MutexGuard<'_, ()>> {
        let lane = |id: &[u8]| id.first_chunk::<2>().map_or(0, |id| usize::from(u16::from_be_bytes(*id)) % LANES);
        let wanted: BTreeSet<usize> = ids.map(lane).collect();
        let mut entered = Vec::with_capacity(wanted.len());
        for lane in wanted.into_iter().filter_map(|lane| self.0.get(lane)) {
            entered.push(lane.lock().await);
        }
        entered
    }
}
