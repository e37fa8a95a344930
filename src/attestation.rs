//! The signed "met": a compact JWS (RFC 7515, ES256) that says what was asked and that it holds.
//!
//! Apart from keys and gateway, so that whoever verifies offline uses the same rules as whoever
//! signs. Signing is cut in two: [`signing_input`] makes the bytes, [`compact`] joins them with a
//! signature that somebody else makes. [`verify`] takes exactly one form of token: three parts of
//! canonical base64url, ES256 alone, no key said twice. Nothing personal is in the claims but the
//! pseudonym; what the claims mean for a benefit is not known here.

pub mod batch;
pub mod jwks;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{Timestamp, civil::Date};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

use crate::code::{PartyId, ScenarioId};
use jwks::{Jwk, Jwks};

/// The `alg` of every attestation.
pub const ALGORITHM: &str = "ES256";
/// The `typ` of every attestation.
pub const TYPE: &str = "jadegate-answer+jwt";
/// How far the clocks of issuer and verifier may differ.
pub const LEEWAY_S: i64 = 60;
/// The longest token that is read.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// The longest text in a header or claim.
pub const TEXT_BYTES_MAX: usize = 512;

/// What an attestation says.
#[derive(Clone, PartialEq)]
pub struct Claims {
    /// Who says it: the gateway's base address.
    pub iss: String,
    /// For whom: the party that asked.
    pub aud: PartyId,
    /// When it was signed, in seconds since 1970.
    pub iat: i64,
    /// When it ends, in seconds since 1970.
    pub exp: i64,
    /// Its own id, random.
    pub jti: String,
    /// The nonce of the call that it answers.
    pub nonce: String,
    /// What the party may ask for.
    pub scenario: ScenarioId,
    /// The civil day of which the answer holds.
    pub as_of: Date,
    /// The person's pseudonym with this party in this scenario, where the benefit is one a person.
    pub sub: Option<String>,
    /// The question as asked, or the grade that was to be named.
    pub met: Value,
    /// The model that gave the score: `id#sha256-<hex>`.
    pub model: String,
}

/// Says neither the answer nor the pseudonym: neither may reach a log.
impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claims(for {}, {}, ..)", self.aud, self.scenario)
    }
}

/// The bytes that are signed: header and payload, each in base64url, with a dot between.
///
/// The same claims give the same bytes: members stand in alphabetical order.
pub fn signing_input(kid: &str, claims: &Claims) -> String {
    let header = json!({ "alg": ALGORITHM, "kid": kid, "typ": TYPE });
    let mut payload = Map::new();
    let mut member = |name: &str, value: Value| payload.insert(name.to_owned(), value);
    member("as_of", claims.as_of.to_string().into());
    member("aud", claims.aud.as_str().into());
    member("exp", claims.exp.into());
    member("iat", claims.iat.into());
    member("iss", claims.iss.as_str().into());
    member("jti", claims.jti.as_str().into());
    member("met", claims.met.clone());
    member("model", claims.model.as_str().into());
    member("nonce", claims.nonce.as_str().into());
    member("scenario", claims.scenario.as_str().into());
    if let Some(sub) = &claims.sub {
        member("sub", sub.as_str().into());
    }
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(Value::Object(payload)))
}

