//! What is wrong with a set is told whole, each mistake once, with file and line.

use super::*;

/// One mistake is told once: what could not be read is not called unknown elsewhere.
#[test]
fn a_mistake_in_one_file_makes_none_in_others() {
    check(
        &[("catalogue.toml", "category = \"honour\"", "category = \"honor\"")],
        &[("catalogue.toml", "`category` is \"honor\"")],
    );
    check(
        &[("parties.toml", "roles = [\"provider\"]", "roles = [\"supplier\"]")],
        &[("parties.toml", "`roles` is \"supplier\"")],
    );
    // a party that may not ask does not make its organisation one that asks
    check(
        &[("scenarios.toml", "\"yx-power-bank\"", "\"yx-public-security\"")],
        &[("scenarios.toml", "the party \"yx-public-security\" has only the roles provider, registrar")],
    );
    check(&[(MODEL, "base = 500", "base = \"500\"")], &[(MODEL, "`base` is a text")]);
}

/// What cannot be read in one place hides nothing in another, in the same entry or in another file.
#[test]
fn a_mistake_hides_no_other() {
    let told = |edits: &[(&str, &str, &str)]| -> Vec<String> {
        let mistakes = PolicySet::parse(edited(edits)).unwrap_err();
        let mut said: Vec<_> = mistakes.iter().map(|m| m.what.clone()).collect();
        said.sort();
        said
    };
    let library = (
        "question = { score_at_least = 600 }\nparties = [\"yx-library\"",
        "question = { score_at_least = 750 }\nparties = [\"yx-nobody\"",
    );
    assert_eq!(
        told(&[("scenarios.toml", library.0, library.1), ("scenarios.toml", "uses_max = 200", "uses_max = \"many\"")]),
        ["`uses_max` is a text", "it asks about 750", "no party has the id \"yx-nobody\""]
    );
    assert_eq!(
        told(&[
            ("city.toml", "answer_floor_ms = 50", "answer_floor_ms = \"x\""),
            ("scenarios.toml", "question = { score_at_least = 600 }", "question = { score_at_least = 650 }"),
            (MODEL, "base = 500", "base = \"x\""),
        ]),
        ["`answer_floor_ms` is a text", "`base` is a text", "it asks about 650"]
    );
}

#[test]
fn mistakes_in_several_files_are_told_at_once_with_their_places() {
    let files = edited(&[
        ("access.toml", "role = \"merchant\"", "role = merchant"),
        ("city.toml", "calls_burst = 800", "calls_burst = \"many\"\nspeed = 3"),
        ("scenarios.toml", "one_a_person = false", "one_a_person = 0"),
        ("scenarios.toml", "\"yx-bus\"", "\"yx-buss\""),
    ]);
    let mistakes = PolicySet::parse(files.clone()).unwrap_err();
    let said: Vec<_> = mistakes.iter().map(|m| (m.file.as_str(), m.what.as_str())).collect();
    assert_eq!(
        said[1..],
        [
            ("city.toml", "`calls_burst` is a text"),
            ("city.toml", "unknown field `speed` in limits"),
            ("scenarios.toml", "`one_a_person` is a whole number"),
            ("scenarios.toml", "no party has the id \"yx-buss\""),
        ]
    );
    assert_eq!(said[0].0, "access.toml");
    for m in mistakes.iter() {
        let text = std::str::from_utf8(&files[&m.file]).unwrap();
        let line = text.lines().nth(m.line - 1).unwrap();
        let found = line.char_indices().nth(m.column - 1).map(|(i, _)| &line[i..]).unwrap();
        assert!(text[m.span.start..].starts_with(found), "{m}");
        assert!(!m.help.is_empty() && !m.expected.is_empty());
    }
    let bus = mistakes.iter().last().unwrap();
    assert_eq!((bus.help.as_str(), bus.span.len()), ("did you mean \"yx-bus\"?", "\"yx-buss\"".len()));
}

#[test]
fn a_key_said_twice_is_told_where_it_is_said_again() {
    let mistakes =
        PolicySet::parse(edited(&[("city.toml", "calls_burst = 800", "calls_burst = 800\ncalls_burst = 900")]))
            .unwrap_err();
    let files = edited(&[]);
    let line =
        std::str::from_utf8(&files["city.toml"]).unwrap().lines().position(|l| l.starts_with("calls_burst")).unwrap()
            + 2;
    assert_eq!(
        mistakes.iter().map(|m| (m.line, m.column, m.what.as_str())).collect::<Vec<_>>(),
        [(line, 1, "`calls_burst` is said twice")]
    );
}

/// A broken line is told once, and what is missing because of it is not told at all.
#[test]
fn a_broken_line_hides_nothing_and_makes_no_others() {
    let files = edited(&[
        ("city.toml", "calls_burst = 800", "calls_burst = = 800"),
        ("city.toml", "connections = 4096", "connections = 0"),
        ("city.toml", "answer_floor_ms = 50", "answer_flor_ms = 50"),
    ]);
    let lines = std::str::from_utf8(&files["city.toml"]).unwrap().lines();
    let place = |start: &str| lines.clone().position(|l| l.starts_with(start)).unwrap() + 1;
    let mistakes = PolicySet::parse(files.clone()).unwrap_err();
    let said: Vec<_> = mistakes.iter().map(|m| m.line).collect();
    assert_eq!(said, [place("answer_flor_ms"), place("calls_burst"), place("connections")], "{mistakes}");
}

#[test]
fn files_that_are_missing_or_unknown_or_no_text_are_told() {
    let mut files = shipped();
    let parties = files.remove("parties.toml").unwrap();
    files.insert("partys.toml".into(), parties);
    files.insert("access.toml".into(), b"\xff".to_vec());
    files.insert("README.md".into(), b"\xff".to_vec());
    files.remove(MODEL);
    let mistakes = PolicySet::parse(files).unwrap_err();
    let said: Vec<_> = mistakes.iter().map(|m| (m.file.as_str(), m.what.as_str())).collect();
    let want = [
        ("access.toml", "a byte that is no UTF-8"),
        ("access.toml", "the file without `rule`"),
        ("models/", "no model"),
        ("parties.toml", "the file is missing"),
        ("partys.toml", "an unknown file"),
    ];
    assert_eq!(said, want);
}
