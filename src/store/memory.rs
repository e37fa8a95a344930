//! The store in memory, for tests and for what need not outlive the process.
//!
//! One mutex over one ordered map: every commit and every read is one step. It keeps the whole
//! contract but durability, so it is also the plainest statement of what the others must do.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Batch, Cell, CommitError, Place, Store, StoreError, Table, Write, failed_checks, within_limits};

/// A store that lasts as long as this value.
#[derive(Default)]
pub struct MemoryStore {
    cells: Mutex<BTreeMap<Place, Cell>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn cells(&self) -> MutexGuard<'_, BTreeMap<Place, Cell>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryStore({} cells)", self.cells().len())
    }
}

#[async_trait::async_trait]
impl Store for MemoryStore {
    async fn get(&self, place: &Place) -> Result<Option<Cell>, StoreError> {
        Ok(self.cells().get(place).cloned())
    }

    async fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Cell)>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let found = self
            .cells()
            .range(Place::new(table, from)..Place::new(table, to))
            .take(limit)
            .map(|(place, cell)| (place.key.clone(), cell.clone()))
            .collect();
        Ok(found)
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        within_limits(&batch)?;
        let mut cells = self.cells();
        let version = |place: &Place| Ok::<_, CommitError>(cells.get(place).map(|cell| cell.version));
        let failed = failed_checks(&batch.checks, version)?;
        if !failed.is_empty() {
            return Err(CommitError::Conflict(failed));
        }
        for write in batch.writes {
            match write {
                Write::Put(place, cell) => {
                    cells.insert(place, cell);
                }
                Write::Delete(place) => {
                    cells.remove(&place);
                }
            }
        }
        Ok(())
    }
}
