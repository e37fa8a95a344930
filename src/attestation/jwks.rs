//! The public keys that attestations are verified with: a JWK set (RFC 7517) of P-256 keys.
//!
//! Members and keys of kinds that are not known here are passed over, as the RFC asks. A private
//! key in the set is not: whoever published it has a leak, and a verifier should hear of it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

use super::{ALGORITHM, printable, unique_keys};

/// The longest key set that is read.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;

/// The public half of a P-256 signing key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Jwk {
    /// The key's id, as attestations name it.
    pub kid: String,
    /// The point's x coordinate, big-endian.
    pub x: [u8; 32],
    /// The point's y coordinate, big-endian.
    pub y: [u8; 32],
}

impl Jwk {
    /// The key with its thumbprint (RFC 7638) as its id.
    pub fn new(x: [u8; 32], y: [u8; 32]) -> Self {
        Self { kid: thumbprint(&x, &y), x, y }
    }

    /// The key as a member of a set.
    pub fn to_json(&self) -> Value {
        let (x, y) = (URL_SAFE_NO_PAD.encode(self.x), URL_SAFE_NO_PAD.encode(self.y));
        json!({ "alg": ALGORITHM, "crv": "P-256", "kid": self.kid, "kty": "EC", "use": "sig", "x": x, "y": y })
    }

    /// `None` for a key that has another use or kind.
    fn parse(key: &Map<String, Value>) -> Result<Option<Self>, JwksError> {
        let text = |name| key.get(name).and_then(Value::as_str);
        if key.contains_key("d") || key.contains_key("k") {
            return Err(JwksError::Private);
        }
        let other = |name, ours| key.contains_key(name) && text(name) != Some(ours);
        if text("kty") != Some("EC") || text("crv") != Some("P-256") || other("alg", ALGORITHM) || other("use", "sig") {
            return Ok(None);
        }
        let coordinate = |name| -> Option<[u8; 32]> { URL_SAFE_NO_PAD.decode(text(name)?).ok()?.try_into().ok() };
        match (text("kid").filter(|kid| printable(kid)), coordinate("x"), coordinate("y")) {
            (Some(kid), Some(x), Some(y)) => Ok(Some(Self { kid: kid.to_owned(), x, y })),
            _ => Err(JwksError::Key),
        }
    }
}

/// The thumbprint of a P-256 key (RFC 7638), in base64url: an id that follows from the key.
pub fn thumbprint(x: &[u8; 32], y: &[u8; 32]) -> String {
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()))
}

/// Why a text is no key set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// It is longer than any honest one.
    #[error("the key set is longer than {JWKS_BYTES_MAX} bytes")]
    Length,
    /// It is not a JSON object with an array of keys.
    #[error("the key set is no JSON object with an array \"keys\" ({0}); fetch /.well-known/jwks.json again")]
    Form(String),
    /// It holds a private key.
    #[error("the key set holds a private key: do not use it, and tell whoever published it that the key has leaked")]
    Private,
    /// A P-256 key in it lacks its id or has a wrong point.
    #[error("a P-256 key in the key set has no \"kid\", or its x or y is not the base64url of 32 bytes")]
    Key,
    /// Two keys have the same id.
    #[error("two keys in the key set have the id {0:?}; which one is meant cannot be told")]
    Twice(String),
}

/// A set of public keys.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Jwks(pub Vec<Jwk>);

impl Jwks {
    /// Reads a set; keys that are not for ES256 signatures are passed over.
    pub fn parse(text: &str) -> Result<Self, JwksError> {
        if text.len() > JWKS_BYTES_MAX {
            return Err(JwksError::Length);
        }
        let set = unique_keys(text.as_bytes()).map_err(JwksError::Form)?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or(JwksError::Form("it has none".to_owned()))?;
        let mut found = Self::default();
        for key in keys {
            let key = key.as_object().ok_or(JwksError::Form("a key is no object".to_owned()))?;
            if let Some(key) = Jwk::parse(key)? {
                if found.get(&key.kid).is_some() {
                    return Err(JwksError::Twice(key.kid));
                }
                found.0.push(key);
            }
        }
        Ok(found)
    }

    /// The set as it is served at `/.well-known/jwks.json`.
    pub fn to_json(&self) -> Value {
        json!({ "keys": self.0.iter().map(Jwk::to_json).collect::<Vec<_>>() })
    }

    /// The key of that id.
    pub fn get(&self, kid: &str) -> Option<&Jwk> {
        self.0.iter().find(|key| key.kid == kid)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rfc_key() -> Value {
        json!({ "kty": "EC", "crv": "P-256", "kid": "rfc", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" })
    }

    fn with(name: &str, value: Value) -> Value {
        let mut key = rfc_key();
        key[name] = value;
        key
    }

    fn parse(keys: &[Value]) -> Result<Jwks, JwksError> {
        Jwks::parse(&json!({ "keys": keys }).to_string())
    }

    #[test]
    fn a_set_reads_back() {
        let set = Jwks(vec![Jwk::new([1; 32], [2; 32]), Jwk::new([3; 32], [4; 32])]);
        assert_eq!(Jwks::parse(&set.to_json().to_string()), Ok(set));
    }

    #[test]
    fn unknown_members_and_kinds_are_passed_over() {
        let rsa = json!({ "kty": "RSA", "kid": "r", "n": "AQAB", "e": "AQAB" });
        let set =
            parse(&[rsa, with("x5t", json!("?")), with("use", json!("enc")), with("alg", json!("ES384"))]).unwrap();
        assert_eq!(set.0.len(), 1);
        assert_eq!(set.get("rfc").unwrap().x[..3], [0x7f, 0xcd, 0xce]);
    }

    #[test]
    fn what_no_set_may_hold() {
        assert_eq!(parse(&[with("d", json!("AA"))]), Err(JwksError::Private));
        assert_eq!(parse(&[json!({ "kty": "RSA", "kid": "r", "d": "AA" })]), Err(JwksError::Private));
        assert_eq!(parse(&[rfc_key(), rfc_key()]), Err(JwksError::Twice("rfc".into())));
        for (name, value) in [
            ("kid", Value::Null),
            ("kid", json!("")),
            ("kid", json!("a\u{1b}[31m")),
            ("x", json!("AA")),
            ("x", json!("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEV")),
            ("y", json!("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0=")),
        ] {
            assert_eq!(parse(&[with(name, value.clone())]), Err(JwksError::Key), "{name} {value}");
        }
        for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[1]}"#, r#"{"keys":[],"keys":[]}"#] {
            assert!(matches!(Jwks::parse(text), Err(JwksError::Form(_))), "{text}");
        }
        assert_eq!(Jwks::parse(&" ".repeat(JWKS_BYTES_MAX + 1)), Err(JwksError::Length));
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in r#"(\{|\}|\[|\]|"keys"|:|,|"kty"|"EC"|"d"|1|null){0,16}"#) {
            let _ = Jwks::parse(&text);
        }
    }
}
