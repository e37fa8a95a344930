//! Intake: a line that a provider, the registrar or a file sends becomes a record, a person, or an error.
//!
//! Every feed ends here: the API's NDJSON, files, and spreadsheets, whose rows are turned into the
//! same lines first. Pure. Invariants: a line's first mistake is reported in the order form,
//! prohibited item, fields, person, dates, indicator, provider, the rest; no message repeats a value
//! of the line, so none carries personal data; nothing is guessed and nothing is cut to fit.
//! What is stored already, and whether it changes anything, this module does not know.

use std::fmt;

use jiff::civil::Date;

use crate::catalogue::{Catalogue, Category};
use crate::code::{CODE_CHARS_MAX, IndicatorCode, PartyId, RecordId};
use crate::market;
use crate::person::{BirthError, IdType, Identity, IdentityError, Name, NameError, Person, possible_birth};
use crate::prohibited::Prohibited;
use crate::record::{Held, Record, Repair};

mod fields;
#[cfg(test)]
mod tests;
mod tree;

use fields::Fields;
pub(crate) use fields::shown;
use tree::{Number, Tree};

/// The most bytes a line has, without its end.
pub const LINE_BYTES_MAX: usize = 16 * 1024;
/// The most characters a record's `detail`, or its `consent_ref`, has.
pub const DETAIL_CHARS_MAX: usize = 1_000;
/// The largest quantity of a record.
pub const QUANTITY_MAX: u32 = 1_000_000;

/// What is wrong with a line, as the contract names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LineCode {
    /// No JSON object, a key said twice, a wrong type, or characters that do not belong.
    Malformed,
    /// A field that a line of this kind does not have.
    UnknownField,
    /// A field that must be there is not.
    MissingField,
    /// The identity number's last character does not follow from the others.
    WrongCheckDigit,
    /// A day that does not exist, lies in the future, contradicts the number, or an end not after its beginning.
    ImpossibleDate,
    /// The catalogue has no such indicator.
    UnknownIndicator,
    /// This provider may not report this, or the caller is not the provider.
    ProviderNotAllowed,
    /// A market record without the person's consent.
    ConsentRequired,
    /// The indicator has a unit and the record no quantity.
    QuantityRequired,
    /// The record has a quantity and the indicator no unit.
    QuantityNotAllowed,
    /// The law forbids to collect it.
    ProhibitedItem,
    /// Beyond a limit; the message says which.
    TooLarge,
}

impl LineCode {
    /// All codes, in the order of the contract.
    pub const ALL: [Self; 12] = [
        Self::Malformed,
        Self::UnknownField,
        Self::MissingField,
        Self::WrongCheckDigit,
        Self::ImpossibleDate,
        Self::UnknownIndicator,
        Self::ProviderNotAllowed,
        Self::ConsentRequired,
        Self::QuantityRequired,
        Self::QuantityNotAllowed,
        Self::ProhibitedItem,
        Self::TooLarge,
    ];

    /// The stable code of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownField => "unknown-field",
            Self::MissingField => "missing-field",
            Self::WrongCheckDigit => "wrong-check-digit",
            Self::ImpossibleDate => "impossible-date",
            Self::UnknownIndicator => "unknown-indicator",
            Self::ProviderNotAllowed => "provider-not-allowed",
            Self::ConsentRequired => "consent-required",
            Self::QuantityRequired => "quantity-required",
            Self::QuantityNotAllowed => "quantity-not-allowed",
            Self::ProhibitedItem => "prohibited-item",
            Self::TooLarge => "too-large",
        }
    }
}

impl fmt::Display for LineCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a line is refused: a code for programs, and a sentence that says what to do, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct LineError {
    /// The stable code.
    pub code: LineCode,
    /// One plain sentence without personal data.
    pub message: String,
}

