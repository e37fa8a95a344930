//! The ledger under many callers: places, proofs, tiles and manifests.

use std::sync::Arc;

use jadegate::access_log::entry::{Body, LogAction, Subject};
use jadegate::access_log::tile::TileRequest;
use jadegate::access_log::{Hash, leaf_hash};
use jadegate::gateway::Refusal;
use jadegate::ledger::{Change, LeafPlace, Ledger, RecordError};
use jadegate::store::faulty::FaultyStore;
use jadegate::store::memory::MemoryStore;
use jadegate::store::{Cell, Check, Place, Store, Table, Write};
use jadegate::tables;
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use crate::support::tree::naive_root;
use crate::support::world::{Kept, NOW, Seeded, World, caller, keyring, lines, record_line, refusal};

const CELLS: Table = Table::new("cells");

pub async fn ledger(store: Arc<dyn Store>, outside: &Kept) -> Ledger {
    let (keys, entropy) = (Arc::new(keyring()), Arc::new(Seeded::new(7)));
    let now = "2026-11-25T12:00:00Z".parse().unwrap();
    Ledger::open(store, keys, entropy, Box::new(outside.clone()), now).await.unwrap()
}

fn body() -> Body {
    let (action, subject) = (LogAction::Report, Subject::None);
    Body { at: NOW.parse().unwrap(), party: None, scenario: None, action, rule: None, subject }
}

/// A change that writes one cell of its own.
pub fn change(number: u64) -> Change {
    let place = Place::new(CELLS, number.to_be_bytes());
    let mut change = Change::entry(Sha256::digest(number.to_be_bytes()).into(), body());
    change.checks.push(Check::Absent(place.clone()));
    change.writes.push(Write::Put(place, Cell { version: 1, value: vec![7; 20] }));
    change
}

/// Checks the whole log of a ledger as it stands: root, entries, tiles.
async fn check_log(ledger: &Ledger) {
    let log = ledger.log();
    let size = log.size();
    let entries = log.entries(0, size).await.unwrap();
    let leaves: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
    let checkpoint = log.verifier().open(&log.checkpoint()).unwrap();
    assert_eq!((checkpoint.size, checkpoint.root), (size, naive_root(&leaves)));
    let mut hashes = leaves.clone();
    for level in 0u8..3 {
        for (index, tile) in hashes.chunks(256).enumerate() {
            let name = if tile.len() == 256 { String::new() } else { format!(".p/{}", tile.len()) };
            let path = format!("{level}/{index:03}{name}");
            let request = TileRequest::parse(&path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(log.tile(&request).await.unwrap().unwrap(), tile.concat(), "{path} at {size}");
        }
        hashes = hashes.chunks_exact(256).map(naive_root).collect();
        if hashes.is_empty() {
            break;
        }
    }
    let bundle = TileRequest::parse(&format!("entries/{:03}.p/{}", size / 256, size % 256));
    if let Some(bundle) = bundle {
        let bytes = log.tile(&bundle).await.unwrap().unwrap();
        assert_eq!(bytes.len() as u64, (size % 256) * (2 + 512));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_get_places_without_gaps_and_proofs_that_verify() {
    let (store, outside): (Arc<dyn Store>, _) = (Arc::new(MemoryStore::new()), Kept::default());
    let first = ledger(store.clone(), &outside).await;
    let key = first.log().verifier().clone();
    let (mut seen, mut texts, mut sent) = (Vec::new(), Vec::new(), 0);
    for size in [1u64, 255, 256, 257, 511, 512, 513, 700] {
        let mut calls = JoinSet::new();
        while sent < size {
            let ledger = first.clone();
            let number = sent;
            calls.spawn(async move { (number, ledger.record(change(number)).await.unwrap()) });
            sent += 1;
        }
        for (number, receipt) in calls.join_all().await {
            let proof = receipt.proof().unwrap();
            let checkpoint = proof.verify(&key).unwrap();
            assert_eq!((proof.index, checkpoint.size), (receipt.place().index, receipt.place().size));
            assert_eq!(proof.extra[..32], *Sha256::digest(number.to_be_bytes()));
            seen.push(receipt.place().index);
            texts.push((receipt.place(), proof.to_text()));
        }
        check_log(&first).await;
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..700).collect::<Vec<u64>>());
    // The proofs of old places are the same text again, now and after a restart.
    for ledger in [first, ledger(store, &outside).await] {
        for (place, text) in &texts {
            let again = ledger.log().proof(*place).await.unwrap();
            assert_eq!(again.to_text(), *text, "{place:?}");
            let newest = ledger.log().proof(LeafPlace { size: 0, ..*place }).await.unwrap();
            assert_eq!(newest.verify(&key).unwrap().size, 700);
        }
    }
}

/// What the store makes up is neither proved nor signed.
#[tokio::test]
async fn a_bent_leaf_or_tile_gives_no_proof() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let ledger = ledger(store.clone(), &Kept::default()).await;
    for number in 0..600 {
        ledger.record(change(number)).await.unwrap();
    }
    let bend = async |table: Table, at: usize| {
        let found = crate::support::world::cells(&*store, table).await;
        let (place, cell) = found[at].clone();
        let mut bent = cell.clone();
        bent.value[70] ^= 1;
        put(&*store, &place, bent).await;
        (place, cell)
    };
    let (place, honest) = bend(tables::LEAF, 300).await;
    for size in [0, 301, 400, 600] {
        assert!(ledger.log().proof(LeafPlace { log: 1, index: 300, size }).await.is_err(), "the leaf, in {size}");
        assert!(ledger.log().proof(LeafPlace { log: 1, index: 299, size }).await.is_ok());
    }
    assert!(ledger.log().bodies(300, 301).await.is_err());
    put(&*store, &place, honest).await;
    let (place, honest) = bend(tables::TILE, 0).await;
    for size in [0, 200, 257, 600] {
        assert!(ledger.log().proof(LeafPlace { log: 1, index: 7, size }).await.is_err(), "the tile, in {size}");
    }
    put(&*store, &place, honest).await;
    assert!(ledger.log().proof(LeafPlace { log: 1, index: 7, size: 0 }).await.is_ok());
}

async fn put(store: &dyn Store, place: &Place, cell: Cell) {
    use jadegate::store::Batch;
    let writes = vec![Write::Put(place.clone(), cell)];
    store.commit(Batch { checks: Vec::new(), writes }).await.unwrap();
}

#[tokio::test]
async fn a_change_whose_check_fails_takes_nobody_with_it() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let ledger = ledger(store, &Kept::default()).await;
    ledger.record(change(1)).await.unwrap();
    let calls = [1, 2, 2, 3, 1].map(|number| ledger.record(change(number)));
    let [a, b, c, d, e] = calls;
    let (a, b, c, d, e) = tokio::join!(a, b, c, d, e);
    for conflict in [a, c, e] {
        assert!(matches!(conflict, Err(RecordError::Conflict(places)) if places.len() == 1));
    }
    assert_eq!((b.unwrap().place().index, d.unwrap().place().index), (1, 2));
    assert_eq!(ledger.log().size(), 3);
    check_log(&ledger).await;
}

