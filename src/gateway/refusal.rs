//! What a call can be answered with instead of its result.
//!
//! A [`Refusal`] is expected and has a stable code; it is rich about the integration and silent
//! about the person. A fault is an incident: everything about it stays inside.

use crate::clock::ClockStepped;
use crate::code::{ModelId, PartyId, ScenarioId};

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such scenario, or not one in which this party may ask.
    #[error("there is no scenario of this name in which you may ask; GET /v1/scenarios lists them")]
    UnknownScenario,
    /// Forged, another party's, another scenario's, or never made: one refusal for all.
    #[error("this is no consent that was given to you for this scenario; ask the person for a new token or code")]
    ConsentNotRecognised,
    /// No rule of access.toml lets this caller do this.
    #[error("no rule of access.toml lets you do this")]
    NotPermitted,
    /// The signature's nonce was seen before.
    #[error("this signature was sent before; sign each call anew, with a fresh nonce")]
    ReplayedSignature,
    /// The system clock jumped.
    #[error(transparent)]
    ClockStepped(#[from] ClockStepped),
    /// A field has a value out of its range.
    #[error("{field}: {expected}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// What it must be.
        expected: String,
    },
    /// The consent would be for more than the scenario allows.
    #[error("{field} must be from 1 to {max} in the scenario {scenario}")]
    BeyondLimits {
        /// `uses` or `days`.
        field: &'static str,
        /// The most that the scenario allows.
        max: u32,
        /// The scenario.
        scenario: ScenarioId,
    },
    /// The scenario has several parties and none was named.
    #[error("this scenario has several parties: name one of them in `party` ({})", list(.0))]
    PartyRequired(Vec<PartyId>),
    /// The party is not one of the scenario's.
    #[error("this party does not take part in the scenario; it has {}", list(.0))]
    UnknownParty(Vec<PartyId>),
    /// Nothing of this id, or nothing that the caller may know of.
    #[error("there is nothing of this name here")]
    NotFound,
    /// The consent is revoked, over or used up, so no code can be made for it.
    #[error("this consent is over; give a new one to make a code")]
    ConsentOver,
    /// The store was restored today, and consents can be given again from this day on.
    #[error("the gateway was restored from a backup; consents can be given again from {0} on")]
    AfterRestore(jiff::civil::Date),
    /// The case has not been confirmed by another officer.
    #[error("the case is not open: another officer than the one who opened it must confirm it first")]
    CaseNotOpen,
    /// The officer who opened a case cannot confirm it.
    #[error("a case is confirmed by another officer than the one who opened it")]
    CaseOwn,
    /// A model's file has mistakes, or does not fit the policies.
    #[error("{0}")]
    ModelMistakes(String),
    /// A model of this id is known, and its bytes are others.
    #[error(
        "a model with the id {0} is known and has other bytes; a published model never changes: give this one an id of its own"
    )]
    ModelChanged(ModelId),
    /// The draft is still open for comment.
    #[error("the draft is open for comment until {0}, and can be published from that day on")]
    ModelInComment(jiff::civil::Date),
    /// Approvals are missing.
    #[error("the draft needs {0} more approval(s), each by another officer or operator")]
    ModelNotApproved(usize),
    /// The same person approved it before.
    #[error("you approved this draft at {0}; another approval comes from another officer or operator")]
    ModelApproved(jiff::Timestamp),
    /// It was published already, so neither its day nor who approved it changes.
    #[error("the model is published already and holds from {0}; that does not change any more")]
    ModelPublished(jiff::civil::Date),
    /// `limit` or `before` is not usable.
    #[error("{0}")]
    BadPage(&'static str),
    /// Too many callers changed the same cells at once.
    #[error("too many calls changed the same thing at once; send the call again")]
    Busy,
}

fn list(parties: &[PartyId]) -> String {
    parties.iter().map(PartyId::as_str).collect::<Vec<_>>().join(", ")
}

impl Refusal {
    /// The stable code of `docs/errors.md`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownScenario => "unknown-scenario",
            Self::ConsentNotRecognised => "consent-not-recognised",
            Self::NotPermitted => "not-permitted",
            Self::ReplayedSignature => "replayed-signature",
            Self::ClockStepped(_) => "clock-stepped",
            Self::OutOfRange { .. } => "out-of-range",
            Self::BeyondLimits { .. } => "consent-beyond-limits",
            Self::PartyRequired(_) => "party-required",
            Self::UnknownParty(_) => "unknown-party",
            Self::NotFound => "not-found",
            Self::ConsentOver => "consent-over",
            Self::AfterRestore(_) => "after-restore",
            Self::CaseNotOpen => "case-not-open",
            Self::CaseOwn => "case-own",
            Self::ModelMistakes(_) => "model-mistakes",
            Self::ModelChanged(_) => "model-changed",
            Self::ModelInComment(_) => "model-in-comment",
            Self::ModelNotApproved(_) => "model-not-approved",
            Self::ModelApproved(_) => "model-approved",
            Self::ModelPublished(_) => "model-published",
            Self::BadPage(_) => "bad-page",
            Self::Busy => "overloaded",
        }
    }
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// It was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Something is wrong with the gateway; the caller gets an incident number and nothing else.
    #[error("{0}")]
    Fault(String),
}

/// Every inner error that is nobody's mistake but ours.
macro_rules! fault {
    ($($error:ty),*) => {$(
        impl From<$error> for GatewayError {
            fn from(error: $error) -> Self {
                Self::Fault(error.to_string())
            }
        }
    )*};
}

fault!(
    crate::store::StoreError,
    crate::store::CommitError,
    crate::vault::VaultError,
    crate::entropy::EntropyError,
    crate::keys::SigningKeyError,
    crate::ledger::ReadError,
    crate::access_log::proof::MissingTile
);

impl From<ClockStepped> for GatewayError {
    fn from(stepped: ClockStepped) -> Self {
        Self::Refused(stepped.into())
    }
}
