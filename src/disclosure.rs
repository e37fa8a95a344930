//! What an answer may say: which cell between the city's cuts a person is in, and nothing finer.
//!
//! Pure. INVARIANT (few cuts): everything told to relying parties is computed from a [`DayCell`], a
//! count of the city's cuts at or below the score, so all of them together learn at most that.

use jiff::civil::Date;
use serde_json::{Value, json};

use crate::code::GradeCode;
use crate::model::Model;
use crate::scenario::Question;
use crate::score::{Outcome, Status};

/// How many of the city's cuts a person has reached on a day; 0 too where there is no score.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DayCell(u8);

impl std::fmt::Debug for DayCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DayCell(..)")
    }
}

impl DayCell {
    /// The cell of a score between ascending cuts.
    pub fn of(score: Option<u16>, cuts: &[u16]) -> Self {
        let reached = score.map_or(0, |score| cuts.iter().filter(|cut| score >= **cut).count());
        Self(u8::try_from(reached).unwrap_or(u8::MAX))
    }

    /// The byte that the day's cell is kept as.
    pub fn to_byte(self) -> u8 {
        self.0
    }

    /// Reads that byte.
    pub fn from_byte(byte: u8) -> Self {
        Self(byte)
    }
}

/// What to tell, and the words for it. A withheld answer carries words of the same kind, so that the
/// work done with them is the same; they are thrown away.
#[derive(Clone, PartialEq)]
pub struct Decision {
    /// Whether the question is met.
    pub met: bool,
    /// The attestation's `met` claim.
    pub claim: Value,
}

impl std::fmt::Debug for Decision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decision(..)")
    }
}

/// Decides a question from the day's cell.
pub fn decide(cell: DayCell, question: &Question, cuts: &[u16], model: &Model) -> Decision {
    let grade_min = |code: &GradeCode| {
        model.grades.iter().find(|grade| grade.code == *code).and_then(|grade| u16::try_from(grade.min).ok())
    };
    // Cells count from 1 at the lowest cut; a cut that is not the city's is never met.
    let needed = |cut: Option<u16>| {
        let place = cut.and_then(|cut| cuts.iter().position(|known| *known == cut));
        place.and_then(|place| u8::try_from(place + 1).ok()).unwrap_or(u8::MAX)
    };
    match question {
        Question::ScoreAtLeast(cut) => Decision { met: cell.0 >= needed(Some(*cut)), claim: question.to_json() },
        Question::GradeAtLeast(grade) => {
            Decision { met: cell.0 >= needed(grade_min(grade)), claim: question.to_json() }
        }
        Question::GradeNamed => {
            let reached = usize::from(cell.0.max(1)) - 1;
            let cut = cuts.get(reached).copied().unwrap_or(u16::MAX);
            let grade = model.grade(i64::from(cut));
            Decision { met: cell.0 >= 1, claim: json!({ "grade": grade.as_str() }) }
        }
    }
}

/// A person's score as reports, the register and models leave it.
#[derive(Clone, PartialEq, Eq)]
pub struct Standing {
    /// Status, score and grade.
    pub outcome: Outcome,
    /// The day for which it was computed.
    pub day: Date,
    /// The first later day on which it may differ; nothing else than a report changes it before.
    pub next_change: Option<Date>,
    /// The digest of the catalogue and model that it was computed by.
    pub rules: [u8; 32],
    /// The version of the cell that wrote its row in the index of what is due; 0 where there is none.
    pub row: u64,
    /// How the score changed lately, oldest first: what the person is told.
    pub changes: Vec<ScoreChange>,
}

/// Why a score changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Records came, or came anew.
    Records,
    /// The register says something else.
    Register,
    /// A provider withdrew a record.
    Withdrawal,
    /// The person let a provider report, or took that back.
    MarketConsent,
    /// Days passed: a record began or ceased to count, weighs less or more, or the person came of age.
    Days,
    /// The catalogue or the model changed.
    Rules,
    /// The store was restored, and consents to market information ended with that.
    Restore,
}

const CAUSES: [(Cause, &str); 7] = [
    (Cause::Records, "records"),
    (Cause::Register, "register"),
    (Cause::Withdrawal, "withdrawal"),
    (Cause::MarketConsent, "market-consent"),
    (Cause::Days, "days"),
    (Cause::Rules, "rules"),
    (Cause::Restore, "restore"),
];

impl Cause {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        CAUSES.iter().find(|(cause, _)| *cause == self).map_or("", |(_, word)| word)
    }
}

/// How many changes a standing remembers.
pub const CHANGES_MAX: usize = 6;

/// One change of a score, for its person.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ScoreChange {
    /// The day on which it was seen.
    pub on: Date,
    /// The score before; none where there was none.
    pub from: Option<u16>,
    /// The score after.
    pub to: Option<u16>,
    /// Why.
    pub cause: Cause,
}

impl std::fmt::Debug for ScoreChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScoreChange(..)")
    }
}

impl std::fmt::Debug for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Standing(..)")
    }
}

/// A standing's cell does not read as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a standing's cell has an unknown form")]
pub struct StandingCellError;

