//! The receipt of a batch that a department sent: a compact JWS over what was sent and what became of it.
//!
//! It has a `typ` of its own, so that it is never taken for an attestation, nor one for it. It has no end: it is
//! evidence of what was sent on a day. It says how many lines there were and their digest, and nothing of what stands
//! in them. The log entry of the batch commits to these very bytes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::jwks::Jwks;
use super::{AttestationError, Expected, Signed, printable};
use crate::code::PartyId;

/// The `typ` of every receipt of a batch.
pub const TYPE: &str = "jadegate-batch+jwt";

/// A byte order mark, which is no part of a line.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// What kind of lines a batch has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// Records of a provider.
    Records,
    /// Lines of the register.
    Register,
}

impl Feed {
    /// The word in the receipt.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::Register => "register",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Records, Self::Register].into_iter().find(|feed| feed.as_str() == text)
    }
}

/// The lines of an upload with their numbers from 1, without their ends; blank ones are passed over, and a byte order
/// mark before the first.
pub fn lines(body: &[u8]) -> Vec<(u64, &[u8])> {
    let body = body.strip_prefix(BOM).unwrap_or(body);
    let lines = body.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    (1..).zip(lines).filter(|(_, line)| !line.iter().all(u8::is_ascii_whitespace)).collect()
}

/// The SHA-256 of lines as they were sent, each with one line feed behind it: that of the file itself, where it has no
/// blank lines and no carriage returns and is one batch.
pub fn digest(lines: &[(u64, &[u8])]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (_, line) in lines {
        hash.update(line);
        hash.update(b"\n");
    }
    hash.finalize().into()
}

/// The same digest over lines that come one by one, so that memory does not grow with them.
#[derive(Clone, Default)]
pub struct Digesting {
    hash: Sha256,
    begun: bool,
    lines: u64,
}

impl Digesting {
    /// The next line of the upload, without its line feed.
    pub fn add(&mut self, line: &[u8]) {
        let line = line.strip_prefix(if self.begun { b"".as_slice() } else { BOM }).unwrap_or(line);
        self.begun = true;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.iter().all(u8::is_ascii_whitespace) {
            self.hash.update(line);
            self.hash.update(b"\n");
            self.lines += 1;
        }
    }

    /// How many lines there were, blank ones aside, and their digest.
    pub fn finish(self) -> (u64, [u8; 32]) {
        (self.lines, self.hash.finalize().into())
    }
}

/// What a receipt says.
#[derive(Clone, PartialEq, Eq)]
pub struct Claims {
    /// Who says it: the gateway's base address.
    pub iss: String,
    /// To whom: the party that sent the batch.
    pub aud: PartyId,
    /// When it was taken, in seconds since 1970.
    pub iat: i64,
    /// The batch's id.
    pub jti: String,
    /// What its lines are.
    pub feed: Feed,
    /// The number of its first line in the upload, from 1.
    pub first_line: u64,
    /// The number of its last line.
    pub last_line: u64,
    /// How many lines it has, blank ones aside.
    pub lines: u64,
    /// The digest of its lines ([`digest`]).
    pub sha256: [u8; 32],
    /// What became of them: accepted, unchanged, replaced, rejected.
    pub counts: [u64; 4],
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch::Claims(from {}, {} lines, ..)", self.aud, self.lines)
    }
}

const COUNTS: [&str; 4] = ["accepted", "unchanged", "replaced", "rejected"];

/// The bytes that are signed: header and payload, each in base64url, with a dot between.
pub fn signing_input(kid: &str, claims: &Claims) -> String {
    let header = json!({ "alg": super::ALGORITHM, "kid": kid, "typ": TYPE });
    let mut payload = Map::new();
    let mut member = |name: &str, value: Value| payload.insert(name.to_owned(), value);
    for (name, count) in COUNTS.iter().zip(claims.counts) {
        member(name, count.into());
    }
    member("aud", claims.aud.as_str().into());
    member("feed", claims.feed.as_str().into());
    member("first_line", claims.first_line.into());
    member("iat", claims.iat.into());
    member("iss", claims.iss.as_str().into());
    member("jti", claims.jti.as_str().into());
    member("last_line", claims.last_line.into());
    member("lines", claims.lines.into());
    member("sha256", crate::hex::hex(&claims.sha256).into());
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(Value::Object(payload)))
}

