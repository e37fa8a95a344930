//! The counter of a party: choose a benefit, scan a code, read the answer.
//!
//! INVARIANT (one withheld): both answers stand in the same place, in the same size and colour, on
//! pages of the same length with the same headers, and everything that follows a read form leaves at a
//! fixed time after its last byte.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use http::StatusCode;
use serde_json::Value;

use super::WebState;
use super::page::{Area, Page, show, show_as};
use super::request::{AtParty, Fields, Posted, Seen, who};
use super::say::time;
use super::stop::{Stop, refused};
use super::words::Lang;
use crate::clock::day_of;
use crate::code::{PartyId, ScenarioId};
use crate::consent::{OneTimeCode, Token};
use crate::entropy;
use crate::gateway::{AskRequest, Caller, GatewayError, Loaded, Refusal, Who};
use crate::http::admission::Admission;
use crate::http::floor;
use crate::model::Model;
use crate::scenario::{Question, Scenario};

/// The page of an answer is filled up to a multiple of this.
const ANSWER_PAGE_BYTES: usize = 16 * 1024;
/// What one byte of a name can become when it is escaped.
const ESCAPED_BYTES_MAX: usize = 6;
/// Room for the word where no grade is named.
const SPARE_BYTES: usize = 64;

/// The form, which stands on the page of an answer too.
struct Scan {
    choices: Vec<Choice>,
}

struct Choice {
    id: String,
    title: String,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "counter.html")]
struct CounterPage {
    page: Page,
    party: String,
    scan: Scan,
    wrong: Option<String>,
}

/// What is said of one answer.
#[derive(Template)]
#[template(path = "answer.html")]
struct AnswerPage {
    page: Page,
    scan: Scan,
    said: &'static str,
    title: String,
    benefit: String,
    /// The grade, where the scenario has it named.
    grade: Option<String>,
    at: String,
}

pub(super) async fn counter(
    State(state): State<Arc<WebState>>,
    seen: Seen,
    fields: Fields,
    AtParty(party): AtParty,
) -> Result<Response, Stop> {
    let policies = state.gateway().policies()?;
    show(&counter_page(&state, &seen, &policies, &party, fields.get("scenario"), None))
}

fn counter_page(
    state: &WebState,
    seen: &Seen,
    policies: &Loaded,
    party: &PartyId,
    chosen: &str,
    wrong: Option<String>,
) -> CounterPage {
    let page = Page::new(state, seen, Area::Party, "/counter", seen.lang.words().counter_title);
    CounterPage {
        page: page.reached_from("/counter"),
        party: seen.lang.name(policies.parties.get(party).map(|party| &party.name), party.as_str()),
        scan: scan(seen.lang, policies, party, chosen),
        wrong,
    }
}

fn scan(lang: Lang, policies: &Loaded, party: &PartyId, chosen: &str) -> Scan {
    let own = policies.scenarios.values().filter(|scenario| scenario.parties.contains(party));
    let choice = |scenario: &Scenario| Choice {
        id: scenario.id.to_string(),
        title: lang.of(&scenario.title).to_owned(),
        chosen: scenario.id.as_str() == chosen,
    };
    Scan { choices: own.map(choice).collect() }
}

pub(super) async fn ask(State(state): State<Arc<WebState>>, seen: Seen, posted: Posted) -> Result<Response, Stop> {
    let arrived = posted.arrived;
    let floor = state.gateway().policies().map_or(Duration::ZERO, |p| Duration::from_millis(p.city.answer_floor_ms));
    let answered = answer(&state, &seen, &posted).await;
    Admission::of(&posted.parts).leave();
    floor::leave(arrived, floor).await;
    answered
}

