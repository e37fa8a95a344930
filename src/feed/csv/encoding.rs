//! Which encoding a table is in, decided once for the whole file.
//!
//! A mark says UTF-8, and so does a file that is UTF-8 from end to end. Else it is GB18030 only if
//! all of it reads as GB18030 and next to nothing of it as UTF-8: of Chinese text in GB18030 few
//! pairs of bytes happen to be UTF-8, of UTF-8 text with a bad byte nearly all is. What is nearly all
//! UTF-8 stays UTF-8, and the rows with bad bytes are refused one by one. In between, nothing is
//! guessed: the file is refused, and saving it with a mark settles it. (One bad byte must never turn
//! the names of all other rows into rubbish.)

use super::super::FeedError;
use super::super::ndjson::BOM;

/// The text in UTF-8, its mark taken off. Bytes that are no UTF-8 are left where the file is UTF-8 otherwise.
pub(super) fn decode(mut bytes: Vec<u8>) -> Result<Vec<u8>, FeedError> {
    if bytes.starts_with(BOM) {
        bytes.drain(..BOM.len());
        return Ok(bytes);
    }
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return Err(FeedError::Utf16);
    }
    let seen = Seen::of(&bytes);
    if seen.bad == 0 {
        let by_chance = seen.long == 0 && std::str::from_utf8(&bytes).is_ok_and(|text| !is_latin(text));
        return if by_chance { Err(FeedError::DoubtfulEncoding) } else { Ok(bytes) };
    }
    if seen.bad >= 2 * seen.good() && seen.bad >= 8 * seen.long {
        return gb18030(&bytes).map(String::into_bytes).map_err(|at| FeedError::Encoding { line: line_of(&bytes, at) });
    }
    if seen.good() >= 4 * seen.bad { Ok(bytes) } else { Err(FeedError::DoubtfulEncoding) }
}

/// What a file looks like when it is read as UTF-8.
#[derive(Default)]
struct Seen {
    /// Characters of two bytes. GB18030 text has some by accident.
    short: usize,
    /// Characters of three and four bytes, all Chinese among them. Accidents are rare.
    long: usize,
    /// Stretches that are no UTF-8.
    bad: usize,
}

impl Seen {
    fn of(bytes: &[u8]) -> Self {
        let mut seen = Self::default();
        for chunk in bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c.len_utf8() {
                    1 => {}
                    2 => seen.short += 1,
                    _ => seen.long += 1,
                }
            }
            seen.bad += usize::from(!chunk.invalid().is_empty());
        }
        seen
    }

    fn good(&self) -> usize {
        self.short + self.long
    }
}

/// Whether every word with other letters than ASCII's is a Latin one, as José is. A short name in GB18030 can be UTF-8 of
/// other letters from end to end, and a table of few rows may have nothing else that tells.
fn is_latin(text: &str) -> bool {
    let latin = |c: char| c.is_ascii() || matches!(c, '\u{C0}'..='\u{17F}' | '·');
    text.split(|c: char| c.is_ascii() && !c.is_ascii_alphabetic())
        .all(|word| word.is_ascii() || (word.chars().all(latin) && word.contains(|c: char| c.is_ascii())))
}

/// The text, or the place of the first bytes that are no GB18030.
fn gb18030(bytes: &[u8]) -> Result<String, usize> {
    let mut decoder = encoding_rs::GB18030.new_decoder_without_bom_handling();
    let room = decoder.max_utf8_buffer_length_without_replacement(bytes.len()).unwrap_or(bytes.len());
    let mut text = String::with_capacity(room);
    let (result, read) = decoder.decode_to_string_without_replacement(bytes, &mut text, true);
    match result {
        encoding_rs::DecoderResult::InputEmpty => Ok(text),
        encoding_rs::DecoderResult::OutputFull | encoding_rs::DecoderResult::Malformed(..) => {
            Err(read.saturating_sub(1))
        }
    }
}

fn line_of(bytes: &[u8], at: usize) -> u64 {
    let before = bytes.get(..at).unwrap_or(bytes);
    let ends = before.iter().filter(|b| **b == b'\n').count();
    u64::try_from(ends).unwrap_or(u64::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn in_gb18030(text: &str) -> Vec<u8> {
        encoding_rs::GB18030.encode(text).0.into_owned()
    }

    fn read(bytes: Vec<u8>) -> Result<String, &'static str> {
        match decode(bytes) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(FeedError::Encoding { .. }) => Err("neither"),
            Err(FeedError::DoubtfulEncoding) => Err("mixed"),
            Err(FeedError::Utf16) => Err("utf-16"),
            Err(e) => panic!("{e}"),
        }
    }

    #[test]
    fn the_2022_edition() {
        let bytes =
            [&[0xFE, 0x59, 0xA8, 0xBC, 0xA3, 0xA0, 0xFE, 0x9F][..], &[0x82, 0x30, 0xB7, 0x31, 0x99, 0x33, 0xAA, 0x34]];
        assert_eq!(gb18030(&bytes.concat()).unwrap(), "\u{9FB4}\u{1E3F}\u{3000}\u{4DAE}\u{36C3}\u{2CB5A}");
    }

    #[test]
    fn each_encoding_is_told_by_its_bytes() {
        let names = "姓名,常住人口\n王芳,是\nO’Neil,是\n阮氏明,否\n";
        assert_eq!(read(names.into()).as_deref(), Ok(names));
        assert_eq!(read(format!("\u{FEFF}{names}").into()).as_deref(), Ok(names));
        assert_eq!(read(in_gb18030(names)).as_deref(), Ok(names));
        assert_eq!(read("name\nJosé Núñez\n".into()).as_deref(), Ok("name\nJosé Núñez\n"));
        assert_eq!(read(vec![0xFF, 0xFE, 0x59, 0x00]), Err("utf-16"));
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
    fn what_could_be_either_is_refused() {
        let mixed = ["姓名\n王芳\n".as_bytes(), &in_gb18030("张伟\n李静\n")].concat();
        assert_eq!(read(mixed), Err("mixed"));
        assert_eq!(read("name\nИван\n".into()), Err("mixed"));
        assert_eq!(read("\u{FEFF}name\nИван\n".into()).as_deref(), Ok("name\nИван\n"));
        // Both characters in GB18030 are the UTF-8 of other letters, and nothing else in the file tells.
        assert_eq!(read(in_gb18030("name\n维通\n")), Err("mixed"));
        assert_eq!(read(in_gb18030("姓名\n维通\n")).as_deref(), Ok("姓名\n维通\n"));
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
    }
}
