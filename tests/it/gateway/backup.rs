//! Backups: one made while others write is of one checkpoint, a changed one is refused, and what is not
//! finished is known for it.

use std::cell::{Cell as Flag, RefCell};
use std::io::Cursor;
use std::sync::Arc;

use jadegate::access_log::proof::Proof;
use jadegate::entropy::SystemEntropy;
use jadegate::gateway::StartError;
use jadegate::keys::{Keyring, NewKeyring, RootKey};
use jadegate::ledger::OpenError;
use jadegate::ledger::audit::audit;
use jadegate::ledger::backup::{BackupError, ImportError, import, inspect};
use jadegate::ledger::health::health;
use jadegate::ledger::outside::{Outside, OutsideMemory};
use jadegate::store::faulty::{Fault, FaultyStore};
use jadegate::store::memory::MemoryStore;
use jadegate::store::{Batch, Store, Write};
use jadegate::tables;
use tokio::io::AsyncReadExt as _;

use crate::support::nightly;
use crate::support::world::{ISSUER, Kept, Said, World, caller, cells, fresh_keys, keyring, number, record_line};

const PARTY: &str = "yx-bike";
const SCENARIO: &str = "bike-deposit";

async fn backup(world: &World) -> Vec<u8> {
    let mut out = Vec::new();
    let made = world.gateway.export_store(&mut out).await.unwrap();
    assert_eq!(made.bytes, out.len() as u64);
    out
}

async fn imported(backup: &[u8]) -> Arc<dyn Store> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let said = inspect(backup, &keyring(), &mut |_| {}).unwrap();
    let done = import(Cursor::new(backup), &store, &Arc::new(keyring()), &mut |_| {}).await.unwrap();
    assert_eq!(done, said);
    store
}

/// The copy outside as it was when the store's newest checkpoint was made, and that checkpoint's size.
async fn outside_of(store: &dyn Store) -> (OutsideMemory, u64) {
    let (_, cell) = cells(store, tables::CHECKPOINT).await.pop().unwrap();
    let note = String::from_utf8(cell.value).unwrap();
    let mut outside = OutsideMemory::default();
    outside.keep(&note).unwrap();
    (outside, note.lines().nth(1).unwrap().parse().unwrap())
}

/// A city with some people, records, consents and answers.
async fn worked(seed: u64) -> World {
    let set = jadegate::policies::PolicySet::parse(jadegate::policies::shipped()).unwrap();
    let world = World::with(set, seed).await;
    world.register(1..200).await;
    for n in 1..4 {
        world.make_good(n).await;
        let login = world.login(n).await;
        let consent = world.consent(&login, PARTY, SCENARIO, 20).await;
        world.asked(PARTY, SCENARIO, &consent.token).await;
    }
    world
}

/// Asks, reports, gives and takes back until told to stop; notes what must be there in a copy, by log size.
struct Load<'a> {
    world: &'a World,
    stop: Flag<bool>,
    /// Token, nonce and the answer, by the entry that the answer's proof names.
    answers: RefCell<Vec<(u64, String, String, Said)>>,
    /// Tokens taken back, by the size of the log once that was told.
    revoked: RefCell<Vec<(u64, String)>>,
    calls: Flag<u64>,
}

