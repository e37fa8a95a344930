//! Workbooks (XLSX, ECMA-376): one sheet's rows, as lines.
//!
//! The sheet is read twice, row by row, so memory does not grow with it: first to see that it is whole, within the
//! limits, and which cells are merged, then for its rows; nothing is taken of a workbook that is cut off. Invariants:
//! the limits come before the reader; no number becomes another; no formula is evaluated or believed; what a clerk
//! does not see when looking at the sheet (a hidden row, what lies under merged cells) is refused, never guessed.

use std::io::{Read, Seek};

use quick_xml::events::{BytesStart, Event};

use super::table::{Column, Columns, too_long};
use super::{Feed, FeedError, How, Line, Source};
use crate::intake::{self, LINE_BYTES_MAX, LineCode, LineError};

mod archive;
mod cells;
mod parts;
#[cfg(test)]
mod tests;
mod xml;

use archive::{Archive, Unpacked};
use cells::{Cell, CellKind, reference};
use parts::{Book, Run};
use xml::{Xml, add_text, attribute, is_set, unescaped};

/// The most columns of a sheet, as Excel has it.
const COLUMNS_MAX: usize = 16_384;
/// The most cells of a row that are looked at.
const CELLS_MAX: usize = 4_096;
/// What is kept of a row.
const ROW_BYTES_MAX: usize = 4 * LINE_BYTES_MAX;
/// The most ranges of merged cells.
const MERGED_MAX: usize = 100_000;
/// The most sheets that a message names.
const NAMED_MAX: usize = 10;

/// Opens a workbook: what there is to say about it, and its lines.
pub fn open<'a>(input: impl Source + 'a, how: &How<'_>) -> Result<(Vec<String>, Feed<'a>), FeedError> {
    let rows = Rows::open(input, how)?;
    Ok((rows.notes(), Box::new(rows)))
}

/// The rows of a sheet, as lines.
struct Rows<R> {
    sheet: Sheet<R>,
    book: Book,
    columns: Columns,
    /// Ranges of rows that merged cells reach over, in order, none over another.
    merged: Vec<(u64, u64)>,
    read: String,
    others: Vec<String>,
}

/// A sheet, event by event.
struct Sheet<R> {
    xml: Xml<R>,
    /// The number of the last row.
    last: u64,
}

/// One row.
struct Row {
    number: u64,
    hidden: bool,
    too_long: bool,
    cells: Vec<Cell>,
}

impl<R: Read + Seek> Rows<Unpacked<R>> {
    /// Opens a workbook: finds the sheet, sees that it is whole, and reads its headings.
    fn open(input: R, how: &How<'_>) -> Result<Self, FeedError> {
        let mut archive = Archive::open(input)?;
        let book = Book::read(&mut archive)?;
        let listed = || {
            let names = book.sheets.iter().take(NAMED_MAX).map(|sheet| intake::shown(&sheet.name));
            names.collect::<Vec<_>>().join(", ")
        };
        let chosen = match how.sheet {
            Some(name) => book.sheets.iter().find(|sheet| sheet.name == name),
            None => book.sheets.iter().find(|sheet| !sheet.hidden).or(book.sheets.first()),
        };
        let sheet = chosen.ok_or_else(|| FeedError::NoSuchSheet(listed()))?;
        let (part, read) = (sheet.part.clone(), sheet.name.clone());
        let others = book.sheets.iter().filter(|other| other.part != part).map(|other| other.name.clone()).collect();
        let merged = looked_through(&mut Xml::new(archive.part(&part)?))?;
        let mut sheet = Sheet { xml: Xml::new(archive.into_part(&part)?), last: 0 };
        let columns = loop {
            let row = sheet.row()?.ok_or(FeedError::NoHeadings)?;
            if row.too_long {
                return Err(FeedError::LongHeadings { limit: ROW_BYTES_MAX });
            }
            if row.cells.iter().all(|cell| cell.is_blank(&book)) {
                continue;
            }
            let width = row.cells.iter().map(|cell| cell.column + 1).max().unwrap_or(0);
            let mut headings = vec![""; width];
            for cell in &row.cells {
                if let Some(heading) = headings.get_mut(cell.column) {
                    *heading = cell.heading(&book);
                }
            }
            break Columns::read(&headings, how)?;
        };
        Ok(Self { sheet, book, columns, merged, read, others })
    }
}

