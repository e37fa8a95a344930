//! Reading a body: as much as is allowed, of the right kind, and JSON strictly.
//!
//! JSON is refused where two readers could understand it differently: a key said twice (anywhere),
//! a field nobody knows, something behind the value. Refusals name the field and where reading
//! stopped, and never repeat a value.

use std::collections::HashSet;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer,
};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::listener::TooSlow;
use super::problem::{Problem, code};

/// The most bytes of a name that an error repeats.
const NAME_BYTES_MAX: usize = 64;
const KIB: usize = 1024;

/// Reads the whole body, at most `bytes_max` of it.
///
/// Too much is refused before it is read where Content-Length says so. The connection ends with
/// such a refusal, since what is left of the body stands in the way of the next call.
pub async fn read(headers: &HeaderMap, body: Body, bytes_max: usize) -> Result<Vec<u8>, Problem> {
    let too_large = || {
        Problem::new(code::TOO_LARGE, format!("the body may have {bytes_max} bytes; send less at a time"))
            .with("limit", bytes_max)
            .closing()
    };
    if said_length(headers).is_some_and(|said| said > bytes_max as u64) {
        return Err(too_large());
    }
    match Limited::new(body, bytes_max).collect().await {
        Ok(whole) => Ok(whole.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) if caused_by_stall(error.as_ref()) => {
            Err(Problem::new(code::TIMEOUT, "the body stopped arriving; send it again without a pause").closing())
        }
        Err(_) => Err(Problem::new(
            code::BAD_REQUEST,
            "the body ended before its announced end, or its chunks break their form",
        )
        .closing()),
    }
}

/// How many bytes of large bodies the process holds at a time, over all connections.
#[derive(Debug, Clone)]
pub struct Room(Arc<Semaphore>);

/// A large body, and the room it takes up until it is dropped.
pub struct LargeBody {
    bytes: Vec<u8>,
    _room: [OwnedSemaphorePermit; 2],
}

impl std::fmt::Debug for LargeBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LargeBody(..)")
    }
}

impl std::ops::Deref for LargeBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Room {
    /// Room for this many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / KIB)))
    }

    /// As [`read`], for a feed: takes the room before it reads, or refuses as overloaded.
    ///
    /// The caller is to be known already, or anybody could fill the room; `share` is the caller's own
    /// part of it, or one caller could.
    pub async fn read(
        &self,
        share: &Self,
        headers: &HeaderMap,
        body: Body,
        bytes_max: usize,
    ) -> Result<LargeBody, Problem> {
        let wanted = said_length(headers).and_then(|n| usize::try_from(n).ok()).unwrap_or(bytes_max).min(bytes_max);
        let kib = u32::try_from(wanted.div_ceil(KIB)).unwrap_or(u32::MAX);
        let take = |room: &Self| {
            let full = |_| Problem::plain(code::OVERLOADED).retry_after(Duration::from_secs(5)).closing();
            Arc::clone(&room.0).try_acquire_many_owned(kib).map_err(full)
        };
        let room = [take(share)?, take(self)?];
        Ok(LargeBody { bytes: read(headers, body, bytes_max).await?, _room: room })
    }
}

fn said_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn caused_by_stall(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<TooSlow>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// The call's Content-Type must be this one; parameters other than `charset=utf-8` are refused.
pub fn require_content_type(headers: &HeaderMap, wanted: &'static str) -> Result<(), Problem> {
    let mut lines = headers.get_all(header::CONTENT_TYPE).iter();
    let fits = match (lines.next(), lines.next()) {
        (Some(line), None) => line.to_str().is_ok_and(|said| {
            let mut parts = said.split(';').map(str::trim);
            parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case(wanted))
                && parts.all(|p| p.eq_ignore_ascii_case("charset=utf-8") || p.eq_ignore_ascii_case("charset=\"utf-8\""))
        }),
        _ => false,
    };
    if fits {
        return Ok(());
    }
    Err(Problem::new(code::WRONG_CONTENT_TYPE, format!("send Content-Type: {wanted}")).with("expected", wanted))
}

