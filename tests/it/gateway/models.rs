//! A model's life: tried, drafted for comment, approved by two, published for a day; then every score follows at midnight.

use std::sync::Arc;

use jadegate::access::Role;
use jadegate::clock::{Clock, day_of};
use jadegate::gateway::{LoadError, ModelState, Refusal, Staff};
use jadegate::ledger::audit::audit;
use jadegate::policies::{PolicySet, shipped};
use jadegate::tables;
use jiff::ToSpan;
use jiff::civil::Date;
use tokio::task::JoinSet;

use crate::support::world::{
    Brought, World, caller, keyring, keyring_for, lines, officer, policies_with, record_line, refusal,
};

const BIKE: &str = "bike-deposit";

pub fn operator() -> Staff {
    Staff { login: "operator-1".into(), role: Role::Operator }
}

/// The shipped model under another id, changed.
pub fn next(id: &str, edits: &[(&str, &str)]) -> Vec<u8> {
    let text = String::from_utf8(shipped()["models/yuxi-2026.toml"].clone()).unwrap();
    let mut text = text.replace("id = \"yuxi-2026\"", &format!("id = \"{id}\""));
    for (from, to) in edits {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    text.into_bytes()
}

/// One under which everybody begins at 380, so that who is good is good no more.
pub fn stricter() -> Vec<u8> {
    next("yuxi-2027", &[("base = 500", "base = 380")])
}

fn today(world: &World) -> Date {
    day_of(world.clock.now())
}

/// Drafted, its comment period over, and approved by two.
pub async fn approved(world: &World) {
    world.gateway.draft_model(Some(&operator()), "next.toml", &stricter()).await.unwrap();
    world.gateway.approve_model(&officer(1), "yuxi-2027").await.unwrap();
    world.gateway.approve_model(&operator(), "yuxi-2027").await.unwrap();
    world.advance(30 * 86_400);
}

#[tokio::test]
async fn a_model_is_drafted_approved_by_two_published_and_holds_from_its_day() {
    let mut world = World::new().await;
    let login = world.good(1).await;
    let size = world.log_size();
    let draft = world.gateway.draft_model(Some(&operator()), "next.toml", &stricter()).await.unwrap();
    assert_eq!((draft.state, draft.comment_until), (ModelState::Comment, Some("2026-12-25".parse().unwrap())));
    assert_eq!(draft.impact.unwrap().people, None, "one person is under ten");
    let publish =
        async |world: &World, from: Date| world.gateway.publish_draft(Some(&operator()), "yuxi-2027", from).await;
    let tomorrow = || today(&world).tomorrow().unwrap();
    let until = "2026-12-25".parse().unwrap();
    assert_eq!(refusal(publish(&world, tomorrow()).await), Refusal::ModelInComment(until));
    // Officers approve and publish nothing; the same person twice is one approval.
    assert_eq!(
        refusal(world.gateway.draft_model(Some(&officer(1)), "n.toml", &stricter()).await),
        Refusal::NotPermitted
    );
    assert_eq!(refusal(world.gateway.try_model(&officer(1), "n.toml", &stricter()).await), Refusal::NotPermitted);
    assert_eq!(
        refusal(world.gateway.publish_draft(Some(&officer(1)), "yuxi-2027", tomorrow()).await),
        Refusal::NotPermitted
    );
    world.advance(30 * 86_400);
    assert_eq!(refusal(publish(&world, tomorrow()).await), Refusal::ModelNotApproved(2));
    world.gateway.approve_model(&officer(1), "yuxi-2027").await.unwrap();
    let approved_at = world.gateway.model("yuxi-2027").await.unwrap().0.approvals[0].at;
    world.advance(60);
    let again = world.gateway.approve_model(&officer(1), "yuxi-2027").await;
    assert_eq!(refusal(again), Refusal::ModelApproved(approved_at), "nothing was recorded, and it says so");
    assert_eq!(refusal(world.gateway.approve_model(&officer(1), "no-such").await), Refusal::NotFound);
    assert_eq!(refusal(publish(&world, tomorrow()).await), Refusal::ModelNotApproved(1));
    world.gateway.approve_model(&operator(), "yuxi-2027").await.unwrap();
    assert!(matches!(refusal(publish(&world, today(&world)).await), Refusal::OutOfRange { field: "from", .. }));
    let from = today(&world).checked_add(2.days()).unwrap();
    let published = publish(&world, from).await.unwrap();
    assert_eq!((published.state, published.from, published.approvals.len()), (ModelState::Scheduled, Some(from), 2));
    assert_eq!(publish(&world, from).await.unwrap(), published, "the same again changes nothing");
    let other = from.tomorrow().unwrap();
    assert_eq!(refusal(publish(&world, other).await), Refusal::ModelPublished(from));
    // Published, scheduled or in force, nobody approves it any more, whether they did before or not.
    for (staff, id, from) in [
        (officer(1), "yuxi-2027", from),
        (officer(2), "yuxi-2027", from),
        (officer(2), "yuxi-2026", "2026-11-25".parse().unwrap()),
    ] {
        assert_eq!(refusal(world.gateway.approve_model(&staff, id).await), Refusal::ModelPublished(from));
    }
    assert_eq!(
        world.actions_since(size).await,
        ["draft-model", "approve-model", "approve-model", "model"],
        "each step is an entry, and what changed nothing is none"
    );

    let consent = world.consent(&login, "yx-bike", BIKE, 100).await;
    // A draft of another comes; a day has one model.
    world.gateway.draft_model(None, "third.toml", &next("yuxi-2028", &[])).await.unwrap();
    for staff in [officer(1), officer(2)] {
        world.gateway.approve_model(&staff, "yuxi-2028").await.unwrap();
    }
    for restart in [false, true] {
        if restart {
            world.reopen().await.unwrap();
        }
        assert_eq!(world.score(&login).await, Some(650));
        assert!(world.asked("yx-bike", BIKE, &consent.token).await);
    }
    world.next_day();
    assert_eq!(world.score(&login).await, Some(650), "the day before");
    assert!(world.asked("yx-bike", BIKE, &consent.token).await);
    world.next_day();
    for restart in [false, true] {
        if restart {
            world.reopen().await.unwrap();
        }
        assert_eq!(world.score(&login).await, Some(530), "after a restart: {restart}");
        assert!(!world.asked("yx-bike", BIKE, &consent.token).await);
        assert_eq!(world.gateway.published_model().await.unwrap().unwrap().id.as_str(), "yuxi-2027");
    }
    let history: Vec<_> =
        world.gateway.models().await.unwrap().into_iter().map(|m| (m.id.to_string(), m.state, m.until)).collect();
    assert_eq!(
        history,
        [
            ("yuxi-2028".into(), ModelState::Comment, None),
            ("yuxi-2027".into(), ModelState::InForce, None),
            ("yuxi-2026".into(), ModelState::Past, Some(from)),
        ]
    );
    let (_, text) = world.gateway.model("yuxi-2027").await.unwrap();
    assert_eq!(text.as_bytes(), stricter());
    assert_eq!(refusal(world.gateway.model("nothing").await), Refusal::NotFound);
    // The folder may go on naming the first one, or name the one in force, but no draft.
    let named = |id: &str, model: Vec<u8>| {
        let mut files = shipped();
        crate::support::world::change(
            &mut files,
            "city.toml",
            &[("model = \"yuxi-2026\"", &format!("model = \"{id}\""))],
        );
        files.insert(format!("models/{id}.toml"), model);
        PolicySet::parse(files).unwrap()
    };
    world.gateway.load_policies(named("yuxi-2027", stricter())).await.unwrap();
    let refused = world.gateway.load_policies(named("yuxi-2028", next("yuxi-2028", &[]))).await;
    assert!(matches!(refused, Err(LoadError::ModelNotPublished { .. })));
    let audited = audit(world.store.inner(), &keyring(), &world.outside, &mut |_| {}).await.unwrap();
    assert_eq!(audited.findings, []);
}

#[tokio::test]
async fn a_known_model_never_changes_and_one_that_does_not_fit_is_refused() {
    let world = World::new().await;
    let size = world.log_size();
    let draft = async |bytes: &[u8]| world.gateway.draft_model(Some(&operator()), "next.toml", bytes).await;
    let first = draft(&stricter()).await.unwrap();
    assert_eq!(draft(&stricter()).await.unwrap(), first);
    let more = [stricter().as_slice(), b"# a comment\n"].concat();
    assert!(matches!(refusal(draft(&more).await), Refusal::ModelChanged(id) if id.as_str() == "yuxi-2027"));
    let same_id = next("yuxi-2026", &[("base = 500", "base = 501")]);
    assert!(matches!(refusal(draft(&same_id).await), Refusal::ModelChanged(_)));
    // A folder with other bytes under that id does not load either.
    let mut files = shipped();
    files.insert("models/yuxi-2027.toml".into(), more);
    let refused = world.gateway.load_policies(PolicySet::parse(files).unwrap()).await;
    assert!(matches!(refused, Err(LoadError::ModelChanged { .. })));
    let unfit = next("unfit", &[("min = 800", "min = 790")]);
    for refused in [
        refusal(draft(&unfit).await),
        refusal(world.gateway.try_model(&operator(), "next.toml", &unfit).await.map(|_| ())),
    ] {
        let Refusal::ModelMistakes(said) = refused else { panic!("{refused:?}") };
        assert!(said.contains("next.toml:") && said.contains("no grade begins at the cut 800"), "{said}");
    }
    assert_eq!(world.actions_since(size).await, ["draft-model"]);
    // The policies changed between draft and publication: the model is held against them again.
    world.gateway.approve_model(&officer(1), "yuxi-2027").await.unwrap();
    world.gateway.approve_model(&officer(2), "yuxi-2027").await.unwrap();
}

/// Not before an hour from now: every gateway must have read of it when the day begins.
#[tokio::test]
async fn the_day_of_effect_is_decided_an_hour_before_it_begins() {
    let world = World::new().await;
    approved(&world).await;
    world.next_day();
    world.advance(23 * 3_600 + 10);
    let tomorrow = today(&world).tomorrow().unwrap();
    let publish = async |from| world.gateway.publish_draft(None, "yuxi-2027", from).await;
    assert!(matches!(refusal(publish(tomorrow).await), Refusal::OutOfRange { field: "from", .. }));
    let later = tomorrow.tomorrow().unwrap();
    publish(later).await.unwrap();
    world.gateway.draft_model(None, "t.toml", &next("yuxi-2028", &[])).await.unwrap();
    for staff in [officer(1), officer(2)] {
        world.gateway.approve_model(&staff, "yuxi-2028").await.unwrap();
    }
    world.advance(30 * 86_400);
    assert_eq!(world.gateway.published_model().await.unwrap().unwrap().id.as_str(), "yuxi-2027");
}

/// A shorter period for comment waits until midnight, a longer one holds at once; and a draft keeps its own.
#[tokio::test]
async fn the_period_for_comment_cannot_be_cut_short_within_a_day() {
    let world = World::new().await;
    let with =
        |days: u32| policies_with("city.toml", &[("model_comment_days = 30", &format!("model_comment_days = {days}"))]);
    world.gateway.load_policies(with(0)).await.unwrap();
    let draft = world.gateway.draft_model(None, "n.toml", &stricter()).await.unwrap();
    assert_eq!(draft.comment_until, Some("2026-12-25".parse().unwrap()));
    world.next_day();
    let draft = world.gateway.draft_model(None, "n.toml", &next("quick", &[])).await.unwrap();
    assert_eq!((draft.comment_until, draft.state), (Some("2026-11-26".parse().unwrap()), ModelState::Draft));
    assert_eq!(
        refusal(world.gateway.publish_draft(None, "yuxi-2027", "2026-12-01".parse().unwrap()).await),
        Refusal::ModelInComment("2026-12-25".parse().unwrap())
    );
}

/// A trial changes no cell but the log's, and shows what it should of a town of 200.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_changes_nothing_and_counts_everybody() {
    let world = World::new().await;
    world.register(1..201).await;
    let hours: Vec<_> =
        (1..101).map(|n| record_line("yx-civil-affairs", "volunteer-hours", &format!("h-{n}"), n, Some(300))).collect();
    world.report("yx-civil-affairs", &hours).await;
    // More chunks than one, and somebody with records who is not registered.
    world.report("yx-civil-affairs", &[record_line("yx-civil-affairs", "volunteer-hours", "x", 900, Some(1))]).await;
    let before = {
        let mut cells = Vec::new();
        for table in tables::ALL
            .into_iter()
            .filter(|table| ![tables::LEAF, tables::TILE, tables::CHECKPOINT, tables::HOUR].contains(table))
        {
            cells.extend(world.cells(table).await.into_iter().map(|(place, cell)| (place, cell.value)));
        }
        cells
    };
    let size = world.log_size();
    let shown = world.gateway.try_model(&operator(), "next.toml", &stricter()).await.unwrap();
    assert_eq!(world.actions_since(size).await, ["try-model"]);
    let mut after = Vec::new();
    for table in tables::ALL
        .into_iter()
        .filter(|table| ![tables::LEAF, tables::TILE, tables::CHECKPOINT, tables::HOUR].contains(table))
    {
        after.extend(world.cells(table).await.into_iter().map(|(place, cell)| (place, cell.value)));
    }
    assert!(before == after, "a cell changed");
    assert_eq!(shown.people, Some(200));
    let of = |parts: &[jadegate::trial::Part], code: &str| parts.iter().find(|part| part.code == code).unwrap().people;
    assert_eq!((of(&shown.grades_before, "good"), of(&shown.grades_before, "fair")), (Some(100), Some(100)));
    assert_eq!((of(&shown.grades_after, "fair"), of(&shown.grades_after, "insufficient")), (Some(100), Some(100)));
    assert_eq!(shown.ways.down, Some(200));
    // The same again shows the same: rounding is no dice that one can throw until they are known.
    assert_eq!(world.gateway.try_model(&operator(), "next.toml", &stricter()).await.unwrap(), shown);
    // And offline, over the same store, by nobody: not even an entry.
    let size = world.log_size();
    let set = PolicySet::parse(shipped()).unwrap();
    let (store, entropy) = (world.store.inner().clone(), Arc::new(jadegate::entropy::SystemEntropy::new()));
    let offline =
        jadegate::gateway::try_on_store(store, keyring(), entropy, &set, today(&world), ("next.toml", &stricter()))
            .await
            .unwrap();
    assert_eq!((offline, world.log_size()), (shown, size));
}

