//! A model tried over a town: people a second a core, and how near that is to reading and unsealing their cells alone.
//!
//! `cargo bench --bench try`; 100,000 people with 20 records each, `JADEGATE_BENCH_PEOPLE=2000` for a try. Everybody comes in by
//! the gateway's own uploads. Then the store is read, and every cell of a person opened, in two ways that take turns: as
//! `jadegate model try` does on a stopped deployment, and by AES-256-GCM alone over cells of the same lengths.

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
#[allow(dead_code, reason = "others use the rest of it")]
mod machine;
#[path = "../../tests/it/support/nightly.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod nightly;
#[path = "../support/town.rs"]
mod town;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use folder::Folder;
use jadegate::clock::{Clock, SystemClock, day_of};
use jadegate::entropy::SystemEntropy;
use jadegate::gateway::try_on_store;
use jadegate::policies::{PolicySet, shipped};
use jadegate::store::{KEYS_END, Store, Table};
use jadegate::tables;
use nightly::figure;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// As `src/main.rs` has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PEOPLE: u32 = 100_000;
const RECORDS: u32 = 20;
const ROUNDS: usize = 5;

/// What a sealed cell has besides its content: key version, nonce, tag.
const NONCE_BYTES: usize = 12;

/// Reads a table and opens as many bytes in as many cells; how many there were.
async fn unseal(store: &Arc<dyn Store>, table: Table, sealed: &mut BTreeMap<usize, Vec<u8>>) -> u64 {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap());
    let nonce = || Nonce::assume_unique_for_key([0; NONCE_BYTES]);
    let (mut from, mut cells) = (Vec::new(), 0);
    loop {
        let page = store.scan(table, &from, &KEYS_END, 512).await.unwrap();
        let Some((last, _)) = page.last() else { return cells };
        from = [last.as_slice(), &[0]].concat();
        for (_, cell) in &page {
            cells += 1;
            let bytes = sealed.entry(cell.value.len()).or_insert_with(|| {
                let mut bytes = vec![0; cell.value.len() - 32];
                key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut bytes).unwrap();
                bytes
            });
            let mut copy = bytes.clone();
            black_box(key.open_in_place(nonce(), Aad::empty(), &mut copy).unwrap());
        }
    }
}

async fn fill(folder: &Path, people: u32) {
    let gateway = town::open(folder, Arc::new(town::sled_store(folder))).await;
    let everybody = Arc::new(town::in_order(folder, people));
    town::upload(&gateway, town::REGISTRAR, &everybody, town::register_line).await;
    for record in 0..RECORDS {
        town::upload(&gateway, town::PROVIDER, &everybody, move |n| town::record_line(n, record)).await;
    }
    town::close(gateway).await;
}

async fn measure() {
    let people = std::env::var("JADEGATE_BENCH_PEOPLE").map_or(PEOPLE, |text| text.parse().unwrap());
    let (clock, folder) = (SystemClock::new(), Folder::new());
    town::found(folder.path());
    fill(folder.path(), people).await;
    let store: Arc<dyn Store> = Arc::new(town::sled_store(folder.path()));
    let set = PolicySet::parse(shipped()).unwrap();
    let model = set.file("models/yuxi-2026.toml").unwrap().replace("id = \"yuxi-2026\"", "id = \"next\"");
    let model = model.replace("base = 500", "base = 480");
    let day = day_of(clock.now());
    let (mut tried, mut unsealed, mut walls, mut sealed) = (Vec::new(), Vec::new(), Vec::new(), BTreeMap::new());
    for round in 0..=ROUNDS {
        let (began, used) = (clock.monotonic(), machine::cpu());
        let file = ("next.toml", model.as_bytes());
        let keys = town::keyring(folder.path());
        let shown = try_on_store(store.clone(), keys, Arc::new(SystemEntropy::new()), &set, day, file).await.unwrap();
        assert!(shown.people.unwrap().abs_diff(u64::from(people)) < 10);
        let (wall, cpu) = (clock.monotonic() - began, machine::cpu() - used);
        let used = machine::cpu();
        let cells = unseal(&store, tables::PERSON, &mut sealed).await;
        assert_eq!(cells, u64::from(people));
        assert!(unseal(&store, tables::DOSSIER, &mut sealed).await >= cells);
        let alone = machine::cpu() - used;
        // The first round warms up.
        if round > 0 {
            tried.push(cpu.as_secs_f64());
            unsealed.push(alone.as_secs_f64());
            walls.push(wall.as_secs_f64());
        }
    }
    let [tried, unsealed, wall] = [tried, unsealed, walls].map(machine::median);
    let claim = format!("model try over {people} people with {RECORDS} records each");
    figure(&claim, format_args!("{:.0} people a second a core, {wall:.2} s in all", f64::from(people) / tried));
    figure(
        &format!("{claim}: reading and unsealing alone"),
        format_args!("{:.0} people a second a core", f64::from(people) / unsealed),
    );
    figure(&format!("{claim}: ratio"), format_args!("{:.2} of reading and unsealing alone", unsealed / tried));
}

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(measure());
}
