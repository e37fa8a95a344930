//! What a page reads of a request: who sent it, in which language, and the fields of its form.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Form, FromRequest, FromRequestParts, Query, Request};
use http::request::Parts;
use http::{HeaderMap, Uri, header};
use tokio::time::Instant;

use super::stop::Stop;
use super::words::Lang;
use super::{FORM_BYTES_MAX, MODEL_FORM_BYTES_MAX, WebState};
use crate::access::Role;
use crate::authority::Login;
use crate::code::PartyId;
use crate::gateway::{Refusal, Staff, Who};
use crate::http::admission::Admission;
use crate::http::listener::Peer;
use crate::http::session::token_from;

/// How a request is to be answered: the language, and where the links to the other one lead.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) lang: Lang,
    pub(super) here: String,
}

impl Seen {
    pub(super) fn of(parts: &Parts) -> Self {
        let asked = said_lang(&parts.uri);
        let kept = cookie(&parts.headers, "lang").and_then(Lang::parse);
        let lang = asked.or(kept).unwrap_or_else(|| accepted(&parts.headers));
        Self { lang, here: without_lang(&parts.uri) }
    }
}

/// A cookie's value.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// What `?lang=` says.
pub(super) fn said_lang(uri: &Uri) -> Option<Lang> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(name, _)| *name == "lang").filter_map(|(_, value)| Lang::parse(value)).next()
}

fn without_lang(uri: &Uri) -> String {
    let kept = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("lang="));
    let query: Vec<&str> = kept.collect();
    if query.is_empty() { uri.path().to_owned() } else { format!("{}?{}", uri.path(), query.join("&")) }
}

/// Chinese unless English is wanted more.
fn accepted(headers: &HeaderMap) -> Lang {
    let wanted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let quality = |language: &str| {
        let ranges = wanted.split(',').filter_map(|range| {
            let mut parts = range.trim().split(';');
            let tag = parts.next()?.trim().to_ascii_lowercase();
            let fits = tag == language || tag.strip_prefix(language).is_some_and(|rest| rest.starts_with('-'));
            let quality = parts.find_map(|part| part.trim().strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
            fits.then_some(quality)
        });
        ranges.fold(0.0, f32::max)
    };
    if quality("en") > quality("zh") { Lang::En } else { Lang::Zh }
}

impl<S: Send + Sync> FromRequestParts<S> for Seen {
    type Rejection = Stop;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Stop> {
        Ok(Self::of(parts))
    }
}

/// Whoever a request's session is; none where there is none.
pub(super) async fn who(parts: &Parts, state: &WebState) -> Result<Option<Who>, Stop> {
    match token_from(&parts.headers) {
        Some(token) => Ok(state.gateway().session(&token).await?),
        None => Ok(None),
    }
}

/// A person who has logged in.
pub(super) struct Resident(pub(super) Login);
/// An officer who has logged in.
pub(super) struct Officer(pub(super) Staff);
/// An officer or operator who has logged in.
pub(super) struct StaffOnly(pub(super) Staff);
/// Somebody of a party who has logged in.
pub(super) struct AtParty(pub(super) PartyId);
/// Whoever it is, if anybody.
pub(super) struct Anybody(pub(super) Option<Who>);

macro_rules! only {
    ($kind:ident, $pattern:pat => $value:expr) => {
        impl FromRequestParts<Arc<WebState>> for $kind {
            type Rejection = Stop;

            async fn from_request_parts(parts: &mut Parts, state: &Arc<WebState>) -> Result<Self, Stop> {
                match who(parts, state).await? {
                    $pattern => Ok(Self($value)),
                    Some(_) => Err(Stop::Role),
                    None => Err(Stop::LogIn),
                }
            }
        }
    };
}

only!(Resident, Some(Who::Person(login)) => login);
only!(Officer, Some(Who::Staff(staff @ Staff { role: Role::Officer, .. })) => staff);
only!(StaffOnly, Some(Who::Staff(staff)) => staff);
only!(AtParty, Some(Who::Party(party)) => party);

impl FromRequestParts<Arc<WebState>> for Anybody {
    type Rejection = Stop;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<WebState>) -> Result<Self, Stop> {
        who(parts, state).await.map(Self)
    }
}

