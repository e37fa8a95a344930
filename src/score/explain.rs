//! Why a score is what it is, when it changes by itself, and what would raise it.
//!
//! It reads off the same sums as `evaluate`, so an explanation cannot disagree with the score that
//! it explains; what would raise a score is found by adding up once more with one record more or
//! less. The tree is plain: its wire form belongs to the edge. All points are hundredths.

use jiff::civil::Date;

use super::{End, Group, Item, Outcome, Period, Status, Sums, Tally, birthday, full_years, hundredths, period, status};
use crate::catalogue::{Catalogue, Category, Indicator};
use crate::code::{DimensionCode, IndicatorCode, PartyId, RecordId};
use crate::model::{Count, Model, Rule};
use crate::person::Person;
use crate::record::Held;

/// The most suggestions given at once.
const SUGGESTIONS_MAX: usize = 3;

/// Why a person's outcome on a day is what it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The day that is explained.
    pub day: Date,
    /// Status, score and grade on it.
    pub outcome: Outcome,
    /// The model's id and digest.
    pub model: String,
    /// The points everybody starts from, whole.
    pub base: i64,
    /// Base and dimensions as held, in hundredths; before rounding, floor, ceiling and limit.
    pub total: i64,
    /// What held the score, where something did.
    pub held_by: Option<ScoreHold>,
    /// The model's dimensions, by code; empty where there is no score.
    pub dimensions: Vec<DimensionSum>,
    /// Every record, in the order in which the caller gave them.
    pub records: Vec<RecordPart>,
    /// The first later day on which status, score or grade differ if nothing new arrives.
    pub next_change: Option<Date>,
    /// Up to three things that would raise the score, the most effective first; empty where there is no score.
    pub would_raise: Vec<Suggestion>,
}

impl std::fmt::Debug for Explanation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Explanation(..)")
    }
}

/// What kept the score from being the plain sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreHold {
    /// The sum lies below the model's floor.
    Floor,
    /// The sum lies above the model's ceiling.
    Ceiling,
    /// A record that counts limits the score to this many points.
    Limit(i64),
}

/// One dimension's part in the score.
#[derive(Clone, PartialEq, Eq)]
pub struct DimensionSum {
    /// Which dimension.
    pub code: DimensionCode,
    /// What its indicators come to, in hundredths.
    pub sum: i64,
    /// What of it goes into the score, in hundredths.
    pub counted: i64,
    /// Which limit held it, where one did.
    pub held_by: Option<DimensionHold>,
    /// The most points it may add, whole.
    pub max_gain: i64,
    /// The most points it may take, whole.
    pub max_loss: i64,
    /// The indicators that have records that count today.
    pub indicators: Vec<IndicatorSum>,
}

impl std::fmt::Debug for DimensionSum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DimensionSum(..)")
    }
}

/// Which limit of a dimension held its sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DimensionHold {
    /// It would have added more than it may.
    MaxGain,
    /// It would have taken more than it may.
    MaxLoss,
}

/// One indicator's part in its dimension.
#[derive(Clone, PartialEq, Eq)]
pub struct IndicatorSum {
    /// Which indicator.
    pub code: IndicatorCode,
    /// How its records make one number.
    pub count: Count,
    /// How many of its records count today.
    pub records: usize,
    /// What they come to, in hundredths.
    pub sum: i64,
    /// What of it the cap lets through, in hundredths.
    pub counted: i64,
    /// The cap in whole points, where the model sets one.
    pub cap: Option<i64>,
}

impl std::fmt::Debug for IndicatorSum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IndicatorSum(..)")
    }
}

impl IndicatorSum {
    /// Whether the cap held something back.
    pub fn capped(&self) -> bool {
        self.sum != self.counted
    }
}