/// Reads one JSON object strictly; `T` must deny unknown fields.
pub fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        Problem::new(code::MALFORMED_JSON, format!("the body is not UTF-8 from byte {} on", error.valid_up_to()))
    })?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let walked = NoKeyTwice.deserialize(&mut reader).and_then(|()| reader.end());
    walked.map_err(|error| malformed(text, &error))?;
    serde_json::from_str::<Object<T>>(text).map(|object| object.0).map_err(|error| unfit(text, &error))
}

/// A struct that is read from a JSON object only; serde alone would take an array, field by field.
///
/// For the structs inside a call's struct; [`read_json`] itself does so at the top.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OnlyMap<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OnlyMap<T> {
            type Value = T;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object { … }")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(OnlyMap(PhantomData)).map(Object)
    }
}

/// Why a text is no JSON, or has a key twice.
fn malformed(text: &str, error: &serde_json::Error) -> Problem {
    if error.classify() == Category::Data {
        return unfit(text, error);
    }
    let said = error.to_string();
    let at = |problem: Problem| problem.with("line", error.line()).with("column", error.column());
    let place = format!("line {}, column {}", error.line(), error.column());
    at(if said.starts_with("recursion limit") {
        Problem::new(code::TOO_DEEP, format!("nested deeper than 128 levels at {place}"))
    } else if said.starts_with("number out of range") {
        Problem::new(code::OUT_OF_RANGE, format!("a number is too large at {place}"))
    } else {
        Problem::new(code::MALFORMED_JSON, format!("not JSON from {place} on"))
    })
}

/// Why a JSON text is not what the call takes.
fn unfit(text: &str, error: &serde_json::Error) -> Problem {
    let said = error.to_string();
    let at = |problem: Problem| problem.with("line", error.line()).with("column", error.column());
    let place = format!("line {}, column {}", error.line(), error.column());
    let quoted =
        |prefix: &str| said.strip_prefix(prefix).and_then(|rest| rest.split_once('`')).map(|(name, _)| shown(name));
    // The last of them is serde's own: one before it stands in what the caller sent.
    let known = || said.rsplit_once(", expected ").map_or(String::new(), |(_, rest)| without_place(rest));
    for (prefix, code, what) in [
        ("unknown field `", code::UNKNOWN_FIELD, "is not known here"),
        ("missing field `", code::MISSING_FIELD, "is missing"),
        ("duplicate field `", code::DUPLICATE_FIELD, "stands twice"),
    ] {
        let Some(name) = quoted(prefix) else { continue };
        let known = if code == code::UNKNOWN_FIELD { known() } else { String::new() };
        let hint = if known.is_empty() { String::new() } else { format!("; known: {known}") };
        return at(Problem::new(code, format!("the field {name:?} {what}, {place}{hint}")).with("field", name));
    }
    // What was found would be a value of the caller's, and is left out.
    let field = field_at(text, error.line(), error.column());
    let code = if said.starts_with("invalid type") || error.classify() != Category::Data {
        code::WRONG_TYPE
    } else {
        code::OUT_OF_RANGE
    };
    let expected = match known() {
        expected if expected.is_empty() => "another value".to_owned(),
        expected => expected,
    };
    let of = if field.is_empty() { String::new() } else { format!(" of {field:?}") };
    let problem = at(Problem::new(code, format!("the value{of} at {place}: expected {expected}")));
    if field.is_empty() { problem } else { problem.with("field", field) }
}

/// Without serde_json's own " at line 1 column 2".
fn without_place(said: &str) -> String {
    said.rsplit_once(" at line ").map_or(said, |(rest, _)| rest).to_owned()
}

fn shown(name: &str) -> String {
    if name.len() <= NAME_BYTES_MAX { name.to_owned() } else { "(a long name)".to_owned() }
}

