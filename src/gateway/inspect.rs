//! What a person sees: the score and why, what an answer would be, who asked, and all of their data.

use std::sync::Arc;

use jiff::{Timestamp, civil::Date};

use super::ask::PAGE_PLACES;
use super::consents::ConsentView;
use super::publish::Loaded;
use super::{Gateway, GatewayError, Refusal, at};
use crate::access_log::entry::{Body, Subject};
use crate::access_log::proof::Proof;
use crate::authority::{Authority, Login};
use crate::code::{PartyId, ScenarioId};
use crate::consent::ConsentId;
use crate::disclosure::{DayCell, Decision, decide};
use crate::ledger::LeafPlace;
use crate::person::{Person, PersonId};
use crate::record::Held;
use crate::score::{Explanation, explain};
use crate::store::Place;
use crate::tables;
use crate::vault::PersonKeys;

/// A person's score, for the person.
pub struct ScoreView {
    /// The day that it is of.
    pub day: Date,
    /// How it comes about.
    pub explanation: Explanation,
    /// The policies that it follows from.
    pub policies: Arc<Loaded>,
}

/// What a scenario's answer would be.
#[derive(Debug, PartialEq)]
pub struct LookView {
    /// Whether it would be met, and in which words.
    pub decision: Decision,
    /// Whether an answer of today has fixed it already.
    pub fixed: bool,
}

/// One line of who asked.
#[derive(Debug)]
pub struct AccessView {
    /// The entry's index in the log: its id.
    pub index: u64,
    /// When.
    pub at: Timestamp,
    /// Who; none for an officer's look-up.
    pub party: Option<PartyId>,
    /// For what.
    pub scenario: Option<ScenarioId>,
    /// `ask` or `look-up`.
    pub action: &'static str,
    /// The consent that was shown.
    pub consent: Option<ConsentId>,
    /// That it is in the log.
    pub proof: Proof,
}

/// Everything that is held about a person.
pub struct ExportView {
    /// The register's entry.
    pub person: Person,
    /// All records.
    pub records: Vec<Held>,
    /// All consents.
    pub consents: Vec<ConsentView>,
    /// With the catalogue and the model that the score follows from.
    pub policies: Arc<Loaded>,
}

impl Gateway {
    /// The person's score of today, and how it comes about.
    pub async fn score(&self, login: &Login) -> Result<ScoreView, GatewayError> {
        let (_, day) = self.now()?;
        let policies = self.policies_on(day);
        let dossier = self.dossier(login, *login.person()).await?.ok_or(Refusal::NotFound)?;
        let person = dossier.person.as_ref().ok_or(Refusal::NotFound)?;
        let explanation = explain(person, &dossier.held(), &policies.catalogue, policies.model_in_force(), day);
        Ok(ScoreView { day, explanation, policies })
    }

    /// What a scenario's answer would be today, before choosing. It fixes nothing.
    pub async fn look(&self, login: &Login, scenario: &str) -> Result<LookView, GatewayError> {
        let (_, day) = self.now()?;
        let policies = self.policies_on(day);
        let scenario = ScenarioId::parse(scenario).ok();
        let scenario = scenario.and_then(|id| policies.scenarios.get(&id)).ok_or(Refusal::UnknownScenario)?;
        let place = self.today_place(login.person(), day);
        let fixed = match self.get(&place).await? {
            Some(cell) => {
                let opened = self.vault.open_today(login, login.person(), at(&place, cell.version), &cell.value)?;
                Some(opened)
            }
            None => None,
        };
        let cell = match fixed {
            Some(cell) => cell,
            None => {
                let dossier = self.dossier(login, *login.person()).await?.ok_or(Refusal::NotFound)?;
                let outcome = dossier.evaluate(&policies, policies.model_in_force(), day);
                DayCell::of(outcome.and_then(|outcome| outcome.score), &policies.city.cuts)
            }
        };
        let decision = decide(cell, &scenario.question, &policies.city.cuts, policies.model_in_force());
        Ok(LookView { decision, fixed: fixed.is_some() })
    }

