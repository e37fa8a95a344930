//! The RFC's own vectors, and each way in which a signature can be wrong.

use super::sign::{SigningKey, ToSign, sign};
use super::*;
use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair};

const NOW: i64 = 1_790_000_000;
const SECRET: &[u8] = b"a secret of thirty-two bytes or so";
const SEED: [u8; 32] = [7; 32];
const BODY: &[u8] = br#"{"scenario":"library-deposit"}"#;

struct Keys;

impl KeyDirectory for Keys {
    fn key(&self, key_id: &str) -> Option<VerifyingKey<'_>> {
        match key_id {
            "mac" => Some(VerifyingKey::HmacSha256(SECRET)),
            "ed" => Some(VerifyingKey::Ed25519(public())),
            _ => None,
        }
    }
}

fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&SEED).unwrap()
}

fn public() -> [u8; 32] {
    pair().public_key().as_ref().try_into().unwrap()
}

/// A call that a test changes before it is checked.
#[derive(Clone)]
struct Call {
    method: &'static str,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Call {
    fn set(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(n, _)| n != name);
        self.headers.push((name.into(), value.into()));
        self
    }

    fn add(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn check(&self) -> Result<Verified, SignatureError> {
        self.check_at(NOW)
    }

    fn check_at(&self, now: i64) -> Result<Verified, SignatureError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        }
        let base = BaseAddress::parse("https://score.example:8443").unwrap();
        let target = self.target.parse().unwrap();
        let head = SignedHead { method: self.method, base: &base, target: &target, headers: &headers };
        verify(&head, &self.body, &Keys, Timestamp::from_second(now).unwrap())
    }

    fn code(&self) -> &'static str {
        self.check().map_err(|e| e.code()).err().unwrap_or("verified")
    }
}

fn digest_field(body: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    format!("sha-256=:{}:", STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, body)))
}

const COVER: &str = r#"("@method" "@target-uri" "content-digest" "content-type")"#;
const PARAMS: &str = r#";created=1790000000;nonce="0123456789abcdef";keyid="mac""#;

/// Signs by hand what the parameters say, so that a wrong call is wrong in one thing only.
fn signed(target: &str, params: &str) -> Call {
    signed_with(target, params, &digest_field(BODY), |b| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), b).as_ref().to_vec()
    })
}

fn signed_with(target: &str, params: &str, digest: &str, by: impl Fn(&[u8]) -> Vec<u8>) -> Call {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let uri: Uri = target.parse().unwrap();
    let mut base = String::new();
    for name in params[1..params.find(')').unwrap()].split_whitespace().map(|c| c.trim_matches('"')) {
        let value = match name {
            "@method" => "POST",
            "@target-uri" => target,
            "@authority" => "score.example:8443",
            "@scheme" => "https",
            "@path" => uri.path(),
            "@query" => &format!("?{}", uri.query().unwrap_or_default()),
            "@request-target" => uri.path_and_query().unwrap().as_str(),
            "content-digest" => digest,
            "content-type" => "application/json",
            "date" => "Tue, 20 Apr 2021 02:07:55 GMT",
            _ => "",
        };
        base.push_str(&format!("\"{name}\": {value}\n"));
    }
    base.push_str(&format!("\"@signature-params\": {params}"));
    let mac = STANDARD.encode(by(base.as_bytes()));
    Call {
        method: "POST",
        target: uri.path_and_query().unwrap().to_string(),
        headers: [
            ("host", "score.example:8443"),
            ("content-type", "application/json"),
            ("content-digest", digest),
            ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
            ("signature-input", &format!("sig1={params}")),
            ("signature", &format!("sig1=:{mac}:")),
        ]
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .to_vec(),
        body: BODY.to_vec(),
    }
}

const TARGET: &str = "https://score.example:8443/v1/answers";

fn good() -> Call {
    signed(TARGET, &format!("{COVER}{PARAMS}"))
}

