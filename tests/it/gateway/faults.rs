//! INVARIANT (no receipt, no answer): whatever fails, an answer is out only when its entry is durable, and the same call
//! later gives one consistent result.

use std::sync::atomic::Ordering;

use jadegate::access_log::proof::Proof;
use jadegate::authority::Login;
use jadegate::gateway::NewConsent;
use jadegate::store::faulty::Fault;

use crate::support::world::{Said, World, caller, is_fault};

const BIKE: &str = "bike-deposit";

async fn setting() -> (World, Login, NewConsent, [String; 2]) {
    let world = World::new().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    let code = world.code(&login, &consent).await;
    let shown = [consent.token.clone(), code];
    (world, login, consent, shown)
}

fn is_logged(world: &World, said: &Said) -> bool {
    let proof = Proof::parse(said.proof.as_ref().unwrap()).unwrap();
    let checkpoint = proof.verify(world.gateway.log().verifier()).unwrap();
    checkpoint.size <= world.log_size()
}

#[tokio::test]
async fn an_ask_makes_one_commit() {
    let (world, _, _, shown) = setting().await;
    for shown in shown {
        let before = world.store.commits();
        assert!(world.asked("yx-bike", BIKE, &shown).await);
        assert_eq!(world.store.commits(), before + 1);
    }
}

