//! The city: its name, the cuts that every question uses, the model in force, the time to answer, and its limits.
//!
//! INVARIANT (few cuts): the cuts are the same for every party. That they are grades of the model in force is checked
//! where the whole set is known.

use crate::code::ModelId;
use crate::model::SCORE_MAX;
use crate::policy::{Document, Mistakes, Source, Table, Value};
use crate::text::Bilingual;

/// The time to answer unless the city says another.
pub const ANSWER_FLOOR_MS: u64 = 50;
/// For how many days a draft of a model is open for comment, unless the city says another.
pub const MODEL_COMMENT_DAYS: u16 = 30;
/// The most cuts a city has: each one more lets all parties together learn more.
pub const CUTS_MAX: usize = 3;

/// What `city.toml` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct City {
    /// What it is called.
    pub name: Bilingual,
    /// The scores that questions may use, ascending.
    pub cuts: Vec<u16>,
    /// When an answer leaves, after the last byte of its call arrived.
    pub answer_floor_ms: u64,
    /// The model that `init` publishes.
    pub model: ModelId,
    /// For how many days a draft of a model is open for comment before it can be published.
    pub model_comment_days: u16,
    /// Limits on what callers may do.
    pub limits: Limits,
}

/// Limits on what callers may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Calls a second, of one party, in the long run.
    pub calls_per_second: u32,
    /// Calls at once, of one party, before that holds.
    pub calls_burst: u32,
    /// Calls worked on at once, on each side: answers, and people's.
    pub calls_at_once: usize,
    /// Connections open at once, on each listener.
    pub connections: u32,
    /// Refused authentications a second, from one address.
    pub refused_per_second: u32,
    /// Bytes of the body of a feed.
    pub body_bytes_max: usize,
    /// Lines of a feed.
    pub feed_lines_max: usize,
    /// Bytes of the body of any other call.
    pub call_bytes_max: usize,
    /// Bytes of a call's headers.
    pub header_bytes_max: usize,
    /// Seconds until a call's headers must have arrived, and a handshake be done.
    pub header_seconds_max: u64,
    /// Seconds until a call's body must have arrived.
    pub body_seconds_max: u64,
}

impl City {
    /// Reads `city.toml`.
    pub fn parse(source: &Source, mistakes: &mut Mistakes) -> Option<Self> {
        let before = mistakes.len();
        let read = Self::read(&Document::parse(source, mistakes), mistakes);
        read.filter(|_| mistakes.len() == before)
    }

    pub(crate) fn read(document: &Document<'_>, mistakes: &mut Mistakes) -> Option<Self> {
        let mut root = document.root();
        let name = root.need("name", mistakes).and_then(|v| v.bilingual(mistakes));
        let cuts = root.need("cuts", mistakes).map(|v| cuts(&v, mistakes));
        let floor = root
            .take("answer_floor_ms")
            .map_or(Some(ANSWER_FLOOR_MS), |v| v.whole(10..=1_000, mistakes).and_then(|ms| u64::try_from(ms).ok()));
        let model = root.need("model", mistakes).and_then(|v| v.code(ModelId::parse, mistakes));
        let comment_days = root
            .take("model_comment_days")
            .map_or(Some(MODEL_COMMENT_DAYS), |v| v.whole(0..=365, mistakes).and_then(|days| u16::try_from(days).ok()));
        let limits = root.need("limits", mistakes).and_then(|v| limits(v.table("limits", mistakes)?, mistakes));
        root.finish(mistakes);
        // What could not be read has been told and keeps the set from loading; cuts and model are still held against
        // other files.
        Some(Self {
            name: name.unwrap_or_else(Bilingual::unread),
            cuts: cuts?,
            answer_floor_ms: floor.unwrap_or(ANSWER_FLOOR_MS),
            model: model?,
            model_comment_days: comment_days.unwrap_or(MODEL_COMMENT_DAYS),
            limits: limits.unwrap_or_default(),
        })
    }
}

fn cuts(value: &Value<'_>, mistakes: &mut Mistakes) -> Vec<u16> {
    let values = value.list_of_some(mistakes);
    if values.len() > CUTS_MAX {
        let expected = format!("at most {CUTS_MAX}; each cut more lets all parties together learn more");
        value.wrong(mistakes, format!("{} cuts", values.len()), expected, "take some out");
    }
    let mut cuts: Vec<u16> = Vec::new();
    for v in &values {
        let Some(cut) = v.whole(1..=SCORE_MAX, mistakes).and_then(|cut| u16::try_from(cut).ok()) else { continue };
        match cuts.last() {
            Some(last) if *last >= cut => v.wrong(
                mistakes,
                format!("the cut {cut} after {last}"),
                "cuts that rise",
                "write them in order, each once",
            ),
            _ => cuts.push(cut),
        }
    }
    cuts
}

