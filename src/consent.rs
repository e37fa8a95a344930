//! A person's consent: what it allows, the token and the one-time code that stand for it, and
//! whether a call that shows one has a grant.
//!
//! Pure: MACs are asked of a [`TokenMac`], time is an argument. A forged token, another party's and
//! another scenario's fail the same MAC, before any look-up. INVARIANT (no grant, no plaintext):
//! only [`Presented::with`] makes a [`Grant`], from the consent's own cell. Revocation, uses and the
//! last code lie in that cell, so no absent row ever grants anything.

mod cell;
mod code;
mod token;

pub use cell::{Consent, ConsentCellError, LastCode};
pub use code::{CODE_SECONDS, CodeMac, CodeRow, OneTimeCode};
pub use token::{ConsentId, Token, TokenMac};

use jiff::Timestamp;

use crate::authority::{Authority, sealed::Sealed};
use crate::code::{PartyId, ScenarioId};
use crate::person::PersonId;

/// For how long the same call gives the same answer again.
pub const REPEAT_SECONDS: i64 = 600;

/// What was shown is no consent for this party and scenario, or none at all: nobody is told which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no consent that was given to you for this scenario")]
pub struct NotRecognised;

/// How the consent was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// The token itself.
    Token,
    /// A one-time code, known by its MAC, and when it ends.
    Code(CodeMac, Timestamp),
}

/// A token or code that this party may show for this scenario. It opens the consent's own cell and
/// nothing else.
#[derive(Debug)]
pub struct Presented {
    id: ConsentId,
    key_version: Option<u32>,
    party: PartyId,
    scenario: ScenarioId,
    shown: Shown,
}

/// Whether a call that was answered at that time is still the same call now.
pub fn repeats(answered: Timestamp, now: Timestamp) -> bool {
    now.duration_since(answered).as_secs() < REPEAT_SECONDS
}

/// Checks a token's MAC for this caller and scenario, without any look-up.
pub fn verify(
    token: &Token,
    macs: &dyn TokenMac,
    party: &PartyId,
    scenario: &ScenarioId,
) -> Result<Presented, NotRecognised> {
    if !token.verify(macs, party, scenario) {
        return Err(NotRecognised);
    }
    Ok(Presented {
        id: token.id(),
        key_version: Some(token.key_version()),
        party: party.clone(),
        scenario: scenario.clone(),
        shown: Shown::Token,
    })
}

/// Checks that a code's row was made for this caller and scenario.
pub fn verify_code(
    row: &CodeRow,
    mac: CodeMac,
    party: &PartyId,
    scenario: &ScenarioId,
) -> Result<Presented, NotRecognised> {
    if row.party != *party || row.scenario != *scenario {
        return Err(NotRecognised);
    }
    let shown = Shown::Code(mac, row.ends);
    Ok(Presented { id: row.consent, key_version: None, party: party.clone(), scenario: scenario.clone(), shown })
}

/// A consent that stands, for one answer about one person.
#[derive(Debug)]
pub struct Grant {
    person: PersonId,
}

impl Grant {
    /// Whom the answer is about.
    pub fn person(&self) -> &PersonId {
        &self.person
    }
}

impl Sealed for Grant {}

impl Authority for Grant {
    fn reaches(&self, person: &PersonId) -> bool {
        self.person == *person
    }
}

/// Why a consent gives no grant. The caller never learns it, and no log or figure holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapsed {
    /// The person took it back.
    Revoked,
    /// The store was restored since, and whether the person took it back is not known.
    Restored,
    /// Its days are over.
    Ended,
    /// Its uses are spent.
    UsedUp,
    /// The person declined, in a form that looks like any consent.
    Declined,
    /// The code was used, replaced by a newer one, or is older than its minute.
    DeadCode,
    /// Of the person nothing is left.
    Erased,
}

/// What a presented consent is worth now.
#[derive(Debug)]
pub enum Verdict {
    /// It stands.
    Grant(Grant),
    /// It does not.
    Lapsed(Lapsed),
    /// The same call was answered within the last ten minutes, and the consent is not revoked.
    Repeat,
}

impl Presented {
    /// The consent whose cell this opens.
    pub fn id(&self) -> ConsentId {
        self.id
    }

    /// The version of the keys of the consent's time, where the token says it.
    pub fn key_version(&self) -> Option<u32> {
        self.key_version
    }

    /// How it was shown.
    pub fn shown(&self) -> &Shown {
        &self.shown
    }

    /// Judges the consent by its own cell: revocation first, then whether the call is a repeat, then
    /// everything that a repeat may outlive.
    ///
    /// `counts_from` is the instant before which consents are lapsed, where the store was restored: what a
    /// person took back since the backup is not known, so that comes where revocation does.
    pub fn with(
        &self,
        consent: &Consent,
        answered: Option<Timestamp>,
        now: Timestamp,
        counts_from: Option<Timestamp>,
    ) -> Verdict {
        let repeats = answered.is_some_and(|at| repeats(at, now));
        if consent.party != self.party || consent.scenario != self.scenario || consent.revoked.is_some() {
            Verdict::Lapsed(Lapsed::Revoked)
        } else if consent.lapsed(counts_from) {
            Verdict::Lapsed(Lapsed::Restored)
        } else if repeats {
            Verdict::Repeat
        } else if !self.code_lives(consent, now) {
            Verdict::Lapsed(Lapsed::DeadCode)
        } else if now >= consent.ends {
            Verdict::Lapsed(Lapsed::Ended)
        } else if consent.uses_left == 0 {
            Verdict::Lapsed(Lapsed::UsedUp)
        } else if consent.decline {
            Verdict::Lapsed(Lapsed::Declined)
        } else {
            Verdict::Grant(Grant { person: consent.person })
        }
    }

    /// What stands in the place of a consent whose cell was lost in a restore; it gives no grant.
    pub fn lost(&self, nobody: PersonId) -> Consent {
        Consent {
            person: nobody,
            party: self.party.clone(),
            scenario: self.scenario.clone(),
            made: Timestamp::UNIX_EPOCH,
            ends: Timestamp::UNIX_EPOCH,
            uses: 1,
            uses_left: 1,
            decline: false,
            revoked: None,
            last_code: None,
            asked: 0,
        }
    }

    /// The consent after this call: a use is spent unless the call is a repeat or its code is dead,
    /// and a code that was shown is used.
    pub fn spend(&self, consent: &Consent, verdict: &Verdict) -> Consent {
        let mut after = consent.clone();
        after.asked = after.asked.saturating_add(1);
        if !matches!(verdict, Verdict::Repeat | Verdict::Lapsed(Lapsed::DeadCode)) {
            after.uses_left = after.uses_left.saturating_sub(1);
            if let (Shown::Code(mac, _), Some(last)) = (&self.shown, &mut after.last_code) {
                last.used |= last.mac == *mac;
            }
        }
        after
    }

    fn code_lives(&self, consent: &Consent, now: Timestamp) -> bool {
        match &self.shown {
            Shown::Token => true,
            Shown::Code(mac, ends) => {
                consent.last_code.as_ref().is_some_and(|last| last.mac == *mac && !last.used) && now < *ends
            }
        }
    }
}

#[cfg(test)]
mod tests;
