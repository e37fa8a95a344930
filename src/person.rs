//! People: identity numbers, names, and a line of the register.
//!
//! One person is one `(id type, number)`, brought to one form here and nowhere else, so that a
//! small x, full-width digits or the old 15-digit form never make two people of one.
//! Invariants: an [`Identity`] and a [`Name`] are well formed by construction; neither shows itself
//! in `Debug`, nor in any error. This module knows no table of regions or states, and no clock:
//! today is an argument.

mod identity;

use std::fmt;

use jiff::civil::Date;

use crate::text::is_bidi_control;
pub use identity::{IdType, Identity, IdentityError};

/// The most characters a name has; characters, not bytes.
pub const NAME_CHARS_MAX: usize = 100;

/// The first year that a date of birth may carry.
const BIRTH_YEAR_MIN: i16 = 1900;

/// Why nobody was born on a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BirthError {
    /// Before 1900.
    TooEarly,
    /// After today.
    Future,
}

/// Whether somebody who is registered can have been born on this day.
pub fn possible_birth(birth: Date, today: Date) -> Result<(), BirthError> {
    if birth.year() < BIRTH_YEAR_MIN {
        Err(BirthError::TooEarly)
    } else if birth > today {
        Err(BirthError::Future)
    } else {
        Ok(())
    }
}

/// The day `years` later; 29 February becomes 28 February in a common year, and time ends on [`Date::MAX`].
#[inline]
pub fn add_years(day: Date, years: i16) -> Date {
    let Some(year) = day.year().checked_add(years) else { return Date::MAX };
    Date::new(year, day.month(), day.day()).or_else(|_| Date::new(year, day.month(), 28)).unwrap_or(Date::MAX)
}

/// Why a text is no name. No variant carries the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or nothing but blanks.
    #[error("the name is empty: send the name as it stands on the document")]
    Empty,
    /// More than [`NAME_CHARS_MAX`] characters.
    #[error("the name has more than {NAME_CHARS_MAX} characters: send it with at most {NAME_CHARS_MAX}")]
    TooLong,
    /// A character that no name has, and that only harms whoever reads it.
    #[error(
        "the name has a character that names do not have (a control or direction character, a private-use or broken one): send the name as it stands on the document, in UTF-8 or GB18030"
    )]
    Malformed,
}

/// A person's name: 1 to 100 characters, none of them invisible or broken. Markup is text like any other.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<str>);

impl Name {
    /// Takes away blanks around the name and checks its characters.
    pub fn parse(raw: &str) -> Result<Self, NameError> {
        let text = raw.trim();
        if text.is_empty() {
            Err(NameError::Empty)
        } else if text.chars().any(is_harmful) {
            Err(NameError::Malformed)
        } else if text.chars().count() > NAME_CHARS_MAX {
            Err(NameError::TooLong)
        } else {
            Ok(Self(text.into()))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Name(..)")
    }
}

fn is_harmful(c: char) -> bool {
    let code = u32::from(c);
    c.is_control()
        || is_bidi_control(c)
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200B}' | '\u{2060}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFD}')
        || matches!(code, 0xE000..=0xF8FF | 0xFDD0..=0xFDEF | 0xE0000..=0xE007F | 0xF0000..=0x10FFFF)
        || code & 0xFFFE == 0xFFFE
}

/// A line of the register: somebody who lives in the city, or did.
#[derive(Clone, PartialEq, Eq)]
pub struct Person {
    /// Who it is.
    pub identity: Identity,
    /// The name.
    pub name: Name,
    /// The date of birth, which agrees with the number where that carries one.
    pub born_on: Date,
    /// Whether the person is a resident in the sense of Article 2.
    pub resident: bool,
    /// Whether the person has full capacity for civil conduct.
    pub full_capacity: bool,
}

impl Person {
    /// The line of the register files that `evaluate` reads and `export` gives.
    pub fn to_json(&self) -> serde_json::Value {
        let mut line = serde_json::Map::new();
        if self.identity.id_type() == IdType::Passport {
            line.insert("id_type".into(), self.identity.id_type().as_str().into());
            line.insert("born_on".into(), self.born_on.to_string().into());
        }
        line.insert("id_number".into(), self.identity.number().into());
        line.insert("name".into(), self.name.as_str().into());
        line.insert("resident".into(), self.resident.into());
        line.insert("full_capacity".into(), self.full_capacity.into());
        line.into()
    }
}

impl fmt::Debug for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Person(..)")
    }
}

/// A person's pseudonym in the store: an HMAC of the identity, made where the key is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersonId(pub [u8; 32]);

