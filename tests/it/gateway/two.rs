//! Several gateways over one store: each writes a log of its own, and nothing that one of them holds in memory is needed
//! by another. Two that name one log by mistake never make two histories: one of them stops.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jadegate::access_log::checkpoint::VerifierKey;
use jadegate::access_log::proof::Proof;
use jadegate::access_log::{Hash, leaf_hash};
use jadegate::clock::{Clock, ManualClock};
use jadegate::gateway::{AskRequest, ConsentRequest, EntryId, Gateway, LogFilter, LogLine, Refusal};
use jadegate::ledger::audit::{Audit, audit};
use jadegate::store::{Batch, Cell, CommitError, Place, Store, StoreError, Table};
use jadegate::tables;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::support::tree::naive_root;
use crate::support::world::{
    Brought, Kept, World, caller, keyring_for, lines, officer, policies_with, record_line, refusal,
};

const BIKE: &str = "bike-deposit";
const CIVIL: &str = "yx-civil-affairs";

async fn audited(world: &World, kept: &[Kept]) -> Audit {
    let copies = Brought(std::iter::once(&world.outside).chain(kept).cloned().collect());
    audit(world.store.inner(), &keyring_for(1), &copies, &mut |_| {}).await.unwrap()
}

/// Every log, read through one gateway, verifies from its first entry to its checkpoint.
async fn each_log_verifies(through: &Gateway) -> u64 {
    let mut entries = 0;
    for (name, log) in through.logs().names().iter().zip(through.logs().all().await.unwrap()) {
        let checkpoint = name.verifier.open(&log.checkpoint()).unwrap();
        let leaves: Vec<Hash> =
            log.entries(0, checkpoint.size).await.unwrap().iter().map(|entry| leaf_hash(entry)).collect();
        assert_eq!(naive_root(&leaves), checkpoint.root, "{}", name.name);
        entries += checkpoint.size;
    }
    entries
}

async fn ask(gateway: &Gateway, token: &str, nonce: &str) -> serde_json::Value {
    let request = AskRequest { scenario: BIKE.into(), consent: token.into(), nonce: format!("{nonce:->24}") };
    let body = gateway.ask(&caller("yx-bike"), &request).await.unwrap().into_body();
    assert_eq!(body.len(), 4096);
    serde_json::from_slice(&body).unwrap()
}

fn is_met(said: &serde_json::Value) -> bool {
    said["answer"] == "met"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_through_all_lose_nothing() {
    let (world, gateways, kept) = World::of_three().await;
    world.register(1..2).await;
    let mut calls = JoinSet::new();
    for i in 0..18 {
        let gateway = gateways[i % 3].clone();
        calls.spawn(async move {
            let record = record_line(CIVIL, "volunteer-hours", &format!("r-{i}"), 1, Some(2));
            gateway.report(&caller(CIVIL), &lines(&[record])).await.unwrap().accepted
        });
    }
    assert_eq!(calls.join_all().await, [1; 18]);
    let login = world.login(1).await;
    assert_eq!(world.score(&login).await, Some(518));
    let entries = each_log_verifies(&gateways[2]).await;
    let audit = audited(&world, &kept).await;
    assert_eq!((audit.findings, audit.entries, audit.unwitnessed), (vec![], entries, vec![]));
}

/// INVARIANT (one answer a day): whichever gateway answers first, all answer from its cell until midnight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_person_asked_through_all_at_once_has_one_cell_a_day() {
    let (world, gateways, kept) = World::of_three().await;
    let login = world.good(1).await;
    let consents = [
        world.consent(&login, "yx-bike", BIKE, 300).await,
        world.consent(&login, "yx-bike", BIKE, 300).await,
        world.consent(&login, "yx-bike", BIKE, 300).await,
    ];
    let before = world.cells(tables::TODAY).await.len();
    let mut calls = JoinSet::new();
    for i in 0..30 {
        let (gateway, token) = (gateways[i % 3].clone(), consents[(i / 3) % 3].token.clone());
        calls.spawn(async move { is_met(&ask(&gateway, &token, &format!("nonce-nonce-nonce-{i}")).await) });
        if i == 12 {
            // Their score falls while they are asked about; today's cell does not.
            let gateway = gateways[1].clone();
            calls.spawn(async move {
                let record = record_line("yx-court", "defaulter-list", "d-1", 1, None);
                gateway.report(&caller("yx-court"), &lines(&[record])).await.unwrap().accepted == 1
            });
        }
    }
    let met = calls.join_all().await;
    // Either the first answer of the day came before the fall or after it: the rest follow it.
    let answers: BTreeSet<bool> = {
        let mut said = Vec::new();
        for (i, gateway) in gateways.iter().enumerate() {
            said.push(is_met(&ask(gateway, &consents[i].token, &format!("nonce-nonce-again-{i}")).await));
        }
        said.into_iter().collect()
    };
    assert_eq!(answers.len(), 1, "one cell for all three");
    let first = answers.contains(&true);
    assert_eq!(met.iter().filter(|met| **met).count(), if first { 31 } else { 1 });
    // One row was fixed; every other call wrote one that only looks like it.
    assert_eq!(world.cells(tables::TODAY).await.len() - before, 33);
    for gateway in &gateways {
        assert_eq!(
            gateway.look(&login, BIKE).await.map(|look| (look.fixed, look.decision.met)).unwrap(),
            (true, first)
        );
    }
    each_log_verifies(&gateways[0]).await;
    assert_eq!(audited(&world, &kept).await.findings, []);
}

