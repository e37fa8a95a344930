//! Tables: commas, headings in Chinese or English in any order, UTF-8 or GB18030.
//!
//! A row becomes a JSON line; what only tables do is undone here: the forms of dates, 是 and 否, 护照,
//! empty cells. Cells are never made into numbers on the way, so nothing is rounded, and a number
//! that the spreadsheet itself rounded stays the odd text that `intake` refuses.

use std::io::Cursor;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{FeedError, Kind, Line};
use crate::intake::{self, LINE_BYTES_MAX, LineCode, LineError};
use crate::prohibited::Prohibited;

mod encoding;
#[cfg(test)]
mod tests;

/// A field, its heading in Chinese, and whether a table must have its column.
struct Field {
    name: &'static str,
    chinese: &'static str,
    required: bool,
}

const fn field(name: &'static str, chinese: &'static str, required: bool) -> Field {
    Field { name, chinese, required }
}

const RECORDS: &[Field] = &[
    field("id", "记录编号", true),
    field("provider", "报送单位", true),
    field("indicator", "指标代码", true),
    field("id_type", "证件类型", false),
    field("id_number", "证件号码", true),
    field("name", "姓名", true),
    field("occurred_on", "发生日期", true),
    field("valid_until", "有效期至", false),
    field("quantity", "数量", false),
    field("consent_ref", "授权编号", false),
    field("detail", "detail", false),
];
const REGISTER: &[Field] = &[
    field("id_type", "证件类型", false),
    field("id_number", "证件号码", true),
    field("name", "姓名", true),
    field("born_on", "出生日期", false),
    field("resident", "常住人口", true),
    field("full_capacity", "完全民事行为能力", true),
];

/// The rows of a table, as lines.
pub struct Rows {
    bytes: Arc<[u8]>,
    reader: csv::Reader<Cursor<Arc<[u8]>>>,
    row: csv::ByteRecord,
    /// By column: its field; `None` under an empty heading.
    columns: Vec<Option<&'static Field>>,
    kind: Kind,
    /// A place in the bytes, and the line on which it lies.
    counted: (usize, u64),
    /// Lines that an open quotation mark made part of a cell of this earlier line, still to be named.
    swallowed: (u64, std::ops::Range<u64>),
}

impl Rows {
    /// Decides the encoding and reads the headings.
    pub fn open(bytes: Vec<u8>, kind: Kind, prohibited: &Prohibited) -> Result<Self, FeedError> {
        let bytes: Arc<[u8]> = encoding::decode(bytes)?.into();
        let mut reader =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(Cursor::new(Arc::clone(&bytes)));
        let mut row = csv::ByteRecord::new();
        if !reader.read_byte_record(&mut row).map_err(std::io::Error::from)? {
            return Err(FeedError::NoHeadings);
        }
        let columns = columns(&row, kind, prohibited)?;
        Ok(Self { bytes, reader, row, columns, kind, counted: (0, 1), swallowed: (0, 0..0) })
    }

    /// The line on which the row that was read begins. The reader's own count begins a row before the line ends and
    /// blank lines that it skipped, so lines are counted here.
    fn line_number(&mut self) -> u64 {
        let (mut at, mut line) = self.counted;
        let start = self.row.position().map_or(0, csv::Position::byte);
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        while let Some(byte) = self.bytes.get(at) {
            let ends_line = match byte {
                b'\n' => true,
                b'\r' => self.bytes.get(at + 1) != Some(&b'\n'),
                _ => false,
            };
            if at >= start && !matches!(byte, b'\n' | b'\r') {
                break;
            }
            line += u64::from(ends_line);
            at += 1;
        }
        self.counted = (at, line);
        line
    }

    /// How many more lines than its first the row took, where a cell that has one line by its nature runs over several:
    /// a quotation mark was left open, and what it swallowed were rows.
    fn swallows(&self) -> u64 {
        let one_line = |column: usize| self.columns.get(column).copied().flatten().is_none_or(|f| f.name != "detail");
        let ends = |cell: &[u8]| cell.trim_ascii_end().iter().filter(|byte| **byte == b'\n').count();
        let broken = self.row.iter().enumerate().any(|(column, cell)| one_line(column) && ends(cell) > 0);
        let lines: usize = if broken { self.row.iter().map(ends).sum() } else { 0 };
        u64::try_from(lines).unwrap_or(u64::MAX)
    }

