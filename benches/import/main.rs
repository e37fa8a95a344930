//! Bulk import against sled's raw load of the cells that it writes, at least half; against Python's csv module reading the
//! same file; and its peak memory, which must not grow with the file.
//!
//! `cargo bench --bench import`; `JADEGATE_BENCH_RECORDS` is the number of records, 1,000,000 unless said. A workbook has a tenth of
//! the rows. Every import is the command's own, over a gateway of this process and sled in a new folder. The cells are
//! written down in an import that is not timed, so that neither time nor memory is spent on that in the others.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark that stops has failed"
)]

#[path = "../support/bare.rs"]
mod bare;
#[path = "files.rs"]
mod files;
#[path = "../../tests/it/support/folder.rs"]
mod folder;
#[path = "../../tests/it/support/nightly.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod nightly;
#[path = "../support/town.rs"]
#[allow(dead_code, reason = "other benchmarks use the rest of it")]
mod town;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bare::{Bare, Recorded};
use folder::Folder;
use jadegate::cli::feed_args::FeedArgs;
use jadegate::cli::import::{Target, What, send};
use jadegate::clock::{Clock, SystemClock};
use jadegate::feed::{self, How, Kind};
use jadegate::policies::{PolicySet, shipped};
use jadegate::store::sled::SledStore;
use jadegate::store::{Batch, Cell, CommitError, Place, Store, StoreError, Table, Write};
use nightly::figure;

/// As `src/main.rs` has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const AT_LEAST: f64 = 0.5;
/// How much more memory ten times the records may take: sled's cache fills, and nothing else grows.
const MEMORY_AT_MOST: f64 = 1.5;
/// Set in the process whose memory is taken: the file that it imports.
const ALONE: &str = "JADEGATE_BENCH_IMPORT_ALONE";

/// A store that writes down what was committed.
struct Recording {
    inner: SledStore,
    committed: Mutex<BufWriter<File>>,
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
        let writes: Vec<(Vec<u8>, u64, Vec<u8>)> = batch.writes.iter().filter_map(put).collect();
        self.inner.commit(batch).await?;
        bare::write_down(&mut *self.committed.lock().unwrap(), &writes);
        Ok(())
    }
}

/// What is written. A row of what is due that gives way to another is deleted, which sled alone is spared.
fn put(write: &Write) -> Option<(Vec<u8>, u64, Vec<u8>)> {
    let Write::Put(place, cell) = write else { return None };
    Some(([place.table.name().as_bytes(), &place.key].concat(), cell.version, cell.value.clone()))
}

fn people(records: u32) -> u32 {
    (records / 10).max(1)
}

/// A new town, with everybody registered, and its store.
async fn new_town(records: u32, register: bool) -> Folder {
    let folder = Folder::new();
    town::found(folder.path());
    if register {
        let gateway = town::open(folder.path(), Arc::new(town::sled_store(folder.path()))).await;
        let order = Arc::new(town::in_order(folder.path(), people(records)));
        town::upload(&gateway, town::REGISTRAR, &order, town::register_line).await;
        town::close(gateway).await;
    }
    folder
}

/// Imports a file; how long that took.
async fn import(folder: &Path, store: Arc<dyn Store>, file: &Path, records: u32) -> Duration {
    let clock = SystemClock::new();
    let set = PolicySet::parse(shipped()).unwrap();
    let party = set.parties.values().find(|party| party.id.as_str() == town::PROVIDER).unwrap();
    let gateway = Arc::into_inner(town::open(folder, store).await).unwrap();
    let target = Arc::new(Target::stopped(gateway, party, Kind::Records));
    let what = What {
        feed: FeedArgs::default(),
        mapping: Arc::default(),
        kind: Kind::Records,
        provider: town::PROVIDER.to_owned(),
        prohibited: Arc::new(set.prohibited.clone()),
    };
    let began = clock.monotonic();
    let done = send(&target, &what, file, &clock).await.unwrap();
    let took = clock.monotonic() - began;
    assert_eq!((done.counts.accepted, done.rejected), (u64::from(records), 0));
    Arc::into_inner(target).unwrap().close().await;
    took
}

async fn timed(file: &Path, records: u32) -> f64 {
    let town = new_town(records, true).await;
    let store = Arc::new(town::sled_store(town.path()));
    f64::from(records) / import(town.path(), store, file, records).await.as_secs_f64()
}

