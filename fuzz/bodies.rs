//! What each parser promises for any bytes, as one function a parser. The fuzz targets run them, and so does
//! `tests/it/corpora.rs`, over the same corpora.
//!
//! A body fails by a panic: one of the parser, or one of its own, where what was read has a second spelling, does not
//! read again as itself, is larger than it may be, or a message repeats what it must not.

use std::io::{Cursor, Write as _};
use std::path::Path;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use jadegate::access_log::checkpoint::{Checkpoint, NoteError, NoteSigner, VerifierKey};
use jadegate::access_log::proof::Proof;
use jadegate::access_log::tile::{RightEdge, TileRequest};
use jadegate::access_log::{ENTRY_BYTES, leaf_hash};
use jadegate::code::{IndicatorCode, PartyId, RecordId};
use jadegate::config::{Config, ConfigError};
use jadegate::consent::{Consent, ConsentId, OneTimeCode, Token};
use jadegate::disclosure::Standing;
use jadegate::feed::{self, FeedError, Form, How, Kind, Mapping, Source as FeedSource, ndjson};
use jadegate::gateway::EntryId;
use jadegate::http::body::{Object, read_json};
use jadegate::http::problem::Problem;
use jadegate::http::query::Query;
use jadegate::http::signature::{
    BaseAddress, KeyDirectory, SignatureError, SignedHead, Verified, VerifyingKey, signature_base, verify,
};
use jadegate::intake::{self, LINE_BYTES_MAX, LineError, RecordRules, Source};
use jadegate::ledger::manifest;
use jadegate::person::{IdType, Identity, NAME_CHARS_MAX, Name};
use jadegate::policies::{PolicySet, shipped};
use jadegate::policy::{Mistake, Mistakes, Source as PolicySource};
use jadegate::record::Held;
use jadegate::vault::{looks_like_a_person, looks_sealed};
use jiff::Timestamp;
use jiff::civil::{Date, date};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::Deserialize;
use serde_json::{Map, Value};

/// A parser's promises, and what trying them costs.
pub struct Body {
    /// The name of its fuzz target and of its corpus.
    pub name: &'static str,
    /// Fails where a promise is broken.
    pub run: fn(&[u8]),
    /// How many bytes may be held at once: so many, and so many for each byte of input.
    #[allow(dead_code, reason = "the fuzz targets alone measure it")]
    room: (usize, usize),
    /// How many mutations CI tries, and the night.
    pub rounds: (usize, usize),
}

impl Body {
    const fn new(name: &'static str, run: fn(&[u8]), room: (usize, usize), rounds: (usize, usize)) -> Self {
        Self { name, run, room, rounds }
    }

    /// How many bytes may be held at once for an input of this length.
    #[allow(dead_code, reason = "the fuzz targets alone measure it")]
    pub fn room(&self, input: usize) -> usize {
        self.room.0 + self.room.1 * input
    }
}

const KIB: usize = 1024;

pub const TOKEN: Body = Body::new("token", token, (4 * KIB, 8), (3_000, 100_000));
pub const CODE: Body = Body::new("code", code, (4 * KIB, 8), (3_000, 100_000));
pub const SIGNATURE: Body = Body::new("signature", signature, (64 * KIB, 64), (2_000, 50_000));
pub const JSON: Body = Body::new("json", json, (64 * KIB, 128), (3_000, 100_000));
pub const NDJSON: Body = Body::new("ndjson", ndjson, (256 * KIB, 128), (2_000, 50_000));
pub const CSV: Body = Body::new("csv", csv, (512 * KIB, 256), (2_000, 50_000));
pub const XLSX: Body = Body::new("xlsx", xlsx, (2 * KIB * KIB, 256), (1_000, 30_000));
pub const MAPPING: Body = Body::new("mapping", mapping, (512 * KIB, 512), (1_000, 30_000));
pub const POLICIES: Body = Body::new("policies", policies, (16 * KIB * KIB, 512), (100, 3_000));
pub const PROOF: Body = Body::new("proof", proof, (64 * KIB, 32), (2_000, 50_000));
pub const CHECKPOINT: Body = Body::new("checkpoint", checkpoint, (64 * KIB, 64), (2_000, 50_000));
pub const CELLS: Body = Body::new("cells", cells, (256 * KIB, 128), (3_000, 100_000));
pub const IDENTITY: Body = Body::new("identity", identity, (16 * KIB, 64), (3_000, 100_000));
pub const CONFIG: Body = Body::new("config", config, (256 * KIB, 512), (1_000, 30_000));

