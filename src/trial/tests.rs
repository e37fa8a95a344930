//! What a trial shows, and what a reader who has all of it, of two trials even, can work out.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::policies::{PolicySet, shipped};
use crate::suppression::ROUNDED_TO;

fn set() -> PolicySet {
    PolicySet::parse(shipped()).unwrap()
}

fn model_with(edits: &[(&str, &str)]) -> Model {
    let set = set();
    let mut text = set.file("models/yuxi-2026.toml").unwrap().replace("id = \"yuxi-2026\"", "id = \"next\"");
    for (from, to) in edits {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    set.candidate("next.toml", text.as_bytes()).unwrap().model
}

fn trial() -> Trial {
    let set = set();
    Trial::new(set.catalogue.clone(), set.model().clone(), model_with(&[]), "2026-11-25".parse().unwrap())
}

fn draw(ids: u64) -> u64 {
    u64::from_be_bytes(Sha256::digest(ids.to_be_bytes())[..8].try_into().unwrap())
}

/// Some people who go the same way: from a grade to another, of an age, and which way each of three dimensions goes; and
/// where a second model takes them.
#[derive(Debug, Clone)]
struct Group {
    from: usize,
    to: [usize; 2],
    band: usize,
    ways: [usize; 2],
    people: u64,
}

fn group() -> impl Strategy<Value = Group> {
    let size = prop_oneof![3 => 0u64..4, 3 => 4u64..30, 2 => 30u64..300];
    (0usize..4, [0usize..4, 0usize..4], 0usize..AGES.len(), [0usize..3, 0usize..3], size)
        .prop_map(|(from, to, band, ways, people)| Group { from, to, band, ways, people })
}

fn moves(trial: &Trial, groups: &[Group], which: usize) -> Moves {
    let mut moves = trial.nobody();
    let mut id = 1_u64;
    for group in groups {
        for _ in 0..group.people {
            id = id.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let one = Crowd { people: 1, ids: id };
            moves.grades[group.from][group.to[which]].add(one);
            moves.ages[group.band][trial.way(group.from, group.to[which])].add(one);
            for dimension in &mut moves.dimensions {
                dimension[group.ways[which]].add(one);
            }
        }
    }
    moves
}

/// A reader: every count has a name, a least and a most, and sums are known.
#[derive(Default)]
struct Reader {
    bounds: BTreeMap<String, (i64, i64)>,
    sums: Vec<(String, Vec<String>)>,
}

const FAR: i64 = 1_000_000;

impl Reader {
    fn learns(&mut self, name: String, said: Option<u64>) {
        let (least, most) = match said {
            Some(said) => {
                let said = i64::try_from(said).unwrap();
                ((said - 9).max(10), said + 9)
            }
            None => (0, FAR),
        };
        let known = self.bounds.entry(name).or_insert((0, FAR));
        *known = (known.0.max(least), known.1.min(most));
    }

    /// All that one trial shows; what is the same in every trial has one name in all.
    fn reads(&mut self, trial: &Trial, impact: &Impact, which: usize) {
        let own = |name: String| format!("{which} {name}");
        let cell = |from: &str, to: &str| own(format!("{from} to {to}"));
        let (mut all, mut ways) = (Vec::new(), [Vec::new(), Vec::new(), Vec::new()]);
        self.learns("all".into(), impact.people);
        for part in &impact.grades_before {
            self.learns(format!("before {}", part.code), part.people);
            all.push(format!("before {}", part.code));
        }
        self.sums.push(("all".into(), std::mem::take(&mut all)));
        for part in &impact.grades_after {
            self.learns(own(format!("after {}", part.code)), part.people);
            all.push(own(format!("after {}", part.code)));
        }
        self.sums.push(("all".into(), std::mem::take(&mut all)));
        for moved in &impact.moves {
            self.learns(cell(&moved.from, &moved.to), moved.people);
            let place = |model: &Model, code: &str| model.grades.iter().position(|g| g.code.as_str() == code).unwrap();
            let way = trial.way(place(&trial.before, &moved.from), place(&trial.after, &moved.to));
            ways[way].push(cell(&moved.from, &moved.to));
        }
        for part in &impact.grades_before {
            let row = impact.grades_after.iter().map(|to| cell(&part.code, &to.code)).collect();
            self.sums.push((format!("before {}", part.code), row));
        }
        for part in &impact.grades_after {
            let column = impact.grades_before.iter().map(|from| cell(&from.code, &part.code)).collect();
            self.sums.push((own(format!("after {}", part.code)), column));
        }
        let names = ["up", "same", "down"];
        let said = |ways: &Ways| [ways.up, ways.same, ways.down];
        for (way, people) in said(&impact.ways).into_iter().enumerate() {
            self.learns(own(names[way].into()), people);
            self.sums.push((own(names[way].into()), ways[way].clone()));
            let of_ages = impact.ages.iter().map(|age| own(format!("{} {}", age.from, names[way]))).collect();
            self.sums.push((own(names[way].into()), of_ages));
        }
        self.sums.push(("all".into(), names.map(|name| own(name.into())).to_vec()));
        self.sums.push(("all".into(), impact.ages.iter().map(|age| format!("aged {}", age.from)).collect()));
        for age in &impact.ages {
            self.learns(format!("aged {}", age.from), age.people);
            for (way, people) in said(&age.ways).into_iter().enumerate() {
                self.learns(own(format!("{} {}", age.from, names[way])), people);
            }
            let parts = names.map(|name| own(format!("{} {name}", age.from))).to_vec();
            self.sums.push((format!("aged {}", age.from), parts));
        }
        for dimension in &impact.dimensions {
            for (way, people) in said(&dimension.ways).into_iter().enumerate() {
                self.learns(own(format!("{} {}", dimension.code, names[way])), people);
            }
            let parts = names.map(|name| own(format!("{} {name}", dimension.code))).to_vec();
            self.sums.push(("all".into(), parts));
        }
    }

    /// Subtracts whatever can be subtracted, until nothing more follows.
    fn subtracts(&mut self) {
        loop {
            let mut changed = false;
            for (whole, parts) in &self.sums {
                let bound = |name: &String| self.bounds[name];
                let (least, most) = parts.iter().map(bound).fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
                let (whole_least, whole_most) = bound(whole);
                let mut found = vec![(whole.clone(), (least, most))];
                for part in parts {
                    let (own_least, own_most) = bound(part);
                    found.push((part.clone(), (whole_least - (most - own_most), whole_most - (least - own_least))));
                }
                for (name, (least, most)) in found {
                    let known = self.bounds.get_mut(&name).unwrap();
                    let now = (known.0.max(least), known.1.min(most));
                    changed |= now != *known;
                    *known = now;
                }
            }
            if !changed {
                return;
            }
        }
    }
}

/// What each count really is, by the reader's names.
fn truth(trial: &Trial, moves: &Moves, which: usize) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let names = ["up", "same", "down"];
    let mut add = |name: String, crowd: Crowd| *found.entry(name).or_insert(0) += crowd.people;
    for (from, row) in moves.grades.iter().enumerate() {
        for (to, crowd) in row.iter().enumerate() {
            let (from_code, to_code) = (&trial.before.grades[from].code, &trial.after.grades[to].code);
            add(format!("{which} {from_code} to {to_code}"), *crowd);
            add(format!("before {from_code}"), *crowd);
            add(format!("{which} after {to_code}"), *crowd);
            add(format!("{which} {}", names[trial.way(from, to)]), *crowd);
            add("all".into(), *crowd);
        }
    }
    for (ways, from) in moves.ages.iter().zip(AGES) {
        for (way, crowd) in ways.iter().enumerate() {
            add(format!("{which} {from} {}", names[way]), *crowd);
            add(format!("aged {from}"), *crowd);
        }
    }
    for (ways, (code, ..)) in moves.dimensions.iter().zip(&trial.dimensions) {
        for (way, crowd) in ways.iter().enumerate() {
            add(format!("{which} {code} {}", names[way]), *crowd);
        }
    }
    found
}

