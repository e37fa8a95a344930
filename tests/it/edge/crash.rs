//! kill -9 at any moment, and at each point of the ledger's way to the disk: what was acknowledged holds, and the log goes on
//! from where it was.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jadegate::clock::SystemClock;
use jadegate::entropy::{self, SystemEntropy};

use crate::support::deployment::Deployment;
use crate::support::nightly;
use crate::support::process::Serving;
use crate::support::survival::{Loaded, Told, audits, holds, log_key};

const LOADS: usize = 4;

/// A point of the ledger: killed just before this system call on one of these files. strace does it, so the program that
/// runs is the one that is shipped.
struct Point {
    name: &'static str,
    call: &'static str,
    files: fn(&Deployment) -> Vec<PathBuf>,
    /// The most calls of one thread that pass before.
    within: u8,
}

fn store(city: &Deployment) -> Vec<PathBuf> {
    vec![city.config.store.folder().unwrap().join("sled/db")]
}

fn outside(city: &Deployment) -> Vec<PathBuf> {
    let name = city.config.log_origin.replace('/', "_");
    (0..2).map(|turn| city.config.checkpoints.join(format!("{name}.{turn}.checkpoint"))).collect()
}

fn any(_: &Deployment) -> Vec<PathBuf> {
    Vec::new()
}

const POINTS: [Point; 5] = [
    Point { name: "before a group is written to the store", call: "pwrite64", files: store, within: 40 },
    Point { name: "between the store's write and its sync", call: "fdatasync", files: store, within: 40 },
    Point { name: "between the store's sync and the outside copy", call: "pwrite64", files: outside, within: 20 },
    Point { name: "between the outside copy and its sync", call: "fdatasync", files: outside, within: 20 },
    Point { name: "when all is durable and nobody is told", call: "sendto,writev,sendmsg", files: any, within: 60 },
];

impl Point {
    fn strace(&self, city: &Deployment, passing: u8) -> Vec<String> {
        let mut arguments: Vec<String> = ["-f", "-qq", "-o", "/dev/null"].map(str::to_owned).into();
        arguments.push(format!("-etrace={}", self.call));
        for file in (self.files)(city) {
            arguments.extend(["-P".to_owned(), file.to_str().unwrap().to_owned()]);
        }
        arguments.push(format!("-einject={}:signal=KILL:when={}", self.call, 1 + passing % self.within));
        arguments
    }
}

/// Waits until callers were told some things more.
async fn told_more(told: &Told, more: usize, load: &Loaded, serving: &Serving) {
    let enough = told.len() + more;
    while told.len() < enough {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!load.is_over(), "{}", serving.wrote());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_holds_after_kill_9() {
    let kills = nightly::rounds(10, 100);
    let mut city = Deployment::provisioned(Arc::new(SystemClock::new()));
    let output = city.dir().join("output");
    let (config, mut serving) = (city.config_file(), Serving::spawn(&city.config_file(), &output, &[]));
    serving.ready(&config).await;
    city.populate(1).await;
    let city = Arc::new(city);
    let key = log_key(&city).await;
    let mut load = Loaded::new(city.clone());
    let (mut earlier, mut at_points) = (Vec::new(), [0; POINTS.len()]);
    for kill in 0..kills {
        let [calls, moment] = entropy::bytes::<2>(&SystemEntropy::new()).unwrap();
        serving.kill();
        // In turn: at a random moment, and at one of the points.
        let point = (kill % 2 == 1).then_some(kill / 2 % POINTS.len());
        serving = match point.map(|point| (point, &POINTS[point])) {
            None => Serving::spawn(&config, &output, &[]),
            Some((at, point)) => {
                at_points[at] += 1;
                Serving::spawn_traced(&point.strace(&city, calls), &config, &output)
            }
        };
        match point {
            None => {
                serving.ready(&config).await;
                load.start(LOADS);
                // The moment: after some tens of acknowledged calls, and then a little more or less.
                told_more(&load.told, 6 + usize::from(calls % 40), &load, &serving).await;
                tokio::time::sleep(Duration::from_micros(u64::from(moment) * 100)).await;
                serving.kill();
            }
            Some(point) => {
                // It may come before anybody can call.
                if serving.ready_or_ended(&config).await {
                    load.start(LOADS);
                    let status = serving.ended(Duration::from_secs(120)).await;
                    let status = status.unwrap_or_else(|| panic!("not killed {}", POINTS[point].name));
                    assert!(!status.success(), "{}: {status}", POINTS[point].name);
                }
            }
        }
        load.over().await;
        audits(&city).await;
        serving = Serving::start(&config, &output, &[]).await;
        let log = holds(&city, &load.told, &key, i64::MAX).await;
        assert!(earlier.iter().all(|checkpoint| log.holds(checkpoint)), "the log was begun anew");
        earlier.push(log.checkpoint);
    }
    let counts = load.told.counts();
    assert!(counts.iter().all(|count| *count >= 3), "hardly any load: {counts:?}");
    assert!(!serving.wrote().contains("panicked"), "{}", serving.wrote());
    nightly::figure(
        "kill -9 under load",
        format_args!(
            "{kills} kills, {at_points:?} of them at the five points; {} answers, {} by code, {} revocations and {} records \
             acknowledged, none lost",
            counts[0], counts[1], counts[2], counts[3]
        ),
    );
}
