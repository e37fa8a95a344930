//! Answers a second at saturation over loopback TLS, everything on, against the same listener signing one ES256 and
//! nothing else; and how long an answer takes at half of that, against the fixed time.
//!
//! `cargo bench --bench answers`. Client and server share the machine. The ratio is the figure; the rates are of this machine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark that stops has failed"
)]

#[path = "../../tests/it/support/deployment.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod deployment;
#[path = "../../tests/it/support/folder.rs"]
mod folder;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use deployment::{ANSWERS, Deployment, question};
use folder::Folder;
use jadegate::client::Client;
use jadegate::clock::{Clock, SystemClock};
use jadegate::http::listener::{self, ListenerLimits};
use jadegate::http::tls::Tls;
use jadegate::keys::SigningKey;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// As `src/main.rs` has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTY: &str = "yx-bike";
const SCENARIO: &str = "bike-deposit";
/// Enough in flight that the fixed time does not bound the rate.
const IN_FLIGHT: usize = 1_536;
const SECONDS: u64 = 8;
const USES: u32 = 300;

#[derive(Default)]
struct Tally {
    answers: AtomicU64,
    over: AtomicBool,
}

/// Asks over one connection until time is up, every `pause` if one is given; gives the times taken, in microseconds.
async fn asker(mut client: Client, tokens: Vec<String>, pause: Option<Duration>, tally: Arc<Tally>) -> Vec<u64> {
    let (clock, mut took) = (SystemClock::new(), Vec::new());
    for token in tokens.iter().cycle() {
        if tally.over.load(Ordering::Relaxed) {
            break;
        }
        let body = question(SCENARIO, token);
        let began = clock.monotonic();
        let answer = client.post_json(ANSWERS, &body).await.expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 4096));
        let spent = clock.monotonic() - began;
        took.push(u64::try_from(spent.as_micros()).unwrap());
        tally.answers.fetch_add(1, Ordering::Relaxed);
        if let Some(pause) = pause {
            tokio::time::sleep(pause.saturating_sub(spent)).await;
        }
    }
    took
}

/// Runs askers for a while after a second of warming up; gives answers a second and the times taken, sorted.
async fn run(clients: Vec<(Client, Vec<String>)>, pause: Option<Duration>) -> (f64, Vec<u64>) {
    let tally = Arc::new(Tally::default());
    let askers: Vec<_> = clients.into_iter().map(|(c, t)| tokio::spawn(asker(c, t, pause, tally.clone()))).collect();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = tally.answers.load(Ordering::Relaxed);
    let cpu = cpu_seconds();
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    let answers = tally.answers.load(Ordering::Relaxed) - before;
    println!(
        "{:.0} us of CPU a call, {:.2} cores busy",
        (cpu_seconds() - cpu) / answers as f64 * 1e6,
        (cpu_seconds() - cpu) / SECONDS as f64
    );
    tally.over.store(true, Ordering::Relaxed);
    let mut took = Vec::new();
    for asker in askers {
        took.extend(asker.await.unwrap());
    }
    took.sort_unstable();
    (answers as f64 / SECONDS as f64, took)
}

/// The seconds of CPU that this process has used.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn at(took: &[u64], share: f64) -> f64 {
    took[((took.len() - 1) as f64 * share) as usize] as f64 / 1000.0
}

/// The ceiling: the same listener, TLS and size of answer, with one ES256 signature a call.
async fn ceiling(city: &Deployment) -> f64 {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (chain, key, ca) = (city.read("pki/server.pem"), city.read("pki/server.key"), city.read("pki/ca.pem"));
    let tls = Arc::new(Tls::new(&chain, &key, Some(&ca), clock).unwrap());
    let signer = Arc::new(SigningKey::from_pkcs8(&SigningKey::generate().unwrap()).unwrap());
    let sign = async |State(signer): State<Arc<SigningKey>>, body: axum::body::Bytes| {
        let signature = signer.sign(&body).unwrap();
        let mut answer = json!({ "signature": jadegate::keys::hex(&signature) }).to_string().into_bytes();
        answer.resize(4096, b' ');
        answer
    };
    let router = Router::new().route(ANSWERS, post(sign)).with_state(signer);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://{}", listener.local_addr().unwrap());
    let ((_open, shut), (_limits, limits)) = (watch::channel(false), watch::channel(ListenerLimits::new("ceiling")));
    tokio::spawn(listener::serve(listener, Some(tls), router, limits, shut));
    let tls = city.tls(PARTY);
    let client = |_| (Client::new(&base, Some(tls.clone())).unwrap(), vec!["x".repeat(68)]);
    run((0..IN_FLIGHT).map(client).collect(), None).await.0
}

async fn measure() {
    let mut city = Deployment::bent(|dir| {
        deployment::rewrite(&dir.join("policies/city.toml"), |text| {
            text.replace("calls_per_second = 400", "calls_per_second = 100000")
                .replace("calls_burst = 800", "calls_burst = 200000")
                .replace("calls_at_once = 256", "calls_at_once = 4096")
        });
    })
    .await;
    city.populate(3).await;
    let mut me = city.person(0).await;
    let mut tokens = Vec::new();
    for _ in 0..IN_FLIGHT {
        let wish = json!({ "uses": USES });
        let made = deployment::consent(&mut me, SCENARIO, PARTY, wish).await;
        tokens.push(deployment::text(&made, "token"));
    }
    let tls = city.tls(PARTY);
    let client = |token: &String| (city.with_tls(tls.clone()), vec![token.clone()]);

    let ceiling = if std::env::var_os("ONLY").is_some() { 1.0 } else { ceiling(&city).await };
    let (rate, took) = run(tokens.iter().map(client).collect(), None).await;
    println!(
        "answers, {IN_FLIGHT} in flight: {rate:.0} a second, p50 {:.1} ms, p99 {:.1} ms",
        at(&took, 0.5),
        at(&took, 0.99)
    );
    println!("one ES256 signature, nothing else: {ceiling:.0} a second");
    println!("ratio: {:.2}", rate / ceiling);

    let half = 128;
    let pause = Duration::from_secs_f64(f64::from(half) / (rate / 2.0)).max(Duration::from_millis(60));
    let some = tokens.iter().take(usize::try_from(half).unwrap()).map(client).collect();
    let (rate, took) = run(some, Some(pause)).await;
    println!(
        "at {rate:.0} a second: p50 {:.1} ms, p99 {:.1} ms; p99 over the fixed 50 ms: {:.2}",
        at(&took, 0.5),
        at(&took, 0.99),
        at(&took, 0.99) / 50.0
    );
}

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(measure());
}
