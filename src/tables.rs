//! The tables of the gateway's cells, and how their keys are made.
//!
//! Apart from the store, which knows no domain word, and from the vault, which does no I/O.

use crate::store::Table;

/// Register entry and wrapped data keys, by person.
pub const PERSON: Table = Table::new("person");
/// Records with what happened to them, by person, part and chunk.
pub const DOSSIER: Table = Table::new("dossier");
/// The person who holds a record's last version, by provider and record id.
pub const ORIGIN: Table = Table::new("origin");
/// Score, grade, model and next change, by person.
pub const STANDING: Table = Table::new("standing");
/// The cell that a day's answers come from, by day and person; and rows that only look like it.
pub const TODAY: Table = Table::new("today");
/// Consents, by id.
pub const CONSENT: Table = Table::new("consent");
/// A person's consents, by person and chunk.
pub const MINE: Table = Table::new("mine");
/// One-time codes, by their MAC.
pub const CODE: Table = Table::new("code");
/// What gives a call's first answer again, by consent and nonce.
pub const REPLY: Table = Table::new("reply");
/// When a signature's nonce that was seen may be forgotten, by key id and nonce.
pub const NONCE: Table = Table::new("nonce");
/// Log entries with their manifests, by log, index and chunk.
pub const LEAF: Table = Table::new("leaf");
/// Full hash tiles, by log, level and index.
pub const TILE: Table = Table::new("tile");
/// The newest checkpoint, by log.
pub const CHECKPOINT: Table = Table::new("checkpoint");
/// The first leaf of an hour, by log and hour.
pub const HOUR: Table = Table::new("hour");
/// Leaf places of who asked, by consent and page; and of look-ups, by person and page.
pub const ACCESS: Table = Table::new("access");
/// Sessions.
pub const SESSION: Table = Table::new("session");
/// Officers' cases, by id.
pub const CASE: Table = Table::new("case");
/// Which policy sets were loaded and when, and their files.
pub const POLICY: Table = Table::new("policy");
/// Which models were published and from when they hold.
pub const MODEL: Table = Table::new("model");

/// The mark of an import that is not finished.
pub const IMPORT: Table = Table::new("import");

/// From when consents count, since the store was restored.
pub const RESTORED: Table = Table::new("restored");

/// Receipts of batches with the places of their entries, by the batch's id.
pub const BATCH: Table = Table::new("batch");
/// Which records a provider sent: days by month, ids by day and time, and counts.
pub const SENT: Table = Table::new("sent");

/// Which standings are due on a day, by the MACs of day and standing.
pub const DUE: Table = Table::new("due");
/// How far the sweep came.
pub const SWEEP: Table = Table::new("sweep");

/// All of them.
pub const ALL: [Table; 25] = [
    PERSON, DOSSIER, ORIGIN, STANDING, TODAY, CONSENT, MINE, CODE, REPLY, NONCE, LEAF, TILE, CHECKPOINT, HOUR, ACCESS,
    SESSION, CASE, POLICY, MODEL, IMPORT, RESTORED, BATCH, SENT, DUE, SWEEP,
];

/// A key made of parts of fixed length.
pub fn key(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// The first key after every key that begins with `prefix`.
pub fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // A prefix of 0xff bytes alone: nothing of this length comes after it.
    vec![u8::MAX; crate::store::KEY_BYTES_MAX]
}

#[cfg(test)]
mod tests {
    use super::after;

    #[test]
    fn after_a_prefix_comes_no_key_that_has_it() {
        assert_eq!(after(&[1, 2]), [1, 3]);
        assert_eq!(after(&[1, 255]), [2]);
        assert!(after(&[255, 255]) > vec![255, 255, 255]);
    }
}
