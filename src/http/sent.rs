//! What departments sent, for those who sent it: receipts of batches, a provider's list, a withdrawal.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::request::Parts;
use serde::Deserialize;
use serde_json::{Value, json};

use super::admission::Place;
use super::app::App;
use super::body::{self, read_json, require_content_type};
use super::extract::{PEOPLE_BODY_BYTES_MAX, Segment};
use super::limit;
use super::listener::Peer;
use super::problem::Problem;
use super::query::Query;
use crate::gateway::{BatchView, Caller, SentView};

type Answer = Result<Response, Problem>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Withdrawal {
    reason: String,
}

/// Who calls, the head and the whole of a small body, and the call's place, to be held until it is answered.
async fn caller(app: &App, peer: &Peer, request: Request) -> Result<(Caller, Place, Parts, Vec<u8>), Problem> {
    let policies = app.gateway.policies().map_err(|error| app.problem(error))?;
    let (parts, body) = request.into_parts();
    let identified = app.identify(&policies, peer, &parts)?;
    app.limiter.call(identified.party()).map_err(limit::problem)?;
    let bytes = body::read(&parts.headers, body, PEOPLE_BODY_BYTES_MAX).await?;
    let caller = app.with_body(peer, identified, &bytes)?;
    let place = app.sent_places.take(policies.city.limits.calls_at_once)?;
    Ok((caller, place, parts, bytes))
}

/// A call that is wrong by its form, after its caller is known: with an entry, its signature spent.
async fn refused<T>(app: &App, caller: &Caller, problem: Problem) -> Result<T, Problem> {
    app.gateway.log_refusal(caller).await.map_err(|error| app.problem(error))?;
    Err(problem)
}

/// A receipt and its proof, as an upload is answered and as they are read again.
pub(super) fn receipt(view: &BatchView) -> Value {
    json!({ "id": view.id.to_text(), "receipt": view.receipt, "proof": view.proof.to_text() })
}

/// The receipt of a batch again.
pub(super) async fn batch(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Segment(id): Segment,
    request: Request,
) -> Answer {
    let (caller, _place, ..) = caller(&app, &peer, request).await?;
    let view = app.gateway.batch(&caller, &id).await.map_err(|error| app.problem(error))?;
    Ok(Json(receipt(&view)).into_response())
}

/// A provider's own records, newest first.
pub(super) async fn records(State(app): State<Arc<App>>, Extension(peer): Extension<Peer>, request: Request) -> Answer {
    let (caller, _place, parts, _) = caller(&app, &peer, request).await?;
    let page = match Query::read(&parts.uri, &["limit", "before"]).and_then(|query| query.page()) {
        Ok(page) => page,
        Err(problem) => return refused(&app, &caller, problem).await,
    };
    let views = app.gateway.sent(&caller, page.before.as_deref(), page.limit).await;
    let views = views.map_err(|error| app.problem(error))?;
    let row = |view: &SentView| {
        json!({
            "id": view.id.as_str(),
            "at": view.at,
            "batch": view.batch.to_text(),
            "withdrawn": view.withdrawn,
            "objections": view.objections,
        })
    };
    Ok(Json(views.iter().map(row).collect::<Vec<_>>()).into_response())
}

/// How many of a provider's records were withdrawn, and objected to.
pub(super) async fn summary(State(app): State<Arc<App>>, Extension(peer): Extension<Peer>, request: Request) -> Answer {
    let (caller, _place, ..) = caller(&app, &peer, request).await?;
    let summary = app.gateway.sent_summary(&caller).await.map_err(|error| app.problem(error))?;
    Ok(Json(json!({ "withdrawn": summary.withdrawn, "objected": summary.objected })).into_response())
}

/// Withdraws a record of the caller's own.
pub(super) async fn withdraw(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Segment(id): Segment,
    request: Request,
) -> Answer {
    let (caller, _place, parts, bytes) = caller(&app, &peer, request).await?;
    let read = require_content_type(&parts.headers, "application/json").and_then(|()| read_json::<Withdrawal>(&bytes));
    let reason = match read {
        Ok(Withdrawal { reason }) => reason,
        Err(problem) => return refused(&app, &caller, problem).await,
    };
    app.gateway.withdraw(&caller, &id, &reason).await.map_err(|error| app.problem(error))?;
    Ok(Json(json!({ "id": id, "withdrawn": true })).into_response())
}
