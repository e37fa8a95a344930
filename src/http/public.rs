//! What everybody may read: the log, the keys that verify answers, and what the city has published.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, header};

use super::app::App;
use super::extract::{Segment, Segments};
use super::problem::{Problem, code};
use super::wire;
use crate::access_log::tile::TileRequest;
use crate::keys::FIRST_LOG;
use crate::ledger::LogReader;

type Answer = Result<Response, Problem>;

const TEXT: &str = "text/plain; charset=utf-8";
const BYTES: &str = "application/octet-stream";
/// A checkpoint grows old within seconds; a tile never does.
const SECONDS: &str = "public, max-age=2";
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// A key stands in the set before it signs, for longer than a copy may be kept.
const SHORT: &str = "public, max-age=300";

fn headers(kind: &'static str, cache: &'static str) -> [(HeaderName, HeaderValue); 2] {
    [(header::CONTENT_TYPE, HeaderValue::from_static(kind)), (header::CACHE_CONTROL, HeaderValue::from_static(cache))]
}

/// `GET /docs/errors`: where the `type` of every problem leads.
pub(super) async fn errors() -> Response {
    (headers("text/markdown; charset=utf-8", SHORT), code::page()).into_response()
}

/// `GET /openapi.json`: this surface for machines.
pub(super) async fn openapi() -> Response {
    (headers("application/json", SHORT), include_str!("openapi.json")).into_response()
}

/// The log of this name; the deployment's first where none is said.
async fn log(app: &App, name: Option<&str>) -> Result<LogReader, Problem> {
    let logs = app.gateway.logs();
    let number = match name {
        None => Some(FIRST_LOG),
        Some(name) => logs.names().into_iter().find(|log| log.name == name).map(|log| log.number),
    };
    let number = number.ok_or_else(|| Problem::plain(code::NOT_FOUND))?;
    logs.log(number).await.map_err(|e| app.problem(e.into()))
}

/// `GET /log/origins`: every log of the deployment, with its key.
pub(super) async fn origins(State(app): State<Arc<App>>) -> Response {
    (headers("application/json", SHORT), wire::origins(&app.gateway.logs().names()).to_string()).into_response()
}

async fn checkpoint_of(app: &App, name: Option<&str>) -> Answer {
    Ok((headers(TEXT, SECONDS), log(app, name).await?.checkpoint().to_string()).into_response())
}

async fn key_of(app: &App, name: Option<&str>) -> Answer {
    Ok((headers(TEXT, SHORT), format!("{}\n", log(app, name).await?.verifier())).into_response())
}

async fn tile_of(app: &App, name: Option<&str>, path: &str) -> Answer {
    let nothing = || Problem::plain(code::NOT_FOUND);
    let request = TileRequest::parse(path).ok_or_else(nothing)?;
    let tile = log(app, name).await?.tile(&request).await.map_err(|e| app.problem(e.into()))?;
    Ok((headers(BYTES, FOR_EVER), tile.ok_or_else(nothing)?).into_response())
}

/// `GET /log/checkpoint`.
pub(super) async fn checkpoint(State(app): State<Arc<App>>) -> Answer {
    checkpoint_of(&app, None).await
}

/// `GET /log/key`.
pub(super) async fn log_key(State(app): State<Arc<App>>) -> Answer {
    key_of(&app, None).await
}

/// `GET /log/tile/…`.
pub(super) async fn tile(State(app): State<Arc<App>>, Segment(path): Segment) -> Answer {
    tile_of(&app, None, &path).await
}

/// `GET /log/{name}/checkpoint`.
pub(super) async fn named_checkpoint(State(app): State<Arc<App>>, Segment(name): Segment) -> Answer {
    checkpoint_of(&app, Some(&name)).await
}

/// `GET /log/{name}/key`.
pub(super) async fn named_key(State(app): State<Arc<App>>, Segment(name): Segment) -> Answer {
    key_of(&app, Some(&name)).await
}

/// `GET /log/{name}/tile/…`.
pub(super) async fn named_tile(State(app): State<Arc<App>>, Segments(name, path): Segments) -> Answer {
    tile_of(&app, Some(&name), &path).await
}

/// `GET /.well-known/jwks.json`.
pub(super) async fn jwks(State(app): State<Arc<App>>) -> Response {
    (headers("application/jwk-set+json", SHORT), app.gateway.jwks().to_json().to_string()).into_response()
}

/// `GET /v1/scenarios`.
pub(super) async fn scenarios(State(app): State<Arc<App>>) -> Answer {
    let policies = app.gateway.policies().map_err(|e| app.problem(e))?;
    Ok(Json(wire::scenarios(&policies)).into_response())
}

/// `GET /v1/catalogue`.
pub(super) async fn catalogue(State(app): State<Arc<App>>) -> Answer {
    let policies = app.gateway.policies().map_err(|e| app.problem(e))?;
    Ok(Json(wire::catalogue(&policies)).into_response())
}

/// `GET /v1/model`.
pub(super) async fn model(State(app): State<Arc<App>>) -> Answer {
    let policies = app.gateway.policies().map_err(|e| app.problem(e))?;
    Ok(Json(wire::model(&policies)).into_response())
}
