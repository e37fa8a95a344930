//! The score of a person on a day, exactly as the scoring rules say, in whole hundredths of a point.
//!
//! INVARIANT (same in, same score): pure and deterministic. The same person, records, catalogue, model and day give the same outcome,
//! in whatever order the records stand. The caller gives the records of this person, one of each
//! `(provider, id)`. `score/explain.rs` says why a score is what it is, with the same sums.
//!
//! Sums cannot wrap: a record gives at most 1,000 points x 1,000,000 units x 100 percent = 10^11
//! hundredths, so it would take 9 x 10^7 records of one person to reach the end of an `i64`; the
//! arithmetic saturates all the same, for a model that was not read from a policy file.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;

use crate::catalogue::{Catalogue, Indicator};
use crate::code::{GradeCode, IndicatorCode};
use crate::model::{Count, Dimension, Model, Rule};
use crate::person::{Person, add_years};
use crate::record::Held;

mod explain;
#[cfg(test)]
mod tests;

pub use explain::{
    Counting, DimensionHold, DimensionSum, Explanation, IndicatorSum, RecordPart, ScoreHold, Suggestion, explain,
};

/// The age from which a person is scored (Article 2).
const ADULT_YEARS: i16 = 18;

/// Whether a person is scored on a day, and if not, the first reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// There is a score.
    Scored,
    /// Younger than 18.
    UnderAge,
    /// No resident in the sense of Article 2.
    NotResident,
    /// Without full capacity for civil conduct.
    NoFullCapacity,
}

impl Status {
    /// The code used in files and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scored => "scored",
            Self::UnderAge => "under-age",
            Self::NotResident => "not-resident",
            Self::NoFullCapacity => "no-full-capacity",
        }
    }
}

/// What the rules make of a person on a day. Score and grade are there exactly when the status is `Scored`.
#[derive(Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether there is a score, and why not.
    pub status: Status,
    /// The score in whole points, 0 to 1,000.
    pub score: Option<u16>,
    /// The grade that holds from that score on.
    pub grade: Option<GradeCode>,
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outcome(..)")
    }
}

/// The outcome for `person` on the day `on`; `records` are this person's.
pub fn evaluate(person: &Person, records: &[Held], catalogue: &Catalogue, model: &Model, on: Date) -> Outcome {
    match status(person, on) {
        Status::Scored => scored(model, score(records, catalogue, model, on)),
        status => Outcome { status, score: None, grade: None },
    }
}

fn scored(model: &Model, score: i64) -> Outcome {
    Outcome {
        status: Status::Scored,
        score: Some(u16::try_from(score.max(0)).unwrap_or(u16::MAX)),
        grade: Some(model.grade(score).clone()),
    }
}

fn status(person: &Person, on: Date) -> Status {
    if birthday(person) > on {
        Status::UnderAge
    } else if !person.resident {
        Status::NotResident
    } else if !person.full_capacity {
        Status::NoFullCapacity
    } else {
        Status::Scored
    }
}

fn birthday(person: &Person) -> Date {
    add_years(person.born_on, ADULT_YEARS)
}

/// The first day after `on` on which the outcome could differ if nothing new arrives; never later than the day on
/// which it does. Cheap: it looks at every record once and computes no score.
pub fn next_boundary(
    person: &Person,
    records: &[Held],
    catalogue: &Catalogue,
    model: &Model,
    on: Date,
) -> Option<Date> {
    match status(person, on) {
        Status::UnderAge => Some(birthday(person)),
        Status::NotResident | Status::NoFullCapacity => None,
        Status::Scored => {
            let tally = Tally::new(records, catalogue, model);
            let days = tally.groups.iter().flat_map(|group| group.items.iter().map(move |item| (group.rule, item)));
            days.flat_map(|(rule, item)| boundaries(rule, item, on)).min()
        }
    }
}

/// The first day after `on` on which status, score or grade differ if nothing new arrives.
pub fn next_change(person: &Person, records: &[Held], catalogue: &Catalogue, model: &Model, on: Date) -> Option<Date> {
    match status(person, on) {
        Status::UnderAge => Some(birthday(person)),
        Status::NotResident | Status::NoFullCapacity => None,
        Status::Scored => Tally::new(records, catalogue, model).next_change(on),
    }
}

/// Full years from `since` to a later `on`, by the anniversaries of `add_years`.
#[inline]
fn full_years(since: Date, on: Date) -> usize {
    let years = on.year().saturating_sub(since.year());
    let leap_day = since.month() == 2 && since.day() == 29 && !on.in_leap_year();
    let anniversary = (since.month(), if leap_day { 28 } else { since.day() });
    usize::try_from(if (on.month(), on.day()) < anniversary { years - 1 } else { years }).unwrap_or(0)
}

