//! A manifest names every cell that a batch wrote, with its version and the SHA-256 of its bytes, so
//! that the log can be replayed against the store.

use sha2::{Digest, Sha256};

use crate::access_log::Hash;
use crate::store::Write;

/// One line of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The table's name.
    pub table: String,
    /// The cell's key.
    pub key: Vec<u8>,
    /// The version written; 0 where the cell was deleted.
    pub version: u64,
    /// The SHA-256 of the value; zeros where the cell was deleted.
    pub digest: Hash,
}

/// The manifest of these writes.
pub fn encode(writes: &[Write]) -> Vec<u8> {
    let mut out = Vec::with_capacity(writes.len() * 96);
    for write in writes {
        let place = write.place();
        let (version, digest) = match write {
            Write::Put(_, cell) => (cell.version, Sha256::digest(&cell.value).into()),
            Write::Delete(_) => (0, [0; 32]),
        };
        for field in [place.table.name().as_bytes(), &place.key] {
            out.push(u8::try_from(field.len()).unwrap_or(u8::MAX));
            out.extend(field);
        }
        out.extend(version.to_be_bytes());
        out.extend(digest);
    }
    out
}

/// Reads a manifest; `None` where it is not one.
pub fn decode(mut bytes: &[u8]) -> Option<Vec<Line>> {
    let mut lines = Vec::new();
    while !bytes.is_empty() {
        let mut field = || {
            let (length, rest) = bytes.split_first()?;
            let (field, rest) = rest.split_at_checked(usize::from(*length))?;
            bytes = rest;
            Some(field.to_vec())
        };
        let (table, key) = (String::from_utf8(field()?).ok()?, field()?);
        let (version, rest) = bytes.split_first_chunk::<8>()?;
        let (digest, rest) = rest.split_first_chunk::<32>()?;
        bytes = rest;
        lines.push(Line { table, key, version: u64::from_be_bytes(*version), digest: *digest });
    }
    Some(lines)
}

/// The digest that the entry holds.
pub fn digest(manifest: &[u8]) -> Hash {
    Sha256::digest(manifest).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Cell, Place, Table};

    #[test]
    fn a_manifest_names_every_write() {
        let place = |key: &[u8]| Place::new(Table::new("consent"), key);
        let writes =
            [Write::Put(place(b"a"), Cell { version: 3, value: b"sealed".to_vec() }), Write::Delete(place(b"b"))];
        let lines = decode(&encode(&writes)).unwrap();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (lines[0].table.as_str(), lines[0].key.as_slice(), lines[0].version),
            ("consent", b"a".as_slice(), 3)
        );
        assert_eq!(lines[0].digest, <Hash>::from(Sha256::digest(b"sealed")));
        assert_eq!((lines[1].version, lines[1].digest), (0, [0; 32]));
        assert_eq!(decode(&encode(&writes)[1..]), None);
    }
}
