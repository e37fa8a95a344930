//! What a token, a code and a consent are worth, case by case.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::entropy::SystemEntropy;
use crate::person::PersonId;

/// Two versions of a key, whose MAC is a digest: enough to see what is covered.
struct Macs;

impl TokenMac for Macs {
    fn token_mac(&self, version: u32, parts: &[&[u8]]) -> Option<[u8; 32]> {
        (1..=2).contains(&version).then(|| {
            let mut digest = Sha256::new_with_prefix(version.to_be_bytes());
            parts.iter().for_each(|part| {
                digest.update(part.len().to_be_bytes());
                digest.update(part);
            });
            digest.finalize().into()
        })
    }

    fn token_verify(&self, version: u32, parts: &[&[u8]], tag: &[u8]) -> bool {
        self.token_mac(version, parts).is_some_and(|mac| mac == tag)
    }
}

fn party(id: &str) -> PartyId {
    PartyId::parse(id).unwrap()
}

fn scenario(id: &str) -> ScenarioId {
    ScenarioId::parse(id).unwrap()
}

fn now() -> Timestamp {
    "2026-11-25T02:00:00Z".parse().unwrap()
}

fn after(seconds: i64) -> Timestamp {
    now().checked_add(SignedDuration::from_secs(seconds)).unwrap()
}

const ID: ConsentId = ConsentId([7; 16]);

fn token(version: u32) -> String {
    Token::make(ID, version, &Macs, &party("bike"), &scenario("deposit")).unwrap()
}

fn shown(text: &str, who: &str, what: &str) -> Result<Presented, NotRecognised> {
    verify(&Token::parse(text).ok_or(NotRecognised)?, &Macs, &party(who), &scenario(what))
}

fn consent() -> Consent {
    Consent {
        person: PersonId([9; 32]),
        party: party("bike"),
        scenario: scenario("deposit"),
        made: now(),
        ends: after(1000),
        uses: 3,
        uses_left: 3,
        decline: false,
        revoked: None,
        last_code: Some(LastCode { mac: CodeMac([1; 32]), used: false }),
        asked: 5,
    }
}

fn by_token() -> Presented {
    shown(&token(1), "bike", "deposit").unwrap()
}

fn row() -> CodeRow {
    CodeRow { consent: ID, party: party("bike"), scenario: scenario("deposit"), ends: after(60) }
}

fn by_code(mac: u8) -> Presented {
    verify_code(&row(), CodeMac([mac; 32]), &party("bike"), &scenario("deposit")).unwrap()
}

#[test]
fn a_token_is_of_one_party_and_one_scenario() {
    for version in [1, 2] {
        let presented = shown(&token(version), "bike", "deposit").unwrap();
        assert_eq!((presented.id(), presented.key_version()), (ID, Some(version)));
        assert_eq!(shown(&token(version), "ebike", "deposit").unwrap_err(), NotRecognised);
        assert_eq!(shown(&token(version), "bike", "deposits").unwrap_err(), NotRecognised);
    }
    assert_ne!(token(1), token(2));
    assert!(Token::make(ID, 3, &Macs, &party("bike"), &scenario("deposit")).is_none());
    assert!(
        Token::make(ID, 65_537, &Macs, &party("bike"), &scenario("deposit")).is_none(),
        "not version 1 by wrapping"
    );
}

#[test]
fn a_token_has_one_spelling() {
    let token = token(1);
    assert_eq!(token.len(), 68);
    for last in 0u8..=255 {
        let mut bytes = token.clone().into_bytes();
        *bytes.last_mut().unwrap() = last;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(shown(&text, "bike", "deposit").is_ok(), text == token, "{last}");
    }
    for padded in ["{}=", "{}==", " {}", "{} ", "{}\n", "\t{}", "{}A", "{}AAAA", "A{}"] {
        assert!(shown(&padded.replace("{}", &token), "bike", "deposit").is_err(), "{padded}");
    }
    let other = |from: char, to: char| token.replace(from, &to.to_string());
    for text in [other('-', '+'), other('_', '/'), token.to_uppercase(), token.to_lowercase(), token[..67].to_owned()] {
        assert!(text == token || shown(&text, "bike", "deposit").is_err(), "{text}");
    }
}

