//! Nothing personal and no secret is in the `Debug` of any type.
//!
//! The types that hold such values are found in the sources: by the names of their fields and by their own, where the content is
//! text, bytes or numbers, and by the types of key material. Each of them has no `Debug` at all, or one written by hand that
//! stands in a list here with the test that shows it something and looks for that. A type made of such types may derive its own:
//! it shows what they show.

use std::collections::BTreeSet;

use jadegate::attestation::Claims;
use jadegate::cli::feed_args::FeedArgs;
use jadegate::cli::pki::Authority;
use jadegate::cli::verify::Args;
use jadegate::client::Response;
use jadegate::code::{IndicatorCode, PartyId, RecordId, ScenarioId};
use jadegate::consent::{OneTimeCode, Token};
use jadegate::disclosure::{Decision, Standing};
use jadegate::entropy::SystemEntropy;
use jadegate::feed::Line;
use jadegate::gateway::{AskRequest, ConsentRequest, LogFilter};
use jadegate::http::problem::{Problem, code};
use jadegate::http::query::{Page, Query};
use jadegate::keys::{MacKey, RootKey, SecretKey, SigningKey};
use jadegate::market::MarketConsentId;
use jadegate::person::{IdType, Identity, Name, Person, PersonId};
use jadegate::record::Record;
use jadegate::score::{Outcome, Status};
use jadegate::store::Cell;
use jiff::civil::date;
use serde_json::json;

use super::{is_word, nothing, root, sources};
use crate::support::deployment::P1;
use crate::support::nightly::figure;
use crate::support::world::{World, keyring};

/// Fields whose text or bytes may not show, whatever type they are in.
const TEXTS: [&str; 27] = [
    "id_number",
    "number",
    "name",
    "token",
    "code",
    "session",
    "cookie",
    "cookies",
    "secret",
    "password",
    "attestation",
    "compact",
    "consent",
    "consent_ref",
    "detail",
    "claim",
    "met",
    "sub",
    "key_pem",
    "body",
    "bytes",
    "value",
    "query",
    "before",
    "case",
    "scenario",
    "party",
];
/// Fields that are a score, or what it is made of.
const NUMBERS: [&str; 6] = ["score", "points", "sum", "total", "counted", "gain"];
/// Types that are such a value themselves, by a part of their name.
const OWN: [&str; 11] = [
    "Token",
    "Secret",
    "Session",
    "Identity",
    "PersonId",
    "ConsentId",
    "OneTimeCode",
    "CodeMac",
    "RecordId",
    "Fields",
    "Query",
];
/// Key material.
const KEYS: [&str; 7] =
    ["Ed25519KeyPair", "EcdsaKeyPair", "KeyPair", "LessSafeKey", "Hmac", "Zeroizing", "PrivateKeyDer"];

/// Found by the words above, and not meant by them.
const NOT_MEANT: [(&str, &str, &str); 9] = [
    ("src/access_log/checkpoint.rs", "VerifierKey", "the name of a log"),
    ("src/ledger/logs.rs", "LogName", "the name of a log"),
    ("src/policy.rs", "Source", "the name of a policy file"),
    ("src/model.rs", "Rule", "the points that a model gives for an indicator"),
    ("src/cli/demo/city.rs", "Wish", "the score that a made-up resident of the demo is to have"),
    ("src/http/signature/sign.rs", "SigningKey", "compiled into that module's tests alone"),
    ("src/trial.rs", "Impact", "the name of a model"),
    ("src/trial.rs", "Part", "the code of a grade"),
    ("src/trial.rs", "DimensionMoves", "the code of a dimension"),
];

const HERE: &str = "what_may_not_show_is_in_no_debug";

