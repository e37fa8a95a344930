//! `POST /v1/answers`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Deserialize;

use super::app::App;
use super::body::{self, read_json, require_content_type};
use super::floor;
use super::limit;
use super::listener::Peer;
use super::problem::{Problem, code};
use crate::consent::{OneTimeCode, Token};
use crate::gateway::{Answer, AskRequest, Caller, GatewayError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    scenario: String,
    consent: String,
    nonce: String,
}

/// Answers a relying party. Whoever is known gets everything at the fixed time, refusals too.
pub(super) async fn answers(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    let policies = match app.gateway.policies() {
        Ok(policies) => policies,
        Err(error) => return app.problem(error).into_response(),
    };
    let places = policies.city.limits.calls_at_once;
    if let Err(problem) = app.places.open(places) {
        return problem.into_response();
    }
    let (parts, body) = request.into_parts();
    let identified = match app.identify(&policies, &peer, &parts) {
        Ok(identified) => identified,
        Err(problem) => return problem.into_response(),
    };
    let read = body::read(&parts.headers, body, policies.city.limits.call_bytes_max).await;
    let arrival = peer.arrival.last_byte();
    let answered = match read.and_then(|bytes| Ok((app.with_body(&peer, identified, &bytes)?, bytes))) {
        Ok((caller, bytes)) => match app.places.take(places) {
            Ok(_place) => answer(&app, &caller, &parts.headers, &bytes).await,
            Err(problem) => Err(problem),
        },
        Err(problem) => Err(problem),
    };
    let json = HeaderValue::from_static("application/json");
    let response = match answered {
        Ok(answer) => ([(header::CONTENT_TYPE, json)], answer.into_body()).into_response(),
        Err(problem) => problem.into_response(),
    };
    floor::leave(arrival, App::floor(&policies)).await;
    response
}

async fn answer(app: &App, caller: &Caller, headers: &http::HeaderMap, bytes: &[u8]) -> Result<Answer, Problem> {
    app.limiter.call(&caller.party).map_err(limit::problem)?;
    let read = require_content_type(headers, "application/json").and_then(|()| read_json::<Call>(bytes));
    let Call { scenario, consent, nonce } = match read {
        Ok(body) => body,
        Err(problem) => {
            app.gateway.log_refusal(caller).await.map_err(|error| app.problem(error))?;
            return Err(problem);
        }
    };
    let by_code = Token::parse(&consent).is_none() && OneTimeCode::parse(&consent).is_some();
    if by_code {
        app.limiter.codes(&caller.party).map_err(|too_many| too_many.problem(code::TOO_MANY_CODES))?;
    }
    let answered = app.gateway.ask(caller, &AskRequest { scenario, consent, nonce }).await;
    answered.map_err(|error| {
        let refused = matches!(error, GatewayError::Refused(_));
        let problem = app.problem(error);
        if by_code && refused && problem.status().is_client_error() {
            app.limiter.wrong_code(&caller.party);
        }
        problem
    })
}
