//! The store's contract, over every backend.

mod faulty;
mod postgres;
mod sled;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jadegate::store::faulty::FaultyStore;
use jadegate::store::memory::MemoryStore;
use jadegate::store::{
    Batch, Cell, Check, CommitError, KEY_BYTES_MAX, KEYS_END, Place, Store, Table, VALUE_BYTES_MAX, Write,
};
use proptest::prelude::*;

const A: Table = Table::new("apple");
/// Its name begins with another's.
const A2: Table = Table::new("apples");
const B: Table = Table::new("banana");

fn at(table: Table, key: &[u8]) -> Place {
    Place::new(table, key)
}

fn cell(version: u64, value: &[u8]) -> Cell {
    Cell { version, value: value.to_vec() }
}

fn put(place: Place, version: u64, value: &[u8]) -> Write {
    Write::Put(place, cell(version, value))
}

fn writes(writes: Vec<Write>) -> Batch {
    Batch { checks: Vec::new(), writes }
}

async fn keys(store: &dyn Store, table: Table, from: &[u8], to: &[u8], limit: usize) -> Vec<Vec<u8>> {
    store.scan(table, from, to, limit).await.unwrap().into_iter().map(|(key, _)| key).collect()
}

/// Every clause of the contract, each over a new store. A backend passes it or is none.
async fn contract<F: Future<Output = Arc<dyn Store>>>(make: impl Fn() -> F) {
    cells_are_put_read_and_deleted(&*make().await).await;
    checks_hold_or_name_themselves(&*make().await).await;
    a_batch_is_all_or_nothing(&*make().await).await;
    checks_see_the_cells_before_the_batch(&*make().await).await;
    the_last_write_of_a_cell_wins(&*make().await).await;
    scans_are_ordered_bounded_and_apart(&*make().await).await;
    long_values_come_back_whole(&*make().await).await;
    limits_are_kept_before_anything_is_written(&*make().await).await;
    no_update_is_lost(make().await).await;
    one_of_many_takes_an_absent_cell(make().await).await;
    reads_see_whole_batches(make().await).await;
}

async fn cells_are_put_read_and_deleted(store: &dyn Store) {
    let place = at(A, b"k");
    assert_eq!(store.get(&place).await.unwrap(), None);
    store.commit(writes(vec![put(place.clone(), 1, b"one")])).await.unwrap();
    assert_eq!(store.get(&place).await.unwrap(), Some(cell(1, b"one")));
    // The version is the writer's: it may jump, and a value may be empty, and so may a key.
    store.commit(writes(vec![put(place.clone(), u64::MAX, b"")])).await.unwrap();
    assert_eq!(store.get(&place).await.unwrap(), Some(cell(u64::MAX, b"")));
    store.commit(writes(vec![put(at(A, b""), 1, b"no key")])).await.unwrap();
    assert_eq!(store.get(&at(A, b"")).await.unwrap(), Some(cell(1, b"no key")));
    store.commit(writes(vec![Write::Delete(place.clone()), Write::Delete(at(B, b"never there"))])).await.unwrap();
    assert_eq!(store.get(&place).await.unwrap(), None);
    store.commit(Batch::default()).await.unwrap();
}

async fn checks_hold_or_name_themselves(store: &dyn Store) {
    let (there, missing) = (at(A, b"there"), at(B, b"missing"));
    store.commit(writes(vec![put(there.clone(), 3, b"x")])).await.unwrap();
    let hold = vec![Check::Version(there.clone(), 3), Check::Absent(missing.clone())];
    store.commit(Batch { checks: hold.clone(), writes: vec![] }).await.unwrap();
    let checks = vec![
        hold[0].clone(),
        Check::Absent(there.clone()),
        hold[1].clone(),
        Check::Version(there.clone(), 2),
        Check::Version(missing.clone(), 1),
        // Tables are apart: the same key elsewhere is another cell.
        Check::Absent(at(B, b"there")),
    ];
    match store.commit(Batch { checks, writes: vec![] }).await {
        Err(CommitError::Conflict(failed)) => assert_eq!(failed, [1, 3, 4]),
        other => panic!("{other:?}"),
    }
}

