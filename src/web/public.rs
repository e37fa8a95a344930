//! Pages that are about nobody: the first one with its log-in, the scenarios, the rules in force, what
//! a provider may report; and the style sheet.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::{HeaderValue, StatusCode, header};

use super::page::{Area, Page, STYLE, STYLE_FILE, show};
use super::request::{Anybody, AtParty, Posted, Seen};
use super::stop::Stop;
use super::words::Lang;
use super::{ExampleRole, WebState};
use crate::access::Role;
use crate::catalogue::Indicator;
use crate::gateway::{GatewayError, Loaded, Refusal, Staff, Who};
use crate::hex::hex;
use crate::http::session::{clear_cookie, set_cookie, token_from};
use crate::party::PartyRole;
use crate::policies::PolicySet;

#[derive(Template)]
#[template(path = "home.html")]
struct HomePage {
    page: Page,
    city: String,
    own: Option<&'static str>,
    examples: Vec<Offer>,
}

struct Offer {
    login: String,
    label: String,
}

pub(super) async fn home(
    State(state): State<Arc<WebState>>,
    seen: Seen,
    Anybody(who): Anybody,
) -> Result<Response, Stop> {
    let policies = state.gateway().policies()?;
    let mut page = Page::new(&state, &seen, Area::Public, "/", seen.lang.words().home_title);
    page.logged_in = who.is_some();
    let own = who.map(|who| start(&who, &policies));
    let city = seen.lang.of(&policies.city.name).to_owned();
    show(&HomePage { page, city, own, examples: offers(&state, seen.lang, &policies) })
}

fn offers(state: &WebState, lang: Lang, policies: &PolicySet) -> Vec<Offer> {
    let mut residents = 0;
    let offer = |example: &super::Example| {
        let role = match example.role {
            ExampleRole::Resident => {
                residents += 1;
                lang.as_resident(residents)
            }
            ExampleRole::Officer => lang.pick("工作人员", "Officer").to_owned(),
            ExampleRole::Operator => lang.pick("运维人员", "Operator").to_owned(),
            ExampleRole::Party => {
                let party = policies.parties.get(example.login.as_str());
                lang.name(party.map(|party| &party.name), &example.login)
            }
        };
        let label = match example.role {
            ExampleRole::Party => role,
            _ => format!("{role} · {}", example.login),
        };
        Offer { login: example.login.clone(), label }
    };
    state.examples.iter().map(offer).collect()
}

/// Where somebody begins.
fn start(who: &Who, policies: &PolicySet) -> &'static str {
    match who {
        Who::Person(_) => "/me",
        Who::Staff(Staff { role: Role::Officer, .. }) => "/officer",
        Who::Staff(_) => "/operator",
        Who::Party(party) => {
            let asks = policies.scenarios.values().any(|scenario| scenario.parties.contains(party));
            if asks { "/counter" } else { "/provider" }
        }
    }
}

/// The demo's log-in, without a password; a deployment has no such route.
pub(super) async fn demo_log_in(State(state): State<Arc<WebState>>, posted: Posted) -> Result<Response, Stop> {
    let token = match state.gateway().demo_login(posted.fields.get("as")).await {
        Err(GatewayError::Refused(Refusal::NotFound)) => return Err(Stop::Unknown),
        other => other?,
    };
    let who = state.gateway().session(&token).await?.ok_or(Stop::Unknown)?;
    let to = start(&who, &*state.gateway().policies()?);
    let mut response = Redirect::to(to).into_response();
    let cookie = set_cookie(&token, state.secure_cookies());
    response.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
    Ok(response)
}

pub(super) async fn log_out(State(state): State<Arc<WebState>>, posted: Posted) -> Result<Response, Stop> {
    if let Some(token) = token_from(&posted.parts.headers) {
        state.gateway().log_out(&token).await?;
    }
    let mut response = Redirect::to("/").into_response();
    let cookie = clear_cookie(state.secure_cookies());
    response.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
    Ok(response)
}

#[derive(Template)]
#[template(path = "scenarios.html")]
struct ScenariosPage {
    page: Page,
    rows: Vec<Scenario>,
}

struct Scenario {
    id: String,
    title: String,
    benefit: String,
    question: String,
    parties: String,
    term: String,
    basic: bool,
}

pub(super) async fn scenarios(
    State(state): State<Arc<WebState>>,
    seen: Seen,
    Anybody(who): Anybody,
) -> Result<Response, Stop> {
    let policies = state.gateway().policies()?;
    let mut page = Page::new(&state, &seen, Area::Public, "/scenarios", seen.lang.words().scenarios_title);
    page.logged_in = who.is_some();
    show(&ScenariosPage { page, rows: scenario_rows(seen.lang, &policies) })
}

fn scenario_rows(lang: Lang, policies: &Loaded) -> Vec<Scenario> {
    let model = policies.model_in_force();
    let row = |scenario: &crate::scenario::Scenario| {
        let name = |id: &crate::code::PartyId| lang.name(policies.parties.get(id).map(|p| &p.name), id.as_str());
        let parties: Vec<String> = scenario.parties.iter().map(name).collect();
        Scenario {
            id: scenario.id.to_string(),
            title: lang.of(&scenario.title).to_owned(),
            benefit: lang.of(&scenario.benefit).to_owned(),
            question: lang.learns(&scenario.question, model, &policies.city.cuts),
            parties: parties.join(lang.pick("、", ", ")),
            term: lang.term(scenario.days, scenario.uses),
            basic: scenario.basic_service,
        }
    };
    policies.scenarios.values().map(row).collect()
}