fn limits(mut table: Table<'_>, mistakes: &mut Mistakes) -> Option<Limits> {
    let mut limit =
        |name, least: i64, most: i64| table.need(name, mistakes).and_then(|v| v.whole(least..=most, mistakes));
    let calls_per_second = limit("calls_per_second", 1, 100_000);
    let calls_burst = limit("calls_burst", 1, 1_000_000);
    let calls_at_once = limit("calls_at_once", 1, 100_000);
    let connections = limit("connections", 1, 100_000);
    let refused_per_second = limit("refused_per_second", 1, 10_000);
    let body_bytes_max = limit("body_bytes_max", 16 * 1_024, 64 * 1_024 * 1_024);
    let feed_lines_max = limit("feed_lines_max", 1, 10_000_000);
    let call_bytes_max = limit("call_bytes_max", 4 * 1_024, 1_024 * 1_024);
    let header_bytes_max = limit("header_bytes_max", 8 * 1_024, 1_024 * 1_024);
    let header_seconds_max = limit("header_seconds_max", 1, 120);
    let body_seconds_max = limit("body_seconds_max", 1, 3_600);
    table.finish(mistakes);
    Some(Limits {
        calls_per_second: calls_per_second?.try_into().ok()?,
        calls_burst: calls_burst?.try_into().ok()?,
        calls_at_once: calls_at_once?.try_into().ok()?,
        connections: connections?.try_into().ok()?,
        refused_per_second: refused_per_second?.try_into().ok()?,
        body_bytes_max: body_bytes_max?.try_into().ok()?,
        feed_lines_max: feed_lines_max?.try_into().ok()?,
        call_bytes_max: call_bytes_max?.try_into().ok()?,
        header_bytes_max: header_bytes_max?.try_into().ok()?,
        header_seconds_max: header_seconds_max?.try_into().ok()?,
        body_seconds_max: body_seconds_max?.try_into().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = include_str!("../policies/city.toml");

    fn check(from: &str, to: &str, want: &[&str]) {
        assert!(PLAIN.contains(from), "{from}");
        let mut m = Mistakes::new();
        let read = City::parse(&Source::new("city.toml", PLAIN.replacen(from, to, 1)), &mut m);
        assert_eq!(m.iter().map(|m| m.what.as_str()).collect::<Vec<_>>(), want, "{to}");
        assert_eq!(read.is_some(), want.is_empty());
    }

    #[test]
    fn each_mistake_is_told() {
        check("[600, 800]", "[600, 800]", &[]);
        check("[600, 800]", "[800, 600]", &["the cut 600 after 800"]);
        check("[600, 800]", "[600, 600]", &["the cut 600 after 600"]);
        check("[600, 800]", "[600, 700, 800, 900]", &["4 cuts"]);
        check("[600, 800]", "[]", &["`cuts` is an empty list"]);
        check("[600, 800]", "[600, 1001]", &["`cuts` is 1001"]);
        check("[600, 800]", "600", &["`cuts` is a whole number"]);
        check("model_comment_days = 30", "", &[]);
        check("model_comment_days = 30", "model_comment_days = 366", &["`model_comment_days` is 366"]);
        check("answer_floor_ms = 50", "", &[]);
        check("answer_floor_ms = 50", "answer_floor_ms = 5", &["`answer_floor_ms` is 5"]);
        check(
            "calls_burst =",
            "calls_brust =",
            &["limits without `calls_burst`", "unknown field `calls_brust` in limits"],
        );
        check(
            "en = \"Yuxi\"",
            "english = \"Yuxi\"",
            &["a text in two languages without `en`", "unknown field `english` in a text in two languages"],
        );
    }

    #[test]
    fn every_limit_has_a_range() {
        for line in PLAIN.lines().skip_while(|l| *l != "[limits]").filter(|l| l.contains(" = ")) {
            let name = line.split(" = ").next().unwrap();
            for wrong in ["0", "99999999999999999999"] {
                check(line, &format!("{name} = {wrong}"), &[&format!("`{name}` is {wrong}")]);
            }
        }
    }
}
