//! The fields of one object of a line: known, there, of their type and within their limits.
//!
//! Errors name fields, never values; a field's own name is shown only where it can be no number
//! of a person.

use jiff::civil::Date;

use super::tree::{Number, Tree};
use super::{DETAIL_CHARS_MAX, LineCode, LineError, QUANTITY_MAX};
use crate::text::is_bidi_control;

/// The members of an object, and its path for messages: nothing, or `person.`.
pub(super) struct Fields<'a> {
    members: &'a [(String, Tree)],
    path: &'static str,
}

impl<'a> Fields<'a> {
    pub(super) fn new(members: &'a [(String, Tree)], path: &'static str) -> Self {
        Self { members, path }
    }

    /// Refuses the first field that is in none of the lists.
    pub(super) fn only(&self, known: &[&[&str]]) -> Result<(), LineError> {
        let unknown = self.members.iter().find(|(key, _)| !known.iter().any(|names| names.contains(&key.as_str())));
        unknown.map_or(Ok(()), |(key, _)| {
            let place =
                if self.path.is_empty() { String::new() } else { format!(" in `{}`", self.path.trim_end_matches('.')) };
            Err(LineError::new(
                LineCode::UnknownField,
                format!("the field {}{place} is not known: leave it out or correct its name", shown(key)),
            ))
        })
    }

    fn get(&self, name: &str) -> Option<&'a Tree> {
        self.members.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    fn required(&self, name: &str) -> Result<&'a Tree, LineError> {
        self.get(name)
            .ok_or_else(|| LineError::new(LineCode::MissingField, format!("`{}{name}` is missing: send it", self.path)))
    }

    fn wrong(&self, name: &str, expected: &str, value: &Tree) -> LineError {
        let instead = if matches!(value, Tree::Null) { "; leave it out where there is none" } else { "" };
        LineError::new(LineCode::Malformed, format!("`{}{name}` must be {expected}{instead}", self.path))
    }

    fn as_text(&self, name: &str, value: &'a Tree) -> Result<&'a str, LineError> {
        match value {
            Tree::Text(text) => Ok(text),
            Tree::Number(_) if name == "id_number" => {
                Err(self.wrong(name, "a text in quotes, as a number loses digits", value))
            }
            other => Err(self.wrong(name, "a text", other)),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<&'a str, LineError> {
        self.as_text(name, self.required(name)?)
    }

    pub(super) fn optional_text(&self, name: &str) -> Result<Option<&'a str>, LineError> {
        self.get(name).map(|value| self.as_text(name, value)).transpose()
    }

    /// A text that people read: bounded, without control and direction characters; blank is the same as left out.
    pub(super) fn remark(&self, name: &str) -> Result<Option<&'a str>, LineError> {
        let Some(text) = self.optional_text(name)?.filter(|text| !text.trim().is_empty()) else { return Ok(None) };
        if text.chars().count() > DETAIL_CHARS_MAX {
            return Err(LineError::new(
                LineCode::TooLarge,
                format!("`{name}` has more than {DETAIL_CHARS_MAX} characters: shorten it"),
            ));
        }
        if text.chars().any(|c| is_bidi_control(c) || (c.is_control() && !matches!(c, '\n' | '\r' | '\t'))) {
            return Err(LineError::new(
                LineCode::Malformed,
                format!("`{name}` has a control or direction character: take it out"),
            ));
        }
        Ok(Some(text))
    }

    fn as_flag(&self, name: &str, value: &Tree) -> Result<bool, LineError> {
        match value {
            Tree::Flag(flag) => Ok(*flag),
            other => Err(self.wrong(name, "true or false (in a table 是 or 否)", other)),
        }
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, LineError> {
        self.as_flag(name, self.required(name)?)
    }

    /// A flag that is false where it is left out.
    pub(super) fn optional_flag(&self, name: &str) -> Result<bool, LineError> {
        self.get(name).map_or(Ok(false), |value| self.as_flag(name, value))
    }

    /// `quantity`, the one number of a line.
    pub(super) fn number(&self, name: &str) -> Result<Option<Number>, LineError> {
        match self.get(name) {
            None => Ok(None),
            Some(Tree::Number(number)) => Ok(Some(*number)),
            Some(_) => Err(quantity_malformed()),
        }
    }

    pub(super) fn object(&self, name: &'static str) -> Result<Fields<'a>, LineError> {
        self.as_object(name, self.required(name)?)
    }

    pub(super) fn optional_object(&self, name: &'static str) -> Result<Option<Fields<'a>>, LineError> {
        self.get(name).map(|value| self.as_object(name, value)).transpose()
    }

    fn as_object(&self, name: &'static str, value: &'a Tree) -> Result<Fields<'a>, LineError> {
        match value {
            Tree::Object(members) => Ok(Fields::new(members, if name == "person" { "person." } else { "repair." })),
            other => Err(self.wrong(name, "an object in braces", other)),
        }
    }
}

pub(super) fn quantity_too_large() -> LineError {
    LineError::new(
        LineCode::TooLarge,
        format!("`quantity` is more than {QUANTITY_MAX}: check it, or send several records"),
    )
}

pub(super) fn quantity_malformed() -> LineError {
    LineError::new(
        LineCode::Malformed,
        format!("`quantity` must be a whole number from 1 to {QUANTITY_MAX}, in digits, without fraction or exponent"),
    )
}

/// A day as `YYYY-MM-DD`, and nothing else.
pub(super) fn day(name: &str, text: &str) -> Result<Date, LineError> {
    let shape = text.len() == 10
        && text.bytes().enumerate().all(|(at, b)| if at == 4 || at == 7 { b == b'-' } else { b.is_ascii_digit() });
    if !shape {
        return Err(LineError::new(
            LineCode::Malformed,
            format!("`{name}` must be a day as YYYY-MM-DD (in a table also 2025/3/1, 20250301 or 2025年3月1日)"),
        ));
    }
    let part = |from: usize, to: usize| text.get(from..to).and_then(|digits| digits.parse::<i16>().ok());
    let small = |from, to| part(from, to).and_then(|n| i8::try_from(n).ok());
    let date = match (part(0, 4), small(5, 7), small(8, 10)) {
        (Some(year), Some(month), Some(day)) if year > 0 => Date::new(year, month, day).ok(),
        _ => None,
    };
    date.ok_or_else(|| {
        LineError::new(LineCode::ImpossibleDate, format!("`{name}` is a day that does not exist: correct it"))
    })
}

/// A key for a message: whole where it is short and can hold no identity number, else not at all.
pub(crate) fn shown(key: &str) -> String {
    let digits = key.chars().filter(|c| c.is_numeric()).count();
    if key.chars().count() <= 40 && digits < 6 && !key.chars().any(|c| c.is_control() || is_bidi_control(c)) {
        format!("`{key}`")
    } else {
        "with a long or odd name".to_owned()
    }
}
