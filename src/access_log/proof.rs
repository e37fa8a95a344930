//! Proofs: that an entry is in a tree (RFC 9162 section 2.1.3), computed from tiles, and their text (C2SP tlog-proof).
//!
//! A proof's text stands on its own: the whole entry as extra data, its place, the hashes beside its
//! way to the root, and the signed checkpoint. Whoever has the log's verifier key can check it
//! offline with [`Proof::verify`]. Which tiles a computation reads is said beforehand, so that the
//! caller can fetch them; whether they are honest shows only in the root.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::checkpoint::{Checkpoint, NOTE_BYTES_MAX, NoteError, VerifierKey, decimal, hash};
use super::tile::{TILE_WIDTH, TileRef, Tiles, width_at};
use super::{ENTRY_BYTES, Hash, empty_root, leaf_hash, node_hash};

const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// No tree of 64-bit size is higher.
const PATH_MAX: usize = 64;

/// A tile that the computation needs was not at hand, or too narrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("tile {} of level {} is needed with {width} hashes and is not at hand", tile.index, tile.level)]
pub struct MissingTile {
    /// Which tile.
    pub tile: TileRef,
    /// How many of its hashes are needed.
    pub width: u16,
}

/// The leaves from `lo` to before `hi`: a range as the definition of the root makes them, so either a
/// perfect subtree at its place or everything from such a place to the end of the tree.
#[derive(Clone, Copy)]
struct Range {
    lo: u64,
    hi: u64,
}

impl Range {
    /// The two ranges that the definition of the root cuts this one into; `None` for a single leaf.
    fn halves(self) -> Option<(Self, Self)> {
        let len = self.hi.saturating_sub(self.lo);
        let middle = self.lo + (1 << len.checked_sub(1)?.checked_ilog2()?);
        Some((Self { lo: self.lo, hi: middle }, Self { lo: middle, hi: self.hi }))
    }

    /// The tile that holds this perfect subtree, and the range of its hashes there; `None` if it is not perfect.
    fn in_tile(self) -> Option<(TileRef, usize, usize)> {
        let len = self.hi.saturating_sub(self.lo);
        if !len.is_power_of_two() {
            return None;
        }
        let level = u8::try_from(len.ilog2() / 8).ok()?;
        let shift = 8 * u32::from(level);
        let first = self.lo.checked_shr(shift)?;
        let from = usize::try_from(first % TILE_WIDTH).ok()?;
        let count = usize::try_from(len.checked_shr(shift)?).ok()?;
        Some((TileRef { level, index: first / TILE_WIDTH }, from, from + count))
    }

    fn collect_tiles(self, size: u64, tiles: &mut Vec<(TileRef, u16)>) {
        if let Some((tile, _, _)) = self.in_tile() {
            tiles.push((tile, width_at(tile.level, tile.index, size)));
        } else if let Some((left, right)) = self.halves() {
            left.collect_tiles(size, tiles);
            right.collect_tiles(size, tiles);
        }
    }

    fn root(self, size: u64, tiles: &dyn Tiles) -> Result<Hash, MissingTile> {
        if let Some((tile, from, to)) = self.in_tile() {
            let width = width_at(tile.level, tile.index, size);
            return tiles.root_within(tile, width, from, to).ok_or(MissingTile { tile, width });
        }
        match self.halves() {
            Some((left, right)) => Ok(node_hash(&left.root(size, tiles)?, &right.root(size, tiles)?)),
            None => Ok(empty_root()),
        }
    }
}

/// The ranges whose roots make the inclusion proof, the leaf's sibling first; none when there is no such leaf.
fn siblings(index: u64, size: u64) -> Vec<Range> {
    let mut siblings = Vec::new();
    let mut range = Range { lo: 0, hi: size };
    while let Some((left, right)) = range.halves().filter(|_| index < size) {
        let (into, beside) = if index < right.lo { (left, right) } else { (right, left) };
        siblings.push(beside);
        range = into;
    }
    siblings.reverse();
    siblings
}

fn tiles_of(ranges: &[Range], size: u64) -> Vec<(TileRef, u16)> {
    let mut tiles = Vec::new();
    ranges.iter().for_each(|range| range.collect_tiles(size, &mut tiles));
    tiles.sort_unstable();
    tiles.dedup();
    tiles
}

/// The tiles that [`inclusion`] will read, with the widths they have in a tree of that size.
pub fn inclusion_tiles(index: u64, size: u64) -> Vec<(TileRef, u16)> {
    tiles_of(&siblings(index, size), size)
}

/// The inclusion proof of this leaf in a tree of that size, which may be older than the tiles.
///
/// The proof is empty for the only leaf of a tree, and for an index that is not in the tree.
pub fn inclusion(index: u64, size: u64, tiles: &dyn Tiles) -> Result<Vec<Hash>, MissingTile> {
    siblings(index, size).into_iter().map(|range| range.root(size, tiles)).collect()
}