/// sled's own load of the cells that an import writes, in the same batches.
async fn raw(file: &Path, records: u32, scratch: &Path) -> f64 {
    let town = new_town(records, true).await;
    let written = scratch.join("written");
    let committed = Mutex::new(BufWriter::new(File::create(&written).unwrap()));
    let store = Arc::new(Recording { inner: town::sled_store(town.path()), committed });
    import(town.path(), store.clone(), file, records).await;
    store.committed.lock().unwrap().flush().unwrap();
    let bare = Bare::open(&scratch.join("bare"));
    let (clock, mut took, mut cells) = (SystemClock::new(), Duration::ZERO, 0);
    for writes in Recorded::open(&written) {
        cells += writes.len();
        let batch = Bare::batch(&writes);
        let began = clock.monotonic();
        bare.apply(batch);
        took += clock.monotonic() - began;
    }
    figure("import: cells a record", format_args!("{:.2}", cells as f64 / f64::from(records)));
    f64::from(records) / took.as_secs_f64()
}

/// Reading alone, in rows a second: ours, and Python's.
fn reading(file: &Path, records: u32) -> (f64, f64) {
    let set = PolicySet::parse(shipped()).unwrap();
    let clock = SystemClock::new();
    let began = clock.monotonic();
    let source = feed::source(File::open(file).unwrap()).unwrap();
    let opened = feed::open("a.csv", source, &How::plain(Kind::Records, &set.prohibited)).unwrap();
    let lines = opened.lines.filter(|line| line.as_ref().unwrap().bytes.is_ok()).count();
    let ours = (clock.monotonic() - began).as_secs_f64();
    assert_eq!(lines, records as usize);
    let program = "import csv, sys, time\nbegan = time.perf_counter()\nwith open(sys.argv[1], encoding='gb18030', newline='') as f:\n    rows = sum(1 for _ in csv.reader(f))\nprint(rows, time.perf_counter() - began)";
    let output = Command::new("python3").args(["-c", program]).arg(file).output().expect("python3");
    let said = String::from_utf8(output.stdout).unwrap();
    let mut words = said.split_whitespace();
    assert_eq!(words.next(), Some((records + 1).to_string().as_str()));
    let theirs: f64 = words.next().unwrap().parse().unwrap();
    (f64::from(records) / ours, f64::from(records) / theirs)
}

/// The most memory that an import of this file takes, in MiB, in a process of its own.
fn peak(file: &Path, records: u32) -> f64 {
    let mut alone = Command::new(std::env::current_exe().unwrap());
    let output = alone.env(ALONE, file).env("JADEGATE_BENCH_RECORDS", records.to_string()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    said.trim().parse().unwrap()
}

async fn alone(file: PathBuf, records: u32) {
    let town = new_town(records, false).await;
    import(town.path(), Arc::new(town::sled_store(town.path())), &file, records).await;
    println!("{:.1}", peak_memory() as f64 / 1024.0 / 1024.0);
}

async fn measure(records: u32) {
    let folder = Folder::new();
    let file = |name: &str| folder.path().join(name);
    let (ndjson, csv, xlsx, tenth) = (file("a.ndjson"), file("a.csv"), file("a.xlsx"), file("tenth.ndjson"));
    files::ndjson(&ndjson, records, people(records));
    files::gb18030(&csv, records, people(records));
    files::xlsx(&xlsx, records / 10, people(records / 10));
    files::ndjson(&tenth, records / 10, people(records / 10));

    let raw = raw(&ndjson, records, folder.path()).await;
    figure("import: records a second, sled alone", format_args!("{raw:.0}"));
    let mut missed = false;
    for (form, file, records) in
        [("NDJSON", &ndjson, records), ("GB18030 CSV", &csv, records), ("XLSX", &xlsx, records / 10)]
    {
        let ours = timed(file, records).await;
        let ratio = ours / raw;
        let aim = if form == "XLSX" { String::new() } else { format!(" (at least {AT_LEAST})") };
        figure(&format!("import: {records} records of {form} a second"), format_args!("{ours:.0}"));
        figure(&format!("import: {form} over sled alone"), format_args!("{ratio:.2}{aim}"));
        missed |= form != "XLSX" && ratio < AT_LEAST;
    }
    let (ours, python) = reading(&csv, records);
    figure("import: rows a second read into lines", format_args!("{ours:.0}"));
    figure(
        "import: over Python's csv module, which makes lists of texts",
        format_args!("{:.2} ({python:.0} rows)", ours / python),
    );
    let (less, more) = (peak(&tenth, records / 10), peak(&ndjson, records));
    figure(
        &format!("import: peak memory at {} and {records} records", records / 10),
        format_args!("{less:.0} and {more:.0} MiB"),
    );
    assert!(more <= MEMORY_AT_MOST * less || more < 128.0, "memory grows with the file");
    assert!(!missed, "an import is slower than half of sled alone");
}

/// The most memory that this process ever held, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn main() {
    let records = std::env::var("JADEGATE_BENCH_RECORDS").map_or(1_000_000, |text| text.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match std::env::var_os(ALONE) {
        Some(file) => runtime.block_on(alone(file.into(), records)),
        None => runtime.block_on(measure(records)),
    }
}
