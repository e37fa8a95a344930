//! What a refusal looks like: RFC 9457 problem details with a stable code.
//!
//! One table, [`code`], has status, titles and advice of every code; a [`Problem`] adds what is
//! particular to the call. It is rich about the integration and silent about the person: a detail
//! may name a field, a limit or a parameter, never a value, and it is for the caller alone, so
//! nothing logs it.

pub mod code;

use std::time::Duration;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value};

use crate::http::signature::SignatureError;

/// The media type of RFC 9457.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// A refusal on its way to the caller.
#[derive(Clone, PartialEq, Eq)]
#[must_use = "a problem is an answer: send it"]
pub struct Problem {
    code: &'static str,
    detail: String,
    extra: Vec<(&'static str, Value)>,
    retry_after_seconds: Option<u64>,
    closes: bool,
}

/// The code alone: a detail may name a field as the caller spelt it.
impl std::fmt::Debug for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Problem({})", self.code)
    }
}

/// The code of a refusal, put beside its response for those who count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedWith(pub &'static str);

impl Problem {
    /// A refusal by a code of the table; the detail says what to do about this very call.
    ///
    /// A code that is not in the table becomes `internal`: it would be undocumented.
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        debug_assert!(code::info(code).is_some(), "{code} is not in the table of codes");
        let code = if code::info(code).is_some() { code } else { code::INTERNAL };
        Self { code, detail, extra: Vec::new(), retry_after_seconds: None, closes: false }
    }

    /// A refusal that says no more than the table does.
    pub fn plain(code: &'static str) -> Self {
        Self::new(code, code::info(code).map_or("", |info| info.advice))
    }

    /// A fault: a number for the operator to find it by, and nothing else.
    pub fn internal(incident: impl Into<String>) -> Self {
        Self::new(code::INTERNAL, "give the operator the incident number").with("incident", incident.into())
    }

    /// Adds a member such as `limit`, `field`, `line`, `column` or `incident`.
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.extra.push((name, value.into()));
        self
    }

    /// Adds Retry-After, in whole seconds rounded up, at least one.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        let up = u64::from(wait.subsec_nanos() > 0);
        self.retry_after_seconds = Some(wait.as_secs().saturating_add(up).max(1));
        self
    }

    /// The connection ends with this answer, as where the body was not read.
    pub fn closing(mut self) -> Self {
        self.closes = true;
        self
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// What to do about this call.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The status that the table gives the code.
    pub fn status(&self) -> StatusCode {
        code::info(self.code)
            .and_then(|info| StatusCode::from_u16(info.status).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The body, as RFC 9457 has it.
    pub fn to_json(&self) -> Value {
        let mut body = Map::new();
        let (en, zh) = code::info(self.code).map_or(("", ""), |info| (info.title_en, info.title_zh));
        body.insert("type".into(), format!("/docs/errors#{}", self.code).into());
        body.insert("title".into(), en.into());
        body.insert("title_zh".into(), zh.into());
        body.insert("status".into(), self.status().as_u16().into());
        body.insert("detail".into(), self.detail.as_str().into());
        body.insert("code".into(), self.code.into());
        for (name, value) in &self.extra {
            body.insert((*name).into(), value.clone());
        }
        Value::Object(body)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json().to_string()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.closes {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response.extensions_mut().insert(RefusedWith(self.code));
        response
    }
}

impl From<SignatureError> for Problem {
    fn from(error: SignatureError) -> Self {
        let problem = Self::new(error.code(), error.to_string());
        match error {
            SignatureError::Stale { now, .. } => problem.with("now", now),
            _ => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_rfc_9457_and_not_stored() {
        let problem = Problem::new(code::TOO_LARGE, "at most 100 bytes").with("limit", 100).closing();
        let response = problem.clone().retry_after(Duration::from_millis(1200)).into_response();
        assert_eq!(response.status(), 413);
        let header = |name: &str| response.headers().get(name).unwrap().to_str().unwrap();
        assert_eq!(
            ["content-type", "cache-control", "retry-after", "connection"].map(header),
            [MEDIA_TYPE, "no-store", "2", "close"]
        );
        assert_eq!(
            problem.to_json(),
            serde_json::json!({"type": "/docs/errors#too-large", "title": "The content is larger than the limit",
                "title_zh": "内容超过上限", "status": 413, "detail": "at most 100 bytes", "code": "too-large", "limit": 100})
        );
    }

    #[test]
    fn a_signature_error_keeps_its_code_and_its_advice() {
        let problem = Problem::from(SignatureError::Stale { what: "created is too old", now: 1_790_000_000 });
        assert_eq!((problem.status().as_u16(), problem.code()), (401, "signature-stale"));
        assert!(problem.detail().contains("time server"));
    }
}