/// What a record gives, rounded toward zero.
#[inline]
fn hundredths(rule: &Rule, quantity: Option<u32>, years: usize) -> i64 {
    let whole = rule.points.saturating_mul(i64::from(quantity.unwrap_or(1))).saturating_mul(rule.weight(years));
    // Most are points for one unit, and dividing takes longer than everything else here.
    if rule.per == 1 { whole } else { whole.checked_div(rule.per).unwrap_or(0) }
}

/// Why a record stops counting on its last day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Repaired,
    IndicatorEnded,
    Ended,
}

/// The days on which a record counts: from the first up to, and without, the second.
#[derive(Debug, Clone, Copy)]
struct Period {
    from: Date,
    until: Date,
    end: End,
}

/// `None` for a record that counts on no day. Each of the reasons to stop holds from its day on, so the days on which
/// a record counts are one stretch.
#[inline]
fn period(held: &Held, indicator: &Indicator) -> Option<Period> {
    if held.withdrawn || held.frozen {
        return None;
    }
    let from = held.record.occurred_on;
    let years = |years: u16| add_years(from, i16::try_from(years).unwrap_or(i16::MAX));
    let most = indicator.valid_for_years_max;
    let valid_until = match (held.record.valid_until, most) {
        (Some(said), Some(most)) => said.min(years(most)),
        (Some(said), None) => said,
        (None, _) => years(indicator.valid_for_years.min(most.unwrap_or(u16::MAX))),
    };
    // Of several that fall on one day the first of `End` is told.
    let mut ends = (valid_until, End::Ended);
    if let Some(day) = indicator.counts_until {
        ends = ends.min((day, End::IndicatorEnded));
    }
    if let Some(repair) = held.repair {
        ends = ends.min((repair.out_from(), End::Repaired));
    }
    let (until, end) = ends;
    Some(Period { from, until, end })
}

/// A record that counts on some day, as far as sums need it. `index` is its place in the caller's list.
#[derive(Debug, Clone, Copy)]
struct Item {
    index: usize,
    period: Period,
    quantity: Option<u32>,
}

impl Item {
    #[inline]
    fn counts(&self, on: Date) -> bool {
        self.period.from <= on && on < self.period.until
    }

    #[inline]
    fn hundredths(&self, rule: &Rule, on: Date) -> i64 {
        // One weight holds at every age.
        let years = if rule.weight_by_year.len() > 1 { full_years(self.period.from, on) } else { 0 };
        hundredths(rule, self.quantity, years)
    }
}

/// Every day after `on` on which what this record gives could change.
fn boundaries(rule: &Rule, item: &Item, on: Date) -> impl Iterator<Item = Date> {
    let Period { from, until, .. } = item.period;
    let anniversaries = (1..rule.weight_by_year.len())
        .filter(|years| rule.weight(*years) != rule.weight(years - 1))
        .map(move |years| add_years(from, i16::try_from(years).unwrap_or(i16::MAX)))
        .filter(move |day| *day < until);
    let edges = if from < until { [Some(from), Some(until)] } else { [None, None] };
    edges.into_iter().flatten().chain(anniversaries).filter(move |day| *day > on)
}

/// All records of one indicator that could count.
#[derive(Debug, Clone)]
struct Group<'a> {
    code: &'a IndicatorCode,
    rule: &'a Rule,
    items: Vec<Item>,
}

/// What one indicator gives on a day.
#[derive(Clone, Copy, Default)]
struct GroupSum {
    records: usize,
    sum: i64,
    held: i64,
    /// The one record that `highest` or `latest` chose.
    chosen: Option<usize>,
}

impl Group<'_> {
    fn on(&self, on: Date) -> GroupSum {
        let mut sum = Adding::new(self.rule);
        self.items.iter().for_each(|item| sum.add(item, on));
        sum.found()
    }
}

/// Adds up the records of one indicator on a day, in any order.
struct Adding<'a> {
    rule: &'a Rule,
    found: GroupSum,
    /// What the one that counts so far was chosen by: the day (for `latest`), then the distance from zero. Records that
    /// are equal in both give the same points, so which of them is chosen changes no score.
    best: Option<(Date, u64)>,
}

impl<'a> Adding<'a> {
    fn new(rule: &'a Rule) -> Self {
        Self { rule, found: GroupSum::default(), best: None }
    }

    #[inline]
    fn add(&mut self, item: &Item, on: Date) {
        if !item.counts(on) {
            return;
        }
        let points = item.hundredths(self.rule, on);
        self.found.records += 1;
        let rank = match self.rule.count {
            Count::All => {
                self.found.sum = self.found.sum.saturating_add(points);
                return;
            }
            Count::Highest => (Date::MIN, points.unsigned_abs()),
            Count::Latest => (item.period.from, points.unsigned_abs()),
        };
        if self.best.is_none_or(|best| rank > best) {
            self.best = Some(rank);
            self.found.sum = points;
            self.found.chosen = Some(item.index);
        }
    }

