//! An import that is killed, loses its gateway or its disk: run again, it ends in the state of one that was not.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use jadegate::clock::{Clock as _, SystemClock};
use jadegate::entropy::{self, SystemEntropy};

use super::receipts::{Keys, receipts, receipts_of};
use super::{City, HEADINGS, PROVIDER, rejects_of, row};
use crate::support::nightly;
use crate::support::process::{Serving, run};
use crate::support::wait::until;

/// Rows about a few people, some of them wrong, some said twice.
pub fn table(rows: u32) -> String {
    let numbers = ["530499199001010015", "53049919880307004X", "53049919901015001X", "530499199001010016"];
    let row = |n: u32| row(&format!("V-{}", n % (rows - rows / 10)), numbers[n as usize % 4], "王芳", 1 + n % 7);
    format!("{HEADINGS}\n{}", (0..rows).map(row).collect::<String>())
}

/// Everything about everybody, as people see it.
pub async fn state(city: &City) -> Vec<String> {
    let mut all = Vec::new();
    for number in ["530499199001010015", "53049919880307004X", "53049919901015001X"] {
        let mut me = city.deployment.login(number).await;
        let exported = me.get("/v1/me/export").await.unwrap().json().unwrap();
        let mut records: Vec<String> =
            exported["records"].as_array().unwrap().iter().map(ToString::to_string).collect();
        records.sort();
        all.extend(records);
    }
    all
}

pub async fn registered(city: &City) {
    let people = "证件号码,姓名,常住人口,完全民事行为能力\n530499199001010015,王芳,是,是\n53049919880307004X,王芳,是,是\n53049919901015001X,王芳,是,是\n";
    let ended = city.import(&["--register"], &[&city.file("register.csv", people)]).await;
    assert_eq!(ended.code, 0, "{}", ended.err);
}

/// What an import that nobody disturbs leaves.
pub async fn undisturbed(content: &str) -> Vec<String> {
    undisturbed_for(content).await.0
}

