//! Which encoding a file is in, decided once for the whole of it, and its text in UTF-8, both in constant memory.
//!
//! A mark decides. Without one, every stretch of letters (whatever lies between two blanks, separators or quotation
//! marks, which are the same bytes in both encodings) is held against UTF-8 and GB18030. GB18030 is read only where
//! no stretch at all speaks for UTF-8, and UTF-8 only where hardly one speaks against it; then the rows with bad bytes
//! are refused one by one. In between nothing is guessed: the file is refused with a line that is in doubt, and
//! `--encoding` settles it. (One bad byte must never turn the names of all other rows into rubbish, and neither may a
//! few rows of another encoding.)

mod seen;

use std::io::{self, BufRead, Read, Seek, SeekFrom};

use encoding_rs::{Decoder, DecoderResult, GB18030, UTF_16BE, UTF_16LE};

use seen::Seen;

use super::FeedError;
use super::ndjson::BOM;

/// An encoding that a sender can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8, with or without its mark.
    Utf8,
    /// GB18030, and so GBK and GB 2312.
    Gb18030,
}

impl Encoding {
    /// Reads a name, as `--encoding` has it.
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "utf-8" | "utf8" => Some(Self::Utf8),
            "gb18030" | "gbk" | "gb2312" => Some(Self::Gb18030),
            _ => None,
        }
    }
}

/// How much is read at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// The text of a file in UTF-8, without a mark. Bytes that are no UTF-8 are left where the file is UTF-8 otherwise.
pub(super) struct Text<R> {
    input: R,
    /// None where the bytes are the text.
    decoder: Option<Decoder>,
    raw: Vec<u8>,
    raw_at: usize,
    text: Vec<u8>,
    text_at: usize,
    ended: bool,
    /// What comes after `text` cannot be decoded.
    broken: bool,
}

impl<R: Read + Seek> Text<R> {
    /// Decides the encoding, and stands at the beginning of the text.
    pub(super) fn open(mut input: R, named: Option<Encoding>) -> Result<Self, FeedError> {
        let mark = start(&mut input)?;
        let decoder = match (mark, named) {
            ([0xFF, 0xFE, ..], _) => Some(UTF_16LE.new_decoder_with_bom_removal()),
            ([0xFE, 0xFF, ..], _) => Some(UTF_16BE.new_decoder_with_bom_removal()),
            (mark, Some(Encoding::Gb18030)) if mark == BOM => return Err(FeedError::OtherMark),
            (mark, _) if mark == BOM => None,
            (_, Some(Encoding::Utf8)) => None,
            (_, Some(Encoding::Gb18030)) => Some(GB18030.new_decoder_without_bom_handling()),
            (_, None) => match Seen::of(&mut input)?.encoding()? {
                Encoding::Utf8 => None,
                Encoding::Gb18030 => Some(GB18030.new_decoder_without_bom_handling()),
            },
        };
        if let Some(decoder) = decoder {
            // Nothing is taken of a file that cannot be read to its end.
            let mut whole = Text::at_start(&mut input, Some(decoder.encoding().new_decoder_with_bom_removal()))?;
            whole.check()?;
            return Self::at_start(input, Some(decoder));
        }
        let mut text = Self::at_start(input, None)?;
        if text.fill_buf()?.starts_with(BOM) {
            text.consume(BOM.len());
        }
        Ok(text)
    }

    fn at_start(mut input: R, decoder: Option<Decoder>) -> Result<Self, FeedError> {
        input.seek(SeekFrom::Start(0))?;
        Ok(Self {
            input,
            decoder,
            raw: Vec::new(),
            raw_at: 0,
            text: Vec::new(),
            text_at: 0,
            ended: false,
            broken: false,
        })
    }

    /// Reads to the end; the line on which decoding fails.
    fn check(&mut self) -> Result<(), FeedError> {
        let mut line: u64 = 1;
        loop {
            let read = self.fill_buf().map(|read| (read.len(), count(read, b'\n')));
            match read {
                Err(_) if self.broken => return Err(FeedError::Encoding { line }),
                Err(e) => return Err(e.into()),
                Ok((0, _)) => return Ok(()),
                Ok((length, ends)) => {
                    line += ends;
                    self.consume(length);
                }
            }
        }
    }

    /// The next bytes of the input.
    fn read_raw(&mut self) -> io::Result<()> {
        self.raw.clear();
        self.raw_at = 0;
        let mut part = (&mut self.input).take(CHUNK_BYTES as u64);
        part.read_to_end(&mut self.raw)?;
        self.ended = self.raw.is_empty();
        Ok(())
    }

