//! A person gives a consent or declines, makes a code for a counter, takes a consent back.
//!
//! INVARIANT (one withheld): up to the person's own list, nothing tells a decline from a consent: the
//! same button, the same page after it, the same codes.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use jiff::{SignedDuration, Timestamp};

use super::WebState;
use super::figures::{self, Qr};
use super::page::{Area, Page, show};
use super::request::{Fields, Posted, Resident, Seen};
use super::say::time;
use super::stop::Stop;
use crate::clock::day_of;
use crate::code::{PartyId, ScenarioId};
use crate::gateway::{ConsentRequest, Refusal};
use crate::policies::PolicySet;
use crate::scenario::{Question, Scenario};

#[derive(Template)]
#[template(path = "consents.html")]
struct ListPage {
    page: Page,
    cards: Vec<Card>,
}

struct Card {
    id: String,
    title: String,
    party: String,
    state: &'static str,
    stands: bool,
    made: String,
    ends: String,
    uses: String,
    decline: bool,
}

pub(super) async fn list(
    State(state): State<Arc<WebState>>,
    seen: Seen,
    Resident(login): Resident,
) -> Result<Response, Stop> {
    let (policies, now) = (state.gateway().policies()?, state.app.clock.now());
    let (lang, w) = (seen.lang, seen.lang.words());
    let consents = state.gateway().consents(&login).await?;
    let cards = consents.iter().map(|view| {
        let consent = &view.consent;
        let (name, stands) = match consent {
            _ if consent.revoked.is_some() => (w.state_revoked, false),
            _ if consent.lapsed(state.gateway().consents_count_from()) => (w.state_restored, false),
            _ if now >= consent.ends => (w.state_ended, false),
            _ if consent.uses_left == 0 => (w.state_used_up, false),
            _ => (w.state_stands, true),
        };
        let title = policies.scenarios.get(&consent.scenario).map(|scenario| &scenario.title);
        Card {
            id: view.id.to_text(),
            title: lang.name(title, consent.scenario.as_str()),
            party: party_name(&seen, &policies, &consent.party),
            state: name,
            stands,
            made: lang.short_day(day_of(consent.made)),
            ends: lang.short_day(day_of(consent.ends)),
            uses: format!("{} / {}", consent.uses_left, consent.uses),
            decline: consent.decline,
        }
    });
    let cards = cards.collect();
    let page = Page::new(&state, &seen, Area::Person, "/me/consents", w.consents_title);
    show(&ListPage { page, cards })
}

fn party_name(seen: &Seen, policies: &PolicySet, party: &PartyId) -> String {
    seen.lang.name(policies.parties.get(party).map(|party| &party.name), party.as_str())
}

#[derive(Template)]
#[template(path = "choose_party.html")]
struct PartiesPage {
    page: Page,
    title: String,
    benefit: String,
    scenario: String,
    parties: Vec<(String, String)>,
}

#[derive(Template)]
#[template(path = "consent.html")]
struct ConsentPage {
    page: Page,
    scenario: String,
    title: String,
    benefit: String,
    party: String,
    party_name: String,
    learns: String,
    words: String,
    term: String,
    days: u32,
    days_range: String,
    uses: u32,
    uses_range: String,
    days_max: u32,
    uses_max: u32,
    links: bool,
    pseudonym: bool,
    met: bool,
}

pub(super) async fn choose(
    State(state): State<Arc<WebState>>,
    seen: Seen,
    fields: Fields,
    Resident(login): Resident,
) -> Result<Response, Stop> {
    let policies = state.gateway().policies()?;
    let scenario = ScenarioId::parse(fields.get("scenario")).ok();
    let scenario = scenario.and_then(|id| policies.scenarios.get(&id)).ok_or(Refusal::UnknownScenario)?;
    let party = match (fields.said("party"), scenario.parties.as_slice()) {
        (None, [only]) => only,
        (None, _) => return show(&parties_page(&state, &seen, &policies, scenario)),
        (Some(named), parties) => parties
            .iter()
            .find(|party| party.as_str() == named)
            .ok_or_else(|| Refusal::UnknownParty(parties.to_vec()))?,
    };
    let look = state.gateway().look(&login, scenario.id.as_str()).await?;
    let (lang, model) = (seen.lang, policies.model_in_force());
    let name = party_name(&seen, &policies, party);
    let words = match &scenario.question {
        Question::GradeNamed if !look.decision.met => r#"{"grade":…}"#.to_owned(),
        _ => look.decision.claim.to_string(),
    };
    show(&ConsentPage {
        page: Page::new(&state, &seen, Area::Person, "/me/answers", lang.words().give_title).alone(),
        scenario: scenario.id.to_string(),
        title: lang.of(&scenario.title).to_owned(),
        benefit: lang.of(&scenario.benefit).to_owned(),
        party: party.to_string(),
        learns: lang.learns_only(&name, &lang.learns(&scenario.question, model, &policies.city.cuts)),
        party_name: name,
        words,
        term: lang.term(scenario.days, scenario.uses),
        days: scenario.days,
        days_range: lang.range(scenario.days_max),
        uses: scenario.uses,
        uses_range: lang.range(scenario.uses_max),
        days_max: scenario.days_max,
        uses_max: scenario.uses_max,
        links: scenario.uses > 1,
        pseudonym: scenario.one_a_person,
        met: look.decision.met,
    })
}

