//! The limits of `city.toml`, side by side and call by call: what is over them is refused, and what is within is answered.

use std::path::Path;

use http::{HeaderMap, Method};
use jadegate::client::{Client, Response};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::deployment::{
    ANSWERS, COURT, Deployment, JSON, LIBRARY, NDJSON, REGISTRAR, SCENARIO, outcome, question, rewrite, token,
};
use crate::support::nightly::figure;
use crate::support::raw;

const FORM: &str = "application/x-www-form-urlencoded";

/// A city with these limits in place of those shipped.
async fn limited(limits: &[(&str, &str)]) -> Deployment {
    let bend = |dir: &Path| {
        rewrite(&dir.join("policies/city.toml"), |text| {
            let line = |line: &str| match line.split_once(" = ").map(|(name, _)| name) {
                Some(name) => limits
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map_or_else(|| line.to_owned(), |(name, value)| format!("{name} = {value}")),
                None => line.to_owned(),
            };
            text.lines().map(line).collect::<Vec<_>>().join("\n")
        });
    };
    let mut city = Deployment::bent(bend).await;
    city.populate(1).await;
    city
}

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Party(&'static str),
    Person,
    Counter,
}

/// A call that is answered when it is within the limits.
#[derive(Debug, Clone)]
struct Call {
    who: Who,
    method: Method,
    path: &'static str,
    kind: &'static str,
    body: String,
}

fn call(who: Who, method: Method, path: &'static str, kind: &'static str, body: impl ToString) -> Call {
    Call { who, method, path, kind, body: body.to_string() }
}

/// Calls of every side, with and without a body. What they ask for need not be there.
fn calls(shown: &str) -> Vec<Call> {
    let (court, registrar) = (Who::Party(COURT), Who::Party(REGISTRAR));
    let nobody = "AAAAAAAAAAAAAAAAAAAAAA";
    let wish = json!({"scenario": SCENARIO, "party": LIBRARY, "uses": 1});
    vec![
        call(Who::Party(LIBRARY), Method::POST, ANSWERS, JSON, question(SCENARIO, shown)),
        call(court, Method::POST, "/v1/records", NDJSON, "\n"),
        call(court, Method::POST, "/v1/records?dry_run=true", NDJSON, "\n"),
        call(registrar, Method::POST, "/v1/register", NDJSON, "\n"),
        call(court, Method::GET, "/v1/records", JSON, ""),
        call(court, Method::GET, "/v1/records/summary", JSON, ""),
        call(court, Method::GET, "/v1/batches/AAAAAAAAAAAAAAAAAAAAAA", JSON, ""),
        call(court, Method::POST, "/v1/records/never-was/withdrawal", JSON, json!({"reason": "撤回"})),
        call(Who::Person, Method::GET, "/v1/me/export", JSON, ""),
        call(Who::Person, Method::GET, "/me", JSON, ""),
        call(Who::Person, Method::POST, "/v1/me/consents", JSON, &wish),
        call(
            Who::Person,
            Method::POST,
            "/me/consent",
            FORM,
            format!("scenario={SCENARIO}&party={LIBRARY}&uses=1&days=1"),
        ),
        // A body that nobody asked for makes no way around.
        call(Who::Person, Method::DELETE, "/v1/me/market-consents/AAAAAAAAAAAAAAAAAAAAAA", JSON, json!({"x": nobody})),
        call(Who::Counter, Method::GET, "/counter", JSON, ""),
        call(Who::Counter, Method::POST, "/counter", FORM, format!("scenario={SCENARIO}&code={shown}")),
    ]
}

async fn client(city: &Deployment, who: Who) -> Client {
    match who {
        Who::Party(party) => city.party(party),
        Who::Person => city.person(0).await,
        Who::Counter => city.login(LIBRARY).await,
    }
}

async fn send(client: &mut Client, call: &Call) -> Response {
    let mut headers = HeaderMap::new();
    if !call.body.is_empty() {
        headers.insert("content-type", call.kind.parse().unwrap());
    }
    client.send(call.method.clone(), call.path, headers, call.body.clone().into()).await.unwrap()
}

