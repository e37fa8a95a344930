//! How far the log reached when the store was last closed.
//!
//! sled reads its log up to the first thing that it cannot read and takes that for the end: it cannot
//! tell a tail that was never finished from damage in the middle, and comes up without the rest. So
//! every group of commits writes its number into the tree, and a store that is closed in order leaves
//! the last number in the file `closed` beside it. A start that finds a smaller number in the tree is
//! refused. After a hard stop there is no such file; then the copy of the newest checkpoint, which the
//! log's keeper holds outside the store, is what shows a loss.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// The key of the number in the tree: no table's and no piece's key begins like this.
pub(super) const NUMBER_KEY: &[u8] = &[0xfe];

const FILE: &str = "closed";

/// The number in the tree's entry; 0 before the first group.
pub(super) fn number(entry: Option<&[u8]>) -> u64 {
    entry.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// The number that the last orderly close left, if nothing was opened since.
pub(super) fn at_close(folder: &Path) -> io::Result<Option<u64>> {
    match fs::read_to_string(folder.join(FILE)) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the file, durably, before anything is committed.
pub(super) fn forget(folder: &Path) -> io::Result<()> {
    fs::remove_file(folder.join(FILE))?;
    File::open(folder)?.sync_all()
}

/// Leaves the number for the next start.
pub(super) fn leave(folder: &Path, number: u64) -> io::Result<()> {
    let new = folder.join("closed.new");
    let mut file = File::create(&new)?;
    file.write_all(format!("{number}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, folder.join(FILE))?;
    File::open(folder)?.sync_all()
}