async fn a_batch_is_all_or_nothing(store: &dyn Store) {
    store.commit(writes(vec![put(at(A, b"old"), 1, b"old")])).await.unwrap();
    let change = vec![put(at(A, b"new"), 1, b"n"), put(at(B, b"new"), 1, b"n"), Write::Delete(at(A, b"old"))];
    let refused = Batch { checks: vec![Check::Version(at(A, b"old"), 2)], writes: change.clone() };
    assert!(matches!(store.commit(refused).await, Err(CommitError::Conflict(failed)) if failed == [0]));
    assert_eq!(store.get(&at(A, b"new")).await.unwrap(), None);
    assert_eq!(store.get(&at(B, b"new")).await.unwrap(), None);
    assert_eq!(store.get(&at(A, b"old")).await.unwrap(), Some(cell(1, b"old")));
    store.commit(Batch { checks: vec![Check::Version(at(A, b"old"), 1)], writes: change }).await.unwrap();
    assert_eq!(store.get(&at(A, b"new")).await.unwrap(), Some(cell(1, b"n")));
    assert_eq!(store.get(&at(B, b"new")).await.unwrap(), Some(cell(1, b"n")));
    assert_eq!(store.get(&at(A, b"old")).await.unwrap(), None);
}

async fn checks_see_the_cells_before_the_batch(store: &dyn Store) {
    let place = at(A, b"k");
    let batch = Batch { checks: vec![Check::Absent(place.clone())], writes: vec![put(place.clone(), 1, b"x")] };
    store.commit(batch.clone()).await.unwrap();
    assert!(matches!(store.commit(batch).await, Err(CommitError::Conflict(_))));
}

async fn the_last_write_of_a_cell_wins(store: &dyn Store) {
    let (first, second) = (at(A, b"1"), at(A, b"2"));
    store
        .commit(writes(vec![
            put(first.clone(), 1, b"a"),
            put(first.clone(), 2, b"b"),
            put(second.clone(), 1, b"a"),
            Write::Delete(second.clone()),
        ]))
        .await
        .unwrap();
    assert_eq!(store.get(&first).await.unwrap(), Some(cell(2, b"b")));
    assert_eq!(store.get(&second).await.unwrap(), None);
    store.commit(writes(vec![Write::Delete(first.clone()), put(first.clone(), 3, b"c")])).await.unwrap();
    assert_eq!(store.get(&first).await.unwrap(), Some(cell(3, b"c")));
}

async fn scans_are_ordered_bounded_and_apart(store: &dyn Store) {
    let wanted: [&[u8]; 7] = [b"", b"\x00", b"a", b"ab", b"b", b"\xff", &[0xff; KEY_BYTES_MAX]];
    for key in wanted.iter().rev() {
        store.commit(writes(vec![put(at(A, key), 1, key), put(at(A2, b"s"), 1, b"other")])).await.unwrap();
    }
    assert_eq!(keys(store, A, b"", &KEYS_END, 100).await, wanted);
    assert_eq!(keys(store, A2, b"", &KEYS_END, 100).await, [b"s"]);
    assert_eq!(keys(store, B, b"", &KEYS_END, 100).await, [[0_u8; 0]; 0]);
    assert_eq!(keys(store, A, b"a", b"b", 100).await, [&b"a"[..], b"ab"]);
    assert_eq!(keys(store, A, b"a\x00", &KEYS_END, 2).await, [&b"ab"[..], b"b"]);
    assert_eq!(keys(store, A, b"", &KEYS_END, 0).await, [[0_u8; 0]; 0]);
    assert_eq!(keys(store, A, b"b", b"a", 9).await, [[0_u8; 0]; 0]);
    assert_eq!(keys(store, A, b"a", b"a", 9).await, [[0_u8; 0]; 0]);
    let found = store.scan(A, b"ab", b"ac", 1).await.unwrap();
    assert_eq!(found, [(b"ab".to_vec(), cell(1, b"ab"))]);
}

fn long(bytes: usize, seed: u8) -> Vec<u8> {
    (0..bytes).map(|i| u8::try_from(i % 251).unwrap() ^ seed).collect()
}

async fn long_values_come_back_whole(store: &dyn Store) {
    let place = at(A, b"long");
    // Longer and shorter in turn, so that what is left of the one before would show.
    for (version, bytes) in [VALUE_BYTES_MAX, 4096, 4097, 60_000, 8192, 0, 20_000].into_iter().enumerate() {
        let value = long(bytes, u8::try_from(version).unwrap());
        store.commit(writes(vec![put(place.clone(), version as u64, &value)])).await.unwrap();
        assert_eq!(store.get(&place).await.unwrap(), Some(cell(version as u64, &value)));
        assert_eq!(store.scan(A, b"", &KEYS_END, 9).await.unwrap(), [(b"long".to_vec(), cell(version as u64, &value))]);
    }
    store.commit(writes(vec![Write::Delete(place.clone())])).await.unwrap();
    assert_eq!(store.get(&place).await.unwrap(), None);
    assert_eq!(store.scan(A, b"", &KEYS_END, 9).await.unwrap(), []);
}

