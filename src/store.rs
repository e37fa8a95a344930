//! Where cells lie: a versioned map of opaque keys to sealed bytes, changed only in atomic batches.
//!
//! The store is apart from everything that knows what a cell means: it sees table names, keys and
//! bytes. It is distrusted; what it returns is believed only after the vault has opened it. A batch
//! is checks and writes over any tables: all of it or nothing, durable once [`Store::commit`]
//! returns `Ok`. Nothing here assumes that one process alone uses the store.

pub mod faulty;
pub mod memory;
pub mod postgres;
pub mod sled;

use std::fmt;

/// The name of a table, fixed at compile time, 1 to [`TABLE_BYTES_MAX`] bytes long.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(&'static str);

impl Table {
    /// A table by its name.
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// The name.
    pub const fn name(self) -> &'static str {
        self.0
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Where a cell lies: its table and its key (at most [`KEY_BYTES_MAX`] bytes).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// The table.
    pub table: Table,
    /// The key, opaque to the store, ordered bytewise.
    pub key: Vec<u8>,
}

impl Place {
    /// The cell of this table under this key.
    pub fn new(table: Table, key: impl Into<Vec<u8>>) -> Self {
        Self { table, key: key.into() }
    }
}

/// A value and its version, which grows with every write of the cell; the first is 1.
#[derive(Clone, PartialEq, Eq)]
pub struct Cell {
    /// The version, chosen by the writer.
    pub version: u64,
    /// The sealed bytes.
    pub value: Vec<u8>,
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cell(version {}, {} bytes)", self.version, self.value.len())
    }
}

/// What must hold when the batch commits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Check {
    /// No such cell exists.
    Absent(Place),
    /// The cell exists and has this version.
    Version(Place, u64),
}

impl Check {
    /// The cell that the check is about.
    pub fn place(&self) -> &Place {
        match self {
            Self::Absent(place) | Self::Version(place, _) => place,
        }
    }
}

/// A change of one cell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// The cell becomes this.
    Put(Place, Cell),
    /// The cell is gone.
    Delete(Place),
}

impl Write {
    /// The cell that is written.
    pub fn place(&self) -> &Place {
        match self {
            Self::Put(place, _) | Self::Delete(place) => place,
        }
    }
}

/// Checks and writes that commit together or not at all. A later write of the same cell wins.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Batch {
    /// All must hold.
    pub checks: Vec<Check>,
    /// All are made, in this order.
    pub writes: Vec<Write>,
}

/// The longest name of a table, in bytes.
pub const TABLE_BYTES_MAX: usize = 32;
/// The longest key of a cell, in bytes.
pub const KEY_BYTES_MAX: usize = 128;
/// The longest value of a cell, in bytes: sled keeps values under 64 KiB well.
pub const VALUE_BYTES_MAX: usize = 64 * 1024 - 1;

/// The end of a scan that goes to the last cell of a table: it lies behind every key.
pub const KEYS_END: [u8; KEY_BYTES_MAX + 1] = [0xff; KEY_BYTES_MAX + 1];

/// Refuses a batch that holds a table name, key or value beyond its limit.
///
/// Every backend calls this before it looks at the checks. The sentence names table and lengths,
/// never a byte of key or value.
fn within_limits(batch: &Batch) -> Result<(), CommitError> {
    let places = batch.checks.iter().map(Check::place).chain(batch.writes.iter().map(Write::place));
    for Place { table, key } in places {
        let name = table.name();
        if name.is_empty() || name.len() > TABLE_BYTES_MAX {
            return Err(CommitError::Failed(format!(
                "the table name {name:?} has {} bytes, 1 to {TABLE_BYTES_MAX} are allowed",
                name.len()
            )));
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(CommitError::Failed(format!(
                "a key of table {name} has {} bytes, at most {KEY_BYTES_MAX} are allowed",
                key.len()
            )));
        }
    }
    for write in &batch.writes {
        if let Write::Put(place, cell) = write
            && cell.value.len() > VALUE_BYTES_MAX
        {
            return Err(CommitError::Failed(format!(
                "a value of table {} has {} bytes, at most {VALUE_BYTES_MAX} are allowed",
                place.table.name(),
                cell.value.len()
            )));
        }
    }
    Ok(())
}

