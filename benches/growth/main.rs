//! The cost of an answer at a million people and a million entries of the log, against ten thousand: at most 1.3.
//!
//! `cargo bench --bench growth`; `JADEGATE_BENCH_PEOPLE=50000` for a try. Everybody is registered and has a record, by
//! the gateway's own uploads, a path that nothing shortens; only the order of the people is chosen. Answers are asked of the gateway without its listeners, of
//! people from all over the town, in rounds that take turns between the towns. How long a start takes and what it holds
//! is measured in a process of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark that stops has failed"
)]

#[path = "../../tests/it/support/folder.rs"]
mod folder;
#[path = "../support/machine.rs"]
mod machine;
#[path = "../../tests/it/support/nightly.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod nightly;
#[path = "../support/town.rs"]
mod town;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use folder::Folder;
use jadegate::clock::{Clock, SystemClock};
use jadegate::gateway::{AskRequest, ConsentRequest, Gateway, Who};
use nightly::figure;

/// As `src/main.rs` has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FEW: u32 = 10_000;
const MANY: u32 = 1_000_000;
const PARTY: &str = "yx-bike";
const SCENARIO: &str = "bike-deposit";
/// People who are asked about.
const ASKED: u32 = 4_000;
const IN_FLIGHT: usize = 512;
const ROUNDS: usize = 7;
const AT_MOST: f64 = 1.3;
/// Set in the process that only opens a town.
const OPEN: &str = "JADEGATE_BENCH_OPEN";

/// Calls `one` for each number below `count`, many at once.
async fn each<F: Future<Output = ()> + Send + 'static>(
    count: usize,
    one: impl Fn(usize) -> F + Clone + Send + 'static,
) {
    let next = Arc::new(AtomicUsize::new(0));
    let worker = || {
        let (next, one) = (next.clone(), one.clone());
        async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return;
                }
                one(n).await;
            }
        }
    };
    let tasks: Vec<_> = (0..IN_FLIGHT).map(|_| tokio::spawn(worker())).collect();
    for task in tasks {
        task.await.unwrap();
    }
}

struct Town {
    people: u32,
    folder: Folder,
    gateway: Arc<Gateway>,
    tokens: Arc<Vec<String>>,
    calls: Arc<AtomicUsize>,
}

impl Town {
    async fn new(people: u32) -> Self {
        let (clock, folder) = (SystemClock::new(), Folder::new());
        town::found(folder.path());
        let gateway = town::open(folder.path(), Arc::new(town::sled_store(folder.path()))).await;
        let began = clock.monotonic();
        let everybody = Arc::new(town::in_order(folder.path(), people));
        town::upload(&gateway, town::REGISTRAR, &everybody, town::register_line).await;
        town::upload(&gateway, town::PROVIDER, &everybody, |n| town::record_line(n, 0)).await;
        let loaded = (clock.monotonic() - began).as_secs_f64();
        figure(&format!("growth: loading {people} people"), format_args!("{loaded:.0} s"));
        let tokens = Arc::new(Self::consents(&gateway, people).await);
        Self { people, folder, gateway, tokens, calls: Arc::default() }
    }

    /// The consents of some people, evenly from the first to the last.
    async fn consents(gateway: &Arc<Gateway>, people: u32) -> Vec<String> {
        let (made, count) = (Arc::new(std::sync::Mutex::new(Vec::new())), ASKED.min(people));
        let (keep, gateway) = (made.clone(), gateway.clone());
        each(count as usize, move |n| {
            let (gateway, made) = (gateway.clone(), keep.clone());
            async move {
                let person = town::number(u32::try_from(n).unwrap() * (people / count));
                let session = gateway.demo_login(&person).await.unwrap();
                let Some(Who::Person(login)) = gateway.session(&session).await.unwrap() else { panic!("no person") };
                let request = ConsentRequest {
                    scenario: SCENARIO.into(),
                    party: Some(PARTY.into()),
                    uses: Some(300),
                    ..ConsentRequest::default()
                };
                let consent = gateway.give_consent(&login, &request).await.unwrap();
                made.lock().unwrap().push(consent.token);
            }
        })
        .await;
        std::mem::take(&mut *made.lock().unwrap())
    }

