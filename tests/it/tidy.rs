//! The rules of the tree itself: the wall between modules, the closed lists, sizes, and documents that stay true.
//!
//! They read the sources as text, so each rule says which text breaks it. What the compiler holds (private
//! constructors, lints, missing comments) is not repeated here.

mod debug;
mod logs;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::support::files_under;

/// One file of `src`.
struct Source {
    /// Its path from the root of the project.
    path: String,
    /// The module of `lib.rs` whose tree it is in.
    module: String,
    /// How many modules lie between it and the crate's root: 1 for `src/consent.rs`.
    depth: usize,
    text: String,
    /// The text without comments and without the insides of strings.
    code: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, ending: &str) -> Vec<(String, String)> {
    let of_it = files_under(&root().join(folder)).into_iter();
    let named = of_it.filter(|path| path.to_str().is_some_and(|path| path.ends_with(ending)));
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(&path).unwrap())
    };
    let mut found: Vec<_> = named.map(read).collect();
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let source = |(path, text): (String, String)| {
        let steps: Vec<&str> = path.trim_start_matches("src/").trim_end_matches(".rs").split('/').collect();
        let (module, depth) = (steps[0].to_owned(), steps.len());
        Source { code: code_of(&text), path, module, depth, text }
    };
    files("src", ".rs").into_iter().map(source).collect()
}

/// The text of a Rust file with comments gone and the insides of strings blank; lines stay where they are.
fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut out, mut i) = (String::with_capacity(text.len()), 0);
    while i < chars.len() {
        match (at(i), at(i + 1)) {
            ('/', '/') => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            ('/', '*') => {
                i += 2;
                while i < chars.len() && (at(i), at(i + 1)) != ('*', '/') {
                    if at(i) == '\n' {
                        out.push('\n');
                    }
                    i += 1;
                }
                i += 2;
            }
            ('r', '"' | '#') if !at(i.wrapping_sub(1)).is_alphanumeric() && at(i.wrapping_sub(1)) != '_' => {
                let hashes = (i + 1..).take_while(|i| at(*i) == '#').count();
                if at(i + 1 + hashes) == '"' {
                    let closing = |i: usize| at(i) == '"' && (1..=hashes).all(|n| at(i + n) == '#');
                    let end = (i + 2 + hashes..chars.len()).find(|i| closing(*i)).unwrap_or(chars.len());
                    out.push_str("\"\"");
                    out.extend((i..end).filter(|i| at(*i) == '\n').map(|_| '\n'));
                    i = end + 1 + hashes;
                } else {
                    out.push('r');
                    i += 1;
                }
            }
            ('"', _) => {
                out.push('"');
                i += 1;
                while i < chars.len() && at(i) != '"' {
                    if at(i) == '\n' {
                        out.push('\n');
                    }
                    i += if at(i) == '\\' { 2 } else { 1 };
                }
                out.push('"');
                i += 1;
            }
            // A character, not a lifetime: 'a', '\n', '"'.
            ('\'', '\\') => {
                let end = (i + 3..chars.len()).find(|i| at(*i) == '\'').unwrap_or(chars.len());
                out.push_str("' '");
                i = end + 1;
            }
            ('\'', _) if at(i + 2) == '\'' => {
                out.push_str("' '");
                i += 3;
            }
            (c, _) => {
                out.push(c);
                i += 1;
            }
        }
    }
    out
}

