//! Scoring a person of 20 records against parsing those 20 records with `serde_json`: at most a tenth.
//!
//! `cargo bench --bench evaluate`. Criterion says how long each takes; the ratio is that of the fastest of many short
//! rounds which take turns, so that a busy machine disturbs both alike.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark that stops has failed"
)]

#[path = "../../tests/it/support/nightly.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod nightly;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use jadegate::catalogue::Indicator;
use jadegate::clock::{Clock, SystemClock};
use jadegate::code::IndicatorCode;
use jadegate::intake;
use jadegate::person::Person;
use jadegate::policies::{PolicySet, shipped};
use jadegate::record::Held;
use jadegate::score;
use jiff::ToSpan;
use jiff::civil::{Date, date};
use nightly::figure;
use serde::Deserialize;
use serde_json::{Value, json};

/// As `src/main.rs` has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TODAY: Date = date(2026, 11, 25);
const RECORDS: usize = 20;
/// As many as the nearer caches hold with their records: a person is scored just after their records were parsed.
const PEOPLE: usize = 50;
const ROUNDS: usize = 400;
const AT_MOST: f64 = 0.1;

/// What a record's line says, texts as texts and days as days: the least that parsing for use can be.
#[derive(Deserialize)]
#[allow(dead_code, reason = "read for the time that it takes")]
struct Line {
    id: String,
    provider: String,
    indicator: String,
    person: Who,
    occurred_on: Date,
    valid_until: Option<Date>,
    quantity: Option<u32>,
    consent_ref: Option<String>,
    detail: Option<String>,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "read for the time that it takes")]
struct Who {
    id_number: String,
    name: String,
}

struct Resident {
    person: Person,
    lines: Vec<String>,
    held: Vec<Held>,
}

/// The `n`th record of a person: indicators in turn, days spread over the last six years.
fn line(indicator: &Indicator, person: usize, n: usize) -> String {
    let seed = i32::try_from((person * RECORDS + n) * 7919 % 2190).unwrap();
    let mut line = json!({
        "id": format!("R-{person:06}-{n:02}"),
        "provider": indicator.providers[0].as_str(),
        "indicator": indicator.code.as_str(),
        "person": { "id_number": "530499199001010015", "name": "王芳" },
        "occurred_on": TODAY.checked_sub(seed.days()).unwrap().to_string(),
        "detail": "what happened, as its provider tells it",
    });
    if indicator.unit.is_some() {
        line["quantity"] = (1 + seed % 40).into();
    }
    if indicator.category.rests_on_consent() {
        line["consent_ref"] = format!("C-{person:06}").into();
    }
    line.to_string()
}

fn people(set: &PolicySet) -> Vec<Resident> {
    let codes: Vec<&IndicatorCode> = set.model().rules.keys().collect();
    let person = json!({ "id_number": "530499199001010015", "name": "王芳", "resident": true, "full_capacity": true })
        .to_string();
    let resident = |person_number: usize| {
        let indicator =
            |n: usize| set.catalogue.get(codes[(person_number * 11 + n * 3) % codes.len()].as_str()).unwrap();
        let lines: Vec<String> = (0..RECORDS).map(|n| line(indicator(n), person_number, n)).collect();
        let held = lines.iter().map(|line| intake::stored_record(line.as_bytes()).unwrap()).collect();
        Resident { person: intake::stored_person(person.as_bytes()).unwrap(), lines, held }
    };
    (0..PEOPLE).map(resident).collect()
}

fn score_all(people: &[Resident], set: &PolicySet) {
    for resident in people {
        black_box(score::evaluate(&resident.person, black_box(&resident.held), &set.catalogue, set.model(), TODAY));
    }
}

fn parse_all<'a, T: Deserialize<'a>>(people: &'a [Resident]) {
    for line in people.iter().flat_map(|resident| &resident.lines) {
        black_box(serde_json::from_str::<T>(black_box(line)).unwrap());
    }
}

/// The fastest of many rounds of each, taken in turns.
fn fastest<const N: usize>(work: [&dyn Fn(); N]) -> [Duration; N] {
    let clock = SystemClock::new();
    let mut best = [Duration::MAX; N];
    for _ in 0..ROUNDS {
        for (best, work) in best.iter_mut().zip(work) {
            let began = clock.monotonic();
            work();
            *best = (*best).min(clock.monotonic() - began);
        }
    }
    best
}

fn main() {
    let set = PolicySet::parse(shipped()).unwrap();
    let people = people(&set);
    let counted = people.iter().map(|r| score::evaluate(&r.person, &r.held, &set.catalogue, set.model(), TODAY));
    let scores: std::collections::BTreeSet<_> = counted.map(|outcome| outcome.score.unwrap()).collect();
    assert!(scores.len() > 20, "the people of a benchmark must differ");

    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("evaluate");
    group.throughput(Throughput::Elements(PEOPLE as u64));
    group.measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1)).sample_size(20);
    group.bench_function("score 50 people of 20 records", |b| b.iter(|| score_all(&people, &set)));
    group.bench_function("parse their records into structs", |b| b.iter(|| parse_all::<Line>(&people)));
    group.bench_function("parse their records into values", |b| b.iter(|| parse_all::<Value>(&people)));
    group.finish();

    let [scoring, structs, values] =
        fastest([&|| score_all(&people, &set), &|| parse_all::<Line>(&people), &|| parse_all::<Value>(&people)]);
    let person = scoring.as_secs_f64() / PEOPLE as f64;
    let ratio = scoring.as_secs_f64() / structs.as_secs_f64();
    figure("evaluate: people a second a core", format_args!("{:.0}", 1.0 / person));
    figure("evaluate: scoring 20 records", format_args!("{:.2} us a person", person * 1e6));
    figure("evaluate: scoring over parsing into structs", format_args!("{ratio:.3} (at most {AT_MOST})"));
    figure(
        "evaluate: scoring over parsing into values",
        format_args!("{:.3}", scoring.as_secs_f64() / values.as_secs_f64()),
    );
    assert!(ratio <= AT_MOST, "scoring costs more than a tenth of parsing");
}
