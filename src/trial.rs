//! How people's grades would move under another model: counted over many, shown as protected counts.
//!
//! [`Moves`] is what was counted and stays inside; [`Impact`] is what may be shown: grades before and after, by age and
//! by dimension, never a person, and no count under ten nor one that follows from others (`suppression`). How many
//! are in each grade, of each age and scored at all is the same whichever model is tried, so which of these are shown is
//! decided by themselves: no second trial shows what the first one hid. Pure.

use std::collections::BTreeSet;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::catalogue::Catalogue;
use crate::code::DimensionCode;
use crate::model::Model;
use crate::person::Person;
use crate::record::Held;
use crate::score::{Measure, measure};
use crate::suppression::{Counts, LEAST};
use crate::text::Bilingual;

pub mod drawing;
#[cfg(test)]
mod tests;

/// From which age on each band goes; the last has no end.
const AGES: [i16; 6] = [18, 30, 40, 50, 60, 70];

/// Which way something moves.
const UP: usize = 0;
const SAME: usize = 1;
const DOWN: usize = 2;

/// Two models over one catalogue, on a day.
#[derive(Debug, Clone)]
pub struct Trial {
    /// What may be collected.
    pub catalogue: Catalogue,
    /// The model in force.
    pub before: Model,
    /// The one that is tried.
    pub after: Model,
    /// The day.
    pub on: Date,
    /// Each dimension of either model, with its place in each.
    dimensions: Vec<(DimensionCode, Option<usize>, Option<usize>)>,
}

/// Some people: how many, and a sum over their ids by which their rounding is drawn.
#[derive(Clone, Copy, Default)]
struct Crowd {
    people: u64,
    ids: u64,
}

impl Crowd {
    fn add(&mut self, other: Self) {
        self.people += other.people;
        self.ids = self.ids.wrapping_add(other.ids);
    }

    fn of<'a>(crowds: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut all = Self::default();
        crowds.into_iter().for_each(|crowd| all.add(*crowd));
        all
    }
}

/// What was counted: exact, and never shown.
#[derive(Clone)]
pub struct Moves {
    /// By the place of the grade before, then of the grade after, the highest first.
    grades: Vec<Vec<Crowd>>,
    ages: Vec<[Crowd; 3]>,
    dimensions: Vec<[Crowd; 3]>,
}

impl std::fmt::Debug for Moves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Moves(..)")
    }
}

impl Trial {
    /// A trial of `after` against `before`.
    pub fn new(catalogue: Catalogue, before: Model, after: Model, on: Date) -> Self {
        let place = |model: &Model, code: &DimensionCode| model.dimensions.keys().position(|known| known == code);
        let codes: BTreeSet<&DimensionCode> = before.dimensions.keys().chain(after.dimensions.keys()).collect();
        let dimension = |code: &DimensionCode| (code.clone(), place(&before, code), place(&after, code));
        let dimensions = codes.into_iter().map(dimension).collect();
        Self { catalogue, before, after, on, dimensions }
    }

    /// Nobody counted yet.
    pub fn nobody(&self) -> Moves {
        Moves {
            grades: vec![vec![Crowd::default(); self.after.grades.len()]; self.before.grades.len()],
            ages: vec![Default::default(); AGES.len()],
            dimensions: vec![Default::default(); self.dimensions.len()],
        }
    }

    /// Counts somebody; `id` is theirs alone, and nothing more is known of it.
    pub fn count(&self, moves: &mut Moves, id: u64, person: &Person, records: &[Held]) {
        let one = Crowd { people: 1, ids: id };
        let measured = |model| measure(person, records, &self.catalogue, model, self.on);
        let (Some(before), Some(after)) = (measured(&self.before), measured(&self.after)) else { return };
        let (from, to) = (place_of(&self.before, &before), place_of(&self.after, &after));
        if let Some(crowd) = moves.grades.get_mut(from).and_then(|row| row.get_mut(to)) {
            crowd.add(one);
        }
        if let Some(crowd) = moves.ages.get_mut(band(person, self.on)).and_then(|ages| ages.get_mut(self.way(from, to)))
        {
            crowd.add(one);
        }
        for ((_, before_place, after_place), ways) in self.dimensions.iter().zip(&mut moves.dimensions) {
            let held = |measure: &Measure, place: &Option<usize>| {
                place.and_then(|place| measure.dimensions.get(place)).copied().unwrap_or_default()
            };
            let (before, after) = (held(&before, before_place), held(&after, after_place));
            let way = match after.cmp(&before) {
                std::cmp::Ordering::Greater => UP,
                std::cmp::Ordering::Equal => SAME,
                std::cmp::Ordering::Less => DOWN,
            };
            if let Some(crowd) = ways.get_mut(way) {
                crowd.add(one);
            }
        }
    }

    /// Whether the grade at the place `to` of the new model is above, the same as or below that at `from` of the old.
    fn way(&self, from: usize, to: usize) -> usize {
        let (Some(before), Some(after)) = (self.before.grades.get(from), self.after.grades.get(to)) else {
            return SAME;
        };
        match after.min.cmp(&before.min) {
            _ if before.code == after.code => SAME,
            std::cmp::Ordering::Greater => UP,
            std::cmp::Ordering::Equal => SAME,
            std::cmp::Ordering::Less => DOWN,
        }
    }

