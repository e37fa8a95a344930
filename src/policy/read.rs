//! Tables and values of a policy file, each with its place.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use jiff::civil::Date;
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::{Mistake, Mistakes, Source, said};
use crate::code::CodeError;
use crate::text::{Bilingual, nearest};

/// The most characters a text in a policy has.
const TEXT_CHARS_MAX: usize = 1_000;

/// A file taken apart, with the place of every part.
pub struct Document<'s> {
    source: &'s Source,
    root: DeTable<'s>,
    /// Not all of it could be taken apart.
    broken: bool,
}

impl<'s> Document<'s> {
    /// Takes a file apart as far as it goes.
    pub fn parse(source: &'s Source, mistakes: &mut Mistakes) -> Self {
        let (root, errors) = DeTable::parse_recoverable(&source.text);
        let (mut broken, mut last_line) = (false, 0);
        for e in errors {
            let span = e.span().unwrap_or(source.text.len()..source.text.len());
            if e.message() == "duplicate key" {
                let key = source.text.get(span.clone()).unwrap_or_default();
                mistakes.add(Mistake::new(
                    source,
                    span.clone(),
                    format!("`{key}` is said twice"),
                    "each key once",
                    "take one of the two out",
                ));
                continue;
            }
            broken = true;
            let (what, expected) = e.message().split_once(", expected ").unwrap_or((e.message(), "TOML"));
            let mistake =
                Mistake::new(source, span, what, expected, "correct the line; quote texts, separate values by commas");
            // what follows on a broken line mostly follows from it
            if mistake.line != last_line {
                last_line = mistake.line;
                mistakes.add(mistake);
            }
        }
        Self { source, root: root.into_inner(), broken }
    }