impl<R: Read> Rows<R> {
    /// Which sheet is read, where there are others.
    fn notes(&self) -> Vec<String> {
        if self.others.is_empty() {
            return Vec::new();
        }
        let shown = |names: &[String]| {
            names.iter().take(NAMED_MAX).map(|name| intake::shown(name)).collect::<Vec<_>>().join(", ")
        };
        let (read, others) = (intake::shown(&self.read), shown(&self.others));
        vec![format!(
            "只读工作表 {read}；另有 {others}，用 --sheet 指定 / the sheet {read} is read; there is also {others}: choose one with --sheet"
        )]
    }

    fn line(&self, row: &Row) -> Result<Vec<u8>, LineError> {
        let malformed = |message: String| Err(LineError::new(LineCode::Malformed, message));
        let number = row.number;
        if row.too_long {
            return Err(too_long());
        }
        if row.hidden {
            return malformed(format!(
                "第 {number} 行是隐藏的：请取消隐藏或筛选后再导出，或删去该行 / row {number} is hidden: show it, or delete it, and send the file again"
            ));
        }
        let after = self.merged.partition_point(|(_, last)| *last < number);
        if self.merged.get(after).is_some_and(|(first, _)| *first <= number) {
            return malformed(format!(
                "第 {number} 行有合并单元格：请取消合并，逐行填写 / row {number} has merged cells: unmerge them and fill in every row"
            ));
        }
        let mut texts = Vec::with_capacity(row.cells.len());
        for cell in &row.cells {
            match self.columns.get(cell.column) {
                Column::Of(field) if !cell.is_blank(&self.book) => {
                    texts.push((cell.column, cell.text(number, field, &self.book)?));
                }
                Column::Nameless if !cell.is_blank(&self.book) => {
                    let column = cells::letters(cell.column);
                    return malformed(format!(
                        "单元格 {column}{number} 没有表头 / cell {column}{number} has no heading: name its column or empty it"
                    ));
                }
                _ => {}
            }
        }
        let texts = texts.iter().map(|(column, text)| (*column, text.trim())).filter(|(_, text)| !text.is_empty());
        self.columns.line(texts)
    }
}

impl<R: Read> Iterator for Rows<R> {
    type Item = Result<Line, FeedError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let row = match self.sheet.row() {
                Ok(row) => row?,
                Err(error) => return Some(Err(error)),
            };
            if !row.too_long && row.cells.iter().all(|cell| cell.is_blank(&self.book)) {
                continue;
            }
            return Some(Ok(Line { number: row.number, bytes: self.line(&row) }));
        }
    }
}

