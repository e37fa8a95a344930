//! INVARIANT (policies are evidence): each load is an entry; what a set adds waits for the next day, what it takes away is gone
//! at once, over a restart too.

use jadegate::gateway::{ConsentRequest, LoadError, Refusal, StartError};
use jadegate::policies::{PolicySet, shipped};
use jadegate::store::{Batch, Write};
use jadegate::tables;

use crate::support::world::{World, change, keyring, officer, policies_with, refusal};

const SCENARIOS: &str = "scenarios.toml";
const BIKE: &str = "bike-deposit";

fn plain() -> PolicySet {
    PolicySet::parse(shipped()).unwrap()
}

/// Another scenario, for a party that asks already, and one more party for the bikes.
fn more() -> PolicySet {
    let mut files = shipped();
    change(
        &mut files,
        SCENARIOS,
        &[(r#"parties = ["yx-bike", "yx-ebike"]"#, r#"parties = ["yx-bike", "yx-ebike", "yx-bus"]"#)],
    );
    let mut text = String::from_utf8(files[SCENARIOS].clone()).unwrap();
    text.push_str(
        "\n[[scenario]]\nid = \"helmet\"\ntitle = { zh = \"头盔\", en = \"Helmet\" }\nbenefit = { zh = \"免押金\", en = \"No deposit\" }\n\
         category = \"deposit-waiver\"\nquestion = { score_at_least = 600 }\nparties = [\"yx-bike\"]\nuses = 1\nuses_max = 2\n\
         days = 7\ndays_max = 30\nanswer_minutes = 10\none_a_person = false\n",
    );
    files.insert(SCENARIOS.into(), text.into_bytes());
    PolicySet::parse(files).unwrap()
}

/// Without the second bike company.
fn fewer() -> PolicySet {
    policies_with(SCENARIOS, &[(r#"parties = ["yx-bike", "yx-ebike"]"#, r#"parties = ["yx-bike"]"#)])
}

async fn may(world: &World, party: &str, scenario: &str) -> bool {
    let login = world.login(1).await;
    let request = ConsentRequest { scenario: scenario.into(), party: Some(party.into()), ..Default::default() };
    match world.gateway.give_consent(&login, &request).await {
        Ok(consent) => world.asked(party, scenario, &consent.token).await,
        Err(_) => false,
    }
}

#[tokio::test]
async fn what_is_added_waits_for_the_next_day() {
    let mut world = World::new().await;
    world.good(1).await;
    let size = world.log_size();
    world.gateway.load_policies(more()).await.unwrap();
    assert_eq!(world.actions_since(size).await, ["policy"]);
    for restart in [false, true] {
        if restart {
            world.reopen_with(more(), keyring()).await.unwrap();
        }
        assert!(may(&world, "yx-bike", BIKE).await);
        assert!(!may(&world, "yx-bike", "helmet").await, "after a restart: {restart}");
        assert!(!may(&world, "yx-bus", BIKE).await);
    }
    world.next_day();
    assert!(may(&world, "yx-bike", "helmet").await && may(&world, "yx-bus", BIKE).await);
    world.reopen_with(more(), keyring()).await.unwrap();
    assert!(may(&world, "yx-bike", "helmet").await);
}

#[tokio::test]
async fn a_set_that_comes_with_a_restart_waits_too() {
    let mut world = World::new().await;
    world.good(1).await;
    world.reopen_with(more(), keyring()).await.unwrap();
    assert!(!may(&world, "yx-bike", "helmet").await);
    // Closing and opening the door within a day does not help.
    world.gateway.load_policies(plain()).await.unwrap();
    world.gateway.load_policies(more()).await.unwrap();
    assert!(!may(&world, "yx-bike", "helmet").await);
    world.next_day();
    world.reopen_with(more(), keyring()).await.unwrap();
    assert!(may(&world, "yx-bike", "helmet").await);
}

#[tokio::test]
async fn what_is_taken_away_is_gone_at_once_and_stays_gone_for_the_day() {
    let mut world = World::new().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-ebike", BIKE, 5).await;
    assert!(world.asked("yx-ebike", BIKE, &consent.token).await);
    world.gateway.load_policies(fewer()).await.unwrap();
    let ask = async |world: &World| {
        let caller = crate::support::world::caller("yx-ebike");
        refusal(world.ask_as(&caller, BIKE, &consent.token, &world.fresh("nonce")).await)
    };
    assert_eq!(ask(&world).await, Refusal::UnknownScenario);
    // Given back the same day, it waits for the next.
    world.gateway.load_policies(plain()).await.unwrap();
    assert_eq!(ask(&world).await, Refusal::UnknownScenario);
    world.reopen().await.unwrap();
    assert_eq!(ask(&world).await, Refusal::UnknownScenario);
    world.next_day();
    assert!(world.asked("yx-ebike", BIKE, &consent.token).await);
}

/// INVARIANT (few cuts): at most once in 365 days.
#[tokio::test]
async fn the_cuts_change_at_most_once_a_year_and_from_the_next_day() {
    let mut world = World::new().await;
    let login = world.good(1).await;
    // The cut at good moves from 600 to 660, with the grade and the questions.
    let moved = |min: &str| {
        let mut files = shipped();
        change(&mut files, "city.toml", &[("cuts = [600, 800]", &format!("cuts = [{min}, 800]"))]);
        // Grades of a published model never change, so only a cut that is a grade's beginning can be named.
        PolicySet::parse(files)
    };
    assert!(moved("660").is_err(), "a cut is where a grade begins");
    let only_excellent = || {
        let mut files = shipped();
        change(&mut files, "city.toml", &[("cuts = [600, 800]", "cuts = [800]")]);
        let text = String::from_utf8(files[SCENARIOS].clone()).unwrap();
        let text = text.replace("score_at_least = 600", "score_at_least = 800");
        let text = text.replace(r#"grade_at_least = "good""#, r#"grade_at_least = "excellent""#);
        files.insert(SCENARIOS.into(), text.into_bytes());
        PolicySet::parse(files).unwrap()
    };
    let consent = world.consent(&login, "yx-bike", BIKE, 50).await;
    world.gateway.load_policies(only_excellent()).await.unwrap();
    assert!(world.asked("yx-bike", BIKE, &consent.token).await, "today the old cut holds");
    let size = world.log_size();
    let back = world.gateway.load_policies(plain()).await;
    assert!(matches!(back, Err(LoadError::CutsTooSoon(_))), "and not a second time");
    let back = world.reopen_with(plain(), keyring()).await;
    assert!(matches!(back, Err(StartError::Policies(LoadError::CutsTooSoon(_)))), "a restart is no way around");
    assert_eq!(world.log_size(), size);
    world.next_day();
    world.reopen_with(only_excellent(), keyring()).await.unwrap();
    assert!(!world.asked("yx-bike", BIKE, &consent.token).await);
    world.advance(363 * 86_400);
    assert!(matches!(world.gateway.load_policies(plain()).await, Err(LoadError::CutsTooSoon(_))));
    world.advance(86_400);
    world.gateway.load_policies(plain()).await.unwrap();
}

/// INVARIANT (same in, same score): a published model never changes, and a gateway whose store lacks it answers nothing.
#[tokio::test]
async fn the_published_model_must_be_there_to_the_byte() {
    let mut world = World::new().await;
    let size = world.log_size();
    let published = world.gateway.published_model().await.unwrap().unwrap();
    assert_eq!(published.from.to_string(), "2026-11-25");
    assert_eq!(published.digest, plain().model().digest);
    let changed = policies_with("models/yuxi-2026.toml", &[("points = 20", "points = 21")]);
    let refused = world.gateway.load_policies(changed.clone()).await;
    let said = refused.as_ref().unwrap_err().to_string();
    assert!(
        matches!(refused, Err(LoadError::ModelChanged { .. })) && said.starts_with("models/yuxi-2026.toml: "),
        "{said}"
    );
    let mut files = shipped();
    let model = files.remove("models/yuxi-2026.toml").unwrap();
    let renamed = String::from_utf8(model).unwrap().replace(r#"id = "yuxi-2026""#, r#"id = "yuxi-2027""#);
    files.insert("models/yuxi-2027.toml".into(), renamed.into_bytes());
    change(&mut files, "city.toml", &[(r#"model = "yuxi-2026""#, r#"model = "yuxi-2027""#)]);
    let refused = world.gateway.load_policies(PolicySet::parse(files).unwrap()).await;
    assert!(matches!(refused, Err(LoadError::ModelNotPublished { .. })));
    assert_eq!(world.log_size(), size, "a set that is not loaded changes nothing");
    let reopened = world.reopen_with(changed, keyring()).await;
    assert!(matches!(reopened, Err(StartError::Policies(LoadError::ModelChanged { .. }))));
    world.reopen().await.unwrap();
    // Whoever holds the store takes the list away: that makes no new deployment.
    let copy = world.copy().await;
    let lists = world.cells(tables::MODEL).await.into_iter().filter(|(place, _)| !place.key.starts_with(b"text "));
    let writes = lists.map(|(place, _)| Write::Delete(place)).collect();
    world.store.inner().commit(Batch { checks: Vec::new(), writes }).await.unwrap();
    let said = world.reopen().await.unwrap_err().to_string();
    assert!(said.contains("the list of models is gone"), "{said}");
    world.put_store(copy);
    world.reopen().await.unwrap();
    // Or the model's text: nothing is answered by another one.
    let texts = world.cells(tables::MODEL).await.into_iter().filter(|(place, _)| place.key.starts_with(b"text "));
    let writes = texts.map(|(place, _)| Write::Delete(place)).collect();
    world.store.inner().commit(Batch { checks: Vec::new(), writes }).await.unwrap();
    let reopened = world.reopen().await;
    let said = reopened.as_ref().unwrap_err().to_string();
    assert!(said.contains("the text of the model yuxi-2026 is not in the store to the byte"), "{said}");
}

/// The model of each day on which a set will hold fits it: no set takes away what one of them needs.
#[tokio::test]
async fn a_set_that_the_model_in_force_does_not_fit_is_not_loaded() {
    let world = World::new().await;
    // A catalogue without an indicator, and a model that does without it.
    let mut files = shipped();
    let without = |text: &[u8]| {
        let text = String::from_utf8(text.to_vec()).unwrap();
        let part =
            text.split("[[indicator]]").find(|part| part.contains("code = \"good-samaritan\"")).unwrap().to_owned();
        text.replace(&format!("[[indicator]]{part}"), "")
    };
    let catalogue = without(&files["catalogue.toml"]);
    let other =
        without(&files.remove("models/yuxi-2026.toml").unwrap()).replace("id = \"yuxi-2026\"", "id = \"other\"");
    files.insert("catalogue.toml".into(), catalogue.into_bytes());
    files.insert("models/other.toml".into(), other.clone().into_bytes());
    change(&mut files, "city.toml", &[("model = \"yuxi-2026\"", "model = \"other\"")]);
    let set = PolicySet::parse(files).unwrap();
    assert!(matches!(world.gateway.load_policies(set.clone()).await, Err(LoadError::ModelNotPublished { .. })));
    world.gateway.draft_model(None, "other.toml", other.as_bytes()).await.unwrap();
    for staff in [officer(1), officer(2)] {
        world.gateway.approve_model(&staff, "other").await.unwrap();
    }
    world.advance(30 * 86_400);
    world.gateway.publish_draft(None, "other", "2026-12-27".parse().unwrap()).await.unwrap();
    let size = world.log_size();
    for _ in 0..2 {
        let refused = world.gateway.load_policies(set.clone()).await.unwrap_err();
        let said = refused.to_string();
        assert!(matches!(refused, LoadError::ModelDoesNotFit { .. }), "{said}");
        assert!(
            said.contains("models/yuxi-2026.toml:") && said.contains("\"good-samaritan\" is not in the catalogue"),
            "{said}"
        );
        // The day before its day the older model still holds.
        world.next_day();
    }
    assert_eq!(world.log_size(), size);
    world.gateway.load_policies(set).await.unwrap();
}

/// A draft beside the model in force is no matter.
#[tokio::test]
async fn a_draft_changes_no_score() {
    let world = World::new().await;
    let login = world.good(1).await;
    let mut files = shipped();
    let model = String::from_utf8(files["models/yuxi-2026.toml"].clone()).unwrap();
    let draft = model.replace(r#"id = "yuxi-2026""#, r#"id = "draft""#).replace("points = 1\n", "points = 3\n");
    files.insert("models/draft.toml".into(), draft.into_bytes());
    world.gateway.load_policies(PolicySet::parse(files).unwrap()).await.unwrap();
    assert_eq!(world.score(&login).await, Some(650));
}

/// INVARIANT (one withheld): what loads also fits, down to the last byte.
#[tokio::test]
async fn a_scenario_whose_largest_answer_would_not_fit_does_not_load() {
    let longest = format!("s{}", "-long".repeat(12));
    let mut files = shipped();
    change(&mut files, SCENARIOS, &[(r#"id = "coworking-desk""#, &format!(r#"id = "{longest}""#))]);
    let set = PolicySet::parse(files).unwrap();
    let issuer = |length: usize| format!("https://{}.example", "y".repeat(length));
    let mut fits = 0;
    for length in (0..2_000).step_by(16) {
        match World::of(set.clone(), 1, &issuer(length)).await {
            Ok(_) => fits = length,
            Err(StartError::Policies(LoadError::AnswerTooLarge { scenario, bytes })) => {
                assert_eq!(scenario.as_str(), longest);
                assert!((4097..4097 + 32).contains(&bytes), "the first that is too long, at {bytes}");
                break;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(fits > 16 && fits < 1_900, "{fits}");
    let world = World::of(set, 1, &issuer(fits)).await.unwrap();
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-startup-park", &longest, 1).await;
    let caller = crate::support::world::caller("yx-startup-park");
    assert!(world.ask_as(&caller, &longest, &consent.token, &"n".repeat(128)).await.unwrap().met);
}

#[tokio::test]
async fn a_change_of_the_catalogue_holds_at_once_for_every_score() {
    let world = World::new().await;
    let login = world.good(1).await;
    let ended = policies_with(
        "catalogue.toml",
        &[("code = \"volunteer-hours\"\n", "code = \"volunteer-hours\"\ncounts_until = \"2026-11-01\"\n")],
    );
    world.gateway.load_policies(ended).await.unwrap();
    assert_eq!(world.score(&login).await, Some(500));
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    assert!(!world.asked("yx-bike", BIKE, &consent.token).await, "the standing of older rules is not used");
}