/// RFC 9421 appendix B.2: the test request, through parsing, base and key.
fn vector(input: &str, signature: &str, key: VerifyingKey<'_>) -> bool {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "example.com"),
        ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
        ("content-type", "application/json"),
        (
            "content-digest",
            "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:",
        ),
        ("content-length", "18"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.insert("signature-input", HeaderValue::try_from(input).unwrap());
    headers.insert("signature", HeaderValue::try_from(signature).unwrap());
    let base = BaseAddress::parse("http://example.com").unwrap();
    let target = "/foo?param=Value&Pet=dog".parse().unwrap();
    let head = SignedHead { method: "POST", base: &base, target: &target, headers: &headers };
    digest::Digests::parse(&headers).unwrap().check(br#"{"hello": "world"}"#).unwrap();
    let text = signature_base(&head).unwrap();
    key.fits(&text, &Input::parse(&headers).unwrap().signature)
}

#[test]
fn rfc_9421_vector_hmac_sha256() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let secret = STANDARD
        .decode("uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==")
        .unwrap();
    let input = r#"sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret""#;
    let signature = "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:";
    assert!(vector(input, signature, VerifyingKey::HmacSha256(&secret)));
    assert!(!vector(input, signature, VerifyingKey::HmacSha256(SECRET)));
}

#[test]
fn rfc_9421_vector_ed25519() {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let theirs = URL_SAFE_NO_PAD.decode("JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs").unwrap();
    let key = VerifyingKey::Ed25519(theirs.try_into().unwrap());
    let input = r#"sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519""#;
    let signature =
        "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:";
    assert!(vector(input, signature, key));
    assert!(!vector(input, signature, VerifyingKey::Ed25519(public())));
}

#[test]
fn what_sign_makes_verifies() {
    let pair = pair();
    for (key_id, key) in [("mac", SigningKey::HmacSha256(SECRET)), ("ed", SigningKey::Ed25519(&pair))] {
        let call = ToSign {
            method: "POST",
            target_uri: TARGET,
            content_type: "application/json",
            key_id,
            key,
            created: NOW,
            nonce: "0123456789abcdef",
        };
        let made = sign(&call, BODY).unwrap();
        let call = good()
            .set("content-digest", made.content_digest.to_str().unwrap())
            .set("signature-input", made.signature_input.to_str().unwrap())
            .set("signature", made.signature.to_str().unwrap());
        assert_eq!(call.check().unwrap().key_id, key_id);
    }
}

#[test]
fn any_order_any_label_and_more_components_verify() {
    let order = r#";keyid="mac";alg="hmac-sha256";nonce="0123456789abcdef";created=1790000000"#;
    assert!(signed(TARGET, &format!("{COVER}{order}")).check().is_ok());
    let more = r#"("content-type" "@authority" "content-digest" "date" "@scheme" "@path" "@query" "@request-target" "@target-uri" "@method")"#;
    assert!(signed(&format!("{TARGET}?x=1"), &format!("{more}{PARAMS}")).check().is_ok());
    let kept = format!(r#"{COVER}{PARAMS};expires=1790000001;tag="shop";later=abc;b=:AA==:;d=1.5;t"#);
    assert!(signed(TARGET, &kept).check().is_ok());
    let call = good();
    let renamed: Vec<_> = call.headers.iter().map(|(n, v)| (n.clone(), v.replace("sig1=", "merchant-7="))).collect();
    assert!(Call { headers: renamed, ..call }.check().is_ok());
}

#[test]
fn parameters_of_another_type_are_refused() {
    for (from, to) in [
        ("created=1790000000", r#"created="1790000000""#),
        ("created=1790000000", "created=1790000000.5"),
        ("created=1790000000", "created=1790000000.0"),
        ("created=1790000000", "created=-1"),
        ("created=1790000000", "created=@1790000000"),
        ("created=1790000000", "created=9999999999999999"),
        ("created=1790000000", "created"),
        (";created=1790000000", ""),
        (r#";keyid="mac""#, ""),
        (r#";keyid="mac""#, ";keyid=mac"),
        (r#";nonce="0123456789abcdef""#, ""),
        (r#""0123456789abcdef""#, r#""0123456789abcde""#),
        (r#""0123456789abcdef""#, ":MDEyMzQ1Njc4OWFiY2RlZg==:"),
        (r#";keyid="mac""#, r#";keyid="mac";created=1790000000"#),
        (r#";keyid="mac""#, r#";keyid="mac";alg=hmac-sha256"#),
        (r#";keyid="mac""#, r#";keyid="mac";expires="1790000000""#),
        (r#""@method""#, r#""@method" "@method""#),
        (r#""content-type""#, r#""content-type";sf"#),
        (r#""content-type""#, r#""content-type";req"#),
    ] {
        let call = signed(TARGET, &format!("{COVER}{PARAMS}").replace(from, to));
        assert_eq!(call.code(), code::SIGNATURE_MALFORMED, "{to}");
    }
    let long = format!("{COVER}{PARAMS}").replace("0123456789abcdef", &"n".repeat(129));
    assert_eq!(signed(TARGET, &long).code(), code::SIGNATURE_MALFORMED);
    let longest = format!("{COVER}{PARAMS}").replace("0123456789abcdef", &"n".repeat(128));
    assert_eq!(signed(TARGET, &longest).code(), "verified");
}

#[test]
fn each_of_the_four_must_be_covered() {
    for part in COVERED_AT_LEAST {
        let rest = COVER.replace(&format!("\"{part}\""), "");
        assert_eq!(signed(TARGET, &format!("{}{PARAMS}", rest.trim())).check(), Err(SignatureError::Coverage(part)));
    }
    for odd in [r#""@status""#, r#""@query-param""#, r#""x-not-there""#] {
        let call = signed(TARGET, &format!("{}{PARAMS}", COVER.replace(')', &format!(" {odd})"))));
        assert_eq!(call.code(), code::SIGNATURE_COVERAGE, "{odd}");
    }
}

#[test]
fn exactly_one_signature() {
    let call = good();
    let [input, made] =
        ["signature-input", "signature"].map(|f| call.headers.iter().find(|(n, _)| n == f).unwrap().1.clone());
    let twice = |s: &str, label: &str| format!("{s}, {}", s.replacen("sig1", label, 1));
    for label in ["sig1", "sig2"] {
        let both = call.clone().set("signature-input", &twice(&input, label)).set("signature", &twice(&made, label));
        assert!(both.code().starts_with("signature-"), "{label}");
        let lines = call
            .clone()
            .add("signature-input", &input.replacen("sig1", label, 1))
            .add("signature", &made.replacen("sig1", label, 1));
        assert!(lines.code().starts_with("signature-"), "{label} in lines");
        assert!(call.clone().set("signature", &twice(&made, label)).check().is_err());
        assert!(call.clone().set("signature-input", &twice(&input, label)).check().is_err());
    }
    assert_eq!(call.clone().set("signature", &made.replacen("sig1", "sig2", 1)).code(), code::SIGNATURE_NOT_ONE);
    let mut bare = call.clone();
    bare.headers.retain(|(n, _)| n != "signature");
    assert_eq!(bare.code(), code::SIGNATURE_MISSING);
    for rubbish in ["", "sig1", "sig1=1", "sig1=(", "sig1=:AA==", "=:AA==:"] {
        assert!(call.clone().set("signature", rubbish).check().is_err(), "{rubbish}");
        assert!(call.clone().set("signature-input", rubbish).check().is_err(), "{rubbish}");
    }
}

#[test]
fn the_time_is_within_five_minutes_and_before_expires() {
    for (now, fits) in [(NOW - 301, false), (NOW - 300, true), (NOW + 300, true), (NOW + 301, false)] {
        assert_eq!(good().check_at(now).is_ok(), fits, "{}", now - NOW);
    }
    let ends = signed(TARGET, &format!("{COVER}{PARAMS};expires=1790000010"));
    assert!(ends.check_at(NOW + 10).is_ok());
    assert_eq!(ends.check_at(NOW + 11).unwrap_err().code(), code::SIGNATURE_STALE);
}

#[test]
fn the_target_is_the_base_address_and_the_whole_query() {
    let mut call = good();
    call.target = "/v1/answers?x=1".into();
    assert_eq!(call.code(), code::SIGNATURE_WRONG);
    let mut call = signed(&format!("{TARGET}?x=1"), &format!("{COVER}{PARAMS}"));
    assert_eq!(call.code(), "verified");
    call.target = "/v1/answers".into();
    assert_eq!(call.code(), code::SIGNATURE_WRONG);
    let elsewhere = signed("https://elsewhere.example/v1/answers", &format!("{COVER}{PARAMS}"))
        .add("x-forwarded-host", "elsewhere.example")
        .add("x-forwarded-proto", "https")
        .add("forwarded", "host=elsewhere.example;proto=https");
    assert_eq!(elsewhere.code(), code::SIGNATURE_WRONG);
    assert_eq!(elsewhere.set("host", "elsewhere.example").code(), code::BAD_HOST);
    assert_eq!(good().add("host", "score.example:8443").code(), code::BAD_HOST);
    for (target, want) in [
        ("https://score.example:8443/v1/answers", "verified"),
        ("https://elsewhere.example/v1/answers", code::BAD_HOST),
        ("http://score.example:8443/v1/answers", code::BAD_HOST),
    ] {
        assert_eq!(Call { target: target.into(), ..good() }.code(), want, "absolute form {target}");
    }
}

#[test]
fn digests_are_strict() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let right = digest_field(BODY);
    let long = format!("sha-512=:{}:", STANDARD.encode(ring::digest::digest(&ring::digest::SHA512, BODY)));
    let wrong_long = format!("sha-512=:{}:", STANDARD.encode([1; 64]));
    for (field, want) in [
        (format!("{long}, {right}"), "verified"),
        (long.clone(), "verified"),
        (format!("foo=:AA==:, {right}"), "verified"),
        (format!("{right}, md5=1"), "verified"),
        ("md5=:AAAAAAAAAAAAAAAAAAAAAA==:".into(), code::CONTENT_DIGEST_MISSING),
        (format!("{right}, {wrong_long}"), code::CONTENT_DIGEST_MISMATCH),
        (format!("{}, {right}", digest_field(b"other")), code::CONTENT_DIGEST_MALFORMED),
        (digest_field(b"other"), code::CONTENT_DIGEST_MISMATCH),
        ("sha-256=:AA==:".into(), code::CONTENT_DIGEST_MISMATCH),
        (right.to_uppercase(), code::CONTENT_DIGEST_MALFORMED),
        (right.replace("=:", "=").replace("=:", "="), code::CONTENT_DIGEST_MALFORMED),
        (right.replace(':', ""), code::CONTENT_DIGEST_MALFORMED),
        ("sha-256=1".into(), code::CONTENT_DIGEST_MALFORMED),
        ("sha-256=(:AA==:)".into(), code::CONTENT_DIGEST_MALFORMED),
    ] {
        let mac = |b: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), b).as_ref().to_vec();
        assert_eq!(signed_with(TARGET, &format!("{COVER}{PARAMS}"), &field, mac).code(), want, "{field}");
    }
}

#[test]
fn two_digest_lines_are_one_field() {
    let wrong = "sha-512=:AQ==:";
    let field = format!("{}, {wrong}", digest_field(BODY));
    let mac = |b: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), b).as_ref().to_vec();
    let call = signed_with(TARGET, &format!("{COVER}{PARAMS}"), &field, mac)
        .set("content-digest", &digest_field(BODY))
        .add("content-digest", wrong);
    assert_eq!(call.check(), Err(SignatureError::DigestMismatch("sha-512")));
}

#[test]
fn the_algorithm_belongs_to_the_key() {
    let public = public();
    let by_public = |b: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &public), b).as_ref().to_vec();
    let params = format!("{COVER}{}", PARAMS.replace("mac", "ed"));
    for alg in ["", ";alg=\"hmac-sha256\"", ";alg=\"ed25519\""] {
        let call = signed_with(TARGET, &format!("{params}{alg}"), &digest_field(BODY), by_public);
        assert_eq!(call.code(), code::SIGNATURE_WRONG, "{alg}");
    }
    assert_eq!(signed(TARGET, &format!("{COVER}{PARAMS};alg=\"ed25519\"")).code(), code::SIGNATURE_WRONG);
}

#[test]
fn an_unknown_key_is_told_the_same_as_a_wrong_one() {
    let unknown = signed(TARGET, &format!("{COVER}{}", PARAMS.replace("mac", "nobody"))).check().unwrap_err();
    let mac = |_: &[u8]| vec![0; 32];
    let wrong = signed_with(TARGET, &format!("{COVER}{PARAMS}"), &digest_field(BODY), mac).check().unwrap_err();
    assert_eq!(unknown, wrong);
    assert!(!format!("{:?}{wrong}", VerifyingKey::HmacSha256(SECRET)).contains("secret of"));
}

/// A signature is compared whole: no bit of it may be another, none may be missing, and none too much.
#[test]
fn no_bit_of_a_signature_may_be_another() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let mac = |b: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), b).as_ref().to_vec();
    let ed = |b: &[u8]| pair().sign(b).as_ref().to_vec();
    let with = |which: &str, bend: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let params = format!("{COVER}{}", PARAMS.replace("mac", which));
        signed_with(TARGET, &params, &digest_field(BODY), |b| bend(if which == "mac" { mac(b) } else { ed(b) }))
    };
    for (which, length) in [("mac", 32), ("ed", 64)] {
        let good = with(which, &|made| made);
        assert_eq!(good.code(), "verified");
        let (_, field) = good.headers.iter().find(|(name, _)| name == "signature").unwrap();
        let made = STANDARD.decode(field.trim_start_matches("sig1=:").trim_end_matches(':')).unwrap();
        assert_eq!(made.len(), length);
        for bit in 0..length * 8 {
            let bent = with(which, &|mut made| {
                made[bit / 8] ^= 1 << (bit % 8);
                made
            });
            assert_eq!(bent.code(), code::SIGNATURE_WRONG, "{which}: bit {bit}");
        }
        for cut in 0..length {
            let cut_short = with(which, &|made| made[..cut].to_vec());
            assert_ne!(cut_short.code(), "verified", "{which}: {cut} bytes");
        }
        for more in [vec![0], vec![0; 32], made.clone()] {
            let longer = with(which, &|made| [made, more.clone()].concat());
            assert_ne!(longer.code(), "verified", "{which}: {} bytes more", more.len());
        }
    }
}

proptest! {
    #[test]
    fn a_changed_byte_anywhere_fails(part in 0usize..6, at in 0usize..4096, bit in 0u8..7) {
        let mut call = good();
        let flip = |text: &mut String| {
            let at = at % text.len();
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            prop_assume!((b' '..0x7f).contains(&bytes[at]));
            *text = String::from_utf8(bytes).unwrap();
            Ok(())
        };
        match part {
            0 => call.method = if at % 2 == 0 { "PUT" } else { "post" },
            1 => {
                let mut target = "/v1/answers".to_owned();
                flip(&mut target)?;
                // A fragment is no part of a request line, and the first byte must be a slash.
                prop_assume!(target.starts_with('/') && !target.contains('#') && target.parse::<Uri>().is_ok());
                call.target = target;
            }
            2 => {
                let at = at % call.body.len();
                call.body[at] ^= 1 << bit;
            }
            _ => {
                let name = ["content-type", "content-digest", "signature-input"][part - 3];
                let field = call.headers.iter_mut().find(|(n, _)| n == name).unwrap();
                flip(&mut field.1)?;
                // A blank more between members is the same structured field.
                prop_assume!(!field.1.contains("  "));
            }
        }
        prop_assert!(call.check().is_err());
    }

    #[test]
    fn no_field_makes_it_panic(input in "\\PC{0,80}", made in "[ -~]{0,80}", digest in "[ -~]{0,80}") {
        prop_assume!(HeaderValue::try_from(&input).is_ok());
        let call = good().set("signature-input", &input).set("signature", &made).set("content-digest", &digest);
        prop_assert!(call.check().is_err());
    }
}
