//! Tiles: runs of at most 256 hashes of one level of the tree, and how they are named (C2SP tlog-tiles).
//!
//! A level-0 tile holds leaf hashes, a tile above holds the roots of full tiles below. Which tiles a
//! tree has, and how wide, follows from its size alone. [`RightEdge`] is what a growing log keeps in
//! memory: the partial tile of every level, enough to append and to know the root. A full tile never
//! changes; a partial tile is a prefix of the full one. Where tiles lie is not known here.

mod roots;

pub use roots::RememberedTile;

use super::{Hash, empty_root, node_hash};
use roots::perfect_root;

/// How many hashes a full tile has.
pub const TILE_WIDTH: u64 = 256;
const FULL: u16 = 256;
const LEVEL_MAX: u8 = 63;

/// The place of a tile in the tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Ord, PartialOrd, Debug)]
pub struct TileRef {
    /// The level: 0 holds leaf hashes.
    pub level: u8,
    /// The index within the level, from the left.
    pub index: u64,
}

/// How many hashes this tile has in a tree of that size: 256 when it is full, 0 when it does not exist.
pub fn width_at(level: u8, index: u64, size: u64) -> u16 {
    let hashes = size.checked_shr(8 * u32::from(level)).unwrap_or(0);
    let before = index.saturating_mul(TILE_WIDTH);
    u16::try_from(hashes.saturating_sub(before).min(TILE_WIDTH)).unwrap_or(FULL)
}

/// What the part of a path after `/log/tile/` asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TileRequest {
    /// `<level>/<index>[.p/<width>]`: hashes.
    Hashes {
        /// The tile's level.
        level: u8,
        /// The tile's index.
        index: u64,
        /// 1 to 255 of a partial tile, 256 of a full one.
        width: u16,
    },
    /// `entries/<index>[.p/<width>]`: the entries whose hashes are in that level-0 tile.
    Entries {
        /// The bundle's index.
        index: u64,
        /// 1 to 255 of a partial bundle, 256 of a full one.
        width: u16,
    },
}

impl TileRequest {
    /// Reads the part after `/log/tile/`; anything but the one right spelling is `None`.
    pub fn parse(path: &str) -> Option<Self> {
        let (kind, rest) = path.split_once('/')?;
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, width.parse().ok().filter(|w| (1..FULL).contains(w))?),
            None => (rest, FULL),
        };
        let mut number: u64 = 0;
        for group in index.split('/') {
            let digits = group.strip_prefix('x').unwrap_or(group);
            if digits.len() != 3 {
                return None;
            }
            number = number.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
        }
        let request = if kind == "entries" {
            Self::Entries { index: number, width }
        } else {
            Self::Hashes { level: kind.parse().ok().filter(|l| *l <= LEVEL_MAX)?, index: number, width }
        };
        // The numbers are read leniently above; only the spelling that `path` gives is accepted.
        (request.path() == path).then_some(request)
    }

    /// The path after `/log/tile/`.
    pub fn path(&self) -> String {
        let (mut path, mut rest, width) = match *self {
            Self::Hashes { level, index, width } => (format!("{level}/"), index, width),
            Self::Entries { index, width } => ("entries/".to_owned(), index, width),
        };
        let mut groups = vec![format!("{:03}", rest % 1000)];
        while rest >= 1000 {
            rest /= 1000;
            groups.push(format!("x{:03}", rest % 1000));
        }
        groups.reverse();
        path.push_str(&groups.join("/"));
        if width < FULL {
            path.push_str(&format!(".p/{width}"));
        }
        path
    }

    /// The tile asked for, and how many of its hashes; of a bundle, the level-0 tile beside it.
    pub fn tile(&self) -> (TileRef, u16) {
        match *self {
            Self::Hashes { level, index, width } => (TileRef { level, index }, width),
            Self::Entries { index, width } => (TileRef { level: 0, index }, width),
        }
    }

    /// Whether a log of this size has it: a partial tile stays available after the log has grown past it.
    pub fn within(&self, size: u64) -> bool {
        let (tile, width) = self.tile();
        (1..=width_at(tile.level, tile.index, size)).contains(&width)
    }
}

/// Tiles at hand, fetched beforehand by whoever can.
pub trait Tiles {
    /// At least the first `width` hashes of that tile, or `None` when they are not at hand.
    fn tile(&self, tile: TileRef, width: u16) -> Option<&[Hash]>;

    /// The root over the hashes `from..to` of a tile, a power of two of them at a multiple of their number.
    /// Whoever gives many proofs from one tree may remember such roots.
    fn root_within(&self, tile: TileRef, width: u16, from: usize, to: usize) -> Option<Hash> {
        perfect_root(self.tile(tile, width)?.get(from..to)?)
    }
}

