//! `jadegate rotate` as an operator meets it: stopped, running, interrupted.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use jadegate::attestation::jwks::Jwks;
use jadegate::clock::SystemClock;
use jadegate::config::rotate::RotateWish;
use jadegate::entropy::SystemEntropy;
use jiff::SignedDuration;

use crate::support::deployment::{Deployment, LIBRARY, SCENARIO, ask, outcome, token};
use crate::support::nightly;
use crate::support::process::{Serving, run};
use crate::support::wait::until;

fn rotate(city: &Deployment, more: &[&str]) -> (i32, String, String) {
    let file = city.config_file();
    run(&[&["rotate", "--config", file.to_str().unwrap()], more].concat())
}

/// How many keys of each rotating use the file has.
fn keys(city: &Deployment) -> [usize; 3] {
    let file: serde_json::Value = serde_json::from_slice(&city.read("keys/keyring.json")).unwrap();
    let keys = file["keys"].as_array().unwrap();
    ["working", "consent", "signing"].map(|r#use| keys.iter().filter(|key| key["use"] == r#use).count())
}

fn audited(city: &Deployment) {
    let (code, out, err) = run(&["audit", "--config", city.config_file().to_str().unwrap()]);
    assert_eq!(code, 0, "{out}{err}");
}

#[tokio::test]
async fn a_stopped_deployment_rotates_and_goes_on() {
    let mut city = Deployment::city().await;
    let shown = token(&mut city.person(0).await, LIBRARY).await;
    city.stop().await.unwrap();
    let (code, out, err) = rotate(&city, &["--at-once"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("people's keys were wrapped by the new working key") && out.contains("fresh backup"), "{out}");
    assert!(!out.contains("0 people's"), "{out}");
    assert_eq!(keys(&city), [2, 2, 2]);
    let mode = std::fs::metadata(city.dir().join("keys/keyring.json")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    audited(&city);
    // Again on the same day: nothing is made or destroyed, old backups keep their key.
    let (code, out, _) = rotate(&city, &[]);
    assert!(code == 0 && out.contains("No new keys"), "{out}");
    assert_eq!(keys(&city), [2, 2, 2]);
    city.start().await;
    assert_eq!(outcome(&ask(&mut city.party(LIBRARY), SCENARIO, &shown).await), (200, "met".into()));
    let fresh = token(&mut city.person(0).await, LIBRARY).await;
    assert_eq!(outcome(&ask(&mut city.party(LIBRARY), SCENARIO, &fresh).await), (200, "met".into()));
    city.stop().await.unwrap();
}

/// A fault at each step of the file, counted: the deployment starts and answers, and the next rotation is whole.
#[tokio::test]
async fn a_rotation_that_failed_at_any_step_of_the_file_is_made_good_by_the_next() {
    let mut city = Deployment::city().await;
    let shown = token(&mut city.person(0).await, LIBRARY).await;
    city.stop().await.unwrap();
    let wish = RotateWish { lead: SignedDuration::from_mins(10), at_once: true };
    let (mut failed, mut made) = (0, keys(&city)[0]);
    loop {
        let mut step = 0;
        let mut before = |_: &str| {
            step += 1;
            if step == failed + 1 { Err(std::io::Error::other("a fault was ordered")) } else { Ok(()) }
        };
        let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(SystemEntropy::new()));
        let done = city.config.rotate(wish, clock, entropy, &mut before).await;
        city.start().await;
        assert_eq!(outcome(&ask(&mut city.party(LIBRARY), SCENARIO, &shown).await), (200, "met".into()));
        city.stop().await.unwrap();
        let now = keys(&city)[0];
        if done.is_ok() {
            break;
        }
        // Before the rename there is the old file, after it the new one, and never anything else.
        assert_eq!(now, made + usize::from(failed == 4), "step {failed}");
        made = now;
        failed += 1;
    }
    assert_eq!(failed, 5, "create, write, sync, rename, sync the folder");
    assert!(!city.dir().join("keys/keyring.new").exists());
    audited(&city);
}

/// kill -9 at random moments of the command: whatever was there then starts, answers and rotates.
#[tokio::test]
async fn a_rotation_killed_at_random_moments_leaves_a_deployment_that_answers() {
    let mut city = Deployment::city().await;
    let shown = token(&mut city.person(0).await, LIBRARY).await;
    city.stop().await.unwrap();
    let rounds = nightly::rounds(6, 100);
    let began = tokio::time::Instant::now();
    assert_eq!(rotate(&city, &["--at-once"]).0, 0);
    let whole = began.elapsed();
    let file = city.config_file();
    for round in 0..rounds {
        let args = ["rotate", "--config", file.to_str().unwrap(), "--at-once"];
        let mut rotating = Serving::command(&args, &city.dir().join("output"), &[]);
        let moment = whole.mul_f64((round as f64 + 0.5) / rounds as f64);
        rotating.ended(moment).await;
        rotating.kill();
        city.start().await;
        assert_eq!(outcome(&ask(&mut city.party(LIBRARY), SCENARIO, &shown).await), (200, "met".into()), "{round}");
        city.stop().await.unwrap();
    }
    assert_eq!(rotate(&city, &["--at-once"]).0, 0);
    audited(&city);
    nightly::figure("rotation killed", format_args!("{rounds} of {rounds} answer and finish"));
}

/// The command beside a real gateway under load: no failed call, and the gateway has the keys when the command ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_gateway_takes_new_keys_without_a_failed_call() {
    let mut city = Deployment::city().await;
    city.stop().await.unwrap();
    let mut serving = Serving::start(&city.config_file(), &city.dir().join("output"), &[]).await;
    let shown = token(&mut city.person(0).await, LIBRARY).await;
    let fetch = async || {
        let response = city.public().get("/.well-known/jwks.json").await.unwrap();
        assert_eq!(response.headers["cache-control"], format!("public, max-age={}", jadegate::keys::JWKS_SECONDS));
        Jwks::parse(std::str::from_utf8(&response.body).unwrap()).unwrap()
    };
    let before = fetch().await;
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut party = city.party(LIBRARY);
    let (told, count, asking) = (stop.clone(), asked.clone(), shown.clone());
    let load = tokio::spawn(async move {
        let mut said = Vec::new();
        while !told.load(Ordering::SeqCst) && said.len() < 190 {
            said.push(outcome(&ask(&mut party, SCENARIO, &asking).await));
            count.fetch_add(1, Ordering::SeqCst);
        }
        said
    });
    until("three answers", async || asked.load(Ordering::SeqCst) >= 3).await;
    let file = city.config_file();
    let rotating = tokio::task::spawn_blocking(move || run(&["rotate", "--config", file.to_str().unwrap()]));
    let (code, out, err) = rotating.await.unwrap();
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("The running gateway has taken them"), "{out}");
    let after = fetch().await;
    assert_eq!((before.0.len(), after.0.len()), (1, 2));
    serving.writes("people's keys were wrapped by the new working key", 1).await;
    // A consent of the new key, under SIGHUP too.
    serving.signal("-HUP");
    serving.writes("the policies were loaded", 1).await;
    let fresh = token(&mut city.person(0).await, LIBRARY).await;
    assert_eq!(outcome(&ask(&mut city.party(LIBRARY), SCENARIO, &fresh).await), (200, "met".into()));
    stop.store(true, Ordering::SeqCst);
    let said = load.await.unwrap();
    assert!(said.iter().all(|said| *said == (200, "met".into())), "{said:?}");
    serving.signal("-TERM");
    assert!(serving.ended(Duration::from_secs(20)).await.is_some_and(|status| status.success()));
    assert_eq!(keys(&city), [2, 2, 2]);
    audited(&city);
    nightly::figure("rotation beside serve", format_args!("0 of {} calls failed", said.len()));
}
