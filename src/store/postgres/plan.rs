//! A batch as the statements want it: each cell once, in the order in which rows are locked.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::{Batch, Check, Place, Write};

/// Rows as one array a column.
#[derive(Default)]
pub(super) struct Rows<'a> {
    pub spaces: Vec<&'a [u8]>,
    pub keys: Vec<&'a [u8]>,
    pub versions: Vec<i64>,
    pub values: Vec<&'a [u8]>,
}

impl<'a> Rows<'a> {
    fn push(&mut self, place: &'a Place, version: u64, value: &'a [u8]) {
        self.spaces.push(place.table.name().as_bytes());
        self.keys.push(&place.key);
        self.versions.push(version.cast_signed());
        self.values.push(value);
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// What a batch comes to. Everything in it is sorted by place, so that two batches wait for each
/// other in one direction.
#[derive(Default)]
pub(super) struct Plan<'a> {
    /// Cells that are checked: their rows are locked and their versions read.
    pub checked: Vec<&'a Place>,
    /// Cells that must be absent: the row's insertion is what holds that until the commit, also
    /// where nothing is to stay there.
    pub inserts: Rows<'a>,
    /// All other cells that are put.
    pub upserts: Rows<'a>,
    /// Cells to delete, by table.
    pub deletes: BTreeMap<&'a [u8], Vec<&'a [u8]>>,
}

impl<'a> Plan<'a> {
    pub fn of(batch: &'a Batch) -> Self {
        let checked: BTreeSet<&Place> = batch.checks.iter().map(Check::place).collect();
        let absent = batch.checks.iter().filter(|check| matches!(check, Check::Absent(_)));
        let absent: BTreeSet<&Place> = absent.map(Check::place).collect();
        let mut last = BTreeMap::new();
        for write in &batch.writes {
            match write {
                Write::Put(place, cell) => last.insert(place, Some(cell)),
                Write::Delete(place) => last.insert(place, None),
            };
        }
        let mut plan = Plan { checked: checked.into_iter().collect(), ..Plan::default() };
        for place in &absent {
            match last.get(*place) {
                Some(Some(cell)) => plan.inserts.push(place, cell.version, &cell.value),
                _ => {
                    plan.inserts.push(place, 0, &[]);
                    plan.delete(place);
                }
            }
        }
        for (place, cell) in last.into_iter().filter(|(place, _)| !absent.contains(place)) {
            match cell {
                Some(cell) => plan.upserts.push(place, cell.version, &cell.value),
                None => plan.delete(place),
            }
        }
        plan
    }

    fn delete(&mut self, place: &'a Place) {
        self.deletes.entry(place.table.name().as_bytes()).or_default().push(&place.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Cell, Table};

    /// Two batches that take the same rows wait for each other in one direction, in whatever order they name them.
    #[test]
    fn whatever_the_order_of_a_batch_its_rows_are_taken_in_one() {
        let place = |key: u8| Place::new(Table::new("cells"), [key]);
        let cell = |n: u8| Cell { version: u64::from(n), value: vec![n] };
        let batch = |keys: &[u8]| Batch {
            checks: keys
                .iter()
                .flat_map(|key| [Check::Version(place(*key), 1), Check::Absent(place(key + 100))])
                .collect(),
            writes: keys
                .iter()
                .flat_map(|key| [*key, key + 100, key + 50].map(|key| Write::Put(place(key), cell(key))))
                .chain(keys.iter().map(|key| Write::Delete(place(key + 50))))
                .collect(),
        };
        let (one, other) = (batch(&[1, 2, 3, 4]), batch(&[3, 1, 4, 2]));
        let (one, other) = (Plan::of(&one), Plan::of(&other));
        assert_eq!((&one.checked, &one.deletes), (&other.checked, &other.deletes));
        for (one, other) in [(&one.inserts, &other.inserts), (&one.upserts, &other.upserts)] {
            assert!(one.keys.len() == 4 && one.keys.is_sorted(), "{:?}", one.keys);
            assert_eq!((&one.keys, &one.versions, &one.values), (&other.keys, &other.versions, &other.values));
        }
        assert!(one.checked.is_sorted() && one.checked.len() == 8);
    }
}
