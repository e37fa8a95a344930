//! Days pass: a score is right on the day it is asked for, swept or not, and the sweep keeps standings fresh.

use std::collections::BTreeMap;
use std::sync::Arc;

use jadegate::authority::Login;
use jadegate::clock::Clock;
use jadegate::disclosure::{Cause, Standing};
use jadegate::entropy::SystemEntropy;
use jadegate::gateway::{Swept, Who};
use jadegate::ledger::audit::audit;
use jadegate::policies::{PolicySet, shipped};
use jadegate::score::{Outcome, Status};
use jadegate::store::faulty::{Deed, Fault, Touch};
use jadegate::store::memory::MemoryStore;
use jadegate::store::{Batch, Cell, Place, Store, Write};
use jadegate::tables;
use jadegate::vault::Vault;
use serde_json::{Value, json};

use crate::support::world::{
    Brought, World, caller, change, keyring, keyring_for, lines, policies_with, record_line, register_line,
};

const CIVIL: &str = "yx-civil-affairs";
const BIKE: &str = "bike-deposit";

/// Sweeps until nothing is due; how many standings were renewed, and in how many steps.
async fn swept(world: &World) -> (u64, u64) {
    let (mut renewed, mut steps) = (0, 0);
    loop {
        let step = world.gateway.sweep().await.unwrap();
        renewed += step.renewed;
        steps += 1;
        assert!(steps < 1_000, "it does not come to an end");
        if !step.more {
            return (renewed, steps);
        }
    }
}

fn hours(n: u32, until: &str) -> Value {
    let mut record = record_line(CIVIL, "volunteer-hours", &format!("h-{n}"), n, Some(300));
    record["valid_until"] = until.into();
    record
}

async fn days(world: &World, days: u32) {
    for _ in 0..days {
        world.next_day();
    }
}

async fn asked(world: &World, login: &Login) -> bool {
    let consent = world.consent(login, "yx-bike", BIKE, 1).await;
    world.asked("yx-bike", BIKE, &consent.token).await
}

async fn login(world: &World, number: &str) -> Login {
    let token = world.gateway.demo_login(number).await.unwrap();
    match world.gateway.session(&token).await.unwrap() {
        Some(Who::Person(login)) => login,
        other => panic!("{other:?}"),
    }
}

/// What changes a score by itself, and on which day; each is asked about on the day before and on the day.
#[tokio::test]
async fn a_score_is_right_on_its_day_without_a_sweep_and_the_same_after_one() {
    for sweeps in [false, true] {
        // The end of validity.
        let world = World::new().await;
        world.register(1..2).await;
        world.report(CIVIL, &[hours(1, "2026-11-27")]).await;
        let person = world.login(1).await;
        let mut seen = Vec::new();
        for _ in 0..3 {
            if sweeps {
                swept(&world).await;
            }
            seen.push((world.score(&person).await, asked(&world, &person).await));
            world.next_day();
        }
        assert_eq!(seen, [(Some(650), true), (Some(650), true), (Some(500), false)], "the end of validity");

        // A weight by the year: an unperformed judgment weighs less after one.
        let world = World::new().await;
        world.register(1..2).await;
        let mut judgment = record_line("yx-court", "civil-judgment-unperformed", "j", 1, None);
        judgment["occurred_on"] = "2025-11-27".into();
        world.report("yx-court", &[judgment]).await;
        let person = world.login(1).await;
        let before = world.score(&person).await.unwrap();
        days(&world, 1).await;
        let (eve, due) = (world.score(&person).await.unwrap(), world.gateway.score(&person).await.unwrap());
        assert_eq!(due.explanation.next_change.unwrap().to_string(), "2026-11-27");
        days(&world, 1).await;
        if sweeps {
            assert_eq!(swept(&world).await.0, 1);
        }
        let after = world.score(&person).await.unwrap();
        assert!(before == eve && after > eve, "a year: {before} {eve} {after}");

        // The eighteenth birthday.
        let world = World::new().await;
        let body = lines(&[
            json!({ "id_type": "passport", "id_number": "UTO1234567", "name": "Anna", "born_on": "2008-11-27", "resident": true, "full_capacity": true }),
        ]);
        world.gateway.enrol(&caller("yx-public-security"), &body).await.unwrap();
        let mut record = record_line(CIVIL, "volunteer-hours", "h", 1, Some(300));
        record["person"] = json!({ "id_type": "passport", "id_number": "UTO1234567", "name": "Anna" });
        world.report(CIVIL, &[record]).await;
        let person = login(&world, "UTO1234567").await;
        let mut seen = Vec::new();
        for _ in 0..3 {
            if sweeps {
                swept(&world).await;
            }
            seen.push((world.score(&person).await, asked(&world, &person).await));
            world.next_day();
        }
        assert_eq!(seen, [(None, false), (None, false), (Some(650), true)], "the birthday");
    }
}