    /// Who asked about the person, and which officers looked; newest first, those before an entry.
    pub async fn accesses(
        &self,
        login: &Login,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<AccessView>, GatewayError> {
        let keys = self.person_keys(login).await?;
        let mut places = self.accesses_of(login, &keys).await?;
        places.extend(self.look_ups_of(login.person()).await?);
        places.sort_unstable_by(|a, b| b.cmp(a));
        let mut views = Vec::new();
        for index in page(&places, before, limit)? {
            let proof = self.log().proof(LeafPlace { index, size: 0 }).await?;
            let (body, _) = crate::access_log::entry::open(self.keys().log(), index, &proof.extra)
                .map_err(|e| GatewayError::Fault(e.to_string()))?;
            views.push(access_view(index, body, proof));
        }
        Ok(views)
    }

    /// Where the entries of those who asked about a person stand.
    pub(super) async fn accesses_of(
        &self,
        authority: &dyn Authority,
        keys: &PersonKeys,
    ) -> Result<Vec<u64>, GatewayError> {
        let mut places = Vec::new();
        for ConsentView { id, consent } in self.consents_of(authority, keys).await? {
            for first in (0..consent.asked).step_by(usize::try_from(PAGE_PLACES).unwrap_or(1)) {
                let place = self.page_place(id, first);
                if let Some(cell) = self.get(&place).await? {
                    let (_, content) = self.vault.open_by_consent(at(&place, cell.version), &cell.value)?;
                    places.extend(indexes(&content));
                }
            }
        }
        Ok(places)
    }

    /// Where the entries of officers' look-ups about a person stand.
    pub(super) async fn look_ups_of(&self, person: &PersonId) -> Result<Vec<u64>, GatewayError> {
        let prefix = self.look_up_key(person);
        let mut places = Vec::new();
        for (key, cell) in self.store.scan(tables::ACCESS, &prefix, &tables::after(&prefix), 10_000).await? {
            let place = Place::new(tables::ACCESS, key);
            places.extend(indexes(&self.vault.open_indexed(at(&place, cell.version), &cell.value)?));
        }
        Ok(places)
    }

    /// The first bytes of the keys of the pages of look-ups about a person.
    pub(super) fn look_up_key(&self, person: &PersonId) -> [u8; 32] {
        self.vault.lookup("look-up", &[&person.0])
    }

    /// Everything that is held about the person.
    pub async fn export(&self, login: &Login) -> Result<ExportView, GatewayError> {
        let (_, day) = self.now()?;
        let policies = self.policies_on(day);
        let dossier = self.dossier(login, *login.person()).await?.ok_or(Refusal::NotFound)?;
        let records = dossier.held();
        let person = dossier.person.ok_or(Refusal::NotFound)?;
        let consents = self.consents(login).await?;
        Ok(ExportView { person, records, consents, policies })
    }
}

/// The leaf places of a page.
pub(super) fn indexes(content: &[u8]) -> impl Iterator<Item = u64> {
    content.as_chunks::<8>().0.iter().map(|index| u64::from_be_bytes(*index))
}

/// Up to `limit` of the places, newest first, after the one named.
pub(super) fn page(places: &[u64], before: Option<u64>, limit: usize) -> Result<Vec<u64>, Refusal> {
    let from = match before {
        None => 0,
        Some(before) => {
            let found = places.iter().position(|place| *place == before);
            found.ok_or(Refusal::BadPage("`before` is not the id of an entry of this list"))? + 1
        }
    };
    Ok(places.iter().skip(from).take(limit).copied().collect())
}

fn access_view(index: u64, body: Body, proof: Proof) -> AccessView {
    let consent = match body.subject {
        Subject::Consent(id) => Some(id),
        _ => None,
    };
    AccessView {
        index,
        at: body.at,
        party: body.party,
        scenario: body.scenario,
        action: body.action.as_str(),
        consent,
        proof,
    }
}
