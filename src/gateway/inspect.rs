//! What a person sees: the score and why, what an answer would be, who asked, and all of their data.

use std::sync::Arc;

use jiff::{Timestamp, civil::Date};

use super::ask::PAGE_PLACES;
use super::consents::ConsentView;
use super::market::{self, MarketView};
use super::publish::Loaded;
use super::{Gateway, GatewayError, Refusal, at, merged};
use crate::access_log::entry::{Body, Subject};
use crate::access_log::proof::Proof;
use crate::authority::{Authority, Login};
use crate::code::{PartyId, RecordId, ScenarioId};
use crate::consent::ConsentId;
use crate::disclosure::{Cause, DayCell, Decision, ScoreChange, decide};
use crate::ledger::{EntryId, LeafPlace, LogReader};
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
    /// How it changed lately, newest first.
    pub changes: Vec<ScoreChange>,
    /// What providers said who withdrew a record.
    pub withdrawals: Vec<(PartyId, RecordId, String)>,
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
    /// The number of the log that the entry stands in.
    pub log: u16,
    /// The entry's index in it.
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
    /// What the person said about market information.
    pub market: Vec<MarketView>,
    /// With the catalogue and the model that the score follows from.
    pub policies: Arc<Loaded>,
}

impl Gateway {
    /// The person's score of today, and how it comes about.
    pub async fn score(&self, login: &Login) -> Result<ScoreView, GatewayError> {
        let (_, day, policies) = self.moment().await?;
        let dossier = self.dossier(login, *login.person()).await?.ok_or(Refusal::NotFound)?;
        let person = dossier.person.as_ref().ok_or(Refusal::NotFound)?;
        let held = dossier.held(&policies.catalogue);
        let explanation = explain(person, &held, &policies.catalogue, policies.model_in_force(), day);
        let said = |held: &Held| {
            let reason = held.withdrawn_because.clone()?;
            Some((held.record.provider.clone(), held.record.id.clone(), reason))
        };
        let withdrawals = held.iter().filter_map(said).collect();
        let (standing, _) = self.standing_of(&dossier)?;
        let mut changes = Vec::new();
        if let Some(standing) = standing {
            let (from, to) = (standing.outcome.score, explanation.outcome.score);
            changes.extend(standing.changes.iter().rev().copied());
            // Not swept yet: told all the same.
            if from != to {
                let by_rules = standing.rules != *policies.rules();
                let cause = if by_rules { policies.cause(&standing.rules) } else { Cause::Days };
                let on = standing.next_change.filter(|next| !by_rules && *next <= day).unwrap_or(day);
                changes.insert(0, ScoreChange { on, from, to, cause });
            }
        }
        Ok(ScoreView { day, explanation, policies, changes, withdrawals })
    }

    /// What a scenario's answer would be today, before choosing. It fixes nothing.
    pub async fn look(&self, login: &Login, scenario: &str) -> Result<LookView, GatewayError> {
        let (_, day, policies) = self.moment().await?;
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
        before: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<AccessView>, GatewayError> {
        let keys = self.person_keys(login).await?;
        let mut places = self.accesses_of(login, &keys).await?;
        places.extend(self.look_ups_of(login.person()).await?);
        let mut views = Vec::new();
        for (id, body, log) in merged::page(self.logs(), places, before, limit).await? {
            views.push(access_view(id, body, proved(&log, id).await?));
        }
        Ok(views)
    }

    /// The proof of one entry of who asked; none where it is not one of the person's.
    pub async fn access_proof(&self, login: &Login, id: EntryId) -> Result<Option<Proof>, GatewayError> {
        let keys = self.person_keys(login).await?;
        let mut places = self.accesses_of(login, &keys).await?;
        places.extend(self.look_ups_of(login.person()).await?);
        if !places.contains(&id) {
            return Ok(None);
        }
        Ok(Some(proved(&self.logs().log(id.log).await?, id).await?))
    }

    /// Where the entries of those who asked about a person stand.
    pub(super) async fn accesses_of(
        &self,
        authority: &dyn Authority,
        keys: &PersonKeys,
    ) -> Result<Vec<EntryId>, GatewayError> {
        let mut places = Vec::new();
        for ConsentView { id, consent, .. } in self.consents_of(authority, keys).await? {
            for first in (0..consent.asked).step_by(usize::try_from(PAGE_PLACES).unwrap_or(1)) {
                let place = self.page_place(id, first);
                if let Some(cell) = self.get(&place).await? {
                    let (_, content) = self.vault.open_by_consent(at(&place, cell.version), &cell.value)?;
                    places.extend(entries(&content));
                }
            }
        }
        Ok(places)
    }

    /// Where the entries of officers' look-ups about a person stand.
    pub(super) async fn look_ups_of(&self, person: &PersonId) -> Result<Vec<EntryId>, GatewayError> {
        let prefix = self.look_up_key(person);
        let mut places = Vec::new();
        for (key, cell) in self.store.scan(tables::ACCESS, &prefix, &tables::after(&prefix), 10_000).await? {
            let place = Place::new(tables::ACCESS, key);
            places.extend(entries(&self.vault.open_indexed(at(&place, cell.version), &cell.value)?));
        }
        Ok(places)
    }

    /// The first bytes of the keys of the pages of look-ups about a person.
    pub(super) fn look_up_key(&self, person: &PersonId) -> [u8; 32] {
        self.vault.lookup("look-up", &[&person.0])
    }

    /// Everything that is held about the person.
    pub async fn export(&self, login: &Login) -> Result<ExportView, GatewayError> {
        let (_, _, policies) = self.moment().await?;
        let dossier = self.dossier(login, *login.person()).await?.ok_or(Refusal::NotFound)?;
        let records = dossier.held(&policies.catalogue).into_owned();
        let market = market::views(&dossier, &policies);
        let person = dossier.person.ok_or(Refusal::NotFound)?;
        let consents = self.consents(login).await?;
        Ok(ExportView { person, records, consents, market, policies })
    }
}

/// The entries that a page names.
pub(super) fn entries(content: &[u8]) -> impl Iterator<Item = EntryId> {
    content.as_chunks::<{ EntryId::BYTES }>().0.iter().map(EntryId::from_bytes)
}

/// The proof of an entry in the log as it is now.
async fn proved(log: &LogReader, id: EntryId) -> Result<Proof, GatewayError> {
    Ok(log.proof(LeafPlace { log: id.log, index: id.index, size: 0 }).await?)
}

impl AccessView {
    /// The entry's id.
    pub fn id(&self) -> EntryId {
        EntryId { log: self.log, index: self.index }
    }
}

fn access_view(id: EntryId, body: Body, proof: Proof) -> AccessView {
    let consent = match body.subject {
        Subject::Consent(id) => Some(id),
        _ => None,
    };
    AccessView {
        log: id.log,
        index: id.index,
        at: body.at,
        party: body.party,
        scenario: body.scenario,
        action: body.action.as_str(),
        consent,
        proof,
    }
}
