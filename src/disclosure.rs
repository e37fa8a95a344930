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

type Stored = (u8, Option<u16>, Option<String>, Date, Option<Date>, Vec<u8>);

const STATUSES: [Status; 4] = [Status::Scored, Status::UnderAge, Status::NotResident, Status::NoFullCapacity];

impl Standing {
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
            self.rules.to_vec(),
        );
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    /// Reads the opened bytes.
    pub fn decode(opened: &[u8]) -> Result<Self, StandingCellError> {
        let (status, score, grade, day, next_change, rules): Stored =
            serde_json::from_slice(opened).map_err(|_| StandingCellError)?;
        Ok(Self {
            outcome: Outcome {
                status: STATUSES.get(usize::from(status)).copied().ok_or(StandingCellError)?,
                score,
                grade: grade.map(|grade| GradeCode::parse(&grade)).transpose().map_err(|_| StandingCellError)?,
            },
            day,
            next_change,
            rules: rules.try_into().map_err(|_| StandingCellError)?,
        })
    }
}
