//! An RFC 9421 signature by a shared key, as a relying party makes it.
//!
//! It signs what the contract asks for and nothing else: `@method`, `@target-uri`,
//! `content-digest` and `content-type`, with `created`, `nonce`, `keyid` and `alg`. Written from the RFC
//! apart from the gateway's reader, so that each is a test of the other.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

/// A call that cannot be signed: its parts do not fit into headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key id, the nonce or the address holds characters that a signature's header cannot carry")]
pub struct Unsignable;

/// A party's shared key and the name that the gateway knows it by.
pub struct Signer {
    key_id: String,
    key: Vec<u8>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.key_id)
    }
}

impl Signer {
    /// Signs as `key_id` with the shared `key`.
    pub fn new(key_id: impl Into<String>, key: impl Into<Vec<u8>>) -> Self {
        Self { key_id: key_id.into(), key: key.into() }
    }

    /// The headers that sign a JSON `POST` of `body` to `target_uri`, the whole address that the gateway is configured with.
    pub fn post_json(
        &self,
        target_uri: &str,
        body: &[u8],
        created: Timestamp,
        nonce: &str,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, Unsignable> {
        self.post(target_uri, "application/json", body, created, nonce)
    }

    /// The same of a body of any type.
    pub fn post(
        &self,
        target_uri: &str,
        content_type: &str,
        body: &[u8],
        created: Timestamp,
        nonce: &str,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, Unsignable> {
        let plain = |text: &str| text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\');
        if ![self.key_id.as_str(), nonce, target_uri, content_type].into_iter().all(plain) {
            return Err(Unsignable);
        }
        let digest = format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)));
        let params = format!(
            "(\"@method\" \"@target-uri\" \"content-digest\" \"content-type\");created={};nonce=\"{nonce}\";keyid=\"{}\";alg=\"hmac-sha256\"",
            created.as_second(),
            self.key_id,
        );
        let base = format!(
            "\"@method\": POST\n\"@target-uri\": {target_uri}\n\"content-digest\": {digest}\n\"content-type\": {content_type}\n\"@signature-params\": {params}",
        );
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).map_err(|_| Unsignable)?;
        mac.update(base.as_bytes());
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        let value = |text: String| HeaderValue::try_from(text).map_err(|_| Unsignable);
        Ok(vec![
            (HeaderName::from_static("content-digest"), value(digest)?),
            (HeaderName::from_static("signature-input"), value(format!("sig1={params}"))?),
            (HeaderName::from_static("signature"), value(format!("sig1=:{signature}:"))?),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_another_implementation_makes() {
        let signer = Signer::new("yx-library-1", [b'k'; 32]);
        let headers = signer
            .post_json(
                "https://127.0.0.1:8443/v1/answers",
                br#"{"scenario":"library-deposit"}"#,
                Timestamp::from_second(1_764_036_000).unwrap(),
                "0123456789abcdef",
            )
            .unwrap();
        let value = |name: &str| headers.iter().find(|(n, _)| n == name).unwrap().1.to_str().unwrap().to_owned();
        assert_eq!(value("content-digest"), "sha-256=:2xDK1/d1nQFXKw4YMWGOpVfMqdpms6S+yotwrhmBrH4=:");
        assert_eq!(value("signature"), "sig1=:t5jw4+RdpcKFDxNB3LqOd/3jGG1Y/r2JY+jeAA5GPI4=:");
        assert!(value("signature-input").starts_with("sig1=(\"@method\" \"@target-uri\""));
    }

    #[test]
    fn what_would_break_out_of_its_quotes_is_not_signed() {
        let signer = Signer::new("a", [0; 32]);
        let now = Timestamp::UNIX_EPOCH;
        for (uri, nonce) in [("https://a/\n", "n"), ("https://a/", "n\";keyid=\"b"), ("https://a/", "n\\")] {
            assert_eq!(signer.post_json(uri, b"", now, nonce), Err(Unsignable));
        }
        assert!(!format!("{:?}", Signer::new("a", "secret")).contains("secret"));
    }
}
