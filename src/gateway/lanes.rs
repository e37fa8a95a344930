//! Calls that would change the same cells follow each other.
//!
//! Without this all but one of them would read, sign and seal in vain, and be told by the ledger to
//! start again. It saves work and keeps turns fair; nothing rests on it, since the ledger's checks
//! hold across lanes and processes. Each id has a lane of its own, and whoever wants several takes a place in
//! all of them at once: so nobody waits in a circle, and what is about ids that nobody else is at can be
//! begun before the turn has come.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The last one in each lane, by the first bytes of an id: those of two ids are hardly ever the same.
#[derive(Default)]
pub(super) struct Lanes(Mutex<HashMap<u64, Before>>);

/// Somebody ahead: the channel is closed when they have left. What it holds then is whom they still waited for
/// when they gave up; whoever is behind them waits for those.
#[derive(Clone)]
struct Before(watch::Receiver<Vec<Before>>);

impl Before {
    fn is(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }

    fn is_there(&self) -> bool {
        self.0.has_changed().is_ok()
    }
}

/// A place in some lanes, until this is dropped.
pub(super) struct Turn<'a> {
    lanes: &'a Lanes,
    /// Each lane, and who was ahead in it.
    wanted: BTreeMap<u64, Option<Before>>,
    ahead: Vec<Before>,
    leave: watch::Sender<Vec<Before>>,
}

impl Lanes {
    /// Waits until nobody is ahead in the lanes of these ids.
    pub async fn enter<'a>(&self, ids: impl Iterator<Item = &'a [u8]>) -> Turn<'_> {
        let mut turn = self.line_up(ids);
        turn.come().await;
        turn
    }

    /// Takes a place behind whoever is in the lanes of these ids.
    pub fn line_up<'a>(&self, ids: impl Iterator<Item = &'a [u8]>) -> Turn<'_> {
        let mut wanted: BTreeMap<u64, Option<Before>> = ids.map(|id| (lane(id), None)).collect();
        let (leave, place) = watch::channel(Vec::new());
        let mut ahead = Vec::<Before>::new();
        let mut last = self.last();
        for (id, before) in &mut wanted {
            *before = last.insert(*id, Before(place.clone()));
            if let Some(before) = before.as_ref().filter(|before| !ahead.iter().any(|known| known.is(before))) {
                ahead.push(before.clone());
            }
        }
        drop(last);
        Turn { lanes: self, wanted, ahead, leave }
    }

    fn last(&self) -> MutexGuard<'_, HashMap<u64, Before>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Waits until nobody is ahead.
    pub async fn come(&mut self) {
        while let Some(Before(next)) = self.ahead.last_mut() {
            while next.changed().await.is_ok() {}
            let behind_whom = next.borrow().clone();
            self.ahead.pop();
            self.ahead.extend(behind_whom);
        }
    }

    /// Whether somebody was ahead in this id's lane.
    pub fn is_shared(&self, id: &[u8]) -> bool {
        self.wanted.get(&lane(id)).is_some_and(Option::is_some)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let place = Before(self.leave.subscribe());
        let mut last = self.lanes.last();
        for (id, before) in std::mem::take(&mut self.wanted) {
            if last.get(&id).is_some_and(|last| last.is(&place)) {
                match before.filter(Before::is_there) {
                    // Given up: the one ahead is the last one again.
                    Some(before) => last.insert(id, before),
                    None => last.remove(&id),
                };
            }
        }
        self.leave.send_replace(std::mem::take(&mut self.ahead));
    }
}

fn lane(id: &[u8]) -> u64 {
    id.first_chunk::<8>().map_or(0, |id| u64::from_be_bytes(*id))
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
        assert_eq!(lanes.last().len(), 3);
        let mut after = Box::pin(lanes.enter(some.iter().map(<[u8; 8]>::as_slice)));
        assert!(look(after.as_mut()).is_none());
        drop(first);
        assert_eq!(lanes.last().len(), 3, "one still waits");
        drop(after);
        assert!(lanes.last().is_empty());
    }

    #[test]
    fn who_is_behind_somebody_that_gave_up_waits_for_those_ahead_of_them() {
        let lanes = Lanes::default();
        let some = ids(0..2);
        let both = || some.iter().map(<[u8; 8]>::as_slice);
        let first = look(pin!(lanes.enter(both()))).unwrap();
        let given_up = lanes.line_up(both());
        let mut behind = pin!(lanes.enter(both()));
        assert!(look(behind.as_mut()).is_none());
        drop(given_up);
        assert!(look(behind.as_mut()).is_none(), "the first is still there");
        drop(first);
        drop(look(behind.as_mut()).unwrap());
        assert!(lanes.last().is_empty());
    }

    #[test]
    fn a_lane_is_shared_where_somebody_is_ahead() {
        let lanes = Lanes::default();
        let (first, second) = (ids(0..2), ids(1..3));
        let _first = lanes.line_up(first.iter().map(<[u8; 8]>::as_slice));
        let turn = lanes.line_up(second.iter().map(<[u8; 8]>::as_slice));
        assert_eq!(second.iter().map(|id| turn.is_shared(id)).collect::<Vec<_>>(), [true, false]);
    }
}
