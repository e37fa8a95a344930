//! INVARIANT (one answer a day, few cuts): the day's first grant fixes the cell that all are answered from.

use jadegate::authority::Login;
use jadegate::gateway::ConsentRequest;
use jadegate::policies::{PolicySet, shipped};
use serde_json::json;

use crate::support::world::{World, caller, record_line};

const BIKE: &str = "bike-deposit";

async fn bike(world: &World, login: &Login) -> bool {
    let consent = world.consent(login, "yx-bike", BIKE, 1).await;
    world.asked("yx-bike", BIKE, &consent.token).await
}

async fn library(world: &World, login: &Login) -> bool {
    let consent = world.consent(login, "yx-library", "library-deposit", 1).await;
    world.asked("yx-library", "library-deposit", &consent.token).await
}

#[tokio::test]
async fn the_days_first_answer_holds_for_all_parties_until_midnight() {
    let world = World::new().await;
    let login = world.good(1).await;
    assert!(bike(&world, &login).await);
    world.make_defaulter(1).await;
    assert!(world.score(&login).await.unwrap() < 600, "the score itself follows at once");
    assert!(bike(&world, &login).await && library(&world, &login).await);
    let consent = world.consent(&login, "yx-library", "library-deposit", 5).await;
    assert_eq!(world.ask("yx-library", "library-deposit", &consent.token).await.claims()["as_of"], "2026-11-25");
    world.next_day();
    assert!(!bike(&world, &login).await && !library(&world, &login).await);
}

#[tokio::test]
async fn a_rise_waits_for_the_next_day_too_and_for_every_question() {
    let world = World::new().await;
    world.register(1..2).await;
    let login = world.login(1).await;
    assert!(!bike(&world, &login).await);
    world.make_good(1).await;
    world.make_excellent(1).await;
    assert!(!library(&world, &login).await);
    let ticket = world.consent(&login, "yx-fuxian-scenic", "scenic-ticket", 5).await;
    assert!(!world.asked("yx-fuxian-scenic", "scenic-ticket", &ticket.token).await);
    world.next_day();
    let said = world.ask("yx-fuxian-scenic", "scenic-ticket", &ticket.token).await;
    assert_eq!(said.claims()["met"], json!({ "grade": "excellent" }));
    assert_eq!(said.claims()["as_of"], "2026-11-26");
}

#[tokio::test]
async fn looks_declines_lapses_repeats_and_codes_that_are_dead_fix_nothing() {
    let world = World::new().await;
    world.register(1..2).await;
    let login = world.login(1).await;
    // Of the day before, for a repeat over midnight.
    world.advance(14 * 3600 - 60);
    let (caller, nonce) = (caller("yx-bike"), world.fresh("nonce"));
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    assert!(!world.ask_as(&caller, BIKE, &consent.token, &nonce).await.unwrap().met);
    world.advance(120);

    assert!(!world.ask_as(&caller, BIKE, &consent.token, &nonce).await.unwrap().met, "a repeat");
    let look = world.gateway.look(&login, BIKE).await.unwrap();
    assert!(!look.decision.met && !look.fixed);
    let decline = world.decline(&login, "yx-bike", BIKE).await;
    assert!(!world.asked("yx-bike", BIKE, &decline.token).await);
    let revoked = world.consent(&login, "yx-bike", BIKE, 5).await;
    world.gateway.revoke(&login, &revoked.id.to_text()).await.unwrap();
    assert!(!world.asked("yx-bike", BIKE, &revoked.token).await);
    let coded = world.consent(&login, "yx-bike", BIKE, 5).await;
    let dead = world.code(&login, &coded).await;
    world.code(&login, &coded).await;
    assert!(!world.asked("yx-bike", BIKE, &dead).await);

    world.make_good(1).await;
    let look = world.gateway.look(&login, BIKE).await.unwrap();
    assert!(look.decision.met && !look.fixed, "nothing has fixed the day");
    assert!(bike(&world, &login).await);
    assert!(world.gateway.look(&login, BIKE).await.unwrap().fixed);
    world.make_defaulter(1).await;
    let look = world.gateway.look(&login, BIKE).await.unwrap();
    assert!(look.decision.met && look.fixed, "the person sees what the parties would");
}

#[tokio::test]
async fn the_days_cell_outlives_a_restart() {
    let mut world = World::new().await;
    let login = world.good(1).await;
    assert!(bike(&world, &login).await);
    world.make_defaulter(1).await;
    world.reopen().await.unwrap();
    let login = world.login(1).await;
    assert!(library(&world, &login).await);
}

