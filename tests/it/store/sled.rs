//! What only the store on sled has to show: folders, damage, restarts, failed syncs, kill -9.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use jadegate::store::sled::{OpenError, SledOptions, SledStore};
use jadegate::store::{Batch, Check, CommitError, KEYS_END, Store, Table, Write};
use proptest::prelude::*;

use super::{A, B, Model, any_batches, at, block_on, cell, commit_to_both, contract, long, put, same_as_model, writes};
use crate::support::Folder;

fn options() -> SledOptions {
    SledOptions { cache_bytes: 16 * 1024 * 1024, ..SledOptions::default() }
}

fn open(path: &Path) -> Result<SledStore, OpenError> {
    SledStore::open(path, options())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sled_keeps_the_contract() {
    let folder = Folder::new();
    let next = std::sync::atomic::AtomicU32::new(0);
    contract(async || {
        let path = folder.path().join(next.fetch_add(1, Ordering::Relaxed).to_string());
        Arc::new(open(&path).unwrap()) as Arc<dyn Store>
    })
    .await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn sled_is_like_a_plain_map_and_so_it_stays(batches in any_batches()) {
        block_on(async {
            let (folder, mut model) = (Folder::new(), Model::new());
            for half in batches.chunks(batches.len().div_ceil(2)) {
                let store = open(folder.path()).unwrap();
                same_as_model(&store, &model).await;
                for batch in half {
                    commit_to_both(&store, &mut model, batch).await;
                }
                same_as_model(&store, &model).await;
                drop(store);
            }
            same_as_model(&open(folder.path()).unwrap(), &model).await;
        });
    }
}

/// A store with 300 cells in it, closed again.
async fn filled(path: &Path) {
    for round in 0..3_u64 {
        let store = open(path).unwrap();
        for i in 0..100_u64 {
            store
                .commit(writes(vec![put(at(A, &[round, i].map(u64::to_be_bytes).concat()), 1, b"kept")]))
                .await
                .unwrap();
        }
        store.close().await;
    }
}

async fn is_filled(store: &dyn Store) -> bool {
    let found = store.scan(A, b"", &KEYS_END, 999).await.unwrap();
    found.len() == 300 && found.iter().all(|(_, found)| *found == cell(1, b"kept"))
}

fn snapshots(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path.join("sled")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("snap.")).collect()
}

fn listing(path: &Path) -> Vec<(PathBuf, u64)> {
    let mut out = Vec::new();
    for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            out.extend(listing(&entry.path()));
        }
        out.push((entry.path(), entry.metadata().unwrap().len()));
    }
    out.sort();
    out
}

#[tokio::test]
async fn an_emptied_store_is_refused_and_not_touched() {
    type Empty = fn(&Path);
    let ways: [Empty; 4] = [
        |sled| fs::remove_dir_all(sled).unwrap(),
        |sled| fs::remove_file(sled.join("db")).unwrap(),
        |sled| fs::write(sled.join("db"), b"").unwrap(),
        |sled| fs::write(sled.join("db"), vec![0; 600_000]).unwrap(),
    ];
    for way in ways {
        let folder = Folder::new();
        filled(folder.path()).await;
        way(&folder.path().join("sled"));
        if folder.path().join("sled").exists() {
            snapshots(folder.path()).iter().for_each(|snap| fs::remove_file(snap).unwrap());
        }
        for _ in 0..2 {
            let before = listing(folder.path());
            let said = open(folder.path()).unwrap_err();
            assert!(matches!(said, OpenError::Emptied { .. }), "{said}");
            assert!(said.to_string().contains(folder.path().to_str().unwrap()), "{said}");
            // sled's own folder may be made again, empty.
            let new: Vec<_> = listing(folder.path()).into_iter().filter(|e| !before.contains(e)).collect();
            assert!(new.iter().all(|(path, _)| path.ends_with("sled")), "{new:?}");
        }
    }
}

#[tokio::test]
async fn a_newer_or_foreign_marker_is_refused() {
    let folder = Folder::new();
    filled(folder.path()).await;
    let marker = folder.path().join("MARKER");
    let own = fs::read_to_string(&marker).unwrap();
    fs::write(&marker, own.replace('1', "2")).unwrap();
    let before = listing(folder.path());
    let said = open(folder.path()).unwrap_err();
    assert!(matches!(said, OpenError::Newer { found: 2, .. }));
    assert!(said.to_string().contains("made by a newer jadegate"), "{said}");
    for foreign in ["", "jadegate store format 0\n", "jadegate store format x\n", "something else\n"] {
        fs::write(&marker, foreign).unwrap();
        assert!(matches!(open(folder.path()), Err(OpenError::BadMarker { .. })), "{foreign:?}");
    }
    fs::write(&marker, own).unwrap();
    assert_eq!(listing(folder.path()), before);
    assert!(is_filled(&open(folder.path()).unwrap()).await);
}