#[tokio::test]
async fn a_change_that_cannot_be_sealed_is_refused_alone() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let ledger = ledger(store, &Kept::default()).await;
    let mut broken = change(1);
    let place = Place::new(CELLS, b"x".as_slice());
    broken.placed.push(jadegate::ledger::PlacedWrite { place, version: 1, seal: Box::new(|_| Err("no seal".into())) });
    let (good, bad) = tokio::join!(ledger.record(change(2)), ledger.record(broken));
    assert!(matches!(bad, Err(RecordError::Failed(reason)) if reason == "no seal"));
    assert_eq!(good.unwrap().place().index, 0);
    check_log(&ledger).await;
}

/// A caller that stops waiting does not take its change back, nor stop the others.
#[tokio::test]
async fn a_caller_that_goes_away_changes_nothing() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let ledger = ledger(store, &Kept::default()).await;
    let mut gone = Box::pin(ledger.record(change(1)));
    tokio::select! {
        biased;
        _ = &mut gone => panic!("nothing was awaited yet"),
        () = std::future::ready(()) => {}
    }
    drop(gone);
    assert_eq!(ledger.record(change(2)).await.unwrap().place().index, 1);
    check_log(&ledger).await;
}

/// What an audit finds, by table.
pub async fn audit(world: &World) -> Vec<&'static str> {
    let store = world.store.inner();
    let audit = jadegate::ledger::audit::audit(store, &keyring(), &world.outside, &mut |_| {}).await.unwrap();
    assert_eq!(audit.entries, world.log_size());
    audit.findings.iter().map(|finding| finding.table).collect()
}