#[tokio::test]
async fn concurrent_first_asks_of_a_day_agree() {
    let world = std::sync::Arc::new(World::new().await);
    let login = world.good(1).await;
    let mut tokens = Vec::new();
    for _ in 0..8 {
        tokens.push(world.consent(&login, "yx-bike", BIKE, 1).await.token);
    }
    let mut calls = tokio::task::JoinSet::new();
    for token in tokens {
        let world = world.clone();
        calls.spawn(async move { world.asked("yx-bike", BIKE, &token).await });
    }
    let report = world.make_defaulter(1).await;
    assert!(!report.is_empty());
    let answers = calls.join_all().await;
    assert!(answers.iter().all(|met| *met == answers[0]), "{answers:?}");
}

/// A boundary that passes by itself: the score changes on that day, though nothing was reported.
#[tokio::test]
async fn a_score_that_is_due_is_computed_anew() {
    let world = World::new().await;
    world.register(1..2).await;
    let mut record = record_line("yx-civil-affairs", "volunteer-hours", "r-1", 1, Some(300));
    record["valid_until"] = "2026-11-26".into();
    world.report("yx-civil-affairs", &[record]).await;
    let login = world.login(1).await;
    assert!(bike(&world, &login).await);
    world.next_day();
    assert!(!bike(&world, &login).await, "the hours have ended");
    assert_eq!(world.score(&login).await, Some(500));
}

#[tokio::test]
async fn days_are_shanghais_and_born_on_29_february_comes_of_age_on_the_28th() {
    // PE-5: 16:30Z is the next day in Shanghai.
    let world = World::new().await;
    let body = crate::support::world::lines(&[
        json!({ "id_number": "530499200802290016", "name": "某", "resident": true, "full_capacity": true }),
    ]);
    world.gateway.enrol(&caller("yx-public-security"), &body).await.unwrap();
    let token = world.gateway.demo_login("530499200802290016").await.unwrap();
    let Some(jadegate::gateway::Who::Person(login)) = world.gateway.session(&token).await.unwrap() else { panic!() };
    assert_eq!(world.gateway.score(&login).await.unwrap().day.to_string(), "2026-11-25");
    assert_eq!(world.score(&login).await, Some(500));
}

/// Two cities that differ in everything but the cell: scores, records, names, histories.
#[tokio::test]
async fn all_that_parties_see_follows_from_the_cell_alone() {
    let mut transcripts = Vec::new();
    for hours in [220, 598] {
        let world = World::with(PolicySet::parse(shipped()).unwrap(), u64::from(hours)).await;
        let n = hours;
        world.register(n..n + 1).await;
        let record = record_line("yx-civil-affairs", "volunteer-hours", &format!("r-{hours}"), n, Some(hours));
        world.report("yx-civil-affairs", &[record]).await;
        if hours > 300 {
            let blood = record_line("yx-health", "blood-donation", "b", n, Some(3));
            world.report("yx-health", &[blood]).await;
        }
        let login = world.login(n).await;
        let mut transcript = vec![format!("{:?}", world.score(&login).await)];
        for (party, scenario) in [
            ("yx-bike", BIKE),
            ("yx-fuxian-scenic", "scenic-ticket"),
            ("yx-parks", "park-year-pass"),
            ("yx-bus", "bus-fare"),
            ("yx-startup-park", "coworking-desk"),
        ] {
            let request =
                ConsentRequest { scenario: scenario.into(), party: Some(party.into()), ..ConsentRequest::default() };
            let consent = world.gateway.give_consent(&login, &request).await.unwrap();
            let said = world.ask(party, scenario, &consent.token).await;
            let mut shown = String::from_utf8_lossy(&said.body).into_owned();
            if said.met {
                let mut claims = said.claims();
                for random in ["jti", "nonce", "sub"] {
                    claims[random] = claims[random].as_str().map_or(0, str::len).into();
                }
                let proof = jadegate::access_log::proof::Proof::parse(said.proof.as_ref().unwrap()).unwrap();
                shown = format!("{claims} {}", proof.extra.len());
            }
            transcript.push(shown);
        }
        transcripts.push(transcript);
    }
    assert_ne!(transcripts[0][0], transcripts[1][0], "the scores differ");
    assert_eq!(transcripts[0][1..], transcripts[1][1..]);
}
