//! The signature base of RFC 9421 section 2.5: one line a covered component, as this server sees it.

use http::{HeaderMap, Uri};

use super::{SignatureError, SignedHead, input::Input};

/// What the gateway is called from outside: scheme and authority, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseAddress {
    scheme: &'static str,
    authority: String,
}

/// Why a text is no base address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a base address is http:// or https://, a host, perhaps a port, and nothing else: https://score.example:8443")]
pub struct BaseAddressError;

impl BaseAddress {
    /// Reads `https://score.example:8443`; host in small letters, the scheme's own port left out.
    pub fn parse(text: &str) -> Result<Self, BaseAddressError> {
        let uri: Uri = text.parse().map_err(|_| BaseAddressError)?;
        let scheme = match uri.scheme_str() {
            Some("https") => "https",
            Some("http") => "http",
            _ => return Err(BaseAddressError),
        };
        let authority = uri.authority().ok_or(BaseAddressError)?.as_str();
        if authority.contains('@') || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(BaseAddressError);
        }
        Ok(Self { scheme, authority: normal(scheme, authority) })
    }

    /// The scheme, `https` or `http`.
    pub fn scheme(&self) -> &str {
        self.scheme
    }

    /// Host and port as they stand in `@authority`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether this Host, as a caller spells it, means this server.
    pub fn is_host(&self, host: &str) -> bool {
        normal(self.scheme, host) == self.authority
    }
}

impl std::fmt::Display for BaseAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

fn normal(scheme: &str, authority: &str) -> String {
    let small = authority.to_ascii_lowercase();
    let port = if scheme == "https" { ":443" } else { ":80" };
    small.strip_suffix(port).map(str::to_owned).unwrap_or(small)
}

/// One Host that is ours, and a request line that names no other server.
pub(super) fn same_host(head: &SignedHead<'_>) -> Result<(), SignatureError> {
    let wrong = || SignatureError::WrongHost(head.base.to_string());
    let mut hosts = head.headers.get_all(http::header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if host.to_str().is_ok_and(|h| head.base.is_host(h)) => {}
        _ => return Err(wrong()),
    }
    let other_authority = head.target.authority().is_some_and(|a| !head.base.is_host(a.as_str()));
    let other_scheme = head.target.scheme_str().is_some_and(|s| s != head.base.scheme());
    if other_authority || other_scheme { Err(wrong()) } else { Ok(()) }
}

fn path_and_query<'a>(head: &SignedHead<'a>) -> &'a str {
    head.target.path_and_query().map_or("/", |p| p.as_str())
}

pub(super) fn target_uri(head: &SignedHead<'_>) -> String {
    format!("{}{}", head.base, path_and_query(head))
}

pub(super) fn text(head: &SignedHead<'_>, input: &Input) -> Result<String, SignatureError> {
    let mut text = String::with_capacity(512);
    for name in &input.components {
        text.push('"');
        text.push_str(name);
        text.push_str("\": ");
        text.push_str(&value(head, name)?);
        text.push('\n');
    }
    text.push_str("\"@signature-params\": ");
    text.push_str(&input.params);
    Ok(text)
}

fn value(head: &SignedHead<'_>, name: &str) -> Result<String, SignatureError> {
    let refuse = |why| Err(SignatureError::Component(shown(name), why));
    Ok(match name {
        "@method" => head.method.to_owned(),
        "@target-uri" => target_uri(head),
        "@authority" => head.base.authority().to_owned(),
        "@scheme" => head.base.scheme().to_owned(),
        "@request-target" if head.target.scheme().is_none() => path_and_query(head).to_owned(),
        "@request-target" => target_uri(head),
        "@path" => match head.target.path() {
            "" => "/".to_owned(),
            path => path.to_owned(),
        },
        "@query" => format!("?{}", head.target.query().unwrap_or_default()),
        _ if name.starts_with('@') => {
            return refuse(
                "this derived component is not supported; use @method @target-uri @authority @scheme @request-target @path @query",
            );
        }
        _ => match combined(head.headers, name) {
            None => return refuse("the request has no such field; cover what is sent"),
            Some(Err(())) => return refuse("the field holds characters outside ASCII"),
            Some(Ok(value)) => value,
        },
    })
}

/// All lines of a field as one, RFC 9421 section 2.1; `Err` where one of them is not ASCII.
pub(super) fn combined(headers: &HeaderMap, name: &str) -> Option<Result<String, ()>> {
    let mut out: Option<String> = None;
    for line in headers.get_all(name) {
        let Ok(line) = line.to_str() else { return Some(Err(())) };
        let line = line.trim_matches([' ', '\t']);
        match &mut out {
            None => out = Some(line.to_owned()),
            Some(all) => {
                all.push_str(", ");
                all.push_str(line);
            }
        }
    }
    out.map(Ok)
}

/// A component's name for an error: whole if it looks like one.
fn shown(name: &str) -> String {
    let plain = name.len() <= 40 && name.bytes().all(|b| b.is_ascii_alphabetic() || b"@-".contains(&b));
    if plain { format!("\"{name}\"") } else { "(not a field name)".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_address_has_one_spelling() {
        for (text, want) in [
            ("https://Score.Example:443/", Some("https://score.example")),
            ("https://score.example:8443", Some("https://score.example:8443")),
            ("http://127.0.0.1:80", Some("http://127.0.0.1")),
            ("https://127.0.0.1:80", Some("https://127.0.0.1:80")),
            ("https://[::1]:8443", Some("https://[::1]:8443")),
            ("score.example", None),
            ("ftp://score.example", None),
            ("https://score.example/path", None),
            ("https://score.example?q", None),
            ("https://me@score.example", None),
        ] {
            assert_eq!(BaseAddress::parse(text).ok().map(|b| b.to_string()).as_deref(), want, "{text}");
        }
    }
}
