//! What tables have in common, of text or in a workbook: headings, and rows that become JSON lines.
//!
//! What only tables do is undone here: the forms of dates, 是 and 否, 护照, empty cells. A cell that is none of the forms
//! goes into the line as it is, and `intake` says what is wrong with it.

use std::borrow::Cow;

use super::{FeedError, How, Kind, Mapping};
use crate::intake::{self, LINE_BYTES_MAX, LineCode, LineError};

/// How many unknown headings a message names.
const NAMED_MAX: usize = 5;

/// A field, its heading in Chinese, and whether a table must have its column.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) chinese: &'static str,
    records: Option<bool>,
    register: Option<bool>,
}

const fn field(name: &'static str, chinese: &'static str, records: Option<bool>, register: Option<bool>) -> Field {
    Field { name, chinese, records, register }
}

/// All fields; by kind of file, whether a column is needed.
pub(super) const FIELDS: &[Field] = &[
    field("id", "记录编号", Some(true), None),
    field("provider", "报送单位", Some(true), None),
    field("indicator", "指标代码", Some(true), None),
    field("id_type", "证件类型", Some(false), Some(false)),
    field("id_number", "证件号码", Some(true), Some(true)),
    field("name", "姓名", Some(true), Some(true)),
    field("occurred_on", "发生日期", Some(true), None),
    field("valid_until", "有效期至", Some(false), None),
    field("quantity", "数量", Some(false), None),
    field("consent_ref", "授权编号", Some(false), None),
    field("detail", "detail", Some(false), None),
    field("born_on", "出生日期", None, Some(false)),
    field("resident", "常住人口", None, Some(true)),
    field("full_capacity", "完全民事行为能力", None, Some(true)),
];

impl Field {
    fn needed(&self, kind: Kind) -> Option<bool> {
        match kind {
            Kind::Records => self.records,
            Kind::Register => self.register,
        }
    }

    /// Whether its cells are days.
    pub(super) fn is_day(&self) -> bool {
        matches!(self.name, "occurred_on" | "valid_until" | "born_on")
    }
}

/// What a column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    /// The column of a field.
    Of(&'static Field),
    /// A column that the mapping leaves out.
    LeftOut,
    /// Under no heading.
    Nameless,
}

/// The columns of a table, and how its rows become lines.
pub(super) struct Columns {
    columns: Vec<Column>,
    /// What every row says, as no column does.
    fixed: Vec<(&'static Field, String)>,
    kind: Kind,
    mapping: Option<Mapping>,
}

fn of_kind(kind: Kind) -> impl Iterator<Item = &'static Field> {
    FIELDS.iter().filter(move |field| field.needed(kind).is_some())
}

fn field_of(heading: &str, how: &How<'_>) -> Option<&'static Field> {
    let mapped = how.mapping.and_then(|mapping| mapping.field(heading));
    of_kind(how.kind).find(|field| match mapped {
        Some(name) => field.name == name,
        None => field.name.eq_ignore_ascii_case(heading) || field.chinese == heading,
    })
}

/// How many of a row's cells are headings.
pub(super) fn known<'a>(row: impl Iterator<Item = &'a str>, how: &How<'_>) -> usize {
    row.filter(|cell| field_of(cell.trim(), how).is_some()).count()
}

impl Columns {
    /// Reads the headings.
    pub(super) fn read(headings: &[&str], how: &How<'_>) -> Result<Self, FeedError> {
        let headings: Vec<&str> = headings.iter().map(|heading| heading.trim()).collect();
        if known(headings.iter().copied(), how) == 0 {
            return Err(FeedError::NoKnownHeading);
        }
        let columns: Vec<Option<Column>> =
            headings.iter().map(|heading| column(heading, how)).collect::<Result<_, _>>()?;
        refuse_unknown(&headings, &columns)?;
        let columns: Vec<Column> = columns.into_iter().map(|column| column.unwrap_or(Column::Nameless)).collect();
        let has = |field: &'static Field| columns.iter().filter(|column| **column == Column::Of(field)).count();
        if let Some(field) = of_kind(how.kind).find(|field| has(field) > 1) {
            return Err(FeedError::HeadingTwice(field.name));
        }
        let provider = how.mapping.and_then(|m| m.provider.as_ref().map(|id| id.as_str())).or(how.provider);
        let indicator = how.mapping.and_then(|m| m.indicator.as_ref().map(|code| code.as_str()));
        let mut fixed = Vec::new();
        for field in of_kind(how.kind).filter(|field| has(field) == 0) {
            let said = match field.name {
                "provider" => provider,
                "indicator" => indicator,
                _ => None,
            };
            match said {
                Some(said) => fixed.push((field, said.to_owned())),
                None if field.needed(how.kind) == Some(true) => {
                    return Err(FeedError::MissingHeading { english: field.name, chinese: field.chinese });
                }
                None => {}
            }
        }
        Ok(Self { columns, fixed, kind: how.kind, mapping: how.mapping.cloned() })
    }

    /// What a column is; beyond the headings all are nameless.
    pub(super) fn get(&self, column: usize) -> Column {
        self.columns.get(column).copied().unwrap_or(Column::Nameless)
    }

