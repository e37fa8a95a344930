//! INVARIANT (no receipt, no answer): every use case with a fault at each of its commits, in every form. How many commits
//! there are is counted; which use cases there are is read from the sources, so that a new one must be added here.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;

use jadegate::access_log::entry::LogAction;
use jadegate::authority::Login;
use jadegate::gateway::{
    AskRequest, CaseRequest, ConsentRequest, GatewayError, Intake, LoadError, LogFilter, MarketRequest, NewConsent,
    Refusal,
};
use jadegate::ledger::audit::audit;
use jadegate::person::{IdType, Identity};
use jadegate::policies::{PolicySet, shipped};
use jadegate::store::faulty::Fault;
use jadegate::store::memory::MemoryStore;
use jadegate::tables;
use serde_json::Value;

use super::models::{approved, operator, stricter};
use crate::support::files_under;
use crate::support::nightly;
use crate::support::world::{
    Kept, World, caller, keyring, lines, number, officer, policies_with, record_line, register_line, rotated_keyring,
};

const BIKE: &str = "bike-deposit";
const FAULTS: [Fault; 5] =
    [Fault::Failed, Fault::Lost, Fault::Persisted, Fault::SyncFailed, Fault::SyncFailedPersisted];
/// More than one batch of an upload.
const MANY: u32 = 501;

/// What every use case finds.
struct Setting {
    login: Login,
    consent: NewConsent,
    code: String,
    case: String,
    confirmed: String,
    session: String,
    batch: String,
    market: String,
}

async fn setting() -> (World, Setting) {
    let world = World::new().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    let code = world.code(&login, &consent).await;
    let open = async || world.gateway.open_case(&officer(1), &case_request()).await.unwrap();
    let (case, confirmed) = (open().await, open().await);
    world.gateway.confirm_case(&officer(2), &confirmed).await.unwrap();
    let session = world.gateway.demo_login(&number(1)).await.unwrap();
    let record = record_line("yx-civil-affairs", "volunteer-hours", "to-withdraw", 1, Some(1));
    let batch = world.report("yx-civil-affairs", &[record]).await.batches[0].id.to_text();
    let request = MarketRequest { provider: "yx-telecom".into(), indicators: None };
    let market = world.gateway.give_market_consent(&login, &request).await.unwrap().id;
    for (n, reference) in [market.as_str(), "paper:1"].into_iter().enumerate() {
        let mut bill = record_line("yx-telecom", "telecom-arrears", &format!("bill-{n}"), 1, None);
        bill["consent_ref"] = reference.into();
        assert_eq!(world.report("yx-telecom", &[bill]).await.accepted, 1);
    }
    (world, Setting { login, consent, code, case, confirmed, session, batch, market })
}

fn case_request() -> CaseRequest {
    let person = Identity::parse(IdType::ResidentId, &number(1), "2026-11-25".parse().unwrap()).unwrap();
    CaseRequest { reason: "a complaint".into(), person }
}

/// What a call came to: `None` is a fault; the first text is the same for the same call again, the second in every world.
type Outcome = Option<(String, String)>;
type Call = for<'a> fn(&'a mut World, &'a Setting) -> Pin<Box<dyn Future<Output = Outcome> + 'a>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The same call again changes nothing more.
    Once,
    /// Each call that is done makes one more.
    Another,
    /// A session: the one change that is not the ledger's, so an unknown outcome stays unknown.
    Session,
}

struct Case {
    name: &'static str,
    kind: Kind,
    call: Call,
}

fn told<T>(result: Result<T, GatewayError>, text: impl FnOnce(T) -> (String, String)) -> Outcome {
    match result {
        Ok(done) => Some(text(done)),
        Err(GatewayError::Refused(refusal)) => Some((format!("{refusal:?}"), format!("{refusal:?}"))),
        Err(GatewayError::Fault(_)) => None,
    }
}

fn same(text: impl std::fmt::Debug) -> (String, String) {
    (format!("{text:?}"), format!("{text:?}"))
}

fn taken(intake: Intake) -> (String, String) {
    same((intake.accepted + intake.unchanged, intake.replaced, intake.rejected))
}