    /// Asks each consent once; microseconds of processor and of wall time an answer.
    async fn round(&self) -> [f64; 2] {
        let clock = SystemClock::new();
        let (began, used, count) = (clock.monotonic(), machine::cpu(), self.tokens.len());
        let (gateway, tokens, calls) = (self.gateway.clone(), self.tokens.clone(), self.calls.clone());
        each(count, move |n| {
            let (gateway, call) = (gateway.clone(), calls.fetch_add(1, Ordering::Relaxed));
            let (scenario, nonce) = (SCENARIO.to_owned(), format!("growth-{call:016}"));
            let request = AskRequest { scenario, consent: tokens[n].clone(), nonce };
            async move {
                let answer = gateway.ask(&town::caller(PARTY), &request).await.unwrap();
                assert_eq!(answer.into_body().len(), 4096);
            }
        })
        .await;
        [machine::cpu() - used, clock.monotonic() - began].map(|time| time.as_secs_f64() * 1e6 / count as f64)
    }

    /// Makes the log longer by calls that are refused: entries that write nothing else.
    async fn entries(&self, count: u32) {
        let gateway = self.gateway.clone();
        each(count as usize, move |_| {
            let gateway = gateway.clone();
            async move { gateway.log_refusal(&town::caller(PARTY)).await.unwrap() }
        })
        .await;
    }

    /// Ends it; what a start of it takes, by a process of its own.
    async fn start_again(self) {
        let Self { people, folder, gateway, tokens: _, calls: _ } = self;
        let entries = gateway.log().size();
        town::close(gateway).await;
        let disk = machine::disk(&folder.path().join("store"));
        figure(
            &format!("growth: disk of {people} people, {entries} entries"),
            format_args!("{} MiB, {} bytes a person", disk >> 20, disk / u64::from(people)),
        );
        let child = std::process::Command::new(std::env::current_exe().unwrap()).env(OPEN, folder.path()).output();
        let child = child.unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
        let said = String::from_utf8(child.stdout).unwrap();
        let [before, after, milliseconds] = said.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{said}") };
        let (before, after): (u64, u64) = (before.parse().unwrap(), after.parse().unwrap());
        let held = after.saturating_sub(before);
        figure(&format!("growth: start with {people} people, {entries} entries"), format_args!("{milliseconds} ms"));
        figure(
            &format!("growth: memory after a start with {people} people, {entries} entries"),
            format_args!("{} MiB, {} bytes a person", after >> 20, held / u64::from(people)),
        );
    }
}

/// The middle of the rounds of two towns that take turns: the second over the first, processor and wall.
async fn compare(claim: &str, few: &Town, many: &Town) -> f64 {
    let mut taken = [(); 4].map(|()| Vec::new());
    for round in 0..=ROUNDS {
        let ([a, b], [c, d]) = (few.round().await, many.round().await);
        // The first round fixes the day's cells, and warms up.
        if round > 0 {
            taken.iter_mut().zip([a, b, c, d]).for_each(|(taken, value)| taken.push(value));
        }
    }
    let [few_cpu, few_wall, many_cpu, many_wall] = taken.map(machine::median);
    figure(
        &format!("growth: {claim}: processor time an answer"),
        format_args!("{many_cpu:.0} us against {few_cpu:.0} us"),
    );
    figure(
        &format!("growth: {claim}: wall time an answer"),
        format_args!("{many_wall:.0} us against {few_wall:.0} us"),
    );
    let ratio = many_cpu / few_cpu;
    figure(
        &format!("growth: {claim}: ratio"),
        format_args!("{ratio:.2}, wall {:.2} (at most {AT_MOST})", many_wall / few_wall),
    );
    ratio
}

async fn open_only(folder: &Path) {
    let (clock, before) = (SystemClock::new(), machine::memory());
    let began = clock.monotonic();
    let gateway = town::open(folder, Arc::new(town::sled_store(folder))).await;
    println!("{before} {} {}", machine::memory(), (clock.monotonic() - began).as_millis());
    town::close(gateway).await;
}

async fn measure() {
    if let Some(folder) = std::env::var_os(OPEN) {
        return open_only(&PathBuf::from(folder)).await;
    }
    let people = std::env::var("JADEGATE_BENCH_PEOPLE").map_or(MANY, |text| text.parse().unwrap());
    let few = Town::new(FEW).await;
    let many = Town::new(people).await;
    let by_people = compare(&format!("{people} people against {FEW}"), &few, &many).await;
    many.entries(people).await;
    let by_entries =
        compare(&format!("{people} people and {} entries against {FEW}", many.gateway.log().size()), &few, &many).await;
    few.start_again().await;
    many.start_again().await;
    assert!(by_people.max(by_entries) <= AT_MOST, "an answer costs more in a large town");
}

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(measure());
}
