//! Feeds: files of records or of the register become the lines that `intake` reads.
//!
//! A spreadsheet's row is written as the same JSON line that a provider sends, so there is one set
//! of rules for all of them and a row means what its line would mean. A feed knows the form of its
//! file, never whether a line is right. Invariant: a file is read in one encoding, decided once for
//! the whole of it; where that is in doubt the file or the row is refused, and no name is guessed.

use std::io::{self, BufRead};

use crate::intake::LineError;
use crate::prohibited::Prohibited;

pub mod csv;
pub mod ndjson;

/// What the lines of a file are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Records, a line each.
    Records,
    /// People of the register, a line each.
    Register,
}

/// A line of a feed, or what is wrong with it before it is one.
#[derive(Clone, PartialEq, Eq)]
pub struct Line {
    /// The line of the file on which it begins, from 1.
    pub number: u64,
    /// One JSON object, as `intake` reads it.
    pub bytes: Result<Vec<u8>, LineError>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Line(..)")
    }
}

/// Why a file cannot be read as a feed at all. Displays as what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The system could not read on.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// An XLSX or another packed file.
    #[error("is a workbook or another packed file, not a table: save it as CSV UTF-8")]
    Packed,
    /// UTF-16, which spreadsheets call Unicode text.
    #[error("is UTF-16: save it as CSV UTF-8")]
    Utf16,
    /// Neither whole UTF-8 nor whole GB18030, and not nearly UTF-8 either.
    #[error(
        "is neither UTF-8 nor GB18030 throughout (line {line} is the first that is no GB18030): save it as CSV UTF-8"
    )]
    Encoding {
        /// The first line that GB18030 cannot be.
        line: u64,
    },
    /// Both encodings occur, or too little text to tell them apart.
    #[error(
        "is not for certain UTF-8 or GB18030 throughout, and a wrong guess would spoil names: save it as CSV UTF-8"
    )]
    DoubtfulEncoding,
    /// No line at all.
    #[error("is empty: it must begin with a line of headings")]
    NoHeadings,
    /// A first line without a single known heading; it may be a row, so nothing of it is shown.
    #[error(
        "has no known heading in its first line: begin with headings such as `id_number` or `证件号码`, separated by commas"
    )]
    NoKnownHeading,
    /// A heading that tables of this kind do not have.
    #[error("has an unknown heading, {0}: take the column out or correct its name")]
    UnknownHeading(String),
    /// A heading that is an item which the law forbids to collect.
    #[error(
        "has the heading {0}, a prohibited item (prohibited-item), which the law forbids to collect: take the column out"
    )]
    ProhibitedHeading(String),
    /// Two columns for one field.
    #[error("has two columns for `{0}`: take one of them out")]
    HeadingTwice(&'static str),
    /// A column that must be there.
    #[error("has no column `{english}` (or `{chinese}`): add it")]
    MissingHeading {
        /// The field's name.
        english: &'static str,
        /// The same in Chinese.
        chinese: &'static str,
    },
}

/// The lines of a file, in order.
pub type Feed<'a> = Box<dyn Iterator<Item = Result<Line, FeedError>> + 'a>;

/// Opens a feed by its file's name, or by its first bytes where the name does not tell: a JSON object's brace, or
/// nothing at all, makes NDJSON, everything else is a table.
pub fn open<'a>(
    name: &str,
    mut input: impl BufRead + 'a,
    kind: Kind,
    prohibited: &Prohibited,
) -> Result<Feed<'a>, FeedError> {
    let start = input.fill_buf()?;
    if start.starts_with(b"PK\x03\x04") || start.starts_with(&[0xD0, 0xCF, 0x11, 0xE0]) {
        return Err(FeedError::Packed);
    }
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    let ndjson = match extension.as_deref() {
        Some("csv") => false,
        Some("ndjson" | "jsonl" | "json") => true,
        _ => matches!(start.strip_prefix(ndjson::BOM).unwrap_or(start).trim_ascii_start().first(), None | Some(b'{')),
    };
    if ndjson {
        return Ok(Box::new(ndjson::Lines::new(input).map(|line| line.map_err(FeedError::Io))));
    }
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes)?;
    Ok(Box::new(csv::Rows::open(bytes, kind, prohibited)?.map(Ok)))
}
