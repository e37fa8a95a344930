//! The whole set: what ships, and a test for each rule between its files.

mod mistakes;

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::access::{Action, Condition, Role};
use crate::catalogue::Category;
use crate::party::PartyRole;
use crate::scenario::Question;

/// The shipped files, changed: in each named file the first `from` becomes `to`.
fn edited(edits: &[(&str, &str, &str)]) -> BTreeMap<String, Vec<u8>> {
    let mut files = shipped();
    for (name, from, to) in edits {
        let text = String::from_utf8(files.remove(*name).unwrap()).unwrap();
        assert!(text.contains(from), "{name} does not say {from}");
        files.insert((*name).to_owned(), text.replacen(from, to, 1).into_bytes());
    }
    files
}

fn set(edits: &[(&str, &str, &str)]) -> PolicySet {
    PolicySet::parse(edited(edits)).unwrap_or_else(|m| panic!("{m}"))
}

fn check(edits: &[(&str, &str, &str)], want: &[(&str, &str)]) {
    let mistakes = PolicySet::parse(edited(edits)).err().unwrap_or_default();
    let said: Vec<_> = mistakes.iter().map(|m| (m.file.as_str(), m.what.as_str())).collect();
    assert_eq!(said, want, "{mistakes}");
}

const MODEL: &str = "models/yuxi-2026.toml";

#[test]
fn the_shipped_set_is_a_whole_city() {
    let set = set(&[]);
    let categories: BTreeSet<_> = set.catalogue.iter().map(|i| i.category).collect();
    assert_eq!(categories.len(), Category::ALL.len());
    assert!(set.catalogue.len() >= 40 && set.scenarios.len() >= 10);
    assert!(set.catalogue.iter().all(|i| i.legal_basis.is_some() && i.name.is_some()));
    let of = |role| set.parties.values().filter(move |p| p.roles.contains(&role));
    assert!(of(PartyRole::Registrar).count() == 1 && of(PartyRole::Department).count() > 1);
    assert!(of(PartyRole::Merchant).filter(|p| !p.roles.contains(&PartyRole::Provider)).count() > 1);
    let shared = |s: &&Scenario| s.parties.len() == 2 && s.uses_max >= 200 && s.question == Question::ScoreAtLeast(600);
    assert!(set.scenarios.values().any(|s| shared(&s)));
    assert!(set.scenarios.values().any(|s| s.question == Question::GradeNamed));
    let one_a_person = set.scenarios.values().filter(|s| s.one_a_person);
    assert!(one_a_person.filter(|s| s.parties.iter().any(|p| p.as_str() == "yx-startup-park")).count() > 1);
    assert_eq!(set.model().id, set.city.model);
    assert_eq!(set.model_file("yuxi-2026"), set.file(MODEL));
}

/// Base 500, both directions, and each grade within reach (Articles 12 and 13).
#[test]
fn every_grade_of_the_shipped_model_is_within_reach() {
    let set = set(&[]);
    let model = set.model();
    assert_eq!((model.base, model.floor, model.ceiling), (500, 0, 1000));
    let reach = |dimension: &crate::model::Dimension, up: bool| {
        let rules = model.rules.values().filter(|r| r.dimension == dimension.code && (r.points > 0) == up);
        let sum: i64 = rules.map(|r| r.cap.unwrap_or(r.points.abs())).sum();
        sum.min(if up { dimension.max_gain } else { dimension.max_loss })
    };
    let gains: i64 = model.dimensions.values().map(|d| reach(d, true)).sum();
    let losses: i64 = model.dimensions.values().map(|d| reach(d, false)).sum();
    let grades: Vec<_> =
        [500 - losses, 500, 500 + gains / 4, 500 + gains].map(|score| model.grade(score).as_str()).to_vec();
    assert_eq!(grades, ["insufficient", "fair", "good", "excellent"]);
    for dimension in model.dimensions.values() {
        assert_eq!(reach(dimension, true), dimension.max_gain, "{}: a gain that nobody can have", dimension.code);
    }
}

