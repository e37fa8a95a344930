//! What `serve` says where it cannot start: one sentence that tells a stranger what to do, exit 1, and nothing changed.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use jadegate::clock::{Clock, ManualClock, SystemClock};
use jadegate::entropy::{self, SystemEntropy};
use jadegate::keys::NewKeyring;
use jadegate::store::sled::{SledOptions, SledStore};
use jadegate::store::{Batch, KEYS_END, Place, Store, Write};
use jadegate::tables;
use serde_json::json;

use crate::support::deployment::{Deployment, LIBRARY, SCENARIO, ask, consent, outcome, revoke, rewrite, text, token};
use crate::support::process::{Serving, run};

fn made() -> Deployment {
    Deployment::provisioned(Arc::new(SystemClock::new()))
}

/// Starts the binary, which must refuse; gives its one sentence.
fn refusal(city: &Deployment) -> String {
    let (code, out, err) = run(&["serve", "--config", city.config_file().to_str().unwrap()]);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    let said = err.lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>().join("\n");
    assert!(said.starts_with("jadegate: ") && said.lines().count() <= 2, "{err}");
    assert!(["; ", ". ", ": chmod"].iter().any(|then| said.contains(then)), "it does not say what to do: {said}");
    for odd in ["panicked", "Err(", "Os {", "::"] {
        assert!(!err.contains(odd), "{odd} in: {err}");
    }
    said
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// Puts another folder in the place of one.
fn put_back(city: &Deployment, kept: &str, place: &str) {
    std::fs::remove_dir_all(city.dir().join(place)).unwrap();
    copy(&city.dir().join(kept), &city.dir().join(place));
}

#[test]
fn missing_unreadable_and_broken_files_are_named() {
    let (code, _, err) = run(&["serve", "--config", "/nowhere/jadegate.toml"]);
    assert!(code == 1 && err.contains("/nowhere/jadegate.toml"), "{err}");

    let city = made();
    for (file, word) in [
        ("keys/root.key", "root.key"),
        ("keys/keyring.json", "keyring.json"),
        ("keys/parties/yx-library-1.hmac", "yx-library-1.hmac"),
        ("pki/server.pem", "server.pem"),
        ("pki/server.key", "server.key"),
        ("pki/ca.pem", "ca.pem"),
        ("policies/access.toml", "access.toml"),
    ] {
        let path = city.dir().join(file);
        let good = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let said = refusal(&city);
        assert!(said.contains(word), "{file} is missing: {said}");
        std::fs::write(&path, b"\0nonsense\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let said = refusal(&city);
        assert!(said.contains(word), "{file} is nonsense: {said}");
        std::fs::write(&path, good).unwrap();
    }
    rewrite(&city.config_file(), |text| text.replace("drain_seconds", "drain_secs"));
    let (code, _, said) = run(&["serve", "--config", city.config_file().to_str().unwrap()]);
    assert!(code == 1 && said.contains("jadegate.toml:") && said.contains("drain_secs"), "{said}");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let city = made();
    for (file, mode) in
        [("keys/root.key", 0o640), ("keys/keyring.json", 0o604), ("keys/parties/yx-library-1.hmac", 0o644)]
    {
        let path = city.dir().join(file);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let said = refusal(&city);
        assert!(said.contains(path.to_str().unwrap()) && said.contains("chmod 600"), "{said}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn a_port_in_use_is_named_and_nothing_is_made() {
    let city = made();
    let _held = std::net::TcpListener::bind(city.config.api).unwrap();
    let said = refusal(&city);
    assert!(said.contains(&city.config.api.to_string()) && said.contains("stop what uses the port"), "{said}");
    assert_eq!(std::fs::read_dir(city.dir().join("store")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_names_the_folder_and_the_first_serves_on() {
    let mut city = made();
    let mut first = Serving::start(&city.config_file(), &city.dir().join("output"), &[]).await;
    city.populate(1).await;
    let config = std::fs::read_to_string(city.config_file()).unwrap();
    let [listen, api] = crate::support::deployment::free_addresses();
    let second = city.dir().join("second.toml");
    let elsewhere = config.replace(&city.config.listen.to_string(), &listen.to_string());
    std::fs::write(&second, elsewhere.replace(&city.config.api.to_string(), &api.to_string())).unwrap();
    let (code, _, err) = run(&["serve", "--config", second.to_str().unwrap()]);
    let store = city.dir().join("store");
    assert!(code == 1 && err.contains(store.to_str().unwrap()) && err.contains("in use by another process"), "{err}");
    let token = token(&mut city.person(0).await, LIBRARY).await;
    assert_eq!(outcome(&ask(&mut city.party(LIBRARY), SCENARIO, &token).await), (200, "met".to_owned()));

    // Stopped and started at once, again and again.
    for _ in 0..20 {
        first.signal("-TERM");
        assert_eq!(first.ended(Duration::from_secs(15)).await.unwrap().code(), Some(0));
        first = Serving::start(&city.config_file(), &city.dir().join("output"), &[]).await;
        assert_eq!(outcome(&ask(&mut city.party(LIBRARY), SCENARIO, &token).await), (200, "met".to_owned()));
    }
}

/// What a hard stop leaves: a snapshot of the store that was being written, and newest ones that were cut short.
#[tokio::test(flavor = "multi_thread")]
async fn leftover_and_cut_snapshots_cost_nothing_that_was_acknowledged() {
    let mut city = made();
    let output = city.dir().join("output");
    let mut serving = Serving::start(&city.config_file(), &output, &[]).await;
    city.populate(1).await;
    let mut me = city.person(0).await;
    let (stands, taken_back) = (token(&mut me, LIBRARY).await, consent(&mut me, SCENARIO, LIBRARY, json!({})).await);
    revoke(&mut me, &taken_back).await;
    let (folder, mut cuts) = (city.dir().join("store/sled"), 0);
    for round in 0..6 {
        // Now and then ended hard, so that what lies there is of a process that could not tidy up.
        if round % 2 == 0 {
            serving.signal("-TERM");
            assert_eq!(serving.ended(Duration::from_secs(15)).await.unwrap().code(), Some(0));
        } else {
            serving.kill();
        }
        let random: [u8; 64] = entropy::bytes(&SystemEntropy::new()).unwrap();
        for name in ["snap.0000000000000001.generating", "snap.FFFFFFFFFFFFFFFF.generating"] {
            std::fs::write(folder.join(name), random).unwrap();
        }
        let snapshots = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let is_snapshot = |path: &std::path::PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with("snap.") && !name.ends_with(".generating")
        };
        let newest = snapshots.filter(is_snapshot).max();
        if let Some(newest) = newest {
            let bytes = std::fs::read(&newest).unwrap();
            let cut = [bytes.len() / 2, 0, bytes.len() - 1, 1, 12, bytes.len() / 3][round];
            std::fs::write(&newest, &bytes[..cut]).unwrap();
            cuts += 1;
        }
        serving = Serving::start(&city.config_file(), &output, &[]).await;
        let mut library = city.party(LIBRARY);
        assert_eq!(outcome(&ask(&mut library, SCENARIO, &stands).await), (200, "met".to_owned()), "round {round}");
        let answer = ask(&mut library, SCENARIO, &text(&taken_back, "token")).await;
        assert_eq!(outcome(&answer), (200, "withheld".to_owned()), "round {round}");
    }
    assert!(cuts >= 4, "only {cuts} snapshots were there to be cut");
    assert!(!serving.wrote().contains("panic"), "{}", serving.wrote());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_what_it_was_is_refused_with_what_to_do() {
    let mut city = made();
    city.start().await;
    city.populate(1).await;
    city.stop().await.unwrap();
    copy(&city.dir().join("store"), &city.dir().join("store.then"));
    copy(&city.dir().join("checkpoints"), &city.dir().join("checkpoints.then"));
    city.start().await;
    city.populate(1).await;
    let token = token(&mut city.person(0).await, LIBRARY).await;
    city.stop().await.unwrap();
    copy(&city.dir().join("store"), &city.dir().join("store.now"));
    copy(&city.dir().join("checkpoints"), &city.dir().join("checkpoints.now"));

    put_back(&city, "store.then", "store");
    let said = refusal(&city);
    let checkpoints = city.dir().join("checkpoints");
    assert!(
        said.contains("rolled back") && said.contains(checkpoints.to_str().unwrap()) && said.contains("restore"),
        "{said}"
    );
    put_back(&city, "store.now", "store");

    // Another history under the same name: the old store, taken up without its outside copy.
    put_back(&city, "store.then", "store");
    put_back(&city, "checkpoints.then", "checkpoints");
    city.start().await;
    for _ in 0..3 {
        city.populate(1).await;
    }
    city.stop().await.unwrap();
    put_back(&city, "checkpoints.now", "checkpoints");
    let said = refusal(&city);
    assert!(said.contains("not the one whose checkpoint") && said.contains("second gateway"), "{said}");
    put_back(&city, "store.now", "store");

    // Emptied, whole and in part.
    std::fs::remove_dir_all(city.dir().join("store")).unwrap();
    std::fs::create_dir(city.dir().join("store")).unwrap();
    let said = refusal(&city);
    assert!(said.contains("rolled back or emptied"), "{said}");
    put_back(&city, "store.now", "store");
    std::fs::remove_dir_all(city.dir().join("store/sled")).unwrap();
    let said = refusal(&city);
    assert!(said.contains("was emptied") && said.contains("backup"), "{said}");
    put_back(&city, "store.now", "store");

    // Outside copies gone.
    std::fs::remove_dir_all(&checkpoints).unwrap();
    std::fs::create_dir(&checkpoints).unwrap();
    let said = refusal(&city);
    assert!(said.contains(checkpoints.to_str().unwrap()) && said.contains("Put the copy back"), "{said}");
    std::fs::remove_dir(&checkpoints).unwrap();
    let said = refusal(&city);
    assert!(said.contains(checkpoints.to_str().unwrap()), "{said}");
    std::fs::create_dir(&checkpoints).unwrap();
    put_back(&city, "checkpoints.now", "checkpoints");

    // Of a version to come, and of none.
    let marker = city.dir().join("store/MARKER");
    let good = std::fs::read(&marker).unwrap();
    std::fs::write(&marker, "jadegate store format 99\n").unwrap();
    let said = refusal(&city);
    assert!(said.contains("newer jadegate") && said.contains("99"), "{said}");
    std::fs::write(&marker, "something\n").unwrap();
    assert!(refusal(&city).contains("MARKER"));
    std::fs::write(&marker, good).unwrap();

    // Another deployment's keys, each part and both.
    let other = made();
    for files in [&["root.key"][..], &["keyring.json"], &["root.key", "keyring.json"]] {
        copy(&city.dir().join("keys"), &city.dir().join("keys.now"));
        for file in files {
            std::fs::copy(other.dir().join("keys").join(file), city.dir().join("keys").join(file)).unwrap();
        }
        let said = refusal(&city);
        assert!(said.contains("root.key") || said.contains("keyring.json"), "{files:?}: {said}");
        assert_eq!(std::fs::read_dir(&checkpoints).unwrap().count(), 2, "no second log was begun");
        put_back(&city, "keys.now", "keys");
        std::fs::remove_dir_all(city.dir().join("keys.now")).unwrap();
    }

    // The same log's name with another deployment's keys behind it.
    copy(&city.dir().join("keys"), &city.dir().join("keys.now"));
    let renamed = NewKeyring::generate(&city.config.log_origin, city.clock.now(), &SystemEntropy::new()).unwrap();
    std::fs::write(city.dir().join("keys/root.key"), renamed.root.as_bytes()).unwrap();
    std::fs::write(city.dir().join("keys/keyring.json"), renamed.keyring.as_bytes()).unwrap();
    let said = refusal(&city);
    assert!(said.contains("the keys do not fit the store"), "{said}");
    put_back(&city, "keys.now", "keys");

    // A crash between a commit and its outside copy leaves the copy behind: that is clean.
    put_back(&city, "checkpoints.then", "checkpoints");
    city.start().await;
    assert_eq!(outcome(&ask(&mut city.party(LIBRARY), SCENARIO, &token).await), (200, "met".to_owned()));
    city.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_entry_of_the_log_is_named_before_anything_is_signed() {
    let mut city = made();
    city.start().await;
    city.populate(1).await;
    let size = city.log_size().await;
    city.stop().await.unwrap();
    let store = SledStore::open(&city.dir().join("store"), SledOptions::default()).unwrap();
    let (key, mut cell) = store.scan(tables::LEAF, &[], &KEYS_END, 1).await.unwrap().remove(0);
    cell.value[200] ^= 1;
    cell.version += 1;
    let write = Write::Put(Place::new(tables::LEAF, key), cell);
    store.commit(Batch { checks: vec![], writes: vec![write] }).await.unwrap();
    drop(store);
    let said = refusal(&city);
    assert!(
        said.contains("damaged") && said.contains(&format!("from 0 to {size}")) && said.contains("backup"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_data_file_is_named_without_a_trace() {
    let mut city = made();
    city.start().await;
    city.populate(2).await;
    city.stop().await.unwrap();
    let data = city.dir().join("store/sled/db");
    let mut bytes = std::fs::read(&data).unwrap();
    for at in (20..bytes.len()).step_by(64) {
        bytes[at] = !bytes[at];
    }
    std::fs::write(&data, bytes).unwrap();
    let said = refusal(&city);
    assert!(said.contains(city.dir().join("store").to_str().unwrap()) && said.contains("backup"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_before_the_newest_entry_is_named() {
    let now = SystemClock::new().now();
    let clock = Arc::new(ManualClock::new(now));
    let mut city = Deployment::provisioned(clock.clone());
    city.start().await;
    city.stop().await.unwrap();
    clock.step_to(now - Duration::from_secs(3600));
    let said = city.try_start().await.unwrap_err();
    assert!(said.contains("the clock says") && said.contains("set the clock right"), "{said}");
    clock.step_to(now);
    city.start().await;
    city.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_runs_what_init_made() {
    let folder = crate::support::Folder::new();
    let dir = folder.path().join("city");
    assert_eq!(run(&["init", dir.to_str().unwrap()]).0, 0);
    let (config, listen, admin) = on_free_ports(&dir);
    let mut serving = Serving::start(&config, &dir.join("output"), &[]).await;
    let mut public = jadegate::client::Client::new(&format!("http://{listen}"), None).unwrap();
    assert_eq!(public.get("/v1/scenarios").await.unwrap().status, 200);
    // Nobody logs in by name where people are real.
    let login =
        public.post("/demo/login", "application/x-www-form-urlencoded", "as=officer-one", vec![]).await.unwrap();
    assert_eq!(login.status, 404);
    let mut admin = jadegate::client::Client::new(&format!("http://{admin}"), None).unwrap();
    let metrics = admin.get("/metrics").await.unwrap();
    assert!(std::str::from_utf8(&metrics.body).unwrap().contains("jadegate_calls_total"));
    serving.signal("-TERM");
    assert_eq!(serving.ended(Duration::from_secs(15)).await.unwrap().code(), Some(0));
}

#[test]
fn keys_that_everybody_can_read_are_refused_by_name() {
    let folder = crate::support::Folder::new();
    let dir = folder.path().join("city");
    assert_eq!(run(&["init", dir.to_str().unwrap()]).0, 0);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("keys-example");
    let (config, ..) = on_free_ports(&dir);
    let refused = |file: &str, from: &Path| {
        let place = dir.join("keys").join(file);
        let good = std::fs::read(&place).unwrap();
        std::fs::write(&place, std::fs::read(from).unwrap()).unwrap();
        let (code, _, err) = run(&["serve", "--config", config.to_str().unwrap()]);
        std::fs::write(&place, good).unwrap();
        assert_eq!(code, 1, "{err}");
        err
    };
    let said = refused("root.key", &example.join("root.key"));
    assert!(said.contains("keys-example") && said.contains("everybody can read"), "{said}");
    let secret = std::fs::read_dir(example.join("parties")).unwrap().next().unwrap().unwrap().path();
    let said = refused("parties/yx-library-1.hmac", &secret);
    assert!(said.contains("yx-library-1.hmac") && said.contains("published with the source"), "{said}");
}

/// What `init` made, listening where nobody else does: its own ports may be those of a demo that somebody left running.
fn on_free_ports(dir: &Path) -> (std::path::PathBuf, std::net::SocketAddr, std::net::SocketAddr) {
    let [listen, api, admin] = crate::support::deployment::free_addresses();
    let config = dir.join("jadegate.toml");
    rewrite(&config, |text| {
        text.replace("127.0.0.1:8080", &listen.to_string())
            .replace("127.0.0.1:8443", &api.to_string())
            .replace("127.0.0.1:9090", &admin.to_string())
    });
    (config, listen, admin)
}
