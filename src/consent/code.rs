//! One-time codes for a counter: 60 random bits in Crockford's base32, said aloud or shown as QR.

use std::fmt;

use jiff::Timestamp;

use super::ConsentId;
use crate::code::{PartyId, ScenarioId};
use crate::entropy::{self, Entropy, EntropyError};

/// For how long a code can be used.
pub const CODE_SECONDS: i64 = 60;
const CODE_CHARS: usize = 12;
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A code as it is shown or typed.
#[derive(Clone, PartialEq, Eq)]
pub struct OneTimeCode([u8; CODE_CHARS]);

/// A code's MAC under the index key: what the store and the consent's cell hold in its place.
#[derive(Clone, PartialEq, Eq)]
pub struct CodeMac(pub(crate) [u8; 32]);

impl fmt::Debug for OneTimeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneTimeCode(..)")
    }
}

impl fmt::Debug for CodeMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodeMac(..)")
    }
}

/// What the store keeps of a code, sealed: whose consent it stands for and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeRow {
    /// The consent.
    pub consent: ConsentId,
    /// Who may show it.
    pub party: PartyId,
    /// For what.
    pub scenario: ScenarioId,
    /// When it ends.
    pub ends: Timestamp,
}

impl OneTimeCode {
    /// A fresh code of 60 random bits.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let random = entropy::bytes::<CODE_CHARS>(entropy)?;
        Ok(Self(random.map(|byte| ALPHABET.get(usize::from(byte & 31)).copied().unwrap_or(b'0'))))
    }

    /// Reads a code whatever its case, hyphens and blanks; O is read as 0, I and L as 1.
    pub fn parse(text: &str) -> Option<Self> {
        let mut chars = [0; CODE_CHARS];
        let mut seen = 0;
        for c in text.chars().filter(|c| !matches!(c, '-' | ' ' | '\t' | '\u{a0}' | '\u{3000}')) {
            let c = match c.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                c => c,
            };
            let byte = u8::try_from(c).ok().filter(|byte| ALPHABET.contains(byte))?;
            *chars.get_mut(seen)? = byte;
            seen += 1;
        }
        (seen == CODE_CHARS).then_some(Self(chars))
    }

    /// `XXXX-XXXX-XXXX`.
    pub fn to_text(&self) -> String {
        let mut out = String::with_capacity(CODE_CHARS + 2);
        for (i, byte) in self.0.iter().enumerate() {
            if i > 0 && i % 4 == 0 {
                out.push('-');
            }
            out.push(char::from(*byte));
        }
        out
    }

    /// The twelve characters, for its MAC.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