    fn line(&self) -> Result<Vec<u8>, LineError> {
        let malformed = |message: &str| LineError::new(LineCode::Malformed, message);
        if self.row.as_slice().len() > LINE_BYTES_MAX {
            return Err(LineError::new(
                LineCode::TooLarge,
                format!("the row has more than {LINE_BYTES_MAX} bytes: shorten it; a quotation mark may be open"),
            ));
        }
        let (mut line, mut person) = (Map::new(), Map::new());
        for (column, cell) in self.row.iter().enumerate() {
            let cell = std::str::from_utf8(cell)
                .map_err(|_| malformed("a cell of the row is no UTF-8 as the rest of the file is: write it again"))?
                .trim();
            if cell.is_empty() {
                continue;
            }
            let Some(field) = self.columns.get(column).copied().flatten() else {
                return Err(malformed("the row has a cell without a heading: check its commas and quotation marks"));
            };
            let Some(value) = value(field.name, cell) else { continue };
            let inside = self.kind == Kind::Records && matches!(field.name, "id_type" | "id_number" | "name");
            if inside { &mut person } else { &mut line }.insert(field.name.to_owned(), value);
        }
        if self.kind == Kind::Records {
            line.insert("person".to_owned(), Value::Object(person));
        }
        serde_json::to_vec(&line).map_err(|_| malformed("the row cannot be written as a line"))
    }
}

impl Iterator for Rows {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        let (opened, lines) = &mut self.swallowed;
        if let Some(number) = lines.next() {
            return Some(Line { number, bytes: Err(left_open(*opened)) });
        }
        loop {
            // Reading bytes from memory with any number of cells cannot fail.
            if !self.reader.read_byte_record(&mut self.row).unwrap_or(false) {
                return None;
            }
            let number = self.line_number();
            let more = self.swallows();
            if more > 0 {
                self.swallowed = (number, number + 1..number + 1 + more);
                return Some(Line { number, bytes: Err(left_open(number)) });
            }
            if self.row.iter().any(|cell| !blank(cell)) {
                return Some(Line { number, bytes: self.line() });
            }
        }
    }
}

fn left_open(line: u64) -> LineError {
    let message = format!(
        "a quotation mark in line {line} is left open, and this line was read into its cell: close, double or remove the mark, and send the lines again"
    );
    LineError::new(LineCode::Malformed, message)
}

fn blank(cell: &[u8]) -> bool {
    std::str::from_utf8(cell).is_ok_and(|text| text.trim().is_empty())
}

fn columns(
    row: &csv::ByteRecord,
    kind: Kind,
    prohibited: &Prohibited,
) -> Result<Vec<Option<&'static Field>>, FeedError> {
    let fields = match kind {
        Kind::Records => RECORDS,
        Kind::Register => REGISTER,
    };
    let field = |heading: &str| {
        fields.iter().find(|field| field.name.eq_ignore_ascii_case(heading) || field.chinese == heading)
    };
    let headings: Vec<_> = row.iter().map(|cell| String::from_utf8_lossy(cell).trim().to_owned()).collect();
    if headings.iter().all(|heading| field(heading).is_none()) {
        return Err(FeedError::NoKnownHeading);
    }
    let mut columns: Vec<Option<&'static Field>> = Vec::new();
    for heading in &headings {
        let column = field(heading);
        if column.is_none() && !heading.is_empty() {
            let shown = intake::shown(heading);
            return Err(match prohibited.finds(heading) {
                Some(_) => FeedError::ProhibitedHeading(shown),
                None => FeedError::UnknownHeading(shown),
            });
        }
        if let Some(field) = column
            && columns.iter().flatten().any(|earlier| earlier.name == field.name)
        {
            return Err(FeedError::HeadingTwice(field.name));
        }
        columns.push(column);
    }
    let missing = |field: &&Field| field.required && !columns.iter().flatten().any(|column| column.name == field.name);
    match fields.iter().find(missing) {
        Some(field) => Err(FeedError::MissingHeading { english: field.name, chinese: field.chinese }),
        None => Ok(columns),
    }
}

/// What a cell says in a line; `None` where it says what is so anyway. A cell that is none of the forms goes into the
/// line as it is, and `intake` says what is wrong with it.
fn value(field: &str, cell: &str) -> Option<Value> {
    Some(match field {
        "id_type" => match cell {
            "居民身份证" => return None,
            "护照" => "passport".into(),
            other => other.into(),
        },
        "occurred_on" | "valid_until" | "born_on" => day(cell).unwrap_or_else(|| cell.to_owned()).into(),
        "resident" | "full_capacity" => match cell {
            "是" => true.into(),
            "否" => false.into(),
            other if other.eq_ignore_ascii_case("true") => true.into(),
            other if other.eq_ignore_ascii_case("false") => false.into(),
            other => other.into(),
        },
        // Digits too many for a u64 are too many for a quantity, which its largest value says as well.
        "quantity" if cell.bytes().all(|b| b.is_ascii_digit()) => cell.parse().unwrap_or(u64::MAX).into(),
        _ => cell.into(),
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
