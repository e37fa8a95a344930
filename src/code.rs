//! The names that policies and records give to things: short ids, each a type of its own.
//!
//! They are chosen by people who write policies (and, for record ids, by providers), never secret,
//! and short enough for a log entry. An id that breaks the form cannot be made.

mod by_indicator;

use std::fmt;

pub use by_indicator::ByIndicator;

use crate::text::is_bidi_control;

/// Why a text is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id has 1 to {CODE_CHARS_MAX} of the characters a-z 0-9 - and begins with a letter")]
pub struct CodeError;

/// The most characters an id has.
pub const CODE_CHARS_MAX: usize = 64;

fn well_formed(text: &str) -> bool {
    text.len() <= CODE_CHARS_MAX
        && text.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

macro_rules! code {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks the form: 1 to 64 of `a-z 0-9 -`, a letter first.
            pub fn parse(text: &str) -> Result<Self, CodeError> {
                if well_formed(text) { Ok(Self(text.into())) } else { Err(CodeError) }
            }

            /// The id as text.
            #[inline]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            #[inline]
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

code!(
    /// An organisation that asks, reports, or both: `yx-library`.
    PartyId
);
code!(
    /// A use of the score for which somebody may ask: `library-deposit`.
    ScenarioId
);
code!(
    /// A kind of information in the catalogue: `volunteer-hours`.
    IndicatorCode
);
code!(
    /// A part of the score in a model: `lawfulness`.
    DimensionCode
);
code!(
    /// A grade of the score: `good`.
    GradeCode
);
code!(
    /// A published way of counting: `yuxi-2026`.
    ModelId
);
code!(
    /// A rule of `access.toml`, named in every log entry that it decided.
    RuleId
);

/// A provider's own id of a record: 1 to 64 characters, none of them a control character or one
/// that turns the direction of what stands beside it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(Box<str>);

impl RecordId {
    /// Checks the form; an id is compared as it is written, without folding.
    pub fn parse(text: &str) -> Result<Self, CodeError> {
        let chars = text.chars().count();
        let unseen = |c: char| c.is_control() || is_bidi_control(c);
        if (1..=CODE_CHARS_MAX).contains(&chars) && !text.chars().any(unseen) && text.trim() == text {
            Ok(Self(text.into()))
        } else {
            Err(CodeError)
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordId(..)")
    }
}
