//! What a workbook says beside its sheets: which sheets there are, from which day it counts, which cells are dates, and
//! the texts that cells share.

use std::io::{Read, Seek};

use quick_xml::events::Event;

use super::archive::Archive;
use super::xml::{Xml, add_text, attribute, is_set, unescaped};
use crate::feed::FeedError;

/// The most sheets, styles and formats that are read.
const LISTED_MAX: usize = 70_000;
/// The most bytes of shared texts in all, and the most of them.
const SHARED_BYTES_MAX: usize = 128 * 1024 * 1024;
const SHARED_MAX: usize = 8_000_000;

/// A sheet, as the workbook names it.
pub(super) struct Sheet {
    pub(super) name: String,
    relation: String,
    pub(super) hidden: bool,
    /// Its part.
    pub(super) part: String,
}

/// What a workbook says about itself.
pub(super) struct Book {
    pub(super) sheets: Vec<Sheet>,
    /// Days count from 1904 on.
    pub(super) from_1904: bool,
    /// By style: whether a number is shown as a date.
    pub(super) dates: Vec<bool>,
    pub(super) shared: Shared,
}

/// One relation of a part: id, last word of its type, target.
struct Relation {
    id: String,
    kind: String,
    target: String,
}

/// A path relative to a folder of the workbook.
fn path(folder: &str, target: &str) -> String {
    if let Some(whole) = target.strip_prefix('/') {
        return whole.to_owned();
    }
    let mut steps: Vec<&str> = folder.split('/').filter(|step| !step.is_empty()).collect();
    for step in target.split('/') {
        match step {
            ".." => drop(steps.pop()),
            "." | "" => {}
            step => steps.push(step),
        }
    }
    steps.join("/")
}

fn relations<R: Read + Seek>(archive: &mut Archive<R>, part: &str) -> Result<Vec<Relation>, FeedError> {
    let (folder, name) = part.rsplit_once('/').unwrap_or(("", part));
    let named = path(folder, &format!("_rels/{name}.rels"));
    let mut found = Vec::new();
    if !archive.has(&named) {
        return Ok(found);
    }
    let mut xml = Xml::new(archive.part(&named)?);
    loop {
        match xml.next()? {
            Event::Start(tag) if tag.local_name().as_ref() == "Relationship" => {
                let text = |name| Ok::<_, FeedError>(attribute(&tag, name)?.unwrap_or_default().into_owned());
                let kind = text("Type")?;
                let kind = kind.rsplit('/').next().unwrap_or_default().to_owned();
                if attribute(&tag, "TargetMode")?.as_deref() != Some("External") {
                    found.push(Relation { id: text("Id")?, kind, target: path(folder, &text("Target")?) });
                }
                if found.len() > LISTED_MAX {
                    return Err(FeedError::TooLarge { what: "relations", limit: LISTED_MAX as u64 });
                }
            }
            Event::Eof => return Ok(found),
            _ => {}
        }
    }
}

impl Book {
    /// Reads it all.
    pub(super) fn read<R: Read + Seek>(archive: &mut Archive<R>) -> Result<Self, FeedError> {
        let no_book = FeedError::WrongKind {
            chinese: "压缩包，其中没有 XLSX 工作簿",
            english: "a packed file without an XLSX workbook in it",
        };
        if !archive.has("[Content_Types].xml") {
            return Err(no_book);
        }
        let document = relations(archive, "")?.into_iter().find(|relation| relation.kind == "officeDocument");
        let document = document.map_or_else(|| "xl/workbook.xml".to_owned(), |relation| relation.target);
        if !archive.has(&document) || !document.to_ascii_lowercase().ends_with(".xml") {
            return Err(no_book);
        }
        let (mut sheets, from_1904) = match workbook(archive, &document)? {
            Some(read) => read,
            None => return Err(no_book),
        };
        let relations = relations(archive, &document)?;
        for sheet in &mut sheets {
            let found = relations.iter().find(|relation| relation.id == sheet.relation && relation.kind == "worksheet");
            sheet.part = found.map(|relation| relation.target.clone()).unwrap_or_default();
        }
        // Sheets of charts have no rows.
        sheets.retain(|sheet| !sheet.part.is_empty());
        let part = |kind: &str| relations.iter().find(|relation| relation.kind == kind).map(|r| r.target.clone());
        let dates = match part("styles").filter(|part| archive.has(part)) {
            Some(part) => dates(archive, &part)?,
            None => Vec::new(),
        };
        let shared = match part("sharedStrings").filter(|part| archive.has(part)) {
            Some(part) => Shared::read(archive, &part)?,
            None => Shared::default(),
        };
        Ok(Self { sheets, from_1904, dates, shared })
    }
}

/// The sheets, and whether days count from 1904; nothing where it is no workbook.
fn workbook<R: Read + Seek>(archive: &mut Archive<R>, part: &str) -> Result<Option<(Vec<Sheet>, bool)>, FeedError> {
    let mut xml = Xml::new(archive.part(part)?);
    let (mut sheets, mut from_1904, mut is_book) = (Vec::new(), false, false);
    loop {
        match xml.next()? {
            Event::Start(tag) => match tag.local_name().as_ref() {
                "workbook" => is_book = true,
                "workbookPr" => from_1904 = is_set(&tag, "date1904")?,
                "sheet" => {
                    let state = attribute(&tag, "state")?.unwrap_or_default();
                    sheets.push(Sheet {
                        name: attribute(&tag, "name")?.unwrap_or_default().into_owned(),
                        relation: attribute(&tag, "id")?.unwrap_or_default().into_owned(),
                        hidden: matches!(&*state, "hidden" | "veryHidden"),
                        part: String::new(),
                    });
                    if sheets.len() > LISTED_MAX {
                        return Err(FeedError::TooLarge { what: "sheets", limit: LISTED_MAX as u64 });
                    }
                }
                _ => {}
            },
            Event::Eof => return Ok(is_book.then_some((sheets, from_1904))),
            _ => {}
        }
    }
}

