//! How many calls are worked on at once; those beyond are refused at once and not queued.
//!
//! A queue in front of work that takes longer than it comes in only makes every answer late. A place is held while a call is worked
//! on: not while its body arrives, which whoever dawdles could stretch, and not during the fixed time. Who calls has no say
//! in it, so a refusal tells of the gateway's load and of nothing else. It leaves the connection open, since a new
//! handshake would cost more than the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::Body as _;

use super::app::App;
use super::problem::{Problem, code};

/// When to come again: the surplus of a second is gone by then, or is refused again as cheaply.
const RETRY: Duration = Duration::from_secs(1);

/// Places for calls under way; how many there are is asked anew with each call, and so follows the policies.
#[derive(Debug, Clone, Default)]
pub struct Places(Arc<AtomicUsize>);

/// A call under way, until it is dropped.
#[derive(Debug)]
#[must_use = "dropped at once, it holds no place"]
pub struct Place(Arc<AtomicUsize>);

impl Places {
    /// Whether there is a place now: asked at a call's head, so that the surplus costs neither a signature nor a body.
    pub fn open(&self, most: usize) -> Result<(), Problem> {
        if self.0.load(Ordering::Relaxed) < most { Ok(()) } else { Err(full()) }
    }

    /// Takes a place, of `most`.
    pub fn take(&self, most: usize) -> Result<Place, Problem> {
        let more = |held: usize| (held < most).then(|| held.saturating_add(1));
        let taken = self.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more);
        taken.map(|_| Place(Arc::clone(&self.0))).map_err(|_| full())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn full() -> Problem {
    Problem::plain(code::OVERLOADED).retry_after(RETRY)
}

/// A place for every call of people's side that comes without a body; the others are bounded by the connections.
pub async fn bounded(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let most = app.gateway.policies().map_or(usize::MAX, |policies| policies.city.limits.calls_at_once);
    let _place = if request.body().is_end_stream() {
        match app.web_places.take(most) {
            Ok(place) => Some(place),
            Err(problem) => return problem.into_response(),
        }
    } else {
        None
    };
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_call_ends_and_the_limit_may_move() {
        let places = Places::default();
        let (one, two) = (places.take(2).unwrap(), places.take(2).unwrap());
        let refused = places.take(2).unwrap_err();
        assert_eq!((refused.status().as_u16(), refused.code()), (503, "overloaded"));
        assert!(places.open(2).is_err() && places.open(3).is_ok());
        drop(one);
        let three = places.take(2).unwrap();
        assert!(places.take(1).is_err(), "a lower limit holds for whoever comes next");
        drop((two, three));
        assert!(places.open(1).is_ok());
        assert_eq!(full().into_response().headers()["retry-after"], "1");
    }
}
