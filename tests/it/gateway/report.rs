//! Records and register lines: what is sent is in the score when the call returns, once, and whatever the order.

use std::sync::Arc;

use jadegate::gateway::Refusal;
use jadegate::intake::LineCode;
use jadegate::tables;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::world::{World, caller, cells, lines, number, record_line, refusal, register_line};

const CIVIL: &str = "yx-civil-affairs";

fn hours(id: &str, n: u32, quantity: u32) -> Value {
    record_line(CIVIL, "volunteer-hours", id, n, Some(quantity))
}

/// Accepted, unchanged, replaced, rejected.
async fn sent(world: &World, provider: &str, records: &[Value]) -> (u64, u64, u64, Vec<(u64, LineCode)>) {
    let taken = world.report(provider, records).await;
    let rejected = taken.rejected.iter().map(|line| (line.line, line.error.code)).collect();
    (taken.accepted, taken.unchanged, taken.replaced, rejected)
}

#[tokio::test]
async fn a_record_is_in_the_score_when_its_call_returns() {
    let world = World::new().await;
    world.register(1..2).await;
    let login = world.login(1).await;
    assert_eq!(world.score(&login).await, Some(500));
    assert_eq!(sent(&world, CIVIL, &[hours("r-1", 1, 100)]).await, (1, 0, 0, vec![]));
    assert_eq!(world.score(&login).await, Some(550));
    assert_eq!(sent(&world, CIVIL, &[hours("r-1", 1, 100)]).await, (0, 1, 0, vec![]), "sent again");
    assert_eq!(world.score(&login).await, Some(550));
    assert_eq!(sent(&world, CIVIL, &[hours("r-1", 1, 40)]).await, (0, 0, 1, vec![]), "sent again, changed");
    assert_eq!(world.score(&login).await, Some(520));
    assert_eq!(sent(&world, CIVIL, &[hours("r-2", 1, 40)]).await, (1, 0, 0, vec![]));
    assert_eq!(world.score(&login).await, Some(540));
    // The same id from another provider is another record.
    let other = record_line("yx-youth-league", "volunteer-hours", "r-2", 1, Some(20));
    assert_eq!(sent(&world, "yx-youth-league", &[other]).await, (1, 0, 0, vec![]));
    assert_eq!(world.score(&login).await, Some(550));
}

/// It is told as it would be done, and of it only the entry is there.
#[tokio::test]
async fn what_is_only_tried_changes_nothing_but_the_log() {
    let world = World::new().await;
    world.register(1..2).await;
    sent(&world, CIVIL, &[hours("r-1", 1, 100), hours("r-2", 1, 10)]).await;
    let of_the_log = [tables::LEAF, tables::TILE, tables::CHECKPOINT, tables::HOUR];
    let (before, log) = (world.copy().await, world.log_size());
    let records = lines(&[hours("r-1", 1, 100), hours("r-2", 1, 11), hours("r-3", 1, 1), hours("r-4", 7, 0)]);
    let tried = world.gateway.try_report(&caller(CIVIL), &records).await.unwrap();
    assert_eq!((tried.accepted, tried.unchanged, tried.replaced, tried.rejected.len()), (1, 1, 1, 1));
    assert!(tried.batches.is_empty(), "nothing was taken that a receipt could be for");
    let people = lines(&[register_line(1), register_line(2)]);
    let tried = world.gateway.try_enrol(&caller("yx-public-security"), &people).await.unwrap();
    assert_eq!((tried.accepted, tried.unchanged), (1, 1));
    for table in tables::ALL.into_iter().filter(|table| !of_the_log.contains(table)) {
        assert_eq!(world.cells(table).await, cells(&*before, table).await, "{}", table.name());
    }
    assert_eq!(world.log_size(), log + 2, "an entry each: people's cells were looked at");
    assert_eq!(refusal(world.gateway.try_report(&caller("yx-bike"), &records).await), Refusal::NotPermitted);
}

#[tokio::test]
async fn within_one_upload_the_last_version_counts() {
    let world = World::new().await;
    world.register(1..2).await;
    let upload = [hours("r-1", 1, 100), hours("r-1", 1, 100), hours("r-1", 1, 60), hours("r-2", 1, 10)];
    assert_eq!(sent(&world, CIVIL, &upload).await, (2, 1, 1, vec![]));
    assert_eq!(world.score(&world.login(1).await).await, Some(535));
    assert_eq!(world.cells(jadegate::tables::ORIGIN).await.len(), 2);
}

