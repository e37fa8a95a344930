//! What a person may allow, and that it is theirs alone to take back.

use std::sync::Arc;

use jadegate::gateway::{ConsentRequest, Refusal};
use tokio::task::JoinSet;

use crate::support::world::{World, party, refusal};

const BIKE: &str = "bike-deposit";

fn request(scenario: &str) -> ConsentRequest {
    ConsentRequest { scenario: scenario.into(), ..ConsentRequest::default() }
}

#[tokio::test]
async fn uses_and_days_are_the_scenarios_own_unless_said() {
    let world = World::new().await;
    let login = world.good(1).await;
    let made = world.gateway.give_consent(&login, &request("power-bank-deposit")).await.unwrap().consent;
    assert_eq!((made.uses, made.uses_left, made.party), (1, 1, party("yx-power-bank")));
    assert_eq!(made.ends.duration_since(made.made).as_hours(), 7 * 24);
    let said = ConsentRequest { uses: Some(100), days: Some(180), ..request("power-bank-deposit") };
    let made = world.gateway.give_consent(&login, &said).await.unwrap().consent;
    assert_eq!((made.uses, made.ends.duration_since(made.made).as_hours()), (100, 180 * 24));
}

#[tokio::test]
async fn what_the_scenario_does_not_allow_is_refused_and_changes_nothing() {
    let world = World::new().await;
    let login = world.good(1).await;
    let size = world.log_size();
    let ask = async |request: ConsentRequest| refusal(world.gateway.give_consent(&login, &request).await);
    let power = || request("power-bank-deposit");
    for (field, request) in [
        ("uses", ConsentRequest { uses: Some(0), ..power() }),
        ("uses", ConsentRequest { uses: Some(101), ..power() }),
        ("days", ConsentRequest { days: Some(0), ..power() }),
        ("days", ConsentRequest { days: Some(181), ..power() }),
        ("days", ConsentRequest { days: Some(u32::MAX), ..power() }),
    ] {
        assert!(matches!(ask(request).await, Refusal::BeyondLimits { field: f, .. } if f == field));
    }
    assert!(matches!(ask(request(BIKE)).await, Refusal::PartyRequired(parties) if parties.len() == 2));
    let foreign = ConsentRequest { party: Some("yx-library".into()), ..request(BIKE) };
    assert!(matches!(ask(foreign).await, Refusal::UnknownParty(_)));
    assert_eq!(ask(request("no-such")).await, Refusal::UnknownScenario);
    assert_eq!(ask(request("")).await, Refusal::UnknownScenario);
    assert_eq!(world.log_size(), size);
    assert!(world.gateway.consents(&login).await.unwrap().is_empty());
}

#[tokio::test]
async fn uses_are_spent_one_an_answer_and_end_with_the_days() {
    let world = World::new().await;
    let login = world.good(1).await;
    let two = world.consent(&login, "yx-bike", BIKE, 2).await;
    let answers = [
        world.asked("yx-bike", BIKE, &two.token).await,
        world.asked("yx-bike", BIKE, &two.token).await,
        world.asked("yx-bike", BIKE, &two.token).await,
    ];
    assert_eq!(answers, [true, true, false]);
    let day = ConsentRequest { days: Some(1), party: Some("yx-bike".into()), ..request(BIKE) };
    let day = world.gateway.give_consent(&login, &day).await.unwrap();
    world.advance(24 * 3600 - 1);
    assert!(world.asked("yx-bike", BIKE, &day.token).await);
    world.advance(1);
    assert!(!world.asked("yx-bike", BIKE, &day.token).await);
    assert_eq!(world.uses_left(&login).await, 3, "a withheld answer spends a use too");
}

