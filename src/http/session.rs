//! The session cookie, and whether a change comes from our own pages.

use http::{HeaderMap, HeaderValue, header};

use super::app::App;
use super::problem::{Problem, code};
use crate::access::Role;
use crate::authority::Login;
use crate::gateway::{SESSION_SECONDS, Staff, Who};

/// The cookie's name.
pub const COOKIE: &str = "jadegate_session";

/// The session's token, where the call has one.
pub fn token_from(headers: &HeaderMap) -> Option<String> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok()).flat_map(|l| l.split(';'));
    pairs.filter_map(|pair| pair.trim().split_once('=')).find(|(name, _)| *name == COOKIE).map(|(_, v)| v.to_owned())
}

/// The cookie of a new session: not for scripts, not from other sites.
pub fn set_cookie(token: &str, secure: bool) -> Option<HeaderValue> {
    let secure = if secure { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={SESSION_SECONDS}{secure}");
    HeaderValue::try_from(cookie).ok()
}

/// Takes the cookie back.
pub fn clear_cookie(secure: bool) -> Option<HeaderValue> {
    let secure = if secure { "; Secure" } else { "" };
    HeaderValue::try_from(format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0{secure}")).ok()
}

/// Whether a change may come from where the browser says it comes from. A call that names no origin
/// is no browser's cross-site call: those always name one.
pub fn own_origin(headers: &HeaderMap, base: &str) -> bool {
    let said = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    match (said("origin"), said("sec-fetch-site")) {
        (Some(origin), _) => origin == base,
        (None, Some(site)) => matches!(site, "same-origin" | "none"),
        (None, None) => true,
    }
}

impl App {
    /// Who the call's session is.
    pub(super) async fn who(&self, headers: &HeaderMap) -> Result<Who, Problem> {
        let not_logged_in = || Problem::plain(code::NOT_LOGGED_IN);
        let token = token_from(headers).ok_or_else(not_logged_in)?;
        let who = self.gateway.session(&token).await.map_err(|error| self.problem(error))?;
        who.ok_or_else(not_logged_in)
    }

    /// The person who has logged in.
    pub(super) async fn person(&self, headers: &HeaderMap) -> Result<Login, Problem> {
        match self.who(headers).await? {
            Who::Person(login) => Ok(login),
            _ => Err(Problem::plain(code::NOT_PERMITTED)),
        }
    }

    /// The officer who has logged in.
    pub(super) async fn officer(&self, headers: &HeaderMap) -> Result<Staff, Problem> {
        match self.who(headers).await? {
            Who::Staff(staff) if staff.role == Role::Officer => Ok(staff),
            _ => Err(Problem::plain(code::NOT_PERMITTED)),
        }
    }

    /// The officer or operator who has logged in.
    pub(super) async fn staff(&self, headers: &HeaderMap) -> Result<Staff, Problem> {
        match self.who(headers).await? {
            Who::Staff(staff) => Ok(staff),
            _ => Err(Problem::plain(code::NOT_PERMITTED)),
        }
    }

    /// Refuses a change that another site's page sent.
    pub(super) fn own_pages_only(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let base = format!("{}://{}", self.web_base.scheme(), self.web_base.authority());
        if own_origin(headers, &base) { Ok(()) } else { Err(Problem::plain(code::WRONG_ORIGIN)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        assert_eq!(token_from(&headers(&[("cookie", "lang=zh; jadegate_session=abc; x=y")])).as_deref(), Some("abc"));
        assert_eq!(token_from(&headers(&[("cookie", "not_jadegate_session=abc")])), None);
        let set = set_cookie("abc", true).unwrap();
        let set = set.to_str().unwrap();
        assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict") && set.contains("Secure"));
    }

    #[test]
    fn another_sites_change_is_seen() {
        let base = "http://127.0.0.1:8080";
        assert!(own_origin(&headers(&[("origin", base)]), base));
        assert!(own_origin(&headers(&[]), base));
        assert!(!own_origin(&headers(&[("origin", "https://elsewhere.example")]), base));
        assert!(!own_origin(&headers(&[("origin", "null")]), base));
        assert!(!own_origin(&headers(&[("sec-fetch-site", "cross-site")]), base));
    }
}
