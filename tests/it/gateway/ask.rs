//! Who is answered what, and with which evidence.

use jadegate::access_log::proof::Proof;
use jadegate::attestation::{self, Expected};
use jadegate::clock::Clock;
use jadegate::gateway::{Gateway, Refusal};
use sha2::{Digest, Sha256};

use crate::support::world::{ISSUER, World, caller, party, refusal};

const BIKE: &str = "bike-deposit";

#[tokio::test]
async fn a_met_answer_verifies_offline_and_its_entry_stands_in_the_log() {
    let world = World::new().await;
    let login = world.good(1).await;
    assert_eq!(world.score(&login).await, Some(650));
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    let nonce = world.fresh("nonce");
    let said = world.ask_as(&caller("yx-bike"), BIKE, &consent.token, &nonce).await.unwrap();
    assert!(said.met);

    let token = said.attestation.clone().unwrap();
    let now = world.clock.now();
    let expected = Expected { aud: Some("yx-bike"), nonce: Some(&nonce), now, leeway_s: 0 };
    let verified = attestation::verify(&token, &world.jwks(), &expected).unwrap().claims;
    assert_eq!((verified.iss.as_str(), verified.as_of.to_string().as_str()), (ISSUER, "2026-11-25"));
    assert_eq!(verified.met, serde_json::json!({ "score_at_least": 600 }));
    assert_eq!((verified.exp - verified.iat, verified.sub), (600, None));
    assert!(verified.model.starts_with("yuxi-2026#sha256-"));
    assert_eq!(verified.aud, party("yx-bike"));

    let proof = Proof::parse(said.proof.as_ref().unwrap()).unwrap();
    assert_eq!(proof.verify(world.gateway.log().verifier()).unwrap().size, world.log_size());
    assert_eq!(proof.index + 1, world.log_size());
    assert_eq!(proof.extra[..32], *Sha256::digest(&token));
    for secret in ["650", &crate::support::world::number(1), &crate::support::world::name(1), &consent.token] {
        // In the body three digits may stand by chance, in a signature or a hash.
        assert!(secret == "650" || !String::from_utf8_lossy(&said.body).contains(secret));
        assert!(!said.claims().to_string().contains(secret));
    }
}

#[tokio::test]
async fn a_grade_is_named_from_the_lowest_cut_up() {
    let world = World::new().await;
    world.register(1..4).await;
    for (n, grade) in [(1, None), (2, Some("good")), (3, Some("excellent"))] {
        if n > 1 {
            world.make_good(n).await;
        }
        if n > 2 {
            world.make_excellent(n).await;
        }
        let login = world.login(n).await;
        let consent = world.consent(&login, "yx-fuxian-scenic", "scenic-ticket", 1).await;
        let said = world.ask("yx-fuxian-scenic", "scenic-ticket", &consent.token).await;
        assert_eq!(said.met, grade.is_some());
        if let Some(grade) = grade {
            assert_eq!(said.claims()["met"], serde_json::json!({ "grade": grade }));
        }
    }
}

// INVARIANT (no names travel)
#[tokio::test]
async fn a_pseudonym_is_given_only_for_one_a_person_and_differs_by_scenario() {
    let world = World::new().await;
    let login = world.good(1).await;
    let other = world.good(2).await;
    let park = "yx-startup-park";
    let mut subs = Vec::new();
    for (login, scenario) in
        [(&login, "coworking-desk"), (&login, "coworking-desk"), (&login, "startup-course"), (&other, "coworking-desk")]
    {
        let consent = world.consent(login, park, scenario, 1).await;
        subs.push(world.ask(park, scenario, &consent.token).await.claims()["sub"].as_str().unwrap().to_owned());
    }
    assert_eq!(subs[0], subs[1], "the same person is known again");
    assert!(subs[0] != subs[2] && subs[0] != subs[3] && subs[2] != subs[3]);
    let consent = world.consent(&login, "yx-bike", BIKE, 1).await;
    let claims = world.ask("yx-bike", BIKE, &consent.token).await.claims();
    assert!(!claims.as_object().unwrap().contains_key("sub"));
}