/// The path of the field whose value is read at this place of a valid JSON text: `person.name`.
fn field_at(text: &str, line: usize, column: usize) -> String {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let end = before.saturating_add(column).min(text.len());
    let mut path: Vec<String> = Vec::new();
    let mut last = String::new();
    let mut bytes = text.bytes().enumerate().take(end);
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'{' | b'[' => path.push(String::new()),
            b'}' | b']' => drop(path.pop()),
            b':' => {
                if let Some(name) = path.last_mut() {
                    name.clone_from(&last);
                }
            }
            b'"' => {
                let start = at.saturating_add(1);
                let mut stop = start;
                while let Some((at, byte)) = bytes.next() {
                    stop = at;
                    match byte {
                        b'\\' => drop(bytes.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
                last = text.get(start..stop).map_or(String::new(), shown);
            }
            _ => {}
        }
    }
    path.retain(|name| !name.is_empty());
    path.join(".")
}

/// Walks any JSON value and refuses an object with a key that stands twice.
struct NoKeyTwice;

impl<'de> DeserializeSeed<'de> for NoKeyTwice {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NoKeyTwice {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(NoKeyTwice)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if seen.contains(&key) {
                return Err(A::Error::custom(format_args!("duplicate field `{key}`")));
            }
            seen.insert(key);
            map.next_value_seed(NoKeyTwice)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only the reading is tested")]
    struct Ask {
        scenario: String,
        uses: Option<u8>,
        person: Option<Object<Person>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only the reading is tested")]
    struct Person {
        name: String,
        kind: Option<Kind>,
        any: Option<serde_json::Value>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Kind {
        Passport,
    }

    fn refused(text: &str) -> (String, String) {
        let problem = read_json::<Ask>(text.as_bytes()).unwrap_err();
        let field = problem.to_json().get("field").and_then(|f| f.as_str()).unwrap_or_default().to_owned();
        (problem.code().to_owned(), field)
    }

    #[test]
    fn each_fault_has_its_code_and_names_its_field() {
        let deep =
            format!(r#"{{"scenario":"a","person":{{"name":"n","any":{}1{}}}}}"#, "[".repeat(200), "]".repeat(200));
        for (text, code, field) in [
            ("", "malformed-json", ""),
            ("{", "malformed-json", ""),
            ("\u{feff}{}", "malformed-json", ""),
            (r#"{"scenario":"a"} x"#, "malformed-json", ""),
            (r#"{"scenario":"a"}{"scenario":"a"}"#, "malformed-json", ""),
            (r#"{"scenario":"\ud800"}"#, "malformed-json", ""),
            (r#"{"scenario":"a","threshold":613}"#, "unknown-field", "threshold"),
            (r#"{"uses":1}"#, "missing-field", "scenario"),
            (r#"{"scenario":"a","scenario":"b"}"#, "duplicate-field", "scenario"),
            (r#"{"scenario":"a","person":{"name":"n","name":"n"}}"#, "duplicate-field", "name"),
            (r#"{"scenario":"a","person":{"name":"n","any":[{"q":{"z":1,"z":1}}]}}"#, "duplicate-field", "z"),
            (r#"{"scenario":"a","sc\u0065nario":"a"}"#, "duplicate-field", "scenario"),
            (r#"{"scenario":5}"#, "wrong-type", "scenario"),
            (r#"{"scenario":null}"#, "wrong-type", "scenario"),
            (r#"{"scenario":"a","person":{"name":"x\"{:","kind":7}}"#, "wrong-type", "person.kind"),
            (r#"{"scenario":"a","person":{"name":"n","kind":"card"}}"#, "out-of-range", "person.kind"),
            (r#"{"scenario":"a","uses":256}"#, "out-of-range", "uses"),
            (r#"{"scenario":"a","uses":-1}"#, "out-of-range", "uses"),
            (r#"{"scenario":"a","uses":1.5}"#, "wrong-type", "uses"),
            (r#"{"scenario":"a","uses":1e999}"#, "out-of-range", ""),
            (r#"["a",null,null]"#, "wrong-type", ""),
            (r#"{"scenario":"a","person":["n",null,null]}"#, "wrong-type", "person"),
            (r#""scenario""#, "wrong-type", ""),
            ("{\n \"scenario\":\"a\",\n \"person\":{\"name\":\"n\",\n  \"age\":1}}", "unknown-field", "age"),
            (r#"{"scenario":"a","person":{"kind":"passport"}}"#, "missing-field", "name"),
            (&deep, "too-deep", ""),
        ] {
            let (got, name) = refused(text);
            assert_eq!((got.as_str(), name.as_str()), (code, field), "{}", text.get(..60).unwrap_or(text));
        }
        assert_eq!(read_json::<Ask>(b"{\"scenario\":\"\xff\"}").unwrap_err().code(), "malformed-json");
        let placed = read_json::<Ask>(b"{\n\n \"uses\": true}").unwrap_err().to_json();
        assert_eq!((&placed["line"], &placed["column"]), (&3.into(), &13.into()));
        assert_eq!(read_json::<Ask>(br#" {"scenario":"a","uses":1} "#).unwrap().uses, Some(1));
    }

    #[test]
    fn the_content_type_is_one_and_the_right_one() {
        for (lines, fits) in [
            (vec!["application/json"], true),
            (vec!["Application/JSON; charset=UTF-8"], true),
            (vec!["application/json; charset=gbk"], false),
            (vec!["application/jsonx"], false),
            (vec!["text/plain"], false),
            (vec!["application/json", "application/json"], false),
            (vec![], false),
        ] {
            let mut headers = HeaderMap::new();
            for line in &lines {
                headers.append(header::CONTENT_TYPE, HeaderValue::from_str(line).unwrap());
            }
            assert_eq!(require_content_type(&headers, "application/json").is_ok(), fits, "{lines:?}");
        }
    }

    #[tokio::test]
    async fn a_body_beyond_its_limit_is_refused_with_the_limit() {
        let headers = HeaderMap::new();
        assert_eq!(read(&headers, Body::from("1234"), 4).await.unwrap(), b"1234");
        let problem = read(&headers, Body::from("12345"), 4).await.unwrap_err();
        assert_eq!((problem.code(), &problem.to_json()["limit"]), ("too-large", &serde_json::json!(4)));
        let mut said = HeaderMap::new();
        said.insert(header::CONTENT_LENGTH, HeaderValue::from_static("99999999999"));
        assert_eq!(read(&said, Body::empty(), 4).await.unwrap_err().code(), "too-large");
    }

    #[tokio::test]
    async fn large_bodies_share_one_room() {
        let (room, share, none) = (Room::new(8 * KIB), Room::new(64 * KIB), HeaderMap::new());
        let mut said = HeaderMap::new();
        said.insert(header::CONTENT_LENGTH, HeaderValue::from_static("5000"));
        let first = room.read(&share, &said, Body::from(vec![b'x'; 5000]), 8 * KIB).await.unwrap();
        assert_eq!(format!("{first:?}"), "LargeBody(..)");
        assert_eq!(first.len(), 5000);
        assert_eq!(room.read(&share, &none, Body::from("x"), 8 * KIB).await.unwrap_err().code(), "overloaded");
        assert!(room.read(&share, &none, Body::from("x"), 3 * KIB).await.is_ok());
        drop(first);
        assert!(room.read(&share, &none, Body::from("x"), 8 * KIB).await.is_ok());
    }

    #[tokio::test]
    async fn one_caller_does_not_fill_the_room_for_others() {
        let (room, one, other, none) = (Room::new(8 * KIB), Room::new(4 * KIB), Room::new(4 * KIB), HeaderMap::new());
        let held = room.read(&one, &none, Body::from("x"), 4 * KIB).await.unwrap();
        assert_eq!(room.read(&one, &none, Body::from("x"), KIB).await.unwrap_err().code(), "overloaded");
        assert!(room.read(&other, &none, Body::from("x"), 4 * KIB).await.is_ok());
        drop(held);
        assert!(room.read(&one, &none, Body::from("x"), 4 * KIB).await.is_ok());
    }

    proptest! {
        #[test]
        fn a_value_is_never_repeated(text in "\\PC{0,60}", secret in "[a-z]{12}") {
            for body in [
                format!(r#"{{"scenario":["{secret}"]}}"#),
                format!(r#"{{"scenario":"a","uses":"{secret}"}}"#),
                format!(r#"{{"scenario":"a","person":{{"name":"n","kind":"{secret}"}}}}"#),
                format!(r#"{{"scenario":"{secret}",{text}"#),
                format!(r#"{{"scenario":"a","uses":"x, expected {secret}"}}"#),
                format!(r#"{{"scenario":"a","uses":"x, expected y at line {secret}"}}"#),
            ] {
                if let Err(problem) = read_json::<Ask>(body.as_bytes()) {
                    prop_assert!(!problem.to_json().to_string().contains(&secret), "{body}");
                }
            }
        }
    }
}
