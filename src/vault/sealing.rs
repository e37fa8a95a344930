//! The form of sealed bytes: `form (1), key version (4), nonce (12), ciphertext, tag (16)`.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::entropy::{self, Entropy, EntropyError};
use crate::keys::SecretKey;

/// Where a sealed cell lies; the bytes open nowhere else.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    /// The table's name.
    pub table: &'a str,
    /// The cell's key.
    pub key: &'a [u8],
    /// The cell's version.
    pub version: u64,
}

/// Why bytes could not be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// No randomness for the nonce.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The content is larger than a cell.
    #[error("a cell holds at most {CONTENT_BYTES_MAX} bytes, and this has {0}")]
    TooLarge(usize),
    /// The cipher refused.
    #[error("the cipher refused to seal")]
    Cipher,
}

const FORM: u8 = 1;
const HEADER_BYTES: usize = 1 + 4 + NONCE_LEN;
const TAG_BYTES: usize = 16;
const LENGTH_BYTES: usize = 4;
/// The most that one cell holds: 60 KiB.
pub const CONTENT_BYTES_MAX: usize = 60 * 1024;

/// The length of sealed bytes whose padded plaintext has this length.
pub const fn sealed_bytes(padded: usize) -> usize {
    HEADER_BYTES + padded + TAG_BYTES
}

/// The few lengths that plaintexts are padded to: powers of two, then the largest cell.
fn padded_bytes(content: usize, room: usize) -> usize {
    let needed = (content + LENGTH_BYTES).max(room).next_power_of_two();
    if needed > 32 * 1024 { CONTENT_BYTES_MAX + LENGTH_BYTES } else { needed }
}

fn cipher(key: &SecretKey) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key.bytes()).ok().map(LessSafeKey::new)
}

/// INVARIANT (the store is distrusted): what the sealed bytes are bound to.
fn bound(at: At<'_>, part: &str, key_version: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + at.key.len());
    for field in [b"jadegate cell 1".as_slice(), at.table.as_bytes(), part.as_bytes(), at.key] {
        out.extend(u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend(field);
    }
    out.extend(at.version.to_be_bytes());
    out.extend(key_version.to_be_bytes());
    out
}

/// Whether bytes have the form and one of the lengths of sealed ones. Without the key nothing more can be said.
pub fn looks_sealed(bytes: &[u8]) -> bool {
    let Some(padded) = bytes.len().checked_sub(HEADER_BYTES + TAG_BYTES) else { return false };
    let fits = padded == CONTENT_BYTES_MAX + LENGTH_BYTES || (padded.is_power_of_two() && padded <= 32 * 1024);
    key_version(bytes).is_some() && fits
}

/// Seals `content`, padded to a length that has at least `room`.
pub(super) fn seal(
    key: &SecretKey,
    key_version: u32,
    at: At<'_>,
    part: &str,
    content: &[u8],
    room: usize,
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, SealError> {
    if content.len() > CONTENT_BYTES_MAX {
        return Err(SealError::TooLarge(content.len()));
    }
    let padded = padded_bytes(content.len(), room);
    let nonce = entropy::bytes::<NONCE_LEN>(entropy)?;
    // One buffer, sealed where it lies; it is wiped where that fails.
    let mut out = Zeroizing::new(Vec::with_capacity(sealed_bytes(padded)));
    out.push(FORM);
    out.extend(key_version.to_be_bytes());
    out.extend(nonce);
    out.extend(u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(content);
    out.resize(HEADER_BYTES + padded, 0);
    let aad = Aad::from(bound(at, part, key_version));
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = cipher(key)
        .zip(out.get_mut(HEADER_BYTES..))
        .and_then(|(cipher, plain)| cipher.seal_in_place_separate_tag(nonce, aad, plain).ok())
        .ok_or(SealError::Cipher)?;
    out.extend(tag.as_ref());
    Ok(std::mem::take(&mut *out))
}

/// The version of the key that sealed these bytes, as they claim.
pub(super) fn key_version(sealed: &[u8]) -> Option<u32> {
    let (form, rest) = sealed.split_first()?;
    let (version, _) = rest.split_first_chunk::<4>()?;
    (*form == FORM).then(|| u32::from_be_bytes(*version))
}

/// Opens sealed bytes in this place; `None` for anything that was not sealed for it.
pub(super) fn open(key: &SecretKey, at: At<'_>, part: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let version = key_version(sealed)?;
    let (nonce, ciphertext) = sealed.get(5..)?.split_first_chunk::<NONCE_LEN>()?;
    let mut bytes = Zeroizing::new(ciphertext.to_vec());
    let aad = Aad::from(bound(at, part, version));
    let opened = cipher(key)?.open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut bytes).ok()?;
    let (length, content) = opened.split_first_chunk::<LENGTH_BYTES>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok().filter(|length| *length <= content.len())?;
    bytes.copy_within(LENGTH_BYTES..LENGTH_BYTES + length, 0);
    bytes.truncate(length);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;

    fn at<'a>(table: &'a str, key: &'a [u8], version: u64) -> At<'a> {
        At { table, key, version }
    }

    // INVARIANT (the store is distrusted)
    #[test]
    fn sealed_bytes_open_in_their_own_place_only() {
        let (key, entropy) = (SecretKey::new([1; 32]), SystemEntropy::new());
        let sealed = seal(&key, 3, at("t", b"k", 1), "cell", b"content", 64, &entropy).unwrap();
        assert_eq!(&**open(&key, at("t", b"k", 1), "cell", &sealed).unwrap(), b"content");
        assert_eq!(key_version(&sealed), Some(3));
        for elsewhere in [at("u", b"k", 1), at("t", b"l", 1), at("t", b"k", 2), at("tk", b"", 1)] {
            assert!(open(&key, elsewhere, "cell", &sealed).is_none());
        }
        assert!(open(&key, at("t", b"k", 1), "entry", &sealed).is_none());
        assert!(open(&SecretKey::new([2; 32]), at("t", b"k", 1), "cell", &sealed).is_none());
        for i in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[i] ^= 1;
            assert!(open(&key, at("t", b"k", 1), "cell", &bent).is_none(), "byte {i}");
        }
    }

    #[test]
    fn lengths_are_few() {
        let (key, entropy) = (SecretKey::new([1; 32]), SystemEntropy::new());
        let lengths: std::collections::BTreeSet<usize> = (0..=CONTENT_BYTES_MAX)
            .step_by(97)
            .chain([CONTENT_BYTES_MAX])
            .map(|n| seal(&key, 0, at("t", b"k", 1), "cell", &vec![0; n], 64, &entropy).unwrap().len())
            .collect();
        assert!(lengths.len() <= 11, "{lengths:?}");
        assert!(lengths.iter().all(|n| *n < 64 * 1024));
        let sealed = seal(&key, 0, at("t", b"k", 1), "cell", b"x", 64, &entropy).unwrap();
        assert!(looks_sealed(&sealed) && !looks_sealed(&sealed[1..]) && !looks_sealed(b""));
        let too_large = seal(&key, 0, at("t", b"k", 1), "cell", &vec![0; CONTENT_BYTES_MAX + 1], 64, &entropy);
        assert_eq!(too_large, Err(SealError::TooLarge(CONTENT_BYTES_MAX + 1)));
    }
}