    fn decode(&mut self) -> io::Result<()> {
        self.text.clear();
        self.text_at = 0;
        while self.text.is_empty() && !self.ended {
            if self.raw_at == self.raw.len() {
                self.read_raw()?;
            }
            let Some(decoder) = &mut self.decoder else { return Ok(()) };
            self.text.resize(3 * CHUNK_BYTES + 16, 0);
            let raw = self.raw.get(self.raw_at..).unwrap_or_default();
            let (result, read, written) = decoder.decode_to_utf8_without_replacement(raw, &mut self.text, self.ended);
            self.raw_at += read;
            self.text.truncate(written);
            if let DecoderResult::Malformed(..) = result {
                self.broken = true;
                self.ended = true;
            }
        }
        Ok(())
    }
}

impl<R: Read + Seek> BufRead for Text<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.decoder.is_none() {
            if self.raw_at == self.raw.len() && !self.ended {
                self.read_raw()?;
            }
            return Ok(self.raw.get(self.raw_at..).unwrap_or_default());
        }
        if self.text_at == self.text.len() {
            if !self.ended {
                self.decode()?;
            }
            if self.broken && self.text_at == self.text.len() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the file changed while it was read"));
            }
        }
        Ok(self.text.get(self.text_at..).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        match self.decoder {
            None => self.raw_at += amount,
            Some(_) => self.text_at += amount,
        }
    }
}

impl<R: Read + Seek> Read for Text<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(out)?;
        self.consume(read);
        Ok(read)
    }
}

/// The first three bytes.
fn start(input: &mut (impl Read + Seek)) -> Result<[u8; 3], FeedError> {
    input.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    input.take(3).read_to_end(&mut bytes)?;
    let mut start = [0; 3];
    start.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    Ok(start)
}