#[tokio::test]
async fn a_repeat_gives_the_first_answer_and_its_proof_again_for_ten_minutes() {
    let world = World::new().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 2).await;
    let (bike, nonce) = (caller("yx-bike"), world.fresh("nonce"));
    let first = world.ask_as(&bike, BIKE, &consent.token, &nonce).await.unwrap();
    // The score falls, and other entries come in between.
    world.make_defaulter(1).await;
    for _ in 0..2 {
        let size = world.log_size();
        assert_eq!(world.ask_as(&bike, BIKE, &consent.token, &nonce).await.unwrap(), first);
        assert_eq!(world.log_size(), size + 1, "a repeat leaves an entry of its own");
        world.advance(299);
    }
    assert_eq!(world.uses_left(&login).await, 1);
    assert!(world.ask_as(&bike, BIKE, &consent.token, &nonce).await.unwrap() == first, "at 598 s");
    world.advance(2);
    let again = world.ask_as(&bike, BIKE, &consent.token, &nonce).await.unwrap();
    assert!(again.met && again.attestation != first.attestation, "at 600 s it is another call");
    assert_eq!(world.uses_left(&login).await, 0);
}

#[tokio::test]
async fn a_repeat_outlives_uses_end_and_code_but_not_revocation() {
    let world = World::new().await;
    let login = world.good(1).await;
    let bike = caller("yx-bike");
    let consent = world.consent(&login, "yx-bike", BIKE, 1).await;
    let code = world.code(&login, &consent).await;
    let nonce = world.fresh("nonce");
    let first = world.ask_as(&bike, BIKE, &code, &nonce).await.unwrap();
    assert!(first.met);
    world.advance(300);
    let spelled = code.to_lowercase().replace('-', " ");
    assert_eq!(world.ask_as(&bike, BIKE, &spelled, &nonce).await.unwrap(), first);
    assert!(!world.ask_as(&bike, BIKE, &consent.token, &nonce).await.unwrap().met, "the token is another call");
    world.gateway.revoke(&login, &consent.id.to_text()).await.unwrap();
    assert!(!world.ask_as(&bike, BIKE, &code, &nonce).await.unwrap().met);
    assert!(!world.ask_as(&bike, BIKE, &code, &nonce).await.unwrap().met);
}