/// A store in which the first commit of a day's row is held up until the test says so.
struct Held {
    store: Arc<dyn Store>,
    reached: Mutex<Option<oneshot::Sender<()>>>,
    go: Mutex<Option<oneshot::Receiver<()>>>,
}

#[async_trait::async_trait]
impl Store for Held {
    async fn get(&self, place: &Place) -> Result<Option<Cell>, StoreError> {
        self.store.get(place).await
    }

    async fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Cell)>, StoreError> {
        self.store.scan(table, from, to, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        if batch.writes.iter().any(|write| write.place().table == tables::TODAY) {
            let (reached, go) = (self.reached.lock().unwrap().take(), self.go.lock().unwrap().take());
            if let (Some(reached), Some(go)) = (reached, go) {
                reached.send(()).unwrap();
                go.await.unwrap();
            }
        }
        self.store.commit(batch).await
    }
}

/// INVARIANT (one answer a day): a gateway that has read, decided and signed "met" must decide anew when another one has
/// fixed the day's cell before it could commit.
#[tokio::test]
async fn who_decided_before_another_fixed_the_days_cell_decides_anew() {
    let (world, gateways, kept) = World::of_three().await;
    let login = world.good(1).await;
    let mine = world.consent(&login, "yx-bike", BIKE, 9).await;
    let other = world.consent(&login, "yx-bike", BIKE, 9).await;
    let [_, second, _] = gateways;
    drop(second);
    let ((reached, is_reached), (go, gone)) = (oneshot::channel(), oneshot::channel());
    let store = world.store.inner().clone();
    let held = Held { store, reached: Mutex::new(Some(reached)), go: Mutex::new(Some(gone)) };
    let slow = world.beside_over(Arc::new(held), 2, &kept[0]).await;
    let (asking, token) = (slow.clone(), mine.token.clone());
    let answer = tokio::spawn(async move { is_met(&ask(&asking, &token, "held-up").await) });
    is_reached.await.unwrap();
    world.make_defaulter(1).await;
    assert!(!is_met(&ask(&world.gateway, &other.token, "before-it").await));
    go.send(()).unwrap();
    assert!(!answer.await.unwrap(), "two cells on one day");
    assert_eq!(audited(&world, &kept).await.findings, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_shown_to_all_is_met_once() {
    let (world, gateways, kept) = World::of_three().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 9).await;
    let code = world.code(&login, &consent).await;
    let mut calls = JoinSet::new();
    for i in 0..50 {
        let (gateway, code) = (gateways[i % 3].clone(), code.clone());
        calls.spawn(async move { is_met(&ask(&gateway, &code, &format!("nonce-nonce-nonce-{i}")).await) });
    }
    assert_eq!(calls.join_all().await.into_iter().filter(|met| *met).count(), 1);
    assert_eq!(world.uses_left(&login).await, 8);
    for gateway in &gateways {
        assert_eq!(gateway.accesses(&login, None, 100).await.unwrap().len(), 50);
    }
    assert_eq!(audited(&world, &kept).await.findings, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uses_are_never_overspent_through_several_gateways() {
    let (world, gateways, _) = World::of_three().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 7).await;
    let mut calls = JoinSet::new();
    for i in 0..30 {
        let (gateway, token) = (gateways[i % 3].clone(), consent.token.clone());
        calls.spawn(async move { is_met(&ask(&gateway, &token, &format!("nonce-nonce-nonce-{i}")).await) });
    }
    assert_eq!(calls.join_all().await.into_iter().filter(|met| *met).count(), 7);
    assert_eq!(world.uses_left(&login).await, 0);
}

/// A revocation through one gateway holds for the next ask through any, and a signature's nonce is spent everywhere.
#[tokio::test]
async fn what_one_gateway_did_holds_at_the_next_call_of_all() {
    let (world, gateways, _) = World::of_three().await;
    let login = world.good(1).await;
    for (by, revoking) in gateways.iter().enumerate() {
        let consent = world.consent(&login, "yx-bike", BIKE, 100).await;
        for (i, gateway) in gateways.iter().enumerate() {
            assert!(is_met(&ask(gateway, &consent.token, &format!("nonce-before-{by}-{i}")).await));
        }
        revoking.revoke(&login, &consent.id.to_text()).await.unwrap();
        for (i, gateway) in gateways.iter().enumerate() {
            assert!(!is_met(&ask(gateway, &consent.token, &format!("nonce-after-{by}-{i}")).await), "{by} {i}");
            // Nor does a repeat of what was met before.
            assert!(!is_met(&ask(gateway, &consent.token, &format!("nonce-before-{by}-{i}")).await), "{by} {i}");
        }
    }
    // A session made at one holds at all, and ends at all.
    let token = gateways[1].demo_login(&crate::support::world::number(1)).await.unwrap();
    for gateway in &gateways {
        assert!(gateway.session(&token).await.unwrap().is_some());
    }
    gateways[0].log_out(&token).await.unwrap();
    for gateway in &gateways {
        assert!(gateway.session(&token).await.unwrap().is_none());
    }
    // A code made at one is the last one everywhere.
    let consent = world.consent(&login, "yx-bike", BIKE, 100).await;
    let id = consent.id.to_text();
    let first = gateways[0].make_code(&login, &id).await.unwrap().code.to_text();
    let second = gateways[1].make_code(&login, &id).await.unwrap().code.to_text();
    assert!(!is_met(&ask(&gateways[2], &first, "nonce-first-code").await));
    assert!(is_met(&ask(&gateways[2], &second, "nonce-second-code").await));
    // A signature that one has seen is refused by all.
    let signed = world.signed("yx-bike", "signature-nonce-once");
    let request =
        |nonce: &str| AskRequest { scenario: BIKE.into(), consent: consent.token.clone(), nonce: nonce.into() };
    gateways[0].ask(&signed, &request("nonce-signed-once-1")).await.unwrap();
    for gateway in &gateways {
        let again = gateway.ask(&signed, &request("nonce-signed-once-2")).await.map(|answer| answer.into_body());
        assert_eq!(crate::support::world::refusal(again), jadegate::gateway::Refusal::ReplayedSignature);
    }
}

/// A call sent again to another gateway gets the very same answer, with the proof from the first one's log.
#[tokio::test]
async fn a_repeat_through_another_gateway_is_the_same_answer_from_the_first_ones_log() {
    let (world, gateways, _) = World::of_three().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 9).await;
    let key = |log: usize| -> VerifierKey { gateways[0].logs().names()[log].verifier.clone() };
    for (by, first) in gateways.iter().enumerate() {
        let nonce = format!("nonce-repeat-of-{by}");
        let said = ask(first, &consent.token, &nonce).await;
        assert!(is_met(&said));
        let proof = Proof::parse(said["proof"].as_str().unwrap()).unwrap();
        proof.verify(&key(by)).unwrap();
        assert!(proof.verify(&key((by + 1) % 3)).is_err(), "another log's key does not verify it");
        let attestation = said["attestation"].as_str().unwrap();
        assert_eq!(proof.extra[..32], *Sha256::digest(attestation.as_bytes()));
        for gateway in &gateways {
            assert_eq!(ask(gateway, &consent.token, &nonce).await, said, "of {by}");
        }
    }
    assert_eq!(world.uses_left(&login).await, 6);
    // The person sees all twelve, each with a proof from the log that it stands in, the same through all.
    let seen = gateways[2].accesses(&login, None, 100).await.unwrap();
    assert_eq!(seen.len(), 12);
    assert_eq!(seen.iter().map(|view| view.log).collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 3]));
    for view in &seen {
        view.proof.verify(&key(usize::from(view.log) - 1)).unwrap();
        assert_eq!(view.proof.index, view.index);
        assert!(gateways[0].access_proof(&login, view.id()).await.unwrap().is_some());
    }
    let ids = |views: Vec<jadegate::gateway::AccessView>| views.iter().map(|view| view.id()).collect::<Vec<_>>();
    let whole = ids(seen);
    let (mut paged, mut before) = (Vec::new(), None);
    for page in 0.. {
        let views = ids(gateways[page % 3].accesses(&login, before, 5).await.unwrap());
        let Some(last) = views.last() else { break };
        before = Some(*last);
        paged.extend(views);
    }
    assert_eq!(paged, whole);
}