/// One record's part.
#[derive(Clone, PartialEq, Eq)]
pub struct RecordPart {
    /// The provider's id of it.
    pub id: RecordId,
    /// Who reported it.
    pub provider: PartyId,
    /// What kind of information it is.
    pub indicator: IndicatorCode,
    /// The day on which it happened.
    pub occurred_on: Date,
    /// How many units, where the indicator has a unit.
    pub quantity: Option<u32>,
    /// What it gives on this day by its age, in hundredths, whether it counts or not; 0 where the model does not name it.
    pub points: i64,
    /// Full years since it happened.
    pub full_years: usize,
    /// The weight in percent that follows from them; 0 where the model does not name its indicator.
    pub weight: i64,
    /// Whether it counts, and why not.
    pub counting: Counting,
    /// The first day on which it counts, for one that counts on some day.
    pub counts_from: Option<Date>,
    /// The first day on which it does not count any more, for one that counts on some day.
    pub counts_until: Option<Date>,
    /// The score is at most this while it counts, where the model says so.
    pub limits_score_to: Option<i64>,
}

impl std::fmt::Debug for RecordPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecordPart(..)")
    }
}

impl RecordPart {
    /// Its points in whole points, rounded toward zero.
    pub fn whole_points(&self) -> i64 {
        self.points / 100
    }
}

/// Whether a record counts on a day, and why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// It is in the sum.
    Counts,
    /// It happens later.
    NotYet,
    /// Its validity is over.
    Ended,
    /// The city has ended its indicator.
    IndicatorEnded,
    /// A repair took it out.
    Repaired,
    /// Its provider withdrew it, or an objection to it was upheld.
    Withdrawn,
    /// An objection to it is open.
    Frozen,
    /// The model in force does not name its indicator.
    NotInModel,
    /// It counts, but its indicator takes only the one furthest from zero, and that is another.
    NotHighest,
    /// It counts, but its indicator takes only the latest one, and that is another.
    NotLatest,
}

impl Counting {
    /// The code used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counts => "counts",
            Self::NotYet => "not-yet",
            Self::Ended => "ended",
            Self::IndicatorEnded => "indicator-ended",
            Self::Repaired => "repaired",
            Self::Withdrawn => "withdrawn",
            Self::Frozen => "frozen",
            Self::NotInModel => "not-in-model",
            Self::NotHighest => "not-highest",
            Self::NotLatest => "not-latest",
        }
    }
}

/// Something that would raise the score.
#[derive(Clone, PartialEq, Eq)]
pub enum Suggestion {
    /// One more record of an indicator, today.
    Earn {
        /// Which indicator.
        indicator: IndicatorCode,
        /// How many units, where the indicator has a unit: as many as the model gives its points for.
        quantity: Option<i64>,
        /// What the sum gains after cap and dimension, in hundredths.
        gain: i64,
    },
    /// A record against the person stops counting by itself.
    Outlast {
        /// Whose record.
        provider: PartyId,
        /// Which record.
        record: RecordId,
        /// Of which indicator.
        indicator: IndicatorCode,
        /// The first day without it.
        ends_on: Date,
        /// What the score would gain today without it, in hundredths.
        gain: i64,
    },
}

impl std::fmt::Debug for Suggestion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Suggestion(..)")
    }
}

impl Suggestion {
    /// What is gained, in hundredths of a point.
    pub fn gain(&self) -> i64 {
        match self {
            Self::Earn { gain, .. } | Self::Outlast { gain, .. } => *gain,
        }
    }
}

/// Explains the outcome of `evaluate` for the same arguments.
pub fn explain(person: &Person, records: &[Held], catalogue: &Catalogue, model: &Model, on: Date) -> Explanation {
    let tally = Tally::new(records, catalogue, model);
    let sums = tally.on(on);
    let mut explanation = Explanation {
        day: on,
        outcome: Outcome { status: status(person, on), score: None, grade: None },
        model: model.name(),
        base: model.base,
        total: sums.total,
        held_by: None,
        dimensions: Vec::new(),
        records: records.iter().enumerate().map(|(index, held)| part(&tally, index, held, catalogue, on)).collect(),
        next_change: None,
        would_raise: Vec::new(),
    };
    match explanation.outcome.status {
        Status::UnderAge => explanation.next_change = Some(birthday(person)),
        Status::NotResident | Status::NoFullCapacity => {}
        Status::Scored => {
            explanation.outcome = super::scored(model, sums.score);
            explanation.held_by = held_by(model, &sums);
            explanation.dimensions = dimensions(&tally, &sums, on);
            explanation.next_change = tally.next_change(on);
            explanation.would_raise = would_raise(&tally, &sums, records, catalogue, on);
        }
    }
    explanation
}

