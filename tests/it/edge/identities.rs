//! Identity numbers as the field writes them: ID-1 to ID-4 of the cases, over the API.

use serde_json::{Value, json};

use crate::support::deployment::{COURT, Deployment, NDJSON, P1, REGISTRAR};

const P2: &str = "53049919880307004X";
const P3: &str = "53049919901015001X";
const P4: &str = "530499250101001";
const P4_NOW: &str = "53049919250101001X";
const BAD_DATES: [&str; 7] = [
    "53049920000230001X",
    "530499190002290011",
    "530499202302290019",
    "530499199013010012",
    "530499119104200011",
    "530499209912310015",
    "530499660230001",
];

fn person(number: &str) -> String {
    json!({"id_number": number, "name": "测试", "resident": true, "full_capacity": true}).to_string()
}

fn record(id: &str, number: &str) -> String {
    json!({"id": id, "provider": COURT, "indicator": "civil-judgment-unperformed",
        "person": {"id_number": number, "name": "测试"}, "occurred_on": "2026-03-01"})
    .to_string()
}

/// Line and code of what was refused.
async fn refused(city: &Deployment, party: &str, path: &str, lines: &[String]) -> (Value, Vec<(u64, String)>) {
    let response = city.party(party).post(path, NDJSON, lines.join("\n"), vec![]).await.unwrap();
    assert_eq!(response.status, 200);
    let counts = response.json().unwrap();
    let refused = counts["rejected"].as_array().unwrap().iter();
    let refused = refused.map(|r| (r["line"].as_u64().unwrap(), r["code"].as_str().unwrap().to_owned())).collect();
    (counts["accepted"].clone(), refused)
}

/// The register's number and the records of somebody who logs in with this number.
async fn export(city: &Deployment, number: &str) -> (String, Vec<String>) {
    let export = city.login(number).await.get("/v1/me/export").await.unwrap().json().unwrap();
    assert_eq!(export["register"].as_array().unwrap().len(), 1);
    let mut ids: Vec<String> =
        export["records"].as_array().unwrap().iter().map(|r| r["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    (export["register"][0]["id_number"].as_str().unwrap().to_owned(), ids)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_x_and_the_15_digit_form_make_no_second_person() {
    let city = Deployment::empty().await;
    assert_eq!(refused(&city, REGISTRAR, "/v1/register", &[person(P2), person(P4)]).await, (json!(2), vec![]));
    let small = P2.replace('X', "x");
    let records = [record("a", P2), record("b", &small), record("c", P4), record("d", P4_NOW)];
    assert_eq!(refused(&city, COURT, "/v1/records", &records).await, (json!(4), vec![]));
    let (number, ids) = export(&city, P2).await;
    assert_eq!((number.as_str(), ids), (P2, vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(export(&city, &small).await, export(&city, P2).await);
    let (number, ids) = export(&city, P4).await;
    assert_eq!((number.as_str(), ids), (P4_NOW, vec!["c".to_owned(), "d".to_owned()]));
    let score = city.login(P4).await.get("/v1/me/score").await.unwrap().json().unwrap();
    assert_eq!(score["status"], "scored", "born in 1925, and not in 2025");
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_dates_are_refused_and_october_is_not() {
    let city = Deployment::empty().await;
    let lines: Vec<String> = BAD_DATES.into_iter().chain([P3]).map(person).collect();
    let bad = (1..=7).map(|line| (line, "impossible-date".to_owned())).collect();
    assert_eq!(refused(&city, REGISTRAR, "/v1/register", &lines).await, (json!(1), bad));
    assert_eq!(export(&city, P3).await.0, P3);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_region_is_unknown_and_letters_are_no_digits() {
    let city = Deployment::empty().await;
    // Made here and written nowhere: residents of the other regions, and the card of 2023.
    let made = ["810000", "820000", "830000", "999999"].map(|region| {
        let body = format!("{region}19900101001");
        let weights = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
        let sum: u32 = body.chars().zip(weights).map(|(c, weight)| c.to_digit(10).unwrap() * weight).sum();
        person(&format!("{body}{}", "10X98765432".chars().nth((sum % 11) as usize).unwrap()))
    });
    let broken = ["5304991990O101001X", "5304991990010X0015", "XYZ530490010101"].map(person);
    let lines: Vec<String> = made.into_iter().chain(broken).chain([person(P1)]).collect();
    let bad = (5..=7).map(|line| (line, "malformed".to_owned())).collect();
    assert_eq!(refused(&city, REGISTRAR, "/v1/register", &lines).await, (json!(5), bad));
}
