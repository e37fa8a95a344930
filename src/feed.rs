//! Feeds: files of records or of the register become the lines that `intake` reads.
//!
//! A spreadsheet's row is written as the same JSON line that a provider sends, so there is one set
//! of rules for all of them and a row means what its line would mean. A feed knows the form of its
//! file, never whether a line is right. Invariants: a file is read in one encoding, decided once for
//! the whole of it, and where that is in doubt the file is refused and no name is guessed; what a file
//! is, its content says and not its name; memory does not grow with the file; no message repeats a cell.

use std::fmt;
use std::io::{self, BufRead, Cursor, Read, Seek, SeekFrom};

use crate::intake::LineError;
use crate::prohibited::Prohibited;

pub mod csv;
pub mod encoding;
pub mod mapping;
pub mod ndjson;
mod table;
pub mod xlsx;

pub use encoding::Encoding;
pub use mapping::Mapping;

/// The largest feed that is read from a pipe, which cannot be read twice.
pub const PIPE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What the lines of a file are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Records, a line each.
    Records,
    /// People of the register, a line each.
    Register,
}

/// What a file turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One JSON object a line.
    Ndjson,
    /// A table of text.
    Csv,
    /// A workbook.
    Xlsx,
}

/// How a file is to be read.
#[derive(Clone, Copy)]
pub struct How<'a> {
    /// What its lines are about.
    pub kind: Kind,
    /// What may not be collected.
    pub prohibited: &'a Prohibited,
    /// The encoding, where its sender named it.
    pub encoding: Option<Encoding>,
    /// What the headings and values of a department mean.
    pub mapping: Option<&'a Mapping>,
    /// Whose records they are, where a table does not say.
    pub provider: Option<&'a str>,
    /// Which sheet of a workbook, by its name.
    pub sheet: Option<&'a str>,
}

impl<'a> How<'a> {
    /// As the file itself says.
    pub fn plain(kind: Kind, prohibited: &'a Prohibited) -> Self {
        Self { kind, prohibited, encoding: None, mapping: None, provider: None, sheet: None }
    }
}

/// A line of a feed, or what is wrong with it before it is one.
#[derive(Clone, PartialEq, Eq)]
pub struct Line {
    /// The line of the file on which it begins, from 1; of a workbook the row.
    pub number: u64,
    /// One JSON object, as `intake` reads it.
    pub bytes: Result<Vec<u8>, LineError>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line(..)")
    }
}

/// Why a file cannot be read as a feed at all. Displays as what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The system could not read on.
    #[error("读不了 / cannot be read: {0}")]
    Io(#[from] io::Error),
    /// What its first bytes say that it is.
    #[error(
        "是{chinese}，不是表格：请另存为 CSV UTF-8 或 XLSX / is {english}, not a table: save it as CSV UTF-8 or XLSX"
    )]
    WrongKind {
        /// In Chinese.
        chinese: &'static str,
        /// In English.
        english: &'static str,
    },
    /// A mark of another encoding than the one that was named.
    #[error("开头有 UTF-8 标记，与 --encoding 不符 / begins with the mark of UTF-8: leave --encoding out")]
    OtherMark,
    /// No whole text in the encoding that it is in for all that can be seen, or that was named.
    #[error(
        "第 {line} 行不是所判定或所指定的编码 / cannot be read to its end: line {line} is the first that is no text in its encoding, neither UTF-8 nor GB18030 throughout: save it as CSV UTF-8, or name the encoding: --encoding utf-8 or --encoding gb18030"
    )]
    Encoding {
        /// The first line that cannot be decoded.
        line: u64,
    },
    /// Both encodings occur, or too little text to tell them apart.
    #[error(
        "无法确定是 UTF-8 还是 GB18030（见第 {line} 行），猜错会毁掉姓名 / is not for certain UTF-8 or GB18030 throughout (see line {line}), and a wrong guess would spoil names: save it as CSV UTF-8, or name the encoding: --encoding utf-8 or --encoding gb18030"
    )]
    DoubtfulEncoding {
        /// The first line that speaks against what the others say.
        line: u64,
    },
    /// A pipe with more than is read from one.
    #[error("is no file, and longer than {PIPE_BYTES_MAX} bytes: save it as a file first")]
    LongPipe,
    /// No line at all.
    #[error("是空的 / is empty: it must begin with a line of headings")]
    NoHeadings,
    /// A first line that is longer than any line may be.
    #[error(
        "第一行过长 / has a first line of more than {limit} bytes (too-large): it must be a line of headings; a quotation mark may be open"
    )]
    LongHeadings {
        /// The most bytes.
        limit: usize,
    },
    /// A first line without a single known heading; it may be a row, so nothing of it is shown.
    #[error(
        "第一行没有认识的表头 / has no known heading in its first line: begin with headings such as `id_number` or `证件号码`, separated by commas, tabs or semicolons (the full-width `，` separates nothing), or name a mapping file: --mapping"
    )]
    NoKnownHeading,
    /// Headings that tables of this kind do not have.
    #[error(
        "有不认识的表头 / has {count} unknown heading{s}, {shown}: take the columns out, correct their names, or list them under `ignore` in a mapping file", s = if *count == 1 { "" } else { "s" }
    )]
    UnknownHeadings {
        /// How many.
        count: usize,
        /// The first ones.
        shown: String,
    },
    /// A heading that is an item which the law forbids to collect.
    #[error(
        "含禁止采集的项目 / has the heading {0}, a prohibited item (prohibited-item), which the law forbids to collect: take the column out"
    )]
    ProhibitedHeading(String),
    /// Two columns for one field.
    #[error("有两列是同一项 / has two columns for `{0}`: take one of them out")]
    HeadingTwice(&'static str),
    /// A column that must be there.
    #[error("缺少“{chinese}”列 / has no column `{english}` (or `{chinese}`): add it")]
    MissingHeading {
        /// The field's name.
        english: &'static str,
        /// The same in Chinese.
        chinese: &'static str,
    },
    /// NDJSON has no headings that could be mapped.
    #[error("是 NDJSON，映射文件只用于表格 / is NDJSON, and a mapping file is for tables: leave --mapping out")]
    NothingToMap,
    /// A text has no sheets.
    #[error("不是 XLSX，没有工作表 / is no XLSX and has no sheets: leave --sheet out")]
    NoSheets,
    /// A workbook without a sheet of this name.
    #[error("没有这张工作表 / has no sheet of that name; its sheets are {0}")]
    NoSuchSheet(String),
    /// A workbook that is not whole.
    #[error("文件不完整或已损坏 / is damaged or cut off ({0}): copy or export it again")]
    Damaged(String),
    /// A workbook beyond a limit.
    #[error("超出上限 / is too large (too-large): {what}, at most {limit}; send it in parts, or as CSV UTF-8")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
}