async fn read(gateway: &Gateway, filter: LogFilter) -> Vec<LogLine> {
    gateway.access_log(&officer(1), &filter).await.unwrap()
}

/// Officers see one log by time, the same through every gateway, whatever is logged while they turn its pages.
#[tokio::test]
async fn the_officers_view_merges_all_logs_by_time() {
    let (world, gateways, _) = World::of_three().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 300).await;
    for i in 0..40 {
        ask(&gateways[i * i % 3], &consent.token, &format!("nonce-officer-{i}")).await;
        if i % 4 != 0 {
            world.advance(700);
        }
    }
    let all = |limit| LogFilter { limit, ..LogFilter::default() };
    let whole = read(&gateways[0], all(1_000)).await;
    assert_eq!(whole.len() as u64, each_log_verifies(&gateways[1]).await);
    assert!(whole.windows(2).all(|two| (two[0].at, two[0].id()) > (two[1].at, two[1].id())), "by time, then by place");
    for gateway in &gateways[1..] {
        assert_eq!(read(gateway, all(1_000)).await, whole);
    }
    let (mut paged, mut before) = (Vec::<LogLine>::new(), None);
    for turn in 0.. {
        let page = read(&gateways[turn % 3], LogFilter { before, ..all(7) }).await;
        let Some(last) = page.last() else { break };
        before = Some(last.id());
        paged.extend(page);
        // What is logged in between is newer than every page to come.
        ask(&gateways[(turn + 1) % 3], &consent.token, &format!("nonce-between-{turn}")).await;
    }
    assert_eq!(paged, whole);
    let middle = whole[whole.len() / 2].at;
    let (since, until): (Vec<_>, Vec<_>) = whole.iter().cloned().partition(|line| line.at >= middle);
    assert_eq!(read(&gateways[1], LogFilter { to: Some(middle), ..all(1_000) }).await, until);
    let newer = read(&gateways[1], LogFilter { from: Some(middle), ..all(1_000) }).await;
    assert!(newer.ends_with(&since) && newer.len() > since.len());
    let summary = gateways[2].summary(&officer(1), &all(1)).await.unwrap();
    assert_eq!(summary.rows.iter().map(|row| row.count).sum::<u64>(), each_log_verifies(&gateways[0]).await);
}