#[tokio::test]
async fn a_creation_that_was_cut_off_is_taken_up_again() {
    for left in ["conf", "db"] {
        let folder = Folder::new();
        drop(open(folder.path()).unwrap());
        for gone in ["MARKER", "closed", &format!("sled/{left}")] {
            fs::remove_file(folder.path().join(gone)).unwrap();
        }
        snapshots(folder.path()).iter().for_each(|snap| fs::remove_file(snap).unwrap());
        let store = open(folder.path()).unwrap();
        store.commit(writes(vec![put(at(A, b"k"), 1, b"x")])).await.unwrap();
        store.close().await;
        assert!(open(folder.path()).unwrap().get(&at(A, b"k")).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn leftover_and_cut_snapshots_do_not_prevent_a_start() {
    let folder = Folder::new();
    filled(folder.path()).await;
    for name in ["snap.0000000000000001.generating", "snap.FFFFFFFFFFFFFFFF.generating"] {
        fs::write(folder.path().join("sled").join(name), long(64, 0x5a)).unwrap();
        let store = open(folder.path()).unwrap();
        assert!(is_filled(&store).await, "{name}");
    }
    assert!(folder.path().join("set-aside-2").join("snap.FFFFFFFFFFFFFFFF.generating").exists());
    for round in 0..6 {
        let newest = snapshots(folder.path()).into_iter().max().unwrap();
        let bytes = fs::read(&newest).unwrap();
        let cut = [0, 1, 12, bytes.len() / 2, bytes.len() - 1, bytes.len()][round];
        // The last round: nothing cut, a bit turned over.
        let mut bytes = bytes[..cut].to_vec();
        if round == 5 {
            bytes[cut / 2] ^= 1;
        }
        fs::write(&newest, &bytes).unwrap();
        let store = open(folder.path()).unwrap();
        assert!(is_filled(&store).await, "round {round}");
        store.commit(writes(vec![put(at(B, b"after"), 1, b"x")])).await.unwrap();
        store.close().await;
        assert!(is_filled(&open(folder.path()).unwrap()).await, "round {round}, once more");
    }
}

#[tokio::test]
async fn a_damaged_log_never_costs_a_cell_in_silence_and_never_panics() {
    let folder = Folder::new();
    filled(folder.path()).await;
    let data = folder.path().join("sled").join("db");
    let whole = fs::read(&data).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let snaps: Vec<_> = snapshots(folder.path()).into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
    let mut refused = 0;
    for step in 1..30 {
        let mut bytes = whole.clone();
        let place = used / 30 * step;
        match step % 3 {
            0 => bytes.truncate(place),
            1 => bytes[place..place + 40].fill(0xee),
            _ => bytes[place..].fill(0),
        }
        fs::write(&data, &bytes).unwrap();
        snapshots(folder.path()).iter().for_each(|snap| fs::remove_file(snap).unwrap());
        if step % 2 == 0 {
            snaps.iter().for_each(|(bytes, path)| fs::write(path, bytes).unwrap());
        }
        match SledStore::open(folder.path(), SledOptions { lock_wait: Duration::from_millis(100), ..options() }) {
            Ok(store) => match store.scan(A, b"", &KEYS_END, 999).await {
                Ok(found) => assert_eq!(found.len(), 300, "step {step}"),
                Err(said) => assert!(said.to_string().contains("apple"), "{said}"),
            },
            Err(said) => {
                refused += 1;
                let said = said.to_string();
                assert!(said.contains(folder.path().to_str().unwrap()) && said.contains("backup"), "{said}");
            }
        }
    }
    assert!(refused > 20);
}

#[tokio::test]
async fn a_second_process_is_refused_and_the_first_serves_on() {
    let folder = Folder::new();
    let first = open(folder.path()).unwrap();
    first.commit(writes(vec![put(at(A, b"k"), 1, b"x")])).await.unwrap();
    let hasty = SledOptions { lock_wait: Duration::from_millis(60), ..options() };
    let said = SledStore::open(folder.path(), hasty.clone()).unwrap_err();
    assert!(matches!(said, OpenError::InUse { .. }));
    assert!(said.to_string().contains(folder.path().to_str().unwrap()), "{said}");
    assert!(said.to_string().contains("another process"), "{said}");
    first.commit(writes(vec![put(at(A, b"k"), 2, b"y")])).await.unwrap();
    first.close().await;
    assert!(SledStore::open(folder.path(), hasty).is_ok());
}

#[tokio::test]
async fn stop_and_start_at_once_twenty_times() {
    let folder = Folder::new();
    // No patience at all: the folder must be free when `close` or `drop` returns.
    let impatient = SledOptions { lock_wait: Duration::ZERO, ..options() };
    for round in 1..=20_u64 {
        // `close` waits for sled's last threads, so it needs the patience that opening does not.
        let store = SledStore::open(folder.path(), options()).unwrap();
        assert_eq!(store.get(&at(A, b"round")).await.unwrap().map_or(0, |cell| cell.version), round - 1);
        store.commit(writes(vec![put(at(A, b"round"), round, b"x")])).await.unwrap();
        if round % 2 == 0 {
            store.close().await;
        } else {
            drop(store);
        }
        let again = SledStore::open(folder.path(), impatient.clone());
        assert!(again.is_ok(), "round {round}: {again:?}");
        // It has no patience for sled's threads either; let them go before the next round.
        drop(again);
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_more_is_written_or_shown() {
    let folder = Folder::new();
    let broken = Arc::new(AtomicBool::new(false));
    let sync = {
        let broken = Arc::clone(&broken);
        move |data: &fs::File| match broken.load(Ordering::SeqCst) {
            true => Err(io::Error::other("the disk is gone")),
            false => data.sync_data(),
        }
    };
    let store = SledStore::open(folder.path(), SledOptions { sync: Arc::new(sync), ..options() }).unwrap();
    store.commit(writes(vec![put(at(A, b"1"), 1, b"x")])).await.unwrap();
    broken.store(true, Ordering::SeqCst);
    match store.commit(writes(vec![put(at(A, b"1"), 2, b"y"), put(at(A, b"2"), 1, b"y")])).await {
        Err(CommitError::SyncFailed(said)) => assert!(said.contains("the disk is gone")),
        other => panic!("{other:?}"),
    }
    // A second sync may claim success; it is not asked.
    broken.store(false, Ordering::SeqCst);
    assert!(matches!(store.commit(writes(vec![put(at(A, b"3"), 1, b"z")])).await, Err(CommitError::SyncFailed(_))));
    assert_eq!(store.get(&at(A, b"1")).await.unwrap(), Some(cell(1, b"x")));
    assert_eq!(store.scan(A, b"", &KEYS_END, 9).await.unwrap(), [(b"1".to_vec(), cell(1, b"x"))]);
    store.close().await;
    let store = open(folder.path()).unwrap();
    assert!(store.get(&at(A, b"1")).await.unwrap().is_some());
    assert_eq!(store.get(&at(A, b"3")).await.unwrap(), None);
}

/// A sync that waits at a gate, and counts.
#[derive(Default)]
struct Gate {
    /// Syncs begun, and whether they may go on.
    state: Mutex<(u32, bool)>,
    moved: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        self.moved.notify_all();
        drop(self.moved.wait_while(state, |state| !state.1).unwrap());
    }

    fn wait_for_begun(&self, begun: u32) {
        drop(self.moved.wait_while(self.state.lock().unwrap(), |state| state.0 < begun).unwrap());
    }

    fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.moved.notify_all();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_durable_is_not_acknowledged_and_not_seen() {
    let folder = Folder::new();
    let gate = Arc::new(Gate::default());
    let sync = {
        let gate = Arc::clone(&gate);
        move |data: &fs::File| {
            gate.pass();
            data.sync_data()
        }
    };
    let store = Arc::new(SledStore::open(folder.path(), SledOptions { sync: Arc::new(sync), ..options() }).unwrap());
    let commit = |batch: Batch| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.commit(batch).await })
    };
    let first = commit(writes(vec![put(at(A, b"k"), 1, &long(30_000, 1)), put(at(B, b"k"), 1, b"x")]));
    gate.wait_for_begun(1);
    // Applied, and on its way to the disk: nobody may see it yet.
    assert!(!first.is_finished());
    assert_eq!(store.get(&at(A, b"k")).await.unwrap(), None);
    assert_eq!(store.scan(B, b"", &KEYS_END, 9).await.unwrap(), []);
    // These wait together, and are made durable together.
    let later: Vec<_> = (0..40_u8).map(|i| commit(writes(vec![put(at(B, &[i]), 1, b"x")]))).collect();
    let conflict = commit(Batch { checks: vec![Check::Absent(at(A, b"k"))], writes: vec![Write::Delete(at(B, b"k"))] });
    gate.open();
    first.await.unwrap().unwrap();
    for done in later {
        done.await.unwrap().unwrap();
    }
    assert!(matches!(conflict.await.unwrap(), Err(CommitError::Conflict(failed)) if failed == [0]));
    assert_eq!(store.get(&at(A, b"k")).await.unwrap(), Some(cell(1, &long(30_000, 1))));
    assert_eq!(store.scan(B, b"", &KEYS_END, 99).await.unwrap().len(), 41);
    assert!(gate.state.lock().unwrap().0 < 40, "no group commit");
}

#[tokio::test]
async fn no_page_leaves_the_file_that_is_synced() {
    let folder = Folder::new();
    let store = open(folder.path()).unwrap();
    for round in 1..=3_u64 {
        for i in 0..60_u64 {
            let chunk = put(at(A, &[i % 20, i].map(u64::to_be_bytes).concat()), round, &long(65_535, round as u8));
            store.commit(writes(vec![chunk, put(at(B, &i.to_be_bytes()), round, &long(4_096, 1))])).await.unwrap();
        }
    }
    assert_eq!(fs::read_dir(folder.path().join("sled").join("blobs")).unwrap().count(), 0);
    store.close().await;
    let store = open(folder.path()).unwrap();
    assert_eq!(store.scan(A, b"", &KEYS_END, 99).await.unwrap().len(), 60);
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let folder = Folder::new();
    let file = folder.path().join("file");
    fs::write(&file, b"x").unwrap();
    let said = open(&file).unwrap_err();
    assert!(matches!(said, OpenError::Io { .. }));
    assert!(said.to_string().contains(file.to_str().unwrap()), "{said}");
}

// kill -9 under load. The child is this very binary, running the ignored test below.

const CHILD: &str = "JADEGATE_TEST_STORE_CHILD";
const SHARED: Table = Table::new("shared");
const WRITERS: u8 = 8;

fn child_value(version: u64) -> Vec<u8> {
    // Most are short, as an answer's cells are; some lie in pieces.
    let bytes = if version.is_multiple_of(7) { 20_000 } else { 200 };
    long(bytes, u8::try_from(version % 200).unwrap())
}

#[test]
#[ignore = "a child process of the next test"]
fn child_commits_until_it_is_killed() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(open(Path::new(&path)).unwrap());
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let store = Arc::clone(&store);
            tasks.spawn(async move {
                loop {
                    let version = store.get(&at(A, &[writer])).await.unwrap().map_or(0, |cell| cell.version) + 1;
                    let entry = at(SHARED, &[&[writer][..], &version.to_be_bytes()].concat());
                    let batch = Batch {
                        checks: vec![Check::Absent(entry.clone())],
                        writes: vec![
                            put(at(A, &[writer]), version, &child_value(version)),
                            put(at(B, &[writer]), version, &child_value(version)),
                            put(entry, 1, b""),
                        ],
                    };
                    store.commit(batch).await.unwrap();
                    println!("acknowledged {writer} {version}");
                }
            });
        }
        tasks.join_all().await;
    });
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let folder = Folder::new();
    let mut acknowledged = [0_u64; WRITERS as usize];
    for kill_after in [1, 3, 10, 40, 41, 97, 200, 350, 777, 500, 123, 2] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::sled::child_commits_until_it_is_killed", "--ignored", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut note = |line: String| {
            let Some((_, rest)) = line.split_once("acknowledged ") else { return false };
            let (writer, version) = rest.split_once(' ').unwrap();
            let (writer, version): (usize, u64) = (writer.parse().unwrap(), version.parse().unwrap());
            acknowledged[writer] = acknowledged[writer].max(version);
            true
        };
        let mut left = kill_after;
        while left > 0 {
            let line = lines.next().expect("the child ended by itself");
            left -= u32::from(note(line));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died counts as well, but for a last line that was cut off.
        let mut rest: Vec<String> = lines.collect();
        rest.pop();
        for line in rest {
            note(line);
        }

        let store = open(folder.path()).unwrap();
        let entries = store.scan(SHARED, b"", &KEYS_END, usize::MAX).await.unwrap();
        for writer in 0..WRITERS {
            let in_a = store.get(&at(A, &[writer])).await.unwrap();
            let in_b = store.get(&at(B, &[writer])).await.unwrap();
            assert_eq!(in_a, in_b, "half a batch");
            let version = in_a.as_ref().map_or(0, |cell| cell.version);
            assert!(version >= acknowledged[usize::from(writer)], "an acknowledged commit is gone");
            assert!(in_a.is_none_or(|cell| cell.value == child_value(version)), "a torn value");
            let written = entries.iter().filter(|(key, _)| key[0] == writer).count();
            assert_eq!(written as u64, version, "entries and counter differ");
        }
    }
    assert!(acknowledged.iter().all(|version| *version > 0));
}
