//! Article 8: a market record rests on the person's consent, and leaves the score with it.

use std::sync::Arc;

use jadegate::authority::Login;
use jadegate::clock::{Clock, day_of, start_of};
use jadegate::disclosure::Cause;
use jadegate::entropy::SystemEntropy;
use jadegate::gateway::{MarketRequest, MarketView, Refusal, try_on_store};
use jadegate::intake;
use jadegate::market::CONSENTS_MAX;
use jadegate::policies::{PolicySet, shipped};
use jadegate::score::evaluate;
use jadegate::store::faulty::Deed;
use jadegate::tables;
use serde_json::Value;

use super::models::{operator, stricter};
use crate::support::world::{Kept, World, caller, keyring_for, lines, record_line, refusal};

const TELECOM: &str = "yx-telecom";
const RENTAL: &str = "yx-rental-association";

/// A tenancy that was kept: points for the person.
fn tenancy(id: &str, n: u32, reference: &str) -> Value {
    let mut line = record_line(RENTAL, "rental-contract-kept", id, n, None);
    line["consent_ref"] = reference.into();
    line
}

async fn give(world: &World, login: &Login, provider: &str) -> MarketView {
    let request = MarketRequest { provider: provider.into(), indicators: None };
    world.gateway.give_market_consent(login, &request).await.unwrap()
}

async fn code(world: &World, record: Value) -> Option<&'static str> {
    let provider = record["provider"].as_str().unwrap().to_owned();
    let intake = world.report(&provider, &[record]).await;
    intake.rejected.first().map(|line| line.error.code.as_str())
}

/// What is exported, scored by the engine of `evaluate`.
async fn recomputed(world: &World, login: &Login) -> Option<u16> {
    let export = world.gateway.export(login).await.unwrap();
    let records: Vec<_> = export
        .records
        .iter()
        .map(|held| intake::stored_record(held.to_json().to_string().as_bytes()).unwrap())
        .collect();
    let day = world.gateway.score(login).await.unwrap().day;
    evaluate(&export.person, &records, &export.policies.catalogue, export.policies.model_in_force(), day).score
}

#[tokio::test]
async fn a_market_record_needs_a_consent_of_its_person_to_its_provider_that_stands() {
    let world = World::new().await;
    let (anna, bert) = (world.good(1).await, world.good(2).await);
    let mine = give(&world, &anna, RENTAL).await;
    let (other_provider, of_bert) = (give(&world, &anna, TELECOM).await, give(&world, &bert, RENTAL).await);
    for wrong in ["c-1", "paper", "paper:", "paper: ", "mc-AAAAAAAAAAAAAAAAAAAAAA", &other_provider.id, &of_bert.id] {
        assert_eq!(code(&world, tenancy("t-1", 1, wrong)).await, Some("consent-required"), "{wrong}");
    }
    let mut without = tenancy("t-1", 1, "x");
    without.as_object_mut().unwrap().remove("consent_ref");
    assert_eq!(code(&world, without).await, Some("consent-required"));
    assert_eq!(world.score(&anna).await, Some(650));
    assert_eq!(code(&world, tenancy("t-1", 1, &mine.id)).await, None);
    assert_eq!(code(&world, tenancy("t-2", 1, "paper:2026-17")).await, None);
    assert!(world.score(&anna).await > Some(650));
    // Moved to somebody else, the consent is not theirs.
    assert_eq!(code(&world, tenancy("t-1", 2, &mine.id)).await, Some("consent-required"));
    assert_eq!(world.gateway.export(&anna).await.unwrap().records.len(), 3, "and it stays where it was");
}

