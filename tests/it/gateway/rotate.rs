//! Keys change under load: no call fails, old attestations verify until their end, and no sealed data is rewritten.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use jadegate::attestation::jwks::Jwks;
use jadegate::attestation::{self, AttestationError, Expected};
use jadegate::clock::Clock;
use jadegate::gateway::{Refusal, StartError, TakeKeysError};
use jadegate::keys::{JWKS_SECONDS, Keyring, KeyringError, NewKeyring, RootKey};
use jadegate::ledger::audit::audit;
use jadegate::store::faulty::Fault;
use jadegate::tables;

use crate::support::nightly;
use crate::support::world::{
    World, caller, fresh_keys, is_fault, keyring_text, lines, record_line, refusal, register_line, root_key, rotate,
    rotated_keyring, rotated_text,
};

const BIKE: &str = "bike-deposit";
/// The bytes of a person's cell that are the wrapped keys; the register's entry follows.
const WRAPPED_BYTES: usize = 161;

fn opened(text: &str) -> Keyring {
    Keyring::open(text, &root_key()).unwrap()
}

fn verifies(world: &World, token: &str, jwks: &Jwks) -> Result<(), AttestationError> {
    let expected = Expected { aud: Some("yx-bike"), nonce: None, now: world.clock.now(), leeway_s: 0 };
    attestation::verify(token, jwks, &expected).map(drop)
}

/// By which working key each person's keys are wrapped, as the cells say.
async fn wrapped_by(world: &World) -> BTreeMap<u8, usize> {
    let mut found = BTreeMap::new();
    for (_, cell) in world.cells(tables::PERSON).await {
        *found.entry(cell.value[4]).or_default() += 1;
    }
    found
}

async fn nothing_is_found(world: &World) {
    let audited = audit(world.store.inner(), &rotated_keyring(), &world.outside, &mut |_| {}).await.unwrap();
    assert_eq!(audited.findings, []);
}

/// A verifier that keeps the public keys as long as it may is never surprised, before or after.
#[tokio::test]
async fn attestations_verify_over_a_rotation_with_any_key_set_that_may_be_kept() {
    let world = World::new().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    let ask = async || world.ask("yx-bike", BIKE, &consent.token).await.attestation.unwrap();
    let (kept, before) = (world.jwks(), ask().await);
    assert_eq!(kept.0.len(), 1);

    let lead = JWKS_SECONDS + 60;
    let rotated = rotate(keyring_text(), world.clock.now(), lead, 1);
    assert!(world.gateway.take_keys(opened(&rotated.text)).unwrap());
    // At once after the rotation, and until the copy is too old to be kept.
    let at_once = ask().await;
    assert_eq!(verifies(&world, &at_once, &kept), Ok(()));
    let fetched = world.jwks();
    assert!(fetched.get(&rotated.kid).is_some(), "it stands in the set before it signs");
    world.advance(JWKS_SECONDS.try_into().unwrap());
    assert_eq!(verifies(&world, &ask().await, &kept), Ok(()));

    // The new key signs: a set fetched since the rotation has it, an older one says what to do.
    world.advance(60);
    let after = ask().await;
    assert_eq!(verifies(&world, &after, &fetched), Ok(()));
    let unknown = verifies(&world, &after, &kept).unwrap_err();
    assert!(matches!(&unknown, AttestationError::UnknownKey { kid } if *kid == rotated.kid), "{unknown:?}");
    assert!(unknown.to_string().contains("fetch /.well-known/jwks.json again"), "{unknown}");

    // One from before verifies with the new set until its own end, and no key stays beyond the last of its attestations.
    for old in [&before, &at_once] {
        assert_eq!(verifies(&world, old, &world.jwks()), Ok(()));
    }
    world.advance(86_400 + 600);
    let last = world.jwks();
    assert_eq!(last.0.iter().map(|key| key.kid.as_str()).collect::<Vec<_>>(), [rotated.kid.as_str()]);
    assert!(verifies(&world, &before, &fetched).is_err_and(|e| !matches!(e, AttestationError::UnknownKey { .. })));
}

