//! What several tests need.

pub mod deployment;
pub mod disk;
pub mod folder;
pub mod nightly;
pub mod postgres;
pub mod process;
pub mod raw;
pub mod statistics;
pub mod survival;
pub mod tree;
pub mod wait;
#[allow(dead_code, reason = "the tests of the reader use the rest of it")]
pub mod workbook;
pub mod world;

pub use folder::Folder;
