//! The sweep over many standings of which 1 in 1,000 is due: what a due one costs must not grow with how many there are.
//!
//! `cargo bench --bench sweep`; `JADEGATE_BENCH_STANDINGS` sets how many (1,000,000 unless set). The same number of due
//! ones is swept in a town of a tenth of the people and in the whole one, in one run; and beside it everybody's standing
//! is read once, without being opened, which is the least that a sweep without an index would do.

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
#[allow(dead_code, reason = "other benchmarks use the rest of it")]
mod machine;
#[path = "../../tests/it/support/nightly.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod nightly;
#[path = "../support/town.rs"]
#[allow(dead_code, reason = "other benchmarks use the rest of it")]
mod town;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use folder::Folder;
use jadegate::clock::{Clock, ManualClock, SystemClock};
use jadegate::store::sled::SledStore;
use jadegate::store::{Batch, Cell, CommitError, KEYS_END, Place, Store, StoreError, Table};
use jadegate::tables;
use nightly::figure;

/// As `src/main.rs` has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ONE_IN: u32 = 1_000;
/// A due standing in the large town against one in the small.
const AT_MOST: f64 = 1.3;

/// A store that counts the cells that it gives.
struct Counting {
    inner: SledStore,
    read: AtomicU64,
}

#[async_trait::async_trait]
impl Store for Counting {
    async fn get(&self, place: &Place) -> Result<Option<Cell>, StoreError> {
        self.read.fetch_add(1, Ordering::Relaxed);
        self.inner.get(place).await
    }

    async fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Cell)>, StoreError> {
        let found = self.inner.scan(table, from, to, limit).await?;
        self.read.fetch_add(found.len() as u64, Ordering::Relaxed);
        Ok(found)
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        self.inner.commit(batch).await
    }
}

/// What a sweep of a town took.
struct Swept {
    took: Duration,
    cpu: Duration,
    read: u64,
    /// Reading everybody's standing once.
    all: Duration,
}

/// A town of so many people of whom so many are due tomorrow; tomorrow comes.
async fn sweep(people: u32, due: u32) -> Swept {
    let (real, folder) = (SystemClock::new(), Folder::new());
    town::found(folder.path());
    let clock = Arc::new(ManualClock::new(real.now()));
    let store = Arc::new(Counting { inner: town::sled_store(folder.path()), read: AtomicU64::new(0) });
    let gateway = town::open_at(folder.path(), store.clone(), clock.clone()).await;
    let all = Arc::new(town::in_order(folder.path(), people));
    town::upload(&gateway, town::REGISTRAR, &all, town::register_line).await;
    let today = jadegate::clock::day_of(clock.now());
    let tomorrow = today.tomorrow().unwrap();
    let some = Arc::new(all.iter().copied().step_by((people / due) as usize).take(due as usize).collect::<Vec<_>>());
    let line = move |n| {
        let line = town::record_line(n, 0);
        line.replace("\"occurred_on\"", &format!("\"valid_until\":\"{tomorrow}\",\"occurred_on\""))
    };
    town::upload(&gateway, town::PROVIDER, &some, line).await;
    assert_eq!(gateway.sweep().await.unwrap().renewed, 0, "nothing is due before the day");

    let wait = jadegate::clock::start_of(tomorrow).duration_since(clock.now()).as_secs() + 1;
    clock.advance(Duration::from_secs(wait.try_into().unwrap()));
    let (read, began, cpu) = (store.read.load(Ordering::Relaxed), real.monotonic(), machine::cpu());
    let mut renewed = 0;
    loop {
        let step = gateway.sweep().await.unwrap();
        renewed += step.renewed;
        if !step.more {
            break;
        }
    }
    let (took, cpu) = (real.monotonic() - began, machine::cpu() - cpu);
    assert_eq!(renewed, u64::from(due));
    let read = store.read.load(Ordering::Relaxed) - read;

    let began = real.monotonic();
    let (mut next, mut standings) = (Vec::new(), 0);
    loop {
        let cells = store.inner.scan(tables::STANDING, &next, &KEYS_END, 1_000).await.unwrap();
        let Some((last, _)) = cells.last() else { break };
        next = [last.as_slice(), &[0]].concat();
        standings += cells.len();
    }
    let all = real.monotonic() - began;
    assert_eq!(standings, people as usize);
    town::close(gateway).await;
    Swept { took, cpu, read, all }
}

async fn measure() {
    let people: u32 = std::env::var("JADEGATE_BENCH_STANDINGS")
        .map_or(1_000_000, |text| text.parse().expect("a number of standings"));
    let due = (people / ONE_IN).max(1);
    let small = sweep(people / 10, due).await;
    let large = sweep(people, due).await;
    let each = |swept: &Swept| swept.took.as_secs_f64() / f64::from(due) * 1e6;
    let cells = |swept: &Swept| swept.read as f64 / f64::from(due);
    figure("sweep: standings, and how many of them are due", format_args!("{people}, {due}"));
    figure("sweep: time a due standing", format_args!("{:.0} us; {:.0} us among a tenth", each(&large), each(&small)));
    figure("sweep: processor time", format_args!("{:.2} s in all", large.cpu.as_secs_f64()));
    figure(
        "sweep: cells read a due standing",
        format_args!("{:.2}; {:.2} among a tenth", cells(&large), cells(&small)),
    );
    let ratio = each(&large) / each(&small);
    figure("sweep: a due standing in the large town over the small", format_args!("{ratio:.2} (at most {AT_MOST})"));
    let reading = large.took.as_secs_f64() / large.all.as_secs_f64();
    figure("sweep: all of it over reading every standing once", format_args!("{reading:.3}"));
    assert!(cells(&large) <= cells(&small) * 1.1, "the sweep reads more where there are more people");
    assert!(ratio <= AT_MOST, "a due standing costs more where there are more people");
}

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(measure());
}
