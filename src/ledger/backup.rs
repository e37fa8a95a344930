//! A sealed copy of a store in one file: made beside a running gateway, and put into an empty store.
//!
//! The cells are sealed already; the file as a whole is sealed once more, chunk by chunk in its place
//! (`stream`), so that whatever was cut off, exchanged, appended or bent is refused. A copy holds the
//! cells as one checkpoint left them (`export`): nothing that was logged later, and all that was logged
//! before. Sessions are not in it, nor is any key. [`import`] writes into an empty store only, and what
//! it has not finished is marked, so that no gateway starts on it.

mod export;
mod import;
mod item;
mod stream;

pub use export::{ExportError, Exported, export};
pub use import::{ImportError, Imported, import, inspect};
pub use stream::BackupError;

use crate::store::{Place, StoreError, Table};
use crate::tables;

/// The tables that a backup holds: all but sessions, and the mark of an import itself.
fn kept() -> impl Iterator<Item = Table> {
    tables::ALL.into_iter().filter(|table| ![tables::SESSION, tables::IMPORT].contains(table))
}

/// Where the mark of an unfinished import lies.
fn mark() -> Place {
    Place::new(tables::IMPORT, b"unfinished".as_slice())
}

/// Whether an import was begun in this store and not finished.
pub(super) async fn unfinished(store: &dyn crate::store::Store) -> Result<bool, StoreError> {
    Ok(store.get(&mark()).await?.is_some())
}