/// What a repair of a record does on its day is in the same boundaries; it comes in by a file here, since the API for
/// repairs is not built.
#[test]
fn the_end_that_a_repair_sets_is_a_boundary() {
    use jadegate::intake::{self, RecordRules, Source};
    use jadegate::score::{evaluate, next_boundary};
    let set = PolicySet::parse(shipped()).unwrap();
    let day = |text: &str| text.parse::<jiff::civil::Date>().unwrap();
    let person = intake::person(register_line(1).to_string().as_bytes(), day("2026-11-25"), &set.prohibited).unwrap();
    let mut line = record_line("yx-court", "civil-judgment-unperformed", "j", 1, None);
    line["repair"] = json!({ "on": "2026-11-26", "effect": "shorten", "until": "2026-12-01" });
    let rules = RecordRules {
        catalogue: &set.catalogue,
        prohibited: &set.prohibited,
        today: day("2026-11-25"),
        source: Source::File,
    };
    let held = [intake::record(line.to_string().as_bytes(), &rules).unwrap()];
    let score = |on: &str| evaluate(&person, &held, &set.catalogue, set.model(), day(on)).score.unwrap();
    assert!(score("2026-11-30") < 500 && score("2026-12-01") == 500);
    let next = next_boundary(&person, &held, &set.catalogue, set.model(), day("2026-11-25"));
    assert_eq!(next, Some(day("2026-12-01")));
}

/// It reads the rows of the day and the cells of those who are due, and nothing of anybody else.
#[tokio::test]
async fn the_sweep_reads_only_what_is_due() {
    let world = World::new().await;
    world.register(1..301).await;
    let due = [7, 8, 299];
    let records: Vec<Value> =
        (1..301).map(|n| hours(n, if due.contains(&n) { "2026-11-26" } else { "2027-06-01" })).collect();
    world.report(CIVIL, &records).await;
    assert_eq!(swept(&world).await, (0, 1));
    let rows = world.cells(tables::DUE).await.len();
    assert_eq!(rows, 300, "one row for each standing");
    world.next_day();
    world.store.start_record();
    assert_eq!(world.gateway.sweep().await.unwrap(), Swept { renewed: 3, more: true });
    assert_eq!(world.gateway.sweep().await.unwrap(), Swept::default());
    let mut touched: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for touch in world.store.take_record() {
        let (deed, table, ..) = touch.shape();
        *touched.entry((if deed == Deed::Put { "put" } else { "read" }, table.name())).or_default() += 1;
    }
    assert_eq!(touched[&("put", "standing")], 3, "{touched:?}");
    assert_eq!(touched[&("read", "person")], 3, "{touched:?}");
    assert_eq!(touched[&("read", "dossier")], 3, "{touched:?}");
    assert!(touched.values().sum::<usize>() < 60, "{touched:?}");
    assert_eq!(world.cells(tables::DUE).await.len(), 300, "and each still has one row");
    // Standings are fresh: an answer reads no records any more.
    let login = world.login(7).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 1).await;
    world.store.start_record();
    assert!(!world.asked("yx-bike", BIKE, &consent.token).await);
    assert!(world.store.take_record().iter().all(|touch| touch.shape().1 != tables::DOSSIER));
}

