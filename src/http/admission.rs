//! How many calls are worked on at once; those beyond are refused at once and not queued.
//!
//! A queue in front of work that takes longer than it comes in only makes every answer late. Each side has places of its own:
//! questions of relying parties, what departments send and read, and people with all who use pages. A place is held while
//! a call is worked on: not while its body arrives, which whoever dawdles could stretch, and not during the fixed time. Who
//! calls has no say in it, so a refusal tells of the gateway's load and of nothing else. It leaves the connection open,
//! since a new handshake would cost more than the answer.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http_body_util::Limited;
use hyper::body::Body as _;

use super::app::App;
use super::body;
use super::extract::PEOPLE_BODY_BYTES_MAX;
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

/// The place of one call of people's side: taken once its body is there, given back when it ends or waits.
#[derive(Debug, Clone, Default)]
pub struct Admission(Option<Arc<Held>>);

#[derive(Debug)]
struct Held {
    places: Places,
    most: usize,
    place: Mutex<Option<Place>>,
}

impl Admission {
    fn new(places: &Places, most: usize) -> Self {
        Self(Some(Arc::new(Held { places: places.clone(), most, place: Mutex::default() })))
    }

    /// The one that [`bounded`] gave this call; where a test calls a router by itself there is none, and always room.
    pub fn of(parts: &Parts) -> Self {
        parts.extensions.get().cloned().unwrap_or_default()
    }

    /// Takes the place, unless it is held already.
    pub fn enter(&self) -> Result<(), Problem> {
        let Some(held) = &self.0 else { return Ok(()) };
        let mut place = held.place.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_none() {
            *place = Some(held.places.take(held.most)?);
        }
        Ok(())
    }

    /// Gives the place back: what is left is to wait.
    pub fn leave(&self) {
        if let Some(held) = &self.0 {
            held.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Admission {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}

/// A place for every call of people's side, whatever its handler does with the body: the body is read here, and its bytes are
/// handed on. The file of a model is larger than what strangers may have us keep, so those calls take their place by
/// themselves, once who sends it is known and it is there.
pub async fn bounded(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let most = app.gateway.policies().map_or(usize::MAX, |policies| policies.city.limits.calls_at_once);
    let admission = Admission::new(&app.web_places, most);
    let admitted = async {
        if request.body().is_end_stream() {
            admission.enter()?;
            return Ok(request);
        }
        app.web_places.open(most)?;
        if takes_a_model(&request) {
            return Ok(request);
        }
        let (parts, body) = request.into_parts();
        let bytes = match body::read(&parts.headers, body, PEOPLE_BODY_BYTES_MAX).await {
            Ok(bytes) => bytes,
            // What was wrong with it is told by a page, which reads a body that fails as well.
            Err(_) if !parts.uri.path().starts_with("/v1/") => {
                admission.enter()?;
                return Ok(Request::from_parts(parts, Body::new(Limited::new(Body::from("-"), 0))));
            }
            Err(problem) => return Err(problem),
        };
        admission.enter()?;
        Ok::<_, Problem>(Request::from_parts(parts, Body::from(bytes)))
    };
    match admitted.await {
        Ok(mut request) => {
            request.extensions_mut().insert(admission.clone());
            let response = next.run(request).await;
            admission.leave();
            response
        }
        Err(problem) => problem.into_response(),
    }
}

fn takes_a_model(request: &Request) -> bool {
    let paths = ["/v1/models", "/v1/models/trials", "/models/try", "/models/draft"];
    request.method() == http::Method::POST && paths.contains(&request.uri().path())
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
        let (one, other) = (Admission::new(&places, 1), Admission::new(&places, 1));
        assert!(one.enter().is_ok() && one.enter().is_ok() && other.enter().is_err());
        one.leave();
        assert!(other.enter().is_ok() && Admission::default().enter().is_ok());
        drop(other);
        assert!(places.open(1).is_ok());
        assert_eq!(full().into_response().headers()["retry-after"], "1");
    }
}