#[tokio::test]
async fn taking_a_consent_back_takes_its_records_out_at_once() {
    let world = World::new().await;
    let login = world.good(1).await;
    let consent = give(&world, &login, RENTAL).await;
    for reference in [consent.id.as_str(), "paper:17"] {
        assert_eq!(code(&world, tenancy(&format!("t {reference}"), 1, reference)).await, None);
    }
    let bike = world.consent(&login, "yx-bike", "bike-deposit", 5).await;
    let with_both = world.score(&login).await.unwrap();
    let listed = world.gateway.market_consents(&login).await.unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!((listed[0].id.as_str(), listed[0].records, listed[0].paper.as_deref()), (consent.id.as_str(), 1, None));
    assert_eq!((listed[1].records, listed[1].paper.as_deref()), (1, Some("paper:17")));

    // One cell and the standing are written, and no record's.
    let dossiers = world.cells(tables::DOSSIER).await;
    world.store.start_record();
    world.gateway.withdraw_market_consent(&login, &listed[1].id).await.unwrap();
    let written: Vec<&str> =
        world.store.take_record().iter().filter(|t| t.shape().0 == Deed::Put).map(|t| t.shape().1.name()).collect();
    assert_eq!(written.iter().filter(|table| **table == "dossier").count(), 1, "{written:?}");
    for (place, cell) in &dossiers {
        if place.key[32] != 2 {
            assert!(
                world.cells(tables::DOSSIER).await.contains(&(place.clone(), cell.clone())),
                "a record was touched"
            );
        }
    }
    let with_one = world.score(&login).await.unwrap();
    assert!(with_one < with_both);
    assert_eq!(recomputed(&world, &login).await, Some(with_one));
    world.gateway.withdraw_market_consent(&login, &consent.id).await.unwrap();
    assert_eq!((world.score(&login).await, recomputed(&world, &login).await), (Some(650), Some(650)));
    let export = world.gateway.export(&login).await.unwrap();
    assert_eq!(export.records.iter().filter(|held| held.withdrawn).count(), 2);
    assert!(export.market.len() == 2 && export.market.iter().all(|view| view.withdrawn.is_some()));
    let size = world.log_size();
    world.gateway.withdraw_market_consent(&login, &consent.id).await.unwrap();
    assert_eq!(world.log_size(), size, "again changes nothing");
    // The standing followed too: a party is answered by it.
    assert!(world.asked("yx-bike", "bike-deposit", &bike.token).await);

    // Neither is taken any more, nor what was taken before; a new consent is.
    for reference in [consent.id.as_str(), "paper:17"] {
        assert_eq!(code(&world, tenancy(&format!("t {reference}"), 1, reference)).await, Some("consent-required"));
    }
    let again = give(&world, &login, RENTAL).await;
    assert_eq!(code(&world, tenancy("t paper:17", 1, &again.id)).await, None);
    assert!(world.score(&login).await > Some(650));
    assert_eq!(recomputed(&world, &login).await, world.score(&login).await);
    let actions = world.actions_since(0).await;
    assert_eq!(actions.iter().filter(|action| **action == "market-withdrawal").count(), 2);
    assert_eq!(actions.iter().filter(|action| **action == "market-consent").count(), 2);
}

/// A change of the person's other records must not write down for good that a consent was taken back.
#[tokio::test]
async fn a_consent_that_was_taken_back_is_not_written_into_records() {
    let world = World::new().await;
    let login = world.good(1).await;
    let consent = give(&world, &login, RENTAL).await;
    world.report(RENTAL, &[tenancy("t-1", 1, &consent.id)]).await;
    world.gateway.withdraw_market_consent(&login, &consent.id).await.unwrap();
    world.report(RENTAL, &[tenancy("t-2", 1, "paper:1")]).await;
    world.make_good(1).await;
    let again = give(&world, &login, RENTAL).await;
    let intake = world.report(RENTAL, &[tenancy("t-1", 1, &again.id)]).await;
    assert_eq!(intake.replaced, 1);
    assert!(world.gateway.export(&login).await.unwrap().records.iter().all(|held| !held.withdrawn));
}

#[tokio::test]
async fn what_may_be_consented_to_is_what_the_catalogue_offers() {
    let world = World::new().await;
    let (login, other) = (world.good(1).await, world.good(2).await);
    let offers = world.gateway.market_providers().await.unwrap();
    assert_eq!(offers.len(), 4);
    let ask = async |provider: &str, indicators: Option<&[&str]>| {
        let indicators = indicators.map(|codes| codes.iter().map(|code| (*code).to_owned()).collect());
        let request = MarketRequest { provider: provider.into(), indicators };
        world.gateway.give_market_consent(&login, &request).await
    };
    for (provider, indicators, field) in [
        ("yx-bike", None, "provider"),
        ("no-such", None, "provider"),
        ("", None, "provider"),
        (TELECOM, Some(&[][..]), "indicators"),
        (TELECOM, Some(&["rental-contract-kept"][..]), "indicators"),
        (TELECOM, Some(&["telecom-arrears", "telecom-arrears"][..]), "indicators"),
    ] {
        match refusal(ask(provider, indicators).await) {
            Refusal::OutOfRange { field: said, .. } => assert_eq!(said, field),
            other => panic!("{provider}: {other:?}"),
        }
    }
    let given = ask(TELECOM, Some(&["telecom-arrears"])).await.unwrap();
    assert_eq!(given.indicators.len(), 1);
    for id in ["no-such", "", &given.id[1..]] {
        assert_eq!(refusal(world.gateway.withdraw_market_consent(&login, id).await), Refusal::NotFound);
    }
    let foreign = world.gateway.withdraw_market_consent(&other, &given.id).await;
    assert_eq!(refusal(foreign), Refusal::NotFound, "somebody else's is as one that never was");
    // Many, and taken back: the oldest of those makes room.
    for _ in 1..CONSENTS_MAX {
        ask(TELECOM, None).await.unwrap();
    }
    assert!(matches!(refusal(ask(TELECOM, None).await), Refusal::OutOfRange { .. }));
    world.gateway.withdraw_market_consent(&login, &given.id).await.unwrap();
    ask(TELECOM, None).await.unwrap();
    assert_eq!(world.gateway.market_consents(&login).await.unwrap().len(), CONSENTS_MAX);
}

