//! The uses of the score: who may ask what, for which benefit, how often and for how long.
//!
//! `scenarios.toml` is the one place that says who may ask what. A scenario asks one question, over the city's cuts
//! only, and gives a benefit. It does not know people, nor whether its parties exist; the whole set checks that.

use std::collections::BTreeMap;

use crate::code::{GradeCode, PartyId, ScenarioId};
use crate::model::SCORE_MAX;
use crate::policy::{Document, Mistakes, Once, Source, Table, Value};
use crate::text::Bilingual;

/// The most uses that a consent may allow.
const USES_MAX: i64 = 10_000;
/// The most days that a consent may last.
pub const DAYS_MAX: i64 = 1_830;
/// The most minutes that an attestation holds: a day.
pub const ANSWER_MINUTES_MAX: i64 = 1_440;

/// A use of the score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// Its id.
    pub id: ScenarioId,
    /// What it is called.
    pub title: Bilingual,
    /// What a person gets.
    pub benefit: Bilingual,
    /// Which kind of benefit that is.
    pub category: BenefitCategory,
    /// Whether the service itself is a basic public one, or a legal right.
    pub basic_service: bool,
    /// What its parties may ask.
    pub question: Question,
    /// Who may ask; never empty.
    pub parties: Vec<PartyId>,
    /// Uses of a consent unless the person says another number.
    pub uses: u32,
    /// The most uses that a person may say.
    pub uses_max: u32,
    /// Days (of 24 hours) of a consent unless the person says another number.
    pub days: u32,
    /// The most days that a person may say.
    pub days_max: u32,
    /// How long an attestation holds.
    pub answer_minutes: u32,
    /// Whether the benefit is one a person, so that a party gets a pseudonym.
    pub one_a_person: bool,
}

/// The kinds of benefit that a scenario may give. There is no other kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BenefitCategory {
    /// No deposit, or a smaller one.
    DepositWaiver,
    /// The service first, the bill later.
    PayLater,
    /// A lower price.
    Discount,
    /// A shorter way; never in a basic service, where it would make others wait.
    PriorityLane,
    /// Papers that may follow later.
    DocumentLeniency,
    /// More to borrow, or for longer.
    HigherAllowance,
    /// A course or a place in one.
    Training,
    /// Use of a room or a place to work.
    Space,
    /// An honour or a gift.
    Recognition,
}

impl BenefitCategory {
    /// Every kind with its code.
    pub const ALL: [(&'static str, BenefitCategory); 9] = [
        ("deposit-waiver", BenefitCategory::DepositWaiver),
        ("pay-later", BenefitCategory::PayLater),
        ("discount", BenefitCategory::Discount),
        ("priority-lane", BenefitCategory::PriorityLane),
        ("document-leniency", BenefitCategory::DocumentLeniency),
        ("higher-allowance", BenefitCategory::HigherAllowance),
        ("training", BenefitCategory::Training),
        ("space", BenefitCategory::Space),
        ("recognition", BenefitCategory::Recognition),
    ];

    /// Its code.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, c)| *c == self).map_or("", |(word, _)| word)
    }
}

/// Words for what no scenario may do; each gets Article 18 as an answer rather than a spelling hint.
const LIMITING: [&str; 14] = [
    "admission",
    "ban",
    "denial",
    "eligibility",
    "employment",
    "exclusion",
    "fee",
    "limit",
    "medical-access",
    "penalty",
    "refusal",
    "restriction",
    "school-admission",
    "surcharge",
];

/// What a scenario's parties may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Whether the score is at least this cut.
    ScoreAtLeast(u16),
    /// Whether the grade is at least this one.
    GradeAtLeast(GradeCode),
    /// Which grade it is, from the lowest cut up.
    GradeNamed,
}

impl Question {
    /// As scenarios and attestations say it.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::ScoreAtLeast(cut) => serde_json::json!({ "score_at_least": cut }),
            Self::GradeAtLeast(grade) => serde_json::json!({ "grade_at_least": grade.as_str() }),
            Self::GradeNamed => serde_json::json!({ "grade": "named" }),
        }
    }
}

/// Reads `scenarios.toml`.
pub fn parse(source: &Source, mistakes: &mut Mistakes) -> Option<BTreeMap<ScenarioId, Scenario>> {
    let before = mistakes.len();
    let read = read(&Document::parse(source, mistakes), mistakes);
    (mistakes.len() == before).then_some(read)
}

pub(crate) fn read(document: &Document<'_>, mistakes: &mut Mistakes) -> BTreeMap<ScenarioId, Scenario> {
    let (mut read, mut ids, mut root) = (BTreeMap::new(), Once::default(), document.root());
    for mut table in root.tables("scenario", true, mistakes) {
        if let Some(scenario) = scenario(&mut table, &mut ids, mistakes) {
            read.insert(scenario.id.clone(), scenario);
        }
        table.finish(mistakes);
    }
    root.finish(mistakes);
    read
}

