//! A person's consents to market information (Article 8): given, listed, taken back, and in the score at once.
//!
//! They lie beside the person's records, under the key that the person can have destroyed, and are read with them; a
//! record that rests on one that was taken back is left as it is and does not count. So taking one back writes one
//! cell and the standing, however many records it concerns. A restore ends all of before, and writes none of them.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::publish::Loaded;
use super::{Gateway, GatewayError, Refusal, TRIES_MAX};
use crate::access::{Action, Condition, Role};
use crate::access_log::entry::{Body, LogAction, Subject};
use crate::authority::Login;
use crate::catalogue::Category;
use crate::code::{IndicatorCode, PartyId, RuleId};
use crate::disclosure::Cause;
use crate::entropy;
use crate::ledger::Change;
use crate::market::{self, CONSENTS_MAX, MarketConsent, MarketConsentId, PaperWithdrawal};

/// What a person lets a provider report.
#[derive(Debug, Clone, Default)]
pub struct MarketRequest {
    /// The provider's id.
    pub provider: String,
    /// Codes of market indicators; all that the catalogue lets this provider report unless said.
    pub indicators: Option<Vec<String>>,
}

/// A consent in its person's list.
#[derive(Clone, PartialEq, Eq)]
pub struct MarketView {
    /// What records name, or what a form on paper is listed under.
    pub id: String,
    /// The form's reference with its provider, where the consent is on paper.
    pub paper: Option<String>,
    /// Who may report.
    pub provider: PartyId,
    /// What; of paper: what was reported by it.
    pub indicators: Vec<IndicatorCode>,
    /// When it was given here; of paper it is not known.
    pub given: Option<Timestamp>,
    /// When it was taken back.
    pub withdrawn: Option<Timestamp>,
    /// Where a restore of the store has ended it: the instant before which all are lapsed.
    pub lapsed: Option<Timestamp>,
    /// How many records rest on it.
    pub records: usize,
}

impl std::fmt::Debug for MarketView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MarketView({}, {} records, ..)", self.provider, self.records)
    }
}

/// The market indicators that each provider may report.
pub(super) fn offers(policies: &Loaded) -> BTreeMap<PartyId, Vec<IndicatorCode>> {
    let mut offers: BTreeMap<PartyId, Vec<IndicatorCode>> = BTreeMap::new();
    for indicator in policies.catalogue.iter().filter(|indicator| indicator.category == Category::Market) {
        for provider in &indicator.providers {
            offers.entry(provider.clone()).or_default().push(indicator.code.clone());
        }
    }
    offers
}

impl Gateway {
    /// Who may report market information about a person who lets them, and what.
    pub async fn market_providers(&self) -> Result<BTreeMap<PartyId, Vec<IndicatorCode>>, GatewayError> {
        let (_, _, policies) = self.moment().await?;
        Ok(offers(&policies))
    }

    /// Lets a provider report market information about the person.
    pub async fn give_market_consent(
        &self,
        login: &Login,
        request: &MarketRequest,
    ) -> Result<MarketView, GatewayError> {
        let (now, _, policies) = self.moment().await?;
        let rule = Self::permit(&policies, &[Role::Person], Action::Consent, &[Condition::OwnData])?;
        let (provider, indicators) = wanted(&policies, request)?;
        self.consents_count(now)?;
        let id = MarketConsentId(entropy::bytes::<16>(&*self.entropy)?);
        let consent = MarketConsent { id, provider: provider.clone(), indicators, given: now, withdrawn: None };
        for _ in 0..TRIES_MAX {
            let (_, day, policies) = self.moment().await?;
            let mut dossier = self.dossier(login, *login.person()).await?.ok_or(Refusal::NotFound)?;
            if !dossier.market().has_room(self.consents_from) {
                let expected = format!("at most {CONSENTS_MAX} consents; take back one that you no longer want");
                return Err(Refusal::OutOfRange { field: "provider", expected }.into());
            }
            dossier.market().given.push(consent.clone());
            let body = entry(now, &provider, &rule, LogAction::MarketConsent);
            let mut change = Change::entry(self.random()?, body);
            self.add_dossier(&mut change, &dossier, &policies, day, Cause::MarketConsent)?;
            if self.record(change, None).await?.is_some() {
                return Ok(view_of(&consent, self.consents_from, 0));
            }
        }
        Err(Refusal::Busy.into())
    }

    /// The person's consents to market information, newest first; forms on paper that records name among them, behind
    /// the others.
    pub async fn market_consents(&self, login: &Login) -> Result<Vec<MarketView>, GatewayError> {
        let (_, _, policies) = self.moment().await?;
        Self::permit(&policies, &[Role::Person], Action::ReadOwn, &[Condition::OwnData])?;
        let dossier = self.dossier(login, *login.person()).await?.ok_or(Refusal::NotFound)?;
        Ok(views(&dossier, &policies))
    }