/// The tiles that [`root`] will read, with the widths they have in a tree of that size.
pub fn root_tiles(size: u64) -> Vec<(TileRef, u16)> {
    tiles_of(&[Range { lo: 0, hi: size }], size)
}

/// The root of the tree when it had that size, from the tiles of the same or a later tree.
pub fn root(size: u64, tiles: &dyn Tiles) -> Result<Hash, MissingTile> {
    Range { lo: 0, hi: size }.root(size, tiles)
}

/// The root that an inclusion proof leads to; `None` if the proof has not the length that index and size demand.
pub fn root_from_inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    let mut last = size.checked_sub(1).filter(|last| index <= *last)?;
    let (mut node, mut root) = (index, *leaf);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if node % 2 == 1 || node == last {
            root = node_hash(sibling, &root);
            // A last node without a sibling rises until it is a right child.
            let rise = node.trailing_zeros().min(63);
            (node, last) = (node >> rise, last >> rise);
        } else {
            root = node_hash(&root, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    (last == 0).then_some(root)
}

/// A proof as it travels: entry, place, path and checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proof {
    /// The whole entry.
    pub extra: Vec<u8>,
    /// The entry's place in the log, from 0.
    pub index: u64,
    /// The inclusion proof, the leaf's sibling first.
    pub path: Vec<Hash>,
    /// The signed checkpoint, as the log serves it.
    pub checkpoint: String,
}

/// Why a proof was not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// A line, counted from 1, is not what stands there in a proof.
    #[error("line {line} of the proof is wrong: expected {expected}; take the proof as it was answered, unchanged")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// No empty line and checkpoint follow.
    #[error("the proof has no checkpoint after an empty line; it was cut short")]
    NoCheckpoint,
    /// The text is longer than any honest one.
    #[error("the proof is longer than any proof can be")]
    Length,
    /// The entry has not the length of an entry.
    #[error("the entry in the proof is not {ENTRY_BYTES} bytes long")]
    Entry,
    /// The checkpoint is not to be believed.
    #[error(transparent)]
    Checkpoint(#[from] NoteError),
    /// The entry's place is beyond the end of the log.
    #[error("the proof is for entry {index}, and its checkpoint is of a log of {size}")]
    Beyond {
        /// The entry's place.
        index: u64,
        /// The size that the checkpoint says.
        size: u64,
    },
    /// The path does not lead from the entry to the root.
    #[error(
        "the proof does not lead from the entry to the root that the log signed: entry, place or hashes were changed"
    )]
    Root,
}

