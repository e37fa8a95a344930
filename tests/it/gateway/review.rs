//! What officers see, and that looking up a person takes two of them and leaves a trace.

use jadegate::access_log::entry::LogAction;
use jadegate::clock::Clock;
use jadegate::code::ScenarioId;
use jadegate::gateway::{CaseRequest, EntryId, LogFilter, LogLine, Refusal};
use jadegate::person::{IdType, Identity};

use crate::support::world::{World, caller, number, officer, party, refusal};

const BIKE: &str = "bike-deposit";

fn identity(n: u32) -> Identity {
    Identity::parse(IdType::ResidentId, &number(n), "2026-11-25".parse().unwrap()).unwrap()
}

fn all() -> LogFilter {
    LogFilter { limit: 1000, ..LogFilter::default() }
}

async fn case_of(world: &World, n: u32) -> String {
    let request = CaseRequest { reason: "a complaint".into(), person: identity(n) };
    world.gateway.open_case(&officer(1), &request).await.unwrap()
}

async fn read(world: &World, filter: LogFilter) -> Vec<LogLine> {
    world.gateway.access_log(&officer(1), &filter).await.unwrap()
}

#[tokio::test]
async fn a_case_opens_only_when_another_officer_confirms_it() {
    let world = World::new().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    world.asked("yx-bike", BIKE, &consent.token).await;
    let case = case_of(&world, 1).await;
    let filter = LogFilter { case: Some(case.clone()), ..all() };
    let size = world.log_size();
    for who in [1, 2] {
        assert_eq!(refusal(world.gateway.access_log(&officer(who), &filter).await), Refusal::CaseNotOpen);
    }
    assert_eq!(refusal(world.gateway.confirm_case(&officer(1), &case).await), Refusal::CaseOwn);
    assert_eq!(refusal(world.gateway.confirm_case(&officer(3), &case).await), Refusal::NotPermitted);
    assert_eq!(refusal(world.gateway.access_log(&officer(2), &filter).await), Refusal::CaseNotOpen);
    assert_eq!(world.log_size(), size);
    world.gateway.confirm_case(&officer(2), &case).await.unwrap();
    world.gateway.confirm_case(&officer(2), &case).await.unwrap();
    let lines = read(&world, filter.clone()).await;
    let actions: Vec<&str> = lines.iter().map(|line| line.action).collect();
    assert_eq!(actions, ["look-up", "ask"]);
    assert_eq!(world.actions_since(size).await, ["confirm-case", "look-up"]);
    assert_eq!(refusal(world.gateway.access_log(&officer(3), &filter).await), Refusal::NotPermitted, "the operator");
    for unknown in ["", "x", &"0".repeat(32), &case.to_uppercase()] {
        if *unknown != case {
            let filter = LogFilter { case: Some(unknown.into()), ..all() };
            assert_eq!(refusal(world.gateway.access_log(&officer(1), &filter).await), Refusal::NotFound);
            assert_eq!(refusal(world.gateway.confirm_case(&officer(2), unknown).await), Refusal::NotFound);
        }
    }
}

#[tokio::test]
async fn a_case_shows_its_own_person_and_can_be_about_somebody_unknown() {
    let world = World::new().await;
    let (anna, bert) = (world.good(1).await, world.good(2).await);
    for login in [&anna, &bert] {
        let consent = world.consent(login, "yx-bike", BIKE, 5).await;
        world.asked("yx-bike", BIKE, &consent.token).await;
    }
    let cases = [case_of(&world, 1).await, case_of(&world, 9).await];
    let mut counts = Vec::new();
    for case in cases {
        world.gateway.confirm_case(&officer(2), &case).await.unwrap();
        let lines = read(&world, LogFilter { case: Some(case), ..all() }).await;
        counts.push(lines.len());
    }
    assert_eq!(counts, [2, 1], "the ask and the look-up; the look-up alone");
}

#[tokio::test]
async fn a_reason_is_said_and_nobody_but_an_officer_opens_a_case() {
    let world = World::new().await;
    let size = world.log_size();
    for reason in ["", "  \n", &"x".repeat(1001)] {
        let request = CaseRequest { reason: reason.into(), person: identity(1) };
        let refused = refusal(world.gateway.open_case(&officer(1), &request).await);
        assert!(matches!(refused, Refusal::OutOfRange { field: "reason", .. }));
    }
    let request = CaseRequest { reason: "x".into(), person: identity(1) };
    assert_eq!(refusal(world.gateway.open_case(&officer(3), &request).await), Refusal::NotPermitted);
    assert_eq!(refusal(world.gateway.access_log(&officer(3), &all()).await), Refusal::NotPermitted);
    assert_eq!(refusal(world.gateway.summary(&officer(3), &all()).await), Refusal::NotPermitted);
    assert_eq!(world.log_size(), size);
}