#[test]
fn an_entrys_id_has_one_spelling() {
    for (text, id) in [("0", (1, 0)), ("17", (1, 17)), ("2-0", (2, 0)), ("256-18446744073709551615", (256, u64::MAX))] {
        let id = EntryId { log: id.0, index: id.1 };
        assert_eq!((EntryId::parse(text), id.to_string().as_str()), (Some(id), text));
        assert_eq!(EntryId::from_bytes(&id.to_bytes()), id);
    }
    for wrong in ["", "-", "1-17", "01", "+1", "2-", "-2", "2-01", "02-1", "2--1", "65536-1", "2-1-1", " 1"] {
        assert_eq!(EntryId::parse(wrong), None, "{wrong}");
    }
}

/// Two that write one log by mistake: never two histories, and one of them says so and stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_gateways_that_write_one_log_one_stops_and_says_so() {
    let mut world = World::new().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 300).await;
    let other = world.another(2).await;
    let mut calls = JoinSet::new();
    for i in 0..24 {
        let gateway = [world.gateway.clone(), other.clone()][i % 2].clone();
        let (token, nonce) = (consent.token.clone(), format!("nonce-nonce-nonce-{i}"));
        calls.spawn(async move {
            let request = AskRequest { scenario: BIKE.into(), consent: token, nonce };
            gateway.ask(&caller("yx-bike"), &request).await.is_ok()
        });
    }
    let answered = calls.join_all().await.into_iter().filter(|answered| *answered).count();
    let first = world.gateway.clone();
    let stopped = async {
        tokio::select! {
            reason = first.stopped() => reason,
            reason = other.stopped() => reason,
        }
    };
    let reason = tokio::time::timeout(Duration::from_secs(60), stopped).await.expect("one of them stops");
    assert!(reason.contains("another process writes the log yuxi.example/log"), "{reason}");
    drop((first, other));
    world.reopen().await.unwrap();
    let login = world.login(1).await;
    assert_eq!(300 - world.uses_left(&login).await, u32::try_from(answered).unwrap());
    assert_eq!(super::log::audit(&world).await, [] as [&str; 0]);
}