async fn limits_are_kept_before_anything_is_written(store: &dyn Store) {
    let (good, edge) = (at(A, b"good"), at(A, &[7; KEY_BYTES_MAX]));
    store.commit(writes(vec![put(edge.clone(), 1, &long(VALUE_BYTES_MAX, 0))])).await.unwrap();
    let long_key = at(A, &[b'q'; KEY_BYTES_MAX + 1]);
    for bad in [
        writes(vec![put(good.clone(), 1, b"x"), put(at(A, b"k"), 1, &vec![b'q'; VALUE_BYTES_MAX + 1])]),
        writes(vec![put(good.clone(), 1, b"x"), put(long_key.clone(), 1, b"x")]),
        writes(vec![put(good.clone(), 1, b"x"), Write::Delete(long_key.clone())]),
        Batch { checks: vec![Check::Absent(long_key.clone())], writes: vec![put(good.clone(), 1, b"x")] },
        // Even where a check fails as well.
        Batch { checks: vec![Check::Absent(edge.clone())], writes: vec![put(long_key.clone(), 1, b"x")] },
        writes(vec![put(good.clone(), 1, b"x"), put(at(Table::new(""), b"k"), 1, b"x")]),
        writes(vec![
            put(good.clone(), 1, b"x"),
            put(at(Table::new("a-name-that-is-longer-than-a-name-may-be"), b"k"), 1, b"x"),
        ]),
    ] {
        match store.commit(bad).await {
            Err(CommitError::Failed(said)) => assert!(!said.contains("qqq"), "bytes in an error: {said}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(store.get(&good).await.unwrap(), None);
    }
    assert_eq!(store.get(&long_key).await.unwrap(), None);
}

fn number(cell: Option<&Cell>) -> u64 {
    cell.map_or(0, |cell| u64::from_be_bytes(cell.value.clone().try_into().unwrap()))
}

async fn no_update_is_lost(store: Arc<dyn Store>) {
    const TASKS: u64 = 16;
    const EACH: u64 = 12;
    let counter = at(A, b"counter");
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (store, counter) = (Arc::clone(&store), counter.clone());
        tasks.spawn(async move {
            for turn in 0..EACH {
                loop {
                    let seen = store.get(&counter).await.unwrap();
                    let check = match &seen {
                        Some(cell) => Check::Version(counter.clone(), cell.version),
                        None => Check::Absent(counter.clone()),
                    };
                    let next = number(seen.as_ref()) + 1;
                    let own = at(B, &[task.to_be_bytes(), turn.to_be_bytes()].concat());
                    let batch = Batch {
                        checks: vec![Check::Absent(own.clone()), check],
                        writes: vec![put(counter.clone(), next, &next.to_be_bytes()), put(own, 1, &next.to_be_bytes())],
                    };
                    match store.commit(batch).await {
                        Ok(()) => break,
                        Err(CommitError::Conflict(failed)) => assert_eq!(failed, [1]),
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(number(store.get(&counter).await.unwrap().as_ref()), TASKS * EACH);
    // Each committer saw a number of its own.
    let seen: BTreeSet<u64> =
        store.scan(B, b"", &KEYS_END, 9999).await.unwrap().iter().map(|(_, cell)| number(Some(cell))).collect();
    assert_eq!(seen, (1..=TASKS * EACH).collect());
}

async fn one_of_many_takes_an_absent_cell(store: Arc<dyn Store>) {
    let place = at(A, b"nonce");
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..50_u8 {
        let (store, place) = (Arc::clone(&store), place.clone());
        tasks.spawn(async move {
            let batch = Batch { checks: vec![Check::Absent(place.clone())], writes: vec![put(place, 1, &[task])] };
            store.commit(batch).await
        });
    }
    let mut taken = 0;
    while let Some(done) = tasks.join_next().await {
        match done.unwrap() {
            Ok(()) => taken += 1,
            // What made the check fail is there to see.
            Err(CommitError::Conflict(_)) => assert!(store.get(&place).await.unwrap().is_some()),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(taken, 1);
}

async fn reads_see_whole_batches(store: Arc<dyn Store>) {
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for version in 1..=60_u64 {
                let value = long(9_000, u8::try_from(version).unwrap());
                let cells = (0..40_u8).map(|key| put(at(A, &[key]), version, &value)).collect();
                store.commit(writes(cells)).await.unwrap();
            }
        }
    });
    let mut last = 0;
    while !writer.is_finished() {
        let found = store.scan(A, b"", &KEYS_END, 100).await.unwrap();
        let versions: BTreeSet<u64> = found.iter().map(|(_, cell)| cell.version).collect();
        assert!(versions.len() <= 1 && (found.is_empty() || found.len() == 40), "half a batch: {versions:?}");
        for (_, cell) in &found {
            assert!(cell.value == long(9_000, u8::try_from(cell.version).unwrap()), "a torn value");
        }
        let version = versions.first().copied().unwrap_or(0);
        assert!(version >= last, "a read went back");
        last = version;
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    assert_eq!(store.get(&at(A, &[39])).await.unwrap().unwrap().version, 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_contract() {
    contract(async || Arc::new(MemoryStore::new()) as Arc<dyn Store>).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faulty_keeps_the_contract_while_no_fault_is_ordered() {
    contract(async || Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()))) as Arc<dyn Store>).await;
}

// A plain map as the model, and random batches over few keys, so that they meet.

type Model = BTreeMap<(&'static str, Vec<u8>), Cell>;

fn any_place() -> impl Strategy<Value = Place> {
    (prop::sample::select(vec![A, A2, B]), prop::collection::vec(0_u8..3, 0..3))
        .prop_map(|(table, key)| Place::new(table, key))
}

fn any_batch() -> impl Strategy<Value = Batch> {
    let check = (any_place(), prop::option::of(1_u64..4)).prop_map(|(place, version)| match version {
        Some(version) => Check::Version(place, version),
        None => Check::Absent(place),
    });
    let value = prop_oneof![4 => 0_usize..20, 1 => 4_000_usize..9_000];
    let write = (any_place(), prop::option::weighted(0.8, (1_u64..4, value))).prop_map(|(place, cell)| match cell {
        Some((version, bytes)) => Write::Put(place, Cell { version, value: long(bytes, version as u8) }),
        None => Write::Delete(place),
    });
    (prop::collection::vec(check, 0..2), prop::collection::vec(write, 0..6))
        .prop_map(|(checks, writes)| Batch { checks, writes })
}

fn any_batches() -> impl Strategy<Value = Vec<Batch>> {
    prop::collection::vec(any_batch(), 1..25)
}

/// Commits the batch to both, and holds the outcome against the model's.
async fn commit_to_both(store: &dyn Store, model: &mut Model, batch: &Batch) {
    let key = |place: &Place| (place.table.name(), place.key.clone());
    let version = |place: &Place| model.get(&key(place)).map(|cell| cell.version);
    let holds = |check: &Check| match check {
        Check::Absent(place) => version(place).is_none(),
        Check::Version(place, wanted) => version(place) == Some(*wanted),
    };
    let failed: Vec<usize> = (0..batch.checks.len()).filter(|index| !holds(&batch.checks[*index])).collect();
    match store.commit(batch.clone()).await {
        Ok(()) => assert_eq!(failed, [0; 0]),
        Err(CommitError::Conflict(said)) => {
            assert_eq!(said, failed);
            assert!(!failed.is_empty());
            return;
        }
        Err(error) => panic!("{error}"),
    }
    for write in &batch.writes {
        match write {
            Write::Put(place, cell) => model.insert(key(place), cell.clone()),
            Write::Delete(place) => model.remove(&key(place)),
        };
    }
}

async fn same_as_model(store: &dyn Store, model: &Model) {
    for table in [A, A2, B] {
        let wanted: Vec<(Vec<u8>, Cell)> = model
            .iter()
            .filter(|((name, _), _)| *name == table.name())
            .map(|((_, key), cell)| (key.clone(), cell.clone()))
            .collect();
        assert_eq!(store.scan(table, b"", &KEYS_END, 9999).await.unwrap(), wanted);
        let half: Vec<_> = wanted.iter().filter(|(key, _)| key.as_slice() >= &b"\x01"[..]).take(3).cloned().collect();
        assert_eq!(store.scan(table, b"\x01", &KEYS_END, 3).await.unwrap(), half);
        for (key, cell) in wanted {
            assert_eq!(store.get(&Place::new(table, key)).await.unwrap(), Some(cell));
        }
    }
}

fn block_on(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn memory_is_like_a_plain_map(batches in any_batches()) {
        block_on(async {
            let (store, mut model) = (MemoryStore::new(), Model::new());
            for batch in &batches {
                commit_to_both(&store, &mut model, batch).await;
            }
            same_as_model(&store, &model).await;
        });
    }
}
