//! What a person sees: the score, the answers before choosing, who asked, and everything that is held.

use jadegate::access_log::proof::Proof;
use jadegate::gateway::{CaseRequest, EntryId, LogFilter, Refusal};
use jadegate::intake;
use jadegate::person::{IdType, Identity};

use crate::support::world::{World, caller, number, officer, party, record_line, refusal};

const BIKE: &str = "bike-deposit";

#[tokio::test]
async fn who_asked_is_listed_newest_first_with_proofs_that_verify() {
    let world = World::new().await;
    let login = world.good(1).await;
    let bike = world.consent(&login, "yx-bike", BIKE, 5).await;
    let library = world.consent(&login, "yx-library", "library-deposit", 5).await;
    let decline = world.decline(&login, "yx-ebike", BIKE).await;
    let nonce = world.fresh("nonce");
    let mut expected = Vec::new();
    for (who, scenario, consent) in [
        ("yx-bike", BIKE, &bike),
        ("yx-library", "library-deposit", &library),
        ("yx-bike", BIKE, &bike),
        ("yx-ebike", BIKE, &decline),
    ] {
        expected.push((world.log_size(), who, scenario, consent.id));
        world.ask_as(&caller(who), scenario, &consent.token, &nonce).await.unwrap();
    }
    expected.reverse();
    let seen = world.gateway.accesses(&login, None, 100).await.unwrap();
    assert_eq!(seen.len(), 4, "a repeat and a withheld answer too");
    let key = world.gateway.log().verifier().clone();
    for (view, (index, who, scenario, consent)) in seen.iter().zip(&expected) {
        assert_eq!((view.index, view.action), (*index, "ask"));
        assert_eq!((view.party.as_ref().unwrap().as_str(), view.consent), (*who, Some(*consent)));
        assert_eq!(view.scenario.as_ref().unwrap().as_str(), *scenario);
        assert_eq!(view.proof.verify(&key).unwrap().size, world.log_size());
        assert_eq!(view.proof.index, view.index);
        assert_eq!(Proof::parse(&view.proof.to_text()).unwrap(), view.proof);
    }
    let page = |before: Option<u64>, limit| {
        world.gateway.accesses(&login, before.map(|index| EntryId { log: 1, index }), limit)
    };
    let two: Vec<u64> = page(None, 2).await.unwrap().iter().map(|view| view.index).collect();
    assert_eq!(two, [expected[0].0, expected[1].0]);
    let rest: Vec<u64> = page(Some(two[1]), 10).await.unwrap().iter().map(|view| view.index).collect();
    assert_eq!(rest, [expected[2].0, expected[3].0]);
    assert!(page(Some(rest[1]), 10).await.unwrap().is_empty());
    for foreign in [0, 1_000_000, u64::MAX] {
        assert!(matches!(refusal(page(Some(foreign), 10).await), Refusal::BadPage(_)));
    }
}

#[tokio::test]
async fn an_officers_look_up_is_shown_to_that_person_alone() {
    let world = World::new().await;
    let (anna, bert) = (world.good(1).await, world.good(2).await);
    let consent = world.consent(&anna, "yx-bike", BIKE, 5).await;
    world.asked("yx-bike", BIKE, &consent.token).await;
    let person = Identity::parse(IdType::ResidentId, &number(1), "2026-11-25".parse().unwrap()).unwrap();
    let request = CaseRequest { reason: "a complaint".into(), person };
    let case = world.gateway.open_case(&officer(1), &request).await.unwrap();
    assert_eq!(world.gateway.accesses(&anna, None, 10).await.unwrap().len(), 1, "an opened case is no look yet");
    world.gateway.confirm_case(&officer(2), &case).await.unwrap();
    let filter = LogFilter { case: Some(case), limit: 10, ..LogFilter::default() };
    world.gateway.access_log(&officer(2), &filter).await.unwrap();
    let seen = world.gateway.accesses(&anna, None, 10).await.unwrap();
    let actions: Vec<&str> = seen.iter().map(|view| view.action).collect();
    assert_eq!(actions, ["look-up", "ask"]);
    assert_eq!((&seen[0].party, &seen[0].scenario, seen[0].consent), (&None, &None, None));
    seen[0].proof.verify(world.gateway.log().verifier()).unwrap();
    assert!(world.gateway.accesses(&bert, None, 10).await.unwrap().is_empty());
    // Beyond one page of look-ups.
    for _ in 0..70 {
        world.gateway.access_log(&officer(1), &filter).await.unwrap();
    }
    let seen = world.gateway.accesses(&anna, None, 1000).await.unwrap();
    assert_eq!(seen.len(), 72);
    assert!(seen.windows(2).all(|two| two[0].index > two[1].index));
}

#[tokio::test]
async fn a_look_says_what_would_be_answered() {
    let world = World::new().await;
    let login = world.good(1).await;
    for (scenario, met) in [(BIKE, true), ("scenic-ticket", true), ("bus-fare", false), ("park-year-pass", false)] {
        assert_eq!(world.gateway.look(&login, scenario).await.unwrap().decision.met, met, "{scenario}");
    }
    assert_eq!(refusal(world.gateway.look(&login, "no-such").await), Refusal::UnknownScenario);
}

/// What is exported reads back, and gives the same score.
#[tokio::test]
async fn an_export_recomputes_to_the_same_score() {
    let world = World::new().await;
    let login = world.good(1).await;
    world.make_excellent(1).await;
    let mut market = record_line("yx-telecom", "telecom-arrears", "t-1", 1, None);
    market["consent_ref"] = "paper:c-1".into();
    market["detail"] = "某 \"detail\"".into();
    assert_eq!(world.report("yx-telecom", &[market]).await.accepted, 1);
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    let export = world.gateway.export(&login).await.unwrap();
    assert_eq!((export.records.len(), export.consents.len()), (4, 1));
    assert_eq!((export.consents[0].id, export.consents[0].consent.party.clone()), (consent.id, party("yx-bike")));
    let person = intake::stored_person(export.person.to_json().to_string().as_bytes()).unwrap();
    assert_eq!(person, export.person);
    let mut records = Vec::new();
    for held in &export.records {
        records.push(intake::stored_record(held.to_json().to_string().as_bytes()).unwrap());
    }
    assert_eq!(records, export.records);
    let set = &export.policies;
    let outcome =
        jadegate::score::evaluate(&person, &records, &set.catalogue, set.model(), "2026-11-25".parse().unwrap());
    assert_eq!(outcome.score, world.score(&login).await);
    assert!(outcome.score > Some(800));
}
