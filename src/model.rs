//! What counts in a score, and how much: base, grades, dimensions and the points of indicators.
//!
//! A model is known by its id and the digest of its file, so that a score can be recomputed from exactly these rules. It
//! loads only when every score it can give has a grade. It does not know people or records.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use crate::catalogue::Catalogue;
use crate::code::{ByIndicator, DimensionCode, GradeCode, IndicatorCode, ModelId};
use crate::hex::hex;
use crate::policy::{Document, Mistakes, Once, Source, Table, Value};
use crate::text::{Bilingual, nearest};

/// The most points a score has (Article 12).
pub const SCORE_MAX: i64 = 1_000;
/// The most points that caps, limits and dimensions may name: far beyond any score, and sums of it cannot wrap.
const POINTS_MAX: i64 = 1_000_000;
/// The most years that weights are given for.
const WEIGHTS_MAX: usize = 100;

/// A published way of counting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Its id.
    pub id: ModelId,
    /// SHA-256 of its file's bytes.
    pub digest: [u8; 32],
    /// Where everybody starts.
    pub base: i64,
    /// The lowest score.
    pub floor: i64,
    /// The highest score.
    pub ceiling: i64,
    /// Grades, the highest first; never empty.
    pub grades: Vec<Grade>,
    /// Dimensions.
    pub dimensions: BTreeMap<DimensionCode, Dimension>,
    /// What each indicator counts; one that is not here counts nothing.
    pub rules: ByIndicator<Rule>,
    lowest: GradeCode,
}

/// A grade holds from its `min` up to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grade {
    /// Its code.
    pub code: GradeCode,
    /// The first score that has it.
    pub min: i64,
    /// What people call it; always there in a city's own set.
    pub name: Option<Bilingual>,
}

/// A part of the score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dimension {
    /// Its code.
    pub code: DimensionCode,
    /// What people call it; always there in a city's own set.
    pub name: Option<Bilingual>,
    /// The most points it adds.
    pub max_gain: i64,
    /// The most points it takes, as a positive number.
    pub max_loss: i64,
}

/// What the records of one indicator count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The part of the score they count in.
    pub dimension: DimensionCode,
    /// Where that stands among the model's dimensions, so that scoring adds up without comparing codes.
    pub dimension_place: usize,
    /// Where the catalogue had the indicator as the model was read: where scoring looks first.
    pub indicator_place: usize,
    /// Points for each `per` units, negative for a loss.
    pub points: i64,
    /// How many units the points are for, at least 1.
    pub per: i64,
    /// Percent by full years since the record; the last holds from there on. Never empty.
    pub weight_by_year: Vec<i64>,
    /// Which of several records count.
    pub count: Count,
    /// The most points, either way.
    pub cap: Option<i64>,
    /// The highest score while such a record counts.
    pub limits_score_to: Option<i64>,
}

/// Which of several records of an indicator count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// The sum of them.
    All,
    /// The one furthest from zero.
    Highest,
    /// The latest; of several on that day the one furthest from zero.
    Latest,
}