/// The bytes of an answer, and whether it was met.
async fn asked(world: &World, shown: &str) -> Outcome {
    let nonce = "one-nonce-for-all-calls".to_owned();
    let request = AskRequest { scenario: BIKE.into(), consent: shown.into(), nonce };
    told(world.gateway.ask(&caller("yx-bike"), &request).await, |answer| {
        let body = String::from_utf8(answer.into_body()).unwrap();
        let met = body.contains(r#""answer":"met""#);
        (body, met.to_string())
    })
}

async fn look_up(world: &World, case: &str) -> Outcome {
    let filter = LogFilter { case: Some(case.to_owned()), limit: 100, ..LogFilter::default() };
    // Every look-up is one line more.
    told(world.gateway.access_log(&officer(1), &filter).await, |lines| same(!lines.is_empty()))
}

fn records(people: std::ops::Range<u32>) -> Vec<u8> {
    let line = |n: u32| record_line("yx-civil-affairs", "volunteer-hours", &format!("many-{n}"), n, Some(1));
    lines(&people.map(line).collect::<Vec<Value>>())
}

fn another_set() -> PolicySet {
    policies_with("scenarios.toml", &[(r#"parties = ["yx-bike", "yx-ebike"]"#, r#"parties = ["yx-bike"]"#)])
}

const CASES: [Case; 33] = [
    Case { name: "ask by token", kind: Kind::Once, call: |w, s| Box::pin(async { asked(w, &s.consent.token).await }) },
    Case { name: "ask by code", kind: Kind::Once, call: |w, s| Box::pin(async { asked(w, &s.code).await }) },
    Case {
        name: "a report of several batches",
        kind: Kind::Once,
        call: |w, _| {
            Box::pin(async {
                let signed = w.signed("yx-civil-affairs", &w.fresh("signature"));
                told(w.gateway.report(&signed, &records(1000..1000 + MANY)).await, taken)
            })
        },
    },
    Case {
        name: "a report about somebody with a score",
        kind: Kind::Once,
        call: |w, _| {
            Box::pin(async { told(w.gateway.report(&caller("yx-civil-affairs"), &records(1..2)).await, taken) })
        },
    },
    Case {
        name: "let a provider report market information",
        kind: Kind::Another,
        call: |w, s| {
            Box::pin(async {
                let request = MarketRequest { provider: "yx-telecom".into(), indicators: None };
                told(w.gateway.give_market_consent(&s.login, &request).await, |view| same(view.indicators))
            })
        },
    },
    Case {
        name: "take a consent to market information back",
        kind: Kind::Once,
        call: |w, s| Box::pin(async { told(w.gateway.withdraw_market_consent(&s.login, &s.market).await, same) }),
    },
    Case {
        name: "take a form on paper back",
        kind: Kind::Once,
        call: |w, s| {
            Box::pin(async {
                let listed = w.gateway.market_consents(&s.login).await.unwrap();
                let paper = listed.iter().find(|view| view.paper.is_some()).unwrap();
                told(w.gateway.withdraw_market_consent(&s.login, &paper.id).await, same)
            })
        },
    },
    Case {
        name: "sweep what is due",
        kind: Kind::Once,
        call: |w, _| {
            Box::pin(async {
                // On the day on which something is due; `prepared` has moved the clock.
                loop {
                    if !w.gateway.sweep().await.ok()?.more {
                        return Some(same("swept"));
                    }
                }
            })
        },
    },
    Case {
        name: "withdraw a record",
        kind: Kind::Once,
        call: |w, _| {
            Box::pin(async {
                let signed = w.signed("yx-civil-affairs", &w.fresh("signature"));
                told(w.gateway.withdraw(&signed, "to-withdraw", "a mistake").await, same)
            })
        },
    },
    Case {
        name: "read a receipt",
        kind: Kind::Once,
        call: |w, s| {
            Box::pin(async {
                let signed = w.signed("yx-civil-affairs", &w.fresh("signature"));
                told(w.gateway.batch(&signed, &s.batch).await, |view| (view.receipt, "a receipt".into()))
            })
        },
    },
    Case {
        name: "list what was sent",
        kind: Kind::Once,
        call: |w, _| {
            Box::pin(async {
                let provider = caller("yx-civil-affairs");
                let list = told(w.gateway.sent(&provider, None, 10).await, |list| same(list.len()))?;
                told(w.gateway.sent_summary(&provider).await, |summary| same((list, summary)))
            })
        },
    },
    Case {
        name: "a register of several batches",
        kind: Kind::Once,
        call: |w, _| {
            Box::pin(async {
                let body = lines(&(2000..2000 + MANY).map(register_line).collect::<Vec<_>>());
                told(w.gateway.enrol(&caller("yx-public-security"), &body).await, taken)
            })
        },
    },
    Case {
        name: "an empty report",
        kind: Kind::Once,
        call: |w, _| Box::pin(async { told(w.gateway.report(&caller("yx-health"), b"\n").await, taken) }),
    },
    Case {
        name: "a report that is only tried",
        kind: Kind::Once,
        call: |w, _| {
            Box::pin(async { told(w.gateway.try_report(&caller("yx-civil-affairs"), &records(1..2)).await, taken) })
        },
    },
    Case {
        name: "a register that is only tried",
        kind: Kind::Once,
        call: |w, _| {
            Box::pin(async {
                let body = lines(&(2000..2003).map(register_line).collect::<Vec<_>>());
                told(w.gateway.try_enrol(&caller("yx-public-security"), &body).await, taken)
            })
        },
    },
    Case {
        name: "give a consent",
        kind: Kind::Another,
        call: |w, s| {
            Box::pin(async {
                let request =
                    ConsentRequest { scenario: BIKE.into(), party: Some("yx-bike".into()), ..Default::default() };
                told(w.gateway.give_consent(&s.login, &request).await, |given| same(given.consent.uses_left))
            })
        },
    },
    Case {
        name: "revoke",
        kind: Kind::Once,
        call: |w, s| Box::pin(async { told(w.gateway.revoke(&s.login, &s.consent.id.to_text()).await, same) }),
    },
    Case {
        name: "make a code",
        kind: Kind::Another,
        call: |w, s| {
            Box::pin(async {
                told(w.gateway.make_code(&s.login, &s.consent.id.to_text()).await, |code| same(code.expires_in))
            })
        },
    },
    Case {
        name: "open a case",
        kind: Kind::Another,
        call: |w, _| {
            Box::pin(async { told(w.gateway.open_case(&officer(1), &case_request()).await, |_| same("open")) })
        },
    },
    Case {
        name: "confirm a case",
        kind: Kind::Once,
        call: |w, s| Box::pin(async { told(w.gateway.confirm_case(&officer(2), &s.case).await, same) }),
    },
    Case {
        name: "look up who asked",
        kind: Kind::Another,
        call: |w, s| Box::pin(async { look_up(w, &s.confirmed).await }),
    },
    Case {
        name: "leave an entry for a refused call",
        kind: Kind::Once,
        call: |w, _| {
            Box::pin(async {
                let signed = w.signed("yx-bike", &w.fresh("signature"));
                told(w.gateway.log_refusal(&signed).await, same)
            })
        },
    },
    Case {
        name: "refuse a call",
        kind: Kind::Once,
        call: |w, _| {
            Box::pin(async { told::<()>(Err(w.gateway.refuse(&caller("yx-bike"), Refusal::NotPermitted).await), same) })
        },
    },
    Case {
        name: "load policies",
        kind: Kind::Once,
        call: |w, _| {
            Box::pin(async {
                match w.gateway.load_policies(another_set()).await {
                    Err(LoadError::Gateway(GatewayError::Fault(_))) => None,
                    done => Some(same(done.is_ok())),
                }
            })
        },
    },
    Case {
        name: "the first start",
        kind: Kind::Once,
        call: |w, _| {
            Box::pin(async {
                // On the store that `prepared` put there, or on what an earlier call left of it.
                w.reopen().await.ok().map(|()| same("started"))
            })
        },
    },
    Case {
        name: "a restart",
        kind: Kind::Once,
        call: |w, _| Box::pin(async { w.reopen().await.ok().map(|()| same("started")) }),
    },
    Case {
        name: "log in, be known, log out",
        kind: Kind::Session,
        call: |w, s| {
            Box::pin(async {
                let opened = told(w.gateway.demo_login(&number(1)).await, |_| same("opened"))?;
                told(w.gateway.session(&s.session).await, |_| same(""))?;
                told(w.gateway.log_out(&s.session).await, |()| opened)
            })
        },
    },
    Case {
        name: "wrap people's keys by a new working key",
        kind: Kind::Once,
        call: |w, _| {
            Box::pin(async {
                w.gateway.take_keys(rotated_keyring()).unwrap();
                while told(w.gateway.rewrap(0).await, same)?.0 != "0" {}
                Some(same(w.gateway.wrapped_from()))
            })
        },
    },
    Case {
        name: "try a model",
        kind: Kind::Another,
        call: |w, _| {
            Box::pin(async {
                told(w.gateway.try_model(&operator(), "n.toml", &stricter()).await, |shown| same(shown.people))
            })
        },
    },
    Case {
        name: "draft a model",
        kind: Kind::Once,
        call: |w, _| {
            Box::pin(async {
                let drafted = w.gateway.draft_model(Some(&operator()), "n.toml", &stricter()).await;
                told(drafted, |view| same((view.state, view.comment_until)))
            })
        },
    },
    Case {
        name: "approve a model",
        kind: Kind::Once,
        call: |w, _| {
            Box::pin(async {
                match w.gateway.approve_model(&officer(1), "yuxi-2027").await {
                    // Whoever was not told finds that it was done.
                    Err(GatewayError::Refused(Refusal::ModelApproved(_))) => Some(same(())),
                    done => told(done, same),
                }
            })
        },
    },
    Case {
        name: "publish a model",
        kind: Kind::Once,
        call: |w, _| {
            Box::pin(async {
                let published = w.gateway.publish_draft(None, "yuxi-2027", "2027-01-01".parse().unwrap()).await;
                told(published, |view| same((view.state, view.from)))
            })
        },
    },
    Case {
        name: "what only reads",
        kind: Kind::Once,
        call: |w, s| {
            Box::pin(async {
                told(w.gateway.score(&s.login).await, |_| same(""))?;
                told(w.gateway.look(&s.login, BIKE).await, |_| same(""))?;
                told(w.gateway.consents(&s.login).await, |_| same(""))?;
                told(w.gateway.export(&s.login).await, |_| same(""))?;
                let lines = w.gateway.accesses(&s.login, None, 10).await.unwrap();
                for line in lines {
                    told(w.gateway.access_proof(&s.login, line.id()).await, |_| same(""))?;
                }
                told(w.gateway.summary(&officer(1), &LogFilter::default()).await, |_| same(""))?;
                told(w.gateway.market_providers().await, |_| same(""))?;
                told(w.gateway.market_consents(&s.login).await, |_| same(""))?;
                told(w.gateway.follow_policies().await, |_| same(""))?;
                told(w.gateway.models().await, |_| same(""))?;
                told(w.gateway.model("yuxi-2026").await, |_| same(""))?;
                w.gateway.export_store(&mut Vec::new()).await.unwrap();
                told(w.gateway.published_model().await, |_| same("read"))
            })
        },
    },
];

/// Opening is the two starts among the cases, by way of the world; closing commits nothing that is new; keeping keys
/// wrapped is `rewrap` again and again, and keeping standings fresh is `sweep`; going on from a restored store has a test of its own below.
const ELSEWHERE: [&str; 5] = ["open", "close", "keep_wrapped", "keep_swept", "open_restored"];

async fn prepared(case: &Case) -> (World, Setting) {
    let (mut world, setting) = setting().await;
    match case.name {
        "approve a model" => drop(world.gateway.draft_model(None, "n.toml", &stricter()).await.unwrap()),
        "publish a model" => approved(&world).await,
        _ => {}
    }
    if case.name == "the first start" {
        world.put_store(Arc::new(MemoryStore::new()));
        world.outside = Kept::default();
    }
    if case.name == "sweep what is due" {
        world.register(3000..3120).await;
        let due = |n: u32| {
            let mut line = record_line("yx-civil-affairs", "volunteer-hours", &format!("due-{n}"), n, Some(1));
            line["valid_until"] = "2026-11-26".into();
            line
        };
        world.report("yx-civil-affairs", &(3000..3120).map(due).collect::<Vec<_>>()).await;
        world.next_day();
    }
    (world, setting)
}

/// What there is, apart from log, nonces, sessions and rows that are there for their looks.
async fn state(world: &World, setting: &Setting) -> BTreeMap<&'static str, String> {
    let apart = [
        tables::LEAF,
        tables::TILE,
        tables::CHECKPOINT,
        tables::HOUR,
        tables::NONCE,
        tables::SESSION,
        tables::ACCESS,
        tables::TODAY,
        // Each call that takes an upload leaves a receipt, whether it changes anything or not.
        tables::BATCH,
    ];
    let mut found = BTreeMap::new();
    for table in tables::ALL.into_iter().filter(|table| !apart.contains(table)) {
        found.insert(table.name(), world.cells(table).await.len().to_string());
    }
    if let Ok(view) = world.gateway.export(&setting.login).await {
        let consent = |view: &jadegate::gateway::ConsentView| (view.consent.uses_left, view.consent.revoked.is_some());
        let consents: Vec<_> = view.consents.iter().map(consent).collect();
        found.insert("of the person", format!("{} records, {consents:?}", view.records.len()));
        found.insert("score", format!("{:?}", world.score(&setting.login).await));
    }
    found
}

/// The log holds all that it held, it makes the tree that it signs, and every cell is as its entries say.
async fn log_grew(world: &World, before: &[(jadegate::store::Place, jadegate::store::Cell)], what: &str) {
    let now: BTreeSet<_> =
        world.cells(tables::LEAF).await.into_iter().map(|(place, cell)| (place, cell.value)).collect();
    for (place, cell) in before {
        assert!(now.contains(&(place.clone(), cell.value.clone())), "{what}: an entry is gone or changed");
    }
    let audited = audit(world.store.inner(), &keyring(), &world.outside, &mut |_| {}).await.unwrap();
    assert!(audited.findings.is_empty(), "{what}: {:?}", audited.findings);
}

/// The use case once without a fault, and what another call of it leaves.
struct Clean {
    commits: u64,
    outcome: String,
    once: BTreeMap<&'static str, String>,
    twice: BTreeMap<&'static str, String>,
    actions: Vec<&'static str>,
}

async fn clean(case: &Case) -> Clean {
    let (mut world, setting) = prepared(case).await;
    let (before, size) = (world.store.commits(), world.cells(tables::LEAF).await.len());
    let (raw, outcome) = (case.call)(&mut world, &setting).await.unwrap();
    let commits = world.store.commits() - before;
    let once = state(&world, &setting).await;
    let actions = world.actions_since(size.try_into().unwrap()).await;
    let (again, _) = (case.call)(&mut world, &setting).await.unwrap();
    if case.kind == Kind::Once {
        assert_eq!(raw, again, "{}: the same call again", case.name);
    }
    Clean { commits, outcome, once, twice: state(&world, &setting).await, actions }
}

async fn with_fault(case: &Case, clean: &Clean, nth: u64, fault: Fault) {
    let what = format!("{}, commit {nth} of {}, {fault:?}", case.name, clean.commits);
    let (mut world, setting) = prepared(case).await;
    let before = world.cells(tables::LEAF).await;
    world.store.fail_commit(nth, fault);
    let first = (case.call)(&mut world, &setting).await;
    let may_be_done = fault == Fault::Persisted && case.kind != Kind::Session;
    assert_eq!(first.is_some(), may_be_done, "{what}: told {first:?}");
    log_grew(&world, &before, &what).await;
    if matches!(fault, Fault::SyncFailed | Fault::SyncFailedPersisted) {
        // The process ends; another one starts on what is there.
        if case.kind != Kind::Session && !case.name.ends_with("start") {
            world.gateway.stopped().await;
        }
        let inner = world.store.inner().clone();
        world.put_store(inner);
        if case.name != "the first start" {
            // By the keys of its file: those that were taken before.
            let keys = if world.gateway.keys().newest().0 > 1 { rotated_keyring() } else { keyring() };
            world.reopen_with(PolicySet::parse(shipped()).unwrap(), keys).await.unwrap();
        }
    }
    let mut last = first;
    if last.is_none() || case.kind == Kind::Once {
        let again = (case.call)(&mut world, &setting).await;
        assert!(last.is_none() || last == again, "{what}: {last:?}, and again {again:?}");
        last = again;
    }
    let (_, outcome) = last.unwrap_or_else(|| panic!("{what}: fails for good"));
    assert_eq!(outcome, clean.outcome, "{what}");
    // Only a call that its caller was never told of may be there beside its repetition.
    let beside = case.kind == Kind::Another && fault == Fault::SyncFailedPersisted;
    assert_eq!(state(&world, &setting).await, if beside { &clean.twice } else { &clean.once }.clone(), "{what}");
    log_grew(&world, &before, &what).await;
}

#[tokio::test]
async fn every_use_case_survives_a_fault_at_every_commit() {
    let mut seen = BTreeSet::new();
    let (mut faults, mut commits) = (0, 0);
    for case in &CASES {
        let clean = clean(case).await;
        seen.extend(clean.actions.iter().copied());
        commits += clean.commits;
        for nth in 1..=clean.commits {
            for fault in FAULTS {
                with_fault(case, &clean, nth, fault).await;
                faults += 1;
            }
        }
    }
    let restored = LogAction::Restore.as_str();
    let all: BTreeSet<&str> = LogAction::all().map(LogAction::as_str).filter(|action| *action != restored).collect();
    assert_eq!(seen, all, "what the log can say, and what the use cases of this test made it say");
    nightly::figure(
        "faults at every commit",
        format_args!("{faults} faults at {commits} commits of {} use cases", CASES.len()),
    );
}

/// Going on from a restored store, under a new log: a fault at each commit, and the same start again comes to the same.
#[tokio::test]
async fn going_on_from_a_restored_store_survives_a_fault_at_every_commit() {
    // The same with every fault, and once more without one to count the commits.
    let mut commits = 1;
    let mut nth = 0;
    while nth <= commits {
        for fault in FAULTS {
            let (mut world, kept) = (World::of_first().await, Kept::default());
            let login = world.good(1).await;
            let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
            let ended = world.held_of_first().await;
            let before = world.store.commits();
            if nth > 0 {
                world.store.fail_commit(nth, fault);
            }
            let first = world.restored_under(3, &kept, &ended).await.map(|_| ());
            if nth == 0 {
                commits = world.store.commits() - before;
            }
            assert_eq!(first.is_ok(), nth == 0 || fault == Fault::Persisted, "commit {nth}, {fault:?}");
            let inner = world.store.inner().clone();
            world.put_store(inner);
            world.gateway = world.restored_under(3, &kept, &ended).await.unwrap();
            let said = asked(&world, &consent.token).await.unwrap();
            assert_eq!(said.1, "false", "commit {nth}, {fault:?}: a consent lived on");
            let restores = world.actions_since(0).await.into_iter().filter(|action| *action == "restore").count();
            assert_eq!(restores, 1, "commit {nth}, {fault:?}");
        }
        nth += 1;
    }
    assert!(commits > 0);
}

/// The public async functions of `impl Gateway`, read from the sources.
fn use_cases() -> BTreeSet<String> {
    let src = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![src.join("gateway.rs")];
    files.extend(files_under(&src.join("gateway")));
    let mut found = BTreeSet::new();
    for file in files {
        let mut inside = false;
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            match line {
                "impl Gateway {" => inside = true,
                "}" => inside = false,
                _ => {}
            }
            let name = line.strip_prefix("    pub async fn ").and_then(|rest| rest.split(['(', '<']).next());
            found.extend(name.filter(|_| inside).map(str::to_owned));
        }
    }
    found
}

#[test]
fn every_use_case_of_the_gateway_is_driven() {
    let own = include_str!("every_commit.rs");
    let found = use_cases();
    assert!(found.len() > 20, "{found:?}");
    let missing: Vec<_> = found
        .iter()
        .filter(|name| !own.contains(&format!(".{name}(")) && !ELSEWHERE.contains(&name.as_str()))
        .collect();
    assert!(missing.is_empty(), "no case in CASES calls {missing:?}: add one, so that its commits are made to fail");
}