fn held_by(model: &Model, sums: &Sums) -> Option<ScoreHold> {
    let whole = sums.total.div_euclid(100);
    match sums.limit {
        Some(limit) if whole.min(model.ceiling).max(model.floor) > limit => Some(ScoreHold::Limit(limit)),
        _ if whole > model.ceiling => Some(ScoreHold::Ceiling),
        _ if whole < model.floor => Some(ScoreHold::Floor),
        _ => None,
    }
}

fn dimensions(tally: &Tally, sums: &Sums, on: Date) -> Vec<DimensionSum> {
    let of = |code: &DimensionCode| {
        let groups = tally.groups.iter().filter(|group| group.rule.dimension == *code);
        let sums = groups.map(|group| (group, group.on(on))).filter(|(_, found)| found.records > 0);
        sums.map(|(group, found)| IndicatorSum {
            code: group.code.clone(),
            count: group.rule.count,
            records: found.records,
            sum: found.sum,
            counted: found.held,
            cap: group.rule.cap,
        })
        .collect()
    };
    let dimension = |((code, dimension), sum): ((&DimensionCode, &crate::model::Dimension), &i64)| {
        let (sum, counted) = (*sum, super::held(dimension, *sum));
        DimensionSum {
            code: code.clone(),
            sum,
            counted,
            held_by: match sum.cmp(&counted) {
                std::cmp::Ordering::Greater => Some(DimensionHold::MaxGain),
                std::cmp::Ordering::Less => Some(DimensionHold::MaxLoss),
                std::cmp::Ordering::Equal => None,
            },
            max_gain: dimension.max_gain,
            max_loss: dimension.max_loss,
            indicators: of(code),
        }
    };
    tally.model.dimensions.iter().zip(&sums.dimensions).map(dimension).collect()
}

fn part(tally: &Tally, index: usize, held: &Held, catalogue: &Catalogue, on: Date) -> RecordPart {
    let record = &held.record;
    let rule = tally.model.rules.get(&record.indicator);
    let indicator = catalogue.get(record.indicator.as_str());
    let period = indicator.and_then(|indicator| period(held, indicator)).filter(|period| period.from < period.until);
    let years = full_years(record.occurred_on, on.max(record.occurred_on));
    RecordPart {
        id: record.id.clone(),
        provider: record.provider.clone(),
        indicator: record.indicator.clone(),
        occurred_on: record.occurred_on,
        quantity: record.quantity,
        points: rule.map_or(0, |rule| hundredths(rule, record.quantity, years)),
        full_years: years,
        weight: rule.map_or(0, |rule| rule.weight(years)),
        counting: counting(tally, index, held, rule.zip(indicator), on),
        counts_from: period.map(|period| period.from),
        counts_until: period.map(|period| period.until),
        limits_score_to: rule.and_then(|rule| rule.limits_score_to),
    }
}