/// Asks, codes, consents, reports and registrations go on while keys are taken and everybody's keys are wrapped anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_keys_rotate() {
    let world = Arc::new(World::new().await);
    let first_set = world.jwks();
    world.register(100..400).await;
    let mut people = Vec::new();
    for n in 1..5 {
        let login = world.good(n).await;
        let consent = world.consent(&login, "yx-bike", BIKE, 300).await;
        people.push((n, login, consent));
    }
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = Vec::new();
    for (n, login, consent) in people {
        let (world, stop, calls) = (world.clone(), stop.clone(), calls.clone());
        tasks.push(tokio::spawn(async move {
            let mut attestations = Vec::new();
            while !stop.load(Ordering::SeqCst) && attestations.len() < 250 {
                attestations.push(world.ask("yx-bike", BIKE, &consent.token).await.attestation.unwrap());
                let code = world.code(&login, &consent).await;
                attestations.push(world.ask("yx-bike", BIKE, &code).await.attestation.unwrap());
                let fresh = world.consent(&login, "yx-bike", BIKE, 1).await;
                attestations.push(world.ask("yx-bike", BIKE, &fresh.token).await.attestation.unwrap());
                world.gateway.revoke(&login, &fresh.id.to_text()).await.unwrap();
                let id = world.fresh("r");
                world.report("yx-health", &[record_line("yx-health", "blood-donation", &id, n, Some(1))]).await;
                // Somebody else's entry changes each time, in the very cells that the rotation writes.
                let mut line = register_line(200 + n);
                line["resident"] = (attestations.len() / 3 % 2 == 0).into();
                let enrolled = world.gateway.enrol(&caller("yx-public-security"), &lines(&[line])).await.unwrap();
                assert_eq!((enrolled.rejected.len(), enrolled.replaced), (0, 1));
                calls.fetch_add(1, Ordering::SeqCst);
            }
            attestations
        }));
    }
    let reached = async |count: usize| {
        while calls.load(Ordering::SeqCst) < count {
            tokio::task::yield_now().await;
        }
    };
    reached(4).await;
    let rotated = rotate(keyring_text(), world.clock.now(), 600, 1);
    world.gateway.take_keys(opened(&rotated.text)).unwrap();
    let mut moved = 0;
    loop {
        match world.gateway.rewrap(0).await.unwrap() {
            0 => break,
            people => moved += people,
        }
    }
    let second_set = world.jwks();
    // The register's lines wrap those that they change themselves.
    assert!(moved >= 300, "{moved}");
    reached(calls.load(Ordering::SeqCst) + 4).await;
    stop.store(true, Ordering::SeqCst);
    let mut attestations = 0;
    for (task, n) in tasks.into_iter().zip(201..) {
        let tokens = task.await.unwrap();
        let person = world.gateway.export(&world.login(n).await).await.unwrap().person;
        assert_eq!(person.resident, tokens.len() / 3 % 2 == 0, "the last line of the register counts");
        for token in tokens {
            assert_eq!(verifies(&world, &token, &first_set), Ok(()), "within the lead the first set is enough");
            assert_eq!(verifies(&world, &token, &second_set), Ok(()));
            attestations += 1;
        }
    }
    // Who was sealed before the keys came and written after the last pass is met by one more.
    while world.gateway.rewrap(0).await.unwrap() > 0 {}
    assert_eq!(wrapped_by(&world).await, BTreeMap::from([(2, 304)]));
    assert_eq!(world.gateway.wrapped_from(), 2);
    let audited = audit(world.store.inner(), &opened(&rotated.text), &world.outside, &mut |_| {}).await.unwrap();
    assert_eq!(audited.findings, []);
    nightly::figure("rotation under load", format_args!("0 calls failed, {attestations} attestations verify twice"));
}

/// The register and the rotation write the same cells at the same time: each line counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_line_of_the_register_is_lost_to_a_rotation() {
    const WRITERS: u32 = 4;
    let world = Arc::new(World::new().await);
    world.register(1..1 + WRITERS * 20).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for writer in 0..WRITERS {
        let (world, stop) = (world.clone(), stop.clone());
        tasks.push(tokio::spawn(async move {
            let mut resident = true;
            while !stop.load(Ordering::SeqCst) {
                resident = !resident;
                for n in 1 + writer * 20..1 + (writer + 1) * 20 {
                    let mut line = register_line(n);
                    line["resident"] = resident.into();
                    let enrolled = world.gateway.enrol(&caller("yx-public-security"), &lines(&[line])).await.unwrap();
                    // Had the line before been lost, this one would change nothing.
                    assert_eq!(enrolled.replaced, 1, "a line about {n} was lost");
                }
            }
        }));
    }
    let mut text = keyring_text().to_owned();
    for _ in 0..nightly::rounds(30, 300) {
        text = rotate(&text, world.clock.now(), 0, 1).text;
        world.gateway.take_keys(opened(&text)).unwrap();
        world.gateway.rewrap(0).await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    let audited = audit(world.store.inner(), &opened(&text), &world.outside, &mut |_| {}).await.unwrap();
    assert_eq!(audited.findings, []);
}