/// The lines of a file, in order.
pub type Feed<'a> = Box<dyn Iterator<Item = Result<Line, FeedError>> + Send + 'a>;

/// A file that is open: what it is, what there is to say about it, and its lines.
pub struct Opened<'a> {
    /// What it turned out to be.
    pub form: Form,
    /// What whoever sent it should know, Chinese first.
    pub notes: Vec<String>,
    /// Its lines.
    pub lines: Feed<'a>,
}

impl fmt::Debug for Opened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opened({:?})", self.form)
    }
}

/// Whatever a feed can be read from.
pub trait Source: Read + Seek + Send {}

impl<T: Read + Seek + Send> Source for T {}

/// A file, or all of a pipe.
pub fn source(mut file: std::fs::File) -> Result<Box<dyn Source>, FeedError> {
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder").into());
    }
    if kind.is_file() && file.seek(SeekFrom::Start(0)).is_ok() {
        return Ok(Box::new(file));
    }
    let mut bytes = Vec::new();
    file.take(PIPE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > PIPE_BYTES_MAX {
        return Err(FeedError::LongPipe);
    }
    Ok(Box::new(Cursor::new(bytes)))
}

/// What files begin with that are none, and what they are.
const OTHERS: &[(&[u8], &str, &str)] = &[
    (&[0xD0, 0xCF, 0x11, 0xE0], "旧式 .xls 或加密的文件", "an old .xls or a workbook with a password"),
    (b"PK\x05\x06", "空压缩包", "an empty packed file"),
    (b"%PDF", "PDF", "a PDF"),
    (b"\x1f\x8b", "压缩包", "a packed file"),
    (b"7z\xbc\xaf", "压缩包", "a packed file"),
    (b"Rar!", "压缩包", "a packed file"),
    (b"\x89PNG", "图片", "a picture"),
    (b"\xff\xd8\xff", "图片", "a picture"),
    (b"{\\rtf", "RTF 文档", "an RTF document"),
    (b"SQLite format 3\0", "数据库", "a database"),
];

/// Opens a feed. What it is, its content says; its name tells only whether text that begins oddly was to be NDJSON.
pub fn open<'a>(name: &str, mut input: impl Source + 'a, how: &How<'_>) -> Result<Opened<'a>, FeedError> {
    input.seek(SeekFrom::Start(0))?;
    let mut first = Vec::new();
    (&mut input).take(16).read_to_end(&mut first)?;
    if first.starts_with(b"PK\x03\x04") {
        let (notes, lines) = xlsx::open(input, how)?;
        return Ok(Opened { form: Form::Xlsx, notes, lines });
    }
    if let Some((_, chinese, english)) = OTHERS.iter().find(|(start, ..)| first.starts_with(start)) {
        return Err(FeedError::WrongKind { chinese, english });
    }
    let mut text = encoding::Text::open(input, how.encoding)?;
    let head = text.fill_buf()?;
    let wrong = |chinese, english| Err(FeedError::WrongKind { chinese, english });
    let begins = head.trim_ascii_start().first();
    match begins {
        Some(b'<') => return wrong("网页或 XML", "a web page or XML"),
        Some(b'[') => return wrong("JSON 数组", "a JSON array: write one object a line"),
        _ if head.contains(&0) => return wrong("二进制文件", "no text"),
        _ if how.sheet.is_some() => return Err(FeedError::NoSheets),
        _ => {}
    }
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    let ndjson = match extension.as_deref() {
        _ if begins == Some(&b'{') => true,
        Some("ndjson" | "jsonl" | "json") => !csv::begins_with_headings(head, how),
        Some("csv" | "tsv" | "txt" | "xlsx" | "xls") => false,
        _ => begins.is_none(),
    };
    if ndjson {
        if how.mapping.is_some() {
            return Err(FeedError::NothingToMap);
        }
        let lines = Box::new(ndjson::Lines::new(text).map(|line| line.map_err(FeedError::Io)));
        return Ok(Opened { form: Form::Ndjson, notes: Vec::new(), lines });
    }
    let rows = csv::Rows::open(text, how)?;
    Ok(Opened { form: Form::Csv, notes: Vec::new(), lines: Box::new(rows) })
}
