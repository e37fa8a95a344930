//! Power cuts for files that are put in the place of others: the keyring, and backups. strace records each write, sync and
//! name (`support::disk`); at every moment the file is the one of before or the new one, and when the command has ended it
//! is the new one.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use jadegate::clock::SystemClock;
use jadegate::entropy::{self, SystemEntropy};

use crate::support::deployment::{Deployment, LIBRARY, SCENARIO, ask, outcome, token};
use crate::support::disk::{Dice, RECORD, Recording};
use crate::support::nightly;
use crate::support::process::{ended, run};

/// Ends of each moment: each disk may keep nothing, all or some of what was not synced.
const ENDS: u64 = 24;

/// Runs a command of the binary to its end under strace.
async fn traced(trace: &Path, args: &[&str]) {
    let mut strace = Command::new("strace");
    strace.args(RECORD).arg("-o").arg(trace).arg(env!("CARGO_BIN_EXE_jadegate")).args(args).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || strace.output().expect("strace; scripts/test installs it"));
    let (code, out, err) = ended(&output.await.unwrap());
    assert_eq!(code, 0, "{out}{err}");
}

/// Cuts the power at every moment of a recording of one folder, and looks at one file: it is one of these, and the last of
/// them after the end.
fn at_every_moment(recording: &Recording, folder: &Path, file: &Path, states: &[Option<Vec<u8>>]) -> u64 {
    let folders = [folder.to_owned()];
    let (mut cuts, mut seen) = (0, vec![false; states.len()]);
    for moment in 0..=recording.moments() {
        for seed in 0..ENDS {
            recording.cut(moment, &folders, &mut Dice(seed));
            let left = std::fs::read(file).ok();
            let state = states.iter().position(|state| *state == left);
            let length = left.map(|left| left.len());
            let state = state.unwrap_or_else(|| panic!("cut {moment}, {seed}: {length:?} bytes of neither"));
            if moment == recording.moments() {
                assert_eq!(state, states.len() - 1, "cut {seed} after the end: what was told as done is not there");
            }
            seen[state] = true;
            cuts += 1;
        }
    }
    assert!(seen.iter().all(|seen| *seen), "the file never changed");
    cuts
}

/// The keyring: old or new and never a part, new when `rotate` has said so; and nobody's keys are wrapped by one that a cut
/// can take away, so that what is left always starts and answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_keyring_is_the_old_or_the_new_one_after_a_power_cut() {
    let mut city = Deployment::city().await;
    let shown = token(&mut city.person(0).await, LIBRARY).await;
    city.stop().await.unwrap();
    let (config, trace) = (city.config_file(), city.dir().join("trace"));
    let keys = city.dir().join("keys");
    let file = keys.join("keyring.json");
    let before = std::fs::read(&file).unwrap();
    let folders = [keys.clone(), city.config.store.folder().unwrap().to_owned(), city.config.checkpoints.clone()];
    let (mut alone, mut whole) = (Recording::before(&folders[..1]), Recording::before(&folders));
    traced(&trace, &["rotate", "--config", config.to_str().unwrap(), "--at-once"]).await;
    let after = std::fs::read(&file).unwrap();
    alone.read(&trace);
    whole.read(&trace);
    let kept: Vec<PathBuf> = folders.to_vec();

    let rounds = nightly::rounds(4, 60);
    let mut dice = Dice(u64::from_be_bytes(entropy::bytes(&SystemEntropy::new()).unwrap()));
    println!("seed {}", dice.0);
    for round in 0..rounds {
        let moment = if round == 0 { whole.moments() } else { dice.below(whole.moments()) };
        println!("cut at {moment} of {}", whole.moments());
        whole.cut(moment, &kept, &mut dice);
        private(&keys);
        city.start().await;
        assert_eq!(outcome(&ask(&mut city.party(LIBRARY), SCENARIO, &shown).await), (200, "met".into()));
        city.stop().await.unwrap();
    }
    let cuts = at_every_moment(&alone, &keys, &file, &[Some(before), Some(after)]);
    nightly::figure(
        "power cuts of a rotation",
        format_args!("{cuts} ends of the keyring old or new, {rounds} of {rounds} deployments answer"),
    );
}

/// The recorder knows no modes, and keys are for their owner alone.
fn private(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            private(&path);
        } else {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

/// A backup that has its name is whole, and one that was told of is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_its_name_is_whole_after_a_power_cut() {
    let mut city = Deployment::provisioned(Arc::new(SystemClock::new()));
    city.start().await;
    city.populate(2).await;
    city.stop().await.unwrap();
    let (config, trace) = (city.config_file(), city.dir().join("trace"));
    let backups = city.dir().join("backups");
    std::fs::create_dir(&backups).unwrap();
    let file = backups.join("city.backup");
    let mut recording = Recording::before(std::slice::from_ref(&backups));
    traced(&trace, &["store", "export", "--config", config.to_str().unwrap(), file.to_str().unwrap()]).await;
    recording.read(&trace);
    let whole = std::fs::read(&file).unwrap();
    let cuts = at_every_moment(&recording, &backups, &file, &[None, Some(whole)]);
    // And the one that is left is one.
    let into = city.config.store.folder().unwrap();
    std::fs::rename(into, city.dir().join("store-before")).unwrap();
    let (code, out, err) = run(&["store", "import", "--config", config.to_str().unwrap(), file.to_str().unwrap()]);
    assert_eq!(code, 0, "{out}{err}");
    nightly::figure("power cuts of a backup", format_args!("{cuts} ends, whole under its name or not there"));
}
