//! A gateway over sled in a folder of its own, and any number of people who are nobody.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jadegate::clock::{Clock, SystemClock};
use jadegate::code::PartyId;
use jadegate::entropy::SystemEntropy;
use jadegate::gateway::{Caller, Gateway, Parts};
use jadegate::keys::{Keyring, NewKeyring, RootKey};
use jadegate::ledger::outside::OutsideFolder;
use jadegate::policies::{PolicySet, shipped};
use jadegate::store::Store;
use jadegate::store::sled::{SledOptions, SledStore};
use jiff::ToSpan;
use jiff::civil::date;
use serde_json::json;

pub const REGISTRAR: &str = "yx-public-security";
pub const PROVIDER: &str = "yx-civil-affairs";
/// Uploads that are under way at once.
const UPLOADS: u32 = 8;
/// As many as one entry of the log covers.
const UPLOAD_LINES: usize = 500;

/// Makes the keys and folders of a town that does not exist yet.
pub fn found(folder: &Path) {
    let now = SystemClock::new().now();
    let new = NewKeyring::generate("yuxi.example/log", now, &SystemEntropy::new()).unwrap();
    std::fs::create_dir_all(folder.join("outside")).unwrap();
    std::fs::write(folder.join("keyring"), &new.keyring).unwrap();
    std::fs::write(folder.join("root"), new.root.as_bytes()).unwrap();
}

pub fn sled_store(folder: &Path) -> SledStore {
    SledStore::open(&folder.join("store"), SledOptions::default()).unwrap()
}

/// The town's keys.
pub fn keyring(folder: &Path) -> Keyring {
    let read = |name| std::fs::read_to_string(folder.join(name)).unwrap();
    Keyring::open(&read("keyring"), &RootKey::parse(&read("root"), true).unwrap()).unwrap()
}

/// The people in the order in which their cells lie: sent like this, a large town loads without jumping about its store.
pub fn in_order(folder: &Path, people: u32) -> Vec<u32> {
    let keys = keyring(folder);
    let mut ids: Vec<([u8; 32], u32)> =
        (0..people).map(|n| (keys.pseudonym().mac("person", &[b"resident-id", number(n).as_bytes()]), n)).collect();
    ids.sort_unstable();
    ids.into_iter().map(|(_, n)| n).collect()
}

/// Opens the gateway over a store; everything is as `serve` has it, listeners aside.
pub async fn open(folder: &Path, store: Arc<dyn Store>) -> Arc<Gateway> {
    open_at(folder, store, Arc::new(SystemClock::new())).await
}

/// The same with another clock.
pub async fn open_at(folder: &Path, store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Arc<Gateway> {
    let keys = keyring(folder);
    let outside = Box::new(OutsideFolder::new(&folder.join("outside"), keys.log().origin()));
    let entropy = Arc::new(SystemEntropy::new());
    let policies = PolicySet::parse(shipped()).unwrap();
    let issuer = "https://yuxi.example".to_owned();
    let parts = Parts { store, keys, policies, outside, clock, entropy, issuer, staff: Vec::new() };
    Arc::new(Gateway::open(parts).await.unwrap())
}

pub async fn close(gateway: Arc<Gateway>) {
    Arc::into_inner(gateway).expect("nobody uses the gateway any more").close().await;
}

pub fn caller(party: &str) -> Caller {
    Caller { party: PartyId::parse(party).unwrap(), signature: None }
}

/// The identity number of the `n`th person: 900 are born on each day from 1950 on.
pub fn number(n: u32) -> String {
    let born = date(1950, 1, 1).checked_add(i64::from(n / 900).days()).unwrap();
    let body = format!("530499{}{:03}", born.strftime("%Y%m%d"), 100 + n % 900);
    let sum = body.bytes().rev().fold((0, 1), |(sum, weight), digit| {
        let weight = weight * 2 % 11;
        (sum + u32::from(digit - b'0') * weight, weight)
    });
    match (12 - sum.0 % 11) % 11 {
        10 => format!("{body}X"),
        check => format!("{body}{check}"),
    }
}

pub fn register_line(n: u32) -> String {
    json!({ "id_number": number(n), "name": format!("某{n}"), "resident": true, "full_capacity": true }).to_string()
}

/// The `k`th record of a person: hours of volunteering, or a gift to charity.
pub fn record_line(n: u32, k: u32) -> String {
    let indicator = if k.is_multiple_of(2) { "volunteer-hours" } else { "charity-gift" };
    json!({
        "id": format!("R-{n}-{k}"), "provider": PROVIDER, "indicator": indicator,
        "person": { "id_number": number(n), "name": format!("某{n}") },
        "occurred_on": "2026-06-01", "quantity": 1 + n % 200,
    })
    .to_string()
}

/// Sends a line about each of `people` in uploads of 500, some at once; every line must be taken.
pub async fn upload(
    gateway: &Arc<Gateway>,
    party: &'static str,
    people: &Arc<Vec<u32>>,
    line: impl Fn(u32) -> String + Clone + Send + Sync + 'static,
) {
    let next = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..UPLOADS)
        .map(|_| {
            let (gateway, next, line, people) = (gateway.clone(), next.clone(), line.clone(), people.clone());
            tokio::spawn(async move {
                loop {
                    let Some(some) = people.chunks(UPLOAD_LINES).nth(next.fetch_add(1, Ordering::Relaxed)) else {
                        return;
                    };
                    let body: Vec<String> = some.iter().map(|n| line(*n)).collect();
                    let count = body.len() as u64;
                    let body = body.join("\n").into_bytes();
                    let taken = match party {
                        REGISTRAR => gateway.enrol(&caller(party), &body).await.unwrap(),
                        _ => gateway.report(&caller(party), &body).await.unwrap(),
                    };
                    assert_eq!((taken.accepted, taken.rejected.len()), (count, 0));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}