/// A log that nobody writes any more is read and verified as before.
#[tokio::test]
async fn a_log_that_nobody_writes_any_more_is_served_and_verified() {
    let (world, gateways, kept) = World::of_three().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 9).await;
    let said = ask(&gateways[1], &consent.token, "nonce-of-the-second").await;
    let [first, second, third] = gateways;
    drop(second);
    let again = ask(&third, &consent.token, "nonce-of-the-second").await;
    assert_eq!(again, said);
    world.advance(5);
    assert_eq!(
        each_log_verifies(&first).await,
        read(&first, LogFilter { limit: 1_000, ..LogFilter::default() }).await.len() as u64
    );
    let only_mine = audit(world.store.inner(), &keyring_for(1), &world.outside, &mut |_| {}).await.unwrap();
    assert_eq!(only_mine.findings, []);
    assert_eq!(only_mine.unwitnessed, ["yuxi.example/log-2", "yuxi.example/log-3"]);
    assert_eq!(audited(&world, &kept).await.unwitnessed, [] as [&str; 0]);
}

/// The store is distrusted: a log of another gateway that gets shorter or other is not read any further.
#[tokio::test]
async fn another_gateways_log_that_is_rolled_back_shows_at_the_next_look() {
    let (world, gateways, _) = World::of_three().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 9).await;
    let older = world.cells(tables::CHECKPOINT).await;
    ask(&gateways[1], &consent.token, "nonce-of-the-second").await;
    each_log_verifies(&gateways[0]).await;
    for (place, cell) in older {
        world.put(&place, cell).await;
    }
    let rolled = gateways[0].logs().log(2).await.map(|log| log.size());
    assert!(rolled.is_err_and(|error| error.to_string().contains("log-2")));
}