type Stored = (u8, Option<u16>, Option<String>, Date, Option<Date>, String, u64, Vec<StoredChange>);
type StoredChange = (Date, Option<u16>, Option<u16>, u8);
/// As builds before the sweep wrote it.
type EarlierStored = (u8, Option<u16>, Option<String>, Date, Option<Date>, Vec<u8>);

const STATUSES: [Status; 4] = [Status::Scored, Status::UnderAge, Status::NotResident, Status::NoFullCapacity];

impl Standing {
    /// A standing that is in no index yet and remembers nothing.
    pub fn new(outcome: Outcome, day: Date, next_change: Option<Date>, rules: [u8; 32]) -> Self {
        Self { outcome, day, next_change, rules, row: 0, changes: Vec::new() }
    }

    /// Remembers what the one before it remembered, and what has changed since.
    pub fn follow(&mut self, before: &Self, cause: Cause) {
        self.changes.clone_from(&before.changes);
        let (from, to) = (before.outcome.score, self.outcome.score);
        if from != to {
            self.changes.push(ScoreChange { on: self.day, from, to, cause });
            self.changes.drain(..self.changes.len().saturating_sub(CHANGES_MAX));
        }
    }

    /// Whether it has to be computed anew on this day or under these rules.
    pub fn due(&self, day: Date, rules: &[u8; 32]) -> bool {
        self.rules != *rules || day < self.day || self.next_change.is_some_and(|next| day >= next)
    }

    /// The bytes to seal.
    pub fn encode(&self) -> Vec<u8> {
        let status = STATUSES.iter().position(|status| *status == self.outcome.status).unwrap_or_default();
        let stored: Stored = (
            u8::try_from(status).unwrap_or_default(),
            self.outcome.score,
            self.outcome.grade.as_ref().map(|grade| grade.as_str().to_owned()),
            self.day,
            self.next_change,
            crate::hex::hex(&self.rules),
            self.row,
            self.changes.iter().map(store_change).collect(),
        );
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    /// Reads the opened bytes.
    pub fn decode(opened: &[u8]) -> Result<Self, StandingCellError> {
        let (status, score, grade, day, next_change, rules, row, changes) = match serde_json::from_slice(opened) {
            Ok((status, score, grade, day, next_change, rules, row, changes)) => {
                let (rules, changes): (String, Vec<StoredChange>) = (rules, changes);
                let changes = changes.into_iter().map(read_change).collect::<Option<Vec<_>>>();
                (
                    status,
                    score,
                    grade,
                    day,
                    next_change,
                    crate::hex::unhex(&rules).unwrap_or_default(),
                    row,
                    changes.ok_or(StandingCellError)?,
                )
            }
            Err(_) => {
                let (status, score, grade, day, next_change, rules): EarlierStored =
                    serde_json::from_slice(opened).map_err(|_| StandingCellError)?;
                (status, score, grade, day, next_change, rules, 0, Vec::new())
            }
        };
        let (status, grade): (u8, Option<String>) = (status, grade);
        Ok(Self {
            outcome: Outcome {
                status: STATUSES.get(usize::from(status)).copied().ok_or(StandingCellError)?,
                score,
                grade: grade.map(|grade| GradeCode::parse(&grade)).transpose().map_err(|_| StandingCellError)?,
            },
            day,
            next_change,
            rules: rules.try_into().map_err(|_| StandingCellError)?,
            row,
            changes,
        })
    }
}

fn store_change(change: &ScoreChange) -> StoredChange {
    let cause = CAUSES.iter().position(|(cause, _)| *cause == change.cause).unwrap_or_default();
    (change.on, change.from, change.to, u8::try_from(cause).unwrap_or_default())
}

fn read_change((on, from, to, cause): StoredChange) -> Option<ScoreChange> {
    let (cause, _) = CAUSES.get(usize::from(cause))?;
    Some(ScoreChange { on, from, to, cause: *cause })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn standing(score: Option<u16>, day: Date) -> Standing {
        let outcome = Outcome { status: Status::Scored, score, grade: GradeCode::parse("good").ok() };
        Standing::new(outcome, day, Some(date(2027, 1, 1)), [7; 32])
    }

    #[test]
    fn a_standing_reads_back_and_so_does_one_of_an_earlier_build() {
        let mut one = standing(Some(650), date(2026, 11, 25));
        one.row = 3;
        for (day, cause) in (1..9).zip(CAUSES.iter().cycle()) {
            let mut next = standing(Some(600 + day), date(2026, 12, i8::try_from(day).unwrap()));
            next.follow(&one, cause.0);
            assert_eq!(next.changes.len(), usize::from(day).min(CHANGES_MAX));
            assert_eq!(next.changes.last().unwrap().from, one.outcome.score);
            let mut same = standing(Some(600 + day), date(2026, 12, 20));
            same.follow(&next, Cause::Days);
            assert_eq!(same.changes, next.changes, "nothing changed");
            assert!(Standing::decode(&next.encode()).unwrap() == next);
            one = next;
        }
        assert!(one.encode().len() < 480, "it stays within one length of a cell");
        let earlier = serde_json::json!([0, 650, "good", "2026-11-25", "2027-01-01", vec![7; 32]]).to_string();
        let earlier = Standing::decode(earlier.as_bytes()).unwrap();
        assert!(earlier == standing(Some(650), date(2026, 11, 25)));
        assert!(Standing::decode(b"[0,650]").is_err());
    }
}
