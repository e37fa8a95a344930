//! Who may have personal data opened: the vault takes an [`Authority`] and nothing less.
//!
//! Apart from the vault so that the list is short, closed and read in one place. INVARIANT (no
//! grant, no plaintext): the trait is sealed, and each kind below can be made only from what proves
//! it. A relying party's `Grant` is made in `consent`; the others here.

use crate::code::RuleId;
use crate::person::PersonId;

pub(crate) mod sealed {
    /// Keeps the list of authorities closed: these, and the `Grant` of `consent` (`tests/it/tidy.rs` looks).
    pub trait Sealed {}
    impl Sealed for super::Login {}
    impl Sealed for super::OpenCase {}
    impl Sealed for super::Report {}
    impl Sealed for super::Trial {}
    impl Sealed for super::Sweep {}
}

/// Lets the vault open the cells of the people it reaches.
pub trait Authority: sealed::Sealed + Send + Sync {
    /// Whether this person's cells may be opened.
    fn reaches(&self, person: &PersonId) -> bool;
}

/// A person who has logged in, for their own cells.
#[derive(Debug, Clone)]
pub struct Login {
    person: PersonId,
}

impl Login {
    /// Made where a session is opened, and nowhere else (`tests/it/tidy.rs` looks).
    pub(crate) fn of(person: PersonId) -> Self {
        Self { person }
    }

    /// Whose login it is.
    pub fn person(&self) -> &PersonId {
        &self.person
    }
}

impl Authority for Login {
    fn reaches(&self, person: &PersonId) -> bool {
        self.person == *person
    }
}

/// An officer's case about a person, confirmed by another officer.
#[derive(Debug, Clone)]
pub struct OpenCase {
    person: PersonId,
}

impl OpenCase {
    /// The authority of a case, once an officer other than its opener has confirmed it.
    pub(crate) fn confirmed(person: PersonId, opened_by: &str, confirmed_by: Option<&str>) -> Option<Self> {
        confirmed_by.filter(|officer| *officer != opened_by).map(|_| Self { person })
    }

    /// Whom the case is about.
    pub fn person(&self) -> &PersonId {
        &self.person
    }
}

impl Authority for OpenCase {
    fn reaches(&self, person: &PersonId) -> bool {
        self.person == *person
    }
}

/// A provider's report or the registrar's line: it re-scores whom it is about, and returns nothing.
#[derive(Debug, Clone)]
pub struct Report(());

impl Report {
    /// The authority of a call that this rule let in.
    pub(crate) fn permitted(_rule: &RuleId) -> Self {
        Self(())
    }
}

impl Authority for Report {
    fn reaches(&self, _person: &PersonId) -> bool {
        true
    }
}

/// A model that is tried: everybody is scored, and counts come out that are about nobody.
#[derive(Debug, Clone)]
pub struct Trial(());

impl Trial {
    /// Made where a model is tried, and nowhere else (`tests/it/tidy.rs` looks).
    pub(crate) fn begun() -> Self {
        Self(())
    }
}

impl Authority for Trial {
    fn reaches(&self, _person: &PersonId) -> bool {
        true
    }
}

/// The sweep of what is due: it computes standings anew, and returns nothing.
#[derive(Debug)]
pub struct Sweep(());

impl Sweep {
    /// Made where standings that are due are computed anew, and nowhere else (`tests/it/tidy.rs` looks).
    pub(crate) fn begun() -> Self {
        Self(())
    }
}

impl Authority for Sweep {
    fn reaches(&self, _person: &PersonId) -> bool {
        true
    }
}

/// A rotation of keys. It is no [`Authority`]: the vault wraps a person's keys anew for it, and opens nothing.
#[derive(Debug)]
pub struct KeyRotation(());

impl KeyRotation {
    /// Made where people's keys are wrapped anew, and nowhere else (`tests/it/tidy.rs` looks).
    pub(crate) fn begun() -> Self {
        Self(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_needs_two_officers() {
        let person = PersonId([1; 32]);
        assert!(OpenCase::confirmed(person, "officer-1", None).is_none());
        assert!(OpenCase::confirmed(person, "officer-1", Some("officer-1")).is_none());
        let case = OpenCase::confirmed(person, "officer-1", Some("officer-2")).unwrap();
        assert!(case.reaches(&person) && !case.reaches(&PersonId([2; 32])));
    }
}