fn scenario(table: &mut Table<'_>, ids: &mut Once, mistakes: &mut Mistakes) -> Option<Scenario> {
    let id = table.need("id", mistakes).and_then(|v| {
        let id = v.code(ScenarioId::parse, mistakes)?;
        ids.is_new(id.as_str(), &v, mistakes).then_some(id)
    });
    let title = table.need("title", mistakes).and_then(|v| v.bilingual(mistakes));
    let benefit = table.need("benefit", mistakes).and_then(|v| v.bilingual(mistakes));
    let (category, basic_service) = incentive(table, mistakes);
    let question = table.need("question", mistakes).and_then(|v| question(&v, mistakes));
    let mut once = Once::default();
    let mut party = |v: &Value<'_>, mistakes: &mut Mistakes| {
        let id = v.code(PartyId::parse, mistakes)?;
        once.is_new(id.as_str(), v, mistakes).then_some(id)
    };
    let parties = table.need("parties", mistakes).map(|v| v.list_of_some(mistakes)).unwrap_or_default();
    let parties: Vec<_> = parties.iter().filter_map(|v| party(v, mistakes)).collect();
    let (uses, uses_max) = within(table, "uses", "uses_max", USES_MAX, mistakes);
    let (days, days_max) = within(table, "days", "days_max", DAYS_MAX, mistakes);
    let answer_minutes = table.need("answer_minutes", mistakes).and_then(|v| v.whole(1..=ANSWER_MINUTES_MAX, mistakes));
    let one_a_person = table.need("one_a_person", mistakes).and_then(|v| v.flag(mistakes));
    // What could not be read has been told and keeps the set from loading; the rest is still held against other files.
    Some(Scenario {
        id: id?,
        title: title.unwrap_or_else(Bilingual::unread),
        benefit: benefit.unwrap_or_else(Bilingual::unread),
        category: category.unwrap_or(BenefitCategory::Discount),
        basic_service: basic_service.unwrap_or_default(),
        question: question.unwrap_or(Question::GradeNamed),
        parties,
        uses: uses.unwrap_or_default(),
        uses_max: uses_max.unwrap_or_default(),
        days: days.unwrap_or_default(),
        days_max: days_max.unwrap_or_default(),
        answer_minutes: answer_minutes.and_then(|minutes| minutes.try_into().ok()).unwrap_or_default(),
        one_a_person: one_a_person.unwrap_or_default(),
    })
}

/// INVARIANT (incentives only): a scenario gives something more, of an allowed kind, and what everybody has a right to
/// stays as it is for those who do not show it. One that would limit a basic public service or a legal right does not
/// load (Article 18).
fn incentive(table: &mut Table<'_>, mistakes: &mut Mistakes) -> (Option<BenefitCategory>, Option<bool>) {
    const EXPECTED: &str = "an incentive: Article 18 forbids to limit basic public services and legal rights by score";
    let basic = table.take("basic_service").map_or(Some(false), |v| v.flag(mistakes));
    if let Some(v) = table.take("otherwise")
        && let Some(otherwise) = v.text(mistakes)
        && otherwise != "as-usual"
    {
        v.wrong(
            mistakes,
            format!("whoever does not show it is served \"{otherwise}\""),
            EXPECTED,
            "serve everybody else \"as-usual\"",
        );
    }
    let category = table.need("category", mistakes).and_then(|v| {
        let limits = v.as_text().filter(|text| LIMITING.iter().any(|word| text.contains(word)));
        if let Some(text) = limits {
            v.wrong(
                mistakes,
                format!("`category` is \"{text}\", which limits people"),
                EXPECTED,
                "name a benefit, or take the scenario out",
            );
            return None;
        }
        let category = v.choice(&BenefitCategory::ALL, mistakes)?;
        if basic == Some(true) && category == BenefitCategory::PriorityLane {
            v.wrong(
                mistakes,
                "a priority lane in a basic public service makes others wait for what is theirs",
                EXPECTED,
                "choose another benefit",
            );
            return None;
        }
        Some(category)
    });
    (category, basic)
}

/// A number and the most that it may be.
fn within(
    table: &mut Table<'_>,
    name: &'static str,
    name_max: &'static str,
    most: i64,
    mistakes: &mut Mistakes,
) -> (Option<u32>, Option<u32>) {
    let mut whole = |name| table.need(name, mistakes).and_then(|v| Some((v.whole(1..=most, mistakes)?, v)));
    let (usual, max) = (whole(name), whole(name_max));
    if let (Some((usual, v)), Some((max, _))) = (&usual, &max)
        && usual > max
    {
        v.wrong(
            mistakes,
            format!("`{name}` is {usual}"),
            format!("at most `{name_max}`, {max}"),
            format!("lower it, or raise `{name_max}`"),
        );
    }
    let number = |found: Option<(i64, _)>| found.and_then(|(n, _)| u32::try_from(n).ok());
    (number(usual), number(max))
}

