//! INVARIANT (one door): every call that changes something leaves one entry in the same batch, and the log goes on where it
//! was, or says why it cannot.

use jadegate::clock::Clock;
use jadegate::gateway::{CaseRequest, Refusal, StartError};
use jadegate::keys::{Keyring, RootKey};
use jadegate::ledger::OpenError;
use jadegate::ledger::outside::Outside;
use jadegate::person::{IdType, Identity};
use jadegate::policies::{PolicySet, shipped};
use jadegate::store::faulty::Deed;
use jadegate::tables;

use crate::support::world::{World, caller, fresh_keys, lines, number, officer, record_line, refusal};

const BIKE: &str = "bike-deposit";

#[tokio::test]
async fn each_call_leaves_one_entry() {
    let world = World::new().await;
    assert_eq!(world.actions_since(0).await, ["model", "policy"]);
    let mut expected = vec!["model", "policy"];
    let login = world.good(1).await;
    expected.extend(["register", "report"]);
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    world.ask("yx-bike", BIKE, &consent.token).await;
    let code = world.code(&login, &consent).await;
    world.ask("yx-bike", BIKE, &code).await;
    world.gateway.revoke(&login, &consent.id.to_text()).await.unwrap();
    expected.extend(["consent", "ask", "make-code", "ask", "revoke"]);
    let identity = Identity::parse(IdType::ResidentId, &number(1), "2026-11-25".parse().unwrap()).unwrap();
    let request = CaseRequest { reason: "a complaint".into(), person: identity };
    let case = world.gateway.open_case(&officer(1), &request).await.unwrap();
    world.gateway.confirm_case(&officer(2), &case).await.unwrap();
    expected.extend(["open-case", "confirm-case"]);
    // Readings leave none.
    world.gateway.score(&login).await.unwrap();
    world.gateway.look(&login, BIKE).await.unwrap();
    world.gateway.consents(&login).await.unwrap();
    world.gateway.accesses(&login, None, 10).await.unwrap();
    assert_eq!(world.actions_since(0).await, expected);
}

#[tokio::test]
async fn what_is_refused_after_the_caller_is_known_leaves_an_entry() {
    let world = World::new().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    let size = world.log_size();
    let nonce = world.fresh("nonce");
    refusal(world.ask_as(&caller("yx-bike"), "no-such", &consent.token, &nonce).await);
    refusal(world.ask_as(&caller("yx-bike"), BIKE, "forged", &nonce).await);
    refusal(world.ask_as(&caller("yx-bike"), BIKE, &consent.token, "short").await);
    refusal(world.gateway.report(&caller("yx-bike"), b"{}").await);
    refusal(world.gateway.enrol(&caller("yx-health"), b"{}").await);
    assert_eq!(world.actions_since(size).await, ["refuse"; 5]);
    // A prohibited item is refused line by line; the upload's entry is its trace.
    let size = world.log_size();
    let mut record = record_line("yx-health", "blood-donation", "r-1", 1, Some(1));
    record["blood_type"] = "A".into();
    let taken = world.report("yx-health", &[record]).await;
    assert_eq!(taken.rejected[0].error.code.as_str(), "prohibited-item");
    assert_eq!(world.actions_since(size).await, ["report"]);
}

#[tokio::test]
async fn a_signature_is_taken_once_whatever_became_of_the_call() {
    let world = World::new().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    // An answer, a refusal, a report and a register each spend it.
    let signed = world.signed("yx-bike", "signature-nonce-1");
    assert!(world.ask_as(&signed, BIKE, &consent.token, &world.fresh("nonce")).await.unwrap().met);
    let size = world.log_size();
    for shown in [consent.token.as_str(), "forged"] {
        let again = world.ask_as(&signed, BIKE, shown, &world.fresh("nonce")).await;
        assert_eq!(refusal(again), Refusal::ReplayedSignature);
    }
    let refused = world.signed("yx-bike", "signature-nonce-2");
    let forged = world.ask_as(&refused, BIKE, "forged", &world.fresh("nonce")).await;
    assert_eq!(refusal(forged), Refusal::ConsentNotRecognised);
    let again = world.ask_as(&refused, BIKE, &consent.token, &world.fresh("nonce")).await;
    assert_eq!(refusal(again), Refusal::ReplayedSignature);
    assert_eq!(world.actions_since(size).await, ["refuse"]);
    assert_eq!(world.uses_left(&login).await, 4);

    let body = lines(&[record_line("yx-health", "blood-donation", "r-1", 1, Some(1))]);
    let health = world.signed("yx-health", "signature-nonce-1");
    assert_eq!(world.gateway.report(&health, &body).await.unwrap().accepted, 1, "another key's nonce is another");
    assert_eq!(refusal(world.gateway.report(&health, &body).await), Refusal::ReplayedSignature);
    assert_eq!(refusal(world.gateway.report(&health, b"").await), Refusal::ReplayedSignature);
}