    /// A row as a JSON line; `cells` are texts without blanks around them, and none is empty.
    ///
    /// It is written member by member, without a tree in between: of a million rows that is most of the work.
    pub(super) fn line<'c>(&self, cells: impl Iterator<Item = (usize, &'c str)>) -> Result<Vec<u8>, LineError> {
        let (mut line, mut person) = (Members::default(), Members::default());
        let mut put = |field: &'static Field, value: Said<'_>| {
            let inside = self.kind == Kind::Records && matches!(field.name, "id_type" | "id_number" | "name");
            if inside { &mut person } else { &mut line }.add(field.name, &value)
        };
        for (field, said) in &self.fixed {
            put(field, Said::Text(said.into()))?;
        }
        for (column, cell) in cells {
            let field = match self.get(column) {
                Column::Of(field) => field,
                Column::LeftOut => continue,
                Column::Nameless => {
                    let message = "the row has a cell without a heading: check its commas and quotation marks";
                    return Err(LineError::new(LineCode::Malformed, message));
                }
            };
            let cell = self.mapping.as_ref().map_or(cell, |mapping| mapping.value(field.name, cell));
            if let Some(value) = value(field, cell) {
                put(field, value)?;
            }
        }
        if self.kind == Kind::Records {
            line.name("person");
            line.0.extend(person.end());
        }
        let line = line.end();
        if line.len() > LINE_BYTES_MAX { Err(too_long()) } else { Ok(line) }
    }
}

/// What a cell says.
enum Said<'c> {
    Text(Cow<'c, str>),
    Flag(bool),
    Number(u64),
}

/// The members of a JSON object, as they are written.
struct Members(Vec<u8>);

impl Default for Members {
    fn default() -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.push(b'{');
        Self(bytes)
    }
}

impl Members {
    /// A name; the names of fields need no escape.
    fn name(&mut self, name: &'static str) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        self.0.push(b'"');
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    fn add(&mut self, name: &'static str, value: &Said<'_>) -> Result<(), LineError> {
        self.name(name);
        let out = &mut self.0;
        let written = match value {
            Said::Text(text) => serde_json::to_writer(out, &**text),
            Said::Flag(flag) => serde_json::to_writer(out, flag),
            Said::Number(number) => serde_json::to_writer(out, number),
        };
        written.map_err(|_| LineError::new(LineCode::Malformed, "the row cannot be written as a line"))
    }

    fn end(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}

/// That a row is beyond the limit of a line.
pub(super) fn too_long() -> LineError {
    let message = format!("the row has more than {LINE_BYTES_MAX} bytes: shorten it; a quotation mark may be open");
    LineError::new(LineCode::TooLarge, message)
}

/// What a column is; nothing where its heading is unknown.
fn column(heading: &str, how: &How<'_>) -> Result<Option<Column>, FeedError> {
    if heading.is_empty() {
        return Ok(Some(Column::Nameless));
    }
    let standard = of_kind(how.kind).any(|f| f.name.eq_ignore_ascii_case(heading) || f.chinese == heading);
    if !standard && how.prohibited.finds(heading).is_some() {
        return Err(FeedError::ProhibitedHeading(intake::shown(heading)));
    }
    if let Some(field) = field_of(heading, how) {
        return Ok(Some(Column::Of(field)));
    }
    let left_out = how.mapping.is_some_and(|mapping| mapping.leaves_out(heading));
    Ok(left_out.then_some(Column::LeftOut))
}

fn refuse_unknown(headings: &[&str], columns: &[Option<Column>]) -> Result<(), FeedError> {
    let unknown: Vec<_> = headings.iter().zip(columns).filter(|(_, column)| column.is_none()).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let mut shown: Vec<String> = unknown.iter().take(NAMED_MAX).map(|(heading, _)| intake::shown(heading)).collect();
    if unknown.len() > NAMED_MAX {
        shown.push(format!("and {} more", unknown.len() - NAMED_MAX));
    }
    Err(FeedError::UnknownHeadings { count: unknown.len(), shown: shown.join(", ") })
}

/// What a cell says in a line; `None` where it says what is so anyway.
fn value<'c>(field: &Field, cell: &'c str) -> Option<Said<'c>> {
    Some(match field.name {
        "id_type" => match cell {
            "居民身份证" => return None,
            "护照" => Said::Text("passport".into()),
            other => Said::Text(other.into()),
        },
        _ if field.is_day() => Said::Text(day(cell).map_or(Cow::Borrowed(cell), Cow::Owned)),
        "resident" | "full_capacity" => match cell {
            "是" => Said::Flag(true),
            "否" => Said::Flag(false),
            other if other.eq_ignore_ascii_case("true") => Said::Flag(true),
            other if other.eq_ignore_ascii_case("false") => Said::Flag(false),
            other => Said::Text(other.into()),
        },
        // Digits too many for a u64 are too many for a quantity, which its largest value says as well.
        "quantity" if cell.bytes().all(|b| b.is_ascii_digit()) => Said::Number(cell.parse().unwrap_or(u64::MAX)),
        _ => Said::Text(cell.into()),
    })
}

/// 2025/3/1, 20250301 and 2025年3月1日 as 2025-03-01; whether there is such a day is not asked here.
fn day(cell: &str) -> Option<String> {
    let digits = |part: &str, most: usize| {
        ((1..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.to_owned())
    };
    let (year, month, day) = if let Some((year, rest)) = cell.split_once('年') {
        let (month, day) = rest.strip_suffix('日')?.split_once('月')?;
        (year, month, day)
    } else if let Some((year, rest)) = cell.split_once('/') {
        let (month, day) = rest.split_once('/')?;
        (year, month, day)
    } else if cell.len() == 8 && cell.is_ascii() {
        (cell.get(..4)?, cell.get(4..6)?, cell.get(6..)?)
    } else {
        return None;
    };
    let year = digits(year, 4).filter(|year| year.len() == 4)?;
    Some(format!("{year}-{:0>2}-{:0>2}", digits(month, 2)?, digits(day, 2)?))
}