/// No outcome, no score, no name: two cities that differ in all of these have the same log.
#[tokio::test]
async fn the_log_says_nothing_about_the_outcome() {
    let mut logs = Vec::new();
    for (n, quantity) in [(1, 300), (77, 10)] {
        let world = World::new().await;
        world.register(n..n + 1).await;
        let hours = crate::support::world::record_line("yx-civil-affairs", "volunteer-hours", "r", n, Some(quantity));
        world.report("yx-civil-affairs", &[hours]).await;
        let login = world.login(n).await;
        let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
        let nonce = world.fresh("nonce");
        for _ in 0..2 {
            let said = world.ask_as(&caller("yx-bike"), BIKE, &consent.token, &nonce).await.unwrap();
            assert_eq!(said.met, quantity == 300);
        }
        let decline = world.decline(&login, "yx-bike", BIKE).await;
        world.asked("yx-bike", BIKE, &decline.token).await;
        logs.push(read(&world, all()).await);
    }
    assert_eq!(logs[0].len(), 9);
    assert_eq!(logs[0], logs[1]);
    assert!(logs[0].iter().filter(|line| line.party == Some(party("yx-bike"))).all(|line| line.rule.is_some()));
}

#[tokio::test]
async fn the_log_is_filtered_and_paged() {
    let world = World::new().await;
    let start = world.clock.now();
    let login = world.good(1).await;
    let bike = world.consent(&login, "yx-bike", BIKE, 100).await;
    let library = world.consent(&login, "yx-library", "library-deposit", 100).await;
    for _ in 0..5 {
        world.asked("yx-bike", BIKE, &bike.token).await;
        world.advance(1800);
        world.asked("yx-library", "library-deposit", &library.token).await;
        world.advance(1800);
    }
    let whole = read(&world, all()).await;
    assert_eq!(whole.len() as u64, world.log_size());
    assert!(whole.windows(2).all(|two| two[0].index == two[1].index + 1));
    let fitting =
        |fits: &dyn Fn(&LogLine) -> bool| -> Vec<LogLine> { whole.iter().filter(|line| fits(line)).cloned().collect() };
    let later = start.checked_add(jiff::SignedDuration::from_mins(75)).unwrap();
    let end = start.checked_add(jiff::SignedDuration::from_mins(180)).unwrap();
    let scenario = ScenarioId::parse(BIKE).unwrap();
    for (filter, expected) in [
        (LogFilter { from: Some(later), ..all() }, fitting(&|line| line.at >= later)),
        (LogFilter { to: Some(later), ..all() }, fitting(&|line| line.at < later)),
        (LogFilter { from: Some(later), to: Some(end), ..all() }, fitting(&|line| line.at >= later && line.at < end)),
        (LogFilter { party: Some(party("yx-bike")), ..all() }, fitting(&|line| line.party == Some(party("yx-bike")))),
        (
            LogFilter { scenario: Some(scenario.clone()), ..all() },
            fitting(&|line| line.scenario == Some(scenario.clone())),
        ),
        (LogFilter { action: Some(LogAction::Consent), ..all() }, fitting(&|line| line.action == "consent")),
        (LogFilter { from: Some(world.clock.now()), ..all() }, vec![]),
    ] {
        assert_eq!(read(&world, filter).await, expected);
    }
    assert!(fitting(&|line| line.at >= later).len() > 3);
    let (mut paged, mut before) = (Vec::new(), None);
    loop {
        let page = read(&world, LogFilter { party: Some(party("yx-bike")), limit: 2, before, ..all() }).await;
        let Some(last) = page.last() else { break };
        before = Some(last.id());
        paged.extend(page);
    }
    assert_eq!(paged, fitting(&|line| line.party == Some(party("yx-bike"))));
    // `before` names an entry of the list: not one beyond it, nor one that the filter leaves out.
    let first = |index| EntryId { log: 1, index };
    for before in [first(world.log_size()), first(u64::MAX), first(0), EntryId { log: 2, index: 0 }] {
        let filter = LogFilter { party: Some(party("yx-bike")), before: Some(before), ..all() };
        assert!(
            matches!(refusal(world.gateway.access_log(&officer(1), &filter).await), Refusal::BadPage(_)),
            "{before}"
        );
    }
    let summary = world.gateway.summary(&officer(1), &all()).await.unwrap();
    assert!(!summary.truncated);
    assert_eq!(summary.rows.iter().map(|row| row.count).sum::<u64>(), world.log_size());
    let asks: Vec<u64> = summary.rows.iter().filter(|row| row.action == "ask").map(|row| row.count).collect();
    assert_eq!(asks, [5, 5]);
}