fn count(bytes: &[u8], what: u8) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == what)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn in_gb18030(text: &str) -> Vec<u8> {
        GB18030.encode(text).0.into_owned()
    }

    fn in_utf16(text: &str, order: fn(u16) -> [u8; 2]) -> Vec<u8> {
        std::iter::once(0xFEFF).chain(text.encode_utf16()).flat_map(order).collect()
    }

    fn named(bytes: Vec<u8>, encoding: Option<Encoding>) -> Result<String, &'static str> {
        let said = |error| match error {
            FeedError::Encoding { .. } => "neither",
            FeedError::DoubtfulEncoding { .. } => "doubtful",
            FeedError::OtherMark => "mark",
            e => panic!("{e}"),
        };
        let mut text = Text::open(io::Cursor::new(bytes), encoding).map_err(said)?;
        let mut all = Vec::new();
        text.read_to_end(&mut all).unwrap();
        Ok(String::from_utf8_lossy(&all).into_owned())
    }

    fn read(bytes: Vec<u8>) -> Result<String, &'static str> {
        named(bytes, None)
    }

    #[test]
    fn the_2022_edition() {
        let bytes =
            [&[0xFE, 0x59, 0xA8, 0xBC, 0xA3, 0xA0, 0xFE, 0x9F][..], &[0x82, 0x30, 0xB7, 0x31, 0x99, 0x33, 0xAA, 0x34]];
        assert_eq!(read(bytes.concat()).unwrap(), "\u{9FB4}\u{1E3F}\u{3000}\u{4DAE}\u{36C3}\u{2CB5A}");
    }

    #[test]
    fn each_encoding_is_told_by_its_bytes() {
        let names = "姓名,常住人口\n王芳,是\nO’Neil,是\n阮氏明,否\n";
        assert_eq!(read(names.into()).as_deref(), Ok(names));
        assert_eq!(read(format!("\u{FEFF}{names}").into()).as_deref(), Ok(names));
        assert_eq!(read(in_gb18030(names)).as_deref(), Ok(names));
        assert_eq!(read(in_utf16(names, u16::to_le_bytes)).as_deref(), Ok(names));
        assert_eq!(read(in_utf16(names, u16::to_be_bytes)).as_deref(), Ok(names));
        assert_eq!(read("name\nJosé Núñez\n".into()).as_deref(), Ok("name\nJosé Núñez\n"));
        assert_eq!(read(Vec::new()).as_deref(), Ok(""));
        assert_eq!(read(vec![0xFF, 0xFE, 0x00, 0xD8, 0x41, 0x00]), Err("neither"));
    }

    #[test]
    fn a_text_longer_than_any_buffer() {
        let names = "姓名,常住人口\n王芳芳,是\nO’Neil,是\n𬭚㛃,否\n".repeat(9_000);
        for bytes in [names.clone().into_bytes(), in_gb18030(&names), in_utf16(&names, u16::to_le_bytes)] {
            assert!(read(bytes).as_deref() == Ok(&names));
        }
    }

    #[test]
    fn one_bad_byte_spoils_no_other_name() {
        let mut bytes = "姓名\n王芳\n张伟\n李静\n".as_bytes().to_vec();
        let at = bytes.windows(3).position(|w| w == "张".as_bytes()).unwrap();
        bytes.remove(at + 2);
        let text = read(bytes).unwrap();
        assert!(text.contains("王芳") && text.contains("李静") && text.contains('\u{FFFD}'), "{text}");
        let mut broken = in_gb18030(&"姓名\n王芳\n张伟\n".repeat(9));
        broken.extend([0xFF, 0xFF]);
        assert_eq!(read(broken), Err("neither"));
    }

    #[test]
    fn what_could_be_either_is_refused_until_it_is_named() {
        let mixed = ["姓名\n王芳\n".as_bytes(), &in_gb18030("张伟\n李静\n")].concat();
        assert_eq!(read(mixed), Err("doubtful"));
        assert_eq!(read("name\nИван\n".into()), Err("doubtful"));
        assert_eq!(read("\u{FEFF}name\nИван\n".into()).as_deref(), Ok("name\nИван\n"));
        assert_eq!(named("name\nИван\n".into(), Some(Encoding::Utf8)).as_deref(), Ok("name\nИван\n"));
        // Both characters in GB18030 are the UTF-8 of other letters, and nothing else in the file tells.
        let short = in_gb18030("name\n维通\n");
        assert_eq!(read(short.clone()), Err("doubtful"));
        assert_eq!(named(short, Some(Encoding::Gb18030)).as_deref(), Ok("name\n维通\n"));
        assert_eq!(read(in_gb18030("姓名\n维通\n")).as_deref(), Ok("姓名\n维通\n"));
        assert_eq!(named("\u{FEFF}name\n".into(), Some(Encoding::Gb18030)), Err("mark"));
        assert_eq!(named("姓\n".into(), Some(Encoding::Gb18030)), Err("neither"));
    }

    /// A thousand rows of one encoding and one of the other: its name must not come out as another.
    #[test]
    fn a_single_row_of_the_other_encoding_is_never_read_as_another_name() {
        let rows = |name: &str| format!("姓名\n{}", format!("{name}\n").repeat(1_000));
        for name in ["王芳", "王小芳", "欧阳修文", "José"] {
            let mixed = [in_gb18030(&rows("张伟")), format!("{name}\n").into_bytes()].concat();
            assert_eq!(read(mixed), Err("doubtful"), "{name}");
        }
        for name in ["张伟", "王小芳", "维通"] {
            let mixed = [rows("王芳").into_bytes(), in_gb18030(name), b"\n".to_vec()].concat();
            if let Ok(text) = read(mixed) {
                let last = text.lines().last().unwrap();
                assert!(last.contains('\u{FFFD}') || last == name, "{name}: {last}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_name_is_never_read_as_another(
            names in prop::collection::vec("[\u{4E00}-\u{9FA5}]{2,4}|[A-Z][a-zéñ]{2,8}", 1..40), chinese in prop::bool::ANY,
            bent in prop::option::of(0usize..400),
        ) {
            let heading = if chinese { "证件号码,姓名,常住人口" } else { "id_number,name,resident" };
            let table = format!("{heading}\n{}\n", names.join("\n"));
            if let Ok(text) = read(in_gb18030(&table)) {
                prop_assert_eq!(text, table.clone());
            }
            let mut bytes = table.clone().into_bytes();
            // In UTF-8, a byte that is lost from a character.
            let at = bent.map(|at| at % bytes.len()).filter(|at| bytes[*at] >= 0x80);
            if let Some(at) = at {
                bytes.remove(at);
            }
            if names.len() > 4 && (chinese || at.is_none()) && let Ok(text) = read(bytes) {
                let differ = text.lines().zip(table.lines()).filter(|(a, b)| a != b);
                prop_assert!(differ.clone().all(|(a, _)| a.contains('\u{FFFD}')) && differ.count() <= 1, "{}", text);
            }
        }

        /// Rows of both encodings in one file, in any mixture: what is read is right, or refused.
        #[test]
        fn of_a_mixed_file_no_name_is_read_as_another(
            names in prop::collection::vec(("[王李张刘陈杨赵黄周吴维通芳伟静小明华昕宝]{2,4}", prop::bool::weighted(0.9)), 3..40), flip in prop::bool::ANY,
        ) {
            let mut bytes = if flip { "姓名\n".into() } else { in_gb18030("姓名\n") };
            for (name, first) in &names {
                bytes.extend(if *first == flip { name.clone().into_bytes() } else { in_gb18030(name) });
                bytes.push(b'\n');
            }
            if let Ok(text) = read(bytes) {
                for (line, (name, _)) in text.lines().skip(1).zip(&names) {
                    prop_assert!(line == name || line.contains('\u{FFFD}'), "{} for {}", line, name);
                }
            }
        }
    }
}
