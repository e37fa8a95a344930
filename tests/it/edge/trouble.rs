//! A full disk, a folder that cannot be written, a disk that fails, a clock that steps: what the operator and
//! the caller are told, that nothing was answered that is not logged, and that work resumes when the cause is gone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jadegate::access_log::checkpoint::VerifierKey;

use crate::support::deployment::{Deployment, LIBRARY, SCENARIO, ask, outcome, problem, token};
use crate::support::process::{Serving, run};
use crate::support::survival::{Loaded, audits, holds, populated};

const LOADS: usize = 3;

/// What an operator reads: one sentence of the kind `jadegate: …`, and no trace.
fn sentence(wrote: &str) -> String {
    let said = wrote.lines().filter(|line| line.starts_with("jadegate: ")).collect::<Vec<_>>().join("\n");
    assert_eq!(said.lines().count(), 1, "{wrote}");
    for odd in ["Err(", "Os {", "::"] {
        assert!(!said.contains(odd), "{odd} in: {said}");
    }
    assert!(!wrote.contains("panicked") && !wrote.contains("Os {"), "{wrote}");
    said
}

/// The gateway ends in the middle of its work, and is started again when the cause is gone.
async fn ends_and_resumes(
    city: &Arc<Deployment>,
    key: &VerifierKey,
    output: &Path,
    serving: &mut Serving,
    load: &mut Loaded,
    mend: impl FnOnce(),
) -> String {
    let config = city.config_file();
    let status = serving.ended(Duration::from_secs(120)).await.expect("it ends where it cannot know what is durable");
    assert_eq!(status.code(), Some(1), "{}", serving.wrote());
    let said = sentence(&serving.wrote());
    load.over().await;
    mend();
    audits(city).await;
    *serving = Serving::start(&config, output, &[]).await;
    holds(city, &load.told, key, i64::MAX).await;
    said
}

/// System calls that fail from some moment on, as they do on a disk that is full or broken.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_ends_the_gateway_and_a_restart_goes_on() {
    for (call, error, word) in [
        ("pwrite64", "ENOSPC", "No space left"),
        ("fdatasync", "EIO", "Input/output error"),
        ("pwrite64", "EROFS", "Read-only file system"),
    ] {
        let (city, key, output) = populated().await;
        let data = city.config.store.folder().unwrap().join("sled/db");
        let strace = ["-f", "-qq", "-o", "/dev/null", "-P", data.to_str().unwrap()].map(str::to_owned);
        let inject = [format!("-etrace={call}"), format!("-einject={call}:error={error}:when=12+")];
        let mut serving = Serving::spawn_traced(&[&strace[..], &inject].concat(), &city.config_file(), &output);
        serving.ready(&city.config_file()).await;
        let mut load = Loaded::new(city.clone());
        load.start(LOADS);
        let said = ends_and_resumes(&city, &key, &output, &mut serving, &mut load, || {}).await;
        assert!(said.contains("the ledger has stopped") && said.contains(word), "{call} {error}: {said}");
        assert!(said.contains("start"), "it says that a start is what goes on: {said}");
    }
}

/// The outside copy cannot be written: callers get a fault and no answer, and the same process goes on when it can be again.
#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_the_outside_copy_nothing_is_answered_until_there_is_some() {
    let (city, key, output) = populated().await;
    let name = city.config.log_origin.replace('/', "_");
    let files = (0..2).map(|turn| city.config.checkpoints.join(format!("{name}.{turn}.checkpoint")));
    let mut strace: Vec<String> = ["-f", "-qq", "-o", "/dev/null"].map(str::to_owned).into();
    for file in files {
        strace.extend(["-P".to_owned(), file.to_str().unwrap().to_owned()]);
    }
    // Each thread that copies fails for some calls, and then no more.
    strace.extend(["-etrace=pwrite64".to_owned(), "-einject=pwrite64:error=ENOSPC:when=3..6".to_owned()]);
    let mut serving = Serving::spawn_traced(&strace, &city.config_file(), &output);
    serving.ready(&city.config_file()).await;
    let token = token(&mut city.person(0).await, LIBRARY).await;
    let (mut failed, mut met) = (0, 0);
    for _ in 0..60 {
        let size = city.log_size().await;
        let answer = ask(&mut city.party(LIBRARY), SCENARIO, &token).await;
        if answer.status == 200 {
            assert_eq!(outcome(&answer).1, "met");
            assert!(city.log_size().await > size);
            met += 1;
        } else {
            let (status, code) = problem(&answer, &[city.config.checkpoints.to_str().unwrap()]);
            assert!(status >= 500, "{code}");
            assert_eq!(city.log_size().await, size, "readers do not see what was not released");
            failed += 1;
        }
        if failed > 0 && met > 3 && answer.status == 200 {
            break;
        }
    }
    assert!(failed > 0 && met > 0, "{failed} faults and {met} answers");
    assert!(
        serving.wrote().contains("outside copy") && serving.wrote().contains("No space left"),
        "{}",
        serving.wrote()
    );
    serving.kill();
    audits(&city).await;
    serving = Serving::start(&city.config_file(), &output, &[]).await;
    holds(&city, &Loaded::new(city.clone()).told, &key, i64::MAX).await;
    drop(serving);
}