/// The same, and how long it takes.
async fn undisturbed_for(content: &str) -> (Vec<String>, Duration) {
    let mut city = City::stopped();
    registered(&city).await;
    let file = city.file("a.csv", content);
    let clock = SystemClock::new();
    let began = clock.monotonic();
    assert_eq!(city.records(&[&file]).await.code, 3);
    let took = clock.monotonic() - began;
    city.deployment.start().await;
    let state = state(&city).await;
    city.deployment.stop().await.unwrap();
    (state, took)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_and_run_again_it_ends_in_the_same_state() {
    let (kills, content) = (nightly::rounds(6, 60), table(4_000));
    let (expected, took) = undisturbed_for(&content).await;
    let mut city = City::stopped();
    registered(&city).await;
    let keys = Keys::of(&mut city).await;
    let file = city.file("a.csv", &content);
    let (mut half, mut whole, mut got) = (0, 0, 0);
    for kill in 0..kills {
        let mut child = Command::new(env!("CARGO_BIN_EXE_jadegate"))
            .args(city.arguments(&["--provider", PROVIDER], &[&file]))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // A first import takes as long as that; what is there already goes quicker, and the last ones come to their end.
        let chance =
            f64::from(u16::from_be_bytes(entropy::bytes(&SystemEntropy::new()).unwrap())) / f64::from(u16::MAX);
        tokio::time::sleep(took.mul_f64(chance * (0.3 + 1.5 * kill as f64 / kills as f64))).await;
        child.kill().unwrap();
        let ended = child.wait().unwrap();
        // A file of rejects that has its name is whole.
        match city.rejects(&file).len() {
            0 => half += 1,
            all => {
                whole += 1;
                assert_eq!(all, 1_000, "{ended}");
            }
        }
        // Every line of a file of receipts is whole, and none goes away again.
        let before = std::mem::replace(&mut got, receipts(&file).len());
        assert!(got >= before, "{ended}");
    }
    let last = city.records(&[&file]).await;
    assert_eq!((last.code, last.counts()[3]), (3, 1_000), "{}", last.err);
    assert_eq!(city.rejects(&file).len(), 1_000);
    // Those of the runs that were killed are there too, and all of them hold; the last run has eight.
    assert!(receipts(&file).len() >= got + 8);
    let verified = keys.verify(&file, &[]);
    assert!(verified.code == 0 && verified.out.contains("lines 2 to 4001 (4000 lines)"), "{}", verified.err);
    let audit = run(&["audit", "--config", city.deployment.config_file().to_str().unwrap()]);
    assert_eq!(audit.0, 0, "{} {}", audit.1, audit.2);
    city.deployment.start().await;
    assert!(state(&city).await == expected, "the state is another");
    city.deployment.stop().await.unwrap();
    nightly::figure(
        "imports killed",
        format_args!("{kills}, {half} without rejects, {whole} with all, {got} receipts kept; the same state"),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_goes_away_ends_the_import_with_a_sentence_and_run_again_it_ends_in_the_same_state() {
    let content = table(4_000);
    let expected = undisturbed(&content).await;
    let mut city = City::stopped();
    registered(&city).await;
    let (file, config) = (city.file("a.csv", &content), city.deployment.config_file());
    let mut serving = Serving::start(&config, &city.files.join("output"), &[]).await;
    let files = [file.as_path()];
    let importing = city.records(&files);
    let killing = async {
        // Some batches are in the log, and others are not.
        let before = city.deployment.log_size().await;
        until("two batches", async || city.deployment.log_size().await >= before + 2).await;
        serving.kill();
    };
    let (ended, ()) = tokio::join!(importing, killing);
    assert_eq!(ended.code, 1, "{} {}", ended.out, ended.err);
    assert!(ended.err.contains("run the same command again") && !ended.err.contains("5304"), "{}", ended.err);
    assert!(!rejects_of(&file).exists(), "half of a file of rejects has its name");
    let got = receipts(&file).len();
    assert_eq!(got > 0, ended.err.contains("receipts.ndjson"), "{got} receipts: {}", ended.err);
    let last = city.records(&[&file]).await;
    assert_eq!((last.code, last.counts()[3]), (3, 1_000), "{} {}", last.out, last.err);
    assert_eq!(receipts(&file).len(), got + 8);
    city.deployment.start().await;
    assert!(state(&city).await == expected, "the state is another");
    city.deployment.stop().await.unwrap();
}

/// Runs an import under strace, which lets a system call fail from a time on as a full disk does.
fn on_a_full_disk(city: &City, file: &Path, call: &str, on: &Path, from: u32) -> (i32, String) {
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-P", on.to_str().unwrap(), &format!("-etrace={call}")])
        .arg(format!("-einject={call}:error=ENOSPC:when={from}+"))
        .arg(env!("CARGO_BIN_EXE_jadegate"))
        .args(city.arguments(&["--provider", PROVIDER], &[file]))
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("strace cannot be started ({e}); scripts/test installs what tests need"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout) + &text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_ends_the_import_with_a_sentence_and_run_again_it_ends_in_the_same_state() {
    let content = table(2_000);
    let expected = undisturbed(&content).await;
    let mut city = City::stopped();
    registered(&city).await;
    let file = city.file("a.csv", &content);
    let partial = Path::new(&format!("{}.partial", rejects_of(&file).display())).to_owned();
    let store = city.deployment.config.store.folder().unwrap().join("sled/db");
    let receipts_partial = Path::new(&format!("{}.partial", receipts_of(&file).display())).to_owned();
    let mut ended_early = 0;
    for (call, on, from) in [
        ("write", &receipts_partial, 1),
        ("write", &partial, 1),
        ("pwrite64", &store, 2),
        ("pwrite64", &store, 4),
        ("pwrite64", &store, 9),
    ] {
        let before = receipts(&file).len();
        let (code, said) = on_a_full_disk(&city, &file, call, on, from);
        // Late enough, and all of it was written before.
        if code == 3 {
            assert_eq!(city.rejects(&file).len(), 500);
            std::fs::remove_file(rejects_of(&file)).unwrap();
            continue;
        }
        assert_eq!(code, 1, "{call} {from}: {said}");
        assert!(said.contains("jadegate: ") && !said.contains("panicked"), "{call} {from}: {said}");
        assert!(!rejects_of(&file).exists(), "{call} {from}: half of a file of rejects has its name");
        // The batch whose refused lines cannot be written was taken, and its receipt is there.
        if on == &partial {
            assert!(receipts(&file).len() > before && said.contains("receipts.ndjson"), "{said}");
        }
        ended_early += 1;
    }
    assert!(ended_early >= 2, "the disk never filled while it was needed");
    let last = city.records(&[&file]).await;
    assert_eq!((last.code, last.counts()[3]), (3, 500), "{} {}", last.out, last.err);
    city.deployment.start().await;
    assert!(state(&city).await == expected, "the state is another");
    city.deployment.stop().await.unwrap();
}
