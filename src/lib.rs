//! jadegate answers questions about a person's integrity score without showing the score.
//!
//! The modules stand in the order of their dependencies: a file uses only what is declared above
//! it. `tests/it/tidy.rs` holds that wall.

pub mod clock;
pub mod entropy;
pub mod text;
pub mod hex;
pub mod code;

pub mod person;
pub mod record;
pub mod market;

pub mod policy;
pub mod prohibited;
pub mod catalogue;
pub mod model;
pub mod score;
pub mod city;
pub mod scenario;
pub mod party;
pub mod access;
pub mod policies;
pub mod intake;
pub mod suppression;
pub mod trial;

pub mod authority;
pub mod consent;
pub mod disclosure;

pub mod keys;
pub mod vault;
pub mod attestation;
pub mod access_log;

pub mod store;
pub mod tables;
pub mod ledger;

pub mod gateway;

pub mod config;
pub mod feed;
pub mod client;
pub mod http;
pub mod web;
pub mod cli;