    /// What may be shown of it. `draw` gives a number for a sum of ids that nobody can work out who lacks the gateway's
    /// keys.
    pub fn shown(&self, moves: &Moves, draw: &dyn Fn(u64) -> u64) -> Impact {
        let all = Crowd::of(moves.grades.iter().flatten());
        let before: Vec<Crowd> = moves.grades.iter().map(Crowd::of).collect();
        let ages: Vec<Crowd> = moves.ages.iter().map(Crowd::of).collect();
        let after: Vec<Crowd> = (0..self.after.grades.len())
            .map(|to| Crowd::of(moves.grades.iter().filter_map(|row| row.get(to))))
            .collect();
        let ways = [UP, SAME, DOWN].map(|way| Crowd::of(moves.ages.iter().filter_map(|ways| ways.get(way))));

        // What is the same in every trial of these people is decided first, and by itself.
        let (before_shown, ages_shown) = (line(all, &before, draw), line(all, &ages, draw));
        let mut counts = Counts::new();
        let whole = counts.add_decided(all.people, draw(all.ids), all.people >= LEAST);
        let decided = |counts: &mut Counts, crowds: &[Crowd], shown: &[Option<u64>]| -> Vec<usize> {
            let crowds = crowds.iter().zip(shown);
            crowds.map(|(crowd, shown)| counts.add_decided(crowd.people, draw(crowd.ids), shown.is_some())).collect()
        };
        let rows = decided(&mut counts, &before, &before_shown);
        let bands = decided(&mut counts, &ages, &ages_shown);
        let add = |counts: &mut Counts, crowd: &Crowd| counts.add(crowd.people, draw(crowd.ids));
        let columns: Vec<usize> = after.iter().map(|crowd| add(&mut counts, crowd)).collect();
        let ways: Vec<usize> = ways.iter().map(|crowd| add(&mut counts, crowd)).collect();
        let cells: Vec<Vec<usize>> =
            moves.grades.iter().map(|row| row.iter().map(|crowd| add(&mut counts, crowd)).collect()).collect();
        let of_ages: Vec<Vec<usize>> =
            moves.ages.iter().map(|row| row.iter().map(|crowd| add(&mut counts, crowd)).collect()).collect();

        for (total, parts) in [(whole, &rows), (whole, &bands), (whole, &columns), (whole, &ways)] {
            counts.sum(total, parts.clone());
        }
        for (total, parts) in rows.iter().zip(&cells).chain(bands.iter().zip(&of_ages)) {
            counts.sum(*total, parts.clone());
        }
        for (to, total) in columns.iter().enumerate() {
            counts.sum(*total, cells.iter().filter_map(|row| row.get(to).copied()).collect());
        }
        for (way, total) in ways.iter().enumerate() {
            let goes = |(from, row): (usize, &Vec<usize>)| {
                row.iter()
                    .enumerate()
                    .filter(|(to, _)| self.way(from, *to) == way)
                    .map(|(_, at)| *at)
                    .collect::<Vec<_>>()
            };
            counts.sum(*total, cells.iter().enumerate().flat_map(goes).collect());
            counts.sum(*total, of_ages.iter().filter_map(|row| row.get(way).copied()).collect());
        }
        // Where a total is hidden, so are all its parts: no trial tells how large it is.
        let hidden = rows.iter().zip(&cells).chain(bands.iter().zip(&of_ages));
        for (_, parts) in hidden.filter(|(total, _)| counts.said(**total).is_none()).collect::<Vec<_>>() {
            parts.iter().for_each(|part| counts.hide(*part));
        }
        counts.protect();

        let said = |place: Option<&usize>| place.and_then(|place| counts.said(*place));
        let grade = |model: &Model, at: usize, people| {
            let grade = model.grades.get(at);
            let (code, name) = grade.map_or(("", None), |grade| (grade.code.as_str(), grade.name.as_ref()));
            Part { code: code.to_owned(), name: named(name, code), people }
        };
        let moved = |(from, row): (usize, &Vec<usize>)| {
            let one = |(to, place): (usize, &usize)| Move {
                from: self.before.grades.get(from).map(|grade| grade.code.to_string()).unwrap_or_default(),
                to: self.after.grades.get(to).map(|grade| grade.code.to_string()).unwrap_or_default(),
                people: counts.said(*place),
            };
            row.iter().enumerate().map(one).collect::<Vec<_>>()
        };
        let by_age = |(band, row): (usize, &Vec<usize>)| AgeMoves {
            from: AGES.get(band).copied().unwrap_or_default(),
            to: AGES.get(band + 1).map(|next| next - 1),
            people: said(bands.get(band)),
            ways: Ways { up: said(row.get(UP)), same: said(row.get(SAME)), down: said(row.get(DOWN)) },
        };
        let by_dimension = |((code, before, _), ways): (&(DimensionCode, Option<usize>, _), &[Crowd; 3])| {
            let model = if before.is_some() { &self.before } else { &self.after };
            let name = model.dimensions.get(code).and_then(|dimension| dimension.name.as_ref());
            let shown = line(all, ways, draw);
            let said = |way: usize| shown.get(way).copied().flatten();
            DimensionMoves {
                code: code.to_string(),
                name: named(name, code.as_str()),
                ways: Ways { up: said(UP), same: said(SAME), down: said(DOWN) },
            }
        };
        Impact {
            on: self.on,
            before: self.before.name(),
            after: self.after.name(),
            people: counts.said(whole),
            grades_before: rows
                .iter()
                .enumerate()
                .map(|(at, row)| grade(&self.before, at, counts.said(*row)))
                .collect(),
            grades_after: columns.iter().enumerate().map(|(at, c)| grade(&self.after, at, counts.said(*c))).collect(),
            moves: cells.iter().enumerate().flat_map(moved).collect(),
            ways: Ways { up: said(ways.get(UP)), same: said(ways.get(SAME)), down: said(ways.get(DOWN)) },
            ages: of_ages.iter().enumerate().map(by_age).collect(),
            dimensions: self.dimensions.iter().zip(&moves.dimensions).map(by_dimension).collect(),
        }
    }
}

