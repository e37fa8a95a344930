//! `/v1/access-log` and `/v1/cases`: officers, by session.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri};
use serde::Deserialize;
use serde_json::json;

use super::app::App;
use super::body::{Object, read_json, require_content_type};
use super::extract::{Segment, Whole};
use super::problem::{Problem, code};
use super::query::{Query, before_entry};
use super::wire;
use crate::access_log::entry::LogAction;
use crate::code::{PartyId, ScenarioId};
use crate::gateway::{CaseRequest, LogFilter};
use crate::person::{IdType, Identity};

type Answer = Result<Response, Problem>;

const FILTERS: [&str; 8] = ["from", "to", "party", "scenario", "action", "case", "limit", "before"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewCase {
    reason: String,
    person: Object<CasePerson>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CasePerson {
    id_type: Option<String>,
    id_number: String,
}

const TIME: &str = "a time as 2026-11-25T00:00:00Z";

fn read<T>(
    query: &Query,
    name: &'static str,
    expected: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Problem> {
    let wrong = || Problem::new(code::BAD_QUERY, format!("{name} must be {expected}")).with("field", name);
    query.get(name).map(|text| parse(text).ok_or_else(wrong)).transpose()
}

/// Counts are of the whole log or of a part of it by time, party, scenario and action: never of one person.
const SUMMARY_FILTERS: [&str; 5] = ["from", "to", "party", "scenario", "action"];

fn filter(uri: &Uri, known: &[&str]) -> Result<LogFilter, Problem> {
    let query = Query::read(uri, known)?;
    let page = query.page()?;
    Ok(LogFilter {
        from: read(&query, "from", TIME, |text| text.parse().ok())?,
        to: read(&query, "to", TIME, |text| text.parse().ok())?,
        party: read(&query, "party", "a party's id", |id| PartyId::parse(id).ok())?,
        scenario: read(&query, "scenario", "a scenario's id", |id| ScenarioId::parse(id).ok())?,
        action: read(&query, "action", "an action such as ask, consent, revoke or report", LogAction::parse)?,
        case: query.get("case").map(str::to_owned),
        limit: page.limit,
        before: before_entry(&page)?,
    })
}

pub(super) async fn access_log(State(app): State<Arc<App>>, headers: HeaderMap, uri: Uri) -> Answer {
    let officer = app.officer(&headers).await?;
    let lines = app.gateway.access_log(&officer, &filter(&uri, &FILTERS)?).await.map_err(|e| app.problem(e))?;
    Ok(Json(lines.iter().map(wire::log_line).collect::<Vec<_>>()).into_response())
}

pub(super) async fn summary(State(app): State<Arc<App>>, headers: HeaderMap, uri: Uri) -> Answer {
    let officer = app.officer(&headers).await?;
    let summary = app.gateway.summary(&officer, &filter(&uri, &SUMMARY_FILTERS)?).await.map_err(|e| app.problem(e))?;
    Ok(Json(wire::summary(&summary)).into_response())
}

pub(super) async fn open_case(State(app): State<Arc<App>>, headers: HeaderMap, Whole(body): Whole) -> Answer {
    let officer = app.officer(&headers).await?;
    app.own_pages_only(&headers)?;
    require_content_type(&headers, "application/json")?;
    let NewCase { reason, person: Object(CasePerson { id_type, id_number }) } = read_json(&body)?;
    let malformed = |detail: String| Problem::new(code::OUT_OF_RANGE, detail).with("field", "person");
    let id_type = match id_type.as_deref() {
        None => IdType::ResidentId,
        Some(said) => IdType::parse(said).ok_or_else(|| malformed("id_type must be resident-id or passport".into()))?,
    };
    let today = crate::clock::day_of(app.clock.now());
    let person = Identity::parse(id_type, &id_number, today).map_err(|e| malformed(e.to_string()))?;
    let request = CaseRequest { reason, person };
    let id = app.gateway.open_case(&officer, &request).await.map_err(|e| app.problem(e))?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))).into_response())
}

pub(super) async fn confirm_case(State(app): State<Arc<App>>, Segment(id): Segment, headers: HeaderMap) -> Answer {
    let officer = app.officer(&headers).await?;
    app.own_pages_only(&headers)?;
    app.gateway.confirm_case(&officer, &id).await.map_err(|e| app.problem(e))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
