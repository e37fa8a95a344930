//! Content-Digest (RFC 9530): every algorithm that is known here must fit; one is needed.

use http::HeaderMap;
use ring::digest::{SHA256, SHA512, digest};
use sfv::{BareItem, Item, ListEntry};

use super::{SignatureError, base::combined, input::dictionary};

/// The digests a call gives of its body, by the algorithms known here.
#[derive(Debug, Clone)]
pub(super) struct Digests {
    sha256: Option<Vec<u8>>,
    sha512: Option<Vec<u8>>,
}

impl Digests {
    /// Reads Content-Digest (RFC 9530).
    pub fn parse(headers: &HeaderMap) -> Result<Self, SignatureError> {
        let field = combined(headers, "content-digest").ok_or(SignatureError::DigestMissing)?;
        let mut said = dictionary(field).ok_or(SignatureError::DigestMalformed)?;
        let mut take = |name: &str| match said.swap_remove(name) {
            None => Ok(None),
            Some(ListEntry::Item(Item { bare_item: BareItem::ByteSequence(bytes), .. })) => Ok(Some(bytes)),
            Some(_) => Err(SignatureError::DigestMalformed),
        };
        let digests = Self { sha256: take("sha-256")?, sha512: take("sha-512")? };
        if digests.sha256.is_none() && digests.sha512.is_none() {
            return Err(SignatureError::DigestMissing);
        }
        Ok(digests)
    }

    /// Compares every digest that is known here with the body.
    pub fn check(&self, body: &[u8]) -> Result<(), SignatureError> {
        for (said, algorithm, name) in [(&self.sha256, &SHA256, "sha-256"), (&self.sha512, &SHA512, "sha-512")] {
            if said.as_ref().is_some_and(|said| digest(algorithm, body).as_ref() != said) {
                return Err(SignatureError::DigestMismatch(name));
            }
        }
        Ok(())
    }
}