#[tokio::test]
async fn a_withheld_answer_is_repeated_as_withheld() {
    let world = World::new().await;
    world.register(1..2).await;
    let login = world.login(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    let (bike, nonce) = (caller("yx-bike"), world.fresh("nonce"));
    assert!(!world.ask_as(&bike, BIKE, &consent.token, &nonce).await.unwrap().met);
    assert!(!world.ask_as(&bike, BIKE, &consent.token, &nonce).await.unwrap().met);
    assert_eq!(world.uses_left(&login).await, 4);
}

/// What is remembered of a call is nobody else's and no other call's.
#[tokio::test]
async fn a_stored_answer_belongs_to_party_scenario_consent_and_nonce() {
    let world = World::new().await;
    let good = world.good(1).await;
    world.register(2..3).await;
    let poor = world.login(2).await;
    let consent = world.consent(&good, "yx-bike", BIKE, 5).await;
    let others = world.consent(&poor, "yx-bike", BIKE, 5).await;
    let nonce = world.fresh("nonce");
    let (bike, ebike) = (caller("yx-bike"), caller("yx-ebike"));
    assert!(world.ask_as(&bike, BIKE, &consent.token, &nonce).await.unwrap().met);
    assert_eq!(refusal(world.ask_as(&ebike, BIKE, &consent.token, &nonce).await), Refusal::ConsentNotRecognised);
    assert!(!world.ask_as(&bike, BIKE, &others.token, &nonce).await.unwrap().met);
    // Another scenario of the same party.
    let park = caller("yx-startup-park");
    let desk = world.consent(&good, "yx-startup-park", "coworking-desk", 5).await;
    assert!(world.ask_as(&park, "coworking-desk", &desk.token, &nonce).await.unwrap().met);
    let course = world.ask_as(&park, "startup-course", &desk.token, &nonce).await;
    assert_eq!(refusal(course), Refusal::ConsentNotRecognised);
    assert_eq!(world.uses_left(&good).await, 4);
}

#[tokio::test]
async fn nobody_learns_why_a_token_or_code_is_not_recognised() {
    let world = World::new().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    let foreign = world.consent(&login, "yx-ebike", BIKE, 5).await;
    let code = world.code(&login, &foreign).await;
    let mut forged = consent.token.clone().into_bytes();
    forged[10] = if forged[10] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    let padded = format!("{} ", consent.token);
    for shown in [forged.as_str(), &foreign.token, &code, "0000-0000-0000", "", "x", &padded, &"A".repeat(68)] {
        let size = world.log_size();
        let nonce = world.fresh("nonce");
        let refused = refusal(world.ask_as(&caller("yx-bike"), BIKE, shown, &nonce).await);
        assert_eq!(refused, Refusal::ConsentNotRecognised);
        assert_eq!(world.actions_since(size).await, ["refuse"], "the caller is known, so it is logged");
    }
    assert_eq!(world.uses_left(&login).await, 5);
}

#[tokio::test]
async fn who_is_not_of_the_scenario_gets_what_a_missing_scenario_gets() {
    let world = World::new().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    for (who, scenario) in [("yx-library", BIKE), ("yx-bike", "no-such"), ("yx-bike", "Not A Code"), ("nobody", BIKE)] {
        let nonce = world.fresh("nonce");
        let refused = refusal(world.ask_as(&caller(who), scenario, &consent.token, &nonce).await);
        assert_eq!(refused, Refusal::UnknownScenario);
    }
    for nonce in ["short", &"n".repeat(129), "sixteen chars no", "nonce-with-ünicode"] {
        let refused = refusal(world.ask_as(&caller("yx-bike"), BIKE, &consent.token, nonce).await);
        assert!(matches!(refused, Refusal::OutOfRange { field: "nonce", .. }), "{nonce}");
    }
}

/// Only an answer that is met carries anything signed.
#[tokio::test]
async fn a_withheld_body_holds_nothing_but_the_word() {
    let world = World::new().await;
    world.register(1..2).await;
    let login = world.login(1).await;
    let consent = world.consent(&login, "yx-startup-park", "coworking-desk", 5).await;
    let said = world.ask("yx-startup-park", "coworking-desk", &consent.token).await;
    let text = String::from_utf8(said.body).unwrap();
    assert_eq!(text.trim_end_matches(' '), r#"{"answer":"withheld"}"#);
    let _: &Gateway = &world.gateway;
}

/// The nonce is the party's own, of 16 to 128 characters, each of 64: what is one too short, too long or another is refused.
#[tokio::test]
async fn a_nonce_has_16_to_128_of_64_characters() {
    let world = World::new().await;
    let login = world.good(1).await;
    let token = world.consent(&login, "yx-bike", BIKE, 300).await.token;
    let bike = caller("yx-bike");
    for length in [0, 1, 15, 16, 17, 64, 127, 128, 129, 256, 4096] {
        let said = world.ask_as(&bike, BIKE, &token, &"n".repeat(length)).await;
        match (16..=128).contains(&length) {
            true => assert!(said.unwrap().met, "{length}"),
            false => assert!(matches!(refusal(said), Refusal::OutOfRange { field: "nonce", .. }), "{length}"),
        }
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    for c in (0..=255).map(char::from).chain(['\u{ff10}', '\u{430}', '\u{200b}']) {
        for nonce in [format!("{c}{:a<20}", ""), format!("{:a<20}{c}", "")] {
            let said = world.ask_as(&bike, BIKE, &token, &nonce).await;
            assert_eq!(said.is_ok(), allowed(c), "{c:?}");
        }
    }
}
