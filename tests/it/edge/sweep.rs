//! kill -9 of a gateway that sweeps, as each of its commits is made durable: it goes on from where it was, and each person is
//! told of the change once.

use std::sync::Arc;
use std::time::Duration;

use jadegate::clock::{Clock, ManualClock, SystemClock, day_of};
use jadegate::disclosure::Cause;
use jadegate::entropy::SystemEntropy;
use jadegate::gateway::{LogFilter, Staff, Who};
use serde_json::json;

use crate::support::deployment::{Deployment, REGISTRAR};
use crate::support::nightly;
use crate::support::process::Serving;
use crate::support::survival::audits;
use crate::support::world::{number, record_line, register_line};

const PEOPLE: u32 = 450;
const CIVIL: &str = "yx-civil-affairs";

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_is_killed_goes_on_from_where_it_was() {
    let rounds = nightly::rounds(6, 30);
    // Made two days ago, with records that ended yesterday: `serve`, by the real clock, finds them due at its start.
    let system = Arc::new(SystemClock::new());
    let past = Arc::new(ManualClock::new(system.now() - Duration::from_secs(2 * 86_400)));
    let yesterday = day_of(system.now()).yesterday().unwrap();
    let mut city = Deployment::provisioned(past);
    city.start().await;
    let register: Vec<String> = (0..PEOPLE).map(|n| register_line(n).to_string()).collect();
    city.feed(REGISTRAR, "/v1/register", &register.join("\n")).await;
    let record = |n: u32| {
        let mut line = record_line(CIVIL, "volunteer-hours", &format!("h-{n}"), n, Some(300));
        line["valid_until"] = json!(yesterday);
        line.to_string()
    };
    city.feed(CIVIL, "/v1/records", &(0..PEOPLE).map(record).collect::<Vec<_>>().join("\n")).await;
    city.stop().await.unwrap();

    let (output, config) = (city.dir().join("output"), city.config_file());
    let database = city.config.store.folder().unwrap().join("sled/db");
    let mut killed = 0;
    for round in 0..rounds {
        // Each time one commit later: from the start's own entry through the batches of the sweep. What was written by then
        // stays, as the system has it; one thread makes all of them durable, so that they are counted as one.
        let mut strace: Vec<String> =
            ["-f", "-qq", "-o", "/dev/null", "-etrace=fdatasync", "-P"].map(str::to_owned).into();
        strace.push(database.to_str().unwrap().to_owned());
        strace.push(format!("-einject=fdatasync:signal=KILL:when={}", 1 + round % 6));
        let mut serving = Serving::spawn_traced(&strace, &config, &output);
        if serving.ready_or_ended(&config).await {
            match serving.ended(Duration::from_secs(4)).await {
                Some(_) => killed += 1,
                None => serving.kill(),
            }
        } else {
            killed += 1;
        }
        assert!(!serving.wrote().contains("panicked"), "{}", serving.wrote());
        audits(&city).await;
    }
    assert!(killed > 0, "nothing was killed");

    let opened = city.config.open(system, Arc::new(SystemEntropy::new())).await.unwrap();
    let gateway = opened.gateway;
    let (mut left, mut steps) = (0, 0);
    loop {
        let step = gateway.sweep().await.unwrap();
        left += step.renewed;
        steps += 1;
        assert!(steps < 100);
        if !step.more {
            break;
        }
    }
    let officer = Staff { login: "officer-one".into(), role: jadegate::access::Role::Officer };
    let filter = LogFilter { limit: 10_000, ..LogFilter::default() };
    let log = gateway.access_log(&officer, &filter).await.unwrap();
    let entries = log.iter().filter(|line| line.action == "sweep").count();
    for n in (0..PEOPLE).step_by(7) {
        let session = gateway.demo_login(&number(n)).await.unwrap();
        let Some(Who::Person(login)) = gateway.session(&session).await.unwrap() else { panic!("{n}") };
        let view = gateway.score(&login).await.unwrap();
        let told: Vec<_> = view.changes.iter().map(|change| (change.from, change.to, change.cause)).collect();
        let expected = [(Some(650), Some(500), Cause::Days), (Some(500), Some(650), Cause::Records)];
        assert_eq!(told, expected, "{n}");
    }
    gateway.close().await;
    audits(&city).await;
    nightly::figure(
        "sweep under kill -9",
        format_args!(
            "{killed} of {rounds} starts were killed; {left} of {PEOPLE} standings were left at the end, {entries} entries in all"
        ),
    );
}