/// A withdrawal beside reports that rest on it: whichever comes first, nothing of it counts in the end.
#[tokio::test]
async fn a_consent_taken_back_beside_reports_leaves_nothing_in_the_score() {
    let world = std::sync::Arc::new(World::new().await);
    let login = world.good(1).await;
    let consent = give(&world, &login, RENTAL).await;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..8 {
        let (world, login, id) = (world.clone(), login.clone(), consent.id.clone());
        calls.spawn(async move {
            if n == 4 {
                world.gateway.withdraw_market_consent(&login, &id).await.unwrap();
            } else {
                let body = lines(&[tenancy(&format!("t-{n}"), 1, &id)]);
                world.gateway.report(&caller(RENTAL), &body).await.unwrap();
            }
        });
    }
    calls.join_all().await;
    assert_eq!((world.score(&login).await, recomputed(&world, &login).await), (Some(650), Some(650)));
}

/// Of somebody who is not registered yet, a form on paper is all that can be named.
#[tokio::test]
async fn paper_counts_for_somebody_who_is_registered_later() {
    let world = World::new().await;
    assert_eq!(code(&world, tenancy("t-1", 1, "paper:1")).await, None);
    world.register(1..2).await;
    let login = world.login(1).await;
    assert!(world.score(&login).await > Some(500));
    let listed = world.gateway.market_consents(&login).await.unwrap();
    world.gateway.withdraw_market_consent(&login, &listed[0].id).await.unwrap();
    assert_eq!(world.score(&login).await, Some(500));
    // Another provider's form of the same number is another one.
    let mut bill = record_line(TELECOM, "telecom-arrears", "b-1", 1, None);
    bill["consent_ref"] = "paper:1".into();
    assert_eq!(code(&world, bill).await, None);
}

/// What was taken back since the backup is not known, so all of before is over, wherever it counts; what is given anew
/// counts.
#[tokio::test]
async fn a_restore_ends_consents_to_market_information_and_what_rests_on_them() {
    let (mut world, kept) = (World::of_first().await, Kept::default());
    let (login, other) = (world.good(1).await, world.good(2).await);
    let given = give(&world, &login, RENTAL).await;
    let before = [given.id.as_str(), "paper:17", "paper:2026-11-25:17"];
    for reference in before {
        assert_eq!(code(&world, tenancy(&format!("t {reference}"), 1, reference)).await, None);
    }
    let mut bill = record_line(TELECOM, "telecom-arrears", "b-1", 2, None);
    bill["consent_ref"] = "paper:1".into();
    assert_eq!(code(&world, bill).await, None);
    let scores = (world.score(&login).await, world.score(&other).await);
    assert!(scores.0 > Some(650) && scores.1 < Some(650), "{scores:?}");
    let ended = world.held_of_first().await;
    world.gateway = world.restored_under(3, &kept, &ended).await.unwrap();

    // At once, in the score, its explanation, and what is exported.
    let said = world.gateway.score(&login).await.unwrap();
    assert_eq!(said.explanation.outcome.score, Some(650));
    assert_eq!(
        (said.changes[0].from, said.changes[0].to, said.changes[0].cause),
        (scores.0, Some(650), Cause::Restore)
    );
    for person in [&login, &other] {
        assert_eq!((world.score(person).await, recomputed(&world, person).await), (Some(650), Some(650)));
    }
    let export = world.gateway.export(&login).await.unwrap();
    assert_eq!(export.records.iter().filter(|held| held.withdrawn).count(), 3);
    let listed = world.gateway.market_consents(&login).await.unwrap();
    assert_eq!((listed.len(), export.market.len()), (3, 3));
    let midnight = start_of("2026-11-26".parse().unwrap());
    for view in listed.iter().chain(&export.market) {
        assert_eq!((view.lapsed, view.withdrawn), (Some(midnight), None));
    }
    for reference in before.into_iter().chain(["paper:18", "paper:2026-11-25:18", "paper:2026-11-26:18"]) {
        let anew = tenancy(&format!("t {reference}"), 1, reference);
        assert_eq!(code(&world, anew).await, Some("consent-required"), "{reference}");
    }
    let request = MarketRequest { provider: RENTAL.into(), indicators: None };
    let refused = refusal(world.gateway.give_market_consent(&login, &request).await);
    assert_eq!(refused, Refusal::AfterRestore("2026-11-26".parse().unwrap()));
    // The sweep goes through everybody, and says why.
    let mut renewed = 0;
    loop {
        let swept = world.gateway.sweep().await.unwrap();
        renewed += swept.renewed;
        if !swept.more {
            break;
        }
    }
    assert_eq!(renewed, 2);
    let said = world.gateway.score(&login).await.unwrap();
    assert_eq!(
        (said.changes[0].from, said.changes[0].to, said.changes[0].cause),
        (scores.0, Some(650), Cause::Restore)
    );

    // From the next day on both can be given anew, and what ended stays so.
    world.next_day();
    let (login, other) = (world.login(1).await, world.login(2).await);
    let bike = world.consent(&other, "yx-bike", "bike-deposit", 5).await;
    assert!(world.asked("yx-bike", "bike-deposit", &bike.token).await, "a party is answered without what ended");
    let anew = give(&world, &login, RENTAL).await;
    assert_eq!(anew.lapsed, None);
    for (reference, taken) in [
        (given.id.as_str(), Some("consent-required")),
        ("paper:17", Some("consent-required")),
        ("paper:2026-11-27:18", Some("consent-required")),
        (anew.id.as_str(), None),
        ("paper:2026-11-26:18", None),
    ] {
        let before = world.score(&login).await;
        assert_eq!(code(&world, tenancy(&format!("new {reference}"), 1, reference)).await, taken, "{reference}");
        assert_eq!(world.score(&login).await > before, taken.is_none(), "{reference}");
    }
    assert_eq!(recomputed(&world, &login).await, world.score(&login).await);
    let listed = world.gateway.market_consents(&login).await.unwrap();
    assert_eq!(listed.iter().filter(|view| view.lapsed.is_none()).count(), 2);
    for view in listed {
        world.gateway.withdraw_market_consent(&login, &view.id).await.unwrap();
    }
    assert_eq!(world.score(&login).await, Some(650));
}

