//! Roots of perfect subtrees within a tile.

use std::sync::OnceLock;

use crate::access_log::{Hash, node_hash};

/// The root over a power of two of hashes.
pub(super) fn perfect_root(hashes: &[Hash]) -> Option<Hash> {
    match hashes {
        [] => None,
        [one] => Some(*one),
        _ => {
            let (left, right) = hashes.split_at_checked(hashes.len() / 2)?;
            Some(node_hash(&perfect_root(left)?, &perfect_root(right)?))
        }
    }
}

/// A tile with the roots of all perfect subtrees within it, once somebody has asked for one: a proof
/// hashes most of a tile, and the proofs of a group hash the same one.
#[derive(Debug)]
pub struct RememberedTile {
    hashes: Vec<Hash>,
    /// For each power of two from 2 on, the roots of that many hashes, from the left.
    roots: OnceLock<Vec<Vec<Hash>>>,
}

impl RememberedTile {
    /// The tile of these hashes.
    pub fn new(hashes: Vec<Hash>) -> Self {
        Self { hashes, roots: OnceLock::new() }
    }

    /// Its hashes.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// The root over the hashes `from..to`, as [`Tiles::root_within`] has it.
    pub fn root(&self, from: usize, to: usize) -> Option<Hash> {
        let length = to.checked_sub(from).filter(|length| length.is_power_of_two())?;
        let Some(above) = usize::try_from(length.ilog2()).ok()?.checked_sub(1) else {
            return self.hashes.get(from).copied();
        };
        let roots = self.roots.get_or_init(|| {
            let mut roots: Vec<Vec<Hash>> = Vec::new();
            loop {
                let below = roots.last().unwrap_or(&self.hashes);
                let (pairs, _) = below.as_chunks::<2>();
                if pairs.is_empty() {
                    return roots;
                }
                roots.push(pairs.iter().map(|[left, right]| node_hash(left, right)).collect());
            }
        });
        roots.get(above)?.get(from / length).copied()
    }
}