impl Count {
    const ALL: [(&'static str, Count); 3] =
        [("all", Count::All), ("highest", Count::Highest), ("latest", Count::Latest)];
}

impl Rule {
    /// The percent that a record of this many full years counts.
    pub fn weight(&self, full_years: usize) -> i64 {
        self.weight_by_year.get(full_years).or(self.weight_by_year.last()).copied().unwrap_or(100)
    }

    /// Whether any number of records of it move the score by one and the same step: one weight, and only one counts.
    pub fn is_one_fixed_step(&self) -> bool {
        self.weight_by_year.iter().all(|w| Some(w) == self.weight_by_year.first()) && self.count != Count::All
    }
}

impl Model {
    /// Reads a model; its codes must be in the catalogue.
    pub fn parse(source: &Source, catalogue: &Catalogue, mistakes: &mut Mistakes) -> Option<Self> {
        let before = mistakes.len();
        let read = Self::read(source, &Document::parse(source, mistakes), catalogue, false, mistakes);
        read.filter(|_| mistakes.len() == before)
    }

    /// As [`Model::parse`]; `published` asks for what people need to understand it.
    pub(crate) fn read(
        source: &Source,
        document: &Document<'_>,
        catalogue: &Catalogue,
        published: bool,
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        let mut root = document.root();
        let head = root.need("model", mistakes).and_then(|v| head(v.table("model", mistakes)?, mistakes));
        let (grades, all) = grades(&mut root, published, mistakes);
        let lowest = grades.last().filter(|_| all);
        let (dimensions, known) = dimensions(&mut root, published, mistakes);
        let rules = rules(&mut root, catalogue, &known, lowest, mistakes);
        if let (Some(lowest), Some((_, Some([_, floor, _])))) = (lowest, &head)
            && lowest.min > *floor
        {
            let (code, min) = (lowest.code.as_str(), lowest.min);
            let what = format!("the lowest grade \"{code}\" begins at {min}, above the floor {floor}");
            let help = "lower its `min`, or add a grade below it";
            document.wrong(
                mistakes,
                &["grade", code, "min"],
                what,
                format!("at most {floor}, so that every score has a grade"),
                help,
            );
        }
        root.finish(mistakes);
        let (id, points) = head?;
        // What could not be read has been told and keeps the set from loading; the rest is held against other files.
        let [base, floor, ceiling] = points.unwrap_or_default();
        let lowest = lowest?.code.clone();
        Some(Self {
            id,
            digest: Sha256::digest(source.text.as_bytes()).into(),
            base,
            floor,
            ceiling,
            grades,
            dimensions,
            rules: rules.into(),
            lowest,
        })
    }

    /// The grade of a score.
    pub fn grade(&self, score: i64) -> &GradeCode {
        self.grades.iter().find(|g| score >= g.min).map_or(&self.lowest, |g| &g.code)
    }

    /// The name that attestations carry: `id#sha256-<hex>`.
    pub fn name(&self) -> String {
        format!("{}#sha256-{}", self.id, hex(&self.digest))
    }
}

/// The id, and base, floor and ceiling where all three could be read.
fn head(mut table: Table<'_>, mistakes: &mut Mistakes) -> Option<(ModelId, Option<[i64; 3]>)> {
    let id = table.need("id", mistakes).and_then(|v| v.code(ModelId::parse, mistakes));
    let mut points = |field| table.need(field, mistakes).and_then(|v| Some((v.whole(0..=SCORE_MAX, mistakes)?, v)));
    let (base, floor, ceiling) = (points("base"), points("floor"), points("ceiling"));
    table.finish(mistakes);
    let (Some((base, base_value)), Some((floor, _)), Some((ceiling, _))) = (base, floor, ceiling) else {
        return Some((id?, None));
    };
    if !(floor <= base && base <= ceiling) {
        let expected = format!("from the floor {floor} to the ceiling {ceiling}");
        base_value.wrong(mistakes, format!("`base` is {base}"), expected, "move the base, the floor or the ceiling");
    }
    Some((id?, Some([base, floor, ceiling])))
}

fn name(table: &mut Table<'_>, published: bool, mistakes: &mut Mistakes) -> Option<Bilingual> {
    let value = if published { table.need("name", mistakes) } else { table.take("name") };
    value.and_then(|v| v.bilingual(mistakes))
}

/// The grades, the highest first, and whether that is all of them.
fn grades(root: &mut Table<'_>, published: bool, mistakes: &mut Mistakes) -> (Vec<Grade>, bool) {
    let (mut read, mut codes, mut mins, mut all) = (Vec::new(), Once::default(), Once::default(), !root.is_broken());
    for mut table in root.tables("grade", true, mistakes) {
        let code = table.need("code", mistakes).and_then(|v| {
            let code = v.code(GradeCode::parse, mistakes)?;
            codes.is_new(code.as_str(), &v, mistakes).then_some(code)
        });
        let min = table.need("min", mistakes).and_then(|v| {
            let min = v.whole(-POINTS_MAX..=POINTS_MAX, mistakes)?;
            mins.is_new(&min.to_string(), &v, mistakes).then_some(min)
        });
        let name = name(&mut table, published, mistakes);
        table.finish(mistakes);
        match (code, min) {
            (Some(code), Some(min)) => read.push(Grade { code, min, name }),
            _ => all = false,
        }
    }
    read.sort_by_key(|g| std::cmp::Reverse(g.min));
    (read, all)
}

/// The dimensions, and all their codes where some could not be read.
fn dimensions(
    root: &mut Table<'_>,
    published: bool,
    mistakes: &mut Mistakes,
) -> (BTreeMap<DimensionCode, Dimension>, BTreeSet<String>) {
    let (mut read, mut codes) = (BTreeMap::new(), Once::default());
    for mut table in root.tables("dimension", false, mistakes) {
        let code = table.need("code", mistakes).and_then(|v| {
            let code = v.code(DimensionCode::parse, mistakes)?;
            codes.is_new(code.as_str(), &v, mistakes).then_some(code)
        });
        let name = name(&mut table, published, mistakes);
        let mut points = |field| table.need(field, mistakes).and_then(|v| v.whole(0..=POINTS_MAX, mistakes));
        let (max_gain, max_loss) = (points("max_gain"), points("max_loss"));
        table.finish(mistakes);
        if let (Some(code), Some(max_gain), Some(max_loss)) = (code, max_gain, max_loss) {
            read.insert(code.clone(), Dimension { code, name, max_gain, max_loss });
        }
    }
    let known = codes.all().map(str::to_owned).collect();
    (read, known)
}

fn rules(
    root: &mut Table<'_>,
    catalogue: &Catalogue,
    dimensions: &BTreeSet<String>,
    lowest: Option<&Grade>,
    mistakes: &mut Mistakes,
) -> BTreeMap<IndicatorCode, Rule> {
    let (mut read, mut codes) = (BTreeMap::new(), Once::default());
    for mut table in root.tables("indicator", false, mistakes) {
        let code = table.need("code", mistakes).and_then(|v| {
            let code = v.code(IndicatorCode::parse, mistakes)?;
            if !catalogue.may_know(code.as_str()) {
                unknown(&v, code.as_str(), "the catalogue", catalogue.codes(), mistakes);
            }
            codes.is_new(code.as_str(), &v, mistakes).then_some(code)
        });
        let rule = rule(&mut table, dimensions, lowest, mistakes);
        table.finish(mistakes);
        if let (Some(code), Some(rule)) = (code, rule) {
            let indicator_place = catalogue.place(code.as_str()).unwrap_or_default();
            read.insert(code, Rule { indicator_place, ..rule });
        }
    }
    read
}

fn unknown<'a>(
    value: &Value<'_>,
    word: &str,
    place: &str,
    known: impl Iterator<Item = &'a str>,
    mistakes: &mut Mistakes,
) {
    let help = nearest(word, known)
        .map_or("add it there, or take this out".to_owned(), |near| format!("did you mean \"{near}\"?"));
    value.wrong(mistakes, format!("\"{word}\" is not in {place}"), format!("a code of {place}"), help);
}

fn rule(
    table: &mut Table<'_>,
    dimensions: &BTreeSet<String>,
    lowest: Option<&Grade>,
    mistakes: &mut Mistakes,
) -> Option<Rule> {
    let broken = table.is_broken();
    let dimension = table.need("dimension", mistakes).and_then(|v| {
        let code = v.code(DimensionCode::parse, mistakes)?;
        if !broken && !dimensions.contains(code.as_str()) {
            unknown(&v, code.as_str(), "the model's dimensions", dimensions.iter().map(String::as_str), mistakes);
        }
        Some(code)
    });
    let points = table.need("points", mistakes).and_then(|v| v.whole(-SCORE_MAX..=SCORE_MAX, mistakes));
    let per = table.take("per").and_then(|v| v.whole(1..=POINTS_MAX, mistakes)).unwrap_or(1);
    let weight_by_year = table.take("weight_by_year").map_or(vec![100], |v| {
        let weights = v.list_of_some(mistakes);
        if weights.len() > WEIGHTS_MAX {
            v.wrong(
                mistakes,
                format!("`weight_by_year` has {} weights", weights.len()),
                format!("at most {WEIGHTS_MAX}"),
                "take some out",
            );
        }
        weights.iter().filter_map(|w| w.whole(0..=100, mistakes)).collect()
    });
    let count = table.take("count").map_or(Some(Count::All), |v| v.choice(&Count::ALL, mistakes));
    let cap = table.take("cap").and_then(|v| v.whole(0..=POINTS_MAX, mistakes));
    let limits_score_to = table.take("limits_score_to").and_then(|v| {
        let limit = v.whole(0..=POINTS_MAX, mistakes)?;
        if let Some(lowest) = lowest.filter(|g| g.min > limit) {
            let (what, expected) = (
                format!("`limits_score_to` is {limit}"),
                format!("at least {}, where the lowest grade \"{}\" begins", lowest.min, lowest.code),
            );
            v.wrong(mistakes, what, expected, "raise the limit, or add a grade below it");
        }
        Some(limit)
    });
    // As above: points that could not be read hide no other mistake.
    let (points, count) = (points.unwrap_or_default(), count.unwrap_or(Count::Latest));
    let dimension = dimension?;
    // Both this set and the model's dimensions are in the order of the codes.
    let dimension_place = dimensions.iter().position(|code| code == dimension.as_str()).unwrap_or_default();
    let indicator_place = 0;
    Some(Rule { dimension, dimension_place, indicator_place, points, per, weight_by_year, count, cap, limits_score_to })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CATALOGUE: &str = "[[indicator]]\ncode = \"honour\"\ncategory = \"honour\"\nproviders = [\"o\"]\n\
                             [[indicator]]\ncode = \"judgment\"\ncategory = \"judicial\"\nproviders = [\"c\"]\n";
    const PLAIN: &str = r#"[model]
id = "m-1"
base = 500
floor = 0
ceiling = 1000
[[grade]]
code = "fair"
min = 500
[[grade]]
code = "insufficient"
min = 0
[[dimension]]
code = "d"
max_gain = 60
max_loss = 300
[[indicator]]
code = "honour"
dimension = "d"
points = 80
per = 3
[[indicator]]
code = "judgment"
dimension = "d"
points = -90
weight_by_year = [100, 60]
limits_score_to = 499
"#;

    fn check(from: &str, to: &str, want: &[&str]) {
        assert!(PLAIN.contains(from), "{from}");
        let mut m = Mistakes::new();
        let catalogue = Catalogue::parse(&Source::new("c", CATALOGUE), None, &mut m).unwrap();
        let read = Model::parse(&Source::new("m", PLAIN.replacen(from, to, 1)), &catalogue, &mut m);
        assert_eq!(m.iter().map(|m| m.what.as_str()).collect::<Vec<_>>(), want, "{to}");
        assert_eq!(read.is_some(), want.is_empty());
    }

    /// SCORING.md, "It loads when".
    #[test]
    fn it_loads_exactly_when_the_rules_say() {
        check("base = 500", "base = 0", &[]);
        check("base = 500", "base = 1000", &[]);
        check("base = 500", "base = 1001", &["`base` is 1001"]);
        check("base = 500", "base = -1", &["`base` is -1"]);
        check("floor = 0", "floor = 501", &["`base` is 500"]);
        check("ceiling = 1000", "ceiling = 499", &["`base` is 500"]);
        check("ceiling = 1000", "ceiling = 1001", &["`ceiling` is 1001"]);
        check("min = 0", "min = 1", &["the lowest grade \"insufficient\" begins at 1, above the floor 0"]);
        check("min = 0", "min = -1", &[]);
        check("min = 0", "min = 500", &["`min` \"500\" is said twice, first in line 8"]);
        check("[100, 60]", "[60, 100]", &[]);
        check("[100, 60]", "[0, 0]", &[]);
        check("[100, 60]", "[101, 60]", &["`weight_by_year` is 101"]);
        check("[100, 60]", "[100, -1]", &["`weight_by_year` is -1"]);
        check("[100, 60]", "[]", &["`weight_by_year` is an empty list"]);
        check("per = 3", "per = 1", &[]);
        check("per = 3", "per = 0", &["`per` is 0"]);
        check("points = 80", "points = 0", &[]);
        check("points = -90", "points = -1000", &[]);
        check("points = 80", "points = 1001", &["`points` is 1001"]);
        check("points = 80", "points = 80.5", &["`points` is a fraction"]);
        check("points = -90", "points = -1001", &["`points` is -1001"]);
        check("max_gain = 60", "max_gain = -1", &["`max_gain` is -1"]);
        check("max_loss = 300", "max_loss = -1", &["`max_loss` is -1"]);
        check("limits_score_to = 499", "limits_score_to = 0", &[]);
        check("limits_score_to = 499", "limits_score_to = -1", &["`limits_score_to` is -1"]);
        check("per = 3", "cap = 0", &[]);
        check("per = 3", "cap = -1", &["`cap` is -1"]);
        check("per = 3", "count = \"most\"", &["`count` is \"most\""]);
        check("code = \"honour\"", "code = \"judgment\"", &["`code` \"judgment\" is said twice, first in line 17"]);
        check("code = \"honour\"", "code = \"honor\"", &["\"honor\" is not in the catalogue"]);
        check("dimension = \"d\"", "dimension = \"e\"", &["\"e\" is not in the model's dimensions"]);
        check(
            "code = \"fair\"",
            "code = \"insufficient\"",
            &["`code` \"insufficient\" is said twice, first in line 7"],
        );
        check("id = \"m-1\"", "id = \"M 1\"", &["`id` is \"M 1\""]);
    }

    #[test]
    fn a_limit_below_the_lowest_grade_does_not_load() {
        let lifted =
            PLAIN.replace("floor = 0", "floor = 200").replace("min = 0", "min = 150").replace("= 499", "= 149");
        let (mut m, catalogue) =
            (Mistakes::new(), Catalogue::parse(&Source::new("c", CATALOGUE), None, &mut Mistakes::new()).unwrap());
        assert!(Model::parse(&Source::new("m", lifted), &catalogue, &mut m).is_none());
        assert_eq!(m.iter().map(|m| m.what.as_str()).collect::<Vec<_>>(), ["`limits_score_to` is 149"]);
    }

    #[test]
    fn a_score_has_the_highest_grade_that_begins_at_or_below_it() {
        let catalogue = Catalogue::parse(&Source::new("c", CATALOGUE), None, &mut Mistakes::new()).unwrap();
        let model = Model::parse(&Source::new("m", PLAIN), &catalogue, &mut Mistakes::new()).unwrap();
        let grade = |score| model.grade(score).as_str();
        assert_eq!([grade(0), grade(499), grade(500), grade(1000)], ["insufficient", "insufficient", "fair", "fair"]);
        assert!(model.name().starts_with("m-1#sha256-") && model.name().len() == 11 + 64, "{}", model.name());
        let other = Model::parse(&Source::new("m", format!("{PLAIN}# x\n")), &catalogue, &mut Mistakes::new()).unwrap();
        assert_ne!(model.digest, other.digest, "the digest is over all bytes");
        let rule = model.rules.get("judgment").unwrap();
        assert_eq!([rule.weight(0), rule.weight(1), rule.weight(40)], [100, 60, 60]);
        assert_eq!(model.rules.get("honour").unwrap().weight(7), 100);
    }

    #[test]
    fn one_fixed_step_is_one_weight_and_one_record() {
        let rule = |weight_by_year: Vec<i64>, count| Rule {
            dimension: DimensionCode::parse("d").unwrap(),
            dimension_place: 0,
            indicator_place: 0,
            points: 1,
            per: 1,
            weight_by_year,
            count,
            cap: None,
            limits_score_to: None,
        };
        assert!(rule(vec![50, 50], Count::Highest).is_one_fixed_step());
        assert!(rule(vec![100], Count::Latest).is_one_fixed_step());
        assert!(!rule(vec![100], Count::All).is_one_fixed_step());
        assert!(!rule(vec![100, 50], Count::Latest).is_one_fixed_step());
    }
}
