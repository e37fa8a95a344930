//! Reads a file on a thread of its own and cuts it into batches.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;

use jiff::civil::Date;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::What;
use super::progress::Watched;
use super::target::Rejected;
use crate::feed::{self, FeedError, Form, How, Kind, Line};
use crate::intake::{LineCode, LineError};
use crate::person::{IdType, Identity};

/// As many lines as one entry of the log covers, so that a batch is taken whole or not at all.
const BATCH_LINES: usize = 500;
/// The most bytes of a batch.
const BATCH_BYTES: usize = 2 * 1024 * 1024;
/// How many batches wait to be sent.
const WAITING: usize = 2;

/// What comes of a file.
pub(super) enum Read {
    /// It is open; what there is to say about it.
    Opened(Vec<String>),
    /// Some lines.
    Batch(Batch),
    /// It cannot be read, or not on.
    Failed(FeedError),
    /// All of it was read.
    End,
}

/// Lines that go together.
#[derive(Default)]
pub(super) struct Batch {
    /// Each line's number in the file.
    pub(super) numbers: Vec<u64>,
    /// The lines, each with its end.
    pub(super) body: Vec<u8>,
    /// What they are about: the record's id, or the number of a line of the register. By line in `named`.
    pub(super) keys: HashSet<String>,
    pub(super) named: Vec<Option<String>>,
    /// Lines that are refused as they stand in the file.
    pub(super) refused: Vec<Rejected>,
}

/// A file that is being read.
pub(super) struct Reading(mpsc::Receiver<Read>);

impl Reading {
    /// Opens a file and reads on as batches are taken.
    pub(super) fn start(file: Watched, path: &Path, what: &What) -> Self {
        let (to, from) = mpsc::channel(WAITING);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (feed, mapping, kind) = (what.feed.clone(), what.mapping.clone(), what.kind);
        let (provider, prohibited) = (what.provider.clone(), what.prohibited.clone());
        tokio::task::spawn_blocking(move || {
            let how = How {
                kind,
                prohibited: &prohibited,
                encoding: feed.encoding,
                mapping: mapping.as_ref().as_ref(),
                provider: Some(&provider),
                sheet: feed.sheet.as_deref(),
            };
            // Nobody waits any more where the receiver is gone.
            let _gone = match read(file, &name, &how, &to) {
                Ok(()) => to.blocking_send(Read::End),
                Err(error) => to.blocking_send(Read::Failed(error)),
            };
        });
        Self(from)
    }

    /// What comes next; after the end, the end.
    pub(super) async fn next(&mut self) -> Read {
        self.0.recv().await.unwrap_or(Read::End)
    }
}

fn read(file: Watched, name: &str, how: &How<'_>, to: &mpsc::Sender<Read>) -> Result<(), FeedError> {
    let opened = feed::open(name, file, how)?;
    let mut notes = opened.notes;
    if opened.form == Form::Csv && name.to_ascii_lowercase().ends_with(".xlsx") {
        notes.push("内容是文本表格，按 CSV 读取 / its content is a table of text, and is read as CSV".to_owned());
    }
    if to.blocking_send(Read::Opened(notes)).is_err() {
        return Ok(());
    }
    let mut batch = Batch::default();
    for line in opened.lines {
        // Batches of what was read before go first, so that what is said of the end is true.
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                let _gone = to.blocking_send(Read::Batch(batch));
                return Err(error);
            }
        };
        batch.add(line, how.kind);
        let full = batch.numbers.len() >= BATCH_LINES || batch.refused.len() >= BATCH_LINES;
        if (full || batch.body.len() >= BATCH_BYTES)
            && to.blocking_send(Read::Batch(std::mem::take(&mut batch))).is_err()
        {
            return Ok(());
        }
    }
    let _gone = to.blocking_send(Read::Batch(batch));
    Ok(())
}

impl Batch {
    fn add(&mut self, line: Line, kind: Kind) {
        let empty = || LineError::new(LineCode::Malformed, "the line is empty: send one JSON object a line");
        let bytes = line.bytes.and_then(|bytes| if bytes.trim_ascii().is_empty() { Err(empty()) } else { Ok(bytes) });
        match bytes {
            Ok(bytes) => self.push(line.number, &bytes, key(&bytes, kind)),
            Err(error) => self.refused.push(Rejected {
                line: line.number,
                code: error.code.as_str().to_owned(),
                message: error.message,
            }),
        }
    }

    pub(super) fn push(&mut self, number: u64, bytes: &[u8], key: Option<String>) {
        self.numbers.push(number);
        self.body.extend_from_slice(bytes);
        self.body.push(b'\n');
        self.keys.extend(key.clone());
        self.named.push(key);
    }

    /// The lines as they were added: number, bytes without an end, what they are about.
    pub(super) fn lines(&self) -> impl Iterator<Item = (u64, &[u8], Option<&String>)> {
        let lines = self.body.split(|byte| *byte == b'\n');
        let about = self.named.iter().map(Option::as_ref);
        self.numbers.iter().zip(lines).zip(about).map(|((number, line), key)| (*number, line, key))
    }
}

#[derive(Deserialize)]
struct About<'l> {
    #[serde(borrow)]
    id: Option<Cow<'l, str>>,
    #[serde(borrow)]
    id_type: Option<Cow<'l, str>>,
    #[serde(borrow)]
    id_number: Option<Cow<'l, str>>,
}

/// What a line is about; none where it will be refused in any case.
fn key(line: &[u8], kind: Kind) -> Option<String> {
    let about: About<'_> = serde_json::from_slice(line).ok()?;
    match kind {
        Kind::Records => about.id.map(Cow::into_owned),
        Kind::Register => {
            let id_type = match about.id_type {
                Some(code) => IdType::parse(&code)?,
                None => IdType::ResidentId,
            };
            // Both forms of one number are one person; whether the birth is possible is not asked here.
            let identity = Identity::parse(id_type, &about.id_number?, Date::MAX).ok()?;
            Some(format!("{id_type} {}", identity.number()))
        }
    }
}
