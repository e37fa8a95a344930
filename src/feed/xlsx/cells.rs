//! The cells of a row, and what each says under its heading.
//!
//! A number is not a text: what Excel did to it, or would, is refused with a sentence. A formula is never evaluated, and
//! the value that Excel last had for it is not believed either: a copy that was made elsewhere may carry any.

use jiff::ToSpan;
use jiff::civil::{Date, date};

use super::parts::Book;
use crate::feed::table::Field;
use crate::intake::{LineCode, LineError};

/// The most digits of a number that Excel keeps.
const DIGITS_KEPT: usize = 15;
/// The last number that is a day of the year 9999, in the count from 1900.
const SERIAL_MAX: f64 = 2_958_466.0;

/// What kind of value a cell says that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CellKind {
    Number,
    Shared,
    Text,
    Flag,
    Error,
    Day,
}

/// One cell.
pub(super) struct Cell {
    pub(super) column: usize,
    pub(super) kind: CellKind,
    pub(super) style: usize,
    pub(super) formula: bool,
    /// It has more than is kept of a row.
    pub(super) too_long: bool,
    pub(super) value: String,
}

/// A column's letters.
pub(super) fn letters(mut column: usize) -> String {
    let mut out = Vec::new();
    loop {
        out.insert(0, char::from(b'A' + u8::try_from(column % 26).unwrap_or(0)));
        if column < 26 {
            return out.into_iter().collect();
        }
        column = column / 26 - 1;
    }
}

/// The column and row of a reference such as `AB12`, from 0 and from 1.
pub(super) fn reference(text: &str) -> Option<(usize, u64)> {
    let digits = text.find(|c: char| c.is_ascii_digit())?;
    let (letters, row) = text.split_at(digits);
    if !(1..=3).contains(&letters.len()) || !letters.bytes().all(|b| b.is_ascii_uppercase()) || row.len() > 7 {
        return None;
    }
    let column = letters.bytes().fold(0, |column, b| column * 26 + usize::from(b - b'A') + 1);
    Some((column - 1, row.parse().ok().filter(|row| *row > 0)?))
}

impl Cell {
    /// The text, as it stands in a heading; none where it names a shared text that is not there.
    fn plain<'c>(&'c self, book: &'c Book) -> Option<&'c str> {
        match self.kind {
            CellKind::Shared => self.value.trim().parse().ok().and_then(|at| book.shared.get(at)),
            _ => Some(&self.value),
        }
    }

    /// The text of a heading.
    pub(super) fn heading<'c>(&'c self, book: &'c Book) -> &'c str {
        self.plain(book).unwrap_or_default()
    }

    /// Whether there is nothing in it.
    pub(super) fn is_blank(&self, book: &Book) -> bool {
        !self.formula && self.plain(book).is_some_and(|text| text.trim().is_empty())
    }

    /// What the cell says for its field, as a table of text would say it.
    pub(super) fn text(&self, row: u64, field: &'static Field, book: &Book) -> Result<String, LineError> {
        let place = format!("{}{row}", letters(self.column));
        let refuse = |message: String| Err(LineError::new(LineCode::Malformed, message));
        if self.formula {
            return refuse(format!(
                "单元格 {place} 是公式，不会计算：请复制后选择性粘贴为“值” / cell {place} is a formula, which is never evaluated: copy it and paste it as a value"
            ));
        }
        match self.kind {
            CellKind::Text | CellKind::Shared => self.plain(book).map(str::to_owned).ok_or_else(|| {
                let message = format!(
                    "单元格 {place} 的文本已丢失 / the text of cell {place} is not in the file: export it again"
                );
                LineError::new(LineCode::Malformed, message)
            }),
            CellKind::Flag => Ok(if self.value.trim() == "1" { "true" } else { "false" }.to_owned()),
            CellKind::Error => {
                refuse(format!("单元格 {place} 是错误值 / cell {place} holds an error of Excel's: correct it"))
            }
            CellKind::Day => match self.value.split('T').next() {
                Some(day) if field.is_day() => Ok(day.to_owned()),
                _ => refuse(no_day_wanted(&place)),
            },
            CellKind::Number => self.number(&place, field, book),
        }
    }