fn counting(tally: &Tally, index: usize, held: &Held, known: Option<(&Rule, &Indicator)>, on: Date) -> Counting {
    if held.withdrawn {
        return Counting::Withdrawn;
    }
    if held.frozen {
        return Counting::Frozen;
    }
    let Some((rule, indicator)) = known else { return Counting::NotInModel };
    let Some(Period { from, until, end }) = period(held, indicator) else { return Counting::Withdrawn };
    if until <= on {
        return match end {
            End::Repaired => Counting::Repaired,
            End::IndicatorEnded => Counting::IndicatorEnded,
            End::Ended => Counting::Ended,
        };
    }
    if on < from {
        return Counting::NotYet;
    }
    let group = tally.groups.iter().find(|group| *group.code == held.record.indicator);
    match (rule.count, group.and_then(|group| group.on(on).chosen)) {
        (Count::Highest, Some(chosen)) if chosen != index => Counting::NotHighest,
        (Count::Latest, Some(chosen)) if chosen != index => Counting::NotLatest,
        _ => Counting::Counts,
    }
}

fn would_raise(tally: &Tally, sums: &Sums, records: &[Held], catalogue: &Catalogue, on: Date) -> Vec<Suggestion> {
    let mut found: Vec<(i64, Suggestion)> = Vec::new();
    let mut try_out = |changed: &Tally, suggest: &dyn Fn(i64) -> Suggestion| {
        let after = changed.on(on);
        // A sum that grows by less than a point still helps; one that a limit or the ceiling holds does not.
        let held = after.limit.is_some_and(|limit| after.score >= limit) || after.score >= tally.model.ceiling;
        let score_gain = after.score - sums.score;
        // What lies below the floor is made up for before anything shows.
        let shown = |total: i64| total.max(tally.model.floor * 100);
        let gain = if held { score_gain * 100 } else { (shown(after.total) - shown(sums.total)).max(score_gain * 100) };
        if score_gain > 0 || (score_gain == 0 && !held && gain > 0) {
            found.push((score_gain, suggest(gain)));
        }
    };
    for (code, rule) in tally.model.rules.iter().filter(|(_, rule)| rule.points > 0) {
        let Some(indicator) = catalogue.get(code.as_str()).filter(|indicator| may_be_earned(indicator, on)) else {
            continue;
        };
        let quantity = indicator.unit.as_ref().map(|_| rule.per);
        let units = quantity.map(|units| u32::try_from(units).unwrap_or(u32::MAX));
        let item =
            Item { index: usize::MAX, period: Period { from: on, until: Date::MAX, end: End::Ended }, quantity: units };
        let mut changed = tally.clone();
        match changed.groups.iter_mut().find(|group| group.code == code) {
            Some(group) => group.items.push(item),
            None => changed.groups.push(Group { code, rule, items: vec![item] }),
        }
        try_out(&changed, &|gain| Suggestion::Earn { indicator: code.clone(), quantity, gain });
    }
    for (at, group) in tally.groups.iter().enumerate() {
        for (place, item) in group.items.iter().enumerate().filter(|(_, item)| item.counts(on)) {
            let against = item.hundredths(group.rule, on) < 0 || group.rule.limits_score_to.is_some();
            let Some(held) = records.get(item.index).filter(|_| against) else { continue };
            let mut changed = tally.clone();
            if let Some(group) = changed.groups.get_mut(at) {
                group.items.remove(place);
            }
            try_out(&changed, &|gain| Suggestion::Outlast {
                provider: held.record.provider.clone(),
                record: held.record.id.clone(),
                indicator: group.code.clone(),
                ends_on: item.period.until,
                gain,
            });
        }
    }
    // A stable sort by gain alone: equal ones keep the order of their codes, whatever order the records came in.
    found.sort_by_key(|(score_gain, suggestion)| std::cmp::Reverse((*score_gain, suggestion.gain())));
    found.into_iter().take(SUGGESTIONS_MAX).map(|(_, suggestion)| suggestion).collect()
}

/// What a person can do something about: not what courts and offices find, nor what the city has ended.
fn may_be_earned(indicator: &Indicator, on: Date) -> bool {
    let decided_elsewhere = matches!(
        indicator.category,
        Category::Judicial | Category::Administrative | Category::AbnormalOperation | Category::SeriousDishonesty
    );
    !decided_elsewhere && indicator.counts_until.is_none_or(|day| on < day)
}
