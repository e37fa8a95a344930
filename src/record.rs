//! Records: what a provider reports about a person, and what has happened to it since.
//!
//! A [`Record`] is one accepted version of one `(provider, id)`. Repair and withdrawal belong to
//! that pair and outlive a replacement, `frozen` belongs to the version; [`Held`] carries both.
//! Whether a record counts, and how much, is `score`'s to say.

use std::fmt;

use jiff::civil::Date;
use serde_json::{Map, Value, json};

use crate::code::{IndicatorCode, PartyId, RecordId};
use crate::person::{IdType, Identity, Name};

/// One accepted version of a provider's record.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// The provider's own id of it; unique within the provider.
    pub id: RecordId,
    /// Who reported it.
    pub provider: PartyId,
    /// What kind of information it is; in the catalogue when it was accepted.
    pub indicator: IndicatorCode,
    /// About whom.
    pub identity: Identity,
    /// The person's name as the provider wrote it.
    pub name: Name,
    /// The day on which it happened.
    pub occurred_on: Date,
    /// The day from which it does not count any more, where its sender said one.
    pub valid_until: Option<Date>,
    /// How many units, for an indicator that has a unit.
    pub quantity: Option<u32>,
    /// The person's consent to the collection, for a market record.
    pub consent_ref: Option<String>,
    /// What the provider adds for people to read.
    pub detail: Option<String>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({}, {}, ..)", self.provider, self.indicator)
    }
}

/// What a repair does to a record (Articles 16 and 23).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// The record does not count from `on` on.
    Exclude {
        /// The day of the repair.
        on: Date,
    },
    /// The record does not count from the later of the two days on.
    Shorten {
        /// The day of the repair.
        on: Date,
        /// The day to which the record was shortened.
        until: Date,
    },
}

impl Repair {
    /// The first day on which the repaired record does not count.
    pub fn out_from(self) -> Date {
        match self {
            Self::Exclude { on } => on,
            Self::Shorten { on, until } => on.max(until),
        }
    }
}

/// A record and what has happened to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Held {
    /// The last accepted version.
    pub record: Record,
    /// The repair of the `(provider, id)`.
    pub repair: Option<Repair>,
    /// Withdrawn, or an objection to it upheld: counts on no day.
    pub withdrawn: bool,
    /// What its provider said when it withdrew it.
    pub withdrawn_because: Option<String>,
    /// The first objection to this version is open: does not count meanwhile.
    pub frozen: bool,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { record, repair, withdrawn, frozen, .. } = self;
        write!(f, "Held({record:?}, {repair:?}, withdrawn {withdrawn}, frozen {frozen})")
    }
}

impl Held {
    /// A record to which nothing has happened.
    pub fn new(record: Record) -> Self {
        Self { record, repair: None, withdrawn: false, withdrawn_because: None, frozen: false }
    }

    /// This line as the next version of what `earlier` holds of the same `(provider, id)`: repair and withdrawal
    /// outlive the replacement, said again or not; a newer repair takes the older one's place.
    pub fn replacing(mut self, earlier: &Held) -> Self {
        self.repair = self.repair.or(earlier.repair);
        self.withdrawn |= earlier.withdrawn;
        self.withdrawn_because = self.withdrawn_because.or_else(|| earlier.withdrawn_because.clone());
        self
    }

    /// The line of the record files that `evaluate` reads and `export` gives.
    pub fn to_json(&self) -> Value {
        let record = &self.record;
        let mut person = Map::new();
        if record.identity.id_type() != IdType::ResidentId {
            person.insert("id_type".into(), record.identity.id_type().as_str().into());
        }
        person.insert("id_number".into(), record.identity.number().into());
        person.insert("name".into(), record.name.as_str().into());
        let mut line = Map::new();
        line.insert("id".into(), record.id.as_str().into());
        line.insert("provider".into(), record.provider.as_str().into());
        line.insert("indicator".into(), record.indicator.as_str().into());
        line.insert("person".into(), person.into());
        line.insert("occurred_on".into(), record.occurred_on.to_string().into());
        if let Some(day) = record.valid_until {
            line.insert("valid_until".into(), day.to_string().into());
        }
        if let Some(quantity) = record.quantity {
            line.insert("quantity".into(), quantity.into());
        }
        if let Some(reference) = &record.consent_ref {
            line.insert("consent_ref".into(), reference.as_str().into());
        }
        if let Some(detail) = &record.detail {
            line.insert("detail".into(), detail.as_str().into());
        }
        match self.repair {
            None => {}
            Some(Repair::Exclude { on }) => {
                line.insert("repair".into(), json!({"on": on.to_string(), "effect": "exclude"}));
            }
            Some(Repair::Shorten { on, until }) => {
                line.insert(
                    "repair".into(),
                    json!({"on": on.to_string(), "effect": "shorten", "until": until.to_string()}),
                );
            }
        }
        for (name, said) in [("withdrawn", self.withdrawn), ("frozen", self.frozen)] {
            if said {
                line.insert(name.into(), true.into());
            }
        }
        line.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn held() -> Held {
        Held::new(Record {
            id: RecordId::parse("COURT-1").unwrap(),
            provider: PartyId::parse("yx-court").unwrap(),
            indicator: IndicatorCode::parse("judgment-unperformed").unwrap(),
            identity: Identity::parse(IdType::ResidentId, "530499199001010015", date(2026, 11, 24)).unwrap(),
            name: Name::parse("王芳").unwrap(),
            occurred_on: date(2025, 3, 1),
            valid_until: None,
            quantity: None,
            consent_ref: None,
            detail: Some("who and what".into()),
        })
    }

    #[test]
    fn repair_and_withdrawal_outlive_a_replacement_and_frozen_does_not() {
        let repair = Repair::Exclude { on: date(2026, 1, 1) };
        let earlier = Held { repair: Some(repair), withdrawn: true, frozen: true, ..held() };
        let next = held().replacing(&earlier);
        assert_eq!((next.repair, next.withdrawn, next.frozen), (Some(repair), true, false));
        let newer = Repair::Shorten { on: date(2026, 2, 1), until: date(2026, 1, 1) };
        assert_eq!(Held { repair: Some(newer), ..held() }.replacing(&earlier).repair, Some(newer));
        assert_eq!(newer.out_from(), date(2026, 2, 1));
    }

    #[test]
    fn debug_shows_nothing_personal() {
        let shown = format!("{:?}", held());
        assert!(
            !shown.contains("1990") && !shown.contains("王芳") && !shown.contains("who") && !shown.contains("COURT")
        );
    }
}
