//! One JSON object a line: a file's, or the body's of a call.
//!
//! Lines count from 1 as an editor shows them. A byte order mark before the first, carriage returns
//! and blank lines at the end are no lines; a blank line between others is one, and `intake`
//! refuses it. Memory is bounded: of a line beyond the limit only so much is kept that it is refused.

use std::io::{self, BufRead, Read};

use super::Line;
use crate::intake::LINE_BYTES_MAX;

/// The mark with which some programs begin a file in UTF-8.
pub const BOM: &[u8] = b"\xEF\xBB\xBF";

/// What is kept of a line: the most that may be, and its end (CR LF).
const KEPT_BYTES_MAX: usize = LINE_BYTES_MAX + 2;

/// The lines of an input.
pub struct Lines<R> {
    input: R,
    /// How many lines have been given.
    given: u64,
    /// Blank lines that were read and not given yet: they are lines only if another one follows.
    blank: u64,
    /// That other one.
    waiting: Option<Vec<u8>>,
    began: bool,
}

impl<R: BufRead> Lines<R> {
    /// The lines of `input`; a body in memory is an input too.
    pub fn new(input: R) -> Self {
        Self { input, given: 0, blank: 0, waiting: None, began: false }
    }

    /// One line without its end; `None` at the end of the input.
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let limit = u64::try_from(KEPT_BYTES_MAX + BOM.len()).unwrap_or(u64::MAX);
        if self.input.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if line.last() != Some(&b'\n') {
            self.skip_to_end()?;
        }
        if !std::mem::replace(&mut self.began, true) && line.starts_with(BOM) {
            line.drain(..BOM.len());
        }
        for end in [b'\n', b'\r'] {
            if line.last() == Some(&end) {
                line.pop();
            }
        }
        Ok(Some(line))
    }

    fn skip_to_end(&mut self) -> io::Result<()> {
        loop {
            let rest = self.input.fill_buf()?;
            let (skipped, done) = match rest.iter().position(|b| *b == b'\n') {
                Some(at) => (at + 1, true),
                None => (rest.len(), rest.is_empty()),
            };
            self.input.consume(skipped);
            if done {
                return Ok(());
            }
        }
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.waiting.is_none() {
            match self.read() {
                Err(e) => return Some(Err(e)),
                Ok(None) => return None,
                Ok(Some(line)) if line.trim_ascii().is_empty() && line.len() <= LINE_BYTES_MAX => self.blank += 1,
                Ok(Some(line)) => self.waiting = Some(line),
            }
        }
        self.given += 1;
        let bytes = if self.blank > 0 {
            self.blank -= 1;
            Vec::new()
        } else {
            self.waiting.take()?
        };
        Some(Ok(Line { number: self.given, bytes: Ok(bytes) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8]) -> Vec<(u64, String)> {
        let text = |line: Line| (line.number, String::from_utf8(line.bytes.unwrap()).unwrap());
        Lines::new(input).map(|line| text(line.unwrap())).collect()
    }

    fn expect(input: &str, expected: &[(u64, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(number, text)| (*number, (*text).to_owned())).collect();
        assert_eq!(lines(input.as_bytes()), expected, "{input:?}");
    }

    #[test]
    fn ends_marks_and_blanks() {
        expect("", &[]);
        expect("\u{FEFF}", &[]);
        expect("\n\r\n  \n", &[]);
        expect("a", &[(1, "a")]);
        expect("a\nb\n", &[(1, "a"), (2, "b")]);
        expect("\u{FEFF}a\r\nb\r\n\r\n\r\n", &[(1, "a"), (2, "b")]);
        expect("\na\n\n \nb\n\n", &[(1, ""), (2, "a"), (3, ""), (4, ""), (5, "b")]);
        expect("a\n\u{FEFF}b", &[(1, "a"), (2, "\u{FEFF}b")]);
    }

    #[test]
    fn a_line_beyond_the_limit_is_not_kept_whole_and_the_next_one_is_read() {
        for (bytes, whole) in [(LINE_BYTES_MAX, true), (LINE_BYTES_MAX + 1, false), (20 * LINE_BYTES_MAX, false)] {
            for end in ["\n", "\r\n"] {
                let input = format!("{}{end}b{end}", "a".repeat(bytes));
                let read = lines(input.as_bytes());
                assert_eq!(read.len(), 2);
                assert_eq!(read[0].1.len() <= LINE_BYTES_MAX, whole, "{bytes}");
                assert!(read[0].1.len() <= KEPT_BYTES_MAX + BOM.len());
                assert_eq!(read[1], (2, "b".to_owned()));
            }
        }
        let blanks = " ".repeat(5 * LINE_BYTES_MAX);
        assert_eq!(lines(blanks.as_bytes()).len(), 1);
    }
}