/// A file system of its own, for whoever may mount one.
struct Mounted(PathBuf);

impl Mounted {
    fn at(folder: &Path, options: &str) -> Option<Self> {
        mount(&["-t", "tmpfs", "-o", options, "tmpfs", folder.to_str()?]).then(|| Self(folder.to_owned()))
    }

    /// Changes how it is mounted.
    fn again(&self, options: &str) {
        assert!(mount(&["-o", &format!("remount,{options}"), self.0.to_str().unwrap()]));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _it_may_be_gone = Command::new("umount").arg("-l").arg(&self.0).stderr(Stdio::null()).status();
    }
}

fn mount(arguments: &[&str]) -> bool {
    Command::new("mount").args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn move_in(folder: &Path, options: &str) -> Option<Mounted> {
    let aside = folder.with_extension("aside");
    let copy = |from: &Path, to: &Path| {
        let from = format!("{}/.", from.display());
        assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    };
    std::fs::create_dir(&aside).unwrap();
    copy(folder, &aside);
    let mounted = Mounted::at(folder, options)?;
    copy(&aside, folder);
    Some(mounted)
}

/// A real file system that runs full under load. Where nobody may mount one, the injected fault above is all there is.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_is_full_ends_the_gateway_and_room_lets_it_go_on() {
    let (city, key, output) = populated().await;
    let Some(mounted) = move_in(city.config.store.folder().unwrap(), "size=64m") else {
        println!("left out: this user may not mount a file system");
        return;
    };
    let mut serving = Serving::start(&city.config_file(), &output, &[]).await;
    let mut load = Loaded::new(city.clone());
    load.start(LOADS);
    while load.told.len() < 20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!load.is_over(), "{}", serving.wrote());
    }
    let filler = city.config.store.folder().unwrap().join("filler");
    let full = std::fs::write(&filler, vec![1; 80 * 1024 * 1024]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let said =
        ends_and_resumes(&city, &key, &output, &mut serving, &mut load, || std::fs::remove_file(&filler).unwrap())
            .await;
    assert!(said.contains("No space left"), "{said}");
    serving.kill();
    drop(mounted);
}

/// A store or checkpoint folder that cannot be written is named before anything is answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_written_is_named_at_the_start() {
    for checkpoints in [false, true] {
        let (city, key, output) = populated().await;
        let folder = if checkpoints { &city.config.checkpoints } else { city.config.store.folder().unwrap() };
        let mounted = move_in(folder, "size=64m");
        let permissions = |mode: &str| {
            assert!(Command::new("chmod").args(["-R", mode]).arg(folder).status().unwrap().success());
        };
        // Root writes where it is not allowed to, but not where nobody can.
        match &mounted {
            Some(mounted) => mounted.again("ro"),
            None => permissions("a-w"),
        }
        let (code, out, err) = run(&["serve", "--config", city.config_file().to_str().unwrap()]);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        let said = sentence(&err);
        assert!(said.contains(folder.to_str().unwrap()), "{said}");
        assert!(said.contains("writable") || said.contains("make") || said.contains("give"), "what to do: {said}");
        match &mounted {
            Some(mounted) => mounted.again("rw"),
            None => permissions("u+w"),
        }
        let serving = Serving::start(&city.config_file(), &output, &[]).await;
        holds(&city, &Loaded::new(city.clone()).told, &key, i64::MAX).await;
        drop((serving, mounted));
    }
}

/// libfaketime, which exchanges the wall clock under the binary.
fn faketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().map(|folder| folder.unwrap().path());
    let mut found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).filter(|file| file.exists());
    found.next().expect("libfaketime is not here; scripts/test installs what tests need")
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_wall_clock_is_stepped_nothing_is_answered_or_logged() {
    let (city, _, output) = populated().await;
    let (file, library) = (city.dir().join("time"), faketime());
    // Renamed into place: it is read at every look at the clock.
    let step = |seconds: i64| {
        let new = file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(new, &file).unwrap();
    };
    step(0);
    let environment = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    let serving = Serving::start(&city.config_file(), &output, &environment).await;
    let token = token(&mut city.person(0).await, LIBRARY).await;
    assert_eq!(outcome(&ask(&mut city.party(LIBRARY), SCENARIO, &token).await), (200, "met".to_owned()));
    for seconds in [3600, -3600, 86_400 * 20] {
        step(seconds);
        let size = city.log_size().await;
        let answer = ask(&mut city.party(LIBRARY), SCENARIO, &token).await;
        let (status, code) = problem(&answer, &[&token]);
        assert!(status == 503 && code.contains("clock"), "{status} {code}");
        assert_eq!(city.log_size().await, size);
        step(0);
        assert_eq!(outcome(&ask(&mut city.party(LIBRARY), SCENARIO, &token).await), (200, "met".to_owned()));
        assert_eq!(city.log_size().await, size + 1);
    }
    drop(serving);
    // A start with a clock that is behind the log.
    step(-3600);
    let mut behind = Serving::spawn(&city.config_file(), &output, &environment);
    assert!(!behind.ready_or_ended(&city.config_file()).await);
    let said = sentence(&behind.wrote());
    assert!(said.contains("the clock says") && said.contains("set the clock right"), "{said}");
    step(0);
    drop(Serving::start(&city.config_file(), &output, &environment).await);
}