impl LineError {
    /// An error; `message` must not repeat what stands in the line.
    pub fn new(code: LineCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Where a line comes from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// Reported by this party: its own records only, no future day, nothing of what happened to a record.
    Party(&'a PartyId),
    /// A file of `evaluate` or `export`: any provider that the catalogue names or named, with repair, withdrawal and freeze.
    File,
}

/// What a record is held against.
#[derive(Clone, Copy)]
pub struct RecordRules<'a> {
    /// What may be collected, and by whom.
    pub catalogue: &'a Catalogue,
    /// What may not.
    pub prohibited: &'a Prohibited,
    /// The day in Asia/Shanghai.
    pub today: Date,
    /// Where the line comes from.
    pub source: Source<'a>,
}

const RECORD_FIELDS: &[&str] =
    &["id", "provider", "indicator", "person", "occurred_on", "valid_until", "quantity", "consent_ref", "detail"];
const STATE_FIELDS: &[&str] = &["repair", "withdrawn", "frozen"];
const RECORD_PERSON_FIELDS: &[&str] = &["id_type", "id_number", "name"];
const REPAIR_FIELDS: &[&str] = &["on", "effect", "until"];
const REGISTER_FIELDS: &[&str] = &["id_type", "id_number", "name", "born_on", "resident", "full_capacity"];

/// Reads a line about a record.
pub fn record(line: &[u8], rules: &RecordRules) -> Result<Held, LineError> {
    let tree = tree::object(line)?;
    let fields = Fields::new(&tree, "");
    refuse_prohibited(&tree, rules.prohibited)?;
    let (state, latest) = match rules.source {
        Source::Party(_) => (false, Some(rules.today)),
        Source::File => (true, None),
    };
    let draft = Draft::read(&fields, state, rules.today, latest)?;
    draft.check(rules)?;
    draft.into_held()
}

/// Reads a line of the register.
pub fn person(line: &[u8], today: Date, prohibited: &Prohibited) -> Result<Person, LineError> {
    let tree = tree::object(line)?;
    refuse_prohibited(&tree, prohibited)?;
    registered(&tree, today)
}

/// Reads back what `Held::to_json` wrote of a record that was accepted once; the rules of today are not asked.
pub fn stored_record(line: &[u8]) -> Result<Held, LineError> {
    let tree = tree::object(line)?;
    Draft::read(&Fields::new(&tree, ""), true, Date::MAX, None)?.into_held()
}

/// Reads back what `Person::to_json` wrote of a person who was accepted once.
pub fn stored_person(line: &[u8]) -> Result<Person, LineError> {
    registered(&tree::object(line)?, Date::MAX)
}

fn registered(tree: &[(String, Tree)], today: Date) -> Result<Person, LineError> {
    let fields = Fields::new(tree, "");
    fields.only(&[REGISTER_FIELDS])?;
    let who = Who::read(&fields)?;
    let born = fields.optional_text("born_on")?;
    let (resident, full_capacity) = (fields.flag("resident")?, fields.flag("full_capacity")?);
    if who.passport() && born.is_none() {
        return Err(LineError::new(
            LineCode::MissingField,
            "`born_on` is missing: for a passport the date of birth must be sent",
        ));
    }
    let (identity, name) = who.check(today)?;
    let born = born.map(|text| fields::day("born_on", text)).transpose()?;
    let impossible = |message: &str| Err(LineError::new(LineCode::ImpossibleDate, message));
    let born_on = match (born, identity.birth_date()) {
        (Some(said), Some(birth)) if said != birth => {
            return impossible("`born_on` is not the date in the identity number: correct it or leave it out");
        }
        (Some(day), _) | (None, Some(day)) => day,
        (None, None) => return impossible("`born_on` is missing"),
    };
    match possible_birth(born_on, today) {
        Err(BirthError::Future) => impossible("`born_on` lies in the future: correct it"),
        Err(BirthError::TooEarly) => impossible("`born_on` lies before 1900: correct it"),
        Ok(()) => Ok(Person { identity, name, born_on, resident, full_capacity }),
    }
}

fn refuse_prohibited(tree: &[(String, Tree)], prohibited: &Prohibited) -> Result<(), LineError> {
    let indicator = tree.iter().filter(|(key, _)| key == "indicator").find_map(|(_, value)| match value {
        Tree::Text(code) => prohibited.finds(code),
        _ => None,
    });
    if let Some(item) = indicator {
        return Err(LineError::new(
            LineCode::ProhibitedItem,
            format!(
                "the indicator is the prohibited item `{}`, which the law forbids to collect: do not send it",
                item.code
            ),
        ));
    }
    let known = |key: &str| {
        [RECORD_FIELDS, STATE_FIELDS, RECORD_PERSON_FIELDS, REPAIR_FIELDS, REGISTER_FIELDS]
            .iter()
            .any(|f| f.contains(&key))
    };
    let added = tree::keys(tree).filter(|key| !known(key)).find_map(|key| prohibited.finds(key));
    added.map_or(Ok(()), |item| {
        Err(LineError::new(
            LineCode::ProhibitedItem,
            format!("a field is the prohibited item `{}`, which the law forbids to collect: do not send it", item.code),
        ))
    })
}

/// Who a line is about, as texts of which nothing is checked yet.
struct Who<'a> {
    id_type: Option<&'a str>,
    number: &'a str,
    name: &'a str,
}

impl<'a> Who<'a> {
    fn read(fields: &Fields<'a>) -> Result<Self, LineError> {
        Ok(Self {
            id_type: fields.optional_text("id_type")?,
            number: fields.text("id_number")?,
            name: fields.text("name")?,
        })
    }

