//! The caller's half, for the tests of this module: headers for a call, by either algorithm.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use ring::{digest, hmac, signature::Ed25519KeyPair};

/// What a call is signed with.
#[derive(Clone, Copy)]
pub enum SigningKey<'a> {
    /// `hmac-sha256`, by the shared secret.
    HmacSha256(&'a [u8]),
    /// `ed25519`, by the private key.
    Ed25519(&'a Ed25519KeyPair),
}

impl std::fmt::Debug for SigningKey<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::HmacSha256(_) => "SigningKey(hmac-sha256)",
            Self::Ed25519(_) => "SigningKey(ed25519)",
        })
    }
}

/// A call about to be signed.
#[derive(Debug, Clone, Copy)]
pub struct ToSign<'a> {
    /// The method, `POST`.
    pub method: &'a str,
    /// The whole address with path and query.
    pub target_uri: &'a str,
    /// The value of Content-Type that will be sent.
    pub content_type: &'a str,
    /// The key's id.
    pub key_id: &'a str,
    /// The key.
    pub key: SigningKey<'a>,
    /// Now, in seconds since 1970.
    pub created: i64,
    /// 16 to 128 characters that were never used before.
    pub nonce: &'a str,
}

/// The three fields to add to the call.
#[derive(Debug, Clone)]
pub struct SignedHeaders {
    /// `Content-Digest`
    pub content_digest: HeaderValue,
    /// `Signature-Input`
    pub signature_input: HeaderValue,
    /// `Signature`
    pub signature: HeaderValue,
}

/// A value cannot stand in a header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "key id and nonce must be printable ASCII without quotes and backslashes; target and content type must be ASCII"
)]
pub struct SignError;

/// Signs a call with its body over the four components that every signature covers.
pub fn sign(call: &ToSign<'_>, body: &[u8]) -> Result<SignedHeaders, SignError> {
    let quotable = |s: &str| s.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\');
    if ![call.key_id, call.nonce, call.target_uri, call.content_type].into_iter().all(quotable) {
        return Err(SignError);
    }
    let content_digest = format!("sha-256=:{}:", STANDARD.encode(digest::digest(&digest::SHA256, body)));
    let params = format!(
        "(\"@method\" \"@target-uri\" \"content-digest\" \"content-type\");created={};nonce=\"{}\";keyid=\"{}\"",
        call.created, call.nonce, call.key_id
    );
    let base = format!(
        "\"@method\": {}\n\"@target-uri\": {}\n\"content-digest\": {content_digest}\n\"content-type\": {}\n\"@signature-params\": {params}",
        call.method, call.target_uri, call.content_type
    );
    let signature = match call.key {
        SigningKey::HmacSha256(secret) => {
            STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), base.as_bytes()))
        }
        SigningKey::Ed25519(pair) => STANDARD.encode(pair.sign(base.as_bytes())),
    };
    let value = |text: String| HeaderValue::try_from(text).map_err(|_| SignError);
    Ok(SignedHeaders {
        content_digest: value(content_digest)?,
        signature_input: value(format!("sig1={params}"))?,
        signature: value(format!("sig1=:{signature}:"))?,
    })
}