impl Moves {
    /// Both together.
    pub fn merge(&mut self, other: &Self) {
        let own = self.grades.iter_mut().flatten().chain(self.ages.iter_mut().flatten());
        let own = own.chain(self.dimensions.iter_mut().flatten());
        let others = other.grades.iter().flatten().chain(other.ages.iter().flatten());
        let others = others.chain(other.dimensions.iter().flatten());
        own.zip(others).for_each(|(own, other)| own.add(*other));
    }

    /// How many people were counted.
    pub fn people(&self) -> u64 {
        Crowd::of(self.grades.iter().flatten()).people
    }
}

/// Parts of a whole by themselves.
fn line(whole: Crowd, parts: &[Crowd], draw: &dyn Fn(u64) -> u64) -> Vec<Option<u64>> {
    let mut counts = Counts::new();
    let shown = whole.people >= LEAST;
    let total = counts.add_decided(whole.people, draw(whole.ids), shown);
    let places: Vec<usize> = parts.iter().map(|part| counts.add(part.people, draw(part.ids))).collect();
    counts.sum(total, places.clone());
    counts.protect();
    places.iter().map(|place| counts.said(*place)).collect()
}

fn place_of(model: &Model, measure: &Measure) -> usize {
    let grade = model.grade(measure.score);
    model.grades.iter().position(|known| known.code == *grade).unwrap_or_default()
}

fn band(person: &Person, on: Date) -> usize {
    let born = person.born_on;
    let birthday_comes = (on.month(), on.day()) < (born.month(), born.day());
    let years = on.year() - born.year() - i16::from(birthday_comes);
    AGES.iter().rposition(|from| years >= *from).unwrap_or_default()
}

fn named(name: Option<&Bilingual>, code: &str) -> Named {
    let plain = || Named { zh: code.to_owned(), en: code.to_owned() };
    name.map_or_else(plain, |name| Named { zh: name.zh.clone(), en: name.en.clone() })
}

/// A name in both languages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// In Chinese.
    pub zh: String,
    /// In English.
    pub en: String,
}

/// What a trial shows. Counts are rounded to tens; none where one is hidden.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impact {
    /// The day for which everybody was scored.
    pub on: Date,
    /// The model in force, as attestations name it.
    pub before: String,
    /// The model that was tried.
    pub after: String,
    /// People with a score.
    pub people: Option<u64>,
    /// Them by grade under the model in force, the highest first.
    pub grades_before: Vec<Part>,
    /// And under the one that was tried.
    pub grades_after: Vec<Part>,
    /// From each grade to each.
    pub moves: Vec<Move>,
    /// Into a higher grade, the same, a lower one.
    pub ways: Ways,
    /// The same by age.
    pub ages: Vec<AgeMoves>,
    /// By dimension: more points in it, as many, fewer.
    pub dimensions: Vec<DimensionMoves>,
}

/// People of one grade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The grade's code.
    pub code: String,
    /// What it is called.
    pub name: Named,
    /// How many.
    pub people: Option<u64>,
}

/// People who go from one grade to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The grade under the model in force.
    pub from: String,
    /// The grade under the one that was tried.
    pub to: String,
    /// How many.
    pub people: Option<u64>,
}

/// Up, the same, down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ways {
    /// Higher, or more.
    pub up: Option<u64>,
    /// As before.
    pub same: Option<u64>,
    /// Lower, or fewer.
    pub down: Option<u64>,
}

/// The people of an age.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgeMoves {
    /// From this age on.
    pub from: i16,
    /// Up to this one; none for the last.
    pub to: Option<i16>,
    /// How many there are.
    pub people: Option<u64>,
    /// Where their grades go.
    #[serde(flatten)]
    pub ways: Ways,
}

/// What happens in one dimension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DimensionMoves {
    /// Its code.
    pub code: String,
    /// What it is called.
    pub name: Named,
    /// More points, as many, fewer.
    #[serde(flatten)]
    pub ways: Ways,
}