/// The whole token: what was signed, and the signature as r and s, 32 bytes each.
pub fn compact(signing_input: &str, signature: &[u8; 64]) -> String {
    format!("{signing_input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// What the verifier knows beforehand.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The verifier's own id; without it an attestation for another party passes too.
    pub aud: Option<&'a str>,
    /// The nonce that the verifier sent; without it a copy passes too.
    pub nonce: Option<&'a str>,
    /// The time.
    pub now: Timestamp,
    /// How many seconds the two clocks may differ, [`LEEWAY_S`] unless there is a reason.
    pub leeway_s: i64,
}

/// An attestation that holds.
#[derive(Clone, PartialEq, Debug)]
pub struct Verified {
    /// What it says.
    pub claims: Claims,
    /// The key that signed it.
    pub kid: String,
    /// Whether it holds only because clocks may differ.
    pub by_leeway: bool,
}

/// Why an attestation does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttestationError {
    /// The token is longer than any honest one.
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes; an attestation is not")]
    Length,
    /// The token has not three parts.
    #[error("an attestation has three parts with dots between; give the whole value of \"attestation\", unchanged")]
    Parts,
    /// A part is not canonical base64url.
    #[error("the {0} is not base64url in its one right spelling; the token was changed or cut")]
    Base64(Part),
    /// A part is not a JSON object, or says a key twice.
    #[error("the {part} cannot be read: {why}")]
    Json {
        /// Which part.
        part: Part,
        /// What is wrong with it.
        why: String,
    },
    /// Another algorithm, type or extension than an attestation has.
    #[error("the header's {member:?} is not what an attestation has: expected {expected}")]
    Header {
        /// The member of the header.
        member: &'static str,
        /// What should stand there.
        expected: &'static str,
    },
    /// The key set has no such key.
    #[error(
        "no key {kid:?} in the key set: fetch /.well-known/jwks.json again, keys change; if it is still not there, do not trust the token"
    )]
    UnknownKey {
        /// The key that the token names.
        kid: String,
    },
    /// The signature is not the key's.
    #[error("the signature is wrong: the token was changed, or another gateway signed it; do not trust it")]
    Signature,
    /// A claim is missing or has the wrong form.
    #[error("the claim {claim:?} is missing or wrong: expected {expected}")]
    Claim {
        /// The claim.
        claim: &'static str,
        /// What should stand there.
        expected: &'static str,
    },
    /// It was made for another party.
    #[error("the attestation is for {said:?}, not for {expected:?}: somebody passed on another party's answer")]
    Audience {
        /// Whom the token names.
        said: String,
        /// Who verifies.
        expected: String,
    },
    /// It answers another call.
    #[error("the attestation answers another call: its nonce is not the one that was sent, so it may be a copy")]
    Nonce,
    /// It is of a time to come.
    #[error("the attestation begins at {begins}, more than {leeway_s} s from now: check this machine's clock")]
    NotYet {
        /// When it begins.
        begins: Timestamp,
        /// The leeway that was given.
        leeway_s: i64,
    },
    /// It has ended.
    #[error("the attestation ended at {ended}, more than {leeway_s} s ago: ask again for a new one")]
    Ended {
        /// When it ended.
        ended: Timestamp,
        /// The leeway that was given.
        leeway_s: i64,
    },
}

/// A part of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The first part.
    Header,
    /// The second part.
    Payload,
    /// The third part.
    Signature,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Payload => "payload",
            Self::Signature => "signature",
        })
    }
}

/// A token taken apart: one form, one header, and nothing checked by a key yet.
struct Signed<'a> {
    kid: String,
    input: &'a str,
    payload: Map<String, Value>,
    signature: Vec<u8>,
}

impl<'a> Signed<'a> {
    /// Reads a token whose header has this `typ`.
    fn read(token: &'a str, typ: &'static str) -> Result<Self, AttestationError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AttestationError::Length);
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(AttestationError::Parts);
        };
        let kid = key_id(&object(header, Part::Header)?, typ)?;
        let payload = object(payload, Part::Payload)?;
        let input = token.rsplit_once('.').map_or("", |(input, _)| input);
        Ok(Self { kid, input, payload, signature: decode(signature, Part::Signature)? })
    }

    /// Whether the key that it names signed it.
    fn check(&self, jwks: &Jwks) -> Result<(), AttestationError> {
        let unknown = || AttestationError::UnknownKey { kid: self.kid.clone() };
        verify_signature(jwks.get(&self.kid).ok_or_else(unknown)?, self.input.as_bytes(), &self.signature)
    }
}

/// Checks form, signature, audience, nonce and time of a token, in this order.
pub fn verify(token: &str, jwks: &Jwks, expected: &Expected<'_>) -> Result<Verified, AttestationError> {
    let token = Signed::read(token, TYPE)?;
    token.check(jwks)?;
    let claims = claims(&token.payload)?;
    if let Some(aud) = expected.aud.filter(|aud| *aud != claims.aud.as_str()) {
        return Err(AttestationError::Audience { said: claims.aud.to_string(), expected: aud.to_owned() });
    }
    if expected.nonce.is_some_and(|nonce| nonce != claims.nonce) {
        return Err(AttestationError::Nonce);
    }
    let by_leeway = time(&claims, expected)?;
    Ok(Verified { claims, kid: token.kid, by_leeway })
}

fn verify_signature(key: &Jwk, message: &[u8], signature: &[u8]) -> Result<(), AttestationError> {
    let point = [&[4], &key.x[..], &key.y[..]].concat();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(message, signature)
        .map_err(|_| AttestationError::Signature)
}

