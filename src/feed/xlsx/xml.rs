//! XML as workbooks have it: tags by their local name, and the texts between them with their escapes undone.
//!
//! Entities that a document declares itself are unknown here and so an error; nothing outside the part is ever read.

use std::borrow::Cow;
use std::io::Read;

use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use super::archive::{Tagged, failed};
use crate::feed::FeedError;

/// A part, event by event.
pub(super) struct Xml<R> {
    reader: Reader<Tagged<R>>,
    buffer: Vec<u8>,
}

fn wrong(error: &quick_xml::Error) -> FeedError {
    match error {
        quick_xml::Error::Io(e) => failed(e),
        _ => FeedError::Damaged("a part is no XML".to_owned()),
    }
}

impl<R: Read> Xml<R> {
    pub(super) fn new(part: R) -> Self {
        let mut reader = Reader::from_reader(Tagged::new(part));
        // An empty tag is a start and an end.
        reader.config_mut().expand_empty_elements = true;
        Self { reader, buffer: Vec::new() }
    }

    /// The next event; `Eof` at the end of the part.
    pub(super) fn next(&mut self) -> Result<Event<'_>, FeedError> {
        self.buffer.clear();
        self.reader.read_event_into(&mut self.buffer).map_err(|e| wrong(&e))
    }
}

/// The value of an attribute by its local name.
pub(super) fn attribute<'t>(tag: &'t BytesStart<'_>, name: &str) -> Result<Option<Cow<'t, str>>, FeedError> {
    let broken = || FeedError::Damaged("a tag cannot be read".to_owned());
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(|_| broken())?;
        if attribute.key.local_name().as_ref() == name {
            return Ok(Some(match attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|_| broken())? {
                Cow::Borrowed(text) => Cow::Owned(text.to_owned()),
                Cow::Owned(text) => Cow::Owned(text),
            }));
        }
    }
    Ok(None)
}

/// Whether an attribute says yes.
pub(super) fn is_set(tag: &BytesStart<'_>, name: &str) -> Result<bool, FeedError> {
    Ok(attribute(tag, name)?.is_some_and(|value| matches!(&*value, "1" | "true" | "on")))
}

/// Adds what an event says as text, if it does.
pub(super) fn add_text(event: &Event<'_>, text: &mut String) -> Result<(), FeedError> {
    match event {
        Event::Text(part) => text.push_str(&part.xml10_content()),
        Event::CData(part) => text.push_str(&part.xml10_content()),
        Event::GeneralRef(reference) => text.push(character(reference)?),
        _ => {}
    }
    Ok(())
}

fn character(reference: &BytesRef<'_>) -> Result<char, FeedError> {
    let unknown = || FeedError::Damaged("an entity is not known".to_owned());
    if let Some(c) = reference.resolve_char_ref().map_err(|_| unknown())? {
        return Ok(c);
    }
    match &**reference {
        "amp" => Ok('&'),
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "quot" => Ok('"'),
        "apos" => Ok('\''),
        _ => Err(unknown()),
    }
}

/// Undoes Excel's escape of a UTF-16 unit, `_x000D_`; `_x005F_` stands for the `_` of what only looks like one.
pub(super) fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains("_x") {
        return Cow::Borrowed(text);
    }
    let unit = |at: &str| -> Option<u16> {
        let hex = at.strip_prefix("_x")?.get(..4)?;
        let plain = hex.bytes().all(|b| b.is_ascii_hexdigit()) && at.get(6..7) == Some("_");
        plain.then(|| u16::from_str_radix(hex, 16).ok()).flatten()
    };
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("_x") {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let pair = || Some([unit(from)?, unit(from.get(7..)?)?]);
        let single = unit(from).and_then(|unit| char::from_u32(unit.into()));
        let double = || pair().and_then(|pair| char::decode_utf16(pair).next()?.ok());
        let (c, length) = match single {
            Some(c) => (Some(c), 7),
            None => (double(), 14),
        };
        match c {
            Some(c) => {
                out.push(c);
                rest = from.get(length..).unwrap_or_default();
            }
            None => {
                out.push('_');
                rest = from.get(1..).unwrap_or_default();
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excels_escapes() {
        for (text, expected) in [
            ("王芳_x000D_", "王芳\r"),
            ("_x005F_x000D_", "_x000D_"),
            ("a_x0041_b_", "aAb_"),
            ("_xD83D__xDE00_", "\u{1F600}"),
            ("_xD83D_", "_xD83D_"),
            ("_x00zz_ _x12", "_x00zz_ _x12"),
            ("_x芳芳", "_x芳芳"),
        ] {
            assert_eq!(unescaped(text), expected, "{text}");
        }
    }
}
