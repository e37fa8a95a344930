//! What several tests need.

pub mod bomb;
pub mod deployment;
pub mod disk;
pub mod folder;
pub mod nightly;
pub mod postgres;
pub mod process;
pub mod raw;
pub mod segments;
pub mod statistics;
pub mod survival;
pub mod tree;
pub mod wait;
#[allow(dead_code, reason = "the tests of the reader use the rest of it")]
pub mod workbook;
pub mod world;

pub use folder::Folder;

/// The files of a folder and of those in it, in order.
pub fn files_under(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_under(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}
