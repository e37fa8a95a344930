//! What several tests need.

pub mod deployment;
pub mod folder;
pub mod nightly;
pub mod process;
pub mod raw;
pub mod world;

pub use folder::Folder;