#[test]
fn the_shipped_rules_give_each_action_to_its_role_alone() {
    let set = set(&[]);
    let role_of = |action| match action {
        Action::Ask => vec![Role::Merchant, Role::Department],
        Action::Report | Action::Withdraw => vec![Role::Provider],
        Action::Register => vec![Role::Registrar],
        Action::ReadSent => vec![Role::Provider, Role::Registrar],
        Action::ReadOwn | Action::Consent | Action::Revoke | Action::MakeCode => vec![Role::Person],
        Action::ReadLog | Action::OpenCase | Action::ConfirmCase | Action::LookUp => vec![Role::Officer],
        Action::TryModel | Action::DraftModel | Action::PublishModel => vec![Role::Operator],
        Action::ApproveModel => vec![Role::Officer, Role::Operator],
    };
    let conditions_of = |action| match action {
        Action::Ask => vec![Condition::ScenarioNamesParty],
        Action::Report => vec![Condition::IndicatorNamesProvider],
        Action::ReadOwn | Action::Consent | Action::Revoke | Action::MakeCode => vec![Condition::OwnData],
        Action::ConfirmCase => vec![Condition::AnotherOfficer],
        Action::LookUp => vec![Condition::OpenCase],
        Action::PublishModel => vec![Condition::CommentPeriodOver, Condition::TwoApprovals],
        Action::Register | Action::Withdraw | Action::ReadSent | Action::ReadLog | Action::OpenCase => vec![],
        Action::TryModel | Action::DraftModel | Action::ApproveModel => vec![],
    };
    for (_, action) in Action::ALL {
        for (_, role) in Role::ALL {
            let conditions = conditions_of(action);
            let permitted = set.access.permit(&[role], action, &|c| conditions.contains(&c)).is_some();
            assert_eq!(permitted, role_of(action).contains(&role), "{role:?} {action:?}");
            for missing in &conditions {
                let without = set.access.permit(&[role], action, &|c| c != *missing).is_some();
                assert!(!without, "{role:?} {action:?} without {missing:?}");
            }
        }
    }
}

#[test]
fn what_the_law_names_is_prohibited_in_both_languages() {
    let set = set(&[]);
    for word in [
        "religion",
        "Religion",
        "宗教信仰",
        "genes",
        "基因",
        "fingerprints",
        "指纹",
        "blood_type",
        "bloodType",
        "血型",
        "illness",
        "疾病",
        "病史",
        "medical-history",
        "income",
        "收入",
        "face",
    ] {
        assert!(set.prohibited.finds(word).is_some(), "{word}");
    }
    for word in [
        "id",
        "provider",
        "indicator",
        "person",
        "occurred_on",
        "valid_until",
        "quantity",
        "consent_ref",
        "detail",
        "id_type",
        "id_number",
        "name",
        "born_on",
        "resident",
        "full_capacity",
    ] {
        assert!(set.prohibited.finds(word).is_none(), "{word} is a field of every record");
    }
}

#[test]
fn names_and_legal_bases_are_asked_for() {
    let name = "name = { zh = \"职称\", en = \"Professional title\" }\n";
    check(&[("catalogue.toml", name, "")], &[("catalogue.toml", "indicator without `name`")]);
    check(
        &[("catalogue.toml", "legal_basis", "legal_bases")],
        &[
            ("catalogue.toml", "indicator without `legal_basis`"),
            ("catalogue.toml", "unknown field `legal_bases` in indicator"),
        ],
    );
    check(&[(MODEL, "name = { zh = \"信用良好\", en = \"Good\" }\n", "")], &[(MODEL, "grade without `name`")]);
}

#[test]
fn a_prohibited_item_in_the_catalogue_is_told_at_its_place() {
    let files = edited(&[("catalogue.toml", "code = \"education-record\"", "code = \"blood-type\"")]);
    let mistakes = PolicySet::parse(files.clone()).unwrap_err();
    let at = String::from_utf8(files["catalogue.toml"].clone()).unwrap().find("\"blood-type\"").unwrap();
    let said: Vec<_> = mistakes.iter().map(|m| (m.span.clone(), m.what.split(':').next().unwrap())).collect();
    assert_eq!(said, [(at..at + 12, "prohibited-item")], "{mistakes}");
}