    /// Takes a consent to market information back: the records that rest on it leave the score at once. Again changes
    /// nothing.
    pub async fn withdraw_market_consent(&self, login: &Login, id: &str) -> Result<(), GatewayError> {
        for _ in 0..TRIES_MAX {
            let (now, day, policies) = self.moment().await?;
            let rule = Self::permit(&policies, &[Role::Person], Action::Revoke, &[Condition::OwnData])?;
            let mut dossier = self.dossier(login, *login.person()).await?.ok_or(Refusal::NotFound)?;
            let listed = views(&dossier, &policies).into_iter().find(|view| view.id == id).ok_or(Refusal::NotFound)?;
            if listed.withdrawn.is_some() {
                return Ok(());
            }
            let held = dossier.market();
            match listed.paper {
                None => {
                    let consent = held.given.iter_mut().find(|consent| consent.id.to_text() == id);
                    consent.ok_or(Refusal::NotFound)?.withdrawn = Some(now);
                }
                Some(reference) => {
                    if !held.has_room(self.consents_from) {
                        let expected = format!("at most {CONSENTS_MAX} consents; take back one of the others first");
                        return Err(Refusal::OutOfRange { field: "id", expected }.into());
                    }
                    held.papers.push(PaperWithdrawal { provider: listed.provider.clone(), reference, at: now });
                }
            }
            let body = entry(now, &listed.provider, &rule, LogAction::MarketWithdrawal);
            let mut change = Change::entry(self.random()?, body);
            self.add_dossier(&mut change, &dossier, &policies, day, Cause::MarketConsent)?;
            if self.record(change, None).await?.is_some() {
                return Ok(());
            }
        }
        Err(Refusal::Busy.into())
    }
}

/// The provider and the indicators that a request means.
fn wanted(policies: &Loaded, request: &MarketRequest) -> Result<(PartyId, Vec<IndicatorCode>), Refusal> {
    let offers = offers(policies);
    let found = offers.iter().find(|(provider, _)| provider.as_str() == request.provider);
    let (provider, offered) = found.ok_or_else(|| {
        let known: Vec<&str> = offers.keys().map(PartyId::as_str).collect();
        Refusal::OutOfRange { field: "provider", expected: format!("one of {}", known.join(", ")) }
    })?;
    let Some(said) = &request.indicators else { return Ok((provider.clone(), offered.clone())) };
    let known: Vec<IndicatorCode> =
        offered.iter().filter(|code| said.iter().any(|said| said == code.as_str())).cloned().collect();
    if said.is_empty() || known.len() != said.len() {
        let codes: Vec<&str> = offered.iter().map(IndicatorCode::as_str).collect();
        let expected = format!("some of {}, each once", codes.join(", "));
        return Err(Refusal::OutOfRange { field: "indicators", expected });
    }
    Ok((provider.clone(), known))
}

fn view_of(consent: &MarketConsent, counts_from: Option<Timestamp>, records: usize) -> MarketView {
    MarketView {
        id: consent.id.to_text(),
        paper: None,
        provider: consent.provider.clone(),
        indicators: consent.indicators.clone(),
        given: Some(consent.given),
        withdrawn: consent.withdrawn,
        lapsed: counts_from.filter(|_| consent.lapsed(counts_from)),
        records,
    }
}

pub(super) fn views(dossier: &super::dossier::Dossier, policies: &Loaded) -> Vec<MarketView> {
    let counts_from = dossier.counts_from();
    let held = dossier.held(&policies.catalogue);
    let category = |code: &IndicatorCode| policies.catalogue.get(code.as_str()).map(|indicator| indicator.category);
    let (mut counts, mut papers): (BTreeMap<String, usize>, BTreeMap<String, MarketView>) = Default::default();
    for record in held.iter().map(|held| &held.record).filter(|r| category(&r.indicator) == Some(Category::Market)) {
        let Some(reference) = record.consent_ref.as_deref() else { continue };
        if MarketConsentId::parse(reference).is_some() {
            *counts.entry(reference.to_owned()).or_default() += 1;
            continue;
        }
        let id = market::paper_id(&record.provider, reference);
        let view = papers.entry(id.clone()).or_insert_with(|| paper(id, &record.provider, reference, counts_from));
        view.records += 1;
        if !view.indicators.contains(&record.indicator) {
            view.indicators.push(record.indicator.clone());
        }
    }
    let said = dossier.said_of_market();
    for withdrawal in &said.papers {
        let id = market::paper_id(&withdrawal.provider, &withdrawal.reference);
        let (provider, reference) = (&withdrawal.provider, &withdrawal.reference);
        let view = papers.entry(id.clone()).or_insert_with(|| paper(id, provider, reference, counts_from));
        view.withdrawn = Some(withdrawal.at);
    }
    let count = |consent: &MarketConsent| counts.get(&consent.id.to_text()).copied().unwrap_or_default();
    said.given
        .iter()
        .rev()
        .map(|consent| view_of(consent, counts_from, count(consent)))
        .chain(papers.into_values())
        .collect()
}

fn paper(id: String, provider: &PartyId, reference: &str, counts_from: Option<Timestamp>) -> MarketView {
    MarketView {
        id,
        paper: Some(reference.to_owned()),
        provider: provider.clone(),
        indicators: Vec::new(),
        given: None,
        withdrawn: None,
        lapsed: counts_from.filter(|_| market::paper_lapsed(reference, counts_from)),
        records: 0,
    }
}

fn entry(at: Timestamp, provider: &PartyId, rule: &RuleId, action: LogAction) -> Body {
    let (party, rule) = (Some(provider.clone()), Some(rule.clone()));
    Body { at, party, scenario: None, action, rule, subject: Subject::None }
}