/// The nonce alone decides: a caller that signs it anew with another time has still used it before.
#[tokio::test]
async fn a_nonce_seen_before_is_refused_under_another_time_too() {
    let world = World::new().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    let first = world.signed("yx-bike", "signature-nonce-1");
    assert!(world.ask_as(&first, BIKE, &consent.token, &world.fresh("nonce")).await.unwrap().met);
    world.advance(61);
    let later = world.signed("yx-bike", "signature-nonce-1");
    let again = world.ask_as(&later, BIKE, &consent.token, &world.fresh("nonce")).await;
    assert_eq!(refusal(again), Refusal::ReplayedSignature);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_one_signature_sent_many_times_at_once_one_is_answered() {
    let world = std::sync::Arc::new(World::new().await);
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 100).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (world, token) = (world.clone(), consent.token.clone());
        calls.spawn(async move {
            let signed = world.signed("yx-bike", "signature-nonce-1");
            world.ask_as(&signed, BIKE, &token, "the-same-body-nonce").await
        });
    }
    let mut answered = 0;
    for said in calls.join_all().await {
        match said {
            Ok(said) => answered += u32::from(said.met),
            refused => assert_eq!(refusal(refused), Refusal::ReplayedSignature),
        }
    }
    assert_eq!((answered, world.uses_left(&login).await), (1, 99));
}

#[tokio::test]
async fn the_nonce_is_in_the_batch_of_its_answer() {
    let world = World::new().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    let signed = world.signed("yx-bike", "signature-nonce-1");
    world.store.start_record();
    world.ask_as(&signed, BIKE, &consent.token, &world.fresh("nonce")).await.unwrap();
    let record = world.store.take_record();
    let deeds: Vec<Deed> = record.iter().filter(|t| t.table == tables::NONCE).map(|t| t.deed).collect();
    assert_eq!(deeds, [Deed::CheckAbsent, Deed::Put]);
}

#[tokio::test]
async fn a_restart_goes_on_where_the_log_was() {
    let mut world = World::new().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    let said = world.ask("yx-bike", BIKE, &consent.token).await;
    let (size, note) = (world.log_size(), world.gateway.log().checkpoint());
    world.reopen().await.unwrap();
    assert_eq!(world.log_size(), size + 1, "the policy set is loaded again");
    assert_eq!(world.actions_since(size).await, ["policy"]);
    let place = jadegate::ledger::LeafPlace { log: 1, index: 0, size };
    assert_eq!(world.gateway.log().proof(place).await.unwrap().checkpoint, *note, "the same checkpoint as before");
    let login = world.login(1).await;
    assert_eq!(world.uses_left(&login).await, 4);
    assert!(said.met && world.asked("yx-bike", BIKE, &consent.token).await);
}

/// Crashed between the commit and its outside copy: the copy is behind, which is clean.
#[tokio::test]
async fn a_copy_that_is_behind_is_no_reason_to_stop() {
    let mut world = World::new().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    world.outside.failing.store(true, std::sync::atomic::Ordering::SeqCst);
    let nonce = world.fresh("nonce");
    assert!(world.ask_as(&caller("yx-bike"), BIKE, &consent.token, &nonce).await.is_err());
    world.outside.failing.store(false, std::sync::atomic::Ordering::SeqCst);
    world.reopen().await.unwrap();
    assert!(world.ask_as(&caller("yx-bike"), BIKE, &consent.token, &nonce).await.unwrap().met);
}

fn log_error(opened: Result<(), StartError>) -> OpenError {
    match opened {
        Err(StartError::Log(error)) => error,
        other => panic!("{other:?}"),
    }
}

// INVARIANT (the store is distrusted)
#[tokio::test]
async fn a_store_rolled_back_whole_shows_at_the_start() {
    let mut world = World::new().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    let older = world.copy().await;
    let size = world.log_size();
    world.gateway.revoke(&login, &consent.id.to_text()).await.unwrap();
    world.put_store(older);
    let error = log_error(world.reopen().await);
    assert!(matches!(error, OpenError::RolledBack { store, outside, .. } if (store, outside) == (size, size + 1)));
    world.put_store(std::sync::Arc::new(jadegate::store::memory::MemoryStore::new()));
    assert!(matches!(log_error(world.reopen().await), OpenError::RolledBack { store: 0, .. }), "emptied");
}

