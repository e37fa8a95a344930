//! Reads policy files so that every mistake in them is found at once, each with its place, what was expected and what
//! to do.
//!
//! A reader asks a [`Table`] for its fields and never stops at a mistake: what cannot be read is `None`, the mistake is
//! in [`Mistakes`], and reading goes on. A file with a broken line is read as far as it goes; in it nothing is called
//! missing, since what is missing may stand in that line. It knows the form of TOML and of single values, and nothing
//! of what policies mean.

use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use miette::NamedSource;

mod read;

pub use read::{Document, Once, Table, Value};

/// One policy file, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name as it stands in messages, relative to the policy folder.
    pub name: String,
    /// All of it.
    pub text: Arc<str>,
}

impl Source {
    /// A file of this name and content.
    pub fn new(name: impl Into<String>, text: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// The same from bytes; what is not UTF-8 is a mistake, and the rest is read as far as it goes.
    pub fn from_bytes(name: &str, bytes: &[u8], mistakes: &mut Mistakes) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::new(name, text),
            Err(e) => {
                let readable = bytes.get(..e.valid_up_to()).unwrap_or_default();
                let source = Self::new(name, String::from_utf8_lossy(readable).as_ref());
                let end = source.text.len();
                mistakes.add(Mistake::new(
                    &source,
                    end..end,
                    "a byte that is no UTF-8",
                    "UTF-8 throughout",
                    "save the file as UTF-8",
                ));
                source
            }
        }
    }
}

/// One mistake in a policy file.
#[derive(Debug, Clone)]
pub struct Mistake {
    /// The file's name.
    pub file: String,
    /// Where in the file, in bytes.
    pub span: Range<usize>,
    /// The line of the span's beginning, from 1.
    pub line: usize,
    /// The character of that line, from 1.
    pub column: usize,
    /// What was found.
    pub what: String,
    /// What would have been right.
    pub expected: String,
    /// What to do.
    pub help: String,
    source: NamedSource<Arc<str>>,
}

impl Mistake {
    /// A mistake at `span` of `source`; a span outside the text is moved to its end.
    pub fn new(
        source: &Source,
        span: Range<usize>,
        what: impl Into<String>,
        expected: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let text = &source.text;
        let mut start = span.start.min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let mut end = span.end.clamp(start, text.len());
        while !text.is_char_boundary(end) {
            end += 1;
        }
        let before = text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        Self {
            file: source.name.clone(),
            span: start..end,
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            what: what.into(),
            expected: expected.into(),
            help: help.into(),
            source: NamedSource::new(&source.name, text.clone()),
        }
    }

    /// For a terminal: the lines of the file with the place marked, each thing said once.
    pub fn report(&self) -> miette::Report {
        let label = miette::LabeledSpan::new_with_span(Some(format!("expected {}", self.expected)), self.span.clone());
        let diagnostic = miette::MietteDiagnostic::new(&self.what).with_help(&self.help).with_label(label);
        miette::Report::new(diagnostic).with_source_code(self.source.clone())
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, what, expected, help, .. } = self;
        write!(f, "{file}:{line}:{column}: {what}; expected {expected}; to do: {help}")
    }
}

impl std::error::Error for Mistake {}

impl miette::Diagnostic for Mistake {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.help))
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        let label = miette::LabeledSpan::new_with_span(Some(format!("expected {}", self.expected)), self.span.clone());
        Some(Box::new(std::iter::once(label)))
    }
}

/// All mistakes found so far.
#[derive(Debug, Clone, Default)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more. The same thing said twice about one place is kept once.
    pub fn add(&mut self, mistake: Mistake) {
        let same = |m: &Mistake| m.file == mistake.file && m.span == mistake.span && m.what == mistake.what;
        if !self.0.iter().any(same) {
            self.0.push(mistake);
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them, in the order of files and lines once [`Mistakes::or`] has sorted them.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.0.iter()
    }

    /// What was read, if it is without a mistake; else all mistakes, in the order of files and lines.
    pub fn or<T>(mut self, read: Option<T>) -> Result<T, Self> {
        self.0.sort_by(|a, b| (&a.file, a.span.start, a.span.end).cmp(&(&b.file, b.span.start, b.span.end)));
        match read {
            Some(read) if self.is_empty() => Ok(read),
            _ => Err(self),
        }
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "1 mistake in the policy files")?,
            n => write!(f, "{n} mistakes in the policy files")?,
        }
        self.0.iter().try_for_each(|m| write!(f, "\n{m}"))
    }
}

impl std::error::Error for Mistakes {}

/// How a range of whole numbers is written in messages.
fn said(range: &RangeInclusive<i64>) -> String {
    format!("a whole number from {} to {}", range.start(), range.end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use miette::Diagnostic;

    #[test]
    fn a_mistake_says_its_place_in_characters_and_what_to_do() {
        let source = Source::new("city.toml", "名 = 1\n城市 = \"x\"\n");
        let at = source.text.find("\"x\"").unwrap();
        let m = Mistake::new(&source, at..at + 3, "a text", "a number", "write a number");
        assert_eq!((m.line, m.column), (2, 6));
        assert_eq!(m.to_string(), "city.toml:2:6: a text; expected a number; to do: write a number");
        assert_eq!(m.help().unwrap().to_string(), "write a number");
        let shown = format!("{:?}", m.report());
        assert!(
            ["city.toml", "城市 = \"x\"", "expected a number", "write a number"]
                .iter()
                .all(|part| shown.contains(part)),
            "{shown}"
        );
    }

    #[test]
    fn a_span_outside_the_text_or_inside_a_character_is_moved() {
        let source = Source::new("a", "é");
        assert_eq!(Mistake::new(&source, 1..1, "", "", "").span, 0..2);
        assert_eq!(Mistake::new(&source, 90..95, "", "", "").span, 2..2);
    }

    #[test]
    fn bytes_that_are_no_utf8_are_a_mistake_with_a_place() {
        let mut m = Mistakes::new();
        let source = Source::from_bytes("x.toml", b"a = 1\nb = \"\xff\"\n", &mut m);
        assert_eq!(&*source.text, "a = 1\nb = \"");
        assert_eq!(m.iter().map(|m| (m.line, m.column)).collect::<Vec<_>>(), [(2, 6)]);
    }
}