/// A row's key tells neither day nor person, and rows of one day look no other than rows of no day.
#[tokio::test]
async fn rows_of_what_is_due_tell_little() {
    let world = World::new().await;
    world.register(1..5).await;
    world.report(CIVIL, &[hours(1, "2026-12-01"), hours(2, "2026-12-01"), hours(3, "2026-12-02")]).await;
    let rows = world.cells(tables::DUE).await;
    let people: Vec<Vec<u8>> = world.cells(tables::PERSON).await.into_iter().map(|(place, _)| place.key).collect();
    assert_eq!(rows.len(), 4);
    let mut beginnings: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for (place, cell) in &rows {
        assert_eq!((place.key.len(), cell.value.len()), (32, rows[0].1.value.len()));
        *beginnings.entry(place.key[..16].to_vec()).or_default() += 1;
        for person in &people {
            assert!(!cell.value.windows(8).any(|part| part == &person[..8]) && place.key[16..] != person[..16]);
        }
    }
    let mut counts: Vec<usize> = beginnings.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 1, 2], "two of one day, one of another, one of none");
    // What does not move the day moves no row.
    world.report(CIVIL, &[record_line(CIVIL, "volunteer-hours", "more", 1, Some(1))]).await;
    let after = world.cells(tables::DUE).await;
    assert_eq!(
        after.iter().map(|(place, _)| place).collect::<Vec<_>>(),
        rows.iter().map(|(place, _)| place).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn the_person_is_told_what_changed_and_why() {
    let world = World::new().await;
    let login = world.good(1).await;
    let told = async |world: &World| {
        let view = world.gateway.score(&login).await.unwrap();
        view.changes.iter().map(|c| (c.on.to_string(), c.from, c.to, c.cause)).collect::<Vec<_>>()
    };
    let first = ("2026-11-25".to_owned(), Some(500), Some(650), Cause::Records);
    assert_eq!(told(&world).await, [first]);
    let mut record = record_line("yx-health", "blood-donation", "b", 1, Some(1));
    record["valid_until"] = "2026-11-27".into();
    world.report("yx-health", &[record]).await;
    days(&world, 2).await;
    let ended = ("2026-11-27".to_owned(), Some(665), Some(650), Cause::Days);
    assert_eq!(told(&world).await[0], ended, "before the sweep");
    let size = world.log_size();
    assert_eq!(swept(&world).await.0, 1);
    assert_eq!(world.actions_since(size).await, ["sweep"]);
    assert_eq!(told(&world).await[0], ended, "and after it, once");
    assert_eq!(told(&world).await.len(), 3);
    days(&world, 1).await;
    assert_eq!(told(&world).await[0], ended, "days later it still says when it was");
    let line = world.report("yx-health", &[record_line("yx-health", "blood-donation", "x", 1, Some(1))]).await;
    assert_eq!(line.accepted, 1);
    world.gateway.withdraw(&caller("yx-health"), "x", "a mistake").await.unwrap();
    let told = told(&world).await;
    assert_eq!((told[0].3, told[1].3, told.len()), (Cause::Withdrawal, Cause::Records, 5));
}

/// Catalogue or model change: everybody is due at once, scores are right before anybody swept, and the pass goes on
/// from where it was stopped.
#[tokio::test]
async fn other_rules_make_everybody_due_and_the_pass_is_resumed() {
    let mut world = World::new().await;
    world.register(1..251).await;
    let records: Vec<Value> = (1..251).map(|n| hours(n, "2027-06-01")).collect();
    world.report(CIVIL, &records).await;
    let person = world.login(1).await;
    assert!(asked(&world, &person).await);
    let ended = policies_with(
        "catalogue.toml",
        &[("code = \"volunteer-hours\"\n", "code = \"volunteer-hours\"\ncounts_until = \"2026-11-27\"\n")],
    );
    world.gateway.load_policies(ended).await.unwrap();
    days(&world, 2).await;
    assert_eq!(world.score(&person).await, Some(500));
    assert!(!asked(&world, &person).await, "right without a sweep");
    let step = world.gateway.sweep().await.unwrap();
    assert!(step.more && step.renewed <= 100, "{step:?}");
    // Another process goes on: what was done is not done again.
    let files = {
        let mut files = shipped();
        change(
            &mut files,
            "catalogue.toml",
            &[("code = \"volunteer-hours\"\n", "code = \"volunteer-hours\"\ncounts_until = \"2026-11-27\"\n")],
        );
        PolicySet::parse(files).unwrap()
    };
    world.reopen_with(files, keyring()).await.unwrap();
    world.store.start_record();
    assert_eq!(step.renewed + swept(&world).await.0, 250);
    let people = |touch: &&Touch| touch.table == tables::PERSON && touch.deed == Deed::Get;
    let read = world.store.take_record().iter().filter(people).count();
    assert_eq!(read as u64, 2 * (250 - step.renewed), "each of the others is looked at once, and computed");
    assert_eq!(swept(&world).await, (0, 1));
    let told = world.gateway.score(&person).await.unwrap().changes;
    assert_eq!((told[0].from, told[0].to, told[0].cause), (Some(650), Some(500), Cause::Rules));
}

/// A store of a build that had no index: the first sweep gives everybody a row, a hundred a step, and then what is due
/// is found.
#[tokio::test]
async fn a_store_without_the_index_is_indexed_once() {
    let world = World::new().await;
    world.register(1..4).await;
    world.report(CIVIL, &[hours(1, "2026-11-26"), hours(2, "2026-11-27")]).await;
    // As such a build left it: standings that know of no row, no rows, no state.
    let decoy = Outcome { status: Status::Scored, score: Some(500), grade: None };
    let decoy = Standing::new(decoy, "2026-11-25".parse().unwrap(), None, [0; 32]);
    let vault = Vault::new(Arc::new(keyring()), Arc::new(SystemEntropy::new()), &decoy).unwrap();
    for n in 1..4 {
        let login = world.login(n).await;
        let [person, place] = [tables::PERSON, tables::STANDING].map(|table| Place::new(table, login.person().0));
        let cell = world.store.get(&person).await.unwrap().unwrap();
        let (keys, _) = vault.open_person(&login, *login.person(), cell.version, &cell.value).unwrap();
        let cell = world.store.get(&place).await.unwrap().unwrap();
        let mut standing = vault.open_standing(&keys, cell.version, &cell.value).unwrap().unwrap();
        (standing.row, standing.changes) = (0, Vec::new());
        let value = vault.seal_standing(&keys, cell.version, Some(&standing)).unwrap();
        world.put(&place, Cell { version: cell.version, value }).await;
    }
    let rows = world.cells(tables::DUE).await.into_iter().chain(world.cells(tables::SWEEP).await);
    let writes = rows.map(|(place, _)| Write::Delete(place)).collect();
    world.store.inner().commit(Batch { checks: Vec::new(), writes }).await.unwrap();
    assert_eq!(swept(&world).await.0, 3);
    assert_eq!(world.cells(tables::DUE).await.len(), 3);
    assert_eq!(swept(&world).await, (0, 1), "once");
    world.next_day();
    assert_eq!(swept(&world).await.0, 1);
    let person = world.login(1).await;
    assert_eq!(world.score(&person).await, Some(500));
}

/// A fault at every commit of a sweep, and a stop between any two steps: in the end every standing is fresh, and each
/// change is told once.
#[tokio::test]
async fn a_sweep_survives_a_fault_at_every_commit() {
    for fault in [Fault::Failed, Fault::Lost, Fault::Persisted, Fault::SyncFailed, Fault::SyncFailedPersisted] {
        for nth in 1..=3 {
            let mut world = World::new().await;
            world.register(1..221).await;
            world.report(CIVIL, &(1..221).map(|n| hours(n, "2026-11-26")).collect::<Vec<_>>()).await;
            world.next_day();
            world.store.fail_commit(nth, fault);
            let (mut failed, mut steps) = (0, 0);
            loop {
                steps += 1;
                assert!(steps < 50, "{fault:?}");
                match world.gateway.sweep().await {
                    Ok(step) if !step.more => break,
                    Ok(_) => {}
                    Err(_) => {
                        failed += 1;
                        if matches!(fault, Fault::SyncFailed | Fault::SyncFailedPersisted) {
                            world.gateway.stopped().await;
                            let inner = world.store.inner().clone();
                            world.put_store(inner);
                            world.reopen().await.unwrap();
                        }
                    }
                }
            }
            assert_eq!(failed, u32::from(fault != Fault::Persisted), "{fault:?} {nth}");
            for n in [1, 100, 101, 220] {
                let person = world.login(n).await;
                let view = world.gateway.score(&person).await.unwrap();
                let told: Vec<_> = view.changes.iter().map(|change| (change.to, change.cause)).collect();
                assert_eq!(told, [(Some(500), Cause::Days), (Some(650), Cause::Records)], "{fault:?} {nth} {n}");
            }
            let audited = audit(world.store.inner(), &keyring(), &world.outside, &mut |_| {}).await.unwrap();
            assert!(audited.findings.is_empty(), "{fault:?} {nth}: {:?}", audited.findings);
        }
    }
}

/// Reports about the same people while the sweep goes on: nothing is lost on either side.
#[tokio::test]
async fn a_sweep_beside_reports_loses_nothing() {
    let world = Arc::new(World::new().await);
    world.register(1..41).await;
    world.report(CIVIL, &(1..41).map(|n| hours(n, "2026-11-26")).collect::<Vec<_>>()).await;
    world.next_day();
    let mut calls = tokio::task::JoinSet::new();
    for part in 0..4u32 {
        let reporting = world.clone();
        calls.spawn(async move {
            for n in (part * 10 + 1)..(part * 10 + 11) {
                let id = format!("new-{n}");
                reporting.report("yx-health", &[record_line("yx-health", "blood-donation", &id, n, Some(1))]).await;
            }
        });
    }
    let sweeping = world.clone();
    calls.spawn(async move { assert!(swept(&sweeping).await.1 > 0) });
    calls.join_all().await;
    swept(&world).await;
    for n in 1..41 {
        let person = world.login(n).await;
        assert_eq!(world.score(&person).await, Some(515), "{n}");
    }
    assert_eq!(world.cells(tables::DUE).await.len(), 40);
    let audited = audit(world.store.inner(), &keyring(), &world.outside, &mut |_| {}).await.unwrap();
    assert!(audited.findings.is_empty(), "{:?}", audited.findings);
}

/// Two gateways sweep one store, each with a log of its own: the audit follows a row that one put and the other took.
#[tokio::test]
async fn two_gateways_sweep_one_store_and_the_audit_follows() {
    let (world, [one, two, _], kept) = World::of_three().await;
    let register: Vec<Value> = (1..31).map(register_line).collect();
    one.enrol(&caller("yx-public-security"), &lines(&register)).await.unwrap();
    let records: Vec<Value> = (1..31).map(|n| hours(n, "2026-11-26")).collect();
    two.report(&caller(CIVIL), &lines(&records)).await.unwrap();
    world.next_day();
    let (mut left, mut steps) = (2, 0);
    while left > 0 {
        let (first, second) = tokio::join!(two.sweep(), one.sweep());
        left = u32::from(first.unwrap().more) + u32::from(second.unwrap().more);
        steps += 1;
        assert!(steps < 50);
    }
    let again: Vec<Value> = (1..31).map(|n| hours(n, "2026-12-24")).collect();
    one.report(&caller(CIVIL), &lines(&again)).await.unwrap();
    assert_eq!(world.cells(tables::DUE).await.len(), 30);
    let brought = Brought(vec![world.outside.clone(), kept[0].clone(), kept[1].clone()]);
    for log in [1, 2] {
        let audited = audit(world.store.inner(), &keyring_for(log), &brought, &mut |_| {}).await.unwrap();
        assert!(audited.findings.is_empty(), "{:?}", audited.findings);
    }
    // And a row that is put back is named.
    let (place, cell) = world.cells(tables::DUE).await.remove(0);
    one.report(&caller(CIVIL), &lines(&(1..31).map(|n| hours(n, "2026-12-25")).collect::<Vec<_>>())).await.unwrap();
    world.put(&place, cell).await;
    let audited = audit(world.store.inner(), &keyring_for(1), &brought, &mut |_| {}).await.unwrap();
    assert!(audited.findings.iter().any(|finding| finding.what.contains("was deleted")), "{:?}", audited.findings);
}

/// A cell of one person that is damaged keeps nobody else from being swept.
#[tokio::test]
async fn a_damaged_person_holds_up_nobody() {
    let world = World::new().await;
    world.register(1..6).await;
    world.report(CIVIL, &(1..6).map(|n| hours(n, "2026-11-26")).collect::<Vec<_>>()).await;
    world.next_day();
    let (place, cell) = world.cells(tables::DOSSIER).await.remove(2);
    let mut bent = cell.clone();
    bent.value[30] ^= 1;
    world.put(&place, bent).await;
    let mut renewed = 0;
    for _ in 0..6 {
        if let Ok(step) = world.gateway.sweep().await {
            renewed += step.renewed;
        }
    }
    assert_eq!(renewed, 4);
    world.put(&place, cell).await;
    assert_eq!(swept(&world).await.0, 1);
}

/// Months in which nobody was there: every day that has come is looked at once, and what is due is found.
#[tokio::test]
async fn days_that_passed_while_nothing_ran_are_made_up() {
    let mut world = World::new().await;
    world.register(1..4).await;
    world.report(CIVIL, &[hours(1, "2026-11-26"), hours(2, "2026-12-24"), hours(3, "2027-01-24")]).await;
    days(&world, 100).await;
    world.reopen().await.unwrap();
    assert_eq!(swept(&world).await.0, 3);
    assert_eq!(swept(&world).await, (0, 1));
    assert!(world.clock.now() > "2027-03-01T00:00:00Z".parse().unwrap());
    let empty: Arc<dyn Store> = Arc::new(MemoryStore::new());
    world.put_store(empty);
    drop(world);
}
