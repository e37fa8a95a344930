//! Tests through jadegate's boundaries, in one binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that stops has failed"
)]

mod cli;
mod corpora;
mod edge;
mod gateway;
mod openapi;
mod store;
mod support;
mod tidy;