#[tokio::test]
async fn a_record_that_moves_to_somebody_else_leaves_the_first() {
    let world = World::new().await;
    world.register(1..3).await;
    let (anna, bert) = (world.login(1).await, world.login(2).await);
    sent(&world, CIVIL, &[hours("r-1", 1, 100), hours("r-2", 1, 20)]).await;
    assert_eq!(sent(&world, CIVIL, &[hours("r-1", 2, 100)]).await, (0, 0, 1, vec![]));
    assert_eq!((world.score(&anna).await, world.score(&bert).await), (Some(510), Some(550)));
    // There and back within one upload, and to somebody who is not registered.
    assert_eq!(sent(&world, CIVIL, &[hours("r-1", 1, 100), hours("r-1", 2, 80)]).await, (0, 0, 2, vec![]));
    assert_eq!((world.score(&anna).await, world.score(&bert).await), (Some(510), Some(540)));
    assert_eq!(sent(&world, CIVIL, &[hours("r-1", 3, 80)]).await, (0, 0, 1, vec![]));
    assert_eq!((world.score(&anna).await, world.score(&bert).await), (Some(510), Some(500)));
    assert_eq!(world.gateway.export(&bert).await.unwrap().records.len(), 0);
    world.register(3..4).await;
    assert_eq!(world.score(&world.login(3).await).await, Some(540));
}

#[tokio::test]
async fn a_record_may_come_before_its_person() {
    let world = World::new().await;
    sent(&world, CIVIL, &[hours("r-1", 1, 300)]).await;
    assert_eq!(refusal(world.gateway.demo_login(&number(1)).await), Refusal::NotFound);
    let login = {
        world.register(1..2).await;
        world.login(1).await
    };
    assert_eq!(world.score(&login).await, Some(650));
    let consent = world.consent(&login, "yx-bike", "bike-deposit", 1).await;
    assert!(world.asked("yx-bike", "bike-deposit", &consent.token).await);
}

#[tokio::test]
async fn good_lines_are_taken_and_each_bad_one_is_named() {
    let world = World::new().await;
    world.register(1..2).await;
    let mut prohibited = hours("r-2", 1, 10);
    prohibited["religion"] = "none".into();
    let mut future = hours("r-3", 1, 10);
    future["occurred_on"] = "2026-11-26".into();
    let mut unknown = hours("r-4", 1, 10);
    unknown["indicator"] = "no-such".into();
    let body = [
        lines(&[hours("r-1", 1, 10), prohibited]),
        b"\n{\"id\": \n".to_vec(),
        lines(&[future, unknown, record_line("yx-health", "blood-donation", "r-5", 1, Some(1)), hours("r-6", 1, 10)]),
    ]
    .concat();
    let taken = world.gateway.report(&caller(CIVIL), &body).await.unwrap();
    let rejected: Vec<_> = taken.rejected.iter().map(|line| (line.line, line.error.code.as_str())).collect();
    assert_eq!(
        rejected,
        [
            (2, "prohibited-item"),
            (4, "malformed"),
            (5, "impossible-date"),
            (6, "unknown-indicator"),
            (7, "provider-not-allowed")
        ]
    );
    assert_eq!((taken.accepted, taken.unchanged, taken.replaced), (2, 0, 0));
    assert_eq!(world.score(&world.login(1).await).await, Some(510));
    for line in &taken.rejected {
        assert!(!line.error.message.contains(&number(1)), "{}", line.error.message);
    }
}

#[tokio::test]
async fn a_long_upload_has_an_entry_for_each_five_hundred_lines() {
    let world = World::new().await;
    world.register(1..2).await;
    let size = world.log_size();
    let records: Vec<Value> = (0..1001).map(|i| hours(&format!("r-{i}"), 1 + i % 7, 1)).collect();
    let signed = world.signed(CIVIL, "signature-nonce-1");
    let taken = world.gateway.report(&signed, &lines(&records)).await.unwrap();
    assert_eq!((taken.accepted, taken.rejected.len()), (1001, 0));
    assert_eq!(world.actions_since(size).await, ["report"; 3]);
    assert_eq!(refusal(world.gateway.report(&signed, &lines(&records)).await), Refusal::ReplayedSignature);
    assert_eq!(world.gateway.export(&world.login(1).await).await.unwrap().records.len(), 143);
    let size = world.log_size();
    world.register(100..1200).await;
    assert_eq!(world.actions_since(size).await, ["register"; 3]);
}

