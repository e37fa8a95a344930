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
#[path = "../support/load.rs"]
mod load;
#[path = "../support/machine.rs"]
#[allow(dead_code, reason = "other benchmarks use the rest of it")]
mod machine;
#[path = "../../tests/it/support/nightly.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod nightly;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use deployment::{ANSWERS, Deployment};
use folder::Folder;
use jadegate::client::Client;
use jadegate::clock::{Clock, SystemClock};
use jadegate::http::listener::{self, ListenerLimits};
use jadegate::http::tls::Tls;
use jadegate::keys::SigningKey;
use load::{Asker, PARTY, Ran};
use nightly::figure;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// As `src/main.rs` has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Enough in flight that the fixed time does not bound the rate.
const IN_FLIGHT: usize = 1_536;
const SECONDS: u64 = 8;
/// Connections at half load.
const HALF: usize = 512;
const AIM: f64 = 0.4;
const TIME_AIM: f64 = 1.2;

/// The ceiling: the same listener, TLS and size of answer, with one ES256 signature a call.
async fn ceiling(city: &Deployment) -> Ran {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (chain, key, ca) = (city.read("pki/server.pem"), city.read("pki/server.key"), city.read("pki/ca.pem"));
    let tls = Arc::new(Tls::new(&chain, &key, Some(&ca), clock).unwrap());
    let signer = Arc::new(SigningKey::from_pkcs8(&SigningKey::generate().unwrap()).unwrap());
    let sign = async |State(signer): State<Arc<SigningKey>>, body: axum::body::Bytes| {
        let signature = signer.sign(&body).unwrap();
        let mut answer = json!({ "signature": jadegate::hex::hex(&signature) }).to_string().into_bytes();
        answer.resize(4096, b' ');
        answer
    };
    let router = Router::new().route(ANSWERS, post(sign)).with_state(signer);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://{}", listener.local_addr().unwrap());
    let ((_open, shut), (_limits, limits)) = (watch::channel(false), watch::channel(ListenerLimits::new("ceiling")));
    tokio::spawn(listener::serve(listener, Some(tls), router, limits, shut));
    let tls = city.tls(PARTY);
    let client =
        |_| Asker { client: Client::new(&base, Some(tls.clone())).unwrap(), token: "x".repeat(68), every: None };
    load::run((0..IN_FLIGHT).map(client).collect(), SECONDS).await
}

async fn measure() {
    let mut city = Deployment::bent(load::unlimited).await;
    let tokens = load::consents(&mut city, IN_FLIGHT).await;
    let tls = city.tls(PARTY);
    let client = |token: &String| Asker { client: city.with_tls(tls.clone()), token: token.clone(), every: None };

    let ceiling = ceiling(&city).await;
    let full = load::run(tokens.iter().map(client).collect(), SECONDS).await;
    figure("answers: a second at saturation", format_args!("{:.0}, {:.2} cores busy", full.rate, full.cores));
    figure("answers: one ES256 signature a call and nothing else", format_args!("{:.0} a second", ceiling.rate));
    figure("answers: processor time a call", format_args!("{:.0} us, the ceiling {:.0} us", full.cpu, ceiling.cpu));
    figure("answers: over the ceiling", format_args!("{:.2} (aim {AIM})", full.rate / ceiling.rate));

    // Calls come evenly, from more connections than are answered at once: none waits for its turn.
    let every = Duration::from_secs_f64(HALF as f64 / (full.rate / 2.0));
    let spread = |(n, token)| Asker { every: Some((every, every * n / HALF as u32)), ..client(token) };
    let half = load::run((0..).zip(tokens.iter().take(HALF)).map(spread).collect(), SECONDS).await;
    let (p50, p99) = (half.within(0.5), half.within(0.99));
    figure("answers: time at half load", format_args!("{:.0} a second, p50 {p50:.1} ms, p99 {p99:.1} ms", half.rate));
    figure("answers: p99 at half load over the fixed 50 ms", format_args!("{:.2} (aim {TIME_AIM})", p99 / 50.0));
    assert!(p99 <= 50.0 * TIME_AIM, "answers leave late at half load");
    assert!(
        full.rate >= ceiling.rate * AIM,
        "fewer answers than the aim: docs/performance.md says where the time goes"
    );
}

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(measure());
}