fn question(value: &Value<'_>, mistakes: &mut Mistakes) -> Option<Question> {
    let mut table = value.table("question", mistakes)?;
    let score = table.take("score_at_least");
    let grade = table.take("grade_at_least");
    let named = table.take("grade");
    let said = [&score, &grade, &named].into_iter().flatten().count();
    if said != 1 {
        let expected = "one of { score_at_least = <a cut> }, { grade_at_least = \"<grade>\" }, { grade = \"named\" }";
        value.wrong(mistakes, format!("a question that asks {said} things"), expected, "ask one thing");
    }
    let question = score
        .and_then(|v| v.whole(1..=SCORE_MAX, mistakes))
        .and_then(|cut| Some(Question::ScoreAtLeast(u16::try_from(cut).ok()?)))
        .or_else(|| grade.and_then(|v| v.code(GradeCode::parse, mistakes)).map(Question::GradeAtLeast))
        .or_else(|| named.and_then(|v| v.choice(&[("named", Question::GradeNamed)], mistakes)));
    table.finish(mistakes);
    question
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = r#"[[scenario]]
id = "library-deposit"
title = { zh = "免押金借书", en = "Borrow without a deposit" }
benefit = { zh = "免押金", en = "No deposit" }
category = "deposit-waiver"
basic_service = true
question = { score_at_least = 600 }
parties = ["yx-library"]
uses = 1
uses_max = 200
days = 30
days_max = 365
answer_minutes = 10
one_a_person = false
"#;

    fn check(from: &str, to: &str, want: &[(usize, &str)]) {
        assert!(PLAIN.contains(from), "{from}");
        let mut m = Mistakes::new();
        let read = parse(&Source::new("scenarios.toml", PLAIN.replacen(from, to, 1)), &mut m);
        assert_eq!(m.iter().map(|m| (m.line, m.what.as_str())).collect::<Vec<_>>(), want, "{to}");
        assert_eq!(read.is_some(), want.is_empty());
    }

    #[test]
    fn each_mistake_is_told() {
        check("uses = 1\n", "uses = 1\n", &[]);
        check("uses = 1\n", "uses = 201\n", &[(9, "`uses` is 201")]);
        check("uses = 1\n", "uses = 0\n", &[(9, "`uses` is 0")]);
        check("days = 30", "days = 366", &[(11, "`days` is 366")]);
        check("answer_minutes = 10", "answer_minutes = 1441", &[(13, "`answer_minutes` is 1441")]);
        check("answer_minutes = 10", "answer_minutes = 10.0", &[(13, "`answer_minutes` is a fraction")]);
        check("one_a_person = false", "one_a_person = \"no\"", &[(14, "`one_a_person` is a text")]);
        check("one_a_person = false", "", &[(1, "scenario without `one_a_person`")]);
        check("library-deposit", &"x".repeat(65), &[(2, &format!("`id` is \"{}\"", "x".repeat(65)))]);
        check(
            "[\"yx-library\"]",
            "[\"yx-library\", \"yx-library\"]",
            &[(8, "`parties` \"yx-library\" is said twice, first in line 8")],
        );
        check(
            "{ score_at_least = 600 }",
            "{ score_at_least = 600, grade = \"named\" }",
            &[(7, "a question that asks 2 things")],
        );
        check("{ score_at_least = 600 }", "{}", &[(7, "a question that asks 0 things")]);
        check("score_at_least = 600", "grade = \"good\"", &[(7, "`grade` is \"good\"")]);
        let unknown = "unknown field `score_atleast` in question";
        check("score_at_least", "score_atleast", &[(7, "a question that asks 0 things"), (7, unknown)]);
    }

    #[test]
    fn what_limits_people_does_not_load() {
        let limits = |category| format!("`category` is \"{category}\", which limits people");
        for category in ["school-admission", "medical-access-denial", "surcharge", "service-restriction"] {
            check("deposit-waiver", category, &[(5, &limits(category))]);
        }
        check("deposit-waiver", "deposit-wavier", &[(5, "`category` is \"deposit-wavier\"")]);
        check(
            "deposit-waiver",
            "priority-lane",
            &[(5, "a priority lane in a basic public service makes others wait for what is theirs")],
        );
        check(
            "basic_service = true",
            "otherwise = \"refused\"",
            &[(6, "whoever does not show it is served \"refused\"")],
        );
        check("basic_service = true", "otherwise = \"as-usual\"", &[]);
    }

    #[test]
    fn a_question_is_said_as_in_the_contract() {
        let said = |q: Question| q.to_json().to_string();
        assert_eq!(said(Question::ScoreAtLeast(600)), r#"{"score_at_least":600}"#);
        assert_eq!(said(Question::GradeAtLeast(GradeCode::parse("good").unwrap())), r#"{"grade_at_least":"good"}"#);
        assert_eq!(said(Question::GradeNamed), r#"{"grade":"named"}"#);
    }
}