#[tokio::test]
async fn revocation_holds_at_once_even_for_a_repeat() {
    let world = World::new().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    let (bike, nonce) = (crate::support::world::caller("yx-bike"), world.fresh("nonce"));
    assert!(world.ask_as(&bike, BIKE, &consent.token, &nonce).await.unwrap().met);
    let size = world.log_size();
    world.gateway.revoke(&login, &consent.id.to_text()).await.unwrap();
    world.gateway.revoke(&login, &consent.id.to_text()).await.unwrap();
    assert_eq!(world.actions_since(size).await, ["revoke"], "twice is as once");
    assert!(!world.ask_as(&bike, BIKE, &consent.token, &nonce).await.unwrap().met);
    assert!(!world.asked("yx-bike", BIKE, &consent.token).await);
}

#[tokio::test]
async fn a_decline_looks_like_any_consent_and_is_always_withheld() {
    let world = World::new().await;
    let login = world.good(1).await;
    let decline = world.decline(&login, "yx-bike", BIKE).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    assert_eq!(decline.token.len(), consent.token.len());
    assert_eq!(decline.token[..4], consent.token[..4], "form and key version");
    assert!(!world.asked("yx-bike", BIKE, &decline.token).await);
    let code = world.code(&login, &decline).await;
    assert!(!world.asked("yx-bike", BIKE, &code).await);
    assert!(world.asked("yx-bike", BIKE, &consent.token).await);
}

// INVARIANT (no grant, no plaintext)
#[tokio::test]
async fn somebody_elses_consent_is_as_one_that_never_was() {
    let world = World::new().await;
    let (anna, bert) = (world.good(1).await, world.good(2).await);
    let consent = world.consent(&bert, "yx-bike", BIKE, 5).await;
    let size = world.log_size();
    for id in [consent.id.to_text().as_str(), "AAAAAAAAAAAAAAAAAAAAAA", "", "no id", &"A".repeat(500)] {
        assert_eq!(refusal(world.gateway.revoke(&anna, id).await), Refusal::NotFound);
        assert_eq!(refusal(world.gateway.make_code(&anna, id).await), Refusal::NotFound);
    }
    assert!(world.gateway.consents(&anna).await.unwrap().is_empty());
    assert!(world.gateway.accesses(&anna, None, 100).await.unwrap().is_empty());
    assert_eq!(world.log_size(), size);
    assert!(world.asked("yx-bike", BIKE, &consent.token).await);
    assert!(world.gateway.accesses(&anna, None, 100).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_consents_of_one_person_at_once_are_all_kept() {
    let world = Arc::new(World::new().await);
    let login = world.good(1).await;
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        let (world, login) = (world.clone(), login.clone());
        calls.spawn(async move { world.consent(&login, "yx-bike", BIKE, 1).await });
    }
    let made = calls.join_all().await;
    let listed = world.gateway.consents(&login).await.unwrap();
    assert_eq!(listed.len(), 10);
    for consent in made {
        assert!(listed.iter().any(|view| view.id == consent.id));
        assert!(world.asked("yx-bike", BIKE, &consent.token).await);
    }
}

#[tokio::test]
async fn consents_are_listed_newest_first_beyond_one_chunk() {
    let world = World::new().await;
    let login = world.good(1).await;
    let mut made = Vec::new();
    for _ in 0..203 {
        made.push(world.consent(&login, "yx-bike", BIKE, 1).await.id);
    }
    made.reverse();
    let listed: Vec<_> = world.gateway.consents(&login).await.unwrap().into_iter().map(|view| view.id).collect();
    assert!(listed == made);
}

#[tokio::test]
async fn whoever_has_no_score_may_consent_and_gets_the_same_answer() {
    let world = World::new().await;
    let mut line = crate::support::world::register_line(1);
    line["resident"] = false.into();
    let body = crate::support::world::lines(&[line]);
    world.gateway.enrol(&crate::support::world::caller("yx-public-security"), &body).await.unwrap();
    let login = world.login(1).await;
    assert_eq!(world.score(&login).await, None);
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    assert!(!world.asked("yx-bike", BIKE, &consent.token).await);
}
