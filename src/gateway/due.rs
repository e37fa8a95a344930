//! Which standings are due on which day: an index from which the sweep reads, and nothing else does.
//!
//! Every standing has one row, whether it will ever change or not. A row's key begins with a MAC of the day, so the
//! store's holder sees that some rows are of one day, and not of which until that day is swept; a row of somebody whose
//! score will not change stands alone under such a beginning. Keys are used once: a row is put with a standing's
//! version in its key and deleted when the day moves, so that a deletion is final in whichever log it stands.

use jiff::civil::Date;

use super::{Gateway, GatewayError, at};
use crate::disclosure::Standing;
use crate::ledger::Change;
use crate::person::PersonId;
use crate::store::{Cell, Place, Write};
use crate::tables;

/// A row that was read: whose it is, and from which version of the standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DueRow {
    pub person: PersonId,
    pub row: u64,
}

/// Where a standing's row stands: the day, and the version of the standing that wrote it (0: it has none).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowOf {
    pub day: Option<Date>,
    pub row: u64,
}

impl RowOf {
    /// The row of a standing as its cell says, `None` for somebody who is not registered: theirs is of the first version.
    pub fn of(standing: Option<&Standing>) -> Self {
        standing.map_or(Self { day: None, row: 1 }, |standing| Self { day: standing.next_change, row: standing.row })
    }

    /// What no cell says anything about.
    pub fn none() -> Self {
        Self { day: None, row: 0 }
    }
}

impl Gateway {
    /// The beginning of the keys of a day's rows.
    pub(super) fn due_prefix(&self, day: Date) -> [u8; 16] {
        half(self.vault.lookup("due day", &[day.to_string().as_bytes()]))
    }

    pub(super) fn due_place(&self, person: &PersonId, of: RowOf) -> Place {
        let row = of.row.to_be_bytes();
        let bucket = match of.day {
            Some(day) => self.due_prefix(day),
            // Of no day: a beginning that nobody else has.
            None => half(self.vault.lookup("due never", &[&person.0, &row])),
        };
        let own = half(self.vault.lookup("due row", &[&person.0, &row]));
        Place::new(tables::DUE, tables::key(&[&bucket, &own]))
    }

    /// Moves a standing's row where its day has changed; gives the version that its row is of from now on.
    pub(super) fn move_row(
        &self,
        change: &mut Change,
        person: &PersonId,
        before: RowOf,
        day: Option<Date>,
        version: u64,
    ) -> Result<u64, GatewayError> {
        if before.row != 0 && before.day == day {
            return Ok(before.row);
        }
        if before.row != 0 {
            change.writes.push(Write::Delete(self.due_place(person, before)));
        }
        let place = self.due_place(person, RowOf { day, row: version });
        let content = [&person.0[..], &version.to_be_bytes()].concat();
        let value = self.vault.seal_indexed(at(&place, 1), &content, 64)?;
        change.writes.push(Write::Put(place, Cell { version: 1, value }));
        Ok(version)
    }

    /// Reads a row.
    pub(super) fn open_row_of_due(&self, place: &Place, cell: &Cell) -> Result<DueRow, GatewayError> {
        let content = self.vault.open_indexed(at(place, cell.version), &cell.value)?;
        let read = content.split_first_chunk::<32>().and_then(|(person, row)| {
            Some(DueRow { person: PersonId(*person), row: u64::from_be_bytes(row.try_into().ok()?) })
        });
        read.ok_or_else(|| GatewayError::Fault("a cell of table due has content of an unknown form".into()))
    }
}

fn half(mac: [u8; 32]) -> [u8; 16] {
    mac.first_chunk::<16>().copied().unwrap_or_default()
}