/// A receipt whose form is right, and whether its signature could be checked.
#[derive(Clone, PartialEq, Debug)]
pub struct Verified {
    /// What it says.
    pub claims: Claims,
    /// The key that signed it.
    pub kid: String,
    /// Whether the key set has that key, and the signature is right. Where it is not there any more, only the log can
    /// say that the gateway gave this receipt.
    pub signed: bool,
}

/// Whether a token says of itself that it is the receipt of a batch; nothing else of it is checked.
pub fn claims_to_be(token: &str) -> bool {
    let header = token.split('.').next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let header = header.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    header.is_some_and(|header| header.get("typ").is_some_and(|typ| typ == TYPE))
}

/// What a receipt says, whoever signed it: for whoever just got it, to hold it against what was sent.
pub fn said(token: &str) -> Result<Claims, AttestationError> {
    claims(&Signed::read(token, TYPE)?.payload)
}

/// Checks form, signature, audience and that it is not of a time to come. A signature that is wrong is an error; a key
/// that the set does not have is told by [`Verified::signed`].
pub fn verify(token: &str, jwks: &Jwks, expected: &Expected<'_>) -> Result<Verified, AttestationError> {
    let token = Signed::read(token, TYPE)?;
    let signed = match token.check(jwks) {
        Ok(()) => true,
        Err(AttestationError::UnknownKey { .. }) => false,
        Err(error) => return Err(error),
    };
    let claims = claims(&token.payload)?;
    if let Some(aud) = expected.aud.filter(|aud| *aud != claims.aud.as_str()) {
        return Err(AttestationError::Audience { said: claims.aud.to_string(), expected: aud.to_owned() });
    }
    let wrong = AttestationError::Claim { claim: "iat", expected: "seconds since 1970" };
    let begins = Timestamp::from_second(claims.iat).map_err(|_| wrong)?;
    if expected.now.as_second() < claims.iat.saturating_sub(expected.leeway_s) {
        return Err(AttestationError::NotYet { begins, leeway_s: expected.leeway_s });
    }
    Ok(Verified { claims, kid: token.kid, signed })
}

fn claims(payload: &Map<String, Value>) -> Result<Claims, AttestationError> {
    let wrong = |claim, expected| AttestationError::Claim { claim, expected };
    let text = |claim| {
        let text = payload.get(claim).and_then(Value::as_str).filter(|text| printable(text));
        text.ok_or(wrong(claim, "a short text"))
    };
    let count = |claim| payload.get(claim).and_then(Value::as_u64).ok_or(wrong(claim, "a whole number"));
    let mut counts = [0; 4];
    for (slot, name) in counts.iter_mut().zip(COUNTS) {
        *slot = count(name)?;
    }
    let sha256 = sha256(text("sha256")?);
    let claims = Claims {
        iss: text("iss")?.to_owned(),
        aud: PartyId::parse(text("aud")?).map_err(|_| wrong("aud", "the id of a party"))?,
        iat: payload.get("iat").and_then(Value::as_i64).ok_or(wrong("iat", "seconds since 1970"))?,
        jti: text("jti")?.to_owned(),
        feed: Feed::parse(text("feed")?).ok_or(wrong("feed", "records or register"))?,
        first_line: count("first_line")?,
        last_line: count("last_line")?,
        lines: count("lines")?,
        sha256: sha256.ok_or(wrong("sha256", "64 hexadecimal digits"))?,
        counts,
    };
    let all = claims.counts.iter().try_fold(0u64, |sum, count| sum.checked_add(*count));
    if all != Some(claims.lines) {
        return Err(wrong("lines", "the sum of accepted, unchanged, replaced and rejected"));
    }
    Ok(claims)
}