/// Few cuts, first half.
#[test]
fn questions_use_the_few_cuts_and_no_grade_tells_more() {
    let no_grade = "the cut 700 is no grade's `min` in the model in force, \"yuxi-2026\"";
    let files = edited(&[("city.toml", "[600, 800]", "[600, 700, 800]")]);
    assert_eq!(PolicySet::parse(files).unwrap_err().iter().map(|m| m.what.as_str()).collect::<Vec<_>>(), [no_grade]);
    check(
        &[("scenarios.toml", "question = { score_at_least = 600 }", "question = { score_at_least = 613 }")],
        &[("scenarios.toml", "it asks about 613")],
    );
    check(
        &[("scenarios.toml", "question = { grade_at_least = \"good\"", "question = { grade_at_least = \"fair\"")],
        &[("scenarios.toml", "it asks about the grade \"fair\", which begins at 500")],
    );
    check(
        &[("scenarios.toml", "question = { grade_at_least = \"good\"", "question = { grade_at_least = \"goood\"")],
        &[("scenarios.toml", "the model in force has no grade \"goood\"")],
    );
    let files = edited(&[("city.toml", "[600, 800]", "[500, 600, 800]")]);
    let named = "it names the grade, and the lowest cut is 500";
    assert!(PolicySet::parse(files).unwrap_err().iter().all(|m| m.what == named), "a grade is named from good up");
    let finer = "min = 800\n\n[[grade]]\ncode = \"better\"\nname = { zh = \"更好\", en = \"Better\" }\nmin = 700";
    check(&[(MODEL, "min = 800", finer)], &[(MODEL, "the grade \"better\" begins at 700, which is no cut")]);
}

/// Few cuts, second half.
#[test]
fn who_asks_may_report_one_fixed_step_only() {
    let bike = "roles = [\"merchant\"]";
    let wanted = |why: &str, code: &str| {
        format!("\"yx-bike\" provides \"{code}\", {why}, while its organisation \"yx-bike\" asks as \"yx-bike\"")
    };
    let provides = |code: &str, from: &str, more: &str| {
        let head = format!("code = \"{code}\"");
        let files = edited(&[("parties.toml", bike, "roles = [\"merchant\", \"provider\"]")]);
        let text = String::from_utf8(files["catalogue.toml"].clone()).unwrap();
        let at = text.find(&head).unwrap();
        let changed =
            format!("{}{}", &text[..at], text[at..].replacen(from, &format!("providers = [\"yx-bike\"]{more}"), 1));
        let files = files
            .into_iter()
            .map(|(n, b)| if n == "catalogue.toml" { (n, changed.clone().into_bytes()) } else { (n, b) });
        let mistakes = PolicySet::parse(files.collect()).err().unwrap_or_default();
        mistakes.iter().map(|m| m.what.clone()).collect::<Vec<_>>()
    };
    let steps = "in the model \"yuxi-2026\" its records give more than one fixed step";
    // `latest` with one weight: one step
    assert_eq!(provides("telecom-arrears", "providers = [\"yx-telecom\"]", ""), Vec::<String>::new());
    assert_eq!(
        provides("rental-contract-kept", "providers = [\"yx-rental-association\"]", ""),
        [wanted(steps, "rental-contract-kept")]
    );
    let quantity = wanted("its records carry a quantity of time", "shared-vehicle-misuse");
    assert_eq!(provides("shared-vehicle-misuse", "providers = [\"yx-mobility-association\"]", ""), [quantity]);
    let quantity = wanted("its records carry a quantity of month", "telecom-arrears");
    assert_eq!(provides("telecom-arrears", "providers = [\"yx-telecom\"]", "\nunit = \"month\""), [quantity]);
    // another party of the same organisation is no way round it
    let group = "organisation = \"bike-group\"";
    let same = [
        ("parties.toml", "organisation = \"yx-mobility-association\"", group),
        ("parties.toml", "organisation = \"yx-bike\"", group),
    ];
    let what = "\"yx-mobility-association\" provides \"shared-vehicle-misuse\", its records carry a quantity of time, while its organisation \"bike-group\" asks as \"yx-bike\"";
    check(&same, &[("catalogue.toml", what)]);
    // a draft model that would open it does not load either
    let mut files = shipped();
    let draft = String::from_utf8(files[MODEL].clone())
        .unwrap()
        .replace("yuxi-2026", "draft")
        .replace("points = -40\ncount = \"latest\"", "points = -40");
    files.insert("models/draft.toml".into(), draft.into_bytes());
    let mistakes = PolicySet::parse(files).unwrap_err();
    assert_eq!(mistakes.iter().map(|m| m.file.as_str()).collect::<Vec<_>>(), ["catalogue.toml"], "{mistakes}");
    assert!(mistakes.to_string().contains("in the model \"draft\""), "{mistakes}");
}