/// Reads a sheet to its end; the rows that merged cells reach over.
fn looked_through<R: Read>(xml: &mut Xml<R>) -> Result<Vec<(u64, u64)>, FeedError> {
    let (mut ranges, mut is_sheet, mut depth, mut text) = (Vec::new(), false, 0_u64, String::new());
    let mut last = 0;
    loop {
        let event = xml.next()?;
        match &event {
            Event::Start(_) => depth += 1,
            Event::End(_) => depth = depth.saturating_sub(1),
            // An entity that is not known.
            Event::GeneralRef(_) => add_text(&event, &mut text)?,
            _ => {}
        }
        text.clear();
        match event {
            Event::Start(tag) => match tag.local_name().as_ref() {
                "worksheet" => is_sheet = true,
                // Whatever the rows' own reading may stumble over is found now.
                "row" => {
                    let number = row_number(&tag, last + 1)?;
                    // Refused rows and receipts are named by their numbers.
                    if number <= last || number == u64::MAX {
                        return Err(FeedError::Damaged("its rows are out of order".to_owned()));
                    }
                    last = number;
                    is_set(&tag, "hidden")?;
                }
                "c" => drop(new_cell(&tag, 0)?),
                "mergeCell" => {
                    let range = attribute(&tag, "ref")?.unwrap_or_default();
                    let (from, to) = range.split_once(':').unwrap_or((&range, &range));
                    let (Some((_, from)), Some((_, to))) = (reference(from), reference(to)) else {
                        return Err(FeedError::Damaged("merged cells lie nowhere".to_owned()));
                    };
                    ranges.push((from.min(to), from.max(to)));
                    if ranges.len() > MERGED_MAX {
                        return Err(FeedError::TooLarge { what: "merged cells", limit: MERGED_MAX as u64 });
                    }
                }
                _ => {}
            },
            Event::Eof => break,
            _ => {}
        }
    }
    if !is_sheet || depth > 0 {
        return Err(FeedError::Damaged("a sheet has no end".to_owned()));
    }
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (from, to) in ranges {
        match merged.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    Ok(merged)
}

impl<R: Read> Sheet<R> {
    /// The next row with anything in it or about it; `None` at the end of the sheet.
    fn row(&mut self) -> Result<Option<Row>, FeedError> {
        let mut row = loop {
            match self.xml.next()? {
                Event::Start(tag) if tag.local_name().as_ref() == "row" => {
                    let number = row_number(&tag, self.last.saturating_add(1))?;
                    break Row { number, hidden: is_set(&tag, "hidden")?, too_long: false, cells: Vec::new() };
                }
                Event::Eof => return Ok(None),
                _ => {}
            }
        };
        self.last = row.number;
        let (mut bytes, mut column) = (0, 0);
        loop {
            match self.xml.next()? {
                Event::Start(tag) if tag.local_name().as_ref() == "c" => {
                    let cell = new_cell(&tag, column)?;
                    column = cell.column + 1;
                    let cell = self.cell(cell)?;
                    bytes += cell.value.len();
                    row.too_long |= cell.too_long || bytes > ROW_BYTES_MAX || row.cells.len() >= CELLS_MAX;
                    if !row.too_long && (cell.formula || !cell.value.is_empty()) {
                        row.cells.push(cell);
                    }
                }
                Event::End(tag) if tag.local_name().as_ref() == "row" => return Ok(Some(row)),
                Event::Eof => return Err(FeedError::Damaged("a row has no end".to_owned())),
                _ => {}
            }
        }
    }

    /// Reads a cell to its end.
    fn cell(&mut self, mut cell: Cell) -> Result<Cell, FeedError> {
        let (mut run, mut within) = (Run::default(), false);
        loop {
            let event = self.xml.next()?;
            match &event {
                Event::Start(tag) => match tag.local_name().as_ref() {
                    "f" => cell.formula = true,
                    "v" => within = true,
                    _ => {}
                },
                Event::End(tag) => match tag.local_name().as_ref() {
                    "v" => within = false,
                    "c" => break,
                    _ => {}
                },
                Event::Eof => return Err(FeedError::Damaged("a cell has no end".to_owned())),
                _ => {}
            }
            if within {
                add_text(&event, &mut cell.value)?;
            }
            run.event(&event)?;
            if run.len() + cell.value.len() > 2 * ROW_BYTES_MAX {
                cell.too_long = true;
                drop((run.take(), std::mem::take(&mut cell.value)));
            }
        }
        if cell.kind == CellKind::Text {
            let text = run.take();
            let text = if text.is_empty() { std::mem::take(&mut cell.value) } else { text };
            cell.value = unescaped(&text).into_owned();
        }
        Ok(cell)
    }
}

/// A row's number; `next` where its tag says none.
fn row_number(tag: &BytesStart<'_>, next: u64) -> Result<u64, FeedError> {
    match attribute(tag, "r")? {
        Some(number) => number.parse().map_err(|_| FeedError::Damaged("a row has no number".to_owned())),
        None => Ok(next),
    }
}

/// A cell as its tag says; without a reference it stands in `next`.
fn new_cell(tag: &BytesStart<'_>, next: usize) -> Result<Cell, FeedError> {
    let column = match attribute(tag, "r")? {
        Some(text) => reference(&text).map(|(column, _)| column),
        None => Some(next),
    };
    let column = column.filter(|column| *column < COLUMNS_MAX);
    let column = column.ok_or_else(|| FeedError::Damaged("a cell lies nowhere".to_owned()))?;
    let kind = match attribute(tag, "t")?.as_deref() {
        None | Some("n") => CellKind::Number,
        Some("s") => CellKind::Shared,
        Some("str" | "inlineStr") => CellKind::Text,
        Some("b") => CellKind::Flag,
        Some("e") => CellKind::Error,
        Some("d") => CellKind::Day,
        Some(_) => return Err(FeedError::Damaged("a cell is of no known kind".to_owned())),
    };
    let style = attribute(tag, "s")?.and_then(|style| style.parse().ok()).unwrap_or(0);
    Ok(Cell { column, kind, style, formula: false, too_long: false, value: String::new() })
}