    fn number(&self, place: &str, field: &'static Field, book: &Book) -> Result<String, LineError> {
        let malformed = |message: String| LineError::new(LineCode::Malformed, message);
        let text = self.value.trim();
        let number: f64 = text.parse().ok().filter(|n: &f64| n.is_finite()).ok_or_else(|| {
            malformed(format!(
                "单元格 {place} 不是数字 / cell {place} says that it is a number and is none: type it again"
            ))
        })?;
        let dated = book.dates.get(self.style).copied().unwrap_or(false);
        if field.is_day() {
            if dated {
                let day = if book.from_1904 { day_1904(number) } else { day_1900(number) };
                return day.map(|day| day.to_string()).ok_or_else(|| {
                    LineError::new(
                        LineCode::ImpossibleDate,
                        format!("单元格 {place} 没有这一天 / cell {place} is no day that there is: correct it"),
                    )
                });
            }
            let plain = text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit());
            return if plain {
                Ok(text.to_owned())
            } else {
                Err(malformed(format!(
                    "单元格 {place} 是数字而不是日期：请设为“日期”格式，或写成 2025-03-01 / cell {place} is a number and not a date: format it as a date, or write 2025-03-01"
                )))
            };
        }
        if dated {
            return Err(malformed(no_day_wanted(place)));
        }
        let whole = number.fract() == 0.0;
        // What is written in the file may have digits that Excel no longer shows; more than it keeps are invented.
        let digits = text.trim_start_matches('-').split(['.', 'e', 'E']).next().unwrap_or_default().len();
        // A quantity of so many digits is too large, whatever became of the last ones.
        if (number.abs() >= 1e15 || digits > DIGITS_KEPT) && field.name != "quantity" {
            return Err(malformed(format!(
                "单元格 {place} 是数字：Excel 只保留 15 位，其后各位已变成 0，无法恢复。请从原系统重新导出：先把该列设为“文本”格式再填入或导入，不要在 Excel 里改格式 / cell {place} is a number: Excel keeps 15 digits and has turned the others into zeros, which nobody can undo. Export again from your system: make the column text (format “Text”, as text) before the numbers come in"
            )));
        }
        if !whole {
            let name = field.name;
            return Err(malformed(format!("单元格 {place} 带小数 / cell {place} has a fraction: `{name}` has none")));
        }
        Ok(format!("{number:.0}"))
    }
}

fn no_day_wanted(place: &str) -> String {
    format!("单元格 {place} 是日期，该列不是 / cell {place} is a date, and its column has none: format it as text")
}

/// A day by its number since 1900; the 60th is 29 February 1900, which never was. A time of day never rounds up.
fn day_1900(serial: f64) -> Option<Date> {
    if !(1.0..SERIAL_MAX).contains(&serial) {
        return None;
    }
    #[allow(clippy::cast_possible_truncation, reason = "within the range, and the fraction is the time of day")]
    match serial.floor() as i64 {
        60 => None,
        number @ 1..60 => date(1899, 12, 31).checked_add(number.days()).ok(),
        number => date(1899, 12, 30).checked_add(number.days()).ok(),
    }
}

/// A day by its number since 1904, as older Macs counted.
fn day_1904(serial: f64) -> Option<Date> {
    if !(0.0..SERIAL_MAX - 1462.0).contains(&serial) {
        return None;
    }
    #[allow(clippy::cast_possible_truncation, reason = "within the range, and the fraction is the time of day")]
    let number = serial.floor() as i64;
    date(1904, 1, 1).checked_add(number.days()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_by_number() {
        assert_eq!(day_1900(45717.0), Some(date(2025, 3, 1)));
        assert_eq!(day_1900(45_717.999_9), Some(date(2025, 3, 1)));
        assert_eq!((day_1900(1.0), day_1900(59.0)), (Some(date(1900, 1, 1)), Some(date(1900, 2, 28))));
        assert_eq!((day_1900(60.0), day_1900(61.0)), (None, Some(date(1900, 3, 1))));
        assert_eq!((day_1900(0.5), day_1900(-1.0), day_1900(1e300), day_1900(f64::NAN)), (None, None, None, None));
        assert_eq!((day_1900(2_958_465.0), day_1900(2_958_466.0)), (Some(date(9999, 12, 31)), None));
        assert_eq!((day_1904(44255.0), day_1904(0.0)), (Some(date(2025, 3, 1)), Some(date(1904, 1, 1))));
    }

    #[test]
    fn references_of_cells() {
        assert_eq!((reference("A1"), reference("XFD1048576")), (Some((0, 1)), Some((16_383, 1_048_576))));
        assert_eq!(
            (letters(0), letters(25), letters(26), letters(16_383)),
            ("A".into(), "Z".into(), "AA".into(), "XFD".into())
        );
        for text in ["", "A", "1", "A0", "a1", "ABCD1", "A1B", "A99999999", "\u{41f}1"] {
            assert_eq!(reference(text), None, "{text}");
        }
    }
}
