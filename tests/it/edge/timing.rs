//! INVARIANT (one withheld): nothing on the wire tells a met answer from a withheld one, nor one reason from another: not the
//! time from the call's last byte to the answer's first, and not which TLS records travel.
//!
//! Times are compared by a rank test and by dudect's t. A reason shows if either exceeds its bound (3.29, which is alpha
//! 0.001, and 4.5), and either does so again on a second, fresh sample: of a true null about one in a million does, of the
//! nine reasons under two loads about one run in fifty thousand. Which of a pair goes first is drawn, so that load from
//! elsewhere falls on both alike. Erasure is not built yet: somebody's rows are taken out of the stopped store in its place.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jadegate::clock::{Clock, SystemClock};
use jadegate::store::sled::{SledOptions, SledStore};
use jadegate::store::{Batch, KEYS_END, Place, Store as _, Write};
use jadegate::tables;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use crate::support::deployment::{
    ANSWERS, Deployment, LIBRARY, OTHER_LIBRARY, P1, REGISTRAR, SCENARIO, ask, consent, make_code, outcome, question,
    revoke, text, token,
};
use crate::support::nightly::{figure, rounds};
use crate::support::raw;
use crate::support::statistics::{dudect_t, rank_z};

const REASONS: [&str; 9] =
    ["below the cut", "no score", "declined", "revoked", "ended", "used up", "code replaced", "code used", "erased"];
/// Nobody's number, too.
const P2: &str = "530499199001010023";
const HOURS: &str = "yx-civil-affairs";
const CONNECTIONS: usize = 12;
const USES: usize = 190;

/// The system's clock, two days ago, and moved on by order.
struct Moved(SystemClock, AtomicU64);

impl Moved {
    fn moved(&self) -> Duration {
        Duration::from_secs(self.1.load(Ordering::SeqCst))
    }
}

impl Clock for Moved {
    fn now(&self) -> Timestamp {
        self.0.now() - SignedDuration::from_hours(48) + self.moved()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic() + self.moved()
    }
}

