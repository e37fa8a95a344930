//! Calls that would change the same cells follow each other.
//!
//! Without this all but one of them would read, sign and seal in vain, and be told by the ledger to
//! start again. It saves work and keeps turns fair; nothing rests on it, since the ledger's checks
//! hold across lanes and processes. Each id has a lane of its own: an upload is about hundreds of people,
//! so that any two of them would meet in a few thousand shared lanes, and wait for nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

type Lane = Arc<tokio::sync::Mutex<()>>;

/// The lanes that somebody is in or waits for, by the first bytes of an id: those of two ids are hardly ever the same.
#[derive(Default)]
pub(super) struct Lanes(Mutex<HashMap<u64, Lane>>);

/// Some lanes, until this is dropped.
pub(super) struct Turn<'a> {
    lanes: &'a Lanes,
    wanted: BTreeSet<u64>,
    entered: Vec<OwnedMutexGuard<()>>,
}

impl Lanes {
    /// Waits for the lanes of these ids, always in the same order, so that nobody waits in a circle.
    pub async fn enter<'a>(&self, ids: impl Iterator<Item = &'a [u8]>) -> Turn<'_> {
        let wanted = ids.map(|id| id.first_chunk::<8>().map_or(0, |id| u64::from_be_bytes(*id))).collect();
        // Made before the first wait: a call that is given up while it waits leaves no lane behind either.
        let mut turn = Turn { lanes: self, wanted, entered: Vec::new() };
        let lanes: Vec<Lane> = {
            let mut open = self.open();
            turn.wanted.iter().map(|id| open.entry(*id).or_default().clone()).collect()
        };
        for lane in lanes {
            turn.entered.push(lane.lock_owned().await);
        }
        turn
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Lane>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.entered.clear();
        let mut open = self.lanes.open();
        for id in &self.wanted {
            // Others take hold of a lane only under this lock: with one holder, the map, nobody wants it.
            if open.get(id).is_some_and(|lane| Arc::strong_count(lane) == 1) {
                open.remove(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// One look at whether the turn has come.
    fn look<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    fn ids(some: std::ops::Range<u64>) -> Vec<[u8; 8]> {
        some.map(u64::to_be_bytes).collect()
    }

    #[test]
    fn whoever_shares_an_id_waits_and_nobody_else_does() {
        let lanes = Lanes::default();
        let (first, second, shared) = (ids(0..5_000), ids(5_000..10_000), ids(4_999..5_001));
        let first = look(pin!(lanes.enter(first.iter().map(<[u8; 8]>::as_slice)))).unwrap();
        let second = look(pin!(lanes.enter(second.iter().map(<[u8; 8]>::as_slice)))).unwrap();
        let mut third = pin!(lanes.enter(shared.iter().map(<[u8; 8]>::as_slice)));
        assert!(look(third.as_mut()).is_none());
        drop(first);
        assert!(look(third.as_mut()).is_none());
        drop(second);
        assert!(look(third.as_mut()).is_some());
    }

    #[test]
    fn no_lane_is_left_behind() {
        let lanes = Lanes::default();
        let some = ids(0..3);
        let first = look(pin!(lanes.enter(some.iter().map(<[u8; 8]>::as_slice)))).unwrap();
        {
            let mut given_up = pin!(lanes.enter(some.iter().map(<[u8; 8]>::as_slice)));
            assert!(look(given_up.as_mut()).is_none());
        }
        assert_eq!(lanes.open().len(), 3);
        let mut after = Box::pin(lanes.enter(some.iter().map(<[u8; 8]>::as_slice)));
        assert!(look(after.as_mut()).is_none());
        drop(first);
        assert_eq!(lanes.open().len(), 3, "one still waits");
        drop(after);
        assert!(lanes.open().is_empty());
    }
}