#[tokio::test]
async fn a_commit_that_failed_leaves_nothing_and_can_be_tried_again() {
    for fault in [Fault::Failed, Fault::Lost] {
        let (world, login, _, shown) = setting().await;
        for (done, shown) in (0..).zip(shown) {
            let nonce = world.fresh("nonce");
            let size = world.log_size();
            world.store.fail_commit(1, fault);
            assert!(is_fault(&world.ask_as(&caller("yx-bike"), BIKE, &shown, &nonce).await), "{fault:?}");
            assert_eq!((world.log_size(), world.uses_left(&login).await), (size, 5 - done));
            let said = world.ask_as(&caller("yx-bike"), BIKE, &shown, &nonce).await.unwrap();
            assert!(said.met && is_logged(&world, &said));
            assert_eq!((world.log_size(), world.uses_left(&login).await), (size + 1, 4 - done));
        }
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_looked_up_in_the_checkpoint() {
    let (world, login, _, shown) = setting().await;
    for (done, shown) in (0..).zip(shown) {
        let nonce = world.fresh("nonce");
        let size = world.log_size();
        world.store.fail_commit(1, Fault::Persisted);
        let said = world.ask_as(&caller("yx-bike"), BIKE, &shown, &nonce).await.unwrap();
        assert!(said.met && is_logged(&world, &said));
        assert_eq!((world.log_size(), world.uses_left(&login).await), (size + 1, 4 - done));
        assert_eq!(world.ask_as(&caller("yx-bike"), BIKE, &shown, &nonce).await.unwrap(), said);
        assert_eq!(world.uses_left(&login).await, 4 - done);
    }
}

/// The commit's outcome is unknown, and so is the checkpoint: the ledger stops rather than guess.
#[tokio::test]
async fn an_outcome_that_cannot_be_looked_up_stops_the_ledger() {
    for (fault, left) in [(Fault::Lost, 5), (Fault::Persisted, 4)] {
        let (mut world, _, _, [token, _]) = setting().await;
        let nonce = world.fresh("nonce");
        let reads = world.store.reads();
        assert!(world.asked("yx-bike", BIKE, &token).await);
        let reads = world.store.reads() - reads;
        world.store.fail_commit(1, fault);
        world.store.fail_read(reads + 1);
        assert!(is_fault(&world.ask_as(&caller("yx-bike"), BIKE, &token, &nonce).await));
        assert!(world.gateway.stopped().await.contains("cannot be read"));
        assert!(is_fault(&world.ask_as(&caller("yx-bike"), BIKE, &token, &nonce).await));
        world.reopen().await.unwrap();
        let login = world.login(1).await;
        assert_eq!(world.uses_left(&login).await, left - 1);
        let said = world.ask_as(&caller("yx-bike"), BIKE, &token, &nonce).await.unwrap();
        assert!(said.met && is_logged(&world, &said));
        assert_eq!(world.uses_left(&login).await, 3, "{fault:?}: spent once, whatever happened");
    }
}

#[tokio::test]
async fn a_failed_sync_ends_the_ledger_and_a_restart_goes_on() {
    for (fault, persisted) in [(Fault::SyncFailed, false), (Fault::SyncFailedPersisted, true)] {
        let (mut world, login, _, shown) = setting().await;
        let size = world.log_size();
        let nonce = world.fresh("nonce");
        world.store.fail_commit(1, fault);
        assert!(is_fault(&world.ask_as(&caller("yx-bike"), BIKE, &shown[1], &nonce).await));
        assert!(!world.gateway.stopped().await.is_empty());
        for _ in 0..2 {
            assert!(is_fault(&world.ask_as(&caller("yx-bike"), BIKE, &shown[1], &nonce).await));
        }
        assert!(is_fault(&world.gateway.revoke(&login, &"A".repeat(22)).await) || world.log_size() == size);
        let inner = world.store.inner().clone();
        world.put_store(inner);
        world.reopen().await.unwrap();
        assert_eq!(world.log_size(), size + u64::from(persisted) + 1, "and the entry of the policy set");
        let login = world.login(1).await;
        assert_eq!(world.uses_left(&login).await, 5 - u32::from(persisted));
        let said = world.ask_as(&caller("yx-bike"), BIKE, &shown[1], &nonce).await.unwrap();
        assert!(said.met && is_logged(&world, &said), "{fault:?}");
        assert_eq!(world.uses_left(&login).await, 4);
    }
}

#[tokio::test]
async fn a_read_that_fails_gives_no_answer_and_changes_nothing() {
    let (world, login, _, [token, code]) = setting().await;
    for shown in [token, code] {
        let left = world.uses_left(&login).await;
        let size = world.log_size();
        let before = world.store.reads();
        let mut failed = 0;
        let said = loop {
            let nonce = world.fresh("nonce");
            world.store.fail_read(failed + 1);
            match world.ask_as(&caller("yx-bike"), BIKE, &shown, &nonce).await {
                Ok(said) => break said,
                error => assert!(is_fault(&error)),
            }
            assert_eq!(world.log_size(), size);
            failed += 1;
            assert!(failed < 50);
        };
        assert!(said.met && failed >= 6 && before < world.store.reads());
        // The fault that was ordered beyond the last read.
        assert!(world.gateway.consents(&login).await.is_err());
        assert_eq!(world.uses_left(&login).await, left - 1);
    }
}

/// The store has the entry, its outside copy does not: nothing is released, and a repeat finds the one answer.
#[tokio::test]
async fn without_the_outside_copy_nothing_is_released() {
    let (world, login, _, [token, _]) = setting().await;
    let nonce = world.fresh("nonce");
    let size = world.log_size();
    world.outside.failing.store(true, Ordering::SeqCst);
    assert!(is_fault(&world.ask_as(&caller("yx-bike"), BIKE, &token, &nonce).await));
    assert!(is_fault(&world.ask_as(&caller("yx-bike"), BIKE, &token, &nonce).await));
    assert_eq!(world.log_size(), size, "readers do not see what was not released");
    world.outside.failing.store(false, Ordering::SeqCst);
    let said = world.ask_as(&caller("yx-bike"), BIKE, &token, &nonce).await.unwrap();
    assert!(said.met && is_logged(&world, &said));
    assert_eq!((world.log_size(), world.uses_left(&login).await), (size + 3, 4));
}

/// Every other call that changes something, with every fault: done once or not at all.
#[tokio::test]
async fn other_changes_are_made_once_or_not_at_all() {
    for fault in [Fault::Failed, Fault::Lost, Fault::Persisted] {
        let (world, login, consent, _) = setting().await;
        let done = fault == Fault::Persisted;
        let id = consent.id.to_text();

        world.store.fail_commit(1, fault);
        let record = crate::support::world::record_line("yx-health", "blood-donation", "b-1", 1, Some(1));
        let body = crate::support::world::lines(&[record]);
        let reported = world.gateway.report(&caller("yx-health"), &body).await;
        assert_eq!(reported.is_ok(), done);
        assert_eq!(world.score(&login).await, Some(if done { 665 } else { 650 }));
        let again = world.gateway.report(&caller("yx-health"), &body).await.unwrap();
        assert_eq!((again.accepted, again.unchanged), if done { (0, 1) } else { (1, 0) });

        world.store.fail_commit(1, fault);
        let given = world
            .gateway
            .give_consent(
                &login,
                &jadegate::gateway::ConsentRequest {
                    scenario: BIKE.into(),
                    party: Some("yx-bike".into()),
                    ..Default::default()
                },
            )
            .await;
        assert_eq!(given.is_ok(), done);
        assert_eq!(world.gateway.consents(&login).await.unwrap().len(), 1 + usize::from(done));

        world.store.fail_commit(1, fault);
        assert_eq!(world.gateway.revoke(&login, &id).await.is_ok(), done);
        let listed = world.gateway.consents(&login).await.unwrap();
        assert_eq!(listed.last().unwrap().consent.revoked.is_some(), done);
    }
}
