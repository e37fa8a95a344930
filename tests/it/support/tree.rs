//! The tree of a log by its definition, to hold the log's own arithmetic against.

use jadegate::access_log::{Hash, empty_root, node_hash};

/// The root as RFC 6962 defines it.
pub fn naive_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [one] => *one,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&naive_root(left), &naive_root(right))
        }
    }
}
