//! Tables of text: commas, tabs or semicolons, headings in Chinese or English in any order.
//!
//! Rows are read one by one, and of a row no more is kept than a line may have, so an open quotation mark costs no
//! memory; every line that it swallowed is named. Cells are never made into numbers on the way, so nothing is
//! rounded, and a number that the spreadsheet itself rounded stays the odd text that `intake` refuses.

use std::io::{self, BufRead};
use std::ops::Range;

use csv_core::ReadRecordResult;

use super::table::{Column, Columns, known, too_long};
use super::{FeedError, How, Line};
use crate::intake::{LINE_BYTES_MAX, LineCode, LineError};

#[cfg(test)]
mod tests;

/// What is kept of a row: a line's worth and a little of what mapped columns may leave out.
const ROW_BYTES_MAX: usize = 4 * LINE_BYTES_MAX;
/// The most columns that are told apart.
const COLUMNS_MAX: usize = 4_096;
/// What may separate cells, the usual one first.
const SEPARATORS: [u8; 3] = [b',', b'\t', b';'];

/// The rows of a table, as lines.
pub struct Rows<R> {
    table: Table<R>,
    columns: Columns,
    /// Lines that an open quotation mark made part of a cell of this earlier line, still to be named.
    swallowed: (u64, Range<u64>),
}

/// The rows of a table, as cells.
struct Table<R> {
    input: R,
    reader: csv_core::Reader,
    cells: Vec<u8>,
    ends: Vec<usize>,
    /// How many cells the row has.
    count: usize,
    /// The line on which the input stands, and whether a carriage return was the last byte.
    line: u64,
    after_return: bool,
}

/// Where a row lies.
struct Place {
    /// Its first line.
    number: u64,
    /// How many more lines it takes.
    more: u64,
    /// It has more than is kept.
    too_long: bool,
}

impl<R: BufRead> Table<R> {
    fn new(input: R, separator: u8) -> Self {
        Self {
            input,
            reader: csv_core::ReaderBuilder::new().delimiter(separator).build(),
            cells: vec![0; ROW_BYTES_MAX],
            ends: vec![0; COLUMNS_MAX],
            count: 0,
            line: 1,
            after_return: false,
        }
    }

    /// Counts the lines that end in the next bytes, and takes these from the input.
    fn pass(&mut self, bytes: usize) -> io::Result<()> {
        for byte in self.input.fill_buf()?.get(..bytes).unwrap_or_default() {
            let ends_line = *byte == b'\r' || (*byte == b'\n' && !self.after_return);
            self.line += u64::from(ends_line);
            self.after_return = *byte == b'\r';
        }
        self.input.consume(bytes);
        Ok(())
    }

    /// Reads the next row, passing over lines without anything.
    fn read(&mut self) -> io::Result<Option<Place>> {
        loop {
            let ends = self.input.fill_buf()?.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            if ends == 0 {
                break;
            }
            self.pass(ends)?;
        }
        let (number, mut out, mut too_long, mut at_end) = (self.line, 0, false, false);
        self.count = 0;
        loop {
            let input = self.input.fill_buf()?;
            let nothing_more = input.is_empty();
            let (cells, ends) = (self.cells.get_mut(out..), self.ends.get_mut(self.count..));
            let (result, read, wrote, ended) =
                self.reader.read_record(input, cells.unwrap_or_default(), ends.unwrap_or_default());
            if read > 0 {
                at_end = input.get(read - 1).is_some_and(|byte| matches!(byte, b'\r' | b'\n'));
            }
            self.pass(read)?;
            (out, self.count) = (out + wrote, self.count + ended);
            match result {
                ReadRecordResult::InputEmpty if !nothing_more => {}
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    (too_long, out, self.count) = (true, 0, 0);
                }
                ReadRecordResult::Record => {
                    let more = (self.line - number).saturating_sub(u64::from(at_end));
                    return Ok(Some(Place { number, more, too_long }));
                }
                ReadRecordResult::InputEmpty | ReadRecordResult::End => return Ok(None),
            }
        }
    }

    fn cells(&self) -> impl Iterator<Item = &[u8]> {
        let mut begin = 0;
        self.ends.iter().take(self.count).map(move |end| {
            let cell = self.cells.get(begin..*end).unwrap_or_default();
            begin = *end;
            cell
        })
    }
}