/// INVARIANT (same in, same score), over three gateways: each answer is of one model, all go over at midnight, and a day
/// that is fixed stays fixed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_gateways_go_over_to_a_model_at_the_same_midnight() {
    let (world, gateways, kept) = World::of_three().await;
    let login = world.good(1).await;
    approved(&world).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 300).await;
    let from = today(&world).tomorrow().unwrap();
    gateways[1].publish_draft(Some(&operator()), "yuxi-2027", from).await.unwrap();
    for gateway in &gateways {
        assert_eq!(gateway.models().await.unwrap()[0].from, Some(from));
        assert_eq!(gateway.score(&login).await.unwrap().policies.model_in_force().id.as_str(), "yuxi-2026");
    }
    let mut met = Vec::new();
    for day in 0..2 {
        let mut calls = JoinSet::new();
        for i in 0..24 {
            let (gateway, token) = (gateways[i % 3].clone(), consent.token.clone());
            calls.spawn(async move {
                let request = jadegate::gateway::AskRequest {
                    scenario: BIKE.into(),
                    consent: token,
                    nonce: format!("nonce-of-a-day-{day}-{i:04}"),
                };
                let body = gateway.ask(&caller("yx-bike"), &request).await.unwrap().into_body();
                let said = crate::support::world::Said::read(body);
                (said.met, said.met.then(|| said.claims()))
            });
        }
        let answers = calls.join_all().await;
        for claims in answers.iter().filter_map(|(_, claims)| claims.as_ref()) {
            assert!(claims["model"].as_str().unwrap().starts_with("yuxi-2026#"), "{claims}");
            assert_eq!(claims["as_of"], (from - 1.days()).to_string());
        }
        met.push(answers.iter().filter(|(met, _)| *met).count());
        if day == 0 {
            // To the very midnight: the next call of each is of the next day and the next model.
            world.next_day();
        }
    }
    assert_eq!(met, [24, 0]);
    for gateway in &gateways {
        assert_eq!(gateway.score(&login).await.unwrap().explanation.outcome.score, Some(530));
    }
    // What comes in on that day is scored by the new model, whichever gateway takes it.
    let more = record_line("yx-civil-affairs", "volunteer-hours", "more", 1, Some(1));
    gateways[2].report(&caller("yx-civil-affairs"), &lines(&[more])).await.unwrap();
    let copies = Brought(std::iter::once(&world.outside).chain(&kept).cloned().collect());
    let audited = audit(world.store.inner(), &keyring_for(1), &copies, &mut |_| {}).await.unwrap();
    assert_eq!(audited.findings, []);
}

