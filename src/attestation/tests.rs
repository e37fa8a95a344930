//! Tests of the attestation's form and of its verification.

use proptest::prelude::*;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

use super::*;

/// When the sample was signed.
pub const IAT: i64 = 1_795_500_000;

/// A signing key and its public half.
pub struct Issuer(EcdsaKeyPair, Jwk);

/// A fresh issuer.
pub fn issuer() -> Issuer {
    let random = crate::entropy::system();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
    let point = pair.public_key().as_ref();
    let key = Jwk::new(point[1..33].try_into().unwrap(), point[33..].try_into().unwrap());
    Issuer(pair, key)
}

impl Issuer {
    /// The whole token of what is signed.
    pub fn sign(&self, input: &str) -> String {
        let signature = self.0.sign(&crate::entropy::system(), input.as_bytes()).unwrap();
        compact(input, signature.as_ref().try_into().unwrap())
    }

    /// The name of its key.
    pub fn kid(&self) -> &str {
        &self.1.kid
    }

    /// The sample, signed.
    pub fn token(&self) -> String {
        self.sign(&signing_input(&self.1.kid, &sample()))
    }

    fn forged(&self, header: &str, payload: &str) -> String {
        let header = header.replace("KID", &self.1.kid);
        self.sign(&format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload)))
    }

    /// The set with its key.
    pub fn jwks(&self) -> Jwks {
        Jwks(vec![self.1.clone()])
    }
}

fn sample() -> Claims {
    Claims {
        iss: "https://127.0.0.1:8443".into(),
        aud: PartyId::parse("yx-library").unwrap(),
        iat: IAT,
        exp: IAT + 600,
        jti: "Zm9v".into(),
        nonce: "n-0123456789abcdef".into(),
        scenario: ScenarioId::parse("library-deposit").unwrap(),
        as_of: "2026-11-24".parse().unwrap(),
        sub: None,
        met: json!({ "score_at_least": 600 }),
        model: format!("yuxi-2026#sha256-{}", "0".repeat(64)),
    }
}

fn at(now: i64) -> Expected<'static> {
    Expected {
        aud: Some("yx-library"),
        nonce: Some("n-0123456789abcdef"),
        now: Timestamp::from_second(now).unwrap(),
        leeway_s: LEEWAY_S,
    }
}

/// RFC 7515 appendix A.3: the key and the signature of the example with ES256.
#[test]
fn rfc_7515_appendix_a_3() {
    let set = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"a3","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
    let key = Jwks::parse(set).unwrap().0.remove(0);
    let input = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    assert_eq!(verify_signature(&key, input.as_bytes(), &signature), Ok(()));
    assert_eq!(verify_signature(&key, input.to_lowercase().as_bytes(), &signature), Err(AttestationError::Signature));
    let token = compact(input, &signature.try_into().unwrap());
    let no_type = AttestationError::Header { member: "typ", expected: TYPE };
    assert_eq!(verify(&token, &Jwks(vec![key]), &at(IAT)), Err(no_type));
}

#[test]
fn what_was_signed_is_what_is_read() {
    let issuer = issuer();
    for claims in [
        sample(),
        Claims { sub: Some("p-1".into()), met: json!({ "grade": "excellent" }), ..sample() },
        Claims { met: json!({ "grade_at_least": "good" }), ..sample() },
    ] {
        let input = signing_input(&issuer.1.kid, &claims);
        assert_eq!(input, signing_input(&issuer.1.kid, &claims.clone()));
        let verified = verify(&issuer.sign(&input), &issuer.jwks(), &at(IAT + 1)).unwrap();
        assert_eq!((verified.claims, verified.kid, verified.by_leeway), (claims, issuer.1.kid.clone(), false));
    }
}