/// The modules of `lib.rs`, in the order in which they are declared.
fn order() -> Vec<String> {
    let lib = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let name = |line: &str| line.trim().strip_prefix("pub mod ").and_then(|m| m.strip_suffix(';')).map(str::to_owned);
    lib.lines().filter_map(name).collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word_at(text: &str) -> &str {
    &text[..text.find(|c| !is_word(c)).unwrap_or(text.len())]
}

/// Whether `word` (which may be a path, `std::fs`) stands in the text by itself.
fn names(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// The first steps of the paths of a group: `{a::b, c}` has `a` and `c`.
fn heads(group: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut found) = (0, 1, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if (c == ',' && depth == 1) || depth == 0 {
            found.push(word_at(group[begin..at].trim()));
            begin = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    found
}

/// The modules of the crate that a file names: by `crate::x`, by `crate::{x, y}`, and by enough of `super::`.
fn used(code: &str, depth: usize) -> BTreeSet<&str> {
    let climb = "super::".repeat(depth);
    let mut found = BTreeSet::new();
    for way in ["crate::", climb.as_str()] {
        for (at, _) in code.match_indices(way) {
            let rest = &code[at + way.len()..];
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| is_word(c) || c == ':') {
                continue;
            }
            if rest.starts_with('{') {
                found.extend(heads(rest));
            } else {
                found.insert(word_at(rest));
            }
        }
    }
    found
}

#[track_caller]
fn nothing(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_sources_sees_what_it_should() {
    let text = "use crate::{a::b, c}; // crate::d\n/* crate::e */ let s = \"crate::f \\\" x\"; 'x' crate::g::h(r#\"crate::i\"#)";
    let code = code_of(text);
    assert_eq!(used(&code, 1).into_iter().collect::<Vec<_>>(), ["a", "c", "g"]);
    assert_eq!(used("use super::super::store; super::own", 2).into_iter().collect::<Vec<_>>(), ["store"]);
    assert!(names("std::fs::read", "std::fs") && !names("std::fsync", "std::fs") && !names("my_std::fs", "std::fs"));
    assert!(order().len() > 20 && sources().len() > 100);
}

/// A file may use only what `lib.rs` declares above its module, its own tree excepted.
#[test]
fn a_file_uses_only_what_is_declared_above_it() {
    let order = order();
    let place: BTreeMap<&str, usize> = order.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !matches!(source.module.as_str(), "lib" | "main")) {
        let Some(own) = place.get(source.module.as_str()) else {
            wrong.push(format!("{}: lib.rs does not declare its module", source.path));
            continue;
        };
        for name in used(&source.code, source.depth) {
            if place.get(name).is_some_and(|at| at > own) {
                wrong.push(format!("{}: uses {name}, which lib.rs declares below {}", source.path, source.module));
            }
        }
    }
    nothing(&wrong);
}

/// First closed list: what is declared above `store` is pure. Neither code nor comment names a way out.
#[test]
fn nothing_above_the_store_names_a_way_out() {
    let banned = ["tokio", "axum", "hyper", "sled", "postgres", "std::fs", "std::net", "std::env"];
    let order = order();
    let above: BTreeSet<&str> = order.iter().take_while(|name| *name != "store").map(String::as_str).collect();
    assert!(above.contains("vault") && above.len() < order.len());
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| above.contains(source.module.as_str())) {
        for word in banned.iter().filter(|word| names(&source.text, word)) {
            wrong.push(format!("{}: names {word}", source.path));
        }
        for (at, way) in source.code.match_indices("std::{") {
            for head in heads(&source.code[at + way.len() - 1..]) {
                if matches!(head, "fs" | "net" | "env") {
                    wrong.push(format!("{}: names std::{head}", source.path));
                }
            }
        }
    }
    nothing(&wrong);
}

/// Second closed list: the store knows no domain word, in code or comment.
#[test]
fn the_store_knows_no_domain_word() {
    let domain = [
        "attestation",
        "catalogue",
        "citizen",
        "consent",
        "department",
        "dossier",
        "grade",
        "grant",
        "identity",
        "indicator",
        "merchant",
        "objection",
        "officer",
        "party",
        "parties",
        "people",
        "person",
        "provider",
        "pseudonym",
        "record",
        "records",
        "scenario",
        "score",
        "standing",
    ];
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.module == "store") {
        for (line, text) in (1..).zip(source.text.lines()) {
            let words = text.split(|c: char| !c.is_alphabetic() && c != '_').map(str::to_lowercase);
            let known = |word: &String| domain.contains(&word.as_str()) || domain.contains(&word.trim_end_matches('s'));
            for word in words.filter(known) {
                wrong.push(format!("{}:{line}: says {word}", source.path));
            }
        }
    }
    nothing(&wrong);
}

/// Third closed list: whoever speaks to the outside goes through the gateway.
#[test]
fn http_and_cli_never_name_the_store() {
    let mut wrong = Vec::new();
    let edges = ["http", "cli", "web"];
    // The pages' own tests open a gateway over the memory store; there is no other way to see a page.
    let exempt = |path: &str| path.starts_with("src/web/tests");
    for source in sources().iter().filter(|source| edges.contains(&source.module.as_str()) && !exempt(&source.path)) {
        if used(&source.code, source.depth).contains("store") {
            wrong.push(format!("{}: uses the store", source.path));
        }
        for word in ["Store", "SledStore", "MemoryStore"].iter().filter(|word| names(&source.code, word)) {
            wrong.push(format!("{}: names {word}", source.path));
        }
    }
    nothing(&wrong);
}