/// The answer of a day that is fixed stays until midnight, whatever is published meanwhile.
#[tokio::test]
async fn publishing_changes_no_answer_of_a_day_that_has_begun() {
    let world = World::new().await;
    let login = world.good(1).await;
    approved(&world).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 100).await;
    assert!(world.asked("yx-bike", BIKE, &consent.token).await);
    world.gateway.publish_draft(None, "yuxi-2027", today(&world).tomorrow().unwrap()).await.unwrap();
    let said = world.ask("yx-bike", BIKE, &consent.token).await;
    assert!(said.met && said.claims()["model"].as_str().unwrap().starts_with("yuxi-2026#"));
    world.next_day();
    assert!(!world.asked("yx-bike", BIKE, &consent.token).await);
}

/// An indicator ends, its time is bounded, its provider changes: scores follow, and an export still computes.
#[tokio::test]
async fn an_indicator_that_changes_its_provider_keeps_what_was_reported() {
    let world = World::new().await;
    let login = world.good(1).await;
    let moved = policies_with(
        "catalogue.toml",
        &[(
            "providers = [\"yx-civil-affairs\", \"yx-youth-league\", \"yx-social-work\"]\nunit = \"hour\"",
            "providers = [\"yx-youth-league\"]\nformer_providers = [\"yx-civil-affairs\"]\nformer_providers_basis = \"玉政办〔2026〕1号\"\nunit = \"hour\"",
        )],
    );
    world.gateway.load_policies(moved).await.unwrap();
    assert_eq!(world.score(&login).await, Some(650), "what was reported counts");
    let send = async |provider: &str, id: &str| {
        world.report(provider, &[record_line(provider, "volunteer-hours", id, 1, Some(1))]).await
    };
    assert_eq!(send("yx-civil-affairs", "late").await.rejected[0].error.code.as_str(), "provider-not-allowed");
    assert_eq!(send("yx-youth-league", "new").await.accepted, 1);
    // The person's own export reads again, with both providers in it.
    let export = world.gateway.export(&login).await.unwrap();
    let rules = jadegate::intake::RecordRules {
        catalogue: &export.policies.catalogue,
        prohibited: &export.policies.prohibited,
        today: today(&world),
        source: jadegate::intake::Source::File,
    };
    for held in &export.records {
        jadegate::intake::record(held.to_json().to_string().as_bytes(), &rules).unwrap();
    }
}

