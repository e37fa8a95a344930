//! Why a page is not shown, and the page that says so instead.
//!
//! A handler returns a [`Stop`] with `?`; what surrounds all pages knows the language and makes the
//! page of it. Of a fault people see a number and nothing else.

use axum::response::{IntoResponse, Response};
use http::StatusCode;

use crate::gateway::{GatewayError, Refusal};
use crate::http::layers::Numbers;
use crate::http::problem::{Problem, code};

/// Why a page is not shown.
#[derive(Debug, Clone)]
pub(super) enum Stop {
    /// Nobody is logged in.
    LogIn,
    /// Somebody is, but not one for whom this page is.
    Role,
    /// A form that was not sent from these pages.
    Origin,
    /// A form or address that does not read.
    Form,
    /// There is no such page.
    Gone,
    /// Too many calls.
    TooMany,
    /// The demo has nobody of that name.
    Unknown,
    /// The gateway refused.
    Refused(Refusal),
    /// Something broke; the text is for the log.
    Fault(String),
}

impl Stop {
    pub(super) fn fault(error: impl std::fmt::Display) -> Self {
        Self::Fault(error.to_string())
    }

    /// The same for a caller that is no browser.
    pub(super) fn problem(&self, numbers: &Numbers) -> Problem {
        match self {
            Self::LogIn => Problem::plain(code::NOT_LOGGED_IN),
            Self::Role => Problem::plain(code::NOT_PERMITTED),
            Self::Origin => Problem::plain(code::WRONG_ORIGIN),
            Self::Form => Problem::plain(code::BAD_REQUEST),
            Self::Gone | Self::Unknown => Problem::plain(code::NOT_FOUND),
            Self::TooMany => Problem::plain(code::TOO_MANY_REQUESTS),
            Self::Refused(refusal) => Problem::new(refusal.code(), refusal.to_string()),
            Self::Fault(inside) => {
                let incident = numbers.next();
                tracing::error!(incident, error = inside, "a page failed");
                Problem::internal(incident)
            }
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::LogIn => StatusCode::UNAUTHORIZED,
            Self::Role | Self::Origin => StatusCode::FORBIDDEN,
            Self::Form => StatusCode::BAD_REQUEST,
            Self::Gone | Self::Unknown => StatusCode::NOT_FOUND,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Refused(refusal) => refused(refusal),
            Self::Fault(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// The status of a refusal's page: as the API has it.
pub(super) fn refused(refusal: &Refusal) -> StatusCode {
    Problem::plain(refusal.code()).status()
}

impl From<GatewayError> for Stop {
    fn from(error: GatewayError) -> Self {
        match error {
            GatewayError::Refused(refusal) => Self::Refused(refusal),
            GatewayError::Fault(inside) => Self::Fault(inside),
        }
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl IntoResponse for Stop {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}