/// A city, and for each reason what to show; the answer to none of them is met.
pub struct Prepared {
    pub city: Deployment,
    pub shown: Vec<(&'static str, Vec<String>)>,
}

/// Each connection of each sample has a consent of its own: calls that meet at one consent wait for each other, and what is
/// compared with a consent that nobody else shows would be the waiting.
const EACH: usize = CONNECTIONS * SAMPLES;
const SAMPLES: usize = 2;

async fn prepared() -> Prepared {
    prepared_for(EACH).await
}

/// The same with so many things to show for each reason.
pub async fn prepared_for(each: usize) -> Prepared {
    let clock = Arc::new(Moved(SystemClock::new(), AtomicU64::new(0)));
    let mut city = Deployment::provisioned(clock.clone());
    city.start().await;
    city.populate(3).await;
    let line = json!({"id_number": P1, "name": "甲", "resident": false, "full_capacity": true}).to_string();
    city.feed(REGISTRAR, "/v1/register", &line).await;
    let mut shown: Vec<(&str, Vec<String>)> = REASONS.iter().map(|reason| (*reason, Vec::new())).collect();
    shown[8].1 = erased(&mut city, each).await;
    let mut met = city.person(0).await;
    for _ in 0..each {
        shown[4].1.push(text(&consent(&mut met, SCENARIO, LIBRARY, json!({"days": 1})).await, "token"));
    }
    clock.1.store(48 * 3600, Ordering::SeqCst);
    // Sessions are over as well.
    let (mut met, mut low, mut away) = (city.person(0).await, city.person(1).await, city.login(P1).await);
    let mut library = city.party(LIBRARY);
    for _ in 0..each {
        shown[0].1.push(token(&mut low, LIBRARY).await);
        shown[1].1.push(token(&mut away, LIBRARY).await);
        shown[2].1.push(text(&consent(&mut met, SCENARIO, LIBRARY, json!({"decline": true})).await, "token"));
        let revoked = consent(&mut met, SCENARIO, LIBRARY, json!({})).await;
        revoke(&mut met, &revoked).await;
        shown[3].1.push(text(&revoked, "token"));
        shown[5].1.push(text(&consent(&mut met, SCENARIO, LIBRARY, json!({"uses": 1})).await, "token"));
        let (replaced, used) = (
            consent(&mut met, SCENARIO, LIBRARY, json!({"uses": 200})).await,
            consent(&mut met, SCENARIO, LIBRARY, json!({"uses": 200})).await,
        );
        shown[6].1.push(make_code(&mut met, &replaced).await);
        make_code(&mut met, &replaced).await;
        shown[7].1.push(make_code(&mut met, &used).await);
        for spent in [&shown[5].1, &shown[7].1] {
            let answered = ask(&mut library, SCENARIO, spent.last().unwrap()).await;
            assert_eq!(outcome(&answered), (200, "met".to_owned()));
        }
    }
    for (reason, shown) in &shown {
        assert_eq!(outcome(&ask(&mut library, SCENARIO, &shown[0]).await), (200, "withheld".to_owned()), "{reason}");
    }
    Prepared { city, shown }
}

/// Consents of somebody who was met, and of whom nothing is left but these.
async fn erased(city: &mut Deployment, each: usize) -> Vec<String> {
    let known = rows(city, &BTreeSet::new()).await;
    let who = json!({"id_number": P2, "name": "乙", "resident": true, "full_capacity": true}).to_string();
    city.feed(REGISTRAR, "/v1/register", &who).await;
    let hours = json!({"id": "erased", "provider": HOURS, "indicator": "volunteer-hours",
        "person": {"id_number": P2, "name": "乙"}, "occurred_on": "2026-06-01", "quantity": 300});
    city.feed(HOURS, "/v1/records", &hours.to_string()).await;
    let mut me = city.login(P2).await;
    let mut shown = Vec::new();
    for _ in 0..each {
        shown.push(token(&mut me, LIBRARY).await);
    }
    assert_eq!(outcome(&ask(&mut city.party(LIBRARY), SCENARIO, &shown[0]).await), (200, "met".to_owned()));
    let gone = rows(city, &known).await;
    assert!(gone.len() >= 4, "person, records, origin and standing: {}", gone.len());
    shown
}

/// The rows about people in the stopped store; those that are not `known` are deleted if anything is.
async fn rows(city: &mut Deployment, known: &BTreeSet<Place>) -> BTreeSet<Place> {
    city.stop().await.unwrap();
    let store = SledStore::open(&city.dir().join("store"), SledOptions::default()).unwrap();
    let mut found = BTreeSet::new();
    for table in [tables::PERSON, tables::DOSSIER, tables::ORIGIN, tables::STANDING, tables::TODAY] {
        let cells = store.scan(table, &[], &KEYS_END, 10_000).await.unwrap();
        found.extend(cells.into_iter().map(|(key, _)| Place::new(table, key)));
    }
    found.retain(|place| !known.contains(place));
    if !known.is_empty() {
        let writes = found.iter().cloned().map(Write::Delete).collect();
        store.commit(Batch { checks: Vec::new(), writes }).await.unwrap();
    }
    store.close().await;
    city.start().await;
    found
}

/// A call as bytes.
pub fn call(city: &Deployment, shown: &str) -> String {
    call_of(city, &question(SCENARIO, shown).to_string())
}

/// A call with this body as bytes.
pub fn call_of(city: &Deployment, body: &str) -> String {
    format!(
        "POST {ANSWERS} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        city.config.api,
        body.len()
    )
}

/// Sends a call and reads its answer; milliseconds to the first byte, and whether it was met.
async fn timed(api: &mut TlsStream<TcpStream>, call: &str) -> (f64, bool) {
    api.write_all(call.as_bytes()).await.unwrap();
    api.flush().await.unwrap();
    let sent = Instant::now();
    let mut got = vec![0; 8192];
    let mut length = api.read(&mut got).await.unwrap();
    let waited = sent.elapsed().as_secs_f64() * 1000.0;
    loop {
        let text = String::from_utf8_lossy(&got[..length]);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            assert!(head.starts_with("HTTP/1.1 200"), "{text}");
            if body.len() == 4096 {
                return (waited, body.contains("\"met\""));
            }
        }
        length += api.read(&mut got[length..]).await.unwrap();
    }
}