    fn passport(&self) -> bool {
        self.id_type == Some(IdType::Passport.as_str())
    }

    fn check(&self, today: Date) -> Result<(Identity, Name), LineError> {
        let id_type = match self.id_type {
            None => IdType::ResidentId,
            Some(code) => IdType::parse(code).ok_or_else(|| {
                LineError::new(
                    LineCode::Malformed,
                    "`id_type` must be `resident-id` or `passport`, or left out for `resident-id`",
                )
            })?,
        };
        let identity = Identity::parse(id_type, self.number, today).map_err(|error| {
            let code = match error {
                IdentityError::Malformed(_) => LineCode::Malformed,
                IdentityError::WrongCheckDigit => LineCode::WrongCheckDigit,
                IdentityError::ImpossibleDate(_) => LineCode::ImpossibleDate,
            };
            LineError::new(code, error.to_string())
        })?;
        let name = Name::parse(self.name).map_err(|error| {
            let code = match error {
                NameError::TooLong => LineCode::TooLarge,
                NameError::Empty | NameError::Malformed => LineCode::Malformed,
            };
            LineError::new(code, error.to_string())
        })?;
        Ok((identity, name))
    }
}

/// A record whose fields, person and dates are right, and whose indicator and provider are still texts.
struct Draft<'a> {
    id: RecordId,
    provider: &'a str,
    indicator: &'a str,
    identity: Identity,
    name: Name,
    occurred_on: Date,
    valid_until: Option<Date>,
    quantity: Option<u32>,
    consent_ref: Option<&'a str>,
    detail: Option<&'a str>,
    repair: Option<Repair>,
    withdrawn: bool,
    frozen: bool,
}

impl<'a> Draft<'a> {
    fn read(fields: &Fields<'a>, state: bool, today: Date, latest: Option<Date>) -> Result<Self, LineError> {
        fields.only(if state { &[RECORD_FIELDS, STATE_FIELDS] } else { &[RECORD_FIELDS] })?;
        let about = fields.object("person")?;
        about.only(&[RECORD_PERSON_FIELDS])?;
        let repair = fields.optional_object("repair")?;
        if let Some(repair) = &repair {
            repair.only(&[REPAIR_FIELDS])?;
        }
        let id = record_id(fields.text("id")?)?;
        let (provider, indicator) = (fields.text("provider")?, fields.text("indicator")?);
        let who = Who::read(&about)?;
        let (occurred_on, valid_until) = (fields.text("occurred_on")?, fields.optional_text("valid_until")?);
        let quantity = fields.number("quantity")?.map(quantity).transpose()?;
        let consent_ref = fields.remark("consent_ref")?;
        let detail = fields.remark("detail")?;
        let (withdrawn, frozen) = (fields.optional_flag("withdrawn")?, fields.optional_flag("frozen")?);
        let repair = repair.map(|repair| RepairTexts::read(&repair)).transpose()?;

        let (identity, name) = who.check(today)?;

        let occurred_on = fields::day("occurred_on", occurred_on)?;
        let valid_until = valid_until.map(|text| fields::day("valid_until", text)).transpose()?;
        let impossible = |message: &str| Err(LineError::new(LineCode::ImpossibleDate, message));
        if latest.is_some_and(|latest| occurred_on > latest) {
            return impossible("`occurred_on` lies in the future: send the record when it has happened");
        }
        if valid_until.is_some_and(|end| end <= occurred_on) {
            return impossible("`valid_until` must be a later day than `occurred_on`: correct one of them");
        }
        let repair = repair.map(|repair| repair.check()).transpose()?;
        Ok(Self {
            id,
            provider,
            indicator,
            identity,
            name,
            occurred_on,
            valid_until,
            quantity,
            consent_ref,
            detail,
            repair,
            withdrawn,
            frozen,
        })
    }