/// Each side works on as many calls at once as the city says, whichever call it is and whether it has a body; those beyond are
/// refused at once, and a call by itself is always taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_call_of_any_side_is_worked_on_beyond_calls_at_once() {
    let city = limited(&[("calls_at_once", "1"), ("calls_per_second", "100000"), ("calls_burst", "100000")]).await;
    let shown = token(&mut city.person(0).await, LIBRARY).await;
    const AT_ONCE: usize = 12;
    let question_at_a_counter = calls(&shown).pop().unwrap();
    let mut refused_of = Vec::new();
    for call in calls(&shown) {
        let mut clients = Vec::new();
        for _ in 0..AT_ONCE {
            clients.push(client(&city, call.who).await);
        }
        // What only reads may be done before another begins. A question at a counter holds its place while the store writes,
        // so whoever comes on people's side meantime meets it.
        let mut slow = Vec::new();
        for _ in 0..if matches!(call.who, Who::Party(_)) { 0 } else { AT_ONCE / 2 } {
            slow.push(client(&city, Who::Counter).await);
        }
        let (mut refused, mut waves) = (0, 0);
        // Whether two meet is chance: of twelve at once, wave by wave, some do before long.
        while refused == 0 && waves < 200 {
            waves += 1;
            let mut wave = tokio::task::JoinSet::new();
            let mut beside = tokio::task::JoinSet::new();
            for mut client in slow.drain(..) {
                let question = question_at_a_counter.clone();
                beside.spawn(async move {
                    let said = send(&mut client, &question).await;
                    assert!(said.status.as_u16() < 500 || said.status == 503, "{}", said.status);
                    client
                });
            }
            for mut client in clients.drain(..) {
                let call = call.clone();
                wave.spawn(async move {
                    let said = send(&mut client, &call).await;
                    (client, said)
                });
            }
            slow = beside.join_all().await;
            for (client, said) in wave.join_all().await {
                clients.push(client);
                if said.status == 503 {
                    assert_eq!(outcome(&said).1, "overloaded", "{call:?}");
                    assert!(said.headers.contains_key("retry-after"), "{call:?}");
                    refused += 1;
                } else {
                    assert!(said.status.as_u16() < 500, "{call:?}: {}", said.status);
                }
            }
        }
        assert!(refused > 0, "{} {}: {} at once were all worked on, {waves} times", call.method, call.path, AT_ONCE);
        for client in &mut clients[..3] {
            assert!(send(client, &call).await.status.as_u16() < 500, "{call:?}: by itself it is taken");
        }
        refused_of.push(format!("{} {} {refused} of {}", call.method, call.path, waves * AT_ONCE));
    }
    figure("calls beyond calls_at_once = 1, by call", format_args!("refused: {}", refused_of.join(", ")));
}

/// Whatever a party calls, and at its counter too, counts against its own rate, and no other party pays for it.
#[tokio::test(flavor = "multi_thread")]
async fn each_call_of_a_party_counts_against_its_rate() {
    let city = limited(&[("calls_per_second", "1"), ("calls_burst", "4")]).await;
    let shown = token(&mut city.person(0).await, LIBRARY).await;
    let of_parties = calls(&shown).into_iter().filter(|call| match call.who {
        Who::Party(_) => true,
        Who::Counter => call.method == Method::POST,
        Who::Person => false,
    });
    let mut tried = 0;
    for call in of_parties {
        let mut caller = client(&city, call.who).await;
        let mut limited = None;
        for _ in 0..60 {
            let said = send(&mut caller, &call).await;
            if said.status == 429 {
                limited = Some(said);
                break;
            }
        }
        let limited = limited.unwrap_or_else(|| panic!("{} {} is never limited", call.method, call.path));
        if call.who != Who::Counter {
            assert_eq!(outcome(&limited).1, "too-many-requests", "{call:?}");
        }
        tried += 1;
    }
    assert_eq!(tried, 9);
    let others = city.party("yx-hongta-library").post_json(ANSWERS, &question(SCENARIO, &shown)).await.unwrap();
    assert_eq!(outcome(&others), (403, "consent-not-recognised".to_owned()), "another party has its own");
}

/// The head of an upload of 64 MiB, and a little of its body.
async fn begun(city: &Deployment, party: &str) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let mut upload = raw::tls(city, Some(party)).await;
    let head = format!(
        "POST /v1/records HTTP/1.1\r\nhost: {}\r\ncontent-type: {NDJSON}\r\ncontent-length: {}\r\n\r\n\n",
        city.config.api,
        64 * 1024 * 1024
    );
    upload.write_all(head.as_bytes()).await.unwrap();
    upload.flush().await.unwrap();
    upload
}

/// The largest uploads take up memory for two of a party and eight of all; who comes then is refused before a byte is read, and
/// one party leaves room for the others.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_64_mib_are_held_for_two_of_a_party_and_eight_in_all() {
    let city = limited(&[("calls_per_second", "100000"), ("calls_burst", "100000")]).await;
    let parties = ["yx-court", "yx-civil-affairs", "yx-tax", "yx-health"];
    let mut held = Vec::new();
    // Whether this party is refused, after at most so many tries: a head that was sent is not yet read.
    let full = async |party: &str| {
        for _ in 0..400 {
            let said = city.party(party).post("/v1/records", NDJSON, "\n", vec![]).await.unwrap();
            if said.status == 503 {
                assert_eq!(outcome(&said).1, "overloaded");
                return;
            }
            assert_eq!(said.status, 200, "{party}");
        }
        panic!("{party} may begin more than its share");
    };
    for (n, party) in parties.iter().enumerate() {
        held.push(begun(&city, party).await);
        held.push(begun(&city, party).await);
        full(party).await;
        if let Some(next) = parties.get(n + 1) {
            let said = city.party(next).post("/v1/records", NDJSON, "\n", vec![]).await.unwrap();
            assert_eq!(said.status, 200, "{next} has room while {party} has none");
        }
    }
    full("yx-justice").await;
    let mut third = begun(&city, parties[0]).await;
    let mut said = [0; 12];
    third.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"HTTP/1.1 503");
    drop(held);
    // Who went away makes room again.
    for _ in 0..400 {
        if city.party("yx-justice").post("/v1/records", NDJSON, "\n", vec![]).await.unwrap().status == 200 {
            return;
        }
    }
    panic!("no room although all are gone");
}
