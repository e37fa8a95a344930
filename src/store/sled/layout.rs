//! How cells lie in sled: one tree, keys that begin with their table, values cut into pieces.
//!
//! A cell's key in the tree is `length of the table's name | name | key`, so tables lie apart even
//! where one name begins with another. Its value is `version, 8 bytes | 0 | value`, or, beyond
//! [`PIECE_BYTES`], `version | 1 | length, 4 bytes`, with the value in pieces under
//! `0xff | the cell's key in the tree | number of the piece`.
//!
//! Why pieces: sled splits a leaf by its number of entries, not by their size, and writes a page
//! above 128 KiB to a file of its own in `blobs/`, which it never syncs: a power cut would tear a
//! cell that was acknowledged. With pieces of 4 KiB no page comes near that size.

use super::super::{Cell, Place, Table};

/// The longest value, and the longest piece of one, in a single entry of the tree.
pub(super) const PIECE_BYTES: usize = 4096;

const WHOLE: u8 = 0;
const IN_PIECES: u8 = 1;
pub(super) const PIECES: u8 = 0xff;

/// What an entry of the tree says about its cell.
pub(super) enum Entry<'a> {
    /// The cell's version and value.
    Whole(u64, &'a [u8]),
    /// The cell's version and its value's length; the bytes lie in pieces.
    Pieces(u64, usize),
}

/// What every key of a table begins with. (Names are checked to be short before any write.)
pub(super) fn table_prefix(table: Table) -> Vec<u8> {
    let name = table.name().as_bytes();
    let mut out = Vec::with_capacity(1 + name.len());
    out.push(u8::try_from(name.len()).unwrap_or(PIECES - 1));
    out.extend_from_slice(name);
    out
}

/// The cell's key in the tree.
pub(super) fn tree_key(table: Table, key: &[u8]) -> Vec<u8> {
    let mut out = table_prefix(table);
    out.extend_from_slice(key);
    out
}

/// The cell's key in the tree.
pub(super) fn place_key(place: &Place) -> Vec<u8> {
    tree_key(place.table, &place.key)
}

/// The keys of the pieces of a value of this length; none if it lies in its entry.
pub(super) fn piece_keys(tree_key: &[u8], value_bytes: usize) -> impl Iterator<Item = Vec<u8>> {
    let pieces = if value_bytes > PIECE_BYTES { value_bytes.div_ceil(PIECE_BYTES) } else { 0 };
    (0..=u8::MAX).take(pieces).map(move |number| {
        let mut out = Vec::with_capacity(tree_key.len() + 2);
        out.push(PIECES);
        out.extend_from_slice(tree_key);
        out.push(number);
        out
    })
}

/// The cell's own entry in the tree.
pub(super) fn encode(cell: &Cell) -> Vec<u8> {
    let mut out = Vec::with_capacity(13 + cell.value.len().min(PIECE_BYTES));
    out.extend_from_slice(&cell.version.to_be_bytes());
    if cell.value.len() > PIECE_BYTES {
        out.push(IN_PIECES);
        out.extend_from_slice(&u32::try_from(cell.value.len()).unwrap_or(u32::MAX).to_be_bytes());
    } else {
        out.push(WHOLE);
        out.extend_from_slice(&cell.value);
    }
    out
}

/// Reads a cell's own entry; `None` if it is not one that [`encode`] makes.
pub(super) fn decode(bytes: &[u8]) -> Option<Entry<'_>> {
    let (version, rest) = bytes.split_first_chunk::<8>()?;
    let version = u64::from_be_bytes(*version);
    match rest.split_first()? {
        (&WHOLE, value) => Some(Entry::Whole(version, value)),
        (&IN_PIECES, length) => {
            let length = u32::from_be_bytes(length.try_into().ok()?);
            Some(Entry::Pieces(version, usize::try_from(length).ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(value_bytes: usize) -> Cell {
        Cell { version: 7, value: vec![0xab; value_bytes] }
    }

    #[test]
    fn short_values_lie_whole_and_long_ones_in_pieces() {
        for bytes in [0, 1, PIECE_BYTES] {
            assert!(
                matches!(decode(&encode(&cell(bytes))), Some(Entry::Whole(7, found)) if found == cell(bytes).value)
            );
            assert_eq!(piece_keys(b"k", bytes).count(), 0);
        }
        for (bytes, pieces) in [(PIECE_BYTES + 1, 2), (2 * PIECE_BYTES, 2), (65_535, 16)] {
            assert!(matches!(decode(&encode(&cell(bytes))), Some(Entry::Pieces(7, found)) if found == bytes));
            assert_eq!(piece_keys(b"k", bytes).count(), pieces);
        }
    }

    #[test]
    fn foreign_bytes_are_no_entry() {
        for bytes in [&b""[..], b"1234567", b"12345678", b"12345678\x02", b"12345678\x01abc", b"12345678\x01abcde"] {
            assert!(decode(bytes).is_none());
        }
    }

    #[test]
    fn keys_of_tables_and_pieces_lie_apart() {
        let (short, long) = (Table::new("a"), Table::new("ab"));
        assert_ne!(tree_key(short, b"bc"), tree_key(long, b"c"));
        let key = tree_key(short, b"k");
        assert!(piece_keys(&key, 9_000).all(|piece| piece.starts_with(&[PIECES]) && !piece.starts_with(&key)));
    }
}
