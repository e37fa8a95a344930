//! What surrounds every page: its language, its banner and sections, and what is shown in its place.

use std::sync::{Arc, LazyLock};

use askama::Template;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use sha2::{Digest, Sha256};

use super::request::{Seen, said_lang};
use super::stop::Stop;
use super::words::{Lang, Words};
use super::{CONTENT_SECURITY_POLICY, WebState};
use crate::hex::hex;
use crate::http::session::own_origin;

/// The one style sheet.
pub(super) const STYLE: &str = include_str!("../../assets/style.css");
/// Its address, which changes with it.
pub(super) static STYLE_FILE: LazyLock<String> = LazyLock::new(|| {
    let digest = Sha256::digest(STYLE);
    format!("style-{}.css", hex(digest.first_chunk::<8>().unwrap_or(&[0; 8])))
});

/// Whose pages these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Area {
    Public,
    Person,
    Officer,
    Operator,
    Party,
}

/// A link among the sections.
pub(super) struct Section {
    pub(super) href: &'static str,
    pub(super) label: &'static str,
    pub(super) current: bool,
}

/// What the frame of a page needs.
pub(super) struct Page {
    pub(super) w: &'static Words,
    pub(super) lang: Lang,
    pub(super) title: String,
    pub(super) demo: bool,
    pub(super) sections: Vec<Section>,
    pub(super) logged_in: bool,
    pub(super) style: String,
    here: String,
}

impl Page {
    /// `current` is the address of the section that the page belongs to.
    pub(super) fn new(state: &WebState, seen: &Seen, area: Area, current: &str, title: &str) -> Self {
        let w = seen.lang.words();
        let links: &[(&'static str, &'static str)] = match area {
            Area::Public => {
                &[("/scenarios", w.nav_scenarios), ("/catalogue", w.nav_catalogue), ("/models", w.nav_models)]
            }
            Area::Person => &[
                ("/me", w.nav_score),
                ("/me/answers", w.nav_answers),
                ("/me/consents", w.nav_consents),
                ("/me/market", w.nav_market),
                ("/me/accesses", w.nav_accesses),
            ],
            Area::Officer => &[("/officer", w.nav_log), ("/officer/cases", w.nav_cases), ("/models", w.nav_models)],
            Area::Operator => &[("/operator", w.nav_city), ("/models", w.nav_models)],
            Area::Party => &[("/counter", w.nav_counter), ("/provider", w.nav_report)],
        };
        let section = |(href, label): &(&'static str, &'static str)| Section { href, label, current: *href == current };
        Self {
            w,
            lang: seen.lang,
            title: title.to_owned(),
            demo: state.demo,
            sections: links.iter().map(section).collect(),
            logged_in: area != Area::Public,
            style: format!("/assets/{}", *STYLE_FILE),
            here: seen.here.clone(),
        }
    }

    /// Where the links to the other language lead, for a page that answers a form.
    pub(super) fn reached_from(mut self, here: impl Into<String>) -> Self {
        self.here = here.into();
        self
    }

    /// A page with one thing to do, without links away from it.
    pub(super) fn alone(mut self) -> Self {
        self.sections.clear();
        self
    }

    /// What stands between two parts of a sentence.
    pub(super) fn comma(&self) -> &'static str {
        self.lang.pick("，", ", ")
    }

    /// What stands between two sentences of which the first has no end.
    pub(super) fn stop(&self) -> &'static str {
        self.lang.pick("。", ". ")
    }

    /// What stands between two whole sentences.
    pub(super) fn gap(&self) -> &'static str {
        self.lang.pick("", " ")
    }

    pub(super) fn in_language(&self, code: &str) -> String {
        let mark = if self.here.contains('?') { '&' } else { '?' };
        format!("{}{mark}lang={code}", self.here)
    }
}

/// Makes a page of a template.
pub(super) fn show(template: &impl Template) -> Result<Response, Stop> {
    show_as(StatusCode::OK, template)
}

pub(super) fn show_as(status: StatusCode, template: &impl Template) -> Result<Response, Stop> {
    Ok((status, Html(template.render().map_err(Stop::fault)?)).into_response())
}

#[derive(Template)]
#[template(path = "notice.html")]
struct Notice {
    page: Page,
    say: String,
    incident: Option<String>,
    back: &'static str,
}

/// Surrounds every page: refuses forms from elsewhere, keeps the language, makes the page of a stop.
pub(super) async fn around(State(state): State<Arc<WebState>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let (seen, said) = (Seen::of(&parts), said_lang(&parts.uri));
    let wants_page = reads_pages(&parts.headers);
    let safe = matches!(parts.method, Method::GET | Method::HEAD);
    let mut response = if safe || own_origin(&parts.headers, &state.origin()) {
        next.run(Request::from_parts(parts, body)).await
    } else {
        Stop::Origin.into_response()
    };
    if let Some(stop) = response.extensions_mut().remove::<Stop>() {
        response =
            if wants_page { notice(&state, seen, &stop) } else { stop.problem(&state.app.numbers).into_response() };
    }
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    // Not "no-referrer": browsers would send their own forms with `Origin: null`.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    if let Some(lang) = said {
        let cookie = format!("lang={}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax", lang.code());
        headers.extend(HeaderValue::try_from(cookie).map(|cookie| (header::SET_COOKIE, cookie)));
    }
    response
}

/// Whether the caller is a browser that shows pages; whoever else calls gets problem details.
fn reads_pages(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    accepted.any(|line| line.split(',').any(|range| range.trim().to_ascii_lowercase().starts_with("text/html")))
}

fn notice(state: &WebState, seen: Seen, stop: &Stop) -> Response {
    let (w, mut incident) = (seen.lang.words(), None);
    let (title, say) = match stop {
        Stop::LogIn => (w.wrong_log_in, w.wrong_log_in_say.to_owned()),
        Stop::Role => (w.wrong_role, w.wrong_role_say.to_owned()),
        Stop::Origin => (w.wrong_origin, w.wrong_origin_say.to_owned()),
        Stop::Form => (w.wrong_form, w.wrong_form_say.to_owned()),
        Stop::Gone => (w.wrong_gone, seen.lang.refusal(&crate::gateway::Refusal::NotFound)),
        Stop::TooMany => (w.wrong_refused, w.wrong_too_many.to_owned()),
        Stop::Unknown => (w.wrong_refused, w.home_demo_unknown.to_owned()),
        Stop::Refused(refusal) => (w.wrong_refused, seen.lang.refusal(refusal)),
        Stop::Fault(inside) => {
            let number = state.app.numbers.next();
            tracing::error!(incident = number, error = inside, "a page failed");
            incident = Some(number);
            (w.wrong_fault, w.wrong_fault_say.to_owned())
        }
    };
    let back = match seen.here.as_str() {
        here if here.starts_with("/me/consent") => "/me/consents",
        here if here.starts_with("/me/") => "/me",
        here if here.starts_with("/officer/") => "/officer/cases",
        here if here.starts_with("/models/") => "/models",
        _ => "/",
    };
    let page = Page::new(state, &seen, Area::Public, "", title).reached_from(back);
    let made = show_as(stop.status(), &Notice { page, say, incident, back });
    made.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}
