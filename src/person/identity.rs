//! Identity numbers, brought to the one form that is compared: resident ids by GB 11643, and passports.

use std::fmt;

use jiff::civil::Date;

use super::{BirthError, possible_birth};

/// Which document names a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IdType {
    /// The 18 characters of GB 11643: identity cards, residence permits, the permanent residence card of 2023.
    ResidentId,
    /// A passport: the issuing state and the document's number.
    Passport,
}

impl IdType {
    /// The code used in files and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ResidentId => "resident-id",
            Self::Passport => "passport",
        }
    }

    /// Reads that code.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "resident-id" => Some(Self::ResidentId),
            "passport" => Some(Self::Passport),
            _ => None,
        }
    }
}

impl fmt::Display for IdType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is no identity number. No variant carries the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Characters or length that no number of this kind has; the sentence says what to do.
    #[error("{0}")]
    Malformed(&'static str),
    /// The last character does not follow from the others.
    #[error(
        "the identity number's check digit is wrong: compare the number with the card; a spreadsheet turns the last digits into zeros, so format its column as text"
    )]
    WrongCheckDigit,
    /// The date of birth inside the number cannot be; the sentence says why.
    #[error("{0}")]
    ImpossibleDate(&'static str),
}

/// Who somebody is: the kind of document and its number, in the one form that is compared.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    id_type: IdType,
    number: Box<str>,
    birth: Option<Date>,
}

impl Identity {
    /// Brings a number to its one form and checks it: its form first, then its check digit, then its date.
    pub fn parse(id_type: IdType, raw: &str, today: Date) -> Result<Self, IdentityError> {
        let text = raw.trim();
        match id_type {
            IdType::ResidentId => resident(text, today),
            IdType::Passport => passport(text),
        }
    }

    /// The kind of document.
    pub fn id_type(&self) -> IdType {
        self.id_type
    }

    /// The number in its one form: 18 characters, or a passport's state and number.
    pub fn number(&self) -> &str {
        &self.number
    }

    /// The date of birth that the number carries; a passport's carries none.
    pub fn birth_date(&self) -> Option<Date> {
        self.birth
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, ..)", self.id_type)
    }
}

const RESIDENT_FORM: IdentityError = IdentityError::Malformed(
    "the identity number must have 17 digits and a check digit (0 to 9 or X), or the 15 digits of the old form: send it as it stands on the card",
);
pub(super) const SPREADSHEET_NUMBER: IdentityError = IdentityError::Malformed(
    "the identity number was turned into a rounded number by a spreadsheet: format its column as text, enter the number again and save again",
);
const PASSPORT_FORM: IdentityError = IdentityError::Malformed(
    "the passport number must be the issuing state's three letters and then 5 to 12 letters and digits, all in capitals, as in UTO12345",
);

fn resident(text: &str, today: Date) -> Result<Identity, IdentityError> {
    let mut folded = String::with_capacity(18);
    for c in text.chars() {
        let plain = narrow(c).to_ascii_uppercase();
        if !(plain.is_ascii_digit() || plain == 'X') || folded.len() == 18 {
            return Err(if looks_scientific(text) { SPREADSHEET_NUMBER } else { RESIDENT_FORM });
        }
        folded.push(plain);
    }
    let number = match folded.len() {
        18 => folded,
        15 => {
            let (Some(region), Some(rest)) = (folded.get(..6), folded.get(6..)) else { return Err(RESIDENT_FORM) };
            let body = format!("{region}19{rest}");
            let Some(check) = check_digit(&body) else { return Err(RESIDENT_FORM) };
            format!("{body}{check}")
        }
        _ => return Err(RESIDENT_FORM),
    };
    let (Some(body), Some(last)) = (number.get(..17), number.chars().last()) else { return Err(RESIDENT_FORM) };
    let check = check_digit(body).ok_or(RESIDENT_FORM)?;
    if check != last {
        return Err(IdentityError::WrongCheckDigit);
    }
    let birth = birth_in(body).ok_or(IdentityError::ImpossibleDate(
        "the date of birth in the identity number does not exist: compare the number with the card",
    ))?;
    possible_birth(birth, today).map_err(|which| {
        IdentityError::ImpossibleDate(match which {
            BirthError::TooEarly => {
                "the date of birth in the identity number lies before 1900: compare the number with the card"
            }
            BirthError::Future => {
                "the date of birth in the identity number lies in the future: compare the number with the card"
            }
        })
    })?;
    Ok(Identity { id_type: IdType::ResidentId, number: number.into(), birth: Some(birth) })
}

fn passport(text: &str) -> Result<Identity, IdentityError> {
    let state = text.bytes().take(3).filter(u8::is_ascii_uppercase).count() == 3;
    let rest = text.len().saturating_sub(3);
    let all = text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    if state && all && (5..=12).contains(&rest) {
        Ok(Identity { id_type: IdType::Passport, number: text.into(), birth: None })
    } else if looks_scientific(text) {
        Err(SPREADSHEET_NUMBER)
    } else {
        Err(PASSPORT_FORM)
    }
}

/// A full-width digit or letter as its plain one; everything else as it is.
fn narrow(c: char) -> char {
    match u32::from(c) {
        full @ 0xFF01..=0xFF5E => char::from_u32(full - 0xFEE0).unwrap_or(c),
        _ => c,
    }
}

/// `5.30499E+17`, or `530499199001010000.0`: what is left of a number cell.
fn looks_scientific(text: &str) -> bool {
    let (mantissa, exponent) = text.split_once(['E', 'e']).unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let mantissa_fits = match mantissa.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(mantissa) && mantissa.len() < text.len(),
    };
    mantissa_fits && digits(exponent.trim_start_matches(['+', '-']))
}

/// ISO 7064 MOD 11-2 over 17 digits; `None` where one of them is no digit.
pub(super) fn check_digit(body: &str) -> Option<char> {
    let mut rest = 0u32;
    for c in body.chars() {
        rest = (rest + c.to_digit(10)?) * 2 % 11;
    }
    Some(match (12 - rest) % 11 {
        10 => 'X',
        digit => char::from_digit(digit, 10)?,
    })
}

fn birth_in(body: &str) -> Option<Date> {
    Date::new(body.get(6..10)?.parse().ok()?, body.get(10..12)?.parse().ok()?, body.get(12..14)?.parse().ok()?).ok()
}
