//! Durable records a second through the gateway, against sled's own `apply_batch` of the cells that this writes: at least half.
//!
//! `cargo bench --bench report`. Each round reports one record about each of some people, in uploads of 500 lines. Every
//! other round is timed; the cells of those between are kept, and given in the very same groups to a bare sled, which
//! flushes and syncs as the store does. Keeping them takes time and memory, which is why no round is both.

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

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use folder::Folder;
use jadegate::clock::{Clock, SystemClock};
use jadegate::store::sled::SledStore;
use jadegate::store::{Batch, Cell, CommitError, Place, Store, StoreError, Table, Write};
use nightly::figure;

/// As `src/main.rs` has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PEOPLE: u32 = 20_000;
const ROUNDS: u32 = 6;
const AT_LEAST: f64 = 0.5;

/// A store that remembers what was committed, while it is told to.
struct Recording {
    inner: SledStore,
    on: AtomicBool,
    committed: Mutex<Vec<Vec<Write>>>,
}

#[async_trait::async_trait]
impl Store for Recording {
    async fn get(&self, place: &Place) -> Result<Option<Cell>, StoreError> {
        self.inner.get(place).await
    }

    async fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Cell)>, StoreError> {
        self.inner.scan(table, from, to, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        let writes = self.on.load(Ordering::Relaxed).then(|| batch.writes.clone());
        self.inner.commit(batch).await?;
        self.committed.lock().unwrap().extend(writes);
        Ok(())
    }
}

/// sled alone: cells under their table and key, long ones in pieces as the store has them.
struct Bare {
    db: sled::Db,
    data: std::fs::File,
}

impl Bare {
    fn open(folder: &Path) -> Self {
        let config = sled::Config::new().path(folder).cache_capacity(256 << 20).flush_every_ms(None);
        let db = config.open().unwrap();
        Self { db, data: std::fs::File::open(folder.join("db")).unwrap() }
    }

    fn batch(writes: &[Write]) -> sled::Batch {
        let mut batch = sled::Batch::default();
        for write in writes {
            let place = write.place();
            let key = [place.table.name().as_bytes(), &place.key].concat();
            let Write::Put(_, cell) = write else {
                // A row of what is due that moves to another day; it was never in pieces.
                batch.remove(key);
                continue;
            };
            if cell.value.len() <= 4096 {
                batch.insert(key, [&cell.version.to_be_bytes(), cell.value.as_slice()].concat());
                continue;
            }
            for (piece, number) in cell.value.chunks(4096).zip(0u8..) {
                batch.insert([&[0xff], key.as_slice(), &[number]].concat(), piece);
            }
            batch.insert(key, &cell.version.to_be_bytes());
        }
        batch
    }

    fn apply(&self, batch: sled::Batch) {
        self.db.apply_batch(batch).unwrap();
        self.db.flush().unwrap();
        self.data.sync_data().unwrap();
    }
}

async fn measure() {
    let (clock, folder) = (SystemClock::new(), Folder::new());
    town::found(folder.path());
    let committed = Mutex::default();
    let store = Arc::new(Recording { inner: town::sled_store(folder.path()), on: AtomicBool::new(true), committed });
    let gateway = town::open(folder.path(), store.clone()).await;
    let bare = Bare::open(&folder.path().join("bare"));
    let people = Arc::new((0..PEOPLE).collect::<Vec<_>>());
    let taken = || std::mem::take(&mut *store.committed.lock().unwrap());

    town::upload(&gateway, town::REGISTRAR, &people, town::register_line).await;
    taken().iter().for_each(|writes| bare.apply(Bare::batch(writes)));

    let (mut ours, mut theirs, mut cpu, mut cells) = (Duration::ZERO, Duration::ZERO, [Duration::ZERO; 2], 0);
    // The first two rounds warm up.
    for round in 0..2 * ROUNDS + 2 {
        let (kept, counts) = (round % 2 == 0, round > 1);
        store.on.store(kept, Ordering::Relaxed);
        let (began, used) = (clock.monotonic(), machine::cpu());
        town::upload(&gateway, town::PROVIDER, &people, move |n| town::record_line(n, round)).await;
        if !kept && counts {
            (ours, cpu[0]) = (ours + (clock.monotonic() - began), cpu[0] + (machine::cpu() - used));
        }
        let committed = taken();
        let batches: Vec<_> = committed.iter().map(|writes| Bare::batch(writes)).collect();
        let (began, used) = (clock.monotonic(), machine::cpu());
        batches.into_iter().for_each(|batch| bare.apply(batch));
        if kept && counts {
            cells += committed.iter().map(Vec::len).sum::<usize>();
            (theirs, cpu[1]) = (theirs + (clock.monotonic() - began), cpu[1] + (machine::cpu() - used));
        }
    }
    town::close(gateway).await;

    let records = f64::from(PEOPLE * ROUNDS);
    let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
    figure("report: durable records a second", format_args!("{:.0}", records / ours.as_secs_f64()));
    figure("report: the same cells by sled alone", format_args!("{:.0}", records / theirs.as_secs_f64()));
    figure("report: cells a record", format_args!("{:.2}", cells as f64 / records));
    let [by_us, by_sled] = cpu.map(|used| used.as_secs_f64() / records * 1e6);
    figure("report: processor time a record", format_args!("{by_us:.0} us, sled alone {by_sled:.0} us"));
    figure("report: gateway over sled alone", format_args!("{ratio:.2} (at least {AT_LEAST})"));
    assert!(ratio >= AT_LEAST, "the gateway is slower than half of sled alone");
}

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(measure());
}