/// All of them.
pub const ALL: [&Body; 14] = [
    &TOKEN,
    &CODE,
    &SIGNATURE,
    &JSON,
    &NDJSON,
    &CSV,
    &XLSX,
    &MAPPING,
    &POLICIES,
    &PROOF,
    &CHECKPOINT,
    &CELLS,
    &IDENTITY,
    &CONFIG,
];

const TODAY: Date = date(2026, 11, 25);
/// When the corpus of signatures was made, in seconds since 1970.
const NOW: i64 = 1_790_000_000;
const SECRET: &[u8] = b"a secret of thirty-two bytes or so";

/// Makes what bodies share, so that it counts for none of them.
pub fn ready() {
    shared();
}

struct Shared {
    set: PolicySet,
    court: PartyId,
    pair: Ed25519KeyPair,
    key: VerifierKey,
}

fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let public = pair.public_key().as_ref().try_into().unwrap();
        Shared {
            set: PolicySet::parse(shipped()).unwrap(),
            court: PartyId::parse("yx-court").unwrap(),
            key: VerifierKey::new("log.example/one", public).unwrap(),
            pair,
        }
    })
}

/// The longest run of digits in a text that could be somebody's number.
fn numbers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_digit()).filter(|run| run.len() >= 8)
}

/// A message for people: short, and with nobody's number in it.
#[track_caller]
fn quiet(message: &str, most: usize) {
    assert!(message.len() <= most, "a message of {} bytes", message.len());
    // The one number that a message has of its own: how days may be written.
    assert_eq!(numbers(&message.replace(" 20250301 ", "")).next(), None, "a number in a message");
}

/// Tokens, and the ids of consents: one spelling each.
fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(token) = Token::parse(text) {
        let bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
        assert_eq!(URL_SAFE_NO_PAD.encode(&bytes), text, "a token has one spelling");
        assert_eq!((bytes.len(), bytes[0]), (51, 1));
        assert_eq!(format!("{token:?}"), "Token(..)");
        assert!(Token::parse(&format!("{text}=")).is_none() && Token::parse(&format!(" {text}")).is_none());
    }
    if let Some(id) = ConsentId::parse(text) {
        assert_eq!(id.to_text(), text, "a consent's id has one spelling");
        assert_eq!(format!("{id:?}"), "ConsentId(..)");
    }
    if let Some(id) = EntryId::parse(text) {
        assert_eq!(id.to_string(), text, "an entry's id has one spelling");
        assert_eq!(EntryId::from_bytes(&id.to_bytes()), id);
    }
}

/// One-time codes: twelve characters of the alphabet, whatever was typed.
fn code(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(code) = OneTimeCode::parse(text) else { return };
    let known = |c: char| "- \t\u{a0}\u{3000}".contains(c) || (c.is_ascii_alphanumeric() && !"uU".contains(c));
    assert!(text.chars().all(known), "a character that no code has");
    let written = code.to_text();
    assert_eq!(written.len(), 14);
    assert!(code.as_bytes().iter().all(|b| b.is_ascii_digit() || (b.is_ascii_uppercase() && !b"ILOU".contains(b))));
    assert_eq!(OneTimeCode::parse(&written).as_ref(), Some(&code));
    assert_eq!(OneTimeCode::parse(&written.to_lowercase().replace('-', " ")).as_ref(), Some(&code));
    assert_eq!(OneTimeCode::parse(&format!("{written}0")), None, "a thirteenth character");
    assert_eq!(format!("{code:?}"), "OneTimeCode(..)");
}

/// A call as a file: `METHOD TARGET`, header lines, an empty line, the body.
#[derive(Clone)]
struct Call {
    method: String,
    target: Uri,
    headers: HeaderMap,
    body: Vec<u8>,
}

struct Keys;

impl KeyDirectory for Keys {
    fn key(&self, key_id: &str) -> Option<VerifyingKey<'_>> {
        let shared = shared();
        match key_id {
            "mac" => Some(VerifyingKey::HmacSha256(SECRET)),
            "ed" => Some(VerifyingKey::Ed25519(*shared.key.public())),
            _ => None,
        }
    }
}