/// Registers forty people, each with a record that rests on a consent on paper.
async fn forty_in_arrears(world: &World) {
    world.register(1..41).await;
    let arrears = |n| {
        let mut line = record_line(TELECOM, "telecom-arrears", &format!("a-{n}"), n, None);
        line["consent_ref"] = "paper:17".into();
        line
    };
    assert_eq!(world.report(TELECOM, &(1..41).map(arrears).collect::<Vec<_>>()).await.accepted, 40);
}

/// A trial counts people as their scores do, after a restore too, beside a gateway and without one.
#[tokio::test]
async fn a_model_that_is_tried_leaves_out_what_a_restore_ended() {
    let (mut world, kept) = (World::of_first().await, Kept::default());
    forty_in_arrears(&world).await;
    let shown = async |world: &World| {
        let by_gateway = world.gateway.try_model(&operator(), "next.toml", &stricter()).await.unwrap();
        let (set, day) = (PolicySet::parse(shipped()).unwrap(), day_of(world.clock.now()));
        let (store, entropy) = (world.store.inner().clone(), Arc::new(SystemEntropy::new()));
        let stopped =
            try_on_store(store, keyring_for(1), entropy, &set, day, ("next.toml", &stricter())).await.unwrap();
        assert_eq!(by_gateway, stopped);
        by_gateway.grades_before.iter().find(|part| part.code == "fair").unwrap().people
    };
    assert_ne!(shown(&world).await, Some(40));
    let ended = world.held_of_first().await;
    world.gateway = world.restored_under(3, &kept, &ended).await.unwrap();
    assert_eq!(shown(&world).await, Some(40));
}

/// A trial counts people as their scores do: a record whose consent was taken back counts under no model.
#[tokio::test]
async fn a_model_that_is_tried_leaves_out_what_was_taken_back() {
    let world = World::new().await;
    forty_in_arrears(&world).await;
    let fair = async || {
        let shown = world.gateway.try_model(&operator(), "next.toml", &stricter()).await.unwrap();
        shown.grades_before.iter().find(|part| part.code == "fair").unwrap().people
    };
    assert_ne!(fair().await, Some(40));
    for n in 1..41 {
        let login = world.login(n).await;
        let paper = world.gateway.market_consents(&login).await.unwrap();
        world.gateway.withdraw_market_consent(&login, &paper[0].id).await.unwrap();
        assert_eq!(world.score(&login).await, Some(500));
    }
    assert_eq!(fair().await, Some(40));
}
