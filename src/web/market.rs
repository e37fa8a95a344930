//! Who may report market information about a person (Article 8): the list, the form, taking one back.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};

use super::WebState;
use super::page::{Area, Page, show};
use super::request::{Posted, Resident, Seen};
use super::stop::Stop;
use crate::clock::day_of;
use crate::code::IndicatorCode;
use crate::gateway::{MarketRequest, MarketView};
use crate::policies::PolicySet;

#[derive(Template)]
#[template(path = "market.html")]
struct MarketPage {
    page: Page,
    cards: Vec<Card>,
    offers: Vec<Offer>,
}

struct Card {
    id: String,
    provider: String,
    state: &'static str,
    stands: bool,
    paper: Option<String>,
    indicators: Vec<String>,
    given: String,
    withdrawn: Option<String>,
    records: String,
}

/// A provider, and what it may report.
struct Offer {
    id: String,
    name: String,
    indicators: Vec<String>,
}

pub(super) async fn list(
    State(state): State<Arc<WebState>>,
    seen: Seen,
    Resident(login): Resident,
) -> Result<Response, Stop> {
    let policies = state.gateway().policies()?;
    let views = state.gateway().market_consents(&login).await?;
    let cards = views.iter().map(|view| card(&seen, &policies, view)).collect();
    let offers = state.gateway().market_providers().await?;
    // Whoever has a consent that stands needs no second one.
    let has = |provider: &crate::code::PartyId| {
        views.iter().any(|v| v.provider == *provider && v.given.is_some() && v.withdrawn.is_none())
    };
    let offers = offers.iter().filter(|(provider, _)| !has(provider)).map(|(provider, codes)| Offer {
        id: provider.to_string(),
        name: seen.lang.name(policies.parties.get(provider).map(|party| &party.name), provider.as_str()),
        indicators: names(&seen, &policies, codes),
    });
    let offers = offers.collect();
    let page = Page::new(&state, &seen, Area::Person, "/me/market", seen.lang.words().market_title);
    show(&MarketPage { page, cards, offers })
}

fn card(seen: &Seen, policies: &PolicySet, view: &MarketView) -> Card {
    let (lang, w) = (seen.lang, seen.lang.words());
    let party = policies.parties.get(&view.provider);
    let (state, stands) = match view {
        _ if view.withdrawn.is_some() => (w.state_revoked, false),
        _ if view.lapsed.is_some() => (w.state_restored, false),
        _ => (w.state_stands, true),
    };
    Card {
        id: view.id.clone(),
        provider: lang.name(party.map(|party| &party.name), view.provider.as_str()),
        state,
        stands,
        paper: view.paper.clone(),
        indicators: names(seen, policies, &view.indicators),
        given: view.given.map_or_else(|| "—".to_owned(), |at| lang.short_day(day_of(at))),
        withdrawn: view.withdrawn.map(|at| lang.short_day(day_of(at))),
        records: lang.records(view.records),
    }
}

fn names(seen: &Seen, policies: &PolicySet, codes: &[IndicatorCode]) -> Vec<String> {
    let known = |code: &IndicatorCode| policies.catalogue.get(code.as_str()).and_then(|known| known.name.as_ref());
    codes.iter().map(|code| seen.lang.name(known(code), code.as_str())).collect()
}

pub(super) async fn give(
    State(state): State<Arc<WebState>>,
    Resident(login): Resident,
    posted: Posted,
) -> Result<Response, Stop> {
    let provider = posted.fields.said("provider").ok_or(Stop::Form)?.to_owned();
    state.gateway().give_market_consent(&login, &MarketRequest { provider, indicators: None }).await?;
    Ok(Redirect::to("/me/market").into_response())
}

pub(super) async fn withdraw(
    State(state): State<Arc<WebState>>,
    Path(id): Path<String>,
    Resident(login): Resident,
) -> Result<Response, Stop> {
    state.gateway().withdraw_market_consent(&login, &id).await?;
    Ok(Redirect::to("/me/market").into_response())
}