/// Why a right edge could not be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EdgeError {
    /// A partial tile is missing, or has another width than the size demands.
    #[error("the right edge lacks tile {index} of level {level}, which needs {width} hashes")]
    Tile {
        /// The tile's level.
        level: u8,
        /// The tile's index.
        index: u64,
        /// The width it needs at that size.
        width: u16,
    },
    /// There are more bytes than the partial tiles of that size have.
    #[error("the right edge has more bytes than the size of the log allows")]
    Length,
    /// The tiles fit the size but make another root.
    #[error("the right edge makes another root than the checkpoint says")]
    Root,
}

/// One level's partial tile, and the roots of the perfect subtrees it falls into, largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Partial {
    hashes: Vec<Hash>,
    peaks: Vec<Hash>,
}

impl Partial {
    fn push(&mut self, hash: Hash) {
        self.hashes.push(hash);
        let mut peak = hash;
        // As many subtrees end here as the count has factors of two, as in a binary counter.
        for _ in 0..self.hashes.len().trailing_zeros() {
            if let Some(left) = self.peaks.pop() {
                peak = node_hash(&left, &peak);
            }
        }
        self.peaks.push(peak);
    }
}

/// The partial tiles of a log, one a level: all that appending needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RightEdge {
    size: u64,
    levels: Vec<Partial>,
}

impl RightEdge {
    /// The edge of an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many leaves the log has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root of the tree; few hashes are computed, however large the log is.
    pub fn root(&self) -> Hash {
        let mut peaks = self.levels.iter().flat_map(|level| level.peaks.iter().rev());
        match peaks.next() {
            Some(last) => peaks.fold(*last, |right, left| node_hash(left, &right)),
            None => empty_root(),
        }
    }

    /// Adds a leaf; tiles that it completes, at every level, are pushed to `completed` with their 256 hashes.
    pub fn append(&mut self, leaf: Hash, completed: &mut Vec<(TileRef, Vec<Hash>)>) {
        self.size += 1;
        let mut rising = Some(leaf);
        let mut level: u8 = 0;
        while let Some(hash) = rising.take() {
            if self.levels.len() <= usize::from(level) {
                self.levels.push(Partial::default());
            }
            let Some(partial) = self.levels.get_mut(usize::from(level)) else { return };
            partial.push(hash);
            if partial.hashes.len() >= usize::from(FULL) {
                let full = std::mem::take(partial);
                let index = self.size.checked_shr(8 * (u32::from(level) + 1)).unwrap_or(0).saturating_sub(1);
                completed.push((TileRef { level, index }, full.hashes));
                rising = full.peaks.first().copied();
                level += 1;
            }
        }
    }

    /// The partial tiles that a log of this size has, lowest level first, with their widths.
    pub fn tiles_of(size: u64) -> Vec<(TileRef, u16)> {
        let partial = |level: u8| {
            let index = size.checked_shr(8 * (u32::from(level) + 1)).unwrap_or(0);
            (TileRef { level, index }, width_at(level, index, size))
        };
        (0..8).map(partial).filter(|(_, width)| *width > 0).collect()
    }

    /// The edge of a log of that size from its partial tiles, if they make that root.
    pub fn restore(
        size: u64,
        root: &Hash,
        mut partial: impl FnMut(TileRef, u16) -> Option<Vec<Hash>>,
    ) -> Result<Self, EdgeError> {
        let mut edge = Self { size, levels: Vec::new() };
        for (tile, width) in Self::tiles_of(size) {
            let TileRef { level, index } = tile;
            let hashes = partial(tile, width)
                .filter(|hashes| hashes.len() == usize::from(width))
                .ok_or(EdgeError::Tile { level, index, width })?;
            edge.levels.resize_with(usize::from(level), Partial::default);
            let mut restored = Partial::default();
            hashes.into_iter().for_each(|hash| restored.push(hash));
            edge.levels.push(restored);
        }
        if edge.root() == *root { Ok(edge) } else { Err(EdgeError::Root) }
    }

    /// The partial tiles that are not empty, lowest level first.
    pub fn partials(&self) -> impl Iterator<Item = (TileRef, &[Hash])> {
        let hashes = self.levels.iter().map(|level| level.hashes.as_slice()).filter(|hashes| !hashes.is_empty());
        Self::tiles_of(self.size).into_iter().map(|(tile, _)| tile).zip(hashes)
    }

