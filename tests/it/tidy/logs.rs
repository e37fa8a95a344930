//! What a log may say and a figure may count, as closed lists: a line of the log is its words and its fields, a figure its name
//! and its labels, and each of them stands here with its file. What is not here was not looked at, so it does not land.
//!
//! Whoever adds one asks: can its value be a person's, a token, a code, a record's, a reason that somebody wrote, or an outcome?

use super::{is_word, nothing, sources};

/// A file's line of the log: words, and fields. `error` and `reason` are sentences of the gateway's own about itself.
const LINES: &[(&str, &str, &str)] = &[
    (
        "src/cli/serve.rs",
        "no backups can be made while this gateway runs; stop it for `jadegate store export`",
        "error",
    ),
    ("src/cli/serve.rs", "ready", "web api admin"),
    ("src/cli/serve.rs", "the keyring was not taken over; the old keys hold", "error"),
    ("src/cli/serve.rs", "the new keys were taken over", ""),
    ("src/cli/serve.rs", "the policies were loaded", "digest"),
    ("src/cli/serve.rs", "the policies were not loaded; the old ones hold", "error"),
    (
        "src/cli/serve.rs",
        "the store was restored: every earlier consent is lapsed, and consents can be given again from tomorrow on. Put this name into jadegate.toml as log_origin, and copy keyring.json to every host",
        "log_origin",
    ),
    ("src/cli/serve.rs", "what other gateways load is not followed", "error"),
    ("src/config/backup.rs", "a backup was made", "cells bytes paused_ms"),
    ("src/config/backup.rs", "no backup was made", "error"),
    ("src/config/backup.rs", "whoever wanted a backup went away", "error"),
    ("src/gateway/publish.rs", "an earlier policy set no longer reads; what it held is taken as it is now", "digest"),
    ("src/gateway/publish.rs", "the policies and models of the store hold", "digest"),
    (
        "src/gateway/publish.rs",
        "the policy folder is older than what is in force; bring it up to date",
        "digest newest",
    ),
    ("src/gateway/rotate.rs", "people's keys cannot be wrapped by the new working key; tried again", "error"),
    ("src/gateway/rotate.rs", "people's keys were wrapped by the new working key", "people"),
    ("src/gateway/sweep.rs", "a standing that is due cannot be computed anew", "error"),
    ("src/gateway/sweep.rs", "standings that are due cannot be computed anew; tried again", "error"),
    ("src/gateway/sweep.rs", "standings that were due were computed anew", "standings"),
    ("src/http/app.rs", "a call failed", "incident reason"),
    ("src/http/layers.rs", "a handler panicked", "incident"),
    ("src/http/layers.rs", "call", "id method route status ms"),
    ("src/http/layers.rs", "panic", "place"),
    ("src/http/listener.rs", "calls were cut at the end of the drain", "listener connections"),
    ("src/ledger/release.rs", "the ledger has stopped", "reason"),
    ("src/ledger/writer.rs", "the ledger has stopped", "reason"),
    ("src/store/postgres/link.rs", "a connection to the database was lost", "reason"),
    ("src/store/postgres/link.rs", "the database warns", "said"),
    (
        "src/store/sled/open.rs",
        "unfinished or unreadable snapshot files were set aside; the store is read from its log instead",
        "folder",
    ),
    (
        "src/store/sled/writer.rs",
        "the store could not note that it was closed in order; its next start checks less",
        "error",
    ),
    ("src/web/page.rs", "a page failed", "incident error"),
    ("src/web/stop.rs", "a page failed", "incident error"),
];

/// A figure, and its labels, each of a closed set: listeners, route templates, methods, classes of status, codes.
const FIGURES: &[(&str, &str, &str)] = &[
    ("src/http/figures.rs", "CALLS", "route method class"),
    ("src/http/figures.rs", "CALL_SECONDS", "route"),
    ("src/http/figures.rs", "CONNECTIONS", "listener"),
    ("src/http/figures.rs", "CONNECTIONS_REFUSED", "listener"),
    ("src/http/figures.rs", "REFUSED", "code"),
    ("src/keys.rs", "SIGNATURES", ""),
];