#[derive(Template)]
#[template(path = "rules.html")]
struct RulesPage {
    page: Page,
    digest: String,
    model: String,
    grades: String,
    cuts: String,
    floor_ms: u64,
    indicators: Vec<Kind>,
    scenarios: Vec<Scenario>,
}

/// An indicator in a list.
struct Kind {
    code: String,
    name: String,
    years: u16,
    /// Where a law or the city sets an end, with its basis.
    limits: Vec<String>,
    unit: String,
    basis: String,
    providers: String,
}

fn kind(lang: Lang, indicator: &Indicator, policies: &PolicySet) -> Kind {
    let name = |id: &crate::code::PartyId| lang.name(policies.parties.get(id).map(|p| &p.name), id.as_str());
    let providers: Vec<String> = indicator.providers.iter().map(name).collect();
    Kind {
        code: indicator.code.to_string(),
        name: lang.name(indicator.name.as_ref(), indicator.code.as_str()),
        years: indicator.valid_for_years,
        limits: lang.limits(indicator, name),
        unit: indicator.unit.as_deref().map_or_else(|| "—".to_owned(), |unit| lang.unit(unit).to_owned()),
        basis: indicator.legal_basis.clone().unwrap_or_else(|| "—".to_owned()),
        providers: providers.join(lang.pick("、", ", ")),
    }
}

#[derive(Template)]
#[template(path = "catalogue.html")]
struct CataloguePage {
    page: Page,
    indicators: Vec<Kind>,
}

/// The catalogue: what may be collected, by whom, for how long, and by which law.
pub(super) async fn catalogue(
    State(state): State<Arc<WebState>>,
    seen: Seen,
    Anybody(who): Anybody,
) -> Result<Response, Stop> {
    let policies = state.gateway().policies()?;
    let mut page = Page::new(&state, &seen, Area::Public, "/catalogue", seen.lang.words().city_catalogue);
    page.logged_in = who.is_some();
    let indicators = policies.catalogue.iter().map(|indicator| kind(seen.lang, indicator, &policies)).collect();
    show(&CataloguePage { page, indicators })
}

/// The operator's page: what holds today. Of what can be decided, models have a page of their own.
pub(super) async fn rules(
    State(state): State<Arc<WebState>>,
    seen: Seen,
    Anybody(who): Anybody,
) -> Result<Response, Stop> {
    match who {
        Some(Who::Staff(Staff { role: Role::Operator, .. })) => {}
        Some(_) => return Err(Stop::Role),
        None => return Err(Stop::LogIn),
    }
    let policies = state.gateway().policies()?;
    let (lang, w) = (seen.lang, seen.lang.words());
    let model = policies.model_in_force();
    let grade =
        |grade: &crate::model::Grade| format!("{} {}", grade.min, lang.name(grade.name.as_ref(), grade.code.as_str()));
    show(&RulesPage {
        page: Page::new(&state, &seen, Area::Operator, "/operator", w.city_title),
        digest: hex(&policies.digest),
        model: model.name(),
        grades: model.grades.iter().map(grade).collect::<Vec<_>>().join(lang.pick("，", ", ")),
        cuts: policies.city.cuts.iter().map(ToString::to_string).collect::<Vec<_>>().join(lang.pick("，", ", ")),
        floor_ms: policies.city.answer_floor_ms,
        indicators: policies.catalogue.iter().map(|indicator| kind(lang, indicator, &policies)).collect(),
        scenarios: scenario_rows(lang, &policies),
    })
}

#[derive(Template)]
#[template(path = "provider.html")]
struct ProviderPage {
    page: Page,
    party: String,
    indicators: Vec<Kind>,
    registrar: bool,
    api: String,
    id: String,
}

pub(super) async fn reporting(
    State(state): State<Arc<WebState>>,
    seen: Seen,
    AtParty(id): AtParty,
) -> Result<Response, Stop> {
    let policies = state.gateway().policies()?;
    let party = policies.parties.get(&id);
    let own = policies.catalogue.iter().filter(|indicator| indicator.providers.contains(&id));
    show(&ProviderPage {
        page: Page::new(&state, &seen, Area::Party, "/provider", seen.lang.words().report_title),
        party: seen.lang.name(party.map(|party| &party.name), id.as_str()),
        indicators: own.map(|indicator| kind(seen.lang, indicator, &policies)).collect(),
        registrar: party.is_some_and(|party| party.roles.contains(&PartyRole::Registrar)),
        api: state.api(),
        id: id.to_string(),
    })
}

/// The style sheet, under an address that changes with it, so it may be kept for ever.
pub(super) async fn asset(Path(file): Path<String>) -> Response {
    if file != *STYLE_FILE {
        return StatusCode::NOT_FOUND.into_response();
    }
    let kept = HeaderValue::from_static("public, max-age=31536000, immutable");
    let kind = HeaderValue::from_static("text/css; charset=utf-8");
    ([(header::CACHE_CONTROL, kept), (header::CONTENT_TYPE, kind)], STYLE).into_response()
}
