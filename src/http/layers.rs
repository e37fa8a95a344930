//! What surrounds every route: a request id, the access line, the figures, panics turned into
//! faults, headers that keep pages safe, and problems where there is no route.
//!
//! The access line has method, route template, status, time and request id. It never has the path
//! as it was called, nor a query, a header or a body: those hold names and tokens. A request id that
//! a caller sends is thrown away, or it could put anything into the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Request},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, Method, header};
use tokio::time::Instant;
use tower_http::{
    catch_panic::CatchPanicLayer,
    request_id::{MakeRequestId, RequestId, SetRequestIdLayer},
};

use super::{
    figures,
    problem::{Problem, RefusedWith, code},
};
use crate::entropy::{self, Entropy, EntropyError};

/// What a page may load and do: its own styles, scripts, images and forms, in no frame.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; \
    connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Numbers by which an operator finds a call or an incident in the log; never used twice.
#[derive(Debug, Clone)]
pub struct Numbers(Arc<(String, AtomicU64)>);

impl Numbers {
    /// Numbers that begin with something random, so that two runs do not share any.
    pub fn new(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let run = u32::from_be_bytes(entropy::bytes::<4>(entropy)?);
        Ok(Self(Arc::new((format!("{run:08x}"), AtomicU64::new(1)))))
    }

    /// The next number: `5f3a9c01-17`.
    pub fn next(&self) -> String {
        format!("{}-{}", self.0.0, self.0.1.fetch_add(1, Ordering::Relaxed))
    }
}

impl MakeRequestId for Numbers {
    fn make_request_id<B>(&mut self, _: &http::Request<B>) -> Option<RequestId> {
        HeaderValue::try_from(self.next()).ok().map(RequestId::new)
    }
}

/// Puts all of this around a finished router.
pub fn surround(router: Router, numbers: &Numbers) -> Router {
    let incidents = numbers.clone();
    let panicked = move |_: Box<dyn std::any::Any + Send>| {
        let incident = incidents.next();
        tracing::error!(incident, "a handler panicked");
        Problem::internal(incident).into_response()
    };
    router
        .fallback(async || Problem::plain(code::NOT_FOUND))
        .method_not_allowed_fallback(async || Problem::plain(code::METHOD_NOT_ALLOWED))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(headers))
        .layer(from_fn(access))
        .layer(SetRequestIdLayer::new(REQUEST_ID, numbers.clone()))
        .layer(from_fn(async |mut request: Request, next: Next| {
            request.headers_mut().remove(REQUEST_ID);
            next.run(request).await
        }))
}

/// Logs where a panic happened, and not its message, which may hold what the code was working on.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panic");
    }));
}

async fn headers(request: Request, next: Next) -> Response {
    let api = request.uri().path().starts_with("/v1/");
    let mut response = next.run(request).await;
    let mut unless_set = |name: HeaderName, value: &'static str| {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    };
    unless_set(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    unless_set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    unless_set(header::REFERRER_POLICY, "no-referrer");
    if api {
        unless_set(header::CACHE_CONTROL, "no-store");
    }
    response
}

async fn access(request: Request, next: Next) -> Response<Body> {
    let began = Instant::now();
    let method = known_method(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let id = request.extensions().get::<RequestId>().cloned();
    let response = next.run(request).await;

    let route = route.as_ref().map_or("-", MatchedPath::as_str);
    let id = id.as_ref().and_then(|id| id.header_value().to_str().ok()).unwrap_or("-");
    let (status, took) = (response.status().as_u16(), began.elapsed());
    if let Some(RefusedWith(code)) = response.extensions().get() {
        figures::refused(code);
    }
    figures::call(route, method, status, took);
    tracing::info!(id, method, route, status, ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX), "call");
    response
}

/// A method by a name of ours: a caller may make up any.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::{get, post};
    use http_body_util::BodyExt;
    use std::sync::Mutex;
    use tower::ServiceExt;
    use tracing_subscriber::fmt::MakeWriter;

    struct Counting;

    impl Entropy for Counting {
        fn fill(&self, out: &mut [u8]) -> Result<(), EntropyError> {
            out.fill(0xab);
            Ok(())
        }
    }

    fn router() -> Router {
        let routes =
            Router::new().route("/v1/things/{id}", get(async || "here")).route("/page", get(async || "page")).route(
                "/v1/panic",
                post(async || {
                    if true {
                        panic!("530499199001010015")
                    }
                }),
            );
        surround(routes, &Numbers::new(&Counting).unwrap())
    }

    async fn send(method: &str, path: &str) -> (Response, serde_json::Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("x-request-id", "530499199001010015")
            .header("authorization", "530499199001010015")
            .body(Body::from("530499199001010015"))
            .unwrap();
        let response = router().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (Response::from_parts(head, Body::empty()), serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn where_there_is_no_route_there_is_a_problem() {
        let (response, body) = send("GET", "/v1/nothing").await;
        assert_eq!((response.status().as_u16(), &body["code"]), (404, &"not-found".into()));
        let (response, body) = send("DELETE", "/page").await;
        assert_eq!((response.status().as_u16(), &body["code"]), (405, &"method-not-allowed".into()));
        assert_eq!(response.headers()["allow"], "GET,HEAD");
    }

    #[tokio::test]
    async fn a_panic_is_a_fault_with_a_number() {
        let (response, body) = send("POST", "/v1/panic").await;
        assert_eq!((response.status().as_u16(), &body["code"]), (500, &"internal".into()));
        assert!(body["incident"].as_str().unwrap().starts_with("abababab-"));
    }

    #[tokio::test]
    async fn pages_are_kept_safe_and_calls_are_not_stored() {
        let (page, _) = send("GET", "/page").await;
        assert_eq!(page.headers()["content-security-policy"], CONTENT_SECURITY_POLICY);
        assert!(!CONTENT_SECURITY_POLICY.contains("unsafe") && !page.headers().contains_key("cache-control"));
        let (call, _) = send("GET", "/v1/things/7").await;
        assert_eq!(call.headers()["cache-control"], "no-store");
        assert!(!call.headers().contains_key("x-request-id"), "it would tell two equal answers apart");
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    #[tokio::test]
    async fn the_access_line_has_the_template_and_nothing_of_the_callers() {
        let lines = Lines::default();
        let subscriber =
            tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(lines.clone()).finish();
        let guard = tracing::subscriber::set_default(subscriber);
        send("GET", "/v1/things/530499199001010015?token=530499199001010015").await;
        send("GET", "/530499199001010015").await;
        send("PROPFIND530499199001010015", "/page").await;
        drop(guard);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches(" call ").count(), 3, "{text}");
        assert!(text.contains("/v1/things/{id}") && text.contains("abababab-"), "{text}");
        assert!(!text.contains("53049919"), "{text}");
    }
}