/// What is shown is ten or more and a multiple of ten; and no count under ten can be had by subtraction.
fn holds(groups: &[Group], trials: usize) -> (usize, usize) {
    let trial = trial();
    let (mut reader, mut really) = (Reader::default(), BTreeMap::new());
    for which in 0..trials {
        let moves = moves(&trial, groups, which);
        let impact = trial.shown(&moves, &draw);
        reader.reads(&trial, &impact, which);
        really.extend(truth(&trial, &moves, which));
    }
    let shown: Vec<String> =
        reader.bounds.iter().filter(|(_, (_, most))| *most < FAR).map(|(name, _)| name.clone()).collect();
    for name in &shown {
        assert!(really[name] >= LEAST, "{name} is shown and is {}", really[name]);
    }
    for (name, (least, most)) in &reader.bounds {
        assert!(
            (*least..=*most).contains(&i64::try_from(really[name]).unwrap()),
            "{name} is said to be what it is not"
        );
    }
    reader.subtracts();
    for (name, really) in really.iter().filter(|(_, count)| **count < LEAST) {
        let (least, most) = reader.bounds[name];
        assert!(
            least <= 0 && most >= 10,
            "{name} is {really}, and a reader of {trials} trial(s) knows: {least} to {most}"
        );
    }
    (shown.len(), reader.bounds.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn no_count_under_ten_can_be_had_from_one_trial(groups in prop::collection::vec(group(), 1..40)) {
        holds(&groups, 1);
    }

    #[test]
    fn no_count_under_ten_can_be_had_from_two_trials(groups in prop::collection::vec(group(), 1..40)) {
        holds(&groups, 2);
    }
}

/// Hiding costs something: of a city with large groups and a few small ones, most is still shown.
#[test]
fn most_of_a_large_city_is_shown() {
    let mut groups = Vec::new();
    for band in 0..AGES.len() {
        for from in 0..4 {
            groups.push(Group { from, to: [from; 2], band, ways: [1; 2], people: 500 });
            groups.push(Group { from, to: [from.max(1) - 1; 2], band, ways: [0; 2], people: 40 });
        }
    }
    groups.push(Group { from: 0, to: [3; 2], band: 5, ways: [2; 2], people: 3 });
    let (shown, all) = holds(&groups, 1);
    // Of 16 moves nine are nobody's, and three are three people's; so are a few of the ages and dimensions.
    assert!(shown * 10 >= all * 6, "{shown} of {all}");
}

/// Large counts are decided as small ones are, the few small ones among them hidden.
#[test]
fn a_city_of_a_million_is_shown_but_for_its_small_counts() {
    let mut groups = Vec::new();
    for band in 0..AGES.len() {
        for from in 0..4 {
            for to in 0..4 {
                let people = if from == to { 37_013 + band as u64 } else { [0, 3, 11, 1_207][(band + from + to) % 4] };
                groups.push(Group { from, to: [to; 2], band, ways: [(from + to) % 3; 2], people });
            }
        }
    }
    let (shown, all) = holds(&groups, 1);
    assert!(shown * 10 >= all * 7, "{shown} of {all}");
}

#[test]
fn people_are_counted_by_grade_age_and_dimension() {
    let set = set();
    let next = model_with(&[("base = 500", "base = 700")]);
    let trial = Trial::new(set.catalogue.clone(), set.model().clone(), next, "2026-11-25".parse().unwrap());
    let mut moves = trial.nobody();
    let person = |born: &str, resident| {
        let id = format!("XUT{born}").replace('-', "");
        Person {
            identity: crate::person::Identity::parse(crate::person::IdType::Passport, &id, trial.on).unwrap(),
            name: crate::person::Name::parse("某").unwrap(),
            born_on: born.parse().unwrap(),
            resident,
            full_capacity: true,
        }
    };
    for n in 0..40 {
        trial.count(&mut moves, n, &person("1990-01-01", true), &[]);
        trial.count(&mut moves, 100 + n, &person("2010-01-01", true), &[]);
        trial.count(&mut moves, 200 + n, &person("1990-01-01", false), &[]);
    }
    assert_eq!(moves.people(), 40, "who has no score is not counted");
    let impact = trial.shown(&moves, &draw);
    assert_eq!((impact.people, impact.ways.up), (Some(40), Some(40)));
    let of = |parts: &[Part], code: &str| parts.iter().find(|part| part.code == code).unwrap().people;
    assert_eq!((of(&impact.grades_before, "fair"), of(&impact.grades_after, "good")), (Some(40), Some(40)));
    assert_eq!(impact.ages.iter().map(|age| age.ways.up).collect::<Vec<_>>(), [None, Some(40), None, None, None, None]);
    assert!(impact.dimensions.iter().all(|dimension| dimension.ways.same == Some(40)));
    assert_eq!(trial.before.name(), impact.before);
    let read: Impact = serde_json::from_str(&serde_json::to_string(&impact).unwrap()).unwrap();
    assert_eq!(read, impact);
    let drawing = drawing::svg(&impact);
    assert!(drawing.starts_with("<svg ") && drawing.contains("信用良好") && drawing.contains(">40<"));
    assert!(impact.moves.iter().all(|moved| moved.people.is_none_or(|people| people % ROUNDED_TO == 0)));
}

/// Which way is up: of grades and of each dimension, when a model gives more and when it gives less.
#[test]
fn gains_are_told_from_losses() {
    let set = set();
    let on: jiff::civil::Date = "2026-11-25".parse().unwrap();
    let identity = crate::person::Identity::parse(crate::person::IdType::Passport, "XUT1234567", on).unwrap();
    let name = crate::person::Name::parse("某").unwrap();
    let record = crate::record::Record {
        id: crate::code::RecordId::parse("r-1").unwrap(),
        provider: crate::code::PartyId::parse("yx-civil-affairs").unwrap(),
        indicator: crate::code::IndicatorCode::parse("volunteer-hours").unwrap(),
        identity: identity.clone(),
        name: name.clone(),
        occurred_on: "2026-06-01".parse().unwrap(),
        valid_until: None,
        quantity: Some(60),
        consent_ref: None,
        detail: None,
    };
    let held = Held { record, repair: None, withdrawn: false, withdrawn_because: None, frozen: false };
    let born_on = "1990-01-01".parse().unwrap();
    let person = Person { identity, name, born_on, resident: true, full_capacity: true };
    let shown = |edits: &[(&str, &str)]| {
        let trial = Trial::new(set.catalogue.clone(), set.model().clone(), model_with(edits), on);
        let mut moves = trial.nobody();
        (0..40).for_each(|n| trial.count(&mut moves, n, &person, std::slice::from_ref(&held)));
        trial.shown(&moves, &draw)
    };
    let hours = "code = \"volunteer-hours\"\ndimension = \"contribution\"\npoints = 1\nper = 2";
    let ways = |impact: &Impact| {
        let dimension = impact.dimensions.iter().find(|dimension| dimension.code == "contribution").unwrap();
        (impact.ways, dimension.ways)
    };
    let forty = |ways: Ways| (ways.up == Some(40), ways.same == Some(40), ways.down == Some(40));
    for (edits, grades, dimension) in [
        (&[(hours, hours.replace("points = 1", "points = 2"))][..], (false, true, false), (true, false, false)),
        (&[(hours, hours.replace("per = 2", "per = 10"))], (false, true, false), (false, false, true)),
        (&[("base = 500", "base = 700".to_owned())], (true, false, false), (false, true, false)),
        (&[("base = 500", "base = 300".to_owned())], (false, false, true), (false, true, false)),
    ] {
        let edits: Vec<(&str, &str)> = edits.iter().map(|(from, to)| (*from, to.as_str())).collect();
        let (of_grades, of_dimension) = ways(&shown(&edits));
        assert_eq!((forty(of_grades), forty(of_dimension)), (grades, dimension), "{edits:?}");
    }
}

/// The edges of the bands: who is 30 on the day is 30.
#[test]
fn ages_are_full_years_on_the_day() {
    let on = "2026-11-25".parse().unwrap();
    let mut person = crate::person::Person {
        identity: crate::person::Identity::parse(crate::person::IdType::Passport, "XUT1234567", on).unwrap(),
        name: crate::person::Name::parse("某").unwrap(),
        born_on: on,
        resident: true,
        full_capacity: true,
    };
    for (born, place) in [
        ("2008-11-25", 0),
        ("1996-11-26", 0),
        ("1996-11-25", 1),
        ("1986-11-26", 1),
        ("1986-11-25", 2),
        ("1976-11-26", 2),
        ("1976-11-25", 3),
        ("1966-11-26", 3),
        ("1966-11-25", 4),
        ("1956-11-26", 4),
        ("1956-11-25", 5),
        ("1900-01-01", 5),
    ] {
        person.born_on = born.parse().unwrap();
        assert_eq!(band(&person, on), place, "{born}");
    }
}
