//! Logs of which a copy outside says more than the store holds: what a restored store is known by.
//!
//! A gateway looks at every log whose copies its host keeps, not at its own alone, so that a fresh name
//! for its log does not hide that the store is an old one.

use std::sync::Arc;

use super::outside::Outside;
use super::recovery::checkpoint_place;
use super::{LogSigner, OpenError};
use crate::access_log::checkpoint::NoteSigner as _;
use crate::keys::Keyring;
use crate::store::Store;

/// What the store and its keeper say of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The log.
    pub origin: String,
    /// Entries in the store.
    pub store: u64,
    /// Entries of the newest copy outside; none where there is no copy.
    pub outside: Option<u64>,
    /// The store's checkpoint.
    pub note: Option<String>,
}

impl Held {
    /// Whether the store is older than the copy.
    pub fn is_behind(&self) -> bool {
        self.outside.is_some_and(|outside| outside > self.store)
    }
}

/// What is held of each log of the keyring.
pub async fn held(
    store: &Arc<dyn Store>,
    keys: &Keyring,
    outside: &dyn Fn(&str) -> Box<dyn Outside>,
) -> Result<Vec<Held>, OpenError> {
    let mut found = Vec::new();
    for log in keys.logs() {
        let signer = LogSigner::new(log)?;
        let size = |note: &str| signer.verifier().open(note).ok().map(|checkpoint| checkpoint.size);
        let cell = store.get(&checkpoint_place(log.origin())).await?;
        let note = cell.and_then(|cell| String::from_utf8(cell.value).ok());
        let in_store = note.as_deref().and_then(size).unwrap_or(0);
        let kept = outside(log.origin()).kept()?.iter().filter_map(|note| size(note)).max();
        found.push(Held { origin: log.origin().to_owned(), store: in_store, outside: kept, note });
    }
    Ok(found)
}
