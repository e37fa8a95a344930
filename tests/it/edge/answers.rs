//! Codes and repeats under concurrency, and when an answer leaves.

use std::time::Duration;

use jadegate::client::{Client, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use crate::support::deployment::{
    ANSWERS, Deployment, LIBRARY, OTHER_LIBRARY, SCENARIO, ask as ask_in, consent, make_code, outcome, problem,
    question, revoke, text, token,
};
use crate::support::raw;

/// Asks in the libraries' scenario.
pub async fn ask(party: &mut Client, consent: &str) -> Response {
    ask_in(party, SCENARIO, consent).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_spent_once_however_many_ask_at_once() {
    let city = Deployment::city().await;
    let mut me = city.person(0).await;
    let given = consent(&mut me, SCENARIO, LIBRARY, json!({"uses": 200})).await;
    let code = make_code(&mut me, &given).await;
    let calls = (0..50).map(|_| {
        let (mut party, code) = (city.party(LIBRARY), code.clone());
        tokio::spawn(async move { ask(&mut party, &code).await })
    });
    let mut met = 0;
    for call in calls.collect::<Vec<_>>() {
        let response = call.await.unwrap();
        assert_eq!((response.status.as_u16(), response.body.len()), (200, 4096));
        match outcome(&response).1.as_str() {
            "met" => met += 1,
            other => assert_eq!(other, "withheld"),
        }
    }
    assert_eq!(met, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_codes_is_stopped_and_keeps_its_tokens() {
    let city = Deployment::city().await;
    let mut me = city.person(0).await;
    let given = consent(&mut me, SCENARIO, LIBRARY, json!({"uses": 200})).await;
    let (token, code) = (text(&given, "token"), make_code(&mut me, &given).await);
    let (mut library, mut other) = (city.party(LIBRARY), city.party(OTHER_LIBRARY));
    for guess in 0..10 {
        let refused = ask(&mut library, &format!("000{guess}-0000-0000")).await;
        assert_eq!(problem(&refused, &[]), (403, "consent-not-recognised".to_owned()), "{guess}");
    }
    let stopped = ask(&mut library, &code).await;
    assert_eq!(problem(&stopped, &[&code]), (429, "too-many-codes".to_owned()));
    let wait: u64 = stopped.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(outcome(&ask(&mut library, &token).await), (200, "met".to_owned()));
    let others = consent(&mut me, SCENARIO, OTHER_LIBRARY, json!({})).await;
    let code = make_code(&mut me, &others).await;
    assert_eq!(outcome(&ask(&mut other, &code).await), (200, "met".to_owned()), "another party's codes go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_the_callers_own_call_and_no_other() {
    let city = Deployment::city().await;
    let mut me = city.person(0).await;
    let (one, two) = (token(&mut me, LIBRARY).await, token(&mut me, LIBRARY).await);
    let (mut library, mut other) = (city.party(LIBRARY), city.party(OTHER_LIBRARY));
    let call = question(SCENARIO, &one);
    let first = library.post_json(ANSWERS, &call).await.unwrap();
    assert_eq!(outcome(&first), (200, "met".to_owned()));
    let attestation = text(&first.json().unwrap(), "attestation");

    let again = library.post_json(ANSWERS, &call).await.unwrap();
    assert_eq!(first.json().unwrap(), again.json().unwrap(), "the same call is answered the same");
    let stolen = other.post_json(ANSWERS, &call).await.unwrap();
    assert_eq!(problem(&stolen, &[&attestation, &one]), (403, "consent-not-recognised".to_owned()));
    let mut elsewhere = call.clone();
    elsewhere["scenario"] = json!("library-more-books");
    let elsewhere = library.post_json(ANSWERS, &elsewhere).await.unwrap();
    assert_eq!(stolen.body, elsewhere.body, "one and the same refusal");
    let mut another = call.clone();
    another["consent"] = json!(two);
    let another = library.post_json(ANSWERS, &another).await.unwrap();
    assert_eq!(outcome(&another), (200, "met".to_owned()));
    assert_ne!(text(&another.json().unwrap(), "attestation"), attestation, "a call of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn withheld_is_the_same_whatever_the_reason() {
    let city = Deployment::city().await;
    let (mut met, mut low) = (city.person(0).await, city.person(1).await);
    let wish = |more: Value| consent_of(more);
    let below = token(&mut low, LIBRARY).await;
    let declined = text(&consent(&mut met, SCENARIO, LIBRARY, wish(json!({"decline": true}))).await, "token");
    let revoked = consent(&mut met, SCENARIO, LIBRARY, json!({})).await;
    revoke(&mut met, &revoked).await;
    let used_up = text(&consent(&mut met, SCENARIO, LIBRARY, json!({"uses": 1})).await, "token");
    let mut library = city.party(LIBRARY);
    assert_eq!(outcome(&ask(&mut library, &used_up).await), (200, "met".to_owned()));
    let mut seen = Vec::new();
    for consent in [&below, &declined, &text(&revoked, "token"), &used_up] {
        let response = ask(&mut library, consent).await;
        let mut headers = response.headers.clone();
        headers.remove("date");
        seen.push((response.status, headers, response.body));
    }
    assert_eq!(seen[0].2.len(), 4096);
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
    // And the headers of a met answer tell nothing either.
    let good = token(&mut met, LIBRARY).await;
    let response = ask(&mut library, &good).await;
    let mut headers = response.headers.clone();
    headers.remove("date");
    assert_eq!((headers, response.body.len()), (seen[0].1.clone(), 4096));
}

fn consent_of(more: Value) -> Value {
    let mut wish = json!({"uses": 3});
    wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    wish
}

/// The floor counts from the last byte of the call: a body that dribbles in gets no answer sooner for having begun early.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_leaves_no_earlier_than_the_floor_after_the_last_byte() {
    let city = Deployment::city().await;
    let floor = Duration::from_millis(city.set.city.answer_floor_ms);
    let token = token(&mut city.person(0).await, LIBRARY).await;
    for consent in [token.as_str(), "0000-0000-0000", "nonsense"] {
        let body = question(SCENARIO, consent).to_string();
        let (begin, end) = body.split_at(body.len() / 2);
        let mut api = raw::tls(&city, Some(LIBRARY)).await;
        let head = format!(
            "POST {ANSWERS} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{begin}",
            city.config.api,
            body.len()
        );
        api.write_all(head.as_bytes()).await.unwrap();
        api.flush().await.unwrap();
        // Six floors pass before the rest comes; an answer that counted from the head would be free to leave at once.
        tokio::time::sleep(floor * 6 + floor / 3).await;
        let sent = Instant::now();
        api.write_all(end.as_bytes()).await.unwrap();
        api.flush().await.unwrap();
        let mut first = [0];
        api.read_exact(&mut first).await.unwrap();
        let waited = sent.elapsed();
        assert!(waited >= floor, "{waited:?} after the last byte of {consent:?}, which is sooner than {floor:?}");
    }
}