/// INVARIANT (policies are evidence): what a set that one gateway loaded takes away is gone at the next call of all; what it
/// adds waits for the next day at all; and a gateway that starts from an old folder takes nobody back to it.
#[tokio::test]
async fn what_one_gateway_loads_holds_at_all() {
    let (world, gateways, kept) = World::of_three().await;
    let login = world.good(1).await;
    let both = r#"parties = ["yx-bike", "yx-ebike"]"#;
    let consent = world.consent(&login, "yx-ebike", BIKE, 9).await;
    let asked = async |gateway: &Gateway, nonce: &str| {
        let nonce = format!("{nonce:->24}");
        let request = AskRequest { scenario: BIKE.into(), consent: consent.token.clone(), nonce };
        gateway.ask(&caller("yx-ebike"), &request).await.map(|answer| answer.into_body())
    };
    for (i, gateway) in gateways.iter().enumerate() {
        asked(gateway, &format!("before-{i}")).await.unwrap();
    }
    let fewer = policies_with("scenarios.toml", &[(both, r#"parties = ["yx-bike"]"#)]);
    gateways[1].load_policies(fewer).await.unwrap();
    for (i, gateway) in gateways.iter().enumerate() {
        assert_eq!(refusal(asked(gateway, &format!("after-{i}")).await), Refusal::UnknownScenario, "{i}");
    }
    // Begun from the folder of yesterday, a fourth run of the third goes on with what the city has.
    let [first, second, third] = gateways;
    drop(third);
    let gateways = [first, second, world.beside(3, &kept[1]).await];
    let fresh = &gateways[2];
    assert_eq!(refusal(asked(fresh, "from-an-old-folder").await), Refusal::UnknownScenario);
    assert_eq!(refusal(asked(&gateways[0], "and-nobody-is-taken-back").await), Refusal::UnknownScenario);

    world.next_day();
    for gateway in &gateways {
        assert_eq!(refusal(asked(gateway, "nor-on-the-next-day").await), Refusal::UnknownScenario);
    }

    let more = policies_with("scenarios.toml", &[(both, r#"parties = ["yx-bike", "yx-ebike", "yx-bus"]"#)]);
    gateways[0].load_policies(more).await.unwrap();
    let may = async |gateway: &Gateway| {
        let party = Some("yx-bus".to_owned());
        let request = ConsentRequest { scenario: BIKE.into(), party, ..Default::default() };
        gateway.give_consent(&login, &request).await.is_ok()
    };
    for gateway in &gateways {
        assert!(!may(gateway).await);
    }
    world.next_day();
    for gateway in &gateways {
        assert!(may(gateway).await);
    }
}

/// INVARIANT (same in, same score): a gateway that does not read what is in force answers nothing.
#[tokio::test]
async fn a_gateway_that_cannot_follow_answers_nothing() {
    let (world, gateways, _) = World::of_three().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 9).await;
    let fewer =
        policies_with("scenarios.toml", &[(r#"parties = ["yx-bike", "yx-ebike"]"#, r#"parties = ["yx-bike"]"#)]);
    let before = world.cells(tables::POLICY).await;
    gateways[1].load_policies(fewer).await.unwrap();
    let mut new = world.cells(tables::POLICY).await;
    new.retain(|(place, _)| place.key.starts_with(b"set ") && !before.iter().any(|(old, _)| old == place));
    let (place, cell) = new[0].clone();
    let mut bent = cell.clone();
    bent.value[40] ^= 1;
    world.put(&place, bent).await;
    let request = |nonce: &str| AskRequest {
        scenario: BIKE.into(),
        consent: consent.token.clone(),
        nonce: format!("{nonce:->24}"),
    };
    let said = gateways[0].ask(&caller("yx-bike"), &request("bent")).await;
    assert!(crate::support::world::is_fault(&said));
    world.put(&place, cell).await;
    assert!(gateways[0].ask(&caller("yx-bike"), &request("whole")).await.is_ok());
    // An older history is no way back.
    let history = before.iter().find(|(place, _)| place.key == b"history").unwrap().clone();
    world.put(&history.0, history.1).await;
    assert!(crate::support::world::is_fault(&gateways[0].ask(&caller("yx-bike"), &request("rolled back")).await));
}

/// Two clocks around midnight: each gateway answers of its own day, and each day has one cell.
#[tokio::test]
async fn around_midnight_each_day_has_one_cell_whatever_the_clocks_say() {
    let (world, gateways, kept) = World::of_three().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 100).await;
    assert!(is_met(&ask(&gateways[0], &consent.token, "today").await));
    // Five seconds before midnight the second gateway's clock is eight seconds ahead.
    drop(gateways);
    world.next_day();
    let at = |seconds| world.clock.now().saturating_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
    let (late, early) = (at(-6), at(2));
    let [slow_clock, fast_clock] = [late, early].map(|now| Arc::new(ManualClock::new(now)));
    let slow = world.beside_at(3, &kept[1], &slow_clock).await;
    let fast = world.beside_at(2, &kept[0], &fast_clock).await;
    let day = |said: &serde_json::Value| -> String {
        use base64::Engine;
        let part = said["attestation"].as_str().unwrap().split('.').nth(1).unwrap();
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap();
        serde_json::from_slice::<serde_json::Value>(&claims).unwrap()["as_of"].as_str().unwrap().into()
    };
    world.make_defaulter(1).await;
    for turn in 0..3 {
        let yesterday = ask(&slow, &consent.token, &format!("slow-{turn}")).await;
        assert_eq!((is_met(&yesterday), day(&yesterday).as_str()), (true, "2026-11-25"), "that day's cell holds");
        assert!(!is_met(&ask(&fast, &consent.token, &format!("fast-{turn}")).await), "the new day's is lower");
    }
    slow_clock.advance(Duration::from_secs(10));
    assert!(!is_met(&ask(&slow, &consent.token, "slow-after").await));
    assert!(slow.look(&login, BIKE).await.unwrap().fixed, "by the gateway that was there first");
    each_log_verifies(&slow).await;
}