/// By style, whether its cells are dates.
fn dates<R: Read + Seek>(archive: &mut Archive<R>, part: &str) -> Result<Vec<bool>, FeedError> {
    let mut xml = Xml::new(archive.part(part)?);
    let (mut own, mut styles, mut within) = (std::collections::HashMap::new(), Vec::new(), false);
    loop {
        match xml.next()? {
            Event::Start(tag) => match tag.local_name().as_ref() {
                "numFmt" => {
                    let code = attribute(&tag, "formatCode")?.unwrap_or_default();
                    let id = attribute(&tag, "numFmtId")?.unwrap_or_default().into_owned();
                    own.insert(id, is_date_format(&code));
                }
                "cellXfs" => within = true,
                "xf" if within => {
                    let id = attribute(&tag, "numFmtId")?.unwrap_or_default();
                    let builtin = || matches!(id.parse(), Ok(14..=17 | 22 | 27..=31 | 36 | 50..=54 | 57 | 58));
                    styles.push(own.get(&*id).copied().unwrap_or_else(builtin));
                }
                _ => {}
            },
            Event::End(tag) if tag.local_name().as_ref() == "cellXfs" => within = false,
            Event::Eof => return Ok(styles),
            _ => {}
        }
        if styles.len() > LISTED_MAX || own.len() > LISTED_MAX {
            return Err(FeedError::TooLarge { what: "styles", limit: LISTED_MAX as u64 });
        }
    }
}

/// Whether a number's format shows a year or a day, outside of quoted and escaped texts and conditions.
fn is_date_format(code: &str) -> bool {
    let (mut chars, mut quoted, mut bracket) = (code.chars(), false, false);
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' | '_' | '*' if !quoted => drop(chars.next()),
            '[' if !quoted => bracket = true,
            ']' if !quoted => bracket = false,
            'y' | 'Y' | 'd' | 'D' if !quoted && !bracket => return true,
            _ => {}
        }
    }
    false
}

/// Texts that cells share, one behind the other.
#[derive(Default)]
pub(super) struct Shared {
    text: String,
    ends: Vec<u32>,
}

impl Shared {
    fn read<R: Read + Seek>(archive: &mut Archive<R>, part: &str) -> Result<Self, FeedError> {
        let mut xml = Xml::new(archive.part(part)?);
        let (mut shared, mut run) = (Self::default(), Run::default());
        loop {
            let event = xml.next()?;
            if matches!(event, Event::Eof) {
                return Ok(shared);
            }
            run.event(&event)?;
            if let Event::End(tag) = &event
                && tag.local_name().as_ref() == "si"
            {
                shared.text.push_str(&unescaped(&run.take()));
                shared.ends.push(u32::try_from(shared.text.len()).unwrap_or(u32::MAX));
            }
            if shared.text.len() + run.text.len() > SHARED_BYTES_MAX || shared.ends.len() > SHARED_MAX {
                return Err(FeedError::TooLarge { what: "bytes of shared texts", limit: SHARED_BYTES_MAX as u64 });
            }
        }
    }

    /// A text by its number.
    pub(super) fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)? as usize;
        let begin = if index == 0 { 0 } else { *self.ends.get(index - 1)? as usize };
        self.text.get(begin..end)
    }
}

/// A text of runs: what stands in `t`, outside of the guides to its pronunciation.
#[derive(Default)]
pub(super) struct Run {
    text: String,
    within_text: bool,
    guides: u32,
}

impl Run {
    pub(super) fn event(&mut self, event: &Event<'_>) -> Result<(), FeedError> {
        match event {
            Event::Start(tag) => match tag.local_name().as_ref() {
                "rPh" => self.guides += 1,
                "t" => self.within_text = self.guides == 0,
                _ => {}
            },
            Event::End(tag) => match tag.local_name().as_ref() {
                "rPh" => self.guides = self.guides.saturating_sub(1),
                "t" => self.within_text = false,
                _ => {}
            },
            event if self.within_text => add_text(event, &mut self.text)?,
            _ => {}
        }
        Ok(())
    }

    pub(super) fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    pub(super) fn len(&self) -> usize {
        self.text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_of_dates() {
        for code in ["yyyy/m/d", "[$-804]yyyy\"年\"m\"月\"d\"日\"", "d-mmm-yy", "m/d/yy h:mm", "[$-F800]dddd"] {
            assert!(is_date_format(code), "{code}");
        }
        for code in ["0.00", "General", "h:mm:ss", "#,##0\"day\"", "[Red]0", "0\\d", "@", "[DBNum1]0"] {
            assert!(!is_date_format(code), "{code}");
        }
    }

    #[test]
    fn targets_of_relations() {
        assert_eq!(path("xl", "worksheets/sheet1.xml"), "xl/worksheets/sheet1.xml");
        assert_eq!(path("xl", "/xl/worksheets/sheet1.xml"), "xl/worksheets/sheet1.xml");
        assert_eq!(path("", "./xl/workbook.xml"), "xl/workbook.xml");
        assert_eq!(path("a/b", "../../../../c"), "c");
    }
}