impl Proof {
    /// The text as C2SP tlog-proof has it.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADER}\nextra {}\nindex {}\n", STANDARD.encode(&self.extra), self.index);
        for hash in &self.path {
            text.push_str(&STANDARD.encode(hash));
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.checkpoint);
        text
    }

    /// Reads the text; a proof without the entry in it is of no use here and refused.
    pub fn parse(text: &str) -> Result<Self, ProofError> {
        if text.len() > 2 * NOTE_BYTES_MAX {
            return Err(ProofError::Length);
        }
        let wrong = |line, expected| ProofError::Line { line, expected };
        let (head, checkpoint) = text.split_once("\n\n").ok_or(ProofError::NoCheckpoint)?;
        let mut lines = head.split('\n');
        if lines.next() != Some(HEADER) {
            return Err(wrong(1, HEADER));
        }
        let extra = lines.next().and_then(|line| STANDARD.decode(line.strip_prefix("extra ")?).ok());
        let extra = extra.ok_or(wrong(2, "extra and the base64 of the log entry"))?;
        let index = lines.next().and_then(|line| decimal(line.strip_prefix("index ")?));
        let index = index.ok_or(wrong(3, "index and a plain decimal number"))?;
        let mut path = Vec::new();
        for (nth, line) in lines.enumerate() {
            path.push(hash(line).filter(|_| nth < PATH_MAX).ok_or(wrong(4 + nth, "the base64 of a hash of 32 bytes"))?);
        }
        Ok(Self { extra, index, path, checkpoint: checkpoint.to_owned() })
    }

    /// The checkpoint, if the log of this key signed it and the entry is in its tree at that place.
    pub fn verify(&self, key: &VerifierKey) -> Result<Checkpoint, ProofError> {
        if self.extra.len() != ENTRY_BYTES {
            return Err(ProofError::Entry);
        }
        let checkpoint = key.open(&self.checkpoint)?;
        if self.index >= checkpoint.size {
            return Err(ProofError::Beyond { index: self.index, size: checkpoint.size });
        }
        match root_from_inclusion(&leaf_hash(&self.extra), self.index, checkpoint.size, &self.path) {
            Some(root) if root == checkpoint.root => Ok(checkpoint),
            _ => Err(ProofError::Root),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::checkpoint::tests::TestSigner;
    use super::super::checkpoint::{Checkpoint, NoteSigner};
    use super::super::oracle::{leaves, naive_root};
    use super::super::tile::RightEdge;
    use super::*;

    #[derive(Default)]
    struct Shelf(BTreeMap<TileRef, Vec<Hash>>);

    impl Tiles for Shelf {
        fn tile(&self, tile: TileRef, width: u16) -> Option<&[Hash]> {
            self.0.get(&tile).map(Vec::as_slice).filter(|hashes| hashes.len() >= usize::from(width))
        }
    }

    fn shelf(leaves: &[Hash]) -> Shelf {
        let (mut edge, mut completed) = (RightEdge::new(), Vec::new());
        leaves.iter().for_each(|leaf| edge.append(*leaf, &mut completed));
        let partial: Vec<_> = edge.partials().map(|(tile, hashes)| (tile, hashes.to_vec())).collect();
        Shelf(completed.into_iter().chain(partial).collect())
    }

    /// Only what was asked for is at hand, and only as wide.
    fn only(shelf: &Shelf, tiles: &[(TileRef, u16)]) -> Shelf {
        let cut = |(tile, width): &(TileRef, u16)| (*tile, shelf.0[tile][..usize::from(*width)].to_vec());
        Shelf(tiles.iter().map(cut).collect())
    }

    fn check(leaves: &[Hash], places: &[u64], size: u64, shelf: &Shelf) {
        let root = naive_root(&leaves[..size as usize]);
        assert_eq!(super::root(size, &only(shelf, &root_tiles(size))), Ok(root));
        places.iter().for_each(|index| check_one(leaves, *index, size, shelf, root));
    }

    fn check_one(leaves: &[Hash], index: u64, size: u64, shelf: &Shelf, root: Hash) {
        let path = inclusion(index, size, &only(shelf, &inclusion_tiles(index, size))).unwrap();
        let leaf = leaves[index as usize];
        assert_eq!(root_from_inclusion(&leaf, index, size, &path), Some(root), "{index} of {size}");
    }

    #[test]
    fn small_trees_whole() {
        let leaves = leaves(40);
        let shelf = shelf(&leaves);
        for size in 1..=40 {
            check(&leaves, &(0..size).collect::<Vec<_>>(), size, &shelf);
        }
    }

    /// RFC 9162 section 2.1.5: the proofs of d0, d3, d4 and d6 in the tree of seven.
    #[test]
    fn the_rfcs_example_of_seven() {
        let d = leaves(7);
        let node = |l: &Hash, r: &Hash| node_hash(l, r);
        let (g, h, i) = (node(&d[0], &d[1]), node(&d[2], &d[3]), node(&d[4], &d[5]));
        let (k, l) = (node(&g, &h), node(&i, &d[6]));
        let shelf = shelf(&d);
        assert_eq!(inclusion(0, 7, &shelf).unwrap(), [d[1], h, l]);
        assert_eq!(inclusion(3, 7, &shelf).unwrap(), [d[2], g, l]);
        assert_eq!(inclusion(4, 7, &shelf).unwrap(), [d[5], d[6], k]);
        assert_eq!(inclusion(6, 7, &shelf).unwrap(), [i, k]);
        assert_eq!(super::root(7, &shelf), Ok(node(&k, &l)));
    }

    #[test]
    fn around_the_borders() {
        let leaves = leaves(66_000);
        let shelf = shelf(&leaves);
        for size in [255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537, 66_000] {
            check(&leaves, &[0, 1, size / 2, size - 2, size - 1], size, &shelf);
        }
    }

    #[test]
    fn no_tile_is_asked_for_twice_and_a_missing_one_is_named() {
        let wanted = inclusion_tiles(3, 600);
        let refs: Vec<_> = wanted.iter().map(|(t, w)| (t.level, t.index, *w)).collect();
        assert_eq!(refs, [(0, 0, 256), (0, 2, 88), (1, 0, 2)]);
        let missing = inclusion(3, 600, &Shelf::default()).unwrap_err();
        assert_eq!(missing, MissingTile { tile: TileRef { level: 0, index: 0 }, width: 256 });
        assert_eq!((root_tiles(0), super::root(0, &Shelf::default())), (vec![], Ok(empty_root())));
        assert_eq!((inclusion_tiles(0, 1), inclusion_tiles(9, 9)), (vec![], vec![]));
    }

    #[test]
    fn sizes_near_the_end_of_the_numbers() {
        for (index, size) in [(0, u64::MAX), (u64::MAX - 1, u64::MAX), (u64::MAX, u64::MAX), (1 << 63, (1 << 63) + 1)] {
            let tiles = inclusion_tiles(index, size);
            assert!(tiles.iter().all(|(_, width)| *width > 0) && tiles.len() <= 17, "{index} of {size}");
        }
        assert!(root_tiles(u64::MAX).len() == 8);
        assert_eq!(root_from_inclusion(&[0; 32], u64::MAX, u64::MAX, &[]), None);
        assert!(root_from_inclusion(&[0; 32], 0, u64::MAX, &[[0; 32]; 64]).is_some());
        assert_eq!(root_from_inclusion(&[0; 32], 0, u64::MAX, &[[0; 32]; 65]), None);
        assert_eq!(root_from_inclusion(&[0; 32], 0, 0, &[]), None);
    }

    fn logged(index: u64, size: u64) -> (Proof, VerifierKey) {
        let signer = TestSigner::new("log.example/one", [3; 32]);
        let entry = [5; ENTRY_BYTES];
        let mut leaves = leaves(size);
        leaves[index as usize] = leaf_hash(&entry);
        let checkpoint = Checkpoint { origin: "log.example/one".into(), size, root: naive_root(&leaves) };
        let proof = Proof {
            extra: entry.to_vec(),
            index,
            path: inclusion(index, size, &shelf(&leaves)).unwrap(),
            checkpoint: checkpoint.sign(&signer),
        };
        (proof, signer.verifier().clone())
    }

    #[test]
    fn a_proof_goes_through_its_text() {
        for (index, size) in [(0, 1), (0, 2), (300, 600), (255, 256), (256, 257)] {
            let (proof, key) = logged(index, size);
            let again = Proof::parse(&proof.to_text()).unwrap();
            assert_eq!(again, proof);
            assert_eq!(again.verify(&key).map(|c| c.size), Ok(size));
        }
    }

    #[test]
    fn every_line_of_the_text_is_checked() {
        let (proof, key) = logged(300, 600);
        let text = proof.to_text();
        let cut = |from: &str, to: &str| Proof::parse(&text.replacen(from, to, 1));
        let line = |r: Result<Proof, ProofError>| match r {
            Err(ProofError::Line { line, .. }) => line,
            other => panic!("{other:?}"),
        };
        assert_eq!(line(cut("@v1", "@v2")), 1);
        assert_eq!(line(cut("extra ", "extra  ")), 2);
        assert_eq!(line(cut("extra BQUF", "index BQUF")), 2);
        for odd in
            ["index 0300\n", "index +300\n", "index \n", "index 300 \n", "Index 300\n", "index 18446744073709551616\n"]
        {
            assert_eq!(line(cut("index 300\n", odd)), 3, "{odd}");
        }
        assert_eq!(line(cut("index 300\n", "index 300\nAAAA\n")), 4);
        assert_eq!(line(cut("\n\n", "\r\n\n")), 13);
        assert_eq!(Proof::parse(&text.replace("\n\n", "\n")), Err(ProofError::NoCheckpoint));
        assert_eq!(Proof::parse(&"x".repeat(1 << 20)), Err(ProofError::Length));
        let short = Proof { extra: vec![5; 511], ..proof.clone() };
        assert_eq!(short.verify(&key), Err(ProofError::Entry));
        let beyond = Proof { index: 600, ..proof.clone() };
        assert_eq!(beyond.verify(&key), Err(ProofError::Beyond { index: 600, size: 600 }));
        let long = Proof { path: [&proof.path[..], &[[0; 32]]].concat(), ..proof.clone() };
        assert_eq!(long.verify(&key), Err(ProofError::Root));
        let other = TestSigner::new("log.example/one", [4; 32]);
        assert_eq!(proof.verify(other.verifier()), Err(ProofError::Checkpoint(NoteError::Unsigned)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_leaf_of_any_size(size in 1u64..3_000, more in 0u64..300, at: prop::sample::Index) {
            let leaves = leaves(size + more);
            check(&leaves, &[at.index(size as usize) as u64], size, &shelf(&leaves));
        }

        #[test]
        fn a_changed_proof_never_verifies(size in 1u64..700, at: prop::sample::Index, place: prop::sample::Index, bit in 0u32..7) {
            let (proof, key) = logged(at.index(size as usize) as u64, size);
            let mut bytes = proof.to_text().into_bytes();
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
            if let Ok(text) = String::from_utf8(bytes) {
                prop_assert!(Proof::parse(&text).and_then(|p| p.verify(&key)).is_err());
            }
        }

        #[test]
        fn reading_never_panics(text in "(c2sp.org/tlog-proof@v1\n|extra |index |[0-9]{1,3}|\n|[A-Za-z0-9+/=]{0,8}|é){0,12}") {
            let _ = Proof::parse(&text);
        }
    }
}