impl fmt::Debug for PersonId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PersonId(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::identity::{SPREADSHEET_NUMBER, check_digit};
    use super::*;
    use jiff::civil::date;
    use proptest::prelude::*;

    const TODAY: Date = date(2026, 11, 24);

    fn resident_id(raw: &str) -> Result<String, &'static str> {
        read(IdType::ResidentId, raw)
    }

    fn read(id_type: IdType, raw: &str) -> Result<String, &'static str> {
        Identity::parse(id_type, raw, TODAY).map(|id| id.number().to_owned()).map_err(|e| match e {
            IdentityError::Malformed(_) => "malformed",
            IdentityError::WrongCheckDigit => "wrong-check-digit",
            IdentityError::ImpossibleDate(_) => "impossible-date",
        })
    }

    /// A number whose date and check digit are right, whatever its region: never written down whole.
    fn with_region(region: &str, tail: &str) -> String {
        let body = format!("{region}{tail}");
        let check = check_digit(&body).unwrap();
        format!("{body}{check}")
    }

    #[test]
    fn every_accepted_spelling_becomes_the_one_form() {
        for (raw, one_form) in [
            ("530499199001010015", "530499199001010015"),
            ("53049919880307004X", "53049919880307004X"),
            ("53049919880307004x", "53049919880307004X"),
            ("53049919880307004Ｘ", "53049919880307004X"),
            ("53049919880307004ｘ", "53049919880307004X"),
            ("５３０４９９１９９００１０１００１５", "530499199001010015"),
            (" \t\u{a0}\u{3000}530499199001010015\u{3000}\t ", "530499199001010015"),
            ("53049919901015001X", "53049919901015001X"),
            ("530499250101001", "53049919250101001X"),
            ("５３０４９９２５０１０１００１", "53049919250101001X"),
            ("530499200802290016", "530499200802290016"),
        ] {
            assert_eq!(resident_id(raw).as_deref(), Ok(one_form), "{raw}");
        }
    }

    #[test]
    fn no_region_is_asked_for() {
        for region in ["810000", "820000", "830000", "911000", "000000"] {
            let number = with_region(region, "19900101001");
            assert_eq!(resident_id(&number), Ok(number.clone()), "{region}");
        }
    }

    #[test]
    fn the_old_form_is_always_of_the_twentieth_century() {
        let old = Identity::parse(IdType::ResidentId, "530499250101001", TODAY).unwrap();
        let new = Identity::parse(IdType::ResidentId, "53049919250101001X", TODAY).unwrap();
        assert_eq!(old, new);
        assert_eq!(old.birth_date(), Some(date(1925, 1, 1)));
    }

    #[test]
    fn what_is_refused_and_as_what() {
        for (raw, code) in [
            ("", "malformed"),
            ("53049919900101001", "malformed"),
            ("5304991990010100155", "malformed"),
            ("5304991990O101001X", "malformed"),
            ("5304991990010X0015", "malformed"),
            ("XYZ530490010101", "malformed"),
            ("53049925010100X", "malformed"),
            ("5.30499E+17", "malformed"),
            ("530499199001010015.0", "malformed"),
            ("530499-19900101-0015", "malformed"),
            ("53049919900101 0015", "malformed"),
            ("53049919900101００１\u{0}", "malformed"),
            ("٥٣٠٤٩٩١٩٩٠٠١٠١٠٠١٥", "malformed"),
            ("530499199001010016", "wrong-check-digit"),
            ("530499199001010000", "wrong-check-digit"),
            ("53049920000230001X", "impossible-date"),
            ("530499190002290011", "impossible-date"),
            ("530499202302290019", "impossible-date"),
            ("530499199013010012", "impossible-date"),
            ("530499119104200011", "impossible-date"),
            ("530499209912310015", "impossible-date"),
            ("530499660230001", "impossible-date"),
            // both the check digit and the date are wrong: the check digit comes first
            ("530499200002300011", "wrong-check-digit"),
        ] {
            assert_eq!(resident_id(raw), Err(code), "{raw:?}");
        }
    }

    #[test]
    fn a_spreadsheets_number_gets_advice() {
        for raw in ["5.30499E+17", "5.30499199001010E+17", "5e17", "530499199001010000.0"] {
            assert_eq!(Identity::parse(IdType::ResidentId, raw, TODAY), Err(SPREADSHEET_NUMBER), "{raw}");
        }
        assert!(SPREADSHEET_NUMBER.to_string().contains("text"));
    }

    #[test]
    fn births_up_to_today_are_possible() {
        let number = with_region("530499", "20261124001");
        assert!(Identity::parse(IdType::ResidentId, &number, TODAY).is_ok());
        assert!(Identity::parse(IdType::ResidentId, &number, date(2026, 11, 23)).is_err());
    }

    #[test]
    fn passports() {
        for raw in ["UTO12345", "XUT123456789012", " UTOE0000001\u{3000}"] {
            assert_eq!(read(IdType::Passport, raw).as_deref(), Ok(raw.trim()), "{raw}");
        }
        for raw in
            ["", "UTO", "UTO1234", "XUT1234567890123", "UT012345", "uto12345", "ＵＴＯ12345", "UTO 12345", "UTO1234é"]
        {
            assert_eq!(read(IdType::Passport, raw), Err("malformed"), "{raw}");
        }
    }

    #[test]
    fn names_with_every_right_to_exist() {
        let long = "名".repeat(NAME_CHARS_MAX);
        for name in [
            "O’Neil, Seán",
            "José Núñez",
            "阮氏明",
            "\u{4DAE}",
            "\u{36C3}",
            "\u{2CB5A}",
            "\u{9FB4}\u{1E3F}",
            "<img src=x onerror=alert(1)>",
            "=HYPERLINK(\"http://example.test\",\"x\")",
            "阿卜杜拉·买买提",
            &long,
        ] {
            assert_eq!(Name::parse(name).map(|n| n.as_str().to_owned()).as_deref(), Ok(name));
        }
        assert_eq!(Name::parse("\u{3000}王芳 ").unwrap().as_str(), "王芳");
    }

    #[test]
    fn names_that_harm_are_refused() {
        for name in [
            "王\u{0}芳",
            "王\n芳",
            "\u{202E}王芳",
            "王\u{2066}芳",
            "王\u{200F}芳",
            "王\u{61C}芳",
            "王\u{E81E}",
            "王\u{FFFD}",
            "王\u{FFFE}",
            "王\u{10FFFF}",
        ] {
            assert_eq!(Name::parse(name), Err(NameError::Malformed), "{name:?}");
        }
        assert_eq!(Name::parse(" \u{3000}"), Err(NameError::Empty));
        assert_eq!(Name::parse(&"名".repeat(NAME_CHARS_MAX + 1)), Err(NameError::TooLong));
    }

    #[test]
    fn nothing_personal_in_debug_or_errors() {
        let person = Person {
            identity: Identity::parse(IdType::ResidentId, "530499199001010015", TODAY).unwrap(),
            name: Name::parse("王芳").unwrap(),
            born_on: date(1990, 1, 1),
            resident: true,
            full_capacity: true,
        };
        let shown = format!("{person:?} {:?} {:?} {:?}", person.identity, person.name, PersonId([7; 32]));
        assert!(!shown.contains("19900101") && !shown.contains("王芳") && !shown.contains('7'), "{shown}");
        for raw in ["530499199001010016", "XYZ530490010101", "530499209912310015"] {
            let error = Identity::parse(IdType::ResidentId, raw, TODAY).unwrap_err();
            assert!(!format!("{error} {error:?}").contains(&raw[..8]));
        }
    }

    #[test]
    fn years_from_a_leap_day() {
        assert_eq!(add_years(date(2008, 2, 29), 18), date(2026, 2, 28));
        assert_eq!(add_years(date(2024, 2, 29), 4), date(2028, 2, 29));
        assert_eq!(add_years(date(9990, 1, 1), 100), Date::MAX);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(raw in "\\PC{0,24}|[0-9X０-９Ｘx \\x00]{0,20}") {
            for id_type in [IdType::ResidentId, IdType::Passport] {
                if let Ok(id) = Identity::parse(id_type, &raw, TODAY) {
                    // the one form reads as itself
                    prop_assert_eq!(&Identity::parse(id_type, id.number(), TODAY).unwrap(), &id);
                }
            }
            if let Ok(name) = Name::parse(&raw) {
                prop_assert_eq!(&Name::parse(name.as_str()).unwrap(), &name);
            }
        }

        #[test]
        fn a_right_number_is_accepted_and_one_wrong_digit_is_not(
            days in 0i64..46_000, seq in 0u16..1000, at in 0usize..17, by in 1u32..10,
        ) {
            let birth = date(1900, 1, 1).checked_add(jiff::Span::new().days(days)).unwrap();
            prop_assume!(birth <= TODAY);
            let number = with_region("530499", &format!("{}{seq:03}", birth.to_string().replace('-', "")));
            let id = Identity::parse(IdType::ResidentId, &number, TODAY).unwrap();
            prop_assert_eq!(id.birth_date(), Some(birth));
            let bent: String = number.chars().enumerate().map(|(i, c)| if i == at {
                char::from_digit((c.to_digit(10).unwrap() + by) % 10, 10).unwrap()
            } else { c }).collect();
            prop_assert_eq!(Identity::parse(IdType::ResidentId, &bent, TODAY), Err(IdentityError::WrongCheckDigit));
        }
    }
}
