//! Whether the process is up, whether it may be asked, and its figures.
//!
//! `/healthz` says that the process answers, nothing more. `/readyz` says that it may be asked: the
//! flag is set once everything is open and taken back first thing when it stops, so that a load
//! balancer looks elsewhere before connections end.

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::header;
use tokio::sync::watch;

use super::{
    figures::Figures,
    problem::{Problem, code},
};

/// `/healthz` and `/readyz`, for every listener.
pub fn routes(ready: watch::Receiver<bool>) -> Router {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).with_state(ready)
}

/// What the admin listener serves: health and `/metrics`.
pub fn admin(ready: watch::Receiver<bool>, figures: Figures) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(figures).merge(routes(ready))
}

async fn healthz() -> Response {
    ([(header::CACHE_CONTROL, "no-store")], "ok\n").into_response()
}

async fn readyz(State(ready): State<watch::Receiver<bool>>) -> Response {
    if *ready.borrow() {
        ([(header::CACHE_CONTROL, "no-store")], "ready\n").into_response()
    } else {
        Problem::plain(code::NOT_READY).into_response()
    }
}

async fn metrics(State(figures): State<Figures>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], figures.render()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use http::Request;
    use tower::ServiceExt;

    #[tokio::test]
    async fn ready_follows_its_flag_and_health_does_not() {
        let (set, ready) = watch::channel(false);
        let router = admin(ready, Figures::install().unwrap());
        let status = async |path: &str| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            router.clone().oneshot(request).await.unwrap().status().as_u16()
        };
        assert_eq!((status("/healthz").await, status("/readyz").await), (200, 503));
        set.send_replace(true);
        assert_eq!((status("/readyz").await, status("/metrics").await), (200, 200));
        set.send_replace(false);
        assert_eq!((status("/readyz").await, status("/healthz").await), (503, 200));
    }
}