/// A set and a model that do not fit each other, sent to two gateways at the same time: one of them comes into force, never both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_set_and_a_model_that_do_not_fit_only_one_comes_into_force() {
    let (mut model_won, mut set_won) = (0, 0);
    let rounds = crate::support::nightly::rounds(4, 24);
    for round in 0..rounds {
        let (world, gateways, _) = World::of_three().await;
        approved(&world).await;
        // What the set lacks is an indicator that the model to come names.
        let without = |text: &str| {
            let part = text.split("[[indicator]]").find(|part| part.contains("code = \"good-samaritan\"")).unwrap();
            text.replace(&format!("[[indicator]]{part}"), "")
        };
        let text = |name: &str| String::from_utf8(shipped()[name].clone()).unwrap();
        let lean = without(&text("models/yuxi-2026.toml")).replace("id = \"yuxi-2026\"", "id = \"lean\"");
        world.gateway.draft_model(None, "lean.toml", lean.as_bytes()).await.unwrap();
        for staff in [officer(1), officer(2)] {
            world.gateway.approve_model(&staff, "lean").await.unwrap();
        }
        world.advance(30 * 86_400);
        let tomorrow = today(&world).tomorrow().unwrap();
        world.gateway.publish_draft(None, "lean", tomorrow).await.unwrap();
        world.next_day();
        // In force is the lean model; the set without the indicator fits it, and the stricter one of `approved` does not.
        let mut files = shipped();
        files.insert("catalogue.toml".into(), without(&text("catalogue.toml")).into_bytes());
        files.remove("models/yuxi-2026.toml");
        files.insert("models/lean.toml".into(), lean.into_bytes());
        crate::support::world::change(&mut files, "city.toml", &[("model = \"yuxi-2026\"", "model = \"lean\"")]);
        let set = PolicySet::parse(files).unwrap();
        let from = today(&world).checked_add(2.days()).unwrap();
        let (one, two) = (gateways[1].clone(), gateways[2].clone());
        let load = tokio::spawn(async move { one.load_policies(set).await.is_ok() });
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        let publish = tokio::spawn(async move { two.publish_draft(None, "yuxi-2027", from).await.is_ok() });
        let (loaded, published) = (load.await.unwrap(), publish.await.unwrap());
        assert!(loaded != published, "round {round}: loaded {loaded}, published {published}");
        set_won += usize::from(loaded);
        model_won += usize::from(published);
        // Either way each gateway goes on, on that day too.
        world.next_day();
        world.next_day();
        for gateway in &gateways {
            gateway.follow_policies().await.unwrap();
            assert!(gateway.models().await.unwrap().len() == 3);
        }
    }
    assert_eq!(set_won + model_won, rounds);
    crate::support::nightly::figure("a set against a model", format_args!("{set_won} to {model_won}"));
}
