//! What handlers on the people's side take out of a call: its body whole, and a part of its path.
//!
//! axum's own extractors refuse in plain text. These refuse as everything here does.

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use http::request::Parts;

use super::body;
use super::problem::{Problem, code};

/// The most bytes of a body on the people's side.
pub(super) const PEOPLE_BODY_BYTES_MAX: usize = 16 * 1024;

/// A body of at most [`PEOPLE_BODY_BYTES_MAX`].
pub(super) struct Whole(pub Vec<u8>);

impl<S: Send + Sync> FromRequest<S> for Whole {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        body::read(&parts.headers, body, PEOPLE_BODY_BYTES_MAX).await.map(Self)
    }
}

/// The variable part of a path; what does not decode is nothing's name.
pub(super) struct Segment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(text)| Self(text)).map_err(|_| Problem::plain(code::NOT_FOUND))
    }
}

/// The two variable parts of a path.
pub(super) struct Segments(pub String, pub String);

impl<S: Send + Sync> FromRequestParts<S> for Segments {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        path.map(|Path((one, two))| Self(one, two)).map_err(|_| Problem::plain(code::NOT_FOUND))
    }
}