/// Written by hand, and the test that looks at it.
const BY_HAND: [(&str, &str, &str); 40] = [
    ("src/attestation.rs", "Claims", HERE),
    ("src/cli/pki.rs", "Authority", HERE),
    ("src/cli/pki.rs", "Issued", HERE),
    ("src/cli/verify.rs", "Args", HERE),
    ("src/client.rs", "Client", "a_connection_is_kept_with_its_cookies_and_opened_again_when_it_was_closed"),
    ("src/client.rs", "Response", HERE),
    ("src/code.rs", "RecordId", HERE),
    ("src/consent/code.rs", "CodeMac", HERE),
    ("src/consent/code.rs", "OneTimeCode", HERE),
    ("src/consent/token.rs", "ConsentId", HERE),
    ("src/consent/token.rs", "Token", HERE),
    ("src/disclosure.rs", "Decision", HERE),
    ("src/feed.rs", "Line", HERE),
    ("src/gateway/ask.rs", "AskRequest", HERE),
    ("src/gateway/consents.rs", "ConsentRequest", HERE),
    ("src/gateway/consents.rs", "NewConsent", HERE),
    ("src/gateway/review.rs", "LogFilter", HERE),
    ("src/http/body.rs", "LargeBody", "large_bodies_share_one_room"),
    ("src/http/problem.rs", "Problem", HERE),
    ("src/http/query.rs", "Page", HERE),
    ("src/http/query.rs", "Query", HERE),
    ("src/keys.rs", "LogKey", HERE),
    ("src/keys.rs", "MacKey", HERE),
    ("src/keys.rs", "SecretKey", HERE),
    ("src/keys.rs", "SigningKey", HERE),
    ("src/keys/keyring.rs", "NewKeyring", "debug_shows_no_key"),
    ("src/market.rs", "MarketConsentId", HERE),
    ("src/person.rs", "Name", HERE),
    ("src/person.rs", "PersonId", HERE),
    ("src/person/identity.rs", "Identity", HERE),
    ("src/record.rs", "Record", HERE),
    ("src/score.rs", "Outcome", HERE),
    ("src/score/explain.rs", "DimensionSum", HERE),
    ("src/score/explain.rs", "Explanation", HERE),
    ("src/score/explain.rs", "IndicatorSum", HERE),
    ("src/score/explain.rs", "RecordPart", HERE),
    ("src/score/explain.rs", "Suggestion", HERE),
    ("src/store.rs", "Cell", HERE),
    ("src/store/postgres/options.rs", "PostgresOptions", "only_the_way_that_is_meant_leads_to_the_database"),
    ("src/web/request.rs", "Fields", "debug_shows_names_of_fields_alone"),
];

/// A type that holds what may not show.
struct Holder {
    path: String,
    name: String,
    /// What it was found by.
    by: String,
    derived: bool,
    by_hand: bool,
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_word(c)).filter(|word| !word.is_empty())
}

fn names_one(text: &str, known: &[&str]) -> bool {
    words(text).any(|word| known.contains(&word))
}

fn is_text(of: &str) -> bool {
    // What stands in the program is nobody's.
    let of = of.replace("&'static str", "");
    names_one(&of, &["String", "str", "u8", "Value", "Bytes", "HeaderValue"])
}

fn is_number(of: &str) -> bool {
    names_one(of, &["u16", "u32", "u64", "i64"])
}

/// The text from an opening bracket to the one that closes it.
fn bracketed(text: &str) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[1..at];
        }
    }
    ""
}