/// Incentives only, within a whole set; the cases are in scenario.rs.
#[test]
fn a_scenario_that_limits_people_keeps_the_set_from_loading() {
    check(
        &[("scenarios.toml", "category = \"pay-later\"", "category = \"medical-access-denial\"")],
        &[("scenarios.toml", "`category` is \"medical-access-denial\", which limits people")],
    );
}

#[test]
fn files_agree_about_parties_indicators_and_models() {
    check(
        &[("scenarios.toml", "\"yx-power-bank\"", "\"yx-powerbank\"")],
        &[("scenarios.toml", "no party has the id \"yx-powerbank\"")],
    );
    check(
        &[("scenarios.toml", "\"yx-power-bank\"", "\"yx-court\"")],
        &[("scenarios.toml", "the party \"yx-court\" has only the roles provider")],
    );
    check(
        &[("catalogue.toml", "[\"yx-education\"]", "[\"yx-edu\"]")],
        &[("catalogue.toml", "no party has the id \"yx-edu\"")],
    );
    check(
        &[("catalogue.toml", "[\"yx-education\"]", "[\"yx-bus\"]")],
        &[("catalogue.toml", "the party \"yx-bus\" has only the roles merchant")],
    );
    check(
        &[(MODEL, "code = \"moral-model\"", "code = \"moral-models\"")],
        &[(MODEL, "\"moral-models\" is not in the catalogue")],
    );
    check(
        &[("city.toml", "model = \"yuxi-2026\"", "model = \"yuxi-2025\"")],
        &[("city.toml", "no model has the id \"yuxi-2025\"")],
    );
    let mut files = shipped();
    files.insert("models/copy.toml".into(), files[MODEL].clone());
    let said = PolicySet::parse(files).unwrap_err().to_string();
    assert!(said.contains("the id \"yuxi-2026\" is that of models/copy.toml too"), "{said}");
}

#[test]
fn the_digest_is_over_every_byte_and_name() {
    let digest = |files| PolicySet::parse(files).unwrap().digest;
    let plain = digest(shipped());
    assert_eq!(plain, digest(shipped()));
    let mut other = shipped();
    other.get_mut("access.toml").unwrap().push(b'\n');
    let mut more = shipped();
    more.insert("notes.md".into(), Vec::new());
    assert!(plain != digest(other) && plain != digest(more));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever bytes stand in the files, the parser says mistakes or reads them, and never panics; every mistake has a place.
    #[test]
    fn mangled_files_never_panic(edits in prop::collection::vec((0usize..7, any::<prop::sample::Index>(), 0usize..6, prop::collection::vec(prop::sample::select(b"[]{}=\"'\n\\#.,0-aA\xe7\xff".to_vec()), 0..4)), 1..12)) {
        let mut files = shipped();
        for (file, at, cut, put) in edits {
            let bytes = files.values_mut().nth(file).unwrap();
            let at = at.index(bytes.len() + 1);
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, put);
            if bytes.is_empty() {
                bytes.push(b'\n');
            }
        }
        if let Err(mistakes) = PolicySet::parse(files) {
            prop_assert!(!mistakes.is_empty());
            for m in mistakes.iter() {
                prop_assert!(m.line > 0 && m.column > 0);
            }
            let first = mistakes.iter().next().unwrap();
            let shown = format!("{:?}", first.report());
            prop_assert!(shown.contains(&first.file));
        }
    }
}

