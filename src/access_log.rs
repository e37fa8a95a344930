//! The public log of what the gateway did: a Merkle tree over fixed-size entries (RFC 6962, C2SP tlog-tiles).
//!
//! Here are the words that the log's parts share: hashes and how they are made. [`tile`] knows which
//! tiles a tree of some size has, [`proof`] shows that an entry is in a tree, [`checkpoint`] is the
//! signed head. All of it is pure: tiles are arguments, nothing is fetched or stored here, and no
//! part knows what an entry says.

pub mod checkpoint;
pub mod entry;
pub mod tile;

pub mod proof;

use ring::digest::{Context, SHA256};

/// A SHA-256 hash in the tree.
pub type Hash = [u8; 32];

/// The length of every entry.
pub const ENTRY_BYTES: usize = 512;

/// The hash of an entry as a leaf: SHA-256 of 0x00 and the entry.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    sha256(&[&[0], entry])
}

/// The hash of an inner node: SHA-256 of 0x01, the left and the right hash.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

/// The root of the tree without leaves: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    sha256(&[])
}

fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Test helpers that more than one of the log's parts needs.
#[cfg(test)]
pub(crate) mod oracle {
    use super::*;

    /// The root as RFC 6962 defines it, by recursion over the leaf hashes.
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

    /// The leaf hashes of the entries 0, 1, 2, …
    pub fn leaves(size: u64) -> Vec<Hash> {
        (0..size).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    /// 64 lower-case hexadecimal digits as a hash.
    pub fn hash(hex: &str) -> Hash {
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
        bytes.try_into().unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::oracle::{hash, naive_root};
    use super::*;

    /// The eight entries and the roots of certificate-transparency's reference implementation.
    #[test]
    fn known_roots() {
        let entries: [&[u8]; 8] = [
            &[],
            &[0x00],
            &[0x10],
            &[0x20, 0x21],
            &[0x30, 0x31],
            &[0x40, 0x41, 0x42, 0x43],
            &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
            &[0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f],
        ];
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let leaves: Vec<Hash> = entries.iter().map(|e| leaf_hash(e)).collect();
        for (n, root) in roots.iter().enumerate() {
            assert_eq!(naive_root(&leaves[..=n]), hash(root), "size {}", n + 1);
        }
        assert_eq!(empty_root(), hash("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
    }
}