    /// The partial tiles' hashes one after the other, lowest level first; [`Self::from_bytes`] reads them.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.levels.iter().flat_map(|level| level.hashes.iter().flatten().copied()).collect()
    }

    /// The edge of a log of that size from what [`Self::to_bytes`] gave, if it makes that root.
    pub fn from_bytes(size: u64, root: &Hash, bytes: &[u8]) -> Result<Self, EdgeError> {
        let (hashes, rest) = bytes.as_chunks::<32>();
        let mut hashes = hashes.iter().copied();
        let edge = Self::restore(size, root, |_, width| Some(hashes.by_ref().take(usize::from(width)).collect()))?;
        if hashes.next().is_none() && rest.is_empty() { Ok(edge) } else { Err(EdgeError::Length) }
    }
}

impl Tiles for RightEdge {
    /// Only the partial tiles of the edge itself.
    fn tile(&self, tile: TileRef, width: u16) -> Option<&[Hash]> {
        let index = self.size.checked_shr(8 * (u32::from(tile.level) + 1)).unwrap_or(0);
        let hashes = self.levels.get(usize::from(tile.level))?.hashes.as_slice();
        (tile.index == index && hashes.len() >= usize::from(width)).then_some(hashes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::oracle::{leaves, naive_root};
    use super::*;

    type Completed = Vec<(TileRef, Vec<Hash>)>;

    fn grown(leaves: &[Hash]) -> (RightEdge, Completed) {
        let (mut edge, mut completed) = (RightEdge::new(), Vec::new());
        for leaf in leaves {
            edge.append(*leaf, &mut completed);
        }
        (edge, completed)
    }

    fn naive_tile(leaves: &[Hash], tile: TileRef, width: u16) -> Vec<Hash> {
        let span = 256usize.pow(u32::from(tile.level));
        let first = tile.index as usize * 256;
        (first..first + usize::from(width)).map(|i| naive_root(&leaves[i * span..(i + 1) * span])).collect()
    }

    fn check(size: u64) {
        let leaves = leaves(size);
        let (edge, completed) = grown(&leaves);
        assert_eq!((edge.size(), edge.root()), (size, naive_root(&leaves)), "size {size}");
        for (tile, hashes) in &completed {
            assert_eq!(width_at(tile.level, tile.index, size), 256);
            assert_eq!(*hashes, naive_tile(&leaves, *tile, 256), "{tile:?}");
        }
        let full: u64 = (1..8).map(|l| size >> (8 * l)).sum();
        assert_eq!(completed.len() as u64, full);
        for (tile, hashes) in edge.partials() {
            assert_eq!(hashes, naive_tile(&leaves, tile, width_at(tile.level, tile.index, size)), "{tile:?}");
        }
        assert_eq!(edge.partials().map(|(t, h)| (t, h.len() as u16)).collect::<Vec<_>>(), RightEdge::tiles_of(size));
        assert_eq!(RightEdge::from_bytes(size, &edge.root(), &edge.to_bytes()).unwrap().root(), edge.root());
    }

    #[test]
    fn around_the_borders() {
        for size in [0, 1, 2, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537] {
            check(size);
        }
    }

    #[test]
    fn the_specs_example_of_70_000() {
        let widths: Vec<_> = RightEdge::tiles_of(70_000).iter().map(|(t, w)| (t.level, t.index, *w)).collect();
        assert_eq!(widths, [(0, 273, 112), (1, 1, 17), (2, 0, 1)]);
        assert_eq!(width_at(0, 272, 70_000), 256);
        assert_eq!((width_at(1, 0, 256), width_at(0, 1, 256), width_at(1, 0, 255)), (1, 0, 0));
        assert_eq!((width_at(8, 0, u64::MAX), width_at(63, 0, u64::MAX), width_at(0, u64::MAX, 9)), (0, 0, 0));
        assert_eq!(width_at(7, 0, u64::MAX), 255);
    }

    #[test]
    fn a_restored_edge_goes_on_alike() {
        let leaves = leaves(1_000);
        let (mut edge, _) = grown(&leaves[..700]);
        let mut again = RightEdge::from_bytes(700, &edge.root(), &edge.to_bytes()).unwrap();
        let (mut one, mut other) = (Vec::new(), Vec::new());
        for leaf in &leaves[700..] {
            edge.append(*leaf, &mut one);
            again.append(*leaf, &mut other);
        }
        assert_eq!((edge.root(), one), (again.root(), other));
    }

    #[test]
    fn a_damaged_edge_is_not_restored() {
        let (edge, _) = grown(&leaves(300));
        let (root, bytes) = (edge.root(), edge.to_bytes());
        assert_eq!(
            RightEdge::from_bytes(300, &root, &bytes[32..]),
            Err(EdgeError::Tile { level: 1, index: 0, width: 1 })
        );
        assert_eq!(RightEdge::from_bytes(301, &root, &bytes), Err(EdgeError::Tile { level: 1, index: 0, width: 1 }));
        assert_eq!(RightEdge::from_bytes(299, &root, &bytes[32..]), Err(EdgeError::Root));
        assert_eq!(RightEdge::from_bytes(300, &root, &[&bytes[..], &[0]].concat()), Err(EdgeError::Length));
        for at in [0, 31, 44 * 32 - 1, bytes.len() - 1] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(RightEdge::from_bytes(300, &root, &flipped), Err(EdgeError::Root));
        }
    }

    #[test]
    fn the_edge_lends_only_its_own_tiles() {
        let (edge, _) = grown(&leaves(300));
        assert!(edge.tile(TileRef { level: 0, index: 1 }, 44).is_some());
        assert!(edge.tile(TileRef { level: 0, index: 1 }, 45).is_none());
        assert!(edge.tile(TileRef { level: 0, index: 0 }, 44).is_none());
        assert!(edge.tile(TileRef { level: 1, index: 0 }, 1).is_some());
        assert!(edge.tile(TileRef { level: 2, index: 0 }, 1).is_none());
    }

    #[test]
    fn paths_as_the_spec_spells_them() {
        let hashes = |level, index, width| TileRequest::Hashes { level, index, width };
        for (path, request) in [
            ("0/000", hashes(0, 0, 256)),
            ("0/x001/000.p/1", hashes(0, 1000, 1)),
            ("63/999.p/255", hashes(63, 999, 255)),
            ("1/x001/x234/067", hashes(1, 1_234_067, 256)),
            ("entries/x001/000.p/1", TileRequest::Entries { index: 1000, width: 1 }),
            ("entries/000", TileRequest::Entries { index: 0, width: 256 }),
        ] {
            assert_eq!(TileRequest::parse(path), Some(request), "{path}");
            assert_eq!(request.path(), path);
        }
    }

    #[test]
    fn odd_spellings_are_not_there() {
        for path in [
            "",
            "0",
            "0/",
            "/000",
            "0/1000",
            "0/0",
            "0/00",
            "0/x000/000",
            "00/000",
            "0/000.p/0",
            "0/000.p/256",
            "0/000.p/01",
            "0/000.p/",
            "0/000.p",
            "0/000.p/1/",
            "0/000/",
            "0/x001",
            "0/001/000",
            "0/x001/x000",
            "0/X001/000",
            "0/xx01/000",
            "+0/000",
            "0/+01",
            "0/000.p/+1",
            "64/000",
            "256/000",
            "-1/000",
            "entries",
            "entries/0",
            "Entries/000",
            "entries/000.p/256",
            "0//000",
            " 0/000",
            "0/000 ",
            "0/٠٠٠",
            "0/000?x",
            "0/x018/x446/x744/x073/x709/x551/616",
            "0/x999/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert_eq!(TileRequest::parse(path), None, "{path}");
        }
    }

    #[test]
    fn what_a_log_has() {
        let has = |path: &str, size| TileRequest::parse(path).unwrap().within(size);
        assert!(has("0/x001/000.p/1", 256_001) && has("entries/x001/000.p/1", 256_001));
        assert!(!has("0/x001/000.p/2", 256_001) && !has("0/x001/000", 256_001) && !has("0/x001/001.p/1", 256_001));
        assert!(has("0/000.p/255", 255) && !has("0/000", 255) && !has("1/000.p/1", 255));
        assert!(has("0/000", 256) && has("1/000.p/1", 256) && !has("0/001.p/1", 256));
        assert!(has("0/001.p/1", 257) && has("0/000.p/9", 257) && !has("2/000.p/1", 257));
        assert!(!has("0/000.p/1", 0) && !has("9/000.p/1", u64::MAX));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_size_is_as_the_definition_says(size in 0u64..3_000) {
            check(size);
        }

        #[test]
        fn paths_round_trip(level in 0u8..=63, index: u64, width in 1u16..=256, entries: bool) {
            let request = if entries { TileRequest::Entries { index, width } } else { TileRequest::Hashes { level, index, width } };
            prop_assert_eq!(TileRequest::parse(&request.path()), Some(request));
        }

        #[test]
        fn reading_a_path_never_panics(path in "[0-9x/.pentris+é]{0,24}") {
            if let Some(request) = TileRequest::parse(&path) {
                prop_assert_eq!(request.path(), path);
            }
        }
    }
}
