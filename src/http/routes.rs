//! Which path is whose.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post};

use super::app::App;
use super::extract::PEOPLE_BODY_BYTES_MAX;
use super::{answers, feeds, market, models, officers, people, public, sent};

/// What relying parties, providers and the registrar call, over TLS.
pub fn api(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/answers", post(answers::answers))
        .route("/v1/records", get(sent::records).post(feeds::records))
        .route("/v1/records/summary", get(sent::summary))
        .route("/v1/records/{id}/withdrawal", post(sent::withdraw))
        .route("/v1/batches/{id}", get(sent::batch))
        .route("/v1/register", post(feeds::register))
        .route("/docs/errors", get(public::errors))
        // Each of these has its own limit, from the policies.
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}

/// What people and officers call by session, and everything public.
pub fn web(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/me/score", get(people::score))
        .route("/v1/me/answers/{scenario}", get(people::answer))
        .route("/v1/me/consents", get(people::consents).post(people::give))
        .route("/v1/me/consents/{id}", delete(people::revoke))
        .route("/v1/me/consents/{id}/codes", post(people::make_code))
        .route("/v1/me/market-consents", get(market::list).post(market::give))
        .route("/v1/me/market-consents/{id}", delete(market::withdraw))
        .route("/v1/me/accesses", get(people::accesses))
        .route("/v1/me/export", get(people::export))
        .route("/v1/access-log", get(officers::access_log))
        .route("/v1/access-log/summary", get(officers::summary))
        .route("/v1/cases", post(officers::open_case))
        .route("/v1/cases/{id}/confirm", post(officers::confirm_case))
        .route("/log/checkpoint", get(public::checkpoint))
        .route("/log/key", get(public::log_key))
        .route("/log/tile/{*path}", get(public::tile))
        .route("/log/origins", get(public::origins))
        .route("/log/{name}/checkpoint", get(public::named_checkpoint))
        .route("/log/{name}/key", get(public::named_key))
        .route("/log/{name}/tile/{*path}", get(public::named_tile))
        .route("/.well-known/jwks.json", get(public::jwks))
        .route("/v1/scenarios", get(public::scenarios))
        .route("/v1/catalogue", get(public::catalogue))
        .route("/v1/model", get(public::model))
        .route("/v1/models", get(models::list).post(models::draft))
        .route("/v1/models/trials", post(models::try_one))
        .route("/v1/models/{id}", get(models::one))
        .route("/v1/models/{id}/approval", post(models::approve))
        .route("/v1/models/{id}/publication", post(models::publish))
        .route("/openapi.json", get(public::openapi))
        .route("/docs/errors", get(public::errors))
        // Handlers read bodies by `Whole`, which has its own limit and refuses as a problem.
        .layer(DefaultBodyLimit::max(PEOPLE_BODY_BYTES_MAX))
        .with_state(app)
}