/// INVARIANT (one door): sessions aside, every cell of the store is in the manifest of an entry, as it is.
#[tokio::test]
async fn the_manifests_replay_to_what_the_store_holds() {
    let mut world = World::new().await;
    let login = world.good(1).await;
    world.register(100..400).await;
    let records: Vec<_> = (0..600)
        .map(|i| record_line("yx-civil-affairs", "volunteer-hours", &format!("m-{i}"), 100 + i % 300, Some(1)))
        .collect();
    world.report("yx-civil-affairs", &records).await;
    let consent = world.consent(&login, "yx-bike", "bike-deposit", 300).await;
    let signed = world.signed("yx-bike", "signature-nonce-1");
    world.ask_as(&signed, "bike-deposit", &consent.token, "nonce-nonce-nonce").await.unwrap();
    for _ in 0..70 {
        world.asked("yx-bike", "bike-deposit", &consent.token).await;
    }
    let code = world.code(&login, &consent).await;
    world.ask_as(&caller("yx-bike"), "bike-deposit", &code, "nonce-nonce-nonce").await.unwrap();
    world.ask_as(&caller("yx-bike"), "bike-deposit", &code, "nonce-nonce-nonce").await.unwrap();
    world.advance(7200);
    assert_eq!(
        refusal(world.ask_as(&caller("yx-bike"), "bike-deposit", "x", "nonce-nonce-nonce").await),
        Refusal::ConsentNotRecognised
    );
    let older = world.cells(tables::CONSENT).await;
    world.gateway.revoke(&login, &consent.id.to_text()).await.unwrap();
    world.reopen().await.unwrap();
    assert_eq!(audit(&world).await, [] as [&str; 0]);

    // Rolled back with its version the cell opens: it is the audit that shows it.
    let (place, cell) = older[0].clone();
    let honest = world.cells(tables::CONSENT).await[0].1.clone();
    world.put(&place, cell).await;
    assert_eq!(audit(&world).await, ["consent"]);
    world.put(&place, honest).await;
    world.put(&Place::new(tables::CODE, vec![1; 32]), Cell { version: 1, value: vec![1] }).await;
    assert_eq!(audit(&world).await, ["code"]);
}

/// A store whose commits take long, so that many calls gather in one group.
struct Slow(FaultyStore);

#[async_trait::async_trait]
impl Store for Slow {
    async fn get(&self, place: &Place) -> Result<Option<Cell>, jadegate::store::StoreError> {
        self.0.get(place).await
    }

    async fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Cell)>, jadegate::store::StoreError> {
        self.0.scan(table, from, to, limit).await
    }

    async fn commit(&self, batch: jadegate::store::Batch) -> Result<(), jadegate::store::CommitError> {
        for _ in 0..2_000 {
            tokio::task::yield_now().await;
        }
        self.0.commit(batch).await
    }
}

/// Many calls that show one consent, over a store that is slow: nobody is turned away, and no use is lost or doubled.
#[tokio::test]
async fn calls_that_meet_at_one_consent_wait_for_each_other() {
    let mut world = World::new().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", "bike-deposit", 300).await;
    let inner = world.store.inner().clone();
    world.put_store(Arc::new(Slow(FaultyStore::new(inner))));
    world.reopen().await.unwrap();
    let world = Arc::new(world);
    let mut calls = JoinSet::new();
    for _ in 0..150 {
        let (world, token) = (world.clone(), consent.token.clone());
        calls.spawn(async move {
            world.ask_as(&caller("yx-bike"), "bike-deposit", &token, &world.fresh("nonce")).await.map(|said| said.met)
        });
    }
    for record in 0..3 {
        let world = world.clone();
        let body = lines(&[record_line("yx-civil-affairs", "volunteer-hours", &format!("x-{record}"), 1, Some(1))]);
        calls.spawn(
            async move { world.gateway.report(&caller("yx-civil-affairs"), &body).await.map(|t| t.accepted == 1) },
        );
    }
    for said in calls.join_all().await {
        assert!(said.unwrap());
    }
    let login = world.login(1).await;
    assert_eq!(world.uses_left(&login).await, 150);
}

/// Calls of the turn of an hour may come out of order; entries do not, and each hour has one row, over a restart too.
#[tokio::test]
async fn an_hour_has_one_row() {
    let (store, outside): (Arc<dyn Store>, _) = (Arc::new(MemoryStore::new()), Kept::default());
    let at = |minutes: i64| {
        let start: jiff::Timestamp = NOW.parse().unwrap();
        start.checked_add(jiff::SignedDuration::from_mins(minutes)).unwrap()
    };
    let record = async |ledger: &Ledger, minutes: i64| {
        let body = Body { at: at(minutes), ..body() };
        ledger.record(Change::entry([0; 32], body)).await.unwrap();
    };
    let first = ledger(store.clone(), &outside).await;
    for minutes in [50, 60, 59] {
        record(&first, minutes).await;
    }
    let again = ledger(store.clone(), &outside).await;
    record(&again, 61).await;
    record(&again, 125).await;
    let rows: Vec<u64> = crate::support::world::cells(&*store, tables::HOUR)
        .await
        .iter()
        .map(|(_, cell)| u64::from_be_bytes(cell.value.as_slice().try_into().unwrap()))
        .collect();
    assert_eq!(rows, [0, 1, 4]);
    for (minutes, expected) in [(-600, 0), (0, 0), (59, 0), (125, 4), (185, 5), (300, 5)] {
        assert_eq!(again.log().first_since(at(minutes)).await.unwrap(), expected, "{minutes}");
    }
    // Within the log no time goes back: the entry of minute 59 is of minute 60.
    for (minutes, expected) in [(0, 0), (50, 0), (51, 1), (59, 1), (60, 1), (61, 3), (62, 4), (125, 4), (126, 5)] {
        assert_eq!(again.log().since(at(minutes)).await.unwrap(), expected, "{minutes}");
    }
}