impl Call {
    fn read(data: &[u8]) -> Option<Self> {
        let mut lines = data.splitn(2, |b| *b == b'\n');
        let (method, target) = std::str::from_utf8(lines.next()?).ok()?.split_once(' ')?;
        let (mut rest, mut headers) = (lines.next()?, HeaderMap::new());
        loop {
            let end = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            let Some(colon) = line.iter().position(|b| *b == b':') else { break };
            let name = HeaderName::from_bytes(&line[..colon]).ok()?;
            headers.try_append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?).ok()?;
        }
        Some(Self { method: method.to_owned(), target: target.parse().ok()?, headers, body: rest.to_vec() })
    }

    fn head<'a>(&'a self, base: &'a BaseAddress) -> SignedHead<'a> {
        SignedHead { method: &self.method, base, target: &self.target, headers: &self.headers }
    }

    fn check(&self, base: &BaseAddress, now: i64) -> Result<Verified, SignatureError> {
        verify(&self.head(base), &self.body, &Keys, Timestamp::from_second(now).unwrap())
    }

    /// The same call, signed over whatever it says that it covers, by who holds the shared key.
    fn signed(&self, base: &BaseAddress) -> Option<Self> {
        let text = signature_base(&self.head(base)).ok()?;
        let last = text.lines().last().unwrap_or_default();
        assert!(last.starts_with("\"@signature-params\": ("), "the base ends with its parameters");
        let said = self.headers.get("signature-input")?.to_str().ok()?;
        let label = said.split_once('=')?.0.trim();
        let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET), text.as_bytes());
        let mut call = self.clone();
        let value = format!("{label}=:{}:", STANDARD.encode(tag));
        call.headers.insert("signature", HeaderValue::try_from(value).ok()?);
        Some(call)
    }
}

/// Signed calls: whatever is covered, what is believed is no other call.
fn signature(data: &[u8]) {
    let Some(call) = Call::read(data) else { return };
    static BASE: OnceLock<BaseAddress> = OnceLock::new();
    let base = BASE.get_or_init(|| BaseAddress::parse("https://score.example:8443").unwrap());
    if let Ok(again) = BaseAddress::parse(&call.target.to_string()) {
        assert_eq!(BaseAddress::parse(&again.to_string()), Ok(again), "a base address has one spelling");
    }
    let _ = Query::read(&call.target, &["limit", "before"]).map(|query| query.page());
    for call in [Some(call.clone()), call.signed(base)].into_iter().flatten() {
        let said = call.check(base, NOW);
        assert_eq!(said, call.check(base, NOW));
        match said {
            Err(error) => {
                let message = error.to_string();
                assert!(message.len() <= 512 && !message.contains("thirty-two"), "{message}");
                assert!(Problem::from(error).status().is_client_error());
            }
            Ok(verified) => believed(&call, base, &verified),
        }
    }
}

fn believed(call: &Call, base: &BaseAddress, verified: &Verified) {
    assert!((16..=128).contains(&verified.nonce.len()) && ["mac", "ed"].contains(&verified.key_id.as_str()));
    assert!((verified.created - NOW).abs() <= 300);
    let refused = |bent: Call, what: &str| assert!(bent.check(base, NOW).is_err(), "believed with {what}");
    refused(Call { method: format!("{}X", call.method), ..call.clone() }, "another method");
    if let Ok(target) = format!("{}x", call.target).parse() {
        refused(Call { target, ..call.clone() }, "another target");
    }
    refused(Call { body: [&call.body, b"x".as_slice()].concat(), ..call.clone() }, "another body");
    for (name, value) in [
        ("content-type", "text/x"),
        ("signature-input", "zz=(\"@method\");created=1"),
        ("signature", "zz=:AAAA:"),
        ("host", "other.example"),
        ("content-digest", "sha-256=:AAAA:"),
    ] {
        let mut more = call.clone();
        more.headers.append(name, HeaderValue::from_static(value));
        refused(more, name);
        let mut less = call.clone();
        less.headers.remove(name);
        refused(less, name);
    }
    assert!(matches!(call.check(base, NOW + 601), Err(SignatureError::Stale { .. })));
    assert!(matches!(call.check(base, NOW - 601), Err(SignatureError::Stale { .. })));
}

