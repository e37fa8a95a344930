//! The pages: plain, made by the server, in Chinese and English, working without JavaScript.
//!
//! An edge beside the API: it reads a request, calls the gateway once, and makes a page of what comes
//! back. It shows everybody what they may see and says on each page who else can; every text that
//! was written by somebody else is shown as text. INVARIANT (one withheld): the page of an answer
//! has one size, one set of headers and a fixed time, as the API's answer has. It does not know the
//! store, and it keeps nothing of its own.

mod consents;
mod counter;
mod figures;
mod market;
mod me;
mod models;
mod officer;
mod page;
mod public;
mod request;
mod say;
mod stop;
#[cfg(test)]
mod tests;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use crate::entropy::Entropy;
use crate::gateway::Gateway;
use crate::http::app::App;
use crate::http::signature::BaseAddress;

/// The most bytes of a form.
pub const FORM_BYTES_MAX: usize = 16 * 1024;
/// The most bytes of a form with a model's file, in which each character may take nine.
pub const MODEL_FORM_BYTES_MAX: usize = 1024 * 1024;

/// What a page may load and do: its own style sheet and forms, in no frame, no script at all.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; \
    form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Somebody whom the demo's first page offers to log in as.
#[derive(Clone)]
pub struct Example {
    /// What the login form takes.
    pub login: String,
    /// Who that is.
    pub role: ExampleRole,
}

/// What an example shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExampleRole {
    /// A person.
    Resident,
    /// An officer.
    Officer,
    /// An operator.
    Operator,
    /// A party.
    Party,
}

/// What the pages need.
#[derive(Clone)]
pub struct WebState {
    /// What handlers share: the gateway, the limits, the base addresses, the time.
    pub app: Arc<App>,
    /// Whether this is a demo, in which anybody may log in as anybody, and every page says so.
    pub demo: bool,
    /// Whom the demo's first page offers; empty elsewhere.
    pub examples: Vec<Example>,
    /// Randomness for the nonces of a counter's questions.
    pub entropy: Arc<dyn Entropy>,
}

impl WebState {
    fn gateway(&self) -> &Gateway {
        &self.app.gateway
    }

    /// The address of these pages: forms are sent from nowhere else.
    fn origin(&self) -> String {
        address(&self.app.web_base)
    }

    /// The address of the API for parties, for the words on how to report.
    fn api(&self) -> String {
        address(&self.app.api_base)
    }

    /// Whether cookies travel over TLS only.
    fn secure_cookies(&self) -> bool {
        self.app.web_base.scheme() == "https"
    }
}

fn address(base: &BaseAddress) -> String {
    format!("{}://{}", base.scheme(), base.authority())
}

/// All pages. The routes of a demo's log-in are there in a demo only.
pub fn routes(state: WebState) -> Router {
    let state = Arc::new(state);
    let mut router = Router::new()
        .route("/", get(public::home))
        .route("/scenarios", get(public::scenarios))
        .route("/catalogue", get(public::catalogue))
        .route("/models", get(models::models))
        .route("/models/try", post(models::try_one))
        .route("/models/draft", post(models::draft))
        .route("/models/{id}/approve", post(models::approve))
        .route("/models/{id}/publish", post(models::publish))
        .route("/operator", get(public::rules))
        .route("/provider", get(public::reporting))
        .route("/logout", post(public::log_out))
        .route("/me", get(me::score))
        .route("/me/answers", get(me::answers))
        .route("/me/accesses", get(me::accesses))
        .route("/me/accesses/{index}/proof", get(me::proof))
        .route("/me/consents", get(consents::list))
        .route("/me/consent", get(consents::choose).post(consents::give))
        .route("/me/consents/{id}/codes", post(consents::code))
        .route("/me/consents/{id}/revoke", post(consents::revoke))
        .route("/me/market", get(market::list).post(market::give))
        .route("/me/market/{id}/withdraw", post(market::withdraw))
        .route("/officer", get(officer::log))
        .route("/officer/cases", get(officer::cases).post(officer::open))
        .route("/officer/cases/confirm", post(officer::confirm))
        .route("/officer/cases/look-up", post(officer::look_up))
        .route("/counter", get(counter::counter).post(counter::ask));
    if state.demo {
        router = router.route("/demo/login", post(public::demo_log_in));
    }
    router
        .layer(from_fn_with_state(state.clone(), page::around))
        .route("/assets/{file}", get(public::asset))
        .with_state(state)
}
