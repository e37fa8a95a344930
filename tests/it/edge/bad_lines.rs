//! Every kind of bad line in a feed: its code, its sentence, and a state that is as it was.

use jadegate::catalogue::{Category, Indicator};
use serde_json::{Value, json};

use super::bad_input::{FORM, NAME, RECORDS, REGISTER, Witness};
use crate::support::deployment::{COURT, Deployment, NDJSON, P1, REGISTRAR};

/// A line about [`P1`], with some fields changed; null takes one away.
fn changed(mut line: Value, changes: Value) -> String {
    for (path, value) in changes.as_object().unwrap() {
        let (parent, field) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = if parent.is_empty() { &mut line } else { &mut line[parent] };
        if value.is_null() {
            parent.as_object_mut().unwrap().remove(field).unwrap();
        } else {
            parent[field] = value.clone();
        }
    }
    line.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_line_has_its_code_and_changes_nothing() {
    let city = Deployment::city().await;
    let record = json!({"id": "r-1", "provider": COURT, "indicator": "civil-judgment-unperformed",
        "person": {"id_number": P1, "name": NAME}, "occurred_on": "2026-03-01"});
    let person = json!({"id_number": P1, "name": NAME, "resident": true, "full_capacity": true});
    let tomorrow = jadegate::clock::day_of(city.clock.now()).tomorrow().unwrap().to_string();
    let r = |changes: Value| (COURT, changed(record.clone(), changes).into_bytes());
    let p = |changes: Value| (REGISTRAR, changed(person.clone(), changes).into_bytes());
    let deep = format!(r#"{{"id":{}1{}}}"#, "[".repeat(300), "]".repeat(300));
    let twice = record.to_string().replacen('{', r#"{"id":"r-2","#, 1);
    let invalid = person.to_string().replace(NAME, "\u{1}").into_bytes();
    let invalid: Vec<u8> = invalid.into_iter().map(|b| if b == 1 { 0xff } else { b }).collect();
    // A market record needs a consent; find the one that the shipped catalogue has, and a unit's.
    let of = |test: &dyn Fn(&Indicator) -> bool| {
        let found = city.set.catalogue.iter().find(|i| test(i)).unwrap();
        (found.providers[0].as_str().to_owned(), found.code.as_str().to_owned())
    };
    let market = of(&|i| i.category == Category::Market);
    let counted = of(&|i| i.unit.is_some() && i.category != Category::Market);
    let by = |(provider, indicator): &(String, String), more: Value| {
        let mut line: Value =
            serde_json::from_str(&changed(record.clone(), json!({"provider": provider, "indicator": indicator})))
                .unwrap();
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        (provider.clone(), line.to_string().into_bytes())
    };
    let text = |(by, line): (&str, Vec<u8>)| (by.to_owned(), line);
    type Line = (String, Vec<u8>);
    let rows: Vec<(&str, Line, &str)> = vec![
        ("no JSON", (COURT.into(), format!("{{{NAME}").into()), "malformed"),
        ("a list", (COURT.into(), b"[]".to_vec()), "malformed"),
        ("invalid UTF-8", (REGISTRAR.into(), invalid), "malformed"),
        ("deep nesting", (COURT.into(), deep.into()), "malformed"),
        ("a key said twice", (COURT.into(), twice.into()), "malformed"),
        ("a wrong type", text(r(json!({"occurred_on": 20_260_301}))), "malformed"),
        ("a number of the person", text(r(json!({"person/id_number": 530_499_199_001_010_015_u64}))), "malformed"),
        ("NUL in a name", text(p(json!({"name": "王\u{0}芳"}))), "malformed"),
        ("a direction character in a name", text(p(json!({"name": "王\u{202e}芳"}))), "malformed"),
        ("an isolate in a name", text(r(json!({"person/name": "王\u{2066}芳"}))), "malformed"),
        ("a control character in a name", text(p(json!({"name": "王\u{7}芳"}))), "malformed"),
        ("an empty name", text(p(json!({"name": "  "}))), "malformed"),
        ("a long name", text(p(json!({"name": "王".repeat(101)}))), "too-large"),
        ("a letter among the digits", text(p(json!({"id_number": "5304991990O101001X"}))), "malformed"),
        ("an unknown field", text(r(json!({"score": 1}))), "unknown-field"),
        ("a field of files only", text(r(json!({"withdrawn": true}))), "unknown-field"),
        ("a missing field", text(r(json!({"occurred_on": null}))), "missing-field"),
        ("a person without a number", text(r(json!({"person/id_number": null}))), "missing-field"),
        ("a person of no capacity said", text(p(json!({"full_capacity": null}))), "missing-field"),
        ("a wrong check digit", text(p(json!({"id_number": "530499199001010016"}))), "wrong-check-digit"),
        ("an impossible date", text(r(json!({"occurred_on": "2026-02-30"}))), "impossible-date"),
        ("a date in the future", text(r(json!({"occurred_on": tomorrow}))), "impossible-date"),
        ("an end before its beginning", text(r(json!({"valid_until": "2026-02-01"}))), "impossible-date"),
        ("a birth that the number contradicts", text(p(json!({"born_on": "1991-01-01"}))), "impossible-date"),
        ("an unknown indicator", text(r(json!({"indicator": "no-such-thing"}))), "unknown-indicator"),
        ("another provider's name", text(r(json!({"provider": "yx-education"}))), "provider-not-allowed"),
        (
            "another provider's indicator",
            text(r(json!({"indicator": "household-registration"}))),
            "provider-not-allowed",
        ),
        ("no consent reference", by(&market, json!({})), "consent-required"),
        ("no quantity", by(&counted, json!({})), "quantity-required"),
        ("a quantity not asked for", text(r(json!({"quantity": 1}))), "quantity-not-allowed"),
        ("a quantity of nothing", by(&counted, json!({"quantity": 0})), "malformed"),
        ("a quantity below nothing", by(&counted, json!({"quantity": -1})), "malformed"),
        ("a quantity too large", by(&counted, json!({"quantity": 1_000_001})), "too-large"),
        ("a quantity beyond 64 bits", by(&counted, json!({"quantity": 1.8446744073709552e19})), "too-large"),
        ("an id too long", text(r(json!({"id": "x".repeat(65)}))), "too-large"),
        ("a detail too long", text(r(json!({"detail": "x".repeat(1001)}))), "too-large"),
        ("a line too long", text(r(json!({"detail": "x".repeat(17_000)}))), "too-large"),
        ("what the law forbids", text(r(json!({"indicator": "religion"}))), "prohibited-item"),
        ("what the law forbids, as a field", text(r(json!({"血型": "A"}))), "prohibited-item"),
    ];
    let mut witness = Witness::new(&city).await;
    let state = witness.state().await;
    for (name, (by, line), code) in rows {
        let size = witness.size().await;
        let path = if by == REGISTRAR { REGISTER } else { RECORDS };
        let response = city.party(&by).post(path, NDJSON, line, vec![]).await.unwrap();
        assert_eq!(response.status, 200, "{name}: {}", String::from_utf8_lossy(&response.body));
        let counts = response.json().unwrap();
        let rejected = &counts["rejected"][0];
        assert_eq!((&rejected["line"], &rejected["code"]), (&json!(1), &json!(code)), "{name}: {counts}");
        assert_eq!([&counts["accepted"], &counts["unchanged"], &counts["replaced"]], [0, 0, 0], "{name}");
        let message = rejected["message"].as_str().unwrap();
        assert!(message.split_whitespace().count() >= 4, "{name}: no sentence: {message}");
        assert!(!message.contains(P1) && !message.contains(NAME), "{name}: {message}");
        // What was refused has left its entry, also where the law forbade it.
        assert_eq!(witness.size().await, size + 1, "{name}");
    }
    // Nobody of that number has come to be, and nobody else has changed.
    assert_eq!(witness.state().await, state);
    let form = format!("as={P1}");
    let login = city.public().post("/demo/login", FORM, form, vec![]).await.unwrap();
    assert_eq!(login.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn good_lines_are_taken_among_bad_ones_and_counted_from_one() {
    let city = Deployment::empty().await;
    let person =
        |number: &str| json!({"id_number": number, "name": NAME, "resident": true, "full_capacity": true}).to_string();
    let feed =
        [&person(P1), "", "{", &person("530499199001010016"), &person(P1), &person("53049919901015001X")].join("\r\n");
    let counts = city.party(REGISTRAR).post(REGISTER, NDJSON, feed, vec![]).await.unwrap().json().unwrap();
    let refused: Vec<_> = counts["rejected"].as_array().unwrap().iter().map(|r| (&r["line"], &r["code"])).collect();
    assert_eq!(refused, [(&json!(3), &json!("malformed")), (&json!(4), &json!("wrong-check-digit"))]);
    assert_eq!([&counts["accepted"], &counts["unchanged"], &counts["replaced"]], [2, 1, 0]);
}