fn parties_page(state: &WebState, seen: &Seen, policies: &PolicySet, scenario: &Scenario) -> PartiesPage {
    let parties = scenario.parties.iter().map(|id| (id.to_string(), party_name(seen, policies, id))).collect();
    PartiesPage {
        page: Page::new(state, seen, Area::Person, "/me/answers", seen.lang.words().give_choose_party),
        title: seen.lang.of(&scenario.title).to_owned(),
        benefit: seen.lang.of(&scenario.benefit).to_owned(),
        scenario: scenario.id.to_string(),
        parties,
    }
}

#[derive(Template)]
#[template(path = "given.html")]
struct GivenPage {
    page: Page,
    id: String,
    token: String,
    title: String,
    party: String,
    ends: String,
}

pub(super) async fn give(
    State(state): State<Arc<WebState>>,
    seen: Seen,
    Resident(login): Resident,
    posted: Posted,
) -> Result<Response, Stop> {
    let fields = &posted.fields;
    let number = |name: &str| fields.said(name).map(str::parse).transpose().map_err(|_| Stop::Form);
    let decline = match fields.get("choice") {
        "show" => false,
        "decline" => true,
        _ => return Err(Stop::Form),
    };
    let request = ConsentRequest {
        scenario: fields.get("scenario").to_owned(),
        party: fields.said("party").map(str::to_owned),
        uses: number("uses")?,
        days: number("days")?,
        decline,
    };
    let made = state.gateway().give_consent(&login, &request).await?;
    let policies = state.gateway().policies()?;
    let title = policies.scenarios.get(&made.consent.scenario).map(|scenario| &scenario.title);
    let page = Page::new(&state, &seen, Area::Person, "/me/consents", seen.lang.words().given_title);
    show(&GivenPage {
        page: page.reached_from("/me/consents"),
        id: made.id.to_text(),
        title: seen.lang.name(title, made.consent.scenario.as_str()),
        party: party_name(&seen, &policies, &made.consent.party),
        ends: seen.lang.day(day_of(made.consent.ends)),
        token: made.token,
    })
}

#[derive(Template)]
#[template(path = "code.html")]
struct CodePage {
    page: Page,
    id: String,
    groups: Vec<String>,
    until: String,
    qr: Qr,
}

pub(super) async fn code(
    State(state): State<Arc<WebState>>,
    seen: Seen,
    Resident(login): Resident,
    Path(id): Path<String>,
    _posted: Posted,
) -> Result<Response, Stop> {
    let made = state.gateway().make_code(&login, &id).await?;
    let until =
        state.app.clock.now().saturating_add(SignedDuration::from_secs(made.expires_in)).unwrap_or(Timestamp::MAX);
    let text = made.code.to_text();
    let qr = figures::qr(&text).ok_or_else(|| Stop::fault("a code does not fit a QR code"))?;
    let page = Page::new(&state, &seen, Area::Person, "/me/consents", seen.lang.words().code_title);
    show(&CodePage {
        page: page.reached_from("/me/consents"),
        id,
        groups: text.split('-').map(str::to_owned).collect(),
        until: seen.lang.valid_until(&time(until), made.expires_in),
        qr,
    })
}

pub(super) async fn revoke(
    State(state): State<Arc<WebState>>,
    Resident(login): Resident,
    Path(id): Path<String>,
    _posted: Posted,
) -> Result<Response, Stop> {
    state.gateway().revoke(&login, &id).await?;
    Ok(Redirect::to("/me/consents").into_response())
}