/// The fields of a form or of a query.
#[derive(Clone, Default)]
pub(super) struct Fields(Vec<(String, String)>);

/// The names alone: the values are numbers, tokens and codes that somebody typed.
impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Fields {
    /// A field's text without blanks around it; empty where it is not there.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.trim())
    }

    /// A field's text, where it says something.
    pub(super) fn said(&self, name: &str) -> Option<&str> {
        Some(self.get(name)).filter(|text| !text.is_empty())
    }

    pub(super) fn of_query(uri: &Uri) -> Result<Self, Stop> {
        Query::<Vec<(String, String)>>::try_from_uri(uri).map(|Query(fields)| Self(fields)).map_err(|_| Stop::Form)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Fields {
    type Rejection = Stop;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Stop> {
        Self::of_query(&parts.uri)
    }
}

/// A form that was sent, and when its last byte came.
pub(super) struct Posted {
    pub(super) fields: Fields,
    pub(super) arrived: Instant,
    pub(super) parts: Parts,
}

impl<S: Send + Sync> FromRequest<S> for Posted {
    type Rejection = Stop;

    async fn from_request(request: Request, _: &S) -> Result<Self, Stop> {
        let (parts, body) = request.into_parts();
        let model = matches!(parts.uri.path(), "/models/try" | "/models/draft");
        let most = if model { MODEL_FORM_BYTES_MAX } else { FORM_BYTES_MAX };
        let bytes = to_bytes(body, most).await.map_err(|_| Stop::Form)?;
        Admission::of(&parts).enter().map_err(|_| Stop::Refused(Refusal::Busy))?;
        // Over a real socket the listener has stamped it; a test calls the router itself.
        let arrived = parts.extensions.get::<Peer>().map_or_else(Instant::now, |peer| peer.arrival.last_byte());
        let again = Request::from_parts(parts.clone(), Body::from(bytes));
        let Form(fields) = Form::<Vec<(String, String)>>::from_request(again, &()).await.map_err(|_| Stop::Form)?;
        Ok(Self { fields: Fields(fields), arrived, parts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(uri: &str, headers: &[(&'static str, &str)]) -> Seen {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Seen::of(&request.body(Body::empty()).unwrap().into_parts().0)
    }

    #[test]
    fn debug_shows_names_of_fields_alone() {
        let fields = Fields(vec![("as".into(), "530499199001010015".into()), ("code".into(), "7K3M".into())]);
        assert_eq!(format!("{fields:?}"), r#"["as", "code"]"#);
    }

    #[test]
    fn the_language_is_what_was_said_last_then_kept_then_wanted() {
        type Case = (&'static str, &'static [(&'static str, &'static str)], Lang);
        let cases: [Case; 8] = [
            ("/", &[], Lang::Zh),
            ("/", &[("accept-language", "en-GB,en;q=0.9")], Lang::En),
            ("/", &[("accept-language", "zh-CN,zh;q=0.9,en;q=0.8")], Lang::Zh),
            ("/", &[("accept-language", "fr,en;q=0.5,zh;q=0.7")], Lang::Zh),
            ("/", &[("accept-language", "rubbish;;q=,")], Lang::Zh),
            ("/", &[("accept-language", "en"), ("cookie", "lang=zh")], Lang::Zh),
            ("/?lang=en", &[("cookie", "lang=zh")], Lang::En),
            ("/?lang=xx", &[("cookie", "lang=en")], Lang::En),
        ];
        for (uri, headers, lang) in cases {
            assert_eq!(seen(uri, headers).lang, lang, "{uri} {headers:?}");
        }
        assert_eq!(seen("/me/consent?scenario=a&lang=en&party=b", &[]).here, "/me/consent?scenario=a&party=b");
    }
}