/// The bodies that calls have, as their handlers read them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only the reading is tried")]
struct Ask {
    scenario: String,
    consent: String,
    nonce: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only the reading is tried")]
struct NewConsent {
    scenario: String,
    party: Option<String>,
    uses: Option<u32>,
    days: Option<u32>,
    #[serde(default)]
    decline: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only the reading is tried")]
struct NewCase {
    reason: String,
    person: Object<CasePerson>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only the reading is tried")]
struct CasePerson {
    id_type: Option<String>,
    id_number: String,
}

/// The texts that are values, and those that are names.
fn texts<'a>(value: &'a Value, values: &mut Vec<&'a str>, names: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => values.push(text),
        Value::Array(list) => list.iter().for_each(|value| texts(value, values, names)),
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            names.push(name);
            texts(value, values, names);
        }),
        _ => {}
    }
}

fn has_a_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(list) => list.iter().any(has_a_fraction),
        Value::Object(members) => members.values().any(has_a_fraction),
        _ => false,
    }
}

/// Bodies of calls: read in one way only, and refused without a word of what they say.
fn json(data: &[u8]) {
    type Whole = Map<String, Value>;
    let lenient: Option<Value> = serde_json::from_slice(data).ok();
    let (mut values, mut names) = (Vec::new(), Vec::new());
    if let Some(value) = &lenient {
        texts(value, &mut values, &mut names);
    }
    let whole = read_json::<Whole>(data);
    let read = [
        read_json::<Ask>(data).map(drop),
        read_json::<NewConsent>(data).map(drop),
        read_json::<NewCase>(data).map(drop),
        whole.as_ref().map(drop).map_err(|problem| Problem::new(problem.code(), problem.detail())),
    ];
    for problem in read.iter().filter_map(|read| read.as_ref().err()) {
        assert!(problem.status().is_client_error());
        let told = problem.to_json();
        let bytes = told.to_string().len();
        assert!(bytes <= 2 * KIB + 8 * data.len(), "a problem of {bytes} bytes");
        // As it is read and not as it is escaped: the zeros of an escape are no digits of a number behind it.
        let mut words = Vec::new();
        texts(&told, &mut words, &mut Vec::new());
        for secret in values.iter().flat_map(|value| numbers(value)) {
            let is_told = words.iter().any(|word| word.contains(secret));
            // A name is told, and as Rust escapes it: the zero of a `\0` may stand before digits of its own.
            let in_a_name = |name: &&str| name.contains(secret) || format!("{name:?}").contains(secret);
            assert!(!is_told || names.iter().any(in_a_name), "a value is told");
        }
    }
    let Ok(whole) = whole else {
        assert!(read.iter().all(Result::is_err), "no object, and yet a call");
        return;
    };
    assert_eq!(lenient, Some(Value::Object(whole.clone())));
    let text = std::str::from_utf8(data).unwrap().trim();
    if !lenient.as_ref().is_some_and(has_a_fraction) {
        let again = serde_json::to_string(&whole).unwrap();
        assert!(again.len() <= 6 * data.len() + 2);
        assert_eq!(read_json::<Whole>(again.as_bytes()).ok(), Some(whole.clone()));
    }
    for behind in ["x", "{}", ","] {
        assert!(read_json::<Whole>(format!("{text}{behind}").as_bytes()).is_err());
    }
    if let Some(name) = whole.keys().next() {
        let twice = format!("{{{}:0,{}", Value::from(name.as_str()), &text[1..]);
        let code = read_json::<Whole>(twice.as_bytes()).err().map(|problem| problem.code());
        assert_eq!(code, Some("duplicate-field"));
    }
}

