//! One-time codes for a counter, and consents shown by many callers at once.

use std::sync::Arc;

use jadegate::gateway::Refusal;
use tokio::task::JoinSet;

use crate::support::world::{World, caller, refusal};

const BIKE: &str = "bike-deposit";

/// `times` calls at once, each with its own nonce; how many were met.
async fn met_of_concurrent(world: &Arc<World>, shown: &str, times: usize) -> usize {
    let mut calls = JoinSet::new();
    for _ in 0..times {
        let (world, shown) = (world.clone(), shown.to_owned());
        calls.spawn(async move { world.asked("yx-bike", BIKE, &shown).await });
    }
    calls.join_all().await.into_iter().filter(|met| *met).count()
}

/// One code, fifty calls at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_calls_with_one_code_exactly_one_is_met() {
    let world = Arc::new(World::new().await);
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    let code = world.code(&login, &consent).await;
    assert_eq!(met_of_concurrent(&world, &code, 50).await, 1);
    assert_eq!(world.uses_left(&login).await, 4, "dead codes spend nothing");
    assert_eq!(world.gateway.accesses(&login, None, 1000).await.unwrap().len(), 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consent_of_one_use_asked_eight_times_at_once_is_met_once() {
    let world = Arc::new(World::new().await);
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 1).await;
    assert_eq!(met_of_concurrent(&world, &consent.token, 8).await, 1);
    assert_eq!(world.uses_left(&login).await, 0);
}

/// A consent of many uses may be shown by many at once: nobody is turned away for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_calls_at_once_with_one_consent_are_all_answered() {
    let world = Arc::new(World::new().await);
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 300).await;
    assert_eq!(met_of_concurrent(&world, &consent.token, 200).await, 200);
    assert_eq!(world.uses_left(&login).await, 100);
    assert_eq!(world.gateway.accesses(&login, None, 1000).await.unwrap().len(), 200, "over several access pages");
}

#[tokio::test]
async fn a_code_lives_for_a_minute_is_used_once_and_ends_the_one_before() {
    let world = World::new().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    let first = world.code(&login, &consent).await;
    let second = world.code(&login, &consent).await;
    assert!(!world.asked("yx-bike", BIKE, &first).await, "replaced");
    assert!(world.asked("yx-bike", BIKE, &second).await);
    assert!(!world.asked("yx-bike", BIKE, &second).await, "used");
    let third = world.code(&login, &consent).await;
    world.advance(59);
    assert!(world.asked("yx-bike", BIKE, &third).await, "in its last second");
    let fourth = world.code(&login, &consent).await;
    world.advance(60);
    assert!(!world.asked("yx-bike", BIKE, &fourth).await, "over");
    assert_eq!(world.uses_left(&login).await, 3, "a dead code spends nothing");
    assert!(world.asked("yx-bike", BIKE, &consent.token).await, "the token goes on");
    world.advance(86_400 + 61);
    let nonce = world.fresh("nonce");
    let forgotten = world.ask_as(&caller("yx-bike"), BIKE, &fourth, &nonce).await;
    assert_eq!(refusal(forgotten), Refusal::ConsentNotRecognised);
}

#[tokio::test]
async fn a_code_is_read_however_it_is_typed() {
    let world = World::new().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    for spell in [
        |code: &str| code.to_lowercase(),
        |code: &str| code.replace('-', ""),
        |code: &str| code.replace('-', " "),
        |code: &str| code.replace('0', "o").replace('1', "l"),
        |code: &str| code.replace('0', "O").replace('1', "I"),
    ] {
        let code = world.code(&login, &consent).await;
        assert_eq!(code.len(), 14);
        assert!(world.asked("yx-bike", BIKE, &spell(&code)).await, "{code}");
    }
}

#[tokio::test]
async fn a_code_is_refused_for_a_consent_that_is_over() {
    let world = World::new().await;
    let login = world.good(1).await;
    let revoked = world.consent(&login, "yx-bike", BIKE, 5).await;
    world.gateway.revoke(&login, &revoked.id.to_text()).await.unwrap();
    let used_up = world.consent(&login, "yx-bike", BIKE, 1).await;
    assert!(world.asked("yx-bike", BIKE, &used_up.token).await);
    let ended = world.consent(&login, "yx-bike", BIKE, 5).await;
    for (consent, days) in [(revoked, 0), (used_up, 0), (ended, 30)] {
        world.advance(days * 86_400);
        let made = world.gateway.make_code(&login, &consent.id.to_text()).await;
        assert_eq!(refusal(made), Refusal::ConsentOver);
    }
}
