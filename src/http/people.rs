//! `/v1/me/…`: a person's own data, by session.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri};
use serde::Deserialize;

use super::app::App;
use super::body::{read_json, require_content_type};
use super::extract::{Segment, Whole};
use super::problem::Problem;
use super::query::{Query, before_entry};
use super::wire;
use crate::gateway::ConsentRequest;

type Answer = Result<Response, Problem>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewConsent {
    scenario: String,
    party: Option<String>,
    uses: Option<u32>,
    days: Option<u32>,
    #[serde(default)]
    decline: bool,
}

pub(super) async fn score(State(app): State<Arc<App>>, headers: HeaderMap) -> Answer {
    let login = app.person(&headers).await?;
    let view = app.gateway.score(&login).await.map_err(|e| app.problem(e))?;
    Ok(Json(wire::score(&view)).into_response())
}

pub(super) async fn answer(State(app): State<Arc<App>>, Segment(scenario): Segment, headers: HeaderMap) -> Answer {
    let login = app.person(&headers).await?;
    let view = app.gateway.look(&login, &scenario).await.map_err(|e| app.problem(e))?;
    Ok(Json(wire::look(&view)).into_response())
}

pub(super) async fn consents(State(app): State<Arc<App>>, headers: HeaderMap, uri: Uri) -> Answer {
    let login = app.person(&headers).await?;
    let page = Query::read(&uri, &["limit", "before"])?.page()?;
    let views = app.gateway.consents(&login).await.map_err(|e| app.problem(e))?;
    let views = page.of(views, |view, id| view.id.to_text() == id)?;
    Ok(Json(views.iter().map(wire::consent_view).collect::<Vec<_>>()).into_response())
}

pub(super) async fn give(State(app): State<Arc<App>>, headers: HeaderMap, Whole(body): Whole) -> Answer {
    let login = app.person(&headers).await?;
    app.own_pages_only(&headers)?;
    require_content_type(&headers, "application/json")?;
    let NewConsent { scenario, party, uses, days, decline } = read_json(&body)?;
    let request = ConsentRequest { scenario, party, uses, days, decline };
    let made = app.gateway.give_consent(&login, &request).await.map_err(|e| app.problem(e))?;
    Ok((StatusCode::CREATED, Json(wire::new_consent(&made))).into_response())
}

pub(super) async fn revoke(State(app): State<Arc<App>>, Segment(id): Segment, headers: HeaderMap) -> Answer {
    let login = app.person(&headers).await?;
    app.own_pages_only(&headers)?;
    app.gateway.revoke(&login, &id).await.map_err(|e| app.problem(e))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn make_code(State(app): State<Arc<App>>, Segment(id): Segment, headers: HeaderMap) -> Answer {
    let login = app.person(&headers).await?;
    app.own_pages_only(&headers)?;
    let code = app.gateway.make_code(&login, &id).await.map_err(|e| app.problem(e))?;
    Ok((StatusCode::CREATED, Json(wire::new_code(&code))).into_response())
}

pub(super) async fn accesses(State(app): State<Arc<App>>, headers: HeaderMap, uri: Uri) -> Answer {
    let login = app.person(&headers).await?;
    let page = Query::read(&uri, &["limit", "before"])?.page()?;
    let views = app.gateway.accesses(&login, before_entry(&page)?, page.limit).await.map_err(|e| app.problem(e))?;
    Ok(Json(views.iter().map(wire::access).collect::<Vec<_>>()).into_response())
}

pub(super) async fn export(State(app): State<Arc<App>>, headers: HeaderMap) -> Answer {
    let login = app.person(&headers).await?;
    let view = app.gateway.export(&login).await.map_err(|e| app.problem(e))?;
    Ok(Json(wire::export(&view)).into_response())
}