/// 64 hexadecimal digits, lower case.
fn sha256(text: &str) -> Option<[u8; 32]> {
    let nibble = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let nibbles = text.bytes().map(nibble).collect::<Option<Vec<u8>>>()?;
    let (pairs, rest) = nibbles.as_chunks::<2>();
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    bytes.try_into().ok().filter(|_| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attestation::tests::{Issuer, issuer};
    use crate::attestation::{LEEWAY_S, verify as verify_attestation};

    const IAT: i64 = 1_795_572_000;

    fn claims() -> Claims {
        Claims {
            iss: "https://yuxi.example".into(),
            aud: PartyId::parse("yx-court").unwrap(),
            iat: IAT,
            jti: "AAAAAAAAAAAAAAAAAAAAAA".into(),
            feed: Feed::Records,
            first_line: 1,
            last_line: 4,
            lines: 3,
            sha256: digest(&lines(b"a\n\nb\r\nc")),
            counts: [1, 0, 1, 1],
        }
    }

    fn expected(now: i64) -> Expected<'static> {
        Expected { aud: Some("yx-court"), nonce: None, now: Timestamp::from_second(now).unwrap(), leeway_s: LEEWAY_S }
    }

    fn token(issuer: &Issuer, claims: &Claims) -> String {
        issuer.sign(&signing_input(issuer.kid(), claims))
    }

    #[test]
    fn lines_count_from_one_and_blank_ones_are_passed_over() {
        let found = lines(b"\xef\xbb\xbf{\"a\":1}\r\n\n  \n{\"b\":2}\n");
        assert_eq!(found, [(1, b"{\"a\":1}".as_slice()), (4, b"{\"b\":2}".as_slice())]);
        let whole: [u8; 32] = Sha256::digest(b"a\nb\n").into();
        assert_eq!(digest(&lines(b"a\nb\n")), whole);
        assert_eq!(digest(&lines(b"\xef\xbb\xbfa\r\n\r\nb")), whole);
        assert_ne!(digest(&lines(b"ab\n")), whole);
    }

    proptest::proptest! {
        /// Lines that come one by one have the digest of the upload that they are.
        #[test]
        fn lines_one_by_one_have_the_digest_of_their_upload(
            all in proptest::collection::vec("(\u{feff})?[ab \r]{0,3}", 0..6)
        ) {
            let body: String = all.iter().map(|line| format!("{line}\n")).collect();
            let whole = lines(body.as_bytes());
            let mut digesting = Digesting::default();
            all.iter().for_each(|line| digesting.add(line.as_bytes()));
            proptest::prop_assert_eq!(digesting.finish(), (whole.len() as u64, digest(&whole)));
        }
    }

    #[test]
    fn a_receipt_reads_back_and_has_no_end() {
        let issuer = issuer();
        let token = token(&issuer, &claims());
        assert!(claims_to_be(&token));
        for later in [0, 10 * 365 * 86_400] {
            let verified = verify(&token, &issuer.jwks(), &expected(IAT + later)).unwrap();
            assert_eq!((verified.claims, verified.signed), (claims(), true));
        }
        let early = verify(&token, &issuer.jwks(), &expected(IAT - 61));
        assert!(matches!(early, Err(AttestationError::NotYet { .. })));
        let other = Expected { aud: Some("yx-bike"), ..expected(IAT) };
        assert!(matches!(verify(&token, &issuer.jwks(), &other), Err(AttestationError::Audience { .. })));
        assert!(!verify(&token, &Jwks(Vec::new()), &expected(IAT)).unwrap().signed);
    }

    #[test]
    fn neither_kind_passes_for_the_other() {
        let issuer = issuer();
        let (receipt, answer, jwks) = (token(&issuer, &claims()), issuer.token(), issuer.jwks());
        let answered = Expected { aud: None, ..expected(IAT) };
        let wrong = |error| matches!(error, AttestationError::Header { member: "typ", .. });
        assert!(wrong(verify_attestation(&receipt, &jwks, &answered).unwrap_err()));
        assert!(wrong(verify(&answer, &jwks, &answered).unwrap_err()));
        assert!(!claims_to_be(&answer));
    }

    #[test]
    fn a_changed_receipt_never_verifies() {
        let issuer = issuer();
        let token = token(&issuer, &claims());
        for at in 0..token.len() {
            let mut bent = token.clone().into_bytes();
            bent[at] = if bent[at] == b'A' { b'B' } else { b'A' };
            let verified = verify(&String::from_utf8(bent).unwrap(), &issuer.jwks(), &expected(IAT));
            assert!(!verified.is_ok_and(|verified| verified.signed), "character {at}");
        }
        let wrong = Claims { lines: 4, ..claims() };
        assert!(verify(&self::token(&issuer, &wrong), &issuer.jwks(), &expected(IAT)).is_err());
    }
}