/// The parts between commas, commas within brackets aside; the arrow of a function closes nothing.
fn parts(body: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut found, mut before) = (0_i32, 0, Vec::new(), ' ');
    for (at, c) in body.char_indices() {
        match c {
            '{' | '(' | '[' | '<' => depth += 1,
            '>' if before == '-' => {}
            '}' | ')' | ']' | '>' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&body[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
        before = c;
    }
    found.push(&body[begin..]);
    found.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// Without the attributes in front of it.
fn bare(mut part: &str) -> &str {
    while let Some(rest) = part.trim_start().strip_prefix('#') {
        part = &rest[bracketed(rest).len() + 2..];
    }
    part.trim_start()
}

/// By what a type's body is found to hold something: fields, at any depth of an enum, and what the type is itself.
fn found_by(name: &str, is_enum: bool, body: &str) -> Option<String> {
    for part in parts(body).into_iter().map(bare) {
        let part = part.strip_prefix("pub").map_or(part, |rest| {
            let rest = rest.trim_start();
            if rest.starts_with('(') { rest[bracketed(rest).len() + 2..].trim_start() } else { rest }
        });
        if is_enum {
            let variant = super::word_at(part);
            let content = part[variant.len()..].trim_start();
            if content.starts_with('{')
                && let Some(by) = found_by(variant, false, bracketed(content))
            {
                return Some(by);
            }
            let own = OWN.iter().any(|own| variant.contains(own)) && is_text(content);
            if own || (NUMBERS.contains(&variant.to_lowercase().as_str()) && is_number(content)) {
                return Some(part.to_owned());
            }
        } else if let Some((field, of)) = part.split_once(':').filter(|(field, _)| field.trim().chars().all(is_word)) {
            let field = field.trim();
            if (TEXTS.contains(&field) && is_text(of)) || (NUMBERS.contains(&field) && is_number(of)) {
                return Some(part.to_owned());
            }
        }
    }
    let own = OWN.iter().any(|own| name.contains(own)) || name == "Name";
    let found = (own && is_text(body)) || names_one(body, &KEYS);
    found.then(|| format!("what it is: {}", body.split_whitespace().collect::<Vec<_>>().join(" ")))
}

/// The types of a file, tests aside.
fn holders_in(path: &str, code: &str) -> Vec<Holder> {
    let code = &code[..code.find("#[cfg(test)]\nmod tests {").unwrap_or(code.len())];
    let mut found = Vec::new();
    for (kind, is_enum) in [("struct ", false), ("enum ", true)] {
        for (at, _) in code.match_indices(kind) {
            let line = code[..at].rfind('\n').map_or(0, |end| end + 1);
            if !["", "pub ", "pub(crate) ", "pub(super) "].contains(&code[line..at].trim_start()) {
                continue;
            }
            let name = super::word_at(&code[at + kind.len()..]);
            let rest = &code[at + kind.len() + name.len()..];
            let Some(open) = rest.find(['{', '(', ';']).filter(|open| !rest[*open..].starts_with(';')) else {
                continue;
            };
            let Some(by) = found_by(name, is_enum, bracketed(&rest[open..])) else { continue };
            // The attributes stand right above it, with nothing between.
            let above: Vec<&str> = code[..line].lines().rev().take_while(|line| !ends_something(line)).collect();
            let derived = above.iter().any(|line| names_one(line, &["Debug"]));
            let by_hand = code.contains(&format!("Debug for {name} ")) || code.contains(&format!("Debug for {name}<"));
            found.push(Holder { path: path.to_owned(), name: name.to_owned(), by, derived, by_hand });
        }
    }
    found
}

fn ends_something(line: &str) -> bool {
    let line = line.trim_end();
    (line.ends_with(['}', ';', '{']) || line.ends_with("),")) && !line.trim_start().starts_with('#')
}

fn holders() -> Vec<Holder> {
    let all = sources();
    let tests = |path: &str| path.contains("/tests");
    all.iter().filter(|source| !tests(&source.path)).flat_map(|source| holders_in(&source.path, &source.code)).collect()
}

#[test]
fn each_type_that_holds_what_may_not_show_has_no_debug_or_a_tested_one() {
    let found = holders();
    assert!(found.len() > 40, "{} types", found.len());
    let everything: String =
        ["src", "tests"].iter().flat_map(|at| super::files(at, ".rs")).map(|(_, text)| text).collect();
    let mut wrong = Vec::new();
    for holder in &found {
        let Holder { path, name, by, .. } = holder;
        let is = |(at, known): (&str, &str)| (at, known) == (path.as_str(), name.as_str());
        if NOT_MEANT.iter().any(|(at, known, _)| is((at, known))) {
            continue;
        }
        let listed = BY_HAND.iter().find(|(at, known, _)| is((at, known)));
        if holder.derived {
            wrong.push(format!("{path}: {name} derives Debug, and has {by}"));
        } else if holder.by_hand && listed.is_none() {
            wrong.push(format!("{path}: {name} has {by}; no test in the list shows its Debug"));
        } else if !holder.by_hand && listed.is_some() {
            wrong.push(format!("{path}: {name} has no Debug of its own any more"));
        }
        if let Some((_, _, test)) = listed {
            let body = everything.split_once(&format!("fn {test}(")).map_or("", |(_, rest)| rest);
            let body = body.split_once("\n}\n").map_or(body, |(body, _)| body);
            if !body.contains(":?}") || !names_one(body, &[name]) {
                wrong.push(format!("{path}: {test} does not show a {name}"));
            }
        }
    }
    let there: BTreeSet<(&str, &str)> = found.iter().map(|h| (h.path.as_str(), h.name.as_str())).collect();
    let listed =
        BY_HAND.iter().map(|(at, known, _)| (*at, *known)).chain(NOT_MEANT.iter().map(|(at, known, _)| (*at, *known)));
    wrong.extend(
        listed.filter(|one| !there.contains(one)).map(|(at, name)| format!("{at}: no {name} is found any more")),
    );
    nothing(&wrong);
    figure(
        "types that hold what may not show",
        format_args!("{}, {} of them with a Debug written by hand", found.len(), BY_HAND.len()),
    );
}

#[test]
fn the_finder_of_types_sees_what_it_should() {
    let code = "#[derive(Debug)]\npub struct A<'a> {\n    #[serde(default)]\n    pub(crate) token: Option<&'a str>,\n}\n\
        #[derive(Clone)]\nstruct B(Vec<u8>, u8);\n#[derive(Debug, Clone)]\n#[serde(x)]\nenum C {\n    Score(u16),\n    Other,\n}\n\
        #[derive(Debug)]\nenum D {\n    E { id_number: String },\n}\npub struct TokenOf([u8; 3]);\nimpl fmt::Debug for TokenOf {\n}\n\
        #[derive(Debug)]\nstruct F {\n    token: &'static str,\n    code: Code,\n    points: Points,\n}\nstruct G {\n    pair: Arc<KeyPair>,\n}\n";
    let seen: Vec<_> = holders_in("x", code).into_iter().map(|h| (h.name, h.derived, h.by_hand)).collect();
    let named = |name: &str, derived, by_hand| (name.to_owned(), derived, by_hand);
    let expected = [
        named("A", true, false),
        named("TokenOf", false, true),
        named("G", false, false),
        named("C", true, false),
        named("D", true, false),
    ];
    assert_eq!(seen, expected);
    assert!(root().join("src").exists());
}

/// Whatever may not show, put into each type and looked for in what `Debug` makes of it.
#[tokio::test]
async fn what_may_not_show_is_in_no_debug() {
    let world = World::new().await;
    let login = world.good(1).await;
    let given = world.consent(&login, "yx-bike", "bike-deposit", 20).await;
    let code_text = world.code(&login, &given).await;
    let (token, id) = (given.token.clone(), given.id.to_text());
    let listed = world.gateway.consents(&login).await.unwrap();
    let explanation = world.gateway.score(&login).await.unwrap().explanation;
    let score = explanation.outcome.score.unwrap().to_string();
    let all = format!("{P1} 欧阳金丝雀 {token} {code_text} {score}");
    let bytes = [b'7'; 32];
    let identity = Identity::parse(IdType::ResidentId, P1, date(2026, 11, 25)).unwrap();
    let name = Name::parse("欧阳金丝雀").unwrap();
    let now: jiff::Timestamp = "2026-11-25T02:00:00Z".parse().unwrap();

    let mut shown: Vec<(&str, String)> = Vec::new();
    macro_rules! show {
        ($name:ident, $value:expr) => {
            shown.push((stringify!($name), format!("{:?}", $value)));
        };
    }
    show!(Identity, identity);
    show!(Name, name);
    show!(PersonId, PersonId(bytes));
    let (full_capacity, resident) = (true, true);
    let born_on = date(1990, 1, 1);
    show!(Person, Person { identity: identity.clone(), name: name.clone(), born_on, resident, full_capacity });
    show!(RecordId, RecordId::parse(&code_text).unwrap());
    let record = Record {
        id: RecordId::parse(&code_text).unwrap(),
        provider: PartyId::parse("yx-court").unwrap(),
        indicator: IndicatorCode::parse("volunteer-hours").unwrap(),
        identity,
        name,
        occurred_on: date(2026, 1, 1),
        valid_until: None,
        quantity: Some(650),
        consent_ref: Some(all.clone()),
        detail: Some(all.clone()),
    };
    show!(Record, record);
    show!(Line, Line { number: 1, bytes: Ok(all.clone().into_bytes()) });

    show!(Token, Token::parse(&token).unwrap());
    show!(ConsentId, given.id);
    show!(MarketConsentId, MarketConsentId::parse(&format!("mc-{}", given.id.to_text())).unwrap());
    show!(OneTimeCode, OneTimeCode::parse(&code_text).unwrap());
    show!(CodeMac, listed[0].consent.last_code.as_ref().unwrap().mac);
    show!(NewConsent, given);
    show!(ConsentView, listed);
    let [scenario, consent, nonce] = [all.clone(), token.clone(), all.clone()];
    show!(AskRequest, AskRequest { scenario, consent, nonce });
    show!(ConsentRequest, ConsentRequest { scenario: all.clone(), party: Some(all.clone()), ..Default::default() });
    show!(LogFilter, LogFilter { case: Some(all.clone()), ..LogFilter::default() });

    show!(Explanation, explanation);
    show!(Outcome, explanation.outcome);
    for dimension in &explanation.dimensions {
        show!(DimensionSum, dimension);
        for indicator in &dimension.indicators {
            show!(IndicatorSum, indicator);
        }
    }
    show!(RecordPart, explanation.records[0]);
    show!(Suggestion, explanation.would_raise);
    let outcome = Outcome { status: Status::Scored, score: Some(650), grade: None };
    show!(Standing, Standing::new(outcome, date(2026, 11, 25), None, [0; 32]));
    show!(Decision, Decision { met: true, claim: json!({"score_at_least": 650}) });
    let claims = Claims {
        iss: "https://yuxi.example".into(),
        aud: PartyId::parse("yx-bike").unwrap(),
        iat: 0,
        exp: 1,
        jti: token.clone(),
        nonce: token.clone(),
        scenario: ScenarioId::parse("bike-deposit").unwrap(),
        as_of: date(2026, 11, 25),
        sub: Some(all.clone()),
        met: json!({"grade": all}),
        model: "m".into(),
    };
    show!(Claims, claims);
    let path = std::path::PathBuf::from("jwks.json");
    show!(
        Args,
        Args {
            token: Some(all.clone()),
            jwks: path,
            aud: None,
            nonce: Some(token.clone()),
            proof: None,
            log_key: None,
            file: None,
            receipts: None,
            feed: FeedArgs::default()
        }
    );

    let mut headers = http::HeaderMap::new();
    headers.insert("set-cookie", http::HeaderValue::from_str(&token).unwrap());
    show!(Response, Response { status: http::StatusCode::OK, headers, body: all.clone().into() });
    show!(Problem, Problem::new(code::BAD_QUERY, all.clone()).with("field", all.clone()));
    let query = Query::read(&format!("/list?before={token}").parse().unwrap(), &["before"]).unwrap();
    show!(Page, query.page().unwrap());
    show!(Query, query);
    let _the_type_that_is_meant: Page = query.page().unwrap();

    show!(Cell, Cell { version: 1, value: all.clone().into_bytes() });
    show!(SecretKey, SecretKey::new(bytes));
    show!(MacKey, MacKey::new(&SecretKey::new(bytes)));
    let root_key = RootKey::generate(&SystemEntropy::new()).unwrap();
    show!(RootKey, root_key);
    let pkcs8 = SigningKey::generate().unwrap();
    show!(SigningKey, SigningKey::from_pkcs8(&pkcs8).unwrap());
    show!(LogKey, keyring().log());
    show!(Keyring, keyring());
    let authority = Authority::make("yuxi", now).unwrap();
    show!(Issued, authority.own());
    show!(Authority, authority);

    let as_numbers = |text: &str| {
        let numbers: Vec<String> = text.bytes().take(4).map(|byte| byte.to_string()).collect();
        numbers.join(", ")
    };
    let root_text = root_key.to_text();
    let mut secrets: Vec<String> =
        [P1, "欧阳", &token[..12], &code_text, &id, "55, 55", "77777777", &score, "BEGIN", "1990"]
            .into_iter()
            .chain([&root_text[root_text.len() - 20..]])
            .map(str::to_owned)
            .collect();
    secrets.extend([P1, "欧阳", &token, &code_text].map(as_numbers));
    for (of, shown) in &shown {
        for secret in &secrets {
            // Few digits stand in the random id of a key by chance; what is meant stands alone.
            let few = secret.len() < 8 && secret.bytes().all(|byte| byte.is_ascii_digit());
            let there = if few { words(shown).any(|word| word == secret) } else { shown.contains(secret.as_str()) };
            assert!(!there, "{secret:?} is in the Debug of {of}: {shown}");
        }
    }
    assert!(shown.len() > 40, "{}", shown.len());
}