#[tokio::test]
async fn another_history_shows_at_the_start() {
    let mut world = World::new().await;
    world.register(1..2).await;
    let (copy, kept) = (world.copy().await, world.outside.kept().unwrap());
    world.register(2..3).await;
    // The copy goes another way, with an outside copy of its own, and gets ahead.
    let mut other = World::new().await;
    other.put_store(copy);
    other.outside = crate::support::world::Kept::default();
    kept.iter().for_each(|note| other.outside.keep(note).unwrap());
    other.reopen().await.unwrap();
    other.register(3..5).await;
    assert!(other.log_size() >= world.log_size());
    world.put_store(other.store.inner().clone());
    assert!(matches!(log_error(world.reopen().await), OpenError::Forked(..)));
}

#[tokio::test]
async fn other_keys_a_clock_behind_and_a_missing_copy_are_named() {
    let mut world = World::new().await;
    world.register(1..2).await;
    let new = fresh_keys();
    let other = Keyring::open(&new.keyring, &RootKey::parse(&new.root, true).unwrap()).unwrap();
    let opened = world.reopen_with(PolicySet::parse(shipped()).unwrap(), other).await;
    assert!(matches!(log_error(opened), OpenError::Keys(_)));
    let now = world.clock.now();
    world.clock.step_to(now.checked_sub(jiff::SignedDuration::from_secs(61)).unwrap());
    assert!(matches!(log_error(world.reopen().await), OpenError::ClockBehind { .. }));
    world.clock.step_to(now.checked_sub(jiff::SignedDuration::from_secs(59)).unwrap());
    world.reopen().await.unwrap();
    world.outside = crate::support::world::Kept::default();
    assert!(matches!(log_error(world.reopen().await), OpenError::OutsideMissing(..)));
}

/// No checkpoint is signed over entries that do not make its tree.
#[tokio::test]
async fn a_changed_or_missing_leaf_of_the_last_tile_shows_at_the_start() {
    let mut world = World::new().await;
    world.register(1..2).await;
    let leaves = world.cells(tables::LEAF).await;
    let commits = world.store.commits();
    for (place, cell) in &leaves {
        let mut bent = cell.clone();
        bent.value[100] ^= 1;
        world.put(place, bent).await;
        assert!(matches!(log_error(world.reopen().await), OpenError::Damaged(_)));
        let mut short = cell.clone();
        short.value.truncate(100);
        world.put(place, short).await;
        assert!(matches!(log_error(world.reopen().await), OpenError::Damaged(_)));
        world.put(place, cell.clone()).await;
    }
    assert_eq!(world.store.commits(), commits, "nothing was written");
    world.reopen().await.unwrap();
}

#[tokio::test]
async fn a_clock_that_stepped_stops_answers_before_anything_is_logged() {
    let world = World::new().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    let (size, now) = (world.log_size(), world.clock.now());
    world.clock.step_to(now.checked_add(jiff::SignedDuration::from_secs(3600)).unwrap());
    let refused = world.ask_as(&caller("yx-bike"), BIKE, &consent.token, &world.fresh("nonce")).await;
    assert!(matches!(refusal(refused), Refusal::ClockStepped(_)));
    assert_eq!(world.log_size(), size);
    world.clock.step_to(now);
    assert!(world.asked("yx-bike", BIKE, &consent.token).await);
}

/// The MAC is compared whole: of a real token no bit may be another, by the keys that a gateway has.
#[tokio::test]
async fn no_bit_of_a_real_token_may_be_another() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    let world = World::new().await;
    let login = world.good(1).await;
    let token = world.consent(&login, "yx-bike", BIKE, 5).await.token;
    let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
    assert_eq!(bytes.len(), 51, "form, key version, id and 32 bytes of MAC");
    for bit in 0..bytes.len() * 8 {
        let mut bent = bytes.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        let said = world.ask_as(&caller("yx-bike"), BIKE, &URL_SAFE_NO_PAD.encode(bent), &world.fresh("nonce")).await;
        assert_eq!(refusal(said), Refusal::ConsentNotRecognised, "bit {bit}");
    }
    assert_eq!(world.uses_left(&login).await, 5);
    assert!(world.asked("yx-bike", BIKE, &token).await);
}