async fn answer(state: &WebState, seen: &Seen, posted: &Posted) -> Result<Response, Stop> {
    let party = match who(&posted.parts, state).await? {
        Some(Who::Party(party)) => party,
        Some(_) => return Err(Stop::Role),
        None => return Err(Stop::LogIn),
    };
    state.app.limiter.call(&party).map_err(|_| Stop::TooMany)?;
    let policies = state.gateway().policies()?;
    let (chosen, shown) = (posted.fields.get("scenario"), posted.fields.get("code"));
    let again = |status: StatusCode, wrong: String| {
        show_as(status, &counter_page(state, seen, &policies, &party, chosen, Some(wrong)))
    };
    let w = seen.lang.words();
    if shown.is_empty() {
        return again(StatusCode::UNPROCESSABLE_ENTITY, w.counter_empty.to_owned());
    }
    let is_code = Token::parse(shown).is_none() && OneTimeCode::parse(shown).is_some();
    if is_code && state.app.limiter.codes(&party).is_err() {
        return again(StatusCode::TOO_MANY_REQUESTS, w.counter_too_many.to_owned());
    }
    let nonce = BASE64URL.encode(entropy::bytes::<24>(&*state.entropy).map_err(Stop::fault)?);
    let request = AskRequest { scenario: chosen.to_owned(), consent: shown.to_owned(), nonce };
    let caller = Caller { party: party.clone(), signature: None };
    match state.gateway().ask(&caller, &request).await {
        Ok(answer) => {
            let scenario = ScenarioId::parse(chosen).ok().and_then(|id| policies.scenarios.get(&id));
            let scenario = scenario.ok_or(Refusal::UnknownScenario)?;
            pages(state, seen, &policies, &party, scenario, &answer.into_body())
        }
        Err(GatewayError::Refused(refusal)) => {
            if is_code && refused(&refusal).is_client_error() {
                state.app.limiter.wrong_code(&party);
            }
            again(refused(&refusal), seen.lang.refusal(&refusal))
        }
        Err(fault) => Err(fault.into()),
    }
}

/// Makes the pages of both answers and gives the right one, in the size of the larger.
fn pages(
    state: &WebState,
    seen: &Seen,
    policies: &Loaded,
    party: &PartyId,
    scenario: &Scenario,
    body: &[u8],
) -> Result<Response, Stop> {
    let met = serde_json::from_slice::<Value>(body).map_err(Stop::fault)?;
    let claim = met.get("attestation").and_then(Value::as_str).and_then(grade_claimed);
    let met = met.get("answer").and_then(Value::as_str) == Some("met");
    let (w, now) = (seen.lang.words(), state.app.clock.now());
    let model = policies.model_in_force();
    let named = scenario.question == Question::GradeNamed;
    let page = |said: &'static str, grade: String| AnswerPage {
        page: Page::new(state, seen, Area::Party, "/counter", w.counter_title)
            .reached_from(format!("/counter?scenario={}", scenario.id)),
        scan: scan(seen.lang, policies, party, scenario.id.as_str()),
        said,
        title: seen.lang.of(&scenario.title).to_owned(),
        benefit: seen.lang.of(&scenario.benefit).to_owned(),
        grade: named.then_some(grade),
        at: format!("{} {}", seen.lang.day(day_of(now)), time(now)),
    };
    let grade = claim.map_or_else(|| "—".to_owned(), |code| grade_name(seen.lang, model, &code));
    let yes = page(w.answer_met, grade).render().map_err(Stop::fault)?;
    let no = page(w.answer_withheld, w.counter_no_grade.to_owned()).render().map_err(Stop::fault)?;
    // The size follows from what both answers share, so that no length stands for one of them.
    let shared = page(w.answer_met, String::new()).render().map_err(Stop::fault)?.len();
    let names = model.grades.iter().map(|grade| grade_name(seen.lang, model, grade.code.as_str()).len());
    let longest = shared + w.answer_withheld.len() + names.max().unwrap_or(0) * ESCAPED_BYTES_MAX + SPARE_BYTES;
    let size = longest.next_multiple_of(ANSWER_PAGE_BYTES);
    let mut html = if met { yes } else { no };
    html.extend(std::iter::repeat_n(' ', size.saturating_sub(html.len())));
    Ok(Html(html).into_response())
}

fn grade_name(lang: Lang, model: &Model, code: &str) -> String {
    let grade = model.grades.iter().find(|grade| grade.code.as_str() == code);
    lang.name(grade.and_then(|grade| grade.name.as_ref()), code)
}

/// The grade that an attestation of ours names.
fn grade_claimed(attestation: &str) -> Option<String> {
    let payload = BASE64URL.decode(attestation.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    claims.get("met")?.get("grade")?.as_str().map(str::to_owned)
}