#[tokio::test]
async fn a_rotation_wraps_keys_anew_and_leaves_what_they_seal_as_it_was() {
    let mut world = World::new().await;
    world.register(1..260).await;
    world.make_good(1).await;
    let login = world.login(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    let sealed = [tables::DOSSIER, tables::STANDING, tables::MINE, tables::CONSENT, tables::ORIGIN];
    let mut before = Vec::new();
    for table in sealed {
        before.push(world.cells(table).await);
    }
    let people = world.cells(tables::PERSON).await;
    let entries = world.log_size();
    world.gateway.take_keys(rotated_keyring()).unwrap();
    assert_eq!(world.gateway.rewrap(0).await.unwrap(), 259);
    assert_eq!(world.actions_since(entries).await, ["rotate"; 3]);
    for (table, before) in sealed.into_iter().zip(before) {
        assert!(world.cells(table).await == before, "{table:?} was rewritten");
    }
    for ((place, was), (_, is)) in people.iter().zip(world.cells(tables::PERSON).await) {
        assert_eq!(is.version, was.version + 1);
        assert_ne!(is.value[..WRAPPED_BYTES], was.value[..WRAPPED_BYTES]);
        assert!(is.value[WRAPPED_BYTES..] == was.value[WRAPPED_BYTES..], "the entry of {place:?} was rewritten");
    }
    assert_eq!(wrapped_by(&world).await, BTreeMap::from([(2, 259)]));
    nothing_is_found(&world).await;
    // Nothing needs the old key: a gateway without it serves everybody.
    let gone = rotate(rotated_text(), world.clock.now() + jiff::SignedDuration::from_hours(48), 600, 2);
    assert!(gone.destroyed.contains(&("working".into(), 1)), "{:?}", gone.destroyed);
    world.advance(48 * 3600);
    world
        .reopen_with(jadegate::policies::PolicySet::parse(jadegate::policies::shipped()).unwrap(), opened(&gone.text))
        .await
        .unwrap();
    assert!(world.asked("yx-bike", BIKE, &consent.token).await);
    assert_eq!(world.score(&world.login(1).await).await, Some(650));
    // A second pass moves an entry that was sealed two versions ago, and it still opens.
    while world.gateway.rewrap(0).await.unwrap() > 0 {}
    assert_eq!(world.gateway.export(&world.login(1).await).await.unwrap().records.len(), 1);
    world.register(1..3).await;
}

/// An older entry beside newer keys is as good as a cell rolled back: it does not open.
#[tokio::test]
async fn an_older_entry_does_not_open_beside_newer_keys() {
    let world = World::new().await;
    let login = world.good(1).await;
    let older = world.cells(tables::PERSON).await.remove(0);
    let mut line = register_line(1);
    line["resident"] = false.into();
    world.gateway.enrol(&caller("yx-public-security"), &lines(&[line])).await.unwrap();
    world.gateway.take_keys(rotated_keyring()).unwrap();
    world.gateway.rewrap(0).await.unwrap();
    let (place, mut cell) = world.cells(tables::PERSON).await.remove(0);
    cell.value.truncate(WRAPPED_BYTES);
    cell.value.extend(&older.1.value[WRAPPED_BYTES..]);
    world.put(&place, cell).await;
    assert!(is_fault(&world.gateway.score(&login).await));
}

/// A fault at each commit of a pass, counted: the gateway answers in between, and the next pass finishes it.
#[tokio::test]
async fn an_interrupted_pass_is_finished_by_the_next() {
    const PEOPLE: u32 = 250;
    let prepared = async || {
        let world = World::new().await;
        world.register(2..1 + PEOPLE).await;
        let login = world.good(1).await;
        let consent = world.consent(&login, "yx-bike", BIKE, 50).await;
        world.gateway.take_keys(rotated_keyring()).unwrap();
        (world, consent)
    };
    let (world, _) = prepared().await;
    let before = world.store.commits();
    assert_eq!(world.gateway.rewrap(0).await.unwrap(), u64::from(PEOPLE));
    let commits = world.store.commits() - before;
    assert_eq!(commits, 3);
    let policies = || jadegate::policies::PolicySet::parse(jadegate::policies::shipped()).unwrap();
    for nth in 1..=commits {
        for fault in [Fault::Failed, Fault::Lost, Fault::Persisted, Fault::SyncFailed, Fault::SyncFailedPersisted] {
            let (mut world, consent) = prepared().await;
            world.store.fail_commit(nth, fault);
            assert_eq!(world.gateway.rewrap(0).await.is_ok(), fault == Fault::Persisted);
            if matches!(fault, Fault::SyncFailed | Fault::SyncFailedPersisted) {
                let inner = world.store.inner().clone();
                world.put_store(inner);
                world.reopen_with(policies(), rotated_keyring()).await.unwrap();
            }
            assert!(world.asked("yx-bike", BIKE, &consent.token).await, "in between, after {fault:?} at {nth}");
            while world.gateway.rewrap(0).await.unwrap() > 0 {}
            assert_eq!(wrapped_by(&world).await, BTreeMap::from([(2, 250)]));
            assert!(world.asked("yx-bike", BIKE, &consent.token).await);
            nothing_is_found(&world).await;
        }
    }
    nightly::figure("rotation interrupted", format_args!("{} faults at {commits} commits, each finished", commits * 5));
}

#[tokio::test]
async fn a_running_gateway_takes_no_keyring_that_would_cost_it_anything() {
    let world = World::new().await;
    let login = world.good(1).await;
    let new = fresh_keys();
    let other = Keyring::open(&new.keyring, &RootKey::parse(&new.root, true).unwrap()).unwrap();
    assert!(matches!(world.gateway.take_keys(other), Err(TakeKeysError::Other)));
    assert!(!world.gateway.take_keys(opened(keyring_text())).unwrap(), "the same again is nothing new");
    let one = rotate(keyring_text(), world.clock.now(), 0, 1);
    world.gateway.take_keys(opened(&one.text)).unwrap();
    assert!(matches!(world.gateway.take_keys(opened(keyring_text())), Err(TakeKeysError::Older)));
    // Somebody's keys may still be wrapped by the first.
    let two = rotate(&one.text, world.clock.now(), 0, 2);
    assert_eq!(lacking(world.gateway.take_keys(opened(&two.text))), KeyringError::Lacks("working", 1));
    while world.gateway.rewrap(0).await.unwrap() > 0 {}
    world.gateway.take_keys(opened(&two.text)).unwrap();
    assert_eq!(world.gateway.rewrap(0).await.unwrap(), 1);
    // What a withheld answer opens in a person's place does not need the destroyed key either.
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    world.gateway.revoke(&login, &consent.id.to_text()).await.unwrap();
    assert!(!world.asked("yx-bike", BIKE, &consent.token).await);
}

fn lacking(taken: Result<bool, TakeKeysError>) -> KeyringError {
    match taken {
        Err(TakeKeysError::Needed(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// The file without one key, as somebody's hand or an old copy leaves it.
fn without(text: &str, uses: &str, version: u64) -> String {
    let mut file: serde_json::Value = serde_json::from_str(text).unwrap();
    let keys = file["keys"].as_array_mut().unwrap();
    let held = keys.len();
    keys.retain(|key| !(key["use"] == uses && key["version"] == version));
    assert_eq!(keys.len() + 1, held, "{uses} {version}");
    file.to_string()
}

/// Each key that something needs, missing: a running gateway goes on with all that it had, and none starts without it.
#[tokio::test]
async fn no_keyring_that_lacks_a_key_still_needed_is_taken_or_started_with() {
    let mut world = World::new().await;
    let login = world.good(1).await;
    let old = world.consent(&login, "yx-bike", BIKE, 50).await;
    let one = rotate(keyring_text(), world.clock.now(), 0, 1);
    world.gateway.take_keys(opened(&one.text)).unwrap();
    let two = rotate(&one.text, world.clock.now(), 0, 1);
    let policies = || jadegate::policies::PolicySet::parse(jadegate::policies::shipped()).unwrap();
    for (uses, version) in
        [("working", 1), ("consent", 1), ("signing", 1), ("working", 2), ("consent", 2), ("signing", 2)]
    {
        // Whether the file is otherwise the same, or brings newer keys too.
        for text in [&one.text, &two.text] {
            let less = without(text, uses, version);
            match world.gateway.take_keys(opened(&less)) {
                Err(TakeKeysError::Needed(error)) => {
                    let said = error.to_string();
                    assert!(
                        said.contains(&format!("lacks the {uses} key {version}")) && said.contains("put the newest"),
                        "{said}"
                    );
                }
                // The newest of a use: the file is an older one.
                Err(TakeKeysError::Older) => assert!(version == 2 && text == &one.text, "{uses} {version}"),
                other => panic!("{uses} {version}: {other:?}"),
            }
            // Nothing of it was taken.
            let keys = world.gateway.keys();
            assert_eq!((keys.newest().0, keys.newest().1, world.jwks().0.len()), (2, 2, 2), "{uses} {version}");
            assert!(world.asked("yx-bike", BIKE, &old.token).await, "{uses} {version}");
            assert_eq!(world.gateway.consents(&login).await.unwrap().len(), 1);
            let started = world.reopen_with(policies(), opened(&less)).await;
            assert!(
                matches!(&started, Err(StartError::Keys(KeyringError::Lacks(lacking, v))) if *lacking == uses && u64::from(*v) == version),
                "{uses} {version}: {started:?}"
            );
        }
    }
    // The whole one is, and with it what the others lacked; older as a whole is seen by whom people are wrapped by.
    world.gateway.take_keys(opened(&two.text)).unwrap();
    while world.gateway.rewrap(0).await.unwrap() > 0 {}
    let started = world.reopen_with(policies(), opened(&one.text)).await;
    assert!(matches!(started, Err(StartError::Keys(KeyringError::Lacks("working", 3)))), "{started:?}");
    world.reopen_with(policies(), opened(&two.text)).await.unwrap();
    assert!(world.asked("yx-bike", BIKE, &old.token).await);
}

/// One damaged cell is no reason not to start.
#[tokio::test]
async fn one_persons_damaged_cell_keeps_no_gateway_from_starting() {
    let mut world = World::new().await;
    world.register(1..4).await;
    let (place, mut cell) = world.cells(tables::PERSON).await.remove(0);
    cell.value[4] = 9;
    world.put(&place, cell).await;
    world.reopen().await.unwrap();
}

/// More people than a pass reads at once: it goes through all pages, and nobody is called wrapped before all were seen.
#[tokio::test]
async fn a_pass_over_more_people_than_a_page_sees_everybody() {
    const PEOPLE: u64 = 1_030;
    let world = World::new().await;
    world.register(1..1 + u32::try_from(PEOPLE).unwrap()).await;
    let (place, behind) = world.cells(tables::PERSON).await.pop().unwrap();
    world.gateway.take_keys(rotated_keyring()).unwrap();
    assert_eq!(world.gateway.rewrap(0).await.unwrap(), PEOPLE);
    assert_eq!(wrapped_by(&world).await, BTreeMap::from([(2, usize::try_from(PEOPLE).unwrap())]));
    assert_eq!(world.gateway.wrapped_from(), 0, "a pass that moved somebody does not know of all");
    // One on the last page is behind again, as a gateway leaves them that had not taken the keys.
    world.put(&place, behind).await;
    assert_eq!(world.gateway.rewrap(0).await.unwrap(), 1);
    assert_eq!(world.gateway.wrapped_from(), 0);
    assert_eq!(world.gateway.rewrap(0).await.unwrap(), 0);
    assert_eq!(world.gateway.wrapped_from(), 2);
}

/// Tokens of before work after it; a token whose key was destroyed, years after its end, is no consent any more.
#[tokio::test]
async fn tokens_outlive_a_rotation_by_the_longest_consent() {
    let mut world = World::new().await;
    let login = world.good(1).await;
    let old = world.consent(&login, "yx-bike", BIKE, 5).await;
    let one = rotate(keyring_text(), world.clock.now(), 0, 1);
    world.gateway.take_keys(opened(&one.text)).unwrap();
    let new = world.consent(&login, "yx-bike", BIKE, 5).await;
    for token in [&old.token, &new.token] {
        assert!(world.asked("yx-bike", BIKE, token).await);
    }
    assert!(old.token[..4] != new.token[..4], "a token names its key's version");
    world.gateway.rewrap(0).await.unwrap();
    let later = world.clock.now() + jiff::SignedDuration::from_hours(24 * 1_833);
    let two = NewKeyring::rotate(
        &one.text,
        &root_key(),
        &jadegate::keys::Rotation { now: later, from: later, signing_from: later, wrapped_from: 2 },
        &jadegate::entropy::SystemEntropy::new(),
    )
    .unwrap();
    assert!(two.destroyed.contains(&("consent".into(), 1)), "{:?}", two.destroyed);
    world.advance(24 * 3600 * 1_833);
    world
        .reopen_with(jadegate::policies::PolicySet::parse(jadegate::policies::shipped()).unwrap(), opened(&two.text))
        .await
        .unwrap();
    let asked = world.ask_as(&caller("yx-bike"), BIKE, &old.token, &world.fresh("nonce")).await;
    assert_eq!(refusal(asked), Refusal::ConsentNotRecognised);
    let login = world.login(1).await;
    assert_eq!(world.gateway.consents(&login).await.unwrap().len(), 1, "of the destroyed one nothing is left to show");
}