#[test]
fn the_payload_has_one_form() {
    let input = signing_input("k1", &sample());
    let (header, payload) = input.split_once('.').unwrap();
    let text = |part| String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    assert_eq!(text(header), r#"{"alg":"ES256","kid":"k1","typ":"jadegate-answer+jwt"}"#);
    let zeros = "0".repeat(64);
    assert_eq!(
        text(payload),
        format!(
            r#"{{"as_of":"2026-11-24","aud":"yx-library","exp":1795500600,"iat":1795500000,"iss":"https://127.0.0.1:8443","jti":"Zm9v","met":{{"score_at_least":600}},"model":"yuxi-2026#sha256-{zeros}","nonce":"n-0123456789abcdef","scenario":"library-deposit"}}"#
        )
    );
}

/// Clocks differ by a little, and an attestation that ended long ago is refused.
#[test]
fn the_leeway_is_a_minute_either_way() {
    let (issuer, end) = (issuer(), IAT + 600);
    let (token, jwks) = (issuer.token(), issuer.jwks());
    let leaned = |now| verify(&token, &jwks, &at(now)).map(|verified| verified.by_leeway);
    assert_eq!([leaned(IAT - 2), leaned(IAT - 60)], [Ok(true), Ok(true)]);
    assert_eq!([leaned(IAT), leaned(end - 1)], [Ok(false), Ok(false)]);
    assert_eq!([leaned(end + 1), leaned(end + 59)], [Ok(true), Ok(true)]);
    assert!(matches!(leaned(IAT - 61), Err(AttestationError::NotYet { leeway_s: 60, .. })));
    for now in [end + 60, end + 3_600] {
        let error = leaned(now).unwrap_err();
        assert!(matches!(error, AttestationError::Ended { .. }) && error.to_string().contains("60 s"), "{error}");
    }
}

/// A verifier that meets a new key is told to fetch the set again.
#[test]
fn an_unknown_key_says_fetch_the_set_again() {
    let error = verify(&issuer().token(), &issuer().jwks(), &at(IAT)).unwrap_err();
    assert!(error.to_string().contains("fetch /.well-known/jwks.json again"), "{error}");
}

#[test]
fn a_copy_does_not_pass() {
    let issuer = issuer();
    let (token, jwks) = (issuer.token(), issuer.jwks());
    let check = |expected| verify(&token, &jwks, &expected).map(|_| ());
    let audience = check(Expected { aud: Some("yx-hospital"), ..at(IAT) });
    assert!(matches!(audience, Err(AttestationError::Audience { .. })));
    assert_eq!(check(Expected { nonce: Some("n-0123456789abcdeF"), ..at(IAT) }), Err(AttestationError::Nonce));
    assert_eq!(check(Expected { aud: None, nonce: None, ..at(IAT) }), Ok(()));
}

#[test]
fn another_keys_signature_is_wrong() {
    let (one, other) = (issuer(), issuer());
    let swapped = Jwks(vec![Jwk { kid: one.1.kid.clone(), ..other.1 }]);
    assert_eq!(verify(&one.token(), &swapped, &at(IAT)), Err(AttestationError::Signature));
    let off_curve = Jwks(vec![Jwk { y: [1; 32], ..one.1.clone() }]);
    assert_eq!(verify(&one.token(), &off_curve, &at(IAT)), Err(AttestationError::Signature));
}

#[test]
fn only_one_form_of_token() {
    let issuer = issuer();
    let (token, jwks) = (issuer.token(), issuer.jwks());
    let check = |token: &str| verify(token, &jwks, &at(IAT)).map(|_| ()).unwrap_err();
    let (input, signature) = token.rsplit_once('.').unwrap();
    for parts in ["", input, &format!("{token}.x"), &format!("{token}."), "a.b"] {
        assert_eq!(check(parts), AttestationError::Parts, "{parts}");
    }
    // The last of 86 characters has four bits that mean nothing: they must be zero.
    let (kept, last) = signature.split_at(85);
    let next = char::from(last.as_bytes()[0] + 1);
    for odd in
        [format!("{kept}{next}"), format!("{signature}=="), format!("{signature} "), signature.replace(kept, "+/")]
    {
        assert_eq!(check(&format!("{input}.{odd}")), AttestationError::Base64(Part::Signature), "{odd}");
    }
    assert_eq!(check(&format!("{input}.")), AttestationError::Signature);
    assert_eq!(check(&format!("{token}\n")), AttestationError::Base64(Part::Signature));
    assert_eq!(check(&"a".repeat(TOKEN_BYTES_MAX + 1)), AttestationError::Length);
}

#[test]
fn only_one_kind_of_header() {
    let issuer = issuer();
    let payload = {
        let input = signing_input("", &sample());
        String::from_utf8(URL_SAFE_NO_PAD.decode(input.split_once('.').unwrap().1).unwrap()).unwrap()
    };
    let check = |header: &str| verify(&issuer.forged(header, &payload), &issuer.jwks(), &at(IAT)).map(|_| ());
    let wrong = |member, expected| Err(AttestationError::Header { member, expected });
    assert_eq!(check(r#"{"alg":"ES256","typ":"jadegate-answer+jwt","kid":"KID","jku":"https://e"}"#), Ok(()));
    for alg in [r#""none""#, r#""HS256""#, r#""es256""#, "null", r#"["ES256"]"#] {
        let header = format!(r#"{{"alg":{alg},"typ":"jadegate-answer+jwt","kid":"KID"}}"#);
        assert_eq!(check(&header), wrong("alg", ALGORITHM), "{alg}");
    }
    assert_eq!(check(r#"{"alg":"ES256","typ":"JWT","kid":"KID"}"#), wrong("typ", TYPE));
    assert_eq!(check(r#"{"alg":"ES256","kid":"KID"}"#), wrong("typ", TYPE));
    assert_eq!(
        check(r#"{"alg":"ES256","typ":"jadegate-answer+jwt","kid":"KID","crit":["x"]}"#),
        wrong("crit", "nothing")
    );
    assert_eq!(check(r#"{"alg":"ES256","typ":"jadegate-answer+jwt","kid":1}"#), wrong("kid", "the id of a key"));
    let twice = check(r#"{"alg":"none","alg":"ES256","typ":"jadegate-answer+jwt","kid":"KID"}"#);
    assert!(
        matches!(twice, Err(AttestationError::Json { part: Part::Header, ref why }) if why == "it says a key twice")
    );
    assert!(matches!(check("[]"), Err(AttestationError::Json { part: Part::Header, .. })));
    assert!(matches!(check("{"), Err(AttestationError::Json { part: Part::Header, .. })));
}

#[test]
fn claims_have_their_types() {
    let issuer = issuer();
    let check = |change: &dyn Fn(&mut Value)| {
        let input = signing_input("", &sample());
        let mut payload: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(input.split_once('.').unwrap().1).unwrap()).unwrap();
        change(&mut payload);
        let header = r#"{"alg":"ES256","typ":"jadegate-answer+jwt","kid":"KID"}"#;
        verify(&issuer.forged(header, &payload.to_string()), &issuer.jwks(), &at(IAT)).map(|_| ())
    };
    assert_eq!(check(&|payload| payload["more"] = json!([1])), Ok(()));
    for (claim, value) in [
        ("iss", json!(1)),
        ("iss", json!("a\u{1b}[31m")),
        ("aud", json!(["yx-library"])),
        ("aud", json!("YX")),
        ("iat", json!("1795500000")),
        ("iat", json!(1_795_500_000.5)),
        ("exp", json!(IAT)),
        ("exp", json!(i64::MAX)),
        ("jti", json!("")),
        ("nonce", Value::Null),
        ("scenario", json!("no scenario")),
        ("as_of", json!("20261124")),
        ("as_of", json!("2026-02-30")),
        ("sub", Value::Null),
        ("met", json!("yes")),
        ("met", json!({})),
        ("model", json!("m".repeat(513))),
    ] {
        let got = check(&|payload| payload[claim] = value.clone());
        assert!(
            matches!(got, Err(AttestationError::Claim { claim: named, .. }) if named == claim),
            "{claim} {value} {got:?}"
        );
        let object_without = |payload: &mut Value| drop(payload.as_object_mut().unwrap().remove(claim));
        assert!(claim == "sub" || check(&object_without).is_err(), "{claim}");
    }
    let nested = issuer.forged(
        r#"{"alg":"ES256","typ":"jadegate-answer+jwt","kid":"KID"}"#,
        r#"{"met":{"score_at_least":600,"score_at_least":800}}"#,
    );
    assert!(matches!(
        verify(&nested, &issuer.jwks(), &at(IAT)),
        Err(AttestationError::Json { part: Part::Payload, .. })
    ));
}

proptest! {
    #[test]
    fn reading_never_panics(token in "[A-Za-z0-9_.=-]{0,64}") {
        prop_assert!(verify(&token, &Jwks::default(), &at(IAT)).is_err());
    }

    #[test]
    fn odd_json_never_panics(text in r#"(\{|\}|\[|\]|"alg"|:|,|"ES256"|1e999|-0|null|"\\ud800"){0,12}"#) {
        let _ = unique_keys(text.as_bytes());
    }

    #[test]
    fn a_changed_token_never_verifies(place: prop::sample::Index, bit in 0u32..7) {
        let issuer = issuer();
        let mut bytes = issuer.token().into_bytes();
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        let token = String::from_utf8(bytes).unwrap();
        prop_assert!(verify(&token, &issuer.jwks(), &at(IAT)).is_err());
    }
}