/// Pairs of a met and a withheld answer, on many connections at once; the times of each.
async fn pairs(prepared: &Prepared, which: usize, sample: usize, pairs: usize) -> (Vec<f64>, Vec<f64>) {
    let shown = &prepared.shown[which].1[sample * CONNECTIONS..];
    let each = pairs.div_ceil(CONNECTIONS);
    let mut me = prepared.city.person(0).await;
    let mut lines = Vec::new();
    for (n, shown) in shown.iter().take(CONNECTIONS).enumerate() {
        let mut api = raw::tls(&prepared.city, Some(LIBRARY)).await;
        let mut calls = Vec::new();
        let mut token_of_these = token(&mut me, LIBRARY).await;
        for pair in 0..each {
            if pair % USES == USES - 1 {
                token_of_these = token(&mut me, LIBRARY).await;
            }
            let two = [call(&prepared.city, &token_of_these), call(&prepared.city, shown)];
            // Which goes first: half of the pairs each, in no order that repeats with anything.
            let first = usize::from((pair * 7 + n * 3 + pair / 5).count_ones() % 2 == 0);
            calls.push((first, two));
        }
        lines.push(tokio::spawn(async move {
            let (mut met, mut withheld) = (Vec::new(), Vec::new());
            for (first, two) in calls {
                for which in [first, 1 - first] {
                    let (took, is_met) = timed(&mut api, &two[which]).await;
                    assert_eq!(is_met, which == 0);
                    if is_met { met.push(took) } else { withheld.push(took) }
                }
            }
            (met, withheld)
        }));
    }
    let (mut met, mut withheld) = (Vec::new(), Vec::new());
    for line in lines {
        let (one, other) = line.await.unwrap();
        met.extend(one);
        withheld.extend(other);
    }
    (met, withheld)
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

async fn no_reason_shows(prepared: &Prepared, how: &str, count: usize) {
    for (which, reason) in REASONS.iter().enumerate() {
        let mut seen = Vec::new();
        for sample in 0..SAMPLES {
            let (met, withheld) = pairs(prepared, which, sample, count).await;
            let (z, t) = (rank_z(&withheld, &met), dudect_t(&withheld, &met));
            figure(
                &format!("timing, {how}: {reason}"),
                format_args!(
                    "{} pairs, z {z:.2}, t {t:.2}, medians {:.3} and {:.3} ms",
                    met.len(),
                    median(&met),
                    median(&withheld)
                ),
            );
            seen.push((z, t));
            if z.abs() < 3.29 && t.abs() < 4.5 {
                seen.clear();
                break;
            }
        }
        assert!(seen.is_empty(), "{reason}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn met_and_every_reason_of_withheld_take_the_same_time() {
    let prepared = prepared().await;
    no_reason_shows(&prepared, "idle", rounds(200, 2_000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_they_take_the_same_time() {
    let prepared = prepared().await;
    let mut me = prepared.city.person(2).await;
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let call_of_other = call(&prepared.city, &token(&mut me, OTHER_LIBRARY).await);
        let mut api = raw::tls(&prepared.city, Some(OTHER_LIBRARY)).await;
        // The same call again and again is a repeat: it does all the work, and spends no use.
        load.spawn(async move {
            loop {
                timed(&mut api, &call_of_other).await;
            }
        });
    }
    no_reason_shows(&prepared, "under load", rounds(200, 2_000)).await;
    load.shutdown().await;
}

/// The records of a TLS stream, by type and length.
#[derive(Default)]
struct Records {
    pending: Vec<u8>,
    seen: Vec<(u8, usize)>,
}

impl Records {
    fn take(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        while let [kind, _, _, high, low, ..] = self.pending[..] {
            let length = usize::from(u16::from_be_bytes([high, low]));
            if self.pending.len() < 5 + length {
                break;
            }
            self.seen.push((kind, length));
            self.pending.drain(..5 + length);
        }
    }
}

/// Passes bytes on, and notes what records the server sends.
async fn recorder(to: std::net::SocketAddr) -> (std::net::SocketAddr, Arc<Mutex<Records>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let records = Arc::new(Mutex::new(Records::default()));
    let noted = records.clone();
    tokio::spawn(async move {
        let (near, _) = listener.accept().await.unwrap();
        let far = TcpStream::connect(to).await.unwrap();
        let (mut near_read, mut near_write) = near.into_split();
        let (mut far_read, mut far_write) = far.into_split();
        let up = async { tokio::io::copy(&mut near_read, &mut far_write).await };
        let down = async {
            let mut buffer = vec![0; 16 * 1024];
            loop {
                let read = far_read.read(&mut buffer).await?;
                if read == 0 {
                    return Ok::<_, std::io::Error>(());
                }
                noted.lock().unwrap().take(&buffer[..read]);
                near_write.write_all(&buffer[..read]).await?;
            }
        };
        tokio::select! { _ = up => {}, _ = down => {} }
    });
    (address, records)
}

#[tokio::test(flavor = "multi_thread")]
async fn met_and_every_reason_of_withheld_travel_in_the_same_tls_records() {
    let prepared = prepared().await;
    let (address, records) = recorder(prepared.city.config.api).await;
    let mut api = raw::tls_at(&prepared.city, address, Some(LIBRARY)).await;
    let met = token(&mut prepared.city.person(0).await, LIBRARY).await;
    // What ends the handshake has come once the first answer has.
    timed(&mut api, &call(&prepared.city, &met)).await;
    records.lock().unwrap().seen.clear();
    let first: Vec<(&str, String)> = prepared.shown.iter().map(|(reason, shown)| (*reason, shown[0].clone())).collect();
    let mut seen = Vec::new();
    for round in 0..rounds(5, 50) {
        for (reason, shown) in std::iter::once(&("met", met.clone())).chain(&first) {
            let (_, is_met) = timed(&mut api, &call(&prepared.city, shown)).await;
            assert_eq!(is_met, *reason == "met");
            seen.push((round, *reason, std::mem::take(&mut records.lock().unwrap().seen)));
        }
    }
    let (.., of_met) = seen[0].clone();
    assert!(!of_met.is_empty() && of_met.iter().map(|(_, length)| length).sum::<usize>() > 4096, "{of_met:?}");
    for (round, reason, of_this) in &seen {
        assert_eq!(*of_this, of_met, "{reason} in round {round}");
    }
    figure(
        "TLS records of an answer, met or withheld for any reason",
        format_args!("{} answers, each of the records {of_met:?}", seen.len()),
    );
}
