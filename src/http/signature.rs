//! HTTP Message Signatures (RFC 9421) with Content-Digest (RFC 9530): does this call come from who
//! holds the key, as it was sent, to this address, now?
//!
//! Apart from the rest of the edge because it is pure: method, target, header fields, body and the
//! time are arguments. The target is what the configured base address says and what the request
//! line asks for; no other header has a say in it.
//!
//! The algorithm belongs to the key: a caller's `alg` is compared, never obeyed, so a public key
//! cannot serve as an HMAC secret. A key that is not known is checked against a dummy.
//!
//! It does not know parties, nor which nonces were seen: the ledger holds those.

mod base;
mod digest;
mod input;
#[cfg(test)]
mod sign;

use http::{HeaderMap, Uri};
use jiff::Timestamp;
use ring::{hmac, signature::UnparsedPublicKey};

pub use base::{BaseAddress, BaseAddressError};

use crate::http::problem::code;
use input::Input;

/// How far `created` may lie from now, either way.
pub const CREATED_WINDOW_SECONDS: i64 = 300;
/// The fewest characters of a signature's nonce.
pub const NONCE_CHARS_MIN: usize = 16;
/// The most characters of a signature's nonce.
pub const NONCE_CHARS_MAX: usize = 128;
/// What a signature covers at least.
pub const COVERED_AT_LEAST: [&str; 4] = ["@method", "@target-uri", "content-digest", "content-type"];

/// A call without its body, as far as a signature speaks of it.
#[derive(Clone, Copy)]
pub struct SignedHead<'a> {
    /// The method as received.
    pub method: &'a str,
    /// What the gateway is configured to be called.
    pub base: &'a BaseAddress,
    /// The request target as received, before any router cut it.
    pub target: &'a Uri,
    /// The header fields as received.
    pub headers: &'a HeaderMap,
}

/// The keys that callers may sign with.
pub trait KeyDirectory {
    /// The key of this id, if there is one.
    fn key(&self, key_id: &str) -> Option<VerifyingKey<'_>>;
}

/// What a signature is checked with; the algorithm comes with it.
#[derive(Clone, Copy)]
pub enum VerifyingKey<'a> {
    /// `hmac-sha256`, by the shared secret.
    HmacSha256(&'a [u8]),
    /// `ed25519`, by the public key.
    Ed25519([u8; 32]),
}

impl std::fmt::Debug for VerifyingKey<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VerifyingKey({})", self.algorithm())
    }
}

impl VerifyingKey<'_> {
    /// The algorithm by its registered name.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::HmacSha256(_) => "hmac-sha256",
            Self::Ed25519(_) => "ed25519",
        }
    }

    fn fits(&self, base: &str, signature: &[u8]) -> bool {
        match self {
            Self::HmacSha256(secret) => {
                hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), base.as_bytes(), signature).is_ok()
            }
            Self::Ed25519(public) => {
                UnparsedPublicKey::new(&ring::signature::ED25519, public).verify(base.as_bytes(), signature).is_ok()
            }
        }
    }
}

/// A signature that fits its head; the body is still to be compared with the digest it covers.
#[derive(Debug, Clone)]
#[must_use = "the body is not checked yet"]
pub struct VerifiedHead {
    verified: Verified,
    digests: digest::Digests,
}

impl VerifiedHead {
    /// Who signed, to know whose limits apply before the body is read.
    pub fn key_id(&self) -> &str {
        &self.verified.key_id
    }

    /// The whole call is as it was signed, or the body is another.
    pub fn with_body(self, body: &[u8]) -> Result<Verified, SignatureError> {
        self.digests.check(body)?;
        Ok(self.verified)
    }
}

/// A call that was signed by the holder of a key; only [`verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The key's id.
    pub key_id: String,
    /// The signature's nonce, to be refused when it comes again.
    pub nonce: String,
    /// When it was signed, in seconds since 1970.
    pub created: i64,
}