/// Who makes an authority, and who commits, is a list that fits here.
#[test]
fn authorities_and_commits_have_few_makers() {
    let allowed: [(&str, &[&str]); 9] = [
        ("Trial::begun(", &["src/gateway/trial.rs"]),
        ("KeyRotation::begun(", &["src/gateway/rotate.rs"]),
        ("Sweep::begun(", &["src/gateway/sweep.rs"]),
        ("Login::of(", &["src/gateway/sessions.rs"]),
        ("Report::permitted(", &["src/gateway/upload.rs"]),
        ("OpenCase::confirmed(", &["src/gateway/review.rs", "src/authority.rs"]),
        ("Grant { person", &["src/consent.rs"]),
        ("Sealed for", &["src/authority.rs", "src/consent.rs"]),
        // One door: the ledger writes, and sessions alone are exempt.
        // An import makes a store before it has a ledger.
        ("store.commit(", &["src/ledger/writer.rs", "src/gateway/sessions.rs", "src/ledger/backup/import.rs"]),
    ];
    let sources = sources();
    let mut wrong = Vec::new();
    for (call, places) in allowed {
        let found: Vec<&str> = sources
            .iter()
            .filter(|source| source.module != "store" && source.code.contains(call))
            .map(|source| source.path.as_str())
            .collect();
        wrong.extend(found.iter().filter(|path| !places.contains(path)).map(|path| format!("{path}: calls {call}")));
        wrong.extend(places.iter().filter(|path| !found.contains(path)).map(|path| format!("{path}: has no {call}")));
    }
    // By whatever name the store is held, a commit of a batch is named so.
    for source in sources.iter().filter(|source| !matches!(source.module.as_str(), "store" | "ledger")) {
        if source.code.contains(".commit(") && source.path != "src/gateway/sessions.rs" {
            wrong.push(format!("{}: commits", source.path));
        }
    }
    nothing(&wrong);
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut wrong = Vec::new();
    for (path, text) in files("src", ".rs").into_iter().chain(files("tests", ".rs")) {
        let (lines, comment) = (text.lines().count(), text.lines().take_while(|line| line.starts_with("//!")).count());
        if path.starts_with("src/") && lines > 600 {
            wrong.push(format!("{path}: {lines} lines, 600 at most"));
        }
        if comment == 0 {
            wrong.push(format!("{path}: does not begin with a comment that says what it is"));
        }
        if comment > 15 {
            wrong.push(format!("{path}: begins with a comment of {comment} lines, 15 at most"));
        }
        if path.ends_with("/mod.rs") {
            wrong.push(format!("{path}: a module's file has its name"));
        }
    }
    nothing(&wrong);
}

#[test]
fn nothing_is_left_open() {
    let open =
        [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["todo", "!("].concat(), ["unimplemented", "!("].concat()];
    let mut wrong = Vec::new();
    for (path, text) in files("src", ".rs").into_iter().chain(files("tests", ".rs")).chain(files("policies", ".toml")) {
        for (line, text) in (1..).zip(text.lines()) {
            wrong.extend(open.iter().filter(|word| text.contains(*word)).map(|word| format!("{path}:{line}: {word}")));
        }
    }
    nothing(&wrong);
}

/// What stands between backticks in a text.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    let fenced = text.split("```").step_by(2);
    fenced.flat_map(|text| text.split('`').skip(1).step_by(2))
}

/// A path that is named is there, a function that is named (a test has four words or more) is there, and so is a
/// type's function. What they say of it is for a reader to check.
#[test]
fn what_the_documents_name_is_there() {
    let mut documents = files("docs/decisions", ".md");
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "SECURITY.md",
        "CONTRIBUTING.md",
        "keys-example/README.md",
        "docs/deploy.md",
        "docs/performance.md",
        "docs/robustness.md",
    ] {
        documents.push((name.to_owned(), std::fs::read_to_string(root().join(name)).unwrap()));
    }
    let code: String = files("src", ".rs").into_iter().chain(files("tests", ".rs")).map(|(_, text)| text).collect();
    let folders = ["src/", "tests/", "docs/", "policies/", "keys-example/", "scripts/", ".ci/", ".config/"];
    let snake = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let mut wrong = Vec::new();
    for (document, text) in &documents {
        let mut seen = 0;
        for said in quoted(text) {
            let path = folders.iter().any(|folder| said.starts_with(folder)) && !said.contains([' ', '<', '*', '{']);
            let missing = if path {
                !root().join(said).exists()
            } else if snake(said) && said.matches('_').count() >= 3 {
                !code.contains(&format!("fn {said}("))
            } else if let Some((owner, name)) =
                said.trim_end_matches("()").split_once("::").filter(|(owner, name)| *owner != "std" && snake(name))
            {
                !names(&code, owner) || !code.contains(&format!("fn {name}"))
            } else {
                continue;
            };
            seen += 1;
            if missing {
                wrong.push(format!("{document}: names `{said}`, which is not there"));
            }
        }
        if document.ends_with("ARCHITECTURE.md") || document.ends_with("SECURITY.md") {
            assert!(seen > 30, "{document}: only {seen} names were found to check");
        }
    }
    nothing(&wrong);
}

/// Each invariant of the design that is built is marked where the code keeps it, and the map says so.
#[test]
fn each_invariant_is_marked_in_the_code_and_on_the_map() {
    let invariants = [
        "no grant, no plaintext",
        "no receipt, no answer",
        "one door",
        "the store is distrusted",
        "one withheld",
        "few cuts",
        "one answer a day",
        "incentives only",
        "no names travel",
        "same in, same score",
        "policies are evidence",
    ];
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let flat = |text: &str| text.replace("\n//!", "").replace("\n///", "").replace("\n//", "");
    let code: String = files("src", ".rs").iter().map(|(_, text)| flat(text)).collect();
    let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut wrong = Vec::new();
    for name in invariants {
        if !code.contains(&format!("INVARIANT ({name})")) {
            wrong.push(format!("no comment in src says INVARIANT ({name})"));
        }
        if !map.contains(&format!("**{name}**")) {
            wrong.push(format!("ARCHITECTURE.md does not say where **{name}** is kept"));
        }
    }
    nothing(&wrong);
}