    /// The whole file as a table.
    pub fn root(&self) -> Table<'_> {
        Table {
            source: self.source,
            broken: self.broken,
            span: 0..0,
            what: "the file",
            fields: &self.root,
            asked: Vec::new(),
        }
    }

    /// Whether not all of the file could be taken apart, so that what it does not say may stand in a broken line.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// A mistake at the place that `path` leads to: fields by name, tables of a list by their `id` or `code`, texts of a
    /// list by themselves. Where the path leads nowhere, the last place it did lead to is named.
    pub fn wrong(
        &self,
        mistakes: &mut Mistakes,
        path: &[&str],
        what: impl Into<String>,
        expected: impl Into<String>,
        help: impl Into<String>,
    ) {
        let mut span = 0..0;
        let mut steps = path.iter().peekable();
        let mut table = Some(&self.root);
        while let (Some(fields), Some(step)) = (table.take(), steps.next()) {
            let Some((key, value)) = fields.iter().find(|(key, _)| key.get_ref() == step) else { break };
            span = if value.span().is_empty() { key.span() } else { value.span() };
            match value.get_ref() {
                DeValue::Table(inner) => table = Some(inner),
                DeValue::Array(list) => {
                    let Some(step) = steps.next() else { break };
                    for item in list.iter() {
                        match item.get_ref() {
                            DeValue::Table(inner) if named(inner, step) => (span, table) = (item.span(), Some(inner)),
                            DeValue::String(text) if text == step => span = item.span(),
                            DeValue::Integer(number) if number.as_str() == *step => span = item.span(),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        mistakes.add(Mistake::new(self.source, span, what, expected, help));
    }
}

fn named(table: &DeTable<'_>, name: &str) -> bool {
    ["id", "code"]
        .iter()
        .any(|field| matches!(table.get(*field).map(Spanned::get_ref), Some(DeValue::String(text)) if text == name))
}

/// A table of a file. Fields are asked for by name; [`Table::finish`] names those that nobody asked for.
pub struct Table<'d> {
    source: &'d Source,
    broken: bool,
    span: Range<usize>,
    what: &'static str,
    fields: &'d DeTable<'d>,
    asked: Vec<&'static str>,
}

impl<'d> Table<'d> {
    /// A field that may be left out.
    pub fn take(&mut self, name: &'static str) -> Option<Value<'d>> {
        self.asked.push(name);
        // where a value could not be read, the parser leaves an empty one
        let value = self.fields.get(name).filter(|value| !(self.broken && value.span().is_empty()))?;
        Some(Value { source: self.source, broken: self.broken, span: value.span(), name, value: value.get_ref() })
    }

    /// A field that must be there.
    pub fn need(&mut self, name: &'static str, mistakes: &mut Mistakes) -> Option<Value<'d>> {
        let value = self.take(name);
        if value.is_none() && !self.broken {
            self.wrong(
                mistakes,
                format!("{} without `{name}`", self.what),
                format!("a field `{name}`"),
                format!("add `{name} = …`"),
            );
        }
        value
    }

    /// The tables `[[name]]`; none at all is a mistake if `needed`.
    pub fn tables(&mut self, name: &'static str, needed: bool, mistakes: &mut Mistakes) -> Vec<Table<'d>> {
        let value = if needed { self.need(name, mistakes) } else { self.take(name) };
        let Some(value) = value else { return Vec::new() };
        value.list(mistakes).into_iter().filter_map(|v| v.table(name, mistakes)).collect()
    }

    /// Names the fields that nobody asked for.
    pub fn finish(self, mistakes: &mut Mistakes) {
        for key in self.fields.keys().filter(|key| !self.asked.contains(&key.get_ref().as_ref())) {
            let found: &str = key.get_ref();
            let help = match nearest(found, self.asked.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "take it out".to_owned(),
            };
            let expected =
                format!("only {}", self.asked.iter().map(|a| format!("`{a}`")).collect::<Vec<_>>().join(", "));
            mistakes.add(Mistake::new(
                self.source,
                key.span(),
                format!("unknown field `{found}` in {}", self.what),
                expected,
                help,
            ));
        }
    }

    /// A mistake about the table as a whole.
    pub fn wrong(
        &self,
        mistakes: &mut Mistakes,
        what: impl Into<String>,
        expected: impl Into<String>,
        help: impl Into<String>,
    ) {
        mistakes.add(Mistake::new(self.source, self.span.clone(), what, expected, help));
    }

    /// Whether its file is broken, so that nothing may be called missing.
    pub fn is_broken(&self) -> bool {
        self.broken
    }
}

/// A value and its place.
pub struct Value<'d> {
    source: &'d Source,
    broken: bool,
    span: Range<usize>,
    name: &'static str,
    value: &'d DeValue<'d>,
}

impl<'d> Value<'d> {
    /// A mistake about this value.
    pub fn wrong(
        &self,
        mistakes: &mut Mistakes,
        what: impl Into<String>,
        expected: impl Into<String>,
        help: impl Into<String>,
    ) {
        mistakes.add(Mistake::new(self.source, self.span.clone(), what, expected, help));
    }

    fn wrong_type<T>(&self, mistakes: &mut Mistakes, expected: &str, help: impl Into<String>) -> Option<T> {
        let found = match self.value {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.wrong(mistakes, format!("`{}` is {found}", self.name), expected, help);
        None
    }

    /// A text: not empty, no blanks around it, no control or direction characters, at most 1,000 characters.
    pub fn text(&self, mistakes: &mut Mistakes) -> Option<&'d str> {
        let DeValue::String(text) = self.value else {
            return self.wrong_type(mistakes, "a text", "put it in quotation marks");
        };
        let text: &str = text;
        let hidden = |c: char| {
            c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
        };
        let fault = if text.trim().is_empty() {
            Some("is empty")
        } else if text.trim() != text {
            Some("has blanks around it")
        } else if text.contains(hidden) {
            Some("has a control character or a direction mark")
        } else if text.chars().count() > TEXT_CHARS_MAX {
            Some("is too long")
        } else {
            None
        };
        if let Some(fault) = fault {
            let expected = format!("a text of 1 to {TEXT_CHARS_MAX} visible characters");
            self.wrong(mistakes, format!("`{}` {fault}", self.name), expected, "write it again in plain characters");
            return None;
        }
        Some(text)
    }

    /// A text as far as it is one, with no mistake said.
    pub fn as_text(&self) -> Option<&'d str> {
        if let DeValue::String(text) = self.value { Some(text) } else { None }
    }

    /// A whole number within a range.
    pub fn whole(&self, range: RangeInclusive<i64>, mistakes: &mut Mistakes) -> Option<i64> {
        let DeValue::Integer(number) = self.value else {
            return self.wrong_type(mistakes, &said(&range), "write a whole number without quotation marks");
        };
        let found = integer(number).filter(|n| range.contains(n));
        if found.is_none() {
            self.wrong(
                mistakes,
                format!("`{}` is {number}", self.name),
                said(&range),
                "choose a number within the range",
            );
        }
        found
    }

    /// `true` or `false`.
    pub fn flag(&self, mistakes: &mut Mistakes) -> Option<bool> {
        match self.value {
            DeValue::Boolean(flag) => Some(*flag),
            _ => self.wrong_type(mistakes, "true or false", "write true or false, without quotation marks"),
        }
    }

    /// A day, as TOML's own date or as a text `YYYY-MM-DD`.
    pub fn date(&self, mistakes: &mut Mistakes) -> Option<Date> {
        let found = match self.value {
            DeValue::Datetime(d) if d.time.is_none() && d.offset.is_none() => d.date.and_then(|d| {
                let (year, month, day) =
                    (i16::try_from(d.year).ok()?, i8::try_from(d.month).ok()?, i8::try_from(d.day).ok()?);
                Date::new(year, month, day).ok()
            }),
            DeValue::String(text) if text.len() == 10 => Date::strptime("%Y-%m-%d", text.as_ref()).ok(),
            _ => None,
        };
        if found.is_none() {
            self.wrong(
                mistakes,
                format!("`{}` is no day", self.name),
                "a day as \"2027-01-31\"",
                "write year, month and day",
            );
        }
        found
    }

    /// The values of a list.
    pub fn list(&self, mistakes: &mut Mistakes) -> Vec<Value<'d>> {
        let DeValue::Array(list) = self.value else {
            return self.wrong_type(mistakes, "a list", "put the values in brackets: [ … ]").unwrap_or_default();
        };
        let part = |item: &'d Spanned<DeValue<'d>>| Value { span: item.span(), value: item.get_ref(), ..*self };
        list.iter().filter(|item| !(self.broken && item.span().is_empty())).map(part).collect()
    }

    /// A list that holds something.
    pub fn list_of_some(&self, mistakes: &mut Mistakes) -> Vec<Value<'d>> {
        let list = self.list(mistakes);
        if list.is_empty() && matches!(self.value, DeValue::Array(_)) {
            self.wrong(mistakes, format!("`{}` is an empty list", self.name), "at least one value", "add one");
        }
        list
    }

    /// A table; `what` names it in messages.
    pub fn table(&self, what: &'static str, mistakes: &mut Mistakes) -> Option<Table<'d>> {
        let DeValue::Table(fields) = self.value else {
            return self.wrong_type(mistakes, "a table", "write { … }");
        };
        Some(Table {
            source: self.source,
            broken: self.broken,
            span: self.span.clone(),
            what,
            fields,
            asked: Vec::new(),
        })
    }

    /// An id of some kind, by its own parser.
    pub fn code<T>(&self, parse: fn(&str) -> Result<T, CodeError>, mistakes: &mut Mistakes) -> Option<T> {
        let text = self.text(mistakes)?;
        match parse(text) {
            Ok(code) => Some(code),
            Err(e) => {
                self.wrong(mistakes, format!("`{}` is \"{text}\"", self.name), e.to_string(), "choose such an id");
                None
            }
        }
    }

    /// One of the given words.
    pub fn choice<T: Clone>(&self, options: &[(&'static str, T)], mistakes: &mut Mistakes) -> Option<T> {
        let text = self.text(mistakes)?;
        let found = options.iter().find(|(word, _)| *word == text).map(|(_, value)| value.clone());
        if found.is_none() {
            let help = match nearest(text, options.iter().map(|(word, _)| *word)) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "choose one of these".to_owned(),
            };
            let words = options.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
            self.wrong(mistakes, format!("`{}` is \"{text}\"", self.name), format!("one of {words}"), help);
        }
        found
    }

    /// A text in both languages: `{ zh = "…", en = "…" }`.
    pub fn bilingual(&self, mistakes: &mut Mistakes) -> Option<Bilingual> {
        let mut table = self.table("a text in two languages", mistakes)?;
        let mut say = |language| table.need(language, mistakes).and_then(|v| v.text(mistakes)).map(str::to_owned);
        let (zh, en) = (say("zh"), say("en"));
        table.finish(mistakes);
        Some(Bilingual { zh: zh?, en: en? })
    }
}

/// A number as TOML writes it, in any of its bases, or `None` where it is beyond 64 bits.
fn integer(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// Sees to it that a thing is said once: remembers what was said, and where in the file.
#[derive(Default)]
pub struct Once(BTreeMap<String, usize>);

impl Once {
    /// Whether `said` is new here; if not, that is a mistake.
    pub fn is_new(&mut self, said: &str, value: &Value<'_>, mistakes: &mut Mistakes) -> bool {
        let Some(first) = self.0.get(said) else {
            self.0.insert(said.to_owned(), value.span.start);
            return true;
        };
        let line = value.source.text.get(..*first).unwrap_or_default().matches('\n').count() + 1;
        let what = format!("`{}` \"{said}\" is said twice, first in line {line}", value.name);
        value.wrong(mistakes, what, "each one once", "take one of the two out, or rename it");
        false
    }

    /// Whether it was said.
    pub fn has(&self, said: &str) -> bool {
        self.0.contains_key(said)
    }

    /// All that was said.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}