#[test]
fn no_bit_of_a_token_is_spare() {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let bytes = engine.decode(token(1)).unwrap();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bent = bytes.clone();
            bent[at] ^= 1 << bit;
            assert!(shown(&engine.encode(bent), "bike", "deposit").is_err(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn a_code_stands_for_one_party_and_scenario() {
    let shown = |who, what| verify_code(&row(), CodeMac([1; 32]), &party(who), &scenario(what));
    assert_eq!(shown("bike", "deposit").unwrap().key_version(), None);
    assert_eq!(shown("ebike", "deposit").unwrap_err(), NotRecognised);
    assert_eq!(shown("bike", "other").unwrap_err(), NotRecognised);
}

fn verdict(presented: &Presented, consent: &Consent, answered: Option<i64>, at: i64) -> String {
    match presented.with(consent, answered.map(after), after(at), None) {
        Verdict::Grant(grant) => {
            assert_eq!(*grant.person(), consent.person);
            "Grant".to_owned()
        }
        Verdict::Repeat => "Repeat".to_owned(),
        Verdict::Lapsed(why) => format!("{why:?}"),
    }
}

/// Every combination of reasons: the first that applies, in this order, is the one that counts.
#[test]
fn what_a_shown_token_is_worth() {
    for bits in 0u32..64 {
        let has = |bit: u32| bits & (1 << bit) != 0;
        let consent = Consent {
            revoked: has(0).then(now),
            last_code: Some(LastCode { mac: CodeMac([1; 32]), used: has(2) }),
            ends: if has(3) { after(30) } else { after(1000) },
            uses_left: if has(4) { 0 } else { 1 },
            decline: has(5),
            ..consent()
        };
        let answered = has(1).then_some(0);
        for presented in [by_token(), by_code(1)] {
            let code = matches!(presented.shown(), Shown::Code(..));
            let expected = [
                (has(0), "Revoked"),
                (has(1), "Repeat"),
                (code && has(2), "DeadCode"),
                (has(3), "Ended"),
                (has(4), "UsedUp"),
                (has(5), "Declined"),
            ];
            let expected = expected.iter().find(|(applies, _)| *applies).map_or("Grant", |(_, why)| why);
            assert_eq!(verdict(&presented, &consent, answered, 30), expected, "{bits:06b}, a code: {code}");
        }
    }
}

#[test]
fn ends_are_exact_to_the_second() {
    let consent = consent();
    assert_eq!(verdict(&by_token(), &consent, None, 999), "Grant");
    assert_eq!(verdict(&by_token(), &consent, None, 1000), "Ended");
    assert_eq!(verdict(&by_code(1), &consent, None, 59), "Grant");
    assert_eq!(verdict(&by_code(1), &consent, None, 60), "DeadCode");
    assert_eq!(verdict(&by_token(), &consent, Some(0), 599), "Repeat");
    assert_eq!(verdict(&by_token(), &consent, Some(0), 600), "Grant");
    assert!(repeats(after(0), after(599)) && !repeats(after(0), after(600)));
}

#[test]
fn a_code_that_was_replaced_or_never_made_here_is_dead() {
    assert_eq!(verdict(&by_code(2), &consent(), None, 1), "DeadCode");
    assert_eq!(verdict(&by_code(1), &Consent { last_code: None, ..consent() }, None, 1), "DeadCode");
    assert_eq!(verdict(&by_token(), &Consent { last_code: None, ..consent() }, None, 1), "Grant");
}

/// A cell of another party or scenario gives nothing, whatever led to it.
#[test]
fn a_cell_that_is_not_the_tokens_gives_no_grant() {
    for foreign in [Consent { party: party("x"), ..consent() }, Consent { scenario: scenario("x"), ..consent() }] {
        assert_eq!(verdict(&by_token(), &foreign, Some(0), 1), "Revoked");
        assert_eq!(verdict(&by_code(1), &foreign, None, 1), "Revoked");
    }
}

#[test]
fn what_is_spent() {
    let spent = |presented: &Presented, consent: &Consent, answered: Option<i64>| {
        let verdict = presented.with(consent, answered.map(after), after(1), None);
        let after = presented.spend(consent, &verdict);
        assert_eq!(after.asked, consent.asked + 1, "every call goes into the access pages");
        let rest = Consent { asked: consent.asked, uses_left: consent.uses_left, ..after.clone() };
        assert_eq!(Consent { last_code: consent.last_code.clone(), ..rest }, *consent, "nothing else changes");
        (consent.uses_left - after.uses_left, after.last_code.is_some_and(|last| last.used))
    };
    let fresh = consent();
    assert_eq!(spent(&by_token(), &fresh, None), (1, false), "the token leaves the code alone");
    assert_eq!(spent(&by_token(), &fresh, Some(0)), (0, false), "a repeat");
    assert_eq!(spent(&by_code(1), &fresh, None), (1, true));
    assert_eq!(spent(&by_code(1), &fresh, Some(0)), (0, false), "a repeat");
    assert_eq!(spent(&by_code(2), &fresh, None), (0, false), "a dead code");
    assert_eq!(spent(&by_token(), &Consent { decline: true, ..consent() }, None), (1, false));
    assert_eq!(spent(&by_code(1), &Consent { decline: true, ..consent() }, None), (1, true));
    assert_eq!(spent(&by_token(), &Consent { revoked: Some(now()), ..consent() }, None), (1, false));
    assert_eq!(spent(&by_token(), &Consent { uses_left: 0, ..consent() }, None), (0, false), "there is none left");
    let many = Consent { asked: u32::MAX - 1, ..consent() };
    assert_eq!(spent(&by_token(), &many, None).0, 1);
}

#[test]
fn codes_are_read_however_they_are_typed() {
    let code = OneTimeCode::parse("0123-456A-BCDZ").unwrap();
    for text in
        ["0123456abcdz", "oI23 456A BCDZ", "O l 2 3-456a-bcdz", "\u{a0}0123\u{3000}456A\tBCDZ", "--0L23456ABCDZ--"]
    {
        assert!(OneTimeCode::parse(text) == Some(code.clone()), "{text:?}");
    }
    for text in [
        "",
        "0123-456A-BCD",
        "0123-456A-BCDZ0",
        "0123-456A-BCDU",
        "0123-456A-BCD!",
        "0123_456A_BCDZ",
        "０123456ABCDZ",
        "012345６ABCDZ",
    ] {
        assert!(OneTimeCode::parse(text).is_none(), "{text:?}");
    }
    assert_eq!(code.to_text(), "0123-456A-BCDZ");
}

#[test]
fn codes_are_spread_over_the_alphabet() {
    let entropy = SystemEntropy::new();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let code = OneTimeCode::generate(&entropy).unwrap();
        assert!(OneTimeCode::parse(&code.to_text()) == Some(code.clone()));
        seen.extend(code.as_bytes().to_vec());
    }
    assert_eq!(seen.len(), 32);
    assert!(!seen.iter().any(|c| b"ILOU".contains(c)));
}

#[test]
fn ids_read_back_in_one_spelling() {
    let id = ConsentId::generate(&SystemEntropy::new()).unwrap();
    let text = id.to_text();
    assert_eq!((text.len(), ConsentId::parse(&text)), (22, Some(id)));
    for odd in [format!("{text}="), format!(" {text}"), text[..21].to_owned(), format!("{text}A"), String::new()] {
        assert_eq!(ConsentId::parse(&odd), None, "{odd}");
    }
    let spellings = (b'A'..=b'z').filter(|last| {
        let odd = format!("{}{}", &text[..21], char::from(*last));
        ConsentId::parse(&odd).is_some_and(|read| read == id)
    });
    assert_eq!(spellings.count(), 1);
}

#[test]
fn debug_shows_no_secret() {
    let shown = format!("{:?} {:?} {:?}", Token::parse(&token(1)), by_code(1), OneTimeCode::parse("0123456ABCDZ"));
    for secret in ["0123", &token(1)[..10], "7, 7", "1, 1"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(!format!("{:?}", consent()).contains("9, 9"));
}

#[test]
fn a_consents_cell_has_room_for_the_longest_ids() {
    let long = "x".repeat(64);
    let longest = Consent {
        party: party(&long),
        scenario: scenario(&long),
        uses: u32::MAX,
        uses_left: u32::MAX,
        asked: u32::MAX,
        revoked: Some(now()),
        ..consent()
    };
    assert_eq!(Consent::decode(&longest.encode()), Ok(longest.clone()));
    assert!(longest.encode().len() <= 508, "one sealed length for all: {}", longest.encode().len());
}

proptest! {
    #[test]
    fn a_consents_cell_reads_back(
        ids in any::<([u8; 32], [u8; 32])>(), times in prop::array::uniform3(0i64..4_000_000_000_000),
        numbers in any::<(u32, u32, u32)>(), flags in any::<(bool, bool, bool, bool)>(),
    ) {
        let at = |ms: i64| Timestamp::from_millisecond(ms).unwrap();
        let (decline, revoked, coded, used) = flags;
        let consent = Consent {
            person: PersonId(ids.0),
            made: at(times[0]),
            ends: at(times[1]),
            uses: numbers.0,
            uses_left: numbers.1,
            asked: numbers.2,
            decline,
            revoked: revoked.then(|| at(times[2])),
            last_code: coded.then_some(LastCode { mac: CodeMac(ids.1), used }),
            ..consent()
        };
        prop_assert_eq!(Consent::decode(&consent.encode()), Ok(consent));
    }

    #[test]
    fn parsers_never_panic_and_read_only_their_own(text in "[\\PC\\n]{0,80}", bytes in any::<Vec<u8>>()) {
        if let Some(code) = OneTimeCode::parse(&text) {
            prop_assert!(OneTimeCode::parse(&code.to_text()) == Some(code));
        }
        let _ = (Token::parse(&text), Consent::decode(&bytes));
        if let Some(id) = ConsentId::parse(&text) {
            prop_assert_eq!(id.to_text(), text);
        }
    }

    #[test]
    fn any_code_is_read_back(index in prop::array::uniform12(0usize..32)) {
        let text: String = index.iter().map(|i| char::from(b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"[*i])).collect();
        let code = OneTimeCode::parse(&text.to_lowercase()).unwrap();
        prop_assert_eq!(code.as_bytes(), text.as_bytes());
    }
}