    fn check(&self, rules: &RecordRules) -> Result<(), LineError> {
        let refuse = |code, message: &str| Err(LineError::new(code, message));
        let Some(indicator) = rules.catalogue.get(self.indicator) else { return Err(unknown_indicator()) };
        if let Source::Party(caller) = rules.source
            && caller.as_str() != self.provider
        {
            return refuse(LineCode::ProviderNotAllowed, "`provider` must be your own id: correct it");
        }
        let former: &[PartyId] = match rules.source {
            Source::Party(_) => &[],
            // What somebody reported before the provider changed still counts, and so is in exports.
            Source::File => &indicator.former_providers,
        };
        if !indicator.providers.iter().chain(former).any(|provider| provider.as_str() == self.provider) {
            return Err(provider_not_allowed());
        }
        if indicator.category == Category::Market && self.consent_ref.is_none() {
            return refuse(
                LineCode::ConsentRequired,
                "a market record needs the person's consent: send its reference in `consent_ref`",
            );
        }
        // Files may be of a city that keeps other references; what is reported here must be found again.
        if indicator.category == Category::Market
            && matches!(rules.source, Source::Party(_))
            && !self.consent_ref.is_some_and(market::is_reference)
        {
            return refuse(
                LineCode::ConsentRequired,
                "`consent_ref` must be the id of a consent that the person gave here (`mc-…`) or `paper:` and the number of the form",
            );
        }
        match (&indicator.unit, self.quantity) {
            (Some(_), None) => {
                refuse(LineCode::QuantityRequired, "this indicator has a unit: send how many units in `quantity`")
            }
            (None, Some(_)) => refuse(LineCode::QuantityNotAllowed, "this indicator has no unit: leave `quantity` out"),
            _ => Ok(()),
        }
    }

    fn into_held(self) -> Result<Held, LineError> {
        Ok(Held {
            record: Record {
                id: self.id,
                provider: PartyId::parse(self.provider).map_err(|_| provider_not_allowed())?,
                indicator: IndicatorCode::parse(self.indicator).map_err(|_| unknown_indicator())?,
                identity: self.identity,
                name: self.name,
                occurred_on: self.occurred_on,
                valid_until: self.valid_until,
                quantity: self.quantity,
                consent_ref: self.consent_ref.map(str::to_owned),
                detail: self.detail.map(str::to_owned),
            },
            repair: self.repair,
            withdrawn: self.withdrawn,
            withdrawn_because: None,
            frozen: self.frozen,
        })
    }
}

fn unknown_indicator() -> LineError {
    LineError::new(
        LineCode::UnknownIndicator,
        "the catalogue has no such indicator: send one of the codes that /v1/catalogue lists",
    )
}

fn provider_not_allowed() -> LineError {
    LineError::new(
        LineCode::ProviderNotAllowed,
        "the catalogue does not let this provider report this indicator: send it as one of the indicator's providers",
    )
}

fn record_id(text: &str) -> Result<RecordId, LineError> {
    if text.chars().count() > CODE_CHARS_MAX {
        return Err(LineError::new(
            LineCode::TooLarge,
            format!("`id` has more than {CODE_CHARS_MAX} characters: shorten it"),
        ));
    }
    RecordId::parse(text).map_err(|_| {
        LineError::new(
            LineCode::Malformed,
            format!("`id` must have 1 to {CODE_CHARS_MAX} characters, no blank at either end and no control character"),
        )
    })
}

fn quantity(number: Number) -> Result<u32, LineError> {
    match number {
        Number::Whole(n) if n > u64::from(QUANTITY_MAX) => Err(fields::quantity_too_large()),
        // What no 64-bit number holds reaches us as a fraction; it is too large all the same.
        Number::Other(n) if n > f64::from(QUANTITY_MAX) && n.fract() == 0.0 => Err(fields::quantity_too_large()),
        Number::Whole(n) if n > 0 => u32::try_from(n).map_err(|_| fields::quantity_too_large()),
        Number::Whole(_) | Number::Other(_) => Err(fields::quantity_malformed()),
    }
}

/// A repair, of which nothing is checked yet.
struct RepairTexts<'a> {
    on: &'a str,
    /// Of `shorten`.
    until: Option<&'a str>,
}

impl<'a> RepairTexts<'a> {
    fn read(fields: &Fields<'a>) -> Result<Self, LineError> {
        let (on, effect, until) = (fields.text("on")?, fields.text("effect")?, fields.optional_text("until")?);
        match (effect, until) {
            ("exclude", None) => Ok(Self { on, until: None }),
            ("shorten", Some(until)) => Ok(Self { on, until: Some(until) }),
            ("shorten", None) => Err(LineError::new(
                LineCode::MissingField,
                "`repair.until` is missing: say the day to which `shorten` shortens the record",
            )),
            ("exclude", Some(_)) => {
                Err(LineError::new(LineCode::Malformed, "`repair.until` belongs to `shorten` only: leave it out"))
            }
            _ => Err(LineError::new(LineCode::Malformed, "`repair.effect` must be `exclude` or `shorten`")),
        }
    }

    fn check(&self) -> Result<Repair, LineError> {
        let on = fields::day("repair.on", self.on)?;
        Ok(match self.until {
            None => Repair::Exclude { on },
            Some(until) => Repair::Shorten { on, until: fields::day("repair.until", until)? },
        })
    }
}