/// Whether the claims hold by the leeway only.
fn time(claims: &Claims, expected: &Expected<'_>) -> Result<bool, AttestationError> {
    let instant = |seconds, claim| {
        let wrong = AttestationError::Claim { claim, expected: "seconds since 1970" };
        Timestamp::from_second(seconds).map_err(|_| wrong)
    };
    let (begins, ended) = (instant(claims.iat, "iat")?, instant(claims.exp, "exp")?);
    let (now, leeway_s) = (expected.now.as_second(), expected.leeway_s);
    if now < claims.iat.saturating_sub(leeway_s) {
        return Err(AttestationError::NotYet { begins, leeway_s });
    }
    if now >= claims.exp.saturating_add(leeway_s) {
        return Err(AttestationError::Ended { ended, leeway_s });
    }
    Ok(now < claims.iat || now >= claims.exp)
}

/// The key that a header names, if it is the header of a token of this type.
fn key_id(header: &Map<String, Value>, typ: &'static str) -> Result<String, AttestationError> {
    let wrong = |member, expected| Err(AttestationError::Header { member, expected });
    if header.get("alg").and_then(Value::as_str) != Some(ALGORITHM) {
        return wrong("alg", ALGORITHM);
    }
    if header.get("typ").and_then(Value::as_str) != Some(typ) {
        return wrong("typ", typ);
    }
    if header.contains_key("crit") {
        return wrong("crit", "nothing");
    }
    match header.get("kid").and_then(Value::as_str).filter(|kid| printable(kid)) {
        Some(kid) => Ok(kid.to_owned()),
        None => wrong("kid", "the id of a key"),
    }
}

fn claims(payload: &Map<String, Value>) -> Result<Claims, AttestationError> {
    let wrong = |claim, expected| AttestationError::Claim { claim, expected };
    let text = |claim| {
        let text = payload.get(claim).and_then(Value::as_str).filter(|text| printable(text));
        text.ok_or(wrong(claim, "a short text"))
    };
    let seconds = |claim| payload.get(claim).and_then(Value::as_i64).ok_or(wrong(claim, "whole seconds since 1970"));
    let (iat, exp) = (seconds("iat")?, seconds("exp")?);
    if exp <= iat {
        return Err(wrong("exp", "a time after iat"));
    }
    let met = payload.get("met").filter(|met| met.as_object().is_some_and(|met| !met.is_empty()));
    // One spelling for a day; jiff reads others too.
    let day = text("as_of")?.parse().ok().filter(|day: &Date| text("as_of") == Ok(&day.to_string()));
    Ok(Claims {
        iss: text("iss")?.to_owned(),
        aud: PartyId::parse(text("aud")?).map_err(|_| wrong("aud", "the id of a party"))?,
        iat,
        exp,
        jti: text("jti")?.to_owned(),
        nonce: text("nonce")?.to_owned(),
        scenario: ScenarioId::parse(text("scenario")?).map_err(|_| wrong("scenario", "the id of a scenario"))?,
        as_of: day.ok_or(wrong("as_of", "a day as YYYY-MM-DD"))?,
        sub: if payload.contains_key("sub") { Some(text("sub")?.to_owned()) } else { None },
        met: met.ok_or(wrong("met", "the question that is met"))?.clone(),
        model: text("model")?.to_owned(),
    })
}

/// Short, and safe to show on a terminal.
fn printable(text: &str) -> bool {
    (1..=TEXT_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

fn decode(part: &str, which: Part) -> Result<Vec<u8>, AttestationError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| AttestationError::Base64(which))
}

fn object(part: &str, which: Part) -> Result<Map<String, Value>, AttestationError> {
    let wrong = |why| AttestationError::Json { part: which, why };
    let bytes = decode(part, which)?;
    match unique_keys(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(wrong("it is no JSON object".to_owned())),
        Err(why) => Err(wrong(why)),
    }
}

/// JSON in which no object says a key twice; the message of a failure repeats nothing of what was read.
fn unique_keys(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    serde_json::from_str::<Unique>(text).map(|unique| unique.0).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => "it says a key twice".to_owned(),
        _ => format!("it is no JSON at line {}, column {}", error.line(), error.column()),
    })
}

/// A JSON value; serde_json's own lets the last of equal keys win.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Unique;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E: de::Error>(self) -> Result<Unique, E> {
                Ok(Unique(Value::Null))
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Unique, A::Error> {
                let mut values = Vec::new();
                while let Some(Unique(value)) = seq.next_element()? {
                    values.push(value);
                }
                Ok(Unique(values.into()))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
                let mut members = Map::new();
                while let Some((key, Unique(value))) = map.next_entry::<String, Unique>()? {
                    if members.insert(key, value).is_some() {
                        return Err(de::Error::custom("a key is said twice"));
                    }
                }
                Ok(Unique(members.into()))
            }
        }
        deserializer.deserialize_any(Visit)
    }
}

#[cfg(test)]
pub(crate) mod tests;