fn rules(source: Source<'_>) -> RecordRules<'_> {
    let set = &shared().set;
    RecordRules { catalogue: &set.catalogue, prohibited: &set.prohibited, today: TODAY, source }
}

/// A line of a feed: what is accepted reads again as itself, under the rules of a file and as it is stored.
fn line(line: &[u8]) {
    let told = |error: LineError| quiet(&error.to_string(), 512);
    for source in [Source::File, Source::Party(&shared().court)] {
        match intake::record(line, &rules(source)) {
            Ok(held) => {
                same_record(&held, line.len());
                assert_eq!(intake::record(held.to_json().to_string().as_bytes(), &rules(source)), Ok(held));
            }
            Err(error) => told(error),
        }
    }
    match intake::person(line, TODAY, &shared().set.prohibited) {
        Ok(person) => {
            let again = person.to_json().to_string();
            assert!(again.len() <= 2 * line.len() + 256);
            assert!(intake::stored_person(again.as_bytes()).as_ref() == Ok(&person));
            assert!(intake::person(again.as_bytes(), TODAY, &shared().set.prohibited) == Ok(person));
        }
        Err(error) => told(error),
    }
}

fn same_record(held: &Held, line: usize) {
    let again = held.to_json().to_string();
    assert!(again.len() <= 2 * line + 256, "{} bytes of {line}", again.len());
    assert!(intake::stored_record(again.as_bytes()).as_ref() == Ok(held), "a record reads again as itself");
    assert_eq!(numbers(&format!("{held:?}")).find(|run| held.record.identity.number().contains(run)), None);
}

/// NDJSON: lines are counted, none is longer than it may be, and they are the same lines when they are written again.
fn ndjson(data: &[u8]) {
    let lines = |data: &[u8]| -> Vec<Vec<u8>> {
        ndjson::Lines::new(data)
            .enumerate()
            .map(|(at, line)| {
                let line = line.unwrap();
                assert_eq!(line.number, at as u64 + 1);
                line.bytes.unwrap()
            })
            .collect()
    };
    let read = lines(data);
    let ends = data.iter().filter(|b| **b == b'\n').count();
    assert!(read.len() <= ends + 1 && read.iter().map(Vec::len).sum::<usize>() <= data.len());
    assert!(read.iter().all(|line| line.len() <= LINE_BYTES_MAX + 5 && !line.contains(&b'\n')));
    let mut written: Vec<u8> = read.iter().flat_map(|line| line.iter().chain(b"\r\n").copied()).collect();
    if written.starts_with(ndjson::BOM) {
        written.splice(0..0, ndjson::BOM.iter().copied());
    }
    assert_eq!(lines(&written), read);
    read.iter().for_each(|read| line(read));
}

/// Rows by the line on which they begin.
type Rows = Vec<(u64, Result<Vec<u8>, LineError>)>;

fn table(data: &[u8], kind: Kind) -> Option<Rows> {
    feed("a.csv", Cursor::new(data), kind).filter(|(form, _)| *form == Form::Csv).map(|(_, rows)| rows)
}

/// What opens is read to its end: nothing is taken of a file that cannot be.
fn feed(name: &str, source: impl FeedSource, kind: Kind) -> Option<(Form, Rows)> {
    let how = How { provider: Some("yx-court"), ..How::plain(kind, &shared().set.prohibited) };
    let opened = match feed::open(name, source, &how) {
        Ok(opened) => opened,
        Err(error) => {
            let limit = if matches!(error, FeedError::UnknownHeadings { .. }) { 2 * KIB } else { KIB };
            quiet(&error.to_string(), limit);
            return None;
        }
    };
    let rows = opened.lines.map(|line| line.unwrap()).map(|line| (line.number, line.bytes)).collect();
    Some((opened.form, rows))
}

/// Workbooks: the input is a sheet and, behind a NUL, the shared texts; or, where it begins so, a whole file. Rows are lines
/// as those of tables are, and no message has a number of a cell in it.
fn xlsx(data: &[u8]) {
    let bytes = if data.starts_with(b"PK") { data.to_vec() } else { workbook(data) };
    for kind in [Kind::Records, Kind::Register] {
        let Some((form, rows)) = feed("a.xlsx", Cursor::new(&bytes), kind) else { continue };
        assert_eq!(form, Form::Xlsx);
        for (_, row) in &rows {
            match row {
                Ok(row) => {
                    assert!(row.len() <= LINE_BYTES_MAX && matches!(row.first(), Some(b'{')));
                    line(row);
                }
                Err(error) => quiet(&error.message, KIB),
            }
        }
        assert_eq!(feed("a.csv", Cursor::new(&bytes), kind), Some((form, rows)), "the content says what a file is");
    }
}

/// A packed file around a sheet, its parts as they are.
fn workbook(data: &[u8]) -> Vec<u8> {
    let mut halves = data.splitn(2, |byte| *byte == 0);
    let (sheet, shared) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
    let parts: [(&str, &[u8]); 7] = [
        ("[Content_Types].xml", b"<Types/>"),
        ("_rels/.rels", b"<Relationships/>"),
        ("xl/workbook.xml", b"<workbook><sheets><sheet name=\"a\" r:id=\"s\"/></sheets></workbook>"),
        (
            "xl/_rels/workbook.xml.rels",
            b"<R><Relationship Id=\"s\" Type=\"x/worksheet\" Target=\"s.xml\"/><Relationship Id=\"t\" Type=\"x/sharedStrings\" Target=\"t.xml\"/><Relationship Id=\"u\" Type=\"x/styles\" Target=\"u.xml\"/></R>",
        ),
        ("xl/s.xml", sheet),
        ("xl/t.xml", shared),
        ("xl/u.xml", b"<styleSheet><cellXfs><xf numFmtId=\"0\"/><xf numFmtId=\"14\"/></cellXfs></styleSheet>"),
    ];
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in parts {
        zip.start_file(name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Mapping files: every mistake has its place, and what is read is used without another word.
fn mapping(data: &[u8]) {
    let mut mistakes = Mistakes::new();
    let source = PolicySource::from_bytes("mapping.toml", data, &mut mistakes);
    let read = Mapping::parse(&source, &mut mistakes);
    match mistakes.or(read) {
        Ok(mapping) => {
            let how = How { mapping: Some(&mapping), ..How::plain(Kind::Records, &shared().set.prohibited) };
            if let Ok(opened) = feed::open("a.csv", Cursor::new(MAPPED), &how) {
                opened.lines.for_each(|line| drop(line.unwrap()));
            }
        }
        Err(mistakes) => {
            let lines = source.text.lines().count().max(1) + 1;
            assert!(mistakes.iter().all(|m| m.line >= 1 && m.line <= lines && !m.help.is_empty()));
        }
    }
}

const MAPPED: &str =
    "案号,报送单位,指标代码,身份证号,姓名,发生日期\n1,yx-court,judgment,530499199001010015,王芳,2025-03-01\n";

/// Tables: rows in order, each the line it would be, and the same with a mark that says UTF-8.
fn csv(data: &[u8]) {
    for kind in [Kind::Records, Kind::Register] {
        let Some(rows) = table(data, kind) else { continue };
        let mut before = 1;
        for (number, row) in &rows {
            assert!(*number > before, "line {number} behind line {before}");
            before = *number;
            match row {
                Ok(row) => {
                    assert!(row.len() <= 6 * LINE_BYTES_MAX + KIB && matches!(row.first(), Some(b'{')));
                    line(row);
                }
                Err(error) => quiet(&error.message, 512),
            }
        }
        let size: usize = rows.iter().filter_map(|(_, row)| row.as_ref().ok()).map(Vec::len).sum();
        assert!(size <= 256 * data.len());
        if std::str::from_utf8(data).is_ok() && !data.starts_with(ndjson::BOM) {
            assert!(table(&[ndjson::BOM, data].concat(), kind) == Some(rows), "a mark changes a table in UTF-8");
        }
    }
}

/// Mistakes have their place in the file, and can be shown.
fn placed(mistakes: &Mistakes, name: &str, text: &str) {
    assert!(!mistakes.is_empty() && mistakes.len() <= 256 + text.len());
    for (nth, mistake) in mistakes.iter().enumerate() {
        let Mistake { span, line, column, file, .. } = mistake;
        assert!(*line >= 1 && *column >= 1 && span.start <= span.end);
        assert!(file != name || span.end <= text.len(), "a place outside the file");
        assert!(mistake.to_string().len() <= 2 * KIB + 8 * text.len());
        if nth < 3 {
            assert!(!format!("{:?}", mistake.report()).is_empty());
        }
    }
}

/// A policy folder in which one file is another: the file's name, a new line, the file.
fn policies(data: &[u8]) {
    let Some(end) = data.iter().position(|b| *b == b'\n') else { return };
    let Ok(name) = std::str::from_utf8(&data[..end]) else { return };
    let (mut files, bytes) = (shipped(), data[end + 1..].to_vec());
    let Some(file) = files.get_mut(name) else { return };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    *file = bytes;
    match PolicySet::parse(files.clone()) {
        Ok(set) => {
            assert_eq!(set.file(name), Some(text.as_str()));
            let same = files == shipped();
            assert_eq!(set.digest == shared().set.digest, same, "the digest tells sets apart");
            assert!(set.model_file(set.model().id.as_str()).is_some());
            let told = |file: &(&str, &str)| files.get(file.0).is_some_and(|bytes| bytes == file.1.as_bytes());
            assert!(set.files().all(|file| told(&file)) && set.files().count() == files.len());
        }
        Err(mistakes) => placed(&mistakes, name, &text),
    }
}

/// Proofs: one spelling, and believed only unchanged.
fn proof(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(proof) = Proof::parse(text).inspect_err(|error| quiet(&error.to_string(), 256)) else { return };
    assert_eq!(proof.to_text(), text, "a proof has one spelling");
    let key = &shared().key;
    match proof.verify(key) {
        Err(error) => assert!(error.to_string().len() <= 256),
        Ok(checkpoint) => {
            assert_eq!(key.open(&proof.checkpoint), Ok(checkpoint.clone()));
            assert!(proof.index < checkpoint.size && proof.extra.len() == ENTRY_BYTES);
            for at in [0, ENTRY_BYTES - 1] {
                let mut bent = proof.clone();
                bent.extra[at] ^= 1;
                assert!(bent.verify(key).is_err());
            }
            let mut elsewhere = proof.clone();
            elsewhere.index ^= 1;
            assert!(elsewhere.verify(key).is_err());
            for at in 0..proof.path.len() {
                let mut bent = proof.clone();
                bent.path[at][0] ^= 1;
                assert!(bent.verify(key).is_err());
            }
        }
    }
}

struct Signer(VerifierKey);

impl NoteSigner for Signer {
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        shared().pair.sign(message).as_ref().try_into().unwrap()
    }

    fn verifier(&self) -> &VerifierKey {
        &self.0
    }
}

/// Checkpoints and what else the log's readers take from outside: keys and paths.
fn checkpoint(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(key) = VerifierKey::parse(text) {
        assert_eq!(key.to_string(), text, "a key has one spelling");
    }
    if let Some(tile) = TileRequest::parse(text) {
        assert_eq!(tile.path(), text, "a path has one spelling");
        let ((_, width), _) = (tile.tile(), tile.within(u64::MAX));
        assert!((1..=256).contains(&width));
    }
    let Shared { key, .. } = shared();
    match key.open(text) {
        Err(error) => quiet(&error.to_string(), 256),
        Ok(opened) => {
            assert_eq!(Checkpoint::claimed(text).as_ref(), Some(&opened));
            let other = VerifierKey::new(key.name(), [9; 32]).unwrap();
            assert_eq!(other.open(text), Err(NoteError::Unsigned));
            for bent in [text.replacen('\n', "\nx\n", 1), format!("x{text}"), text.replacen("\n\n", "\nx\n\n", 1)] {
                assert!(key.open(&bent).is_err(), "a changed text is believed");
            }
        }
    }
    // Whatever a note says can be signed, and is read as it was said.
    let Some(claimed) = Checkpoint::claimed(text) else { return };
    let said = format!("{}\n{}\n{}\n", claimed.origin, claimed.size, STANDARD.encode(claimed.root));
    assert!(text.starts_with(&said), "a checkpoint has one spelling");
    let Ok(signer) = VerifierKey::new(&claimed.origin, *key.public()).map(Signer) else { return };
    let note = claimed.sign(&signer);
    assert!(note.len() <= 2 * text.len() + 512);
    assert_eq!(signer.0.open(&note), Ok(claimed));
}

/// What lies in cells, opened: what reads is written again as the same. The first byte says which kind.
fn cells(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    let most = 4 * bytes.len() + 1024;
    match kind {
        b'0' => {
            let Ok(consent) = Consent::decode(bytes) else { return };
            let again = consent.encode();
            assert!(again.len() <= most && Consent::decode(&again) == Ok(consent));
        }
        b'1' => {
            let Ok(standing) = Standing::decode(bytes) else { return };
            let again = standing.encode();
            assert!(again.len() <= most && Standing::decode(&again) == Ok(standing));
        }
        b'2' => {
            let told = |error: LineError| quiet(&error.to_string(), 512);
            let Ok(held) = intake::stored_record(bytes).map_err(told) else { return };
            same_record(&held, bytes.len());
        }
        b'3' => {
            let told = |error: LineError| quiet(&error.to_string(), 512);
            let Ok(person) = intake::stored_person(bytes).map_err(told) else { return };
            assert!(intake::stored_person(person.to_json().to_string().as_bytes()) == Ok(person));
        }
        b'4' => {
            let Some(lines) = manifest::decode(bytes) else { return };
            let mut again = Vec::new();
            for line in lines {
                for field in [line.table.as_bytes(), &line.key] {
                    again.push(u8::try_from(field.len()).unwrap());
                    again.extend(field);
                }
                again.extend(line.version.to_be_bytes());
                again.extend(line.digest);
            }
            assert_eq!(again, bytes, "a manifest has one spelling");
        }
        b'5' => edge(bytes),
        _ => {
            assert!(!looks_like_a_person(bytes) || bytes.len() > 128);
            assert!(!looks_sealed(bytes) || bytes.len() > 32);
        }
    }
}

/// The right edge of a log, of the size that the first bytes say.
fn edge(bytes: &[u8]) {
    let Some((size, rest)) = bytes.split_first_chunk::<8>() else { return };
    let size = u64::from_be_bytes(*size);
    let anything = RightEdge::from_bytes(size, &[0; 32], rest);
    assert!(anything.is_err(), "no edge makes the root of zeros");
    let (mut edge, mut completed) = (RightEdge::new(), Vec::new());
    (0..size % 600).for_each(|at| edge.append(leaf_hash(&at.to_be_bytes()), &mut completed));
    let (bytes, root) = (edge.to_bytes(), edge.root());
    assert_eq!(RightEdge::from_bytes(edge.size(), &root, &bytes).as_ref(), Ok(&edge));
    assert!(RightEdge::from_bytes(edge.size(), &root, &[&bytes, rest].concat()).is_err() || rest.is_empty());
    if let Some(at) = size.checked_rem(bytes.len() as u64) {
        let mut bent = bytes;
        bent[at as usize] ^= 1;
        assert!(RightEdge::from_bytes(edge.size(), &root, &bent).is_err());
    }
}

/// The check character of GB 11643, by its weights.
fn check_character(number: &str) -> Option<char> {
    const WEIGHTS: [usize; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    let digits = number.bytes().take(17).map(|b| usize::from(b - b'0'));
    let sum: usize = digits.zip(WEIGHTS).map(|(digit, weight)| digit * weight).sum();
    "10X98765432".chars().nth(sum % 11)
}

/// Numbers, names and ids: one form, in which they read as themselves; none is shown.
fn identity(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for id_type in [IdType::ResidentId, IdType::Passport] {
        match Identity::parse(id_type, text, TODAY) {
            Err(error) => quiet(&format!("{error} {error:?}"), 512),
            Ok(identity) => {
                let number = identity.number();
                assert_eq!(Identity::parse(id_type, number, TODAY).as_ref(), Ok(&identity));
                assert_eq!(numbers(&format!("{identity:?}")).next(), None);
                if id_type == IdType::ResidentId {
                    assert!(number.len() == 18 && number.chars().last() == check_character(number));
                    let wide: String = number.bytes().filter_map(|b| char::from_u32(0xFEE0 + u32::from(b))).collect();
                    assert_eq!(Identity::parse(id_type, &wide, TODAY).as_ref(), Ok(&identity));
                    let birth = identity.birth_date().unwrap();
                    assert!(birth <= TODAY && birth.year() >= 1900);
                } else {
                    assert!((8..=15).contains(&number.len()) && identity.birth_date().is_none());
                }
            }
        }
    }
    match Name::parse(text) {
        Err(error) => quiet(&error.to_string(), 512),
        Ok(name) => {
            assert_eq!(Name::parse(name.as_str()).as_ref(), Ok(&name));
            assert!((1..=NAME_CHARS_MAX).contains(&name.as_str().chars().count()));
            assert!(!name.as_str().chars().any(char::is_control) && format!("{name:?}") == "Name(..)");
        }
    }
    if let Ok(id) = RecordId::parse(text) {
        assert!(id.as_str() == text && format!("{id:?}") == "RecordId(..)");
    }
    assert_eq!(PartyId::parse(text).is_ok(), IndicatorCode::parse(text).is_ok());
    let words = jadegate::text::words(text);
    assert!(words.iter().map(String::len).sum::<usize>() <= 4 * text.len() && !words.iter().any(String::is_empty));
    if let Some(near) = jadegate::text::nearest(text, ["officer", "operator"]) {
        assert!(text.chars().count().abs_diff(near.len()) <= 4);
    }
}

/// `jadegate.toml`: what is read is written and read again as the same, and mistakes have their place.
fn config(data: &[u8]) {
    let folder = Path::new("/d");
    match Config::parse("jadegate.toml", data.to_vec(), folder) {
        Ok(config) => {
            let written = config.to_toml(folder);
            let again = Config::parse("jadegate.toml", written.into_bytes(), folder);
            assert!(again.is_ok_and(|again| again == config), "a configuration reads again as itself");
        }
        Err(ConfigError::Mistakes(mistakes)) => placed(&mistakes, "jadegate.toml", &String::from_utf8_lossy(data)),
        Err(other) => panic!("{other}"),
    }
}
