//! `/v1/me/market-consents`: who may report market information about a person, by session.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Value, json};

use super::app::App;
use super::body::{read_json, require_content_type};
use super::extract::{Segment, Whole};
use super::problem::Problem;
use super::query::Query;
use crate::gateway::{MarketRequest, MarketView};

type Answer = Result<Response, Problem>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewMarketConsent {
    provider: String,
    indicators: Option<Vec<String>>,
}

/// One of them, as lists and the export show it.
pub(super) fn shown(view: &MarketView) -> Value {
    let mut value = json!({
        "id": view.id,
        "kind": if view.paper.is_some() { "paper" } else { "given" },
        "reference": view.paper,
        "provider": view.provider.as_str(),
        "indicators": view.indicators.iter().map(|code| code.as_str()).collect::<Vec<_>>(),
        "given_at": view.given,
        "withdrawn_at": view.withdrawn,
        "records": view.records,
    });
    if let (Some(from), Some(fields)) = (view.lapsed, value.as_object_mut()) {
        fields.insert("lapsed_before".into(), json!(from));
    }
    value
}

pub(super) async fn list(State(app): State<Arc<App>>, headers: HeaderMap, uri: Uri) -> Answer {
    let login = app.person(&headers).await?;
    let page = Query::read(&uri, &["limit", "before"])?.page()?;
    let views = app.gateway.market_consents(&login).await.map_err(|e| app.problem(e))?;
    let views = page.of(views, |view, id| view.id == id)?;
    Ok(Json(views.iter().map(shown).collect::<Vec<_>>()).into_response())
}

pub(super) async fn give(State(app): State<Arc<App>>, headers: HeaderMap, Whole(body): Whole) -> Answer {
    let login = app.person(&headers).await?;
    app.own_pages_only(&headers)?;
    require_content_type(&headers, "application/json")?;
    let NewMarketConsent { provider, indicators } = read_json(&body)?;
    let request = MarketRequest { provider, indicators };
    let made = app.gateway.give_market_consent(&login, &request).await.map_err(|e| app.problem(e))?;
    Ok((StatusCode::CREATED, Json(shown(&made))).into_response())
}

pub(super) async fn withdraw(State(app): State<Arc<App>>, Segment(id): Segment, headers: HeaderMap) -> Answer {
    let login = app.person(&headers).await?;
    app.own_pages_only(&headers)?;
    app.gateway.withdraw_market_consent(&login, &id).await.map_err(|e| app.problem(e))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