impl Load<'_> {
    async fn person(&self, n: u32) {
        let world = self.world;
        let login = world.login(n).await;
        for turn in 0..40 {
            if self.stop.get() {
                break;
            }
            let consent = world.consent(&login, PARTY, SCENARIO, 20).await;
            for _ in 0..3 {
                let nonce = world.fresh("nonce");
                let said = world.ask_as(&caller(PARTY), SCENARIO, &consent.token, &nonce).await.unwrap();
                let proof = Proof::parse(said.proof.as_ref().unwrap()).unwrap();
                self.answers.borrow_mut().push((proof.index, consent.token.clone(), nonce, said));
                self.calls.set(self.calls.get() + 1);
                tokio::task::yield_now().await;
            }
            if turn % 2 == 0 {
                let told = consent.token.clone();
                world.gateway.revoke(&login, &consent.id.to_text()).await.unwrap();
                self.answers.borrow_mut().retain(|(_, token, ..)| *token != told);
                self.revoked.borrow_mut().push((world.log_size(), told));
            }
        }
    }

    async fn provider(&self) {
        let mut n = 100;
        for _ in 0..100 {
            if self.stop.get() {
                break;
            }
            let id = self.world.fresh("hours");
            let line = record_line("yx-civil-affairs", "volunteer-hours", &id, n, Some(1));
            self.world.report("yx-civil-affairs", &[line]).await;
            n = 100 + (n + 1) % 100;
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_backup_under_load_is_the_store_of_one_checkpoint() {
    let rounds = nightly::rounds(2, 20);
    for round in 0..rounds {
        let world = worked(round as u64).await;
        let load = Load {
            world: &world,
            stop: Flag::new(false),
            answers: RefCell::default(),
            revoked: RefCell::default(),
            calls: Flag::new(0),
        };
        let copying = async {
            // What is read is a moving store: some calls come first.
            while load.calls.get() < 4 {
                tokio::task::yield_now().await;
            }
            let (begun, mut out) = (world.log_size(), Vec::new());
            let (mut near, mut slow) = tokio::io::duplex(512);
            let made = async {
                let made = world.gateway.export_store(&mut near).await.unwrap();
                drop(near);
                made
            };
            let taken = async {
                let mut piece = [0; 512];
                loop {
                    let read = slow.read(&mut piece).await.unwrap();
                    if read == 0 {
                        break;
                    }
                    out.extend_from_slice(&piece[..read]);
                    // A slow disk: in the middle of the first reading many calls come.
                    while world.log_size() < begun + 300 {
                        tokio::task::yield_now().await;
                    }
                    tokio::task::yield_now().await;
                }
            };
            let (made, ()) = tokio::join!(made, taken);
            let ended = world.log_size();
            load.stop.set(true);
            (begun, ended, made, out)
        };
        let (copied, ..) = tokio::join!(copying, load.person(1), load.person(2), load.person(3), load.provider());
        let (begun, ended, made, out) = copied;
        let store = imported(&out).await;
        let (outside, size) = outside_of(&*store).await;
        assert!(begun + 300 <= size && size <= ended, "{begun} {size} {ended}: too little was written meanwhile");
        let found = audit(&store, &keyring(), &outside, &mut |_| {}).await.unwrap();
        assert_eq!((found.findings, found.entries), (vec![], size), "round {round}");
        assert!(health(&store, &mut |_| {}).await.unwrap().is_sound());

        // The same questions give the same answers: repeats to the byte, and nobody who was taken back.
        let mut again = worked(77).await;
        again.clock = world.clock.clone();
        again.put_store(store);
        again.outside = Kept { memory: outside, ..Kept::default() };
        again.reopen().await.unwrap();
        let (mut same, mut withheld) = (0, 0);
        for (_, token, nonce, said) in load.answers.take().into_iter().filter(|(index, ..)| *index < size) {
            let repeat = again.ask_as(&caller(PARTY), SCENARIO, &token, &nonce).await.unwrap();
            assert_eq!(repeat, said, "round {round}");
            same += 1;
        }
        for (_, token) in load.revoked.take().into_iter().filter(|(told, _)| *told <= size) {
            assert!(
                !again.asked(PARTY, SCENARIO, &token).await,
                "round {round}: a consent that was taken back answers"
            );
            withheld += 1;
        }
        assert!(same > 3 && withheld > 1, "round {round}: {same} {withheld}");
        nightly::figure(
            "backup under load: entries meanwhile, repeats the same, revocations held, the writer's pause",
            format_args!("{}, {same}, {withheld}, {:.1} ms", size - begun, made.paused.as_secs_f64() * 1e3),
        );
    }
}

/// Numbers that a seed decides.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

/// Where the chunks of a backup lie.
fn chunks(backup: &[u8]) -> Vec<std::ops::Range<usize>> {
    let (mut at, mut found) = (36, Vec::new());
    while at < backup.len() {
        let length = u32::from_be_bytes(backup[at + 1..at + 5].try_into().unwrap()) as usize;
        found.push(at..at + 5 + length);
        at += 5 + length;
    }
    found
}

/// One change of a backup; the other is of the same deployment.
fn mutate(backup: &[u8], other: &[u8], dice: &mut Dice) -> (Vec<u8>, &'static str) {
    let (mut after, places) = (backup.to_vec(), chunks(backup));
    let one = places[dice.below(places.len())].clone();
    match dice.below(8) {
        0 | 1 => {
            let at = dice.below(after.len());
            after[at] ^= 1 << dice.below(8);
            (after, "flipped")
        }
        2 => {
            after.truncate(dice.below(after.len()));
            (after, "cut")
        }
        3 => {
            after.truncate(one.start);
            (after, "cut between two chunks")
        }
        4 => {
            after.extend_from_slice(if dice.below(2) == 0 { &other[..64] } else { &backup[one] });
            (after, "appended")
        }
        5 => {
            let two = places[dice.below(places.len())].clone();
            if one == two {
                return mutate(backup, other, dice);
            }
            let (one, two) = if one.start < two.start { (one, two) } else { (two, one) };
            let parts = [
                &backup[..one.start],
                &backup[two.clone()],
                &backup[one.end..two.start],
                &backup[one],
                &backup[two.end..],
            ];
            (parts.concat(), "exchanged two chunks")
        }
        6 => {
            after.drain(one);
            (after, "left out a chunk")
        }
        _ => {
            let foreign = chunks(other);
            let from = foreign[dice.below(foreign.len())].clone();
            after.splice(one, other[from].iter().copied());
            (after, "put in a chunk of another backup")
        }
    }
}

#[tokio::test]
async fn each_of_many_random_changes_to_a_backup_is_refused() {
    let world = worked(1).await;
    for n in 0..3 {
        world.register(1_000 + n * 300..1_300 + n * 300).await;
    }
    let (one, other) = (backup(&world).await, backup(&world).await);
    assert!(chunks(&one).len() > 3, "{}", chunks(&one).len());
    assert!(inspect(&one[..], &keyring(), &mut |_| {}).is_ok());
    // A chunk that was not the last does not pass for it.
    let second = chunks(&one)[1].clone();
    let mut shorter = one[..second.end].to_vec();
    shorter[second.start] = 1;
    let refused = inspect(&shorter[..], &keyring(), &mut |_| {});
    assert!(matches!(refused, Err(BackupError::Changed(at)) if at == second.start as u64), "{refused:?}");
    let wanted = nightly::rounds(200, 1_000);
    let mut dice = Dice(20_261_125);
    for turn in 0..wanted {
        let (after, what) = mutate(&one, &other, &mut dice);
        let refused = inspect(&after[..], &keyring(), &mut |_| {});
        let Err(error) = refused else { panic!("turn {turn}: {what}, and taken") };
        assert!(error.to_string().split(' ').count() > 4, "turn {turn}: {what}: {error}");
    }
    nightly::figure("backup: random changes refused", format_args!("{wanted} of {wanted}"));
}

#[tokio::test]
async fn what_is_no_backup_of_these_keys_is_named() {
    let world = worked(1).await;
    let backup = backup(&world).await;
    let refused = |bytes: &[u8]| inspect(bytes, &keyring(), &mut |_| {}).unwrap_err();
    assert!(matches!(refused(b""), BackupError::NotOne));
    assert!(matches!(refused(b"PK\x03\x04"), BackupError::NotOne));
    assert!(matches!(refused(&backup[..20]), BackupError::CutShort(20)));
    let mut newer = backup.clone();
    newer[19] = 2;
    assert!(matches!(refused(&newer), BackupError::Newer(2)));
    let fresh = fresh_keys();
    let root = RootKey::parse(&fresh.root, true).unwrap();
    let others = Keyring::open(&fresh.keyring, &root).unwrap();
    assert!(matches!(inspect(&backup[..], &others, &mut |_| {}), Err(BackupError::OtherKeys)));
    let places = chunks(&backup);
    let last = places.last().unwrap().clone();
    assert!(matches!(refused(&backup[..last.start]), BackupError::CutShort(at) if at == last.start as u64));
    assert!(matches!(refused(&[&backup, &b"x"[..]].concat()), BackupError::Appended(at) if at == last.end as u64));
}

/// Nothing personal and no session lies in a backup, neither sealed nor in what it puts into a store.
#[tokio::test]
async fn no_number_name_token_or_session_is_in_a_backup() {
    let world = worked(1).await;
    let login = world.login(1).await;
    let consent = world.consent(&login, PARTY, SCENARIO, 20).await;
    let code = world.code(&login, &consent).await;
    let said = world.ask(PARTY, SCENARIO, &consent.token).await;
    let backup = backup(&world).await;
    let store = imported(&backup).await;
    let mut inside = Vec::new();
    for table in tables::ALL {
        for (place, cell) in cells(&*store, table).await {
            inside.extend([place.key, cell.value].concat());
        }
    }
    assert!(cells(&*store, tables::SESSION).await.is_empty() && !world.cells(tables::SESSION).await.is_empty());
    let attestation = said.attestation.unwrap();
    for secret in [&number(1), "某1", &consent.token, &code, &code.replace('-', ""), &attestation, PARTY, SCENARIO] {
        for bytes in [&backup, &inside] {
            assert!(!bytes.windows(secret.len()).any(|held| held == secret.as_bytes()), "{secret}");
        }
    }
}

#[tokio::test]
async fn an_import_goes_into_an_empty_store_only() {
    let world = worked(1).await;
    let backup = backup(&world).await;
    let keys = Arc::new(keyring());
    for table in tables::ALL.into_iter().filter(|table| *table != tables::IMPORT) {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let place = jadegate::store::Place::new(table, b"k".as_slice());
        let cell = jadegate::store::Cell { version: 1, value: vec![1] };
        store.commit(Batch { checks: Vec::new(), writes: vec![Write::Put(place, cell)] }).await.unwrap();
        let refused = import(Cursor::new(&backup), &store, &keys, &mut |_| {}).await;
        assert!(matches!(refused, Err(ImportError::NotEmpty(named)) if named == table), "{table:?}");
    }
}

/// A log that nobody here could verify, go on with or audit.
#[tokio::test]
async fn a_backup_with_a_log_that_these_keys_lack_is_not_taken_for_whole() {
    let (now, entropy) = ("2026-01-01T00:00:00Z".parse().unwrap(), SystemEntropy::new());
    let new = fresh_keys();
    let root = RootKey::parse(&new.root, true).unwrap();
    let more = NewKeyring::add_log(&new.keyring, &root, "yuxi.example/log-2", now, &entropy).unwrap();
    let second = || Keyring::open(&more, &root).unwrap().writing("yuxi.example/log-2").unwrap();
    let set = jadegate::policies::PolicySet::parse(jadegate::policies::shipped()).unwrap();
    let world = World::of_keys(second(), set, 1, ISSUER).await.unwrap();
    world.register(1..20).await;
    let backup = backup(&world).await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let first = Arc::new(Keyring::open(&new.keyring, &root).unwrap());
    let refused = import(Cursor::new(&backup), &store, &first, &mut |_| {}).await;
    assert!(matches!(refused, Err(ImportError::UnknownLog)), "{refused:?}");
    assert!(!cells(&*store, tables::IMPORT).await.is_empty(), "no gateway starts on it");
    import(Cursor::new(&backup), &store, &Arc::new(second()), &mut |_| {}).await.unwrap();
}

/// Whichever commit of an import fails, in either form: no gateway starts, and the same file again finishes it.
#[tokio::test]
async fn an_import_that_was_cut_off_keeps_gateways_away_and_is_begun_again() {
    let mut world = worked(1).await;
    // More than one batch of an import.
    world.register(1_000..2_500).await;
    let (one, other) = (backup(&world).await, backup(&world).await);
    let keys = Arc::new(keyring());
    let count = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    import(Cursor::new(&one), &(count.clone() as Arc<dyn Store>), &keys, &mut |_| {}).await.unwrap();
    let commits = count.commits();
    assert!(commits > 4, "{commits}");
    for nth in 1..=commits {
        for fault in [Fault::Failed, Fault::Lost, Fault::Persisted] {
            let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
            store.fail_commit(nth, fault);
            let held: Arc<dyn Store> = store.clone();
            let cut = import(Cursor::new(&one), &held, &keys, &mut |_| {}).await;
            assert!(matches!(cut, Err(ImportError::Write(_))), "{nth} {fault:?}");
            let begun = !cells(&*held, tables::IMPORT).await.is_empty();
            world.put_store(held.clone());
            if begun {
                let started = world.reopen().await;
                assert!(matches!(started, Err(StartError::Log(OpenError::Unfinished))), "{nth} {fault:?}");
                let another = import(Cursor::new(&other), &held, &keys, &mut |_| {}).await;
                assert!(matches!(another, Err(ImportError::Another)), "{nth} {fault:?}");
                assert!(!health(&held, &mut |_| {}).await.unwrap().is_sound());
            }
            if nth == commits && fault == Fault::Persisted {
                assert!(!begun, "the last commit takes the mark away");
            } else {
                import(Cursor::new(&one), &held, &keys, &mut |_| {}).await.unwrap();
            }
            let (outside, _) = outside_of(&*held).await;
            assert_eq!(audit(&held, &keyring(), &outside, &mut |_| {}).await.unwrap().findings, []);
        }
    }
    nightly::figure("import: commits failed in three forms, each begun again", commits);
}

/// What a look at the store without keys finds, and what it leaves to the audit.
#[tokio::test]
async fn a_store_that_no_gateway_wrote_is_not_sound() {
    let world = worked(1).await;
    world.register(1_000..1_300).await;
    let sound = world.copy().await;
    let seen = health(&sound, &mut |_| {}).await.unwrap();
    assert!(seen.is_sound(), "{:?}", seen.findings);
    assert_eq!(seen.logs, [("yuxi.example/log".to_owned(), world.log_size())]);
    let counted: u64 = seen.tables.iter().map(|table| table.cells).sum();
    let mut held = 0;
    for table in tables::ALL {
        held += cells(&*sound, table).await.len() as u64;
    }
    assert_eq!(counted, held);
    for table in tables::ALL {
        for (place, cell) in cells(&*sound, table).await.into_iter().take(2) {
            let mut shorter = cell.clone();
            shorter.value.pop();
            let mut changes = vec![("cut", Write::Put(place.clone(), shorter))];
            if [tables::LEAF, tables::TILE, tables::CHECKPOINT].contains(&table) {
                changes.push(("deleted", Write::Delete(place.clone())));
                let mut bent = cell.clone();
                bent.value[3] ^= 1;
                changes.push(("bent", Write::Put(place, bent)));
            }
            for (what, write) in changes {
                let store = world.copy().await;
                store.commit(Batch { checks: Vec::new(), writes: vec![write] }).await.unwrap();
                assert!(!health(&store, &mut |_| {}).await.unwrap().is_sound(), "{what} {table:?}");
            }
        }
    }
}