    fn found(&self) -> GroupSum {
        let held = self.rule.cap.map_or(self.found.sum, |cap| hold(self.found.sum, cap, cap));
        GroupSum { held, ..self.found }
    }
}

/// The score on one day: the sums of a `Tally` without its lists.
fn score(records: &[Held], catalogue: &Catalogue, model: &Model, on: Date) -> i64 {
    let most = records.len().min(model.rules.len());
    // Apart from the sums, so that looking for an indicator's place goes through few bytes.
    let (mut places, mut adding): (Vec<usize>, Vec<Adding<'_>>) = (Vec::with_capacity(most), Vec::with_capacity(most));
    for (index, held) in records.iter().enumerate() {
        let code = held.record.indicator.as_str();
        let Some((place, rule)) = model.rules.find(code) else { continue };
        let indicator = catalogue.get_near(rule.indicator_place, code);
        let Some(period) = indicator.and_then(|indicator| period(held, indicator)) else { continue };
        let item = Item { index, period, quantity: held.record.quantity };
        let seen = places.iter().position(|seen| *seen == place);
        match seen.and_then(|seen| adding.get_mut(seen)) {
            Some(sum) => sum.add(&item, on),
            None => {
                let mut sum = Adding::new(rule);
                sum.add(&item, on);
                places.push(place);
                adding.push(sum);
            }
        }
    }
    let found = adding.iter().map(|sum| (sum.rule, sum.found()));
    Sums::of(model, found).score
}

/// Held within minus `loss` and plus `gain` points.
fn hold(sum: i64, loss: i64, gain: i64) -> i64 {
    sum.min(gain.saturating_mul(100)).max(loss.saturating_mul(-100))
}

/// What the whole comes to on a day.
#[derive(Clone, Default)]
struct Sums {
    /// By the dimension's place in the model: the sum before it is held.
    dimensions: Vec<i64>,
    /// `base` and all dimensions as held, in hundredths.
    total: i64,
    /// The smallest `limits_score_to` of the records that count.
    limit: Option<i64>,
    score: i64,
}

impl Sums {
    /// What the indicators come to together.
    fn of<'a>(model: &Model, groups: impl Iterator<Item = (&'a Rule, GroupSum)>) -> Self {
        let mut sums = Self { dimensions: vec![0; model.dimensions.len()], ..Self::default() };
        for (rule, found) in groups {
            if found.records == 0 {
                continue;
            }
            if let Some(sum) = sums.dimensions.get_mut(rule.dimension_place) {
                *sum = sum.saturating_add(found.held);
            }
            if let Some(limit) = rule.limits_score_to {
                sums.limit = Some(sums.limit.map_or(limit, |least| least.min(limit)));
            }
        }
        sums.total = model.base.saturating_mul(100);
        for (dimension, sum) in model.dimensions.values().zip(&sums.dimensions) {
            sums.total = sums.total.saturating_add(held(dimension, *sum));
        }
        let score = sums.total.div_euclid(100).min(model.ceiling).max(model.floor);
        sums.score = sums.limit.map_or(score, |limit| score.min(limit));
        sums
    }
}

/// A dimension's sum within its limits.
fn held(dimension: &Dimension, sum: i64) -> i64 {
    hold(sum, dimension.max_loss, dimension.max_gain)
}

/// A person's records, sorted for adding up on any day.
#[derive(Debug, Clone)]
struct Tally<'a> {
    model: &'a Model,
    groups: Vec<Group<'a>>,
}

impl<'a> Tally<'a> {
    fn new(records: &[Held], catalogue: &Catalogue, model: &'a Model) -> Self {
        let mut groups: BTreeMap<&IndicatorCode, Group<'a>> = BTreeMap::new();
        for (index, held) in records.iter().enumerate() {
            let Some((code, rule)) = model.rules.get_key_value(&held.record.indicator) else { continue };
            let Some(period) = catalogue.get(code.as_str()).and_then(|indicator| period(held, indicator)) else {
                continue;
            };
            let group = groups.entry(code).or_insert_with(|| Group { code, rule, items: Vec::new() });
            group.items.push(Item { index, period, quantity: held.record.quantity });
        }
        Self { model, groups: groups.into_values().collect() }
    }

    fn on(&self, on: Date) -> Sums {
        Sums::of(self.model, self.groups.iter().map(|group| (group.rule, group.on(on))))
    }

    /// The grade follows from the score, so a differing score is all there is to look for.
    fn next_change(&self, on: Date) -> Option<Date> {
        let days: BTreeSet<Date> = self
            .groups
            .iter()
            .flat_map(|group| group.items.iter().flat_map(|item| boundaries(group.rule, item, on)))
            .collect();
        let today = self.on(on).score;
        days.into_iter().find(|day| self.on(*day).score != today)
    }
}
