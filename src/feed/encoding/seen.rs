//! What a file's bytes look like in each encoding, stretch by stretch, and which encoding that makes of it.

use std::io::{self, Read, Seek, SeekFrom};

use super::{CHUNK_BYTES, Encoding};
use crate::feed::FeedError;

/// Whatever parts words in both encodings: no byte of a character of GB18030 or UTF-8 is one of these.
fn parts(byte: u8) -> bool {
    byte < b'0' || byte == b';'
}

/// What a file looks like, stretch by stretch: how many are of a kind, and the line of the first.
#[derive(Default)]
pub(super) struct Seen {
    /// UTF-8 and no GB18030.
    only_utf8: Kind,
    /// GB18030 and no UTF-8.
    only_gb18030: Kind,
    /// Neither.
    neither: Kind,
    /// Both, and as UTF-8 all of it is Chinese: GB18030 has that by an accident of three rare characters in a row.
    chinese: Kind,
    /// Both, and as UTF-8 a Latin word with other letters than ASCII's, as José.
    latin: Kind,
    /// Both, and as UTF-8 of rarer characters, such as those beyond the first 65,536: neither for nor against.
    rare: Kind,
    /// Both, and as UTF-8 of other letters of two bytes: short names in GB18030 are that now and then.
    other: Kind,
}

#[derive(Default)]
struct Kind {
    count: u64,
    line: u64,
}

impl Kind {
    fn add(&mut self, line: u64) {
        if self.count == 0 {
            self.line = line;
        }
        self.count += 1;
    }
}

impl Seen {
    pub(super) fn of(input: &mut (impl Read + Seek)) -> Result<Self, FeedError> {
        input.seek(SeekFrom::Start(0))?;
        let (mut seen, mut stretch, mut line) = (Self::default(), Stretch::default(), 1);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = match input.read(&mut chunk) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            for byte in chunk.get(..read).unwrap_or_default() {
                if !parts(*byte) {
                    stretch.push(*byte);
                    continue;
                }
                if stretch.bytes > 0 {
                    seen.add(std::mem::take(&mut stretch), line);
                }
                line += u64::from(*byte == b'\n');
            }
            if read == 0 {
                seen.add(stretch, line);
                return Ok(seen);
            }
        }
    }

    fn add(&mut self, stretch: Stretch, line: u64) {
        if !stretch.foreign {
            return;
        }
        let kind = match (stretch.is_utf8(), stretch.is_gb18030()) {
            (true, false) => &mut self.only_utf8,
            (false, true) => &mut self.only_gb18030,
            (false, false) => &mut self.neither,
            (true, true) if !stretch.beyond_chinese && stretch.long => &mut self.chinese,
            (true, true) if !stretch.beyond_latin && stretch.letters => &mut self.latin,
            (true, true) if !stretch.short => &mut self.rare,
            (true, true) => &mut self.other,
        };
        kind.add(line);
    }

    pub(super) fn encoding(&self) -> Result<Encoding, FeedError> {
        let (utf8, no_utf8) = (self.only_utf8.count + self.chinese.count, self.only_gb18030.count + self.neither.count);
        if no_utf8 == 0 {
            return match (self.other.count, self.rare.count) {
                (0, 0) => Ok(Encoding::Utf8),
                (0, _) if utf8 > 0 => Ok(Encoding::Utf8),
                (0, _) => Err(FeedError::DoubtfulEncoding { line: self.rare.line }),
                _ => Err(FeedError::DoubtfulEncoding { line: self.other.line }),
            };
        }
        if utf8 == 0 && self.latin.count == 0 {
            return Ok(Encoding::Gb18030);
        }
        if utf8 >= 2 * no_utf8 && self.other.count == 0 {
            return Ok(Encoding::Utf8);
        }
        let first = |kinds: [&Kind; 3]| kinds.into_iter().filter(|kind| kind.count > 0).map(|kind| kind.line).min();
        let few = match utf8 >= no_utf8 {
            true => first([&self.only_gb18030, &self.neither, &self.other]),
            false => first([&self.only_utf8, &self.chinese, &self.latin]),
        };
        Err(FeedError::DoubtfulEncoding { line: few.unwrap_or(1) })
    }
}

/// One stretch, as both encodings read it.
#[derive(Default)]
struct Stretch {
    bytes: u64,
    /// Has a byte beyond ASCII.
    foreign: bool,
    /// Has a letter of ASCII.
    letters: bool,
    no_utf8: bool,
    /// How many bytes of a character of UTF-8 are still to come, its first code point, and what there is of it.
    more: u8,
    least: u32,
    code: u32,
    /// As UTF-8: has a letter of two bytes; a character of three; one that is no Chinese of three; one that is not Latin.
    short: bool,
    long: bool,
    beyond_chinese: bool,
    beyond_latin: bool,
    no_gb18030: bool,
    /// How many bytes of a character of GB18030 there are.
    place: u8,
}

impl Stretch {
    fn push(&mut self, byte: u8) {
        self.bytes += 1;
        self.letters |= byte.is_ascii_alphabetic();
        if byte < 0x80 && self.more == 0 && self.place == 0 {
            return;
        }
        self.foreign |= byte >= 0x80;
        if !self.no_utf8 {
            self.push_utf8(byte);
        }
        if !self.no_gb18030 {
            self.push_gb18030(byte);
        }
    }

    fn push_utf8(&mut self, byte: u8) {
        if self.more > 0 {
            self.no_utf8 = byte & 0xC0 != 0x80;
            (self.more, self.code) = (self.more - 1, self.code << 6 | u32::from(byte & 0x3F));
            if self.more == 0 && !self.no_utf8 {
                match char::from_u32(self.code).filter(|_| self.code >= self.least) {
                    Some(c) => self.seen(c),
                    None => self.no_utf8 = true,
                }
            }
            return;
        }
        (self.more, self.least, self.code) = match byte {
            0..0x80 => return,
            0xC2..0xE0 => (1, 0x80, u32::from(byte & 0x1F)),
            0xE0..0xF0 => (2, 0x800, u32::from(byte & 0x0F)),
            0xF0..0xF5 => (3, 0x1_0000, u32::from(byte & 0x07)),
            _ => {
                self.no_utf8 = true;
                return;
            }
        };
    }

    fn seen(&mut self, c: char) {
        self.short |= c.len_utf8() == 2 && c != '\u{B7}';
        self.long |= c.len_utf8() == 3;
        let chinese = matches!(c, '\u{B7}' | '\u{2010}'..='\u{2027}' | '\u{2E80}'..='\u{303F}' | '\u{3400}'..='\u{4DBF}'
            | '\u{4E00}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' | '\u{FF00}'..='\u{FFEF}');
        self.beyond_chinese |= !chinese;
        self.beyond_latin |= !matches!(c, '\u{C0}'..='\u{17F}' | '\u{B7}');
    }

    fn push_gb18030(&mut self, byte: u8) {
        (self.place, self.no_gb18030) = match (self.place, byte) {
            (0, 0..=0x7F) | (1, 0x40..=0x7E | 0x80..=0xFE) | (3, b'0'..=b'9') => (0, false),
            (0, 0x81..=0xFE) => (1, false),
            (1, b'0'..=b'9') => (2, false),
            (2, 0x81..=0xFE) => (3, false),
            _ => (0, true),
        };
    }

    fn is_utf8(&self) -> bool {
        !self.no_utf8 && self.more == 0
    }

    fn is_gb18030(&self) -> bool {
        !self.no_gb18030 && self.place == 0
    }
}