/// The arguments of each call of a macro, split at commas that stand in no bracket and no string.
fn calls(text: &str, name: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices(&format!("{name}!(")) {
        if text[..at].chars().next_back().is_some_and(is_word) {
            continue;
        }
        let (mut arguments, mut argument) = (Vec::new(), String::new());
        let (mut depth, mut quoted, mut escaped) = (1, false, false);
        for c in text[at + name.len() + 2..].chars() {
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                _ if quoted => {}
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if c == ',' && depth == 1 && !quoted {
                arguments.push(std::mem::take(&mut argument));
            } else {
                argument.push(c);
            }
        }
        arguments.push(argument);
        let words = |argument: String| argument.split_whitespace().collect::<Vec<_>>().join(" ");
        found.push(arguments.into_iter().map(words).filter(|argument| !argument.is_empty()).collect());
    }
    found
}

/// A field's or label's name, without how its value is written.
fn field(argument: &str) -> String {
    let name = argument.split(['=']).next().unwrap_or_default();
    name.trim().trim_start_matches(['%', '?']).trim_matches('"').to_owned()
}

/// The words of an argument that is one string.
fn words(argument: &str) -> Option<String> {
    argument.strip_prefix('"')?.strip_suffix('"').map(|words| words.replace("\\ ", ""))
}

fn shipped(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or_default()
}

#[test]
fn each_line_of_the_log_and_each_figure_was_looked_at() {
    let (mut wrong, mut lines, mut figures) = (Vec::new(), 0, 0);
    for source in sources().iter().filter(|source| !source.path.ends_with("tests.rs")) {
        let text = shipped(&source.text);
        for level in ["error", "warn", "info", "debug", "trace"] {
            for call in calls(text, &format!("tracing::{level}")) {
                let said = call.last().and_then(|last| words(last)).unwrap_or_default();
                let of_it = if said.is_empty() { &call[..] } else { &call[..call.len() - 1] };
                let fields: Vec<String> = of_it.iter().map(|argument| field(argument)).collect();
                let this = (source.path.as_str(), said.as_str(), fields.join(" "));
                lines += 1;
                if !LINES.iter().any(|(path, words, fields)| (*path, *words, (*fields).to_owned()) == this) {
                    wrong.push(format!("    (\"{}\", \"{}\", \"{}\"),", this.0, this.1, this.2));
                }
            }
        }
        for kind in ["counter", "gauge", "histogram"] {
            for call in calls(text, kind) {
                let labels: Vec<String> = call[1..].iter().map(|argument| field(argument)).collect();
                let this = (source.path.as_str(), call[0].as_str(), labels.join(" "));
                figures += 1;
                if !FIGURES.iter().any(|(path, name, labels)| (*path, *name, (*labels).to_owned()) == this) {
                    wrong.push(format!("    figure (\"{}\", \"{}\", \"{}\"),", this.0, this.1, this.2));
                }
            }
        }
        // Other ways to write something where a log goes, or to name an event so that the list would not see it.
        let commands = source.module == "cli" || source.module == "main";
        for other in ["eprintln", "println", "eprint", "print", "dbg"] {
            if !commands && !calls(text, other).is_empty() {
                wrong.push(format!("{}: {other}! outside the commands", source.path));
            }
        }
        for other in [
            "tracing::event!",
            "tracing::span!",
            "_span!(",
            "tracing::instrument",
            "use tracing::",
            "use log::",
            "log::info",
        ] {
            if text.contains(other) {
                wrong.push(format!("{}: {other} is not on the list of what a log is written with", source.path));
            }
        }
        for other in ["metrics::Label", "metrics::Key", "register_counter", "metrics::with_recorder"] {
            if text.contains(other) {
                wrong.push(format!("{}: {other} is not on the list of what figures are made with", source.path));
            }
        }
    }
    nothing(&wrong);
    assert!(
        lines >= LINES.len() && figures >= FIGURES.len(),
        "{lines} lines and {figures} figures: the lists are stale"
    );
}

#[test]
fn the_reader_of_macros_sees_what_it_should() {
    let text = r#"tracing::info!(id, reason = format!("{}, {}", a, b), %error, "a, (b) \" c"); my_tracing::info!(x)"#;
    let call = &calls(text, "tracing::info")[0];
    assert_eq!(call.iter().take(3).map(|argument| field(argument)).collect::<Vec<_>>(), ["id", "reason", "error"]);
    assert_eq!(call.len(), 4);
    assert_eq!(calls(r#"counter!(CALLS, "route" => route.to_owned()).increment(1)"#, "counter").len(), 1);
    assert_eq!(field(r#""route" => route.to_owned()"#), "route");
}