/// Why a signature does not stand. Says what to do, and repeats no secret, no address as called and no body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Neither field, or only one of them.
    #[error("the call carries no whole signature: send both Signature-Input and Signature (RFC 9421)")]
    Missing,
    /// Not exactly one signature.
    #[error("send exactly one signature, under one label that stands once in Signature-Input and once in Signature")]
    NotOne,
    /// A field or parameter breaks its form.
    #[error("{0}")]
    Malformed(&'static str),
    /// Something that must be covered is not.
    #[error("the signature does not cover {0:?}: cover at least @method, @target-uri, content-digest and content-type")]
    Coverage(&'static str),
    /// A covered component cannot be had from this request.
    #[error("covered component {0}: {1}")]
    Component(String, &'static str),
    /// Too old, too new, or past its own `expires`.
    #[error("{what}; the time here is {now}: set the clock by a time server and sign each call anew")]
    Stale {
        /// Which bound was passed.
        what: &'static str,
        /// The time here, in seconds since 1970.
        now: i64,
    },
    /// No such key, another algorithm than the key's, or a signature that does not fit.
    #[error(
        "keyid, alg and signature do not fit together: check the key id, leave alg out or give the key's own, and compare the signature base \
         (the target begins with {base})"
    )]
    Wrong {
        /// What `@target-uri` begins with here; the rest of it is the caller's and is not repeated.
        base: String,
    },
    /// The Host field or the request line names another server.
    #[error("the call is addressed to another host: this is {0}")]
    WrongHost(String),
    /// No digest that is known here.
    #[error("send Content-Digest with sha-256 or sha-512 (RFC 9530)")]
    DigestMissing,
    /// The digest field breaks its form.
    #[error("Content-Digest is not a dictionary of byte sequences such as sha-256=:…: (RFC 9530)")]
    DigestMalformed,
    /// The body has another digest.
    #[error("the body does not have the digest that Content-Digest gives for {0}: sign the bytes that are sent")]
    DigestMismatch(&'static str),
}

impl SignatureError {
    /// The stable code, documented in `docs/errors.md`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => code::SIGNATURE_MISSING,
            Self::NotOne => code::SIGNATURE_NOT_ONE,
            Self::Malformed(_) => code::SIGNATURE_MALFORMED,
            Self::Coverage(_) | Self::Component(..) => code::SIGNATURE_COVERAGE,
            Self::Stale { .. } => code::SIGNATURE_STALE,
            Self::Wrong { .. } => code::SIGNATURE_WRONG,
            Self::WrongHost(_) => code::BAD_HOST,
            Self::DigestMissing => code::CONTENT_DIGEST_MISSING,
            Self::DigestMalformed => code::CONTENT_DIGEST_MALFORMED,
            Self::DigestMismatch(_) => code::CONTENT_DIGEST_MISMATCH,
        }
    }
}

/// Whether the call says that it is signed, rightly or not.
pub fn is_signed(headers: &HeaderMap) -> bool {
    headers.contains_key("signature") || headers.contains_key("signature-input")
}

/// Checks all of a signature that does not need the body, so that nobody unknown makes us read one.
pub fn verify_head(
    head: &SignedHead<'_>,
    keys: &dyn KeyDirectory,
    now: Timestamp,
) -> Result<VerifiedHead, SignatureError> {
    base::same_host(head)?;
    let input = Input::parse(head.headers)?;
    for wanted in COVERED_AT_LEAST {
        if !input.components.iter().any(|c| c == wanted) {
            return Err(SignatureError::Coverage(wanted));
        }
    }
    let params = input.params()?;
    params.check_time(now.as_second())?;
    let digests = digest::Digests::parse(head.headers)?;
    let text = base::text(head, &input)?;

    // A caller without a key does the same work and is told the same.
    let known = keys.key(&params.key_id);
    let key = known.unwrap_or(VerifyingKey::HmacSha256(b"no key of this id: this one fits nothing"));
    let alg_fits = params.alg.as_deref().is_none_or(|alg| alg == key.algorithm());
    let fits = key.fits(&text, &input.signature);
    if known.is_none() || !alg_fits || !fits {
        return Err(SignatureError::Wrong { base: head.base.to_string() });
    }
    let verified = Verified { key_id: params.key_id, nonce: params.nonce, created: params.created };
    Ok(VerifiedHead { verified, digests })
}

/// Checks the whole call: signature, time, coverage, target, digest and body.
pub fn verify(
    head: &SignedHead<'_>,
    body: &[u8],
    keys: &dyn KeyDirectory,
    now: Timestamp,
) -> Result<Verified, SignatureError> {
    verify_head(head, keys, now)?.with_body(body)
}

/// The text that the call's one signature should have been made over, for somebody who compares.
pub fn signature_base(head: &SignedHead<'_>) -> Result<String, SignatureError> {
    base::text(head, &Input::parse(head.headers)?)
}

#[cfg(test)]
mod tests;
