//! The HTTP edge: sockets, TLS, limits, signatures, problem details.
//!
//! It is the only place that knows HTTP. A handler reads a call, makes one call of the gateway and
//! writes the answer; what every call needs is here, so that no handler can forget it: who called
//! and when its last byte came ([`listener`]), whether the signature fits ([`signature`]), how much
//! is too much ([`limit`], [`body`], [`admission`]), how a refusal looks ([`problem`]), when an answer may leave
//! ([`floor`]) and what is counted ([`figures`]).
//!
//! It does not know the store. Nothing here writes a path, a query, a header or a body to a log.

pub mod admission;
mod answers;
pub mod app;
pub mod body;
mod caller;
mod extract;
mod feeds;
pub mod figures;
pub mod floor;
pub mod health;
pub mod layers;
pub mod limit;
pub mod listener;
mod market;
pub(crate) mod models;
mod officers;
mod people;
pub mod problem;
mod public;
pub mod query;
pub mod routes;
mod sent;
pub mod session;
pub mod signature;
pub mod tls;
mod wire;
