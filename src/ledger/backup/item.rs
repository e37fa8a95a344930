//! What a backup says, item by item: when it was made, cells, cells that are gone, and the end.

use jiff::Timestamp;

use super::stream::BackupError;
use crate::store::{Cell, KEY_BYTES_MAX, Place, Table, VALUE_BYTES_MAX};

/// One item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// The first: when the copy was begun, and by which version.
    Made(Timestamp, String),
    /// A cell; the last word on a place counts.
    Cell(Place, Cell),
    /// There is no cell at this place, though an earlier item may say so.
    Gone(Place),
    /// The last: how many cells and places without one came before.
    End(u64),
}

const MADE: u8 = 1;
const CELL: u8 = 2;
const GONE: u8 = 3;
const END: u8 = 4;

fn short(out: &mut Vec<u8>, field: &[u8]) {
    out.push(u8::try_from(field.len()).unwrap_or(u8::MAX));
    out.extend(field);
}

impl Item {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let place = |out: &mut Vec<u8>, place: &Place| {
            short(out, place.table.name().as_bytes());
            short(out, &place.key);
        };
        match self {
            Self::Made(at, version) => {
                out.push(MADE);
                out.extend(at.as_millisecond().to_be_bytes());
                short(out, version.as_bytes());
            }
            Self::Cell(at, cell) => {
                out.push(CELL);
                place(out, at);
                out.extend(cell.version.to_be_bytes());
                out.extend(u32::try_from(cell.value.len()).unwrap_or(u32::MAX).to_be_bytes());
                out.extend(&cell.value);
            }
            Self::Gone(at) => {
                out.push(GONE);
                place(out, at);
            }
            Self::End(count) => {
                out.push(END);
                out.extend(count.to_be_bytes());
            }
        }
    }

    /// Reads the items of a chunk.
    pub(super) fn decode(mut bytes: &[u8]) -> Result<Vec<Self>, BackupError> {
        let mut items = Vec::new();
        while !bytes.is_empty() {
            items.push(Self::one(&mut bytes)?);
        }
        Ok(items)
    }

    fn one(bytes: &mut &[u8]) -> Result<Self, BackupError> {
        let odd = || BackupError::Content("it says something that this jadegate does not know".into());
        match take::<1>(bytes).ok_or_else(odd)? {
            [MADE] => {
                let at = i64::from_be_bytes(take(bytes).ok_or_else(odd)?);
                let version = String::from_utf8(field(bytes).ok_or_else(odd)?).map_err(|_| odd())?;
                Ok(Self::Made(Timestamp::from_millisecond(at).map_err(|_| odd())?, version))
            }
            [CELL] => {
                let at = place(bytes)?;
                let version = u64::from_be_bytes(take(bytes).ok_or_else(odd)?);
                let length = u32::from_be_bytes(take(bytes).ok_or_else(odd)?) as usize;
                let (value, rest) = bytes.split_at_checked(length).ok_or_else(odd)?;
                *bytes = rest;
                if at.key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX || version == 0 {
                    return Err(BackupError::Content(format!(
                        "a cell of table {} is beyond the limits",
                        at.table.name()
                    )));
                }
                Ok(Self::Cell(at, Cell { version, value: value.to_vec() }))
            }
            [GONE] => Ok(Self::Gone(place(bytes)?)),
            [END] => Ok(Self::End(u64::from_be_bytes(take(bytes).ok_or_else(odd)?))),
            _ => Err(odd()),
        }
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

fn field(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let [length] = take(bytes)?;
    let (field, rest) = bytes.split_at_checked(usize::from(length))?;
    *bytes = rest;
    Some(field.to_vec())
}

fn place(bytes: &mut &[u8]) -> Result<Place, BackupError> {
    let odd = || BackupError::Content("the name of a cell is cut".into());
    let (name, key) = (field(bytes).ok_or_else(odd)?, field(bytes).ok_or_else(odd)?);
    let name = String::from_utf8(name).map_err(|_| odd())?;
    Ok(Place { table: known(&name).ok_or_else(|| BackupError::Content(format!("it holds a table {name:?}")))?, key })
}

/// The table of this name, where a backup may hold it.
pub(super) fn known(name: &str) -> Option<Table> {
    super::kept().find(|table| table.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables;

    #[test]
    fn items_read_back_and_odd_ones_are_refused() {
        let at = Place::new(tables::CONSENT, b"key".as_slice());
        let cell = Cell { version: 7, value: vec![1; 300] };
        let items = [
            Item::Made("2026-11-25T02:00:00Z".parse().unwrap(), "0.1.0".into()),
            Item::Cell(at.clone(), cell),
            Item::Gone(at.clone()),
            Item::End(2),
        ];
        let mut bytes = Vec::new();
        items.iter().for_each(|item| item.encode(&mut bytes));
        assert_eq!(Item::decode(&bytes).unwrap(), items);
        for cut in 1..bytes.len() {
            assert!(Item::decode(&bytes[..cut]).is_err() || Item::decode(&bytes[..cut]).unwrap().len() < items.len());
        }
        for table in [tables::SESSION, tables::IMPORT, Table::new("other")] {
            let mut bytes = Vec::new();
            Item::Gone(Place::new(table, b"k".as_slice())).encode(&mut bytes);
            assert!(Item::decode(&bytes).unwrap_err().to_string().contains(table.name()));
        }
        assert!(Item::decode(&[9]).is_err());
    }
}
