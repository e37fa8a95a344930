//! `jadegate store`: backups beside a running gateway and of a stopped one, cut off anywhere, on a full
//! disk, and put back; and the gateway that goes on from one that is too old.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use jadegate::clock::{Clock, ManualClock, SystemClock};
use serde_json::{Value, json};

use crate::support::deployment::{
    ANSWERS, Deployment, LIBRARY, SCENARIO, ask, consent, outcome, question, revoke, text,
};
use crate::support::nightly;
use crate::support::process::{ended, jadegate, run};
use crate::support::wait::until;

const MARKET: &str = "/v1/me/market-consents";

/// Runs a command over a deployment while others of this process go on.
async fn command(args: &[&str]) -> (i32, String, String) {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let work = move || ended(&jadegate().args(args).stdin(Stdio::null()).output().unwrap());
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn export(city: &Deployment, out: &Path) -> (i32, String, String) {
    command(&["store", "export", "--config", city.config_file().to_str().unwrap(), out.to_str().unwrap()]).await
}

async fn import(city: &Deployment, from: &Path) -> (i32, String, String) {
    command(&["store", "import", "--config", city.config_file().to_str().unwrap(), from.to_str().unwrap()]).await
}

async fn on(city: &Deployment, words: &[&str]) -> (i32, String, String) {
    command(&[words, &["--config", city.config_file().to_str().unwrap()]].concat()).await
}

fn set_aside(city: &Deployment, name: &str) -> PathBuf {
    let aside = city.dir().join(name);
    std::fs::rename(city.config.store.folder().unwrap(), &aside).unwrap();
    aside
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_stopped_store_gives_the_same_answers() {
    let mut city = Deployment::city().await;
    let mut me = city.person(0).await;
    let token = text(&consent(&mut me, SCENARIO, LIBRARY, json!({"uses": 200})).await, "token");
    let asked = question(SCENARIO, &token);
    let first = city.party(LIBRARY).post_json(ANSWERS, &asked).await.unwrap();
    assert_eq!(outcome(&first), (200, "met".to_owned()));

    let running = city.dir().join("running.backup");
    let (code, out, err) = export(&city, &running).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("the running gateway") && err.contains("no key"), "{out}{err}");
    city.stop().await.unwrap();
    assert!(!city.config.store.folder().unwrap().join("export.sock").exists());

    let backup = city.dir().join("city.backup");
    let (code, out, err) = export(&city, &backup).await;
    assert_eq!((code, out.contains("the stopped store")), (0, true), "{out}{err}");
    for file in [&running, &backup] {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    let (code, out, err) = export(&city, &backup).await;
    assert!(code == 1 && out.is_empty() && err.contains("written over"), "{err}");
    let (code, out, _) = on(&city, &["store", "verify"]).await;
    assert!(code == 0 && out.contains("SOUND") && out.contains("consent"), "{out}");

    // Its own keys alone open it, and it goes into an empty store alone.
    let (code, out, err) = import(&city, &backup).await;
    assert!(code == 1 && out.is_empty() && err.contains("not empty"), "{err}");
    let other = Deployment::provisioned(Arc::new(SystemClock::new()));
    let (code, out, err) = import(&other, &backup).await;
    assert!(code == 1 && out.is_empty() && err.contains("other keys"), "{err}");
    assert!(!other.config.store.folder().unwrap().join("MARKER").exists(), "nothing is left behind");

    set_aside(&city, "store-before");
    let (code, out, err) = import(&city, &backup).await;
    assert!(code == 0 && out.contains("IMPORTED"), "{out}{err}");
    let (code, out, err) = on(&city, &["audit"]).await;
    assert!(code == 0 && out.contains("AGREES"), "{out}{err}");
    city.start().await;
    let again = city.party(LIBRARY).post_json(ANSWERS, &asked).await.unwrap();
    assert_eq!(again.body, first.body, "the repeat is the first answer to the byte");
    assert_eq!(outcome(&ask(&mut city.party(LIBRARY), SCENARIO, &token).await), (200, "met".to_owned()));

    // No key is in a backup, in any of the forms in which it lies in the key folder.
    let keyring: Value = serde_json::from_slice(&city.read("keys/keyring.json")).unwrap();
    let root = String::from_utf8(city.read("keys/root.key")).unwrap();
    let mut secrets = vec![root.split_whitespace().nth(1).unwrap().to_owned()];
    secrets.extend(keyring["keys"].as_array().unwrap().iter().map(|key| text(key, "sealed")));
    let bytes = std::fs::read(&backup).unwrap();
    for secret in &secrets {
        use base64::Engine as _;
        let raw = base64::engine::general_purpose::STANDARD.decode(secret).unwrap();
        for form in [secret.as_bytes(), &raw] {
            assert!(!bytes.windows(form.len()).any(|held| held == form), "a key lies in the backup");
        }
    }
}

/// A restore that is older than what was released: refused, until the one act that lapses every consent.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_too_old_goes_on_under_a_new_log_with_every_consent_lapsed() {
    let clock = Arc::new(ManualClock::new(SystemClock::new().now()));
    let mut city = Deployment::provisioned(clock.clone());
    city.start().await;
    city.populate(3).await;
    let mut me = city.person(0).await;
    let old_log = city.config.log_origin.clone();
    let stands = consent(&mut me, SCENARIO, LIBRARY, json!({"uses": 200})).await;
    let taken_back = consent(&mut me, SCENARIO, LIBRARY, json!({"uses": 200})).await;
    let asked = question(SCENARIO, &text(&stands, "token"));
    let mut library = city.party(LIBRARY);
    assert_eq!(outcome(&library.post_json(ANSWERS, &asked).await.unwrap()), (200, "met".to_owned()));
    let telecom = json!({"provider": "yx-telecom"});
    let market = me.post_json(MARKET, &telecom).await.unwrap().json().unwrap();
    let backup = city.dir().join("old.backup");
    assert_eq!(export(&city, &backup).await.0, 0);

    // What the backup does not know.
    revoke(&mut me, &taken_back).await;
    let path = format!("{MARKET}/{}", text(&market, "id"));
    let gone = me.send(http::Method::DELETE, &path, http::HeaderMap::new(), vec![].into()).await.unwrap();
    assert_eq!(gone.status, 204);
    let later = consent(&mut me, SCENARIO, LIBRARY, json!({"uses": 200})).await;
    assert_eq!(outcome(&ask(&mut library, SCENARIO, &text(&later, "token")).await), (200, "met".to_owned()));
    city.stop().await.unwrap();
    set_aside(&city, "store-lost");
    let (code, _, err) = import(&city, &backup).await;
    assert_eq!(code, 0, "{err}");
    let (code, out, _) = on(&city, &["audit"]).await;
    assert!(code == 1 && out.contains("rolled back"), "{out}");

    let refused = city.try_start().await.unwrap_err();
    assert!(refused.contains("older than the checkpoint") && refused.contains("--restored-under"), "{refused}");
    // A new name alone does not hide it.
    let file = city.config_file();
    let (code, _, err) = command(&["log", "add", "--config", file.to_str().unwrap(), "yuxi.example/other"]).await;
    assert_eq!(code, 0, "{err}");
    city.config.log_origin = "yuxi.example/other".to_owned();
    let refused = city.try_start().await.unwrap_err();
    assert!(refused.contains("older than the checkpoint"), "{refused}");
    city.config.log_origin = old_log.clone();

    city.start_restored("yuxi.example/restored").await;
    let mut library = city.party(LIBRARY);
    let repeat = library.post_json(ANSWERS, &asked).await.unwrap();
    assert_eq!(outcome(&repeat), (200, "withheld".to_owned()), "a repeat is worth no more than its consent");
    let mut bodies = vec![repeat.body];
    for given in [&stands, &taken_back, &later, &later] {
        let answer = ask(&mut library, SCENARIO, &text(given, "token")).await;
        assert_eq!(outcome(&answer), (200, "withheld".to_owned()));
        bodies.push(answer.body);
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    let mut me = city.person(0).await;
    let listed = me.get("/v1/me/consents").await.unwrap().json().unwrap();
    let listed = listed.as_array().unwrap();
    assert!(listed.len() == 2 && listed.iter().all(|consent| consent["lapsed_before"].is_string()), "{listed:?}");
    let page = me.get("/me/consents").await.unwrap();
    assert!(String::from_utf8_lossy(&page.body).contains("从备份恢复"));
    let wish = json!({"scenario": SCENARIO, "party": LIBRARY});
    assert_eq!(outcome(&me.post_json("/v1/me/consents", &wish).await.unwrap()), (503, "after-restore".to_owned()));
    let listed = me.get(MARKET).await.unwrap().json().unwrap();
    assert!(listed[0]["lapsed_before"].is_string() && listed[0]["withdrawn_at"].is_null(), "{listed:?}");
    let page = me.get("/me/market").await.unwrap();
    assert!(String::from_utf8_lossy(&page.body).contains("从备份恢复"));
    assert_eq!(outcome(&me.post_json(MARKET, &telecom).await.unwrap()), (503, "after-restore".to_owned()));
    // The old log stays, as it is; the new one begins with what happened.
    let mut public = city.public();
    let note = public.get("/log/checkpoint").await.unwrap();
    assert!(
        note.status == 200 && note.body.starts_with(format!("{old_log}\n").as_bytes()),
        "the old log is not served"
    );
    let mut officer = city.login("officer-one").await;
    let entries = officer.get("/v1/access-log?action=restore").await.unwrap().json().unwrap();
    assert_eq!(entries.as_array().unwrap().len(), 1, "{entries}");

    // From the next day on people can consent anew; what was lapsed stays so.
    city.stop().await.unwrap();
    city.config.log_origin = "yuxi.example/restored".to_owned();
    std::fs::write(city.config_file(), city.config.to_toml(&city.dir())).unwrap();
    let (code, out, err) = on(&city, &["audit"]).await;
    assert!(code == 0 && out.contains("AGREES"), "{out}{err}");
    clock.advance(Duration::from_secs(86_400));
    city.start().await;
    let (mut me, mut library) = (city.person(0).await, city.party(LIBRARY));
    let anew = consent(&mut me, SCENARIO, LIBRARY, json!({"uses": 200})).await;
    assert_eq!(me.post_json(MARKET, &telecom).await.unwrap().status, 201);
    let listed = me.get(MARKET).await.unwrap().json().unwrap();
    assert!(listed[0].get("lapsed_before").is_none() && listed[1]["lapsed_before"].is_string(), "{listed:?}");
    assert_eq!(outcome(&ask(&mut library, SCENARIO, &text(&anew, "token")).await), (200, "met".to_owned()));
    for given in [&stands, &taken_back, &later] {
        let answer = ask(&mut library, SCENARIO, &text(given, "token")).await;
        assert_eq!(outcome(&answer), (200, "withheld".to_owned()));
    }
    city.stop().await.unwrap();
    city.config.log_origin = old_log;
    let refused = city.try_start().await.unwrap_err();
    assert!(refused.contains("retired"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_or_an_import_that_was_killed_is_known_by_its_name_and_made_again() {
    let mut city = Deployment::city().await;
    city.populate(60).await;
    city.stop().await.unwrap();
    let config = city.config_file();
    let config = config.to_str().unwrap();
    let backup = city.dir().join("city.backup");
    let spawn = |args: &[&str]| {
        jadegate().args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let kills = nightly::rounds(6, 60);
    let (mut cut_exports, mut cut_imports) = (0, 0);
    for turn in 0..kills {
        let (out, partial) =
            (city.dir().join(format!("{turn}.backup")), city.dir().join(format!("{turn}.backup.partial")));
        let mut child = spawn(&["store", "export", "--config", config, out.to_str().unwrap()]);
        // Some are killed as soon as they write, some later.
        until("an export that writes", async || partial.exists() || out.exists()).await;
        tokio::time::sleep(Duration::from_millis(3 * (turn as u64 % 12))).await;
        child.kill().unwrap();
        child.wait().unwrap();
        if !out.exists() {
            assert!(partial.exists(), "what is not whole has a name that says so");
            cut_exports += 1;
            let (code, _, err) = export(&city, &out).await;
            assert_eq!(code, 0, "{err}");
        }
        assert!(!partial.exists());
        if !backup.exists() {
            std::fs::copy(&out, &backup).unwrap();
        }
        std::fs::remove_file(out).unwrap();
    }
    set_aside(&city, "store-before");
    for turn in 0..kills {
        let mut child = spawn(&["store", "import", "--config", config, backup.to_str().unwrap()]);
        let marker = city.config.store.folder().unwrap().join("MARKER");
        until("an import that writes", async || marker.exists() || child.try_wait().unwrap().is_some()).await;
        tokio::time::sleep(Duration::from_millis(4 * (turn as u64 % 12))).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let (code, _, err) = import(&city, &backup).await;
        if code == 0 {
            cut_imports += 1;
        } else {
            assert!(err.contains("not empty"), "it had come to its end: {err}");
        }
        let (code, out, err) = on(&city, &["audit"]).await;
        assert!(code == 0 && out.contains("AGREES"), "{out}{err}");
        std::fs::remove_dir_all(city.config.store.folder().unwrap()).unwrap();
    }
    assert!(cut_exports + cut_imports > 0);
    nightly::figure(
        "kill -9: exports, imports cut off and made again",
        format_args!("{cut_exports}, {cut_imports} of {kills}"),
    );
}

/// No room: said so, nothing is left under the wanted name, and it works once there is room.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_for_which_there_is_no_room_leaves_nothing_under_its_name() {
    let mut city = Deployment::city().await;
    let out = city.dir().join("city.backup");
    let limited = |out: &Path| {
        // A limit on the size of files stands for a full disk, for whoever may not mount one.
        let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"";
        let mut command = std::process::Command::new("bash");
        command.args(["-c", script, env!("CARGO_BIN_EXE_jadegate"), "store", "export", "--config"]);
        command.arg(city.config_file()).arg(out).stdin(Stdio::null());
        command
    };
    let mut tried = limited(&out);
    let (code, said, err) = tokio::task::spawn_blocking(move || ended(&tried.output().unwrap())).await.unwrap();
    assert!(code == 1 && said.is_empty() && err.contains("no backup was made"), "{code} {said} {err}");
    assert!(!out.exists() && !out.with_extension("backup.partial").exists());
    // The gateway that was to make it goes on, and makes the next one.
    let (code, _, err) = export(&city, &out).await;
    assert_eq!(code, 0, "{err}");
    city.stop().await.unwrap();
    let (code, _, err) = run_in_small_disk(&city);
    if code == i32::MAX {
        println!("left out: {err}");
    } else {
        assert!(code == 1 && err.contains("No space left"), "{code} {err}");
    }
}

/// A backup into a file system of 64 KiB, where the system lets us make one.
fn run_in_small_disk(city: &Deployment) -> (i32, String, String) {
    let disk = city.dir().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(&disk)
        .stderr(Stdio::null())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        return (i32::MAX, String::new(), "a small file system cannot be mounted here".to_owned());
    }
    let out = disk.join("city.backup");
    let done = run(&["store", "export", "--config", city.config_file().to_str().unwrap(), out.to_str().unwrap()]);
    let empty = std::fs::read_dir(&disk).unwrap().count() == 0;
    let unmounted = std::process::Command::new("umount").arg(&disk).status().unwrap();
    assert!(empty && unmounted.success());
    done
}