/// The separator under which the first row has the most known headings, and how many these are.
fn separator(head: &[u8], how: &How<'_>) -> (u8, usize) {
    let (mut best, mut most) = (SEPARATORS[0], 0);
    for separator in SEPARATORS {
        let mut table = Table::new(head, separator);
        let read = table.read().is_ok_and(|place| place.is_some());
        let headings: Vec<_> = table.cells().map(String::from_utf8_lossy).collect();
        let count = if read { known(headings.iter().map(|heading| &**heading), how) } else { 0 };
        if count > most {
            (best, most) = (separator, count);
        }
    }
    (best, most)
}

/// Whether a text begins with a line of headings.
pub(super) fn begins_with_headings(head: &[u8], how: &How<'_>) -> bool {
    separator(head, how).1 > 0
}

impl<R: BufRead> Rows<R> {
    /// Finds the separator and reads the headings.
    pub fn open(mut input: R, how: &How<'_>) -> Result<Self, FeedError> {
        let (separator, _) = separator(input.fill_buf()?, how);
        let mut table = Table::new(input, separator);
        let place = table.read()?.ok_or(FeedError::NoHeadings)?;
        if place.too_long {
            return Err(FeedError::LongHeadings { limit: ROW_BYTES_MAX });
        }
        let headings: Vec<_> = table.cells().map(String::from_utf8_lossy).collect();
        let columns = Columns::read(&headings.iter().map(|heading| &**heading).collect::<Vec<_>>(), how)?;
        Ok(Self { table, columns, swallowed: (0, 0..0) })
    }

    /// Whether a cell that has one line by its nature runs over several: a quotation mark was left open, and what it
    /// swallowed were rows.
    fn swallows(&self) -> bool {
        let one_line = |column: usize| match self.columns.get(column) {
            Column::Of(field) => field.name != "detail",
            Column::LeftOut => false,
            Column::Nameless => true,
        };
        self.table.cells().enumerate().any(|(column, cell)| one_line(column) && cell.trim_ascii_end().contains(&b'\n'))
    }

    fn line(&self) -> Result<Vec<u8>, LineError> {
        let mut cells = Vec::with_capacity(self.table.count);
        for (column, cell) in self.table.cells().enumerate() {
            let cell = match std::str::from_utf8(cell) {
                Ok(cell) => cell.trim(),
                Err(_) if self.columns.get(column) == Column::LeftOut => continue,
                Err(_) => {
                    let message = "a cell of the row is no UTF-8 as the rest of the file is: write it again";
                    return Err(LineError::new(LineCode::Malformed, message));
                }
            };
            if !cell.is_empty() {
                cells.push((column, cell));
            }
        }
        self.columns.line(cells.into_iter())
    }
}

impl<R: BufRead> Iterator for Rows<R> {
    type Item = Result<Line, FeedError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (opened, lines) = &mut self.swallowed;
        if let Some(number) = lines.next() {
            return Some(Ok(Line { number, bytes: Err(left_open(*opened)) }));
        }
        loop {
            let Place { number, more, too_long: long } = match self.table.read() {
                Ok(place) => place?,
                Err(e) => return Some(Err(e.into())),
            };
            let bytes = if more > 0 && (long || self.swallows()) {
                self.swallowed = (number, number + 1..number + 1 + more);
                Err(left_open(number))
            } else if long {
                Err(too_long())
            } else if self.table.cells().all(blank) {
                continue;
            } else {
                self.line()
            };
            return Some(Ok(Line { number, bytes }));
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
