//! `/v1/models`: models with their history for everybody; trials, drafts, approvals and publication for staff.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri};
use jiff::civil::Date;
use serde::Deserialize;
use serde_json::{Value, json};

use super::admission::Admission;
use super::app::App;
use super::body::{self, read_json, require_content_type};
use super::extract::{Segment, Whole};
use super::problem::{Problem, code};
use super::query::Query;
use crate::gateway::{MODEL_BYTES_MAX, ModelView};
use crate::suppression::{LEAST, ROUNDED_TO};
use crate::trial::Impact;

type Answer = Result<Response, Problem>;

/// What mistakes call a file that came as a body.
const FILE: &str = "model.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Publication {
    from: String,
}

/// What a trial shows, with how its counts are to be read.
pub(crate) fn impact(impact: &Impact) -> Value {
    let mut value = serde_json::to_value(impact).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.insert("least".into(), json!(LEAST));
        fields.insert("rounded_to".into(), json!(ROUNDED_TO));
    }
    value
}

fn model(view: &ModelView) -> Value {
    json!({
        "id": view.id.as_str(),
        "model": format!("{}#sha256-{}", view.id, view.digest),
        "state": view.state.as_str(),
        "drafted_at": view.drafted_at,
        "comment_until": view.comment_until,
        // Who approved is for the log; the public sees as what.
        "approvals": view.approvals.iter().map(|a| json!({ "role": a.role.as_str(), "at": a.at })).collect::<Vec<_>>(),
        "published_at": view.published_at,
        "from": view.from,
        "until": view.until,
        "impact": view.impact.as_ref().map(impact),
    })
}

/// The file of a model in a call's body; the call holds its place from here on.
async fn file(admission: &Admission, headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Problem> {
    require_content_type(headers, "application/toml")?;
    let bytes = body::read(headers, body, MODEL_BYTES_MAX).await?;
    admission.enter()?;
    Ok(bytes)
}

/// `GET /v1/models`.
pub(super) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let page = Query::read(&uri, &["limit", "before"])?.page()?;
    let views = app.gateway.models().await.map_err(|e| app.problem(e))?;
    let views = page.of(views, |view, id| view.id.as_str() == id)?;
    Ok(Json(views.iter().map(model).collect::<Vec<_>>()).into_response())
}

/// `GET /v1/models/{id}`.
pub(super) async fn one(State(app): State<Arc<App>>, Segment(id): Segment) -> Answer {
    let (view, text) = app.gateway.model(&id).await.map_err(|e| app.problem(e))?;
    let mut value = model(&view);
    if let Some(fields) = value.as_object_mut() {
        fields.insert("toml".into(), json!(&*text));
    }
    Ok(Json(value).into_response())
}

/// `POST /v1/models/trials`.
pub(super) async fn try_one(
    State(app): State<Arc<App>>,
    admission: Admission,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let staff = app.staff(&headers).await?;
    app.own_pages_only(&headers)?;
    let file = file(&admission, &headers, body).await?;
    let shown = app.gateway.try_model(&staff, FILE, &file).await.map_err(|e| app.problem(e))?;
    Ok(Json(impact(&shown)).into_response())
}

/// `POST /v1/models`.
pub(super) async fn draft(State(app): State<Arc<App>>, admission: Admission, headers: HeaderMap, body: Body) -> Answer {
    let staff = app.staff(&headers).await?;
    app.own_pages_only(&headers)?;
    let file = file(&admission, &headers, body).await?;
    let view = app.gateway.draft_model(Some(&staff), FILE, &file).await.map_err(|e| app.problem(e))?;
    Ok((StatusCode::CREATED, Json(model(&view))).into_response())
}

/// `POST /v1/models/{id}/approval`.
pub(super) async fn approve(State(app): State<Arc<App>>, Segment(id): Segment, headers: HeaderMap) -> Answer {
    let staff = app.staff(&headers).await?;
    app.own_pages_only(&headers)?;
    app.gateway.approve_model(&staff, &id).await.map_err(|e| app.problem(e))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /v1/models/{id}/publication`.
pub(super) async fn publish(
    State(app): State<Arc<App>>,
    Segment(id): Segment,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Answer {
    let staff = app.staff(&headers).await?;
    app.own_pages_only(&headers)?;
    require_content_type(&headers, "application/json")?;
    let Publication { from } = read_json(&body)?;
    let wrong = || Problem::new(code::OUT_OF_RANGE, "from must be a day as 2026-12-01").with("field", "from");
    let from: Date = from.parse().map_err(|_| wrong())?;
    let view = app.gateway.publish_draft(Some(&staff), &id, from).await.map_err(|e| app.problem(e))?;
    Ok(Json(model(&view)).into_response())
}