#[tokio::test]
async fn a_person_has_at_most_two_thousand_records() {
    let world = World::new().await;
    world.register(1..3).await;
    let records: Vec<Value> = (0..2001).map(|i| hours(&format!("r-{i}"), 1, 1)).collect();
    let (accepted, _, _, rejected) = sent(&world, CIVIL, &records).await;
    assert_eq!((accepted, rejected), (2000, vec![(2001, LineCode::TooLarge)]));
    // Replacing and moving away still work, moving in does not.
    assert_eq!(sent(&world, CIVIL, &[hours("r-0", 1, 2)]).await, (0, 0, 1, vec![]));
    assert_eq!(sent(&world, CIVIL, &[hours("x", 2, 1)]).await.0, 1);
    assert_eq!(sent(&world, CIVIL, &[hours("x", 1, 1)]).await.3, [(1, LineCode::TooLarge)]);
    assert_eq!(world.gateway.export(&world.login(2).await).await.unwrap().records.len(), 1, "it stays where it was");
    assert_eq!(sent(&world, CIVIL, &[hours("r-5", 2, 1), hours("x", 1, 1)]).await, (0, 0, 2, vec![]));
    assert_eq!(world.gateway.export(&world.login(1).await).await.unwrap().records.len(), 2000);
}

/// Large records spread over chunks, are found again, and shrink.
#[tokio::test]
async fn large_records_of_one_person_fill_several_cells() {
    let world = World::new().await;
    world.register(1..2).await;
    let detailed = |id: u32, detail: &str| {
        let mut record = hours(&format!("r-{id}"), 1, 1);
        record["detail"] = detail.into();
        record
    };
    let long: Vec<Value> = (0..100).map(|i| detailed(i, &"某\"".repeat(500))).collect();
    assert_eq!(sent(&world, CIVIL, &long).await.0, 100);
    assert!(world.cells(jadegate::tables::DOSSIER).await.len() > 2);
    assert_eq!(sent(&world, CIVIL, &long).await.1, 100);
    let short: Vec<Value> = (0..100).map(|i| detailed(i, "x")).collect();
    assert_eq!(sent(&world, CIVIL, &short).await.2, 100);
    let login = world.login(1).await;
    let held = world.gateway.export(&login).await.unwrap().records;
    assert!(held.len() == 100 && held.iter().all(|held| held.record.detail.as_deref() == Some("x")));
    assert_eq!(world.score(&login).await, Some(550));
}

#[tokio::test]
async fn the_register_is_idempotent_and_its_last_line_counts() {
    let world = World::new().await;
    let enrol = async |people: &[Value]| {
        let taken = world.gateway.enrol(&caller("yx-public-security"), &lines(people)).await.unwrap();
        (taken.accepted, taken.unchanged, taken.replaced, taken.rejected.len())
    };
    assert_eq!(enrol(&[register_line(1), register_line(2)]).await, (2, 0, 0, 0));
    assert_eq!(enrol(&[register_line(1)]).await, (0, 1, 0, 0));
    let login = world.login(1).await;
    let mut moved = register_line(1);
    moved["resident"] = false.into();
    assert_eq!(enrol(&[register_line(1), moved.clone(), moved]).await, (0, 2, 1, 0));
    assert_eq!(world.score(&login).await, None);
    let mut wrong = register_line(3);
    wrong["id_number"] = "530499199001010016".into();
    assert_eq!(enrol(&[wrong, register_line(1)]).await, (0, 0, 1, 1));
    assert_eq!(world.score(&login).await, Some(500));
}