/// The indexes of the checks that do not hold, given the version of the cell at each place.
fn failed_checks<E>(
    checks: &[Check],
    mut version: impl FnMut(&Place) -> Result<Option<u64>, E>,
) -> Result<Vec<usize>, E> {
    let mut failed = Vec::new();
    for (index, check) in checks.iter().enumerate() {
        let holds = match check {
            Check::Absent(place) => version(place)?.is_none(),
            Check::Version(place, wanted) => version(place)? == Some(*wanted),
        };
        if !holds {
            failed.push(index);
        }
    }
    Ok(failed)
}

/// A read that failed.
#[derive(Debug, thiserror::Error)]
#[error("the store failed to {doing}: {reason}")]
pub struct StoreError {
    /// What was tried: `read a cell of table NAME`.
    pub doing: String,
    /// What the storage said.
    pub reason: String,
}

/// A commit that did not return `Ok`.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Nothing was changed: these checks (by their index in the batch) did not hold.
    #[error("{} of the batch's checks did not hold", .0.len())]
    Conflict(Vec<usize>),
    /// Nothing was changed, and nothing will be by this batch.
    #[error("nothing was written: {0}")]
    Failed(String),
    /// The batch may or may not be there, now or after the next start.
    #[error("it is not known whether the batch was written: {0}")]
    Unknown(String),
    /// The batch could not be made durable; what the storage now holds is not known, and the
    /// process must end, since a second sync may claim success for what was lost.
    #[error("the store could not be made durable: {0}")]
    SyncFailed(String),
}

/// The contract that every backend keeps; one test runs over all of them.
#[async_trait::async_trait]
pub trait Store: Send + Sync {
    /// The cell at this place, as the last durable commit left it.
    ///
    /// A read never shows a batch that a power cut could still take back, and it shows every batch
    /// whose commit returned `Ok` before the read began.
    async fn get(&self, place: &Place) -> Result<Option<Cell>, StoreError>;

    /// The cells at these places, in their order; each as [`Store::get`] gives it.
    async fn get_many(&self, places: &[Place]) -> Result<Vec<Option<Cell>>, StoreError> {
        let mut found = Vec::with_capacity(places.len());
        for place in places {
            found.push(self.get(place).await?);
        }
        Ok(found)
    }

    /// Up to `limit` cells of a table whose keys are in `from..to` (`to` excluded), in key order.
    ///
    /// All of them as they stood at one moment between two commits. To reach the end of a table,
    /// `to` is [`KEYS_END`]; the next page begins at the last key with a zero byte appended.
    async fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Cell)>, StoreError>;

    /// Makes all writes if all checks hold, and returns once they are durable.
    ///
    /// A check sees the cells as they were before the batch, and holds until the commit: no other
    /// commit comes between. `Conflict` names every check that failed, and a read after it sees what
    /// made them fail. A key or value beyond its limit is `Failed` before anything is written. A
    /// caller who stops waiting does not take the batch back.
    async fn commit(&self, batch: Batch) -> Result<(), CommitError>;

    /// All cells as they stand now, to be read while others go on writing; none where the backend has no such view.
    async fn snapshot(&self) -> Result<Option<Box<dyn Snapshot>>, StoreError> {
        Ok(None)
    }

    /// What is wrong with the backend's own storage, as far as it can tell: a sentence each, without a byte of a cell.
    async fn faults(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }
}

/// The cells of one moment between two commits.
#[async_trait::async_trait]
pub trait Snapshot: Send {
    /// As [`Store::scan`], of that moment.
    async fn scan(
        &mut self,
        table: Table,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Cell)>, StoreError>;
}