/// A model that is not in the folder: each mistake with its file and line.
#[test]
fn a_model_that_does_not_fit_the_set_is_refused_with_file_line_and_reason() {
    let set = set(&[]);
    let plain = set.file(MODEL).unwrap().replace("id = \"yuxi-2026\"", "id = \"yuxi-2027\"");
    let line = |text: &str, of: &str| text[..text.find(of).unwrap()].matches('\n').count() + 1;
    let check = |edits: &[(&str, &str)], want: &[(&str, &str)]| {
        let mut text = plain.clone();
        for (from, to) in edits {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }
        let mistakes = set.candidate("next.toml", text.as_bytes()).err().unwrap_or_default();
        let said: Vec<_> = mistakes.iter().map(|m| (m.file.as_str(), m.line, m.what.as_str())).collect();
        let want: Vec<_> = want.iter().map(|(of, what)| ("next.toml", line(&text, of), *what)).collect();
        assert_eq!(said, want, "{mistakes}");
    };
    check(&[], &[]);
    assert_eq!(set.candidate("next.toml", plain.as_bytes()).unwrap().model.id.as_str(), "yuxi-2027");
    check(
        &[("code = \"volunteer-hours\"", "code = \"volunteer-days\"")],
        &[("\"volunteer-days\"", "\"volunteer-days\" is not in the catalogue")],
    );
    let mistakes = set.candidate("next.toml", plain.replace("min = 800", "min = 810").as_bytes()).unwrap_err();
    let said = mistakes.to_string();
    assert!(said.contains("no grade begins at the cut 800, about which"), "{said}");
    assert!(said.contains("the grade \"excellent\" begins at 810, which is no cut of the city"), "{said}");
    let asked = set.scenarios.values().find(|s| s.question == Question::GradeNamed).unwrap();
    let renamed = plain.replace("code = \"good\"", "code = \"fine\"");
    let said = set.candidate("next.toml", renamed.as_bytes()).unwrap_err().to_string();
    assert!(said.contains(&format!("no grade \"good\", about which the scenario {} asks", asked.id)), "{said}");
    assert!(said.lines().skip(1).all(|line| line.starts_with("next.toml:")), "{said}");
}

/// INVARIANT (few cuts), second half, for a model that comes later than its set.
#[test]
fn a_model_gives_who_asks_no_step_of_their_choice() {
    let provider = |files: &[(&str, &str, &str)]| set(files);
    let catalogue = set(&[]).file("catalogue.toml").unwrap().to_owned();
    let asks = "yx-library";
    // A department that asks also provides an indicator of one fixed step.
    let indicator = catalogue.split("[[indicator]]").find(|part| {
        let code =
            part.lines().find_map(|line| line.strip_prefix("code = ")).unwrap_or_default().trim_matches('"').to_owned();
        set(&[]).model().rules.get(code.as_str()).is_some_and(crate::model::Rule::is_one_fixed_step)
            && !part.contains("unit = ")
    });
    let Some(indicator) = indicator else { panic!("no indicator of one fixed step") };
    let code = indicator.lines().find_map(|line| line.strip_prefix("code = ")).unwrap().trim_matches('"').to_owned();
    let providers = indicator.lines().find(|line| line.starts_with("providers = ")).unwrap();
    let more = indicator.replace(providers, &format!("providers = [\"{asks}\"]"));
    let party = set(&[]).file("parties.toml").unwrap().to_owned();
    let own = party.split("[[party]]").find(|part| part.contains(&format!("id = \"{asks}\""))).unwrap().to_owned();
    let roles = own.lines().find(|line| line.starts_with("roles = ")).unwrap();
    let with_role = own.replace(roles, &roles.replace(']', ", \"provider\"]"));
    let set = provider(&[("catalogue.toml", indicator, &more), ("parties.toml", &own, &with_role)]);
    let text = set.file(MODEL).unwrap().replace("id = \"yuxi-2026\"", "id = \"yuxi-2027\"");
    assert!(set.candidate("next.toml", text.as_bytes()).is_ok());
    let rule =
        text.split("[[indicator]]").find(|part| part.contains(&format!("code = \"{code}\""))).unwrap().to_owned();
    let many = rule.replace("count = \"latest\"", "count = \"all\"").replace("count = \"highest\"", "count = \"all\"");
    assert_ne!(rule, many);
    let said = set.candidate("next.toml", text.replace(&rule, &many).as_bytes()).unwrap_err().to_string();
    assert!(said.contains(&format!("\"{asks}\" provides \"{code}\" and its organisation asks")), "{said}");
}
