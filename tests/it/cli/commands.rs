//! Commands that need no gateway: what they print, where, and how they end.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use jadegate::policies;

use crate::support::deployment::{P1, rewrite};
use crate::support::process::run;
use crate::support::{Folder, files_under};

/// A sentence that says what to do, and no trace of a panic or of Rust.
fn reads_well(err: &str) {
    assert!(err.starts_with("jadegate: ") || err.contains("error: "), "{err}");
    for odd in ["panicked", "RUST_BACKTRACE", "Err(", "Os {", "unwrap", "::"] {
        assert!(!err.contains(odd), "{odd} in: {err}");
    }
}

#[test]
fn wrong_usage_ends_with_2_and_help_with_0() {
    for args in
        [&[][..], &["dance"], &["serve"], &["demo", "--people", "-1"], &["verify"], &["init"], &["init", "a", "b"]]
    {
        let (code, out, err) = run(args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}");
        assert!(err.contains("Usage") || err.contains("--help"), "{args:?}: {err}");
    }
    for args in [&["--help"][..], &["--version"], &["help", "verify"], &["evaluate", "--help"]] {
        let (code, out, err) = run(args);
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
        assert!(out.contains("jadegate"), "{out}");
    }
}

#[test]
fn init_makes_secrets_for_the_owner_alone_and_overwrites_nothing() {
    let folder = Folder::new();
    let dir = folder.path().join("city");
    let (code, out, err) = run(&["init", dir.to_str().unwrap()]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("jadegate serve --config") && out.contains("jadegate policy check"), "{out}");
    let mut secrets = 0;
    for file in files_under(&dir) {
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        let name = file.file_name().unwrap().to_str().unwrap();
        let secret = name.ends_with(".key") || name.ends_with(".hmac") || name == "keyring.json";
        assert_eq!(mode, if secret { 0o600 } else { 0o644 }, "{}", file.display());
        secrets += usize::from(secret);
    }
    assert!(secrets > 50, "{secrets}");
    let before = std::fs::read(dir.join("keys/root.key")).unwrap();
    let (code, out, err) = run(&["init", dir.to_str().unwrap()]);
    assert!(code == 1 && out.is_empty() && err.contains("is there already") && err.contains("jadegate.toml"), "{err}");
    reads_well(&err);
    assert_eq!(std::fs::read(dir.join("keys/root.key")).unwrap(), before);

    let (code, _, err) = run(&["init", "/proc/nothing/can/be/here"]);
    assert!(code == 1 && err.contains("/proc/nothing"), "{err}");
    reads_well(&err);
}

fn policies_in(folder: &Path) {
    for (name, bytes) in policies::shipped() {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

#[test]
fn a_policy_check_tells_every_mistake_of_every_file_at_once() {
    let folder = Folder::new();
    let dir = folder.path();
    policies_in(dir);
    let check = || run(&["policy", "check", dir.to_str().unwrap()]);
    let (code, out, err) = check();
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("no mistake"), "{out}");

    rewrite(&dir.join("city.toml"), |text| text.replace("cuts = [600, 800]", "cuts = [800, 600]"));
    rewrite(&dir.join("scenarios.toml"), |text| {
        text.replacen("uses_max = 200", "uses_max = -5", 1).replacen("\nquestion =", "\nqustion =", 1)
    });
    rewrite(&dir.join("access.toml"), |text| text.replacen("role = \"merchant\"", "role = \"merchants\"", 1));
    let line_of = |file: &str, what: &str| {
        1 + std::fs::read_to_string(dir.join(file)).unwrap().lines().position(|l| l.starts_with(what)).unwrap()
    };
    let (code, out, err) = check();
    assert_eq!(code, 1, "{out}");
    for (file, what) in [
        ("city.toml", "cuts = [800, 600]"),
        ("scenarios.toml", "uses_max = -5"),
        ("scenarios.toml", "qustion ="),
        ("access.toml", "role = \"merchants\""),
    ] {
        let place = format!("{file}:{}:", line_of(file, what));
        assert!(out.lines().any(|line| line.starts_with(&place)), "{place} is not in\n{out}");
    }
    assert!(out.lines().all(|line| line.contains("; expected ") || line.contains("; do ")), "{out}");
    reads_well(&err);

    std::fs::write(dir.join("catalogue.toml"), b"\xff\xfe").unwrap();
    assert_eq!(check().0, 1);
    let (code, _, err) = run(&["policy", "check", "/nowhere"]);
    assert!(code == 1 && err.contains("/nowhere"), "{err}");
    reads_well(&err);
}

#[test]
fn evaluate_ends_with_3_where_lines_were_refused_and_names_them() {
    let folder = Folder::new();
    let dir = folder.path();
    policies_in(dir);
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let person = |number: &str| {
        format!("{{\"id_number\":\"{number}\",\"name\":\"王芳\",\"resident\":true,\"full_capacity\":true}}\n")
    };
    std::fs::write(dir.join("register.ndjson"), person(P1)).unwrap();
    std::fs::write(dir.join("records.ndjson"), "").unwrap();
    let evaluate = |register: &str| {
        run(&[
            "evaluate",
            "--catalogue",
            &path("catalogue.toml"),
            "--model",
            &path("models/yuxi-2026.toml"),
            "--register",
            &path(register),
            "--records",
            &path("records.ndjson"),
            "--on",
            "2026-11-24",
        ])
    };
    let (code, out, err) = evaluate("register.ndjson");
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (0, format!("id_number,status,score,grade\n{P1},scored,500,fair\n").as_str(), "")
    );

    std::fs::write(dir.join("register.ndjson"), person(P1) + &person("530499199001010016") + "{\n").unwrap();
    let (code, out, err) = evaluate("register.ndjson");
    assert_eq!((code, out.lines().count()), (3, 2), "{out}{err}");
    assert!(err.contains("register.ndjson:2: wrong-check-digit") || err.contains("wrong-check-digit"), "{err}");
    assert!(err.contains(":3:") || err.contains("malformed"), "{err}");
    assert!(!err.contains("530499199001010016"), "{err}");

    let (code, out, err) = evaluate("nothing.ndjson");
    assert!(code == 1 && out.is_empty() && err.contains("nothing.ndjson"), "{err}");
}

#[test]
fn a_log_that_cannot_be_reached_is_a_failure_with_a_reason() {
    let (code, out, err) = run(&["log", "verify", "http://127.0.0.1:1"]);
    assert!(code == 1 && out.is_empty() && err.contains("NOT CHECKED") && err.contains("127.0.0.1:1"), "{err}");
    let (code, _, err) = run(&["log", "verify", "ftp://example.test"]);
    assert!(code == 2 && err.contains("http://HOST:PORT"), "{err}");
}
