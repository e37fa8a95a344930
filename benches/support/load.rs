//! Askers: connections that ask one after another, as many at once as a benchmark wants.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use jadegate::client::Client;
use jadegate::clock::{Clock, SystemClock};

use serde_json::json;

use crate::deployment::{self, ANSWERS, Deployment, question, rewrite};
use crate::machine;

/// Whom it asks about what, by consents that nobody uses up.
pub const PARTY: &str = "yx-bike";
pub const SCENARIO: &str = "bike-deposit";
const USES: u32 = 300;

/// Lets a city answer as much as it can.
pub fn unlimited(dir: &Path) {
    rewrite(&dir.join("policies/city.toml"), |text| {
        text.replace("calls_per_second = 400", "calls_per_second = 100000")
            .replace("calls_burst = 800", "calls_burst = 200000")
            .replace("calls_at_once = 256", "calls_at_once = 4096")
    });
}

/// Populates a city; gives the tokens of so many consents of somebody who is met.
pub async fn consents(city: &mut Deployment, count: usize) -> Vec<String> {
    city.populate(3).await;
    let mut me = city.person(0).await;
    let mut tokens = Vec::new();
    for _ in 0..count {
        let made = deployment::consent(&mut me, SCENARIO, PARTY, json!({ "uses": USES })).await;
        tokens.push(deployment::text(&made, "token"));
    }
    tokens
}

/// Who asks, and what it does with its time.
pub struct Asker {
    pub client: Client,
    pub token: String,
    /// A question every so often, the first after some time; or one after the other.
    pub every: Option<(Duration, Duration)>,
}

/// What a run came to.
pub struct Ran {
    /// Answers a second.
    pub rate: f64,
    /// How long each took, in microseconds, sorted.
    took: Vec<u64>,
    /// Processor time of this process an answer, in microseconds, and how many cores were busy.
    pub cpu: f64,
    pub cores: f64,
}

impl Ran {
    /// The time within which this share of the answers was there, in milliseconds.
    pub fn within(&self, share: f64) -> f64 {
        self.took[((self.took.len() - 1) as f64 * share) as usize] as f64 / 1000.0
    }
}

#[derive(Default)]
struct Tally {
    answers: AtomicU64,
    counted: AtomicBool,
    over: AtomicBool,
}

async fn asks(mut asker: Asker, tally: Arc<Tally>) -> Vec<u64> {
    let (clock, mut took) = (SystemClock::new(), Vec::new());
    let start = clock.monotonic() + asker.every.map_or(Duration::ZERO, |(_, first)| first);
    let mut number = 0;
    while !tally.over.load(Ordering::Relaxed) {
        if let Some((every, _)) = asker.every {
            let due = start + every * number;
            tokio::time::sleep(due.saturating_sub(clock.monotonic())).await;
            number += 1;
        }
        let began = clock.monotonic();
        let answer = asker.client.post_json(ANSWERS, &question(SCENARIO, &asker.token)).await.expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 4096));
        if tally.counted.load(Ordering::Relaxed) {
            took.push(u64::try_from((clock.monotonic() - began).as_micros()).unwrap());
            tally.answers.fetch_add(1, Ordering::Relaxed);
        }
    }
    took
}

/// Runs askers for some seconds, after three of warming up.
pub async fn run(askers: Vec<Asker>, seconds: u64) -> Ran {
    let tally = Arc::new(Tally::default());
    let askers: Vec<_> = askers.into_iter().map(|asker| tokio::spawn(asks(asker, tally.clone()))).collect();
    tokio::time::sleep(Duration::from_secs(3)).await;
    tally.counted.store(true, Ordering::Relaxed);
    let used = machine::cpu();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (answers, used) = (tally.answers.load(Ordering::Relaxed), machine::cpu() - used);
    tally.over.store(true, Ordering::Relaxed);
    let mut took = Vec::new();
    for asker in askers {
        took.extend(asker.await.unwrap());
    }
    took.sort_unstable();
    let used = used.as_secs_f64();
    let (rate, cores) = (answers as f64 / seconds as f64, used / seconds as f64);
    Ran { rate, took, cpu: used / answers as f64 * 1e6, cores }
}
