//! `POST /v1/records` and `POST /v1/register`: NDJSON from departments.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::admission::Place;
use super::app::App;
use super::body::{LargeBody, require_content_type};
use super::listener::Peer;
use super::problem::{Problem, code};
use super::query::Query;
use super::{limit, sent};
use crate::gateway::{Caller, Intake};

/// Takes records from a provider, or says what they would change.
pub(super) async fn records(state: State<Arc<App>>, peer: Extension<Peer>, request: Request) -> Response {
    let app = state.0.clone();
    match read(&app, &peer, request).await {
        Ok((caller, bytes, dry, _place)) => {
            let done = match dry {
                false => app.gateway.report(&caller, &bytes).await,
                true => app.gateway.try_report(&caller, &bytes).await,
            };
            done.map_or_else(|error| app.problem(error).into_response(), |i| Json(counts(&i)).into_response())
        }
        Err(problem) => problem.into_response(),
    }
}

/// Takes lines of the register from the registrar, or says what they would change.
pub(super) async fn register(state: State<Arc<App>>, peer: Extension<Peer>, request: Request) -> Response {
    let app = state.0.clone();
    match read(&app, &peer, request).await {
        Ok((caller, bytes, dry, _place)) => {
            let done = match dry {
                false => app.gateway.enrol(&caller, &bytes).await,
                true => app.gateway.try_enrol(&caller, &bytes).await,
            };
            done.map_or_else(|error| app.problem(error).into_response(), |i| Json(counts(&i)).into_response())
        }
        Err(problem) => problem.into_response(),
    }
}

async fn read(app: &App, peer: &Peer, request: Request) -> Result<(Caller, LargeBody, bool, Place), Problem> {
    let policies = app.gateway.policies().map_err(|error| app.problem(error))?;
    let (parts, body) = request.into_parts();
    let identified = app.identify(&policies, peer, &parts)?;
    app.limiter.call(identified.party()).map_err(limit::problem)?;
    let share = app.share(identified.party());
    let bytes = app.room.read(&share, &parts.headers, body, policies.city.limits.body_bytes_max).await?;
    let caller = app.with_body(peer, identified, &bytes)?;
    let place = app.sent_places.take(policies.city.limits.calls_at_once)?;
    if let Err(problem) = require_content_type(&parts.headers, "application/x-ndjson") {
        app.gateway.log_refusal(&caller).await.map_err(|error| app.problem(error))?;
        return Err(problem);
    }
    let dry = match dry_run(&parts.uri) {
        Ok(dry) => dry,
        Err(problem) => {
            app.gateway.log_refusal(&caller).await.map_err(|error| app.problem(error))?;
            return Err(problem);
        }
    };
    let (lines, lines_max) = (lines(&bytes), policies.city.limits.feed_lines_max);
    if lines > lines_max {
        app.gateway.log_refusal(&caller).await.map_err(|error| app.problem(error))?;
        let detail = format!("a feed may have {lines_max} lines and this one has {lines}; send it in parts");
        return Err(Problem::new(code::TOO_LARGE, detail).with("limit", lines_max));
    }
    Ok((caller, bytes, dry, place))
}

/// Whether only what would change is asked for.
fn dry_run(target: &http::Uri) -> Result<bool, Problem> {
    match Query::read(target, &["dry_run"])?.get("dry_run") {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Problem::new(code::BAD_QUERY, "dry_run is true or false").with("field", "dry_run")),
    }
}

fn lines(feed: &[u8]) -> usize {
    feed.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count()
}

fn counts(intake: &Intake) -> Value {
    let rejected: Vec<Value> = intake
        .rejected
        .iter()
        .map(|line| json!({ "line": line.line, "code": line.error.code.as_str(), "message": line.error.message }))
        .collect();
    json!({
        "accepted": intake.accepted,
        "unchanged": intake.unchanged,
        "replaced": intake.replaced,
        "rejected": rejected,
        "batches": intake.batches.iter().map(|batch| batch.id.to_text()).collect::<Vec<_>>(),
        "receipts": intake.batches.iter().map(sent::receipt).collect::<Vec<_>>(),
    })
}