#[tokio::test]
async fn only_who_may_report_or_register_does() {
    let world = World::new().await;
    for who in ["yx-bike", "yx-library", "nobody"] {
        assert_eq!(refusal(world.gateway.report(&caller(who), b"{}").await), Refusal::NotPermitted);
        assert_eq!(refusal(world.gateway.enrol(&caller(who), b"{}").await), Refusal::NotPermitted);
    }
    // A record of somebody else's is refused by its own code.
    let record = hours("r-1", 1, 1);
    let taken = world.report("yx-health", &[record]).await;
    assert_eq!(taken.rejected[0].error.code, LineCode::ProviderNotAllowed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_reports_about_one_person_lose_nothing() {
    let world = Arc::new(World::new().await);
    world.register(1..2).await;
    let mut calls = JoinSet::new();
    for i in 0..24 {
        let world = world.clone();
        calls.spawn(async move {
            let records: Vec<Value> = (0..3).map(|j| hours(&format!("r-{i}-{j}"), 1, 1)).collect();
            world.report(CIVIL, &records).await.accepted
        });
    }
    assert_eq!(calls.join_all().await, [3; 24]);
    let login = world.login(1).await;
    assert_eq!(world.gateway.export(&login).await.unwrap().records.len(), 72);
    assert_eq!(world.score(&login).await, Some(536));
}

/// The same record sent by many at once is there once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_versions_of_one_record_leave_one() {
    let world = Arc::new(World::new().await);
    world.register(1..3).await;
    let mut calls = JoinSet::new();
    for i in 0..16 {
        let world = world.clone();
        calls.spawn(async move { world.report(CIVIL, &[hours("r-1", 1 + i % 2, 2 + i)]).await });
    }
    let taken = calls.join_all().await;
    assert_eq!(taken.iter().map(|taken| taken.accepted).sum::<u64>(), 1);
    let mut records = 0;
    for n in [1, 2] {
        records += world.gateway.export(&world.login(n).await).await.unwrap().records.len();
    }
    assert_eq!(records, 1);
}

/// Random uploads: what the person sees equals the score of what was last accepted.
#[test]
fn the_score_is_that_of_the_records_whatever_their_order() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let kinds = [
        (CIVIL, "volunteer-hours", true),
        ("yx-health", "blood-donation", true),
        ("yx-court", "criminal-judgment", false),
        ("yx-court", "defaulter-list", false),
        ("yx-public-security", "traffic-violation", true),
        ("yx-civilization-office", "moral-model", false),
    ];
    let one = (0usize..kinds.len(), 0u32..4, 1u32..3, 1u32..40, 2019i16..2027);
    let config = ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&prop::collection::vec(one, 1..25), |uploads| {
            runtime.block_on(async {
                let world = World::new().await;
                world.register(1..3).await;
                for (kind, id, n, quantity, year) in uploads {
                    let (provider, indicator, has_quantity) = kinds[kind];
                    let quantity = has_quantity.then_some(quantity);
                    let mut record = record_line(provider, indicator, &format!("{indicator}-{id}"), n, quantity);
                    record["occurred_on"] = format!("{year}-03-01").into();
                    let taken = world.report(provider, &[record]).await;
                    assert_eq!(taken.rejected, []);
                }
                for n in [1, 2] {
                    let login = world.login(n).await;
                    let export = world.gateway.export(&login).await.unwrap();
                    let (set, day) = (&export.policies, "2026-11-25".parse().unwrap());
                    let mut records = export.records.clone();
                    records.reverse();
                    let outcome = jadegate::score::evaluate(&export.person, &records, &set.catalogue, set.model(), day);
                    assert_eq!(world.score(&login).await, outcome.score);
                    let met = outcome.score.is_some_and(|score| score >= 600);
                    let consent = world.consent(&login, "yx-bike", "bike-deposit", 1).await;
                    assert_eq!(world.asked("yx-bike", "bike-deposit", &consent.token).await, met);
                }
            });
            Ok(())
        })
        .unwrap();
}

/// ID-1: one person, however the number is written.
#[tokio::test]
async fn spellings_of_a_number_are_one_person() {
    let world = World::new().await;
    let person = |number: &str| json!({ "id_number": number, "name": "某", "resident": true, "full_capacity": true });
    let body = lines(&[person("53049919880307004X"), person("53049919250101001X")]);
    world.gateway.enrol(&caller("yx-public-security"), &body).await.unwrap();
    let mut records = Vec::new();
    let spellings = ["53049919880307004X", "53049919880307004x", "530499250101001", " 53049919250101001x\t"];
    for (i, number) in spellings.into_iter().enumerate() {
        let mut record = hours(&format!("r-{i}"), 1, 20);
        record["person"] = json!({ "id_number": number, "name": "某" });
        records.push(record);
    }
    assert_eq!(sent(&world, CIVIL, &records).await.0, 4);
    assert_eq!(world.cells(jadegate::tables::PERSON).await.len(), 2);
}
