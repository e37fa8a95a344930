//! A small HTTP/1.1 client: what the demo, `log verify` and the tests call the gateway with.
//!
//! It is apart from `http` because it must share no code with the side it calls: a fault of the
//! server that the client repeats would hide itself. One [`Client`] is one base address and one
//! kept connection, over TCP or TLS 1.3 with an optional client certificate. Every wait has an
//! end, and a body has a largest size. It keeps cookies, since people have sessions, and follows
//! no redirect. It does not know what the gateway answers mean.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, COOKIE, HOST, ORIGIN, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub mod signing;

/// The largest body that is read, unless [`Client::body_bytes_max`] says otherwise.
pub const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long one call may take, unless [`Client::patience`] says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Why a call came to no response.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The base address cannot be read as one.
    #[error("{0:?} is no address of a gateway; write http://HOST:PORT or https://HOST:PORT")]
    Address(String),
    /// A PEM file does not hold what it should.
    #[error("{what}: {why}")]
    Pem {
        /// Which of the files.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// No connection came about.
    #[error("no connection to {to}: {why}")]
    Connect {
        /// Host and port.
        to: String,
        /// What the system said.
        why: std::io::Error,
    },
    /// The request could not be built: a path or a header is not allowed in HTTP.
    #[error("the request cannot be sent: {0}")]
    Request(#[from] http::Error),
    /// The connection broke, or what came back is not HTTP.
    #[error("the exchange with {to} failed: {why}")]
    Exchange {
        /// Host and port.
        to: String,
        /// What went wrong.
        why: String,
    },
    /// The other side took too long.
    #[error("{to} did not answer within {seconds} s")]
    TooSlow {
        /// Host and port.
        to: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The body is larger than the caller allows.
    #[error("{to} sent more than {limit} bytes")]
    TooLarge {
        /// Host and port.
        to: String,
        /// The limit.
        limit: usize,
    },
}

/// Whom a TLS connection trusts, and as whom it shows itself.
#[derive(Clone)]
pub struct Tls(Arc<rustls::ClientConfig>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(..)")
    }
}

impl Tls {
    /// Trusts the authorities in `ca` (PEM) alone, and shows no certificate.
    pub fn trusting(ca: &[u8]) -> Result<Self, ClientError> {
        let config = Self::roots(ca)?.with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    /// Trusts the authorities in `ca` alone, and shows the certificate chain `cert` with its `key` (all PEM).
    pub fn with_identity(ca: &[u8], cert: &[u8], key: &[u8]) -> Result<Self, ClientError> {
        let chain = certificates("the client certificate", cert)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|e| ClientError::Pem { what: "the client key", why: e.to_string() })?;
        let config = Self::roots(ca)?
            .with_client_auth_cert(chain, key)
            .map_err(|e| ClientError::Pem { what: "the client certificate and its key", why: e.to_string() })?;
        Ok(Self(Arc::new(config)))
    }

    fn roots(ca: &[u8]) -> Result<rustls::ConfigBuilder<rustls::ClientConfig, WantsIdentity>, ClientError> {
        let wrong = |why: rustls::Error| ClientError::Pem { what: "the authority's certificate", why: why.to_string() };
        let mut roots = rustls::RootCertStore::empty();
        for cert in certificates("the authority's certificate", ca)? {
            roots.add(cert).map_err(wrong)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(wrong)?
            .with_root_certificates(roots))
    }
}

type WantsIdentity = rustls::client::WantsClientCert;

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(list) if list.is_empty() => Err(ClientError::Pem { what, why: "no certificate in it".into() }),
        Ok(list) => Ok(list),
        Err(e) => Err(ClientError::Pem { what, why: e.to_string() }),
    }
}

/// What came back.
#[derive(Clone)]
pub struct Response {
    /// The status code.
    pub status: StatusCode,
    /// Every header, as it came.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl fmt::Debug for Response {
    /// A body may hold tokens and personal data: only its length is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({}, {} bytes)", self.status.as_u16(), self.body.len())
    }
}

impl Response {
    /// The body read as JSON.
    pub fn json(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }
}

/// One base address, and the connection to it that is kept between calls.
pub struct Client {
    https: bool,
    host: String,
    authority: String,
    connect_to: String,
    tls: Option<Tls>,
    patience: Duration,
    body_bytes_max: usize,
    cookies: BTreeMap<String, String>,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.base())
    }
}

impl Client {
    /// A client of `base`, which is `http://HOST:PORT` or `https://HOST:PORT`; an `https` base needs `tls`.
    pub fn new(base: &str, tls: Option<Tls>) -> Result<Self, ClientError> {
        let wrong = || ClientError::Address(base.to_owned());
        let uri: Uri = base.trim_end_matches('/').parse().map_err(|_| wrong())?;
        let https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || authority.as_str().contains('@') {
            return Err(wrong());
        }
        if https && tls.is_none() {
            return Err(ClientError::Pem {
                what: "the authority's certificate",
                why: "an https address needs one to trust".into(),
            });
        }
        let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
        let host = authority.host().to_owned();
        Ok(Self {
            https,
            connect_to: format!("{host}:{port}"),
            authority: authority.as_str().to_owned(),
            host,
            tls: tls.filter(|_| https),
            patience: PATIENCE,
            body_bytes_max: BODY_BYTES_MAX,
            cookies: BTreeMap::new(),
            sender: None,
        })
    }

    /// Waits at most this long for each whole exchange.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Reads at most this many bytes of a body.
    pub fn body_bytes_max(mut self, limit: usize) -> Self {
        self.body_bytes_max = limit;
        self
    }

    /// The base address, without a slash at its end.
    pub fn base(&self) -> String {
        format!("{}://{}", if self.https { "https" } else { "http" }, self.authority)
    }

    /// `GET path`.
    pub async fn get(&mut self, path: &str) -> Result<Response, ClientError> {
        self.send(Method::GET, path, HeaderMap::new(), Bytes::new()).await
    }

    /// `POST path` with a body of that content type, and more headers.
    pub async fn post(
        &mut self,
        path: &str,
        content_type: &'static str,
        body: impl Into<Bytes>,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<Response, ClientError> {
        let mut all: HeaderMap = headers.into_iter().collect();
        all.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        self.send(Method::POST, path, all, body.into()).await
    }

    /// `POST path` with a JSON body.
    pub async fn post_json(&mut self, path: &str, body: &serde_json::Value) -> Result<Response, ClientError> {
        self.post(path, "application/json", body.to_string(), Vec::new()).await
    }

    /// Any call. The connection is opened when there is none, and kept.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response, ClientError> {
        let (to, patience) = (self.connect_to.clone(), self.patience);
        let result = tokio::time::timeout(patience, self.exchange(method, path, headers, body)).await;
        let result = result.unwrap_or(Err(ClientError::TooSlow { to, seconds: patience.as_secs() }));
        if result.is_err() {
            self.sender = None;
        }
        result
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response, ClientError> {
        let kept = self.sender.is_some();
        let request = self.request(method.clone(), path, headers.clone(), body.clone())?;
        let response = match self.ready().await?.send_request(request).await {
            // The other side had closed the kept connection, and nothing was sent: a new one says it again.
            Err(e) if kept && e.is_canceled() => {
                self.sender = None;
                let request = self.request(method, path, headers, body)?;
                self.ready().await?.send_request(request).await
            }
            first => first,
        };
        let response = response.map_err(|e| self.broke(&e))?;
        let (parts, body) = response.into_parts();
        let body = match Limited::new(body, self.body_bytes_max).collect().await {
            Ok(body) => body.to_bytes(),
            Err(e) if e.is::<http_body_util::LengthLimitError>() => {
                return Err(ClientError::TooLarge { to: self.connect_to.clone(), limit: self.body_bytes_max });
            }
            Err(e) => return Err(ClientError::Exchange { to: self.connect_to.clone(), why: e.to_string() }),
        };
        self.keep_cookies(&parts.headers);
        Ok(Response { status: parts.status, headers: parts.headers, body })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        // A page's form names its own origin; a call by certificate or signature comes from no page.
        let from_page = method != Method::GET && !self.https;
        let mut request = Request::builder().method(method).uri(path).body(Full::new(body))?;
        *request.headers_mut() = headers;
        let mut put = |name: HeaderName, value: String| -> Result<(), ClientError> {
            if !request.headers().contains_key(&name) {
                let value = HeaderValue::try_from(value).map_err(http::Error::from)?;
                request.headers_mut().insert(name, value);
            }
            Ok(())
        };
        put(HOST, self.authority.clone())?;
        if from_page {
            put(ORIGIN, self.base())?;
        }
        if !self.cookies.is_empty() {
            let pairs: Vec<String> = self.cookies.iter().map(|(k, v)| format!("{k}={v}")).collect();
            put(COOKIE, pairs.join("; "))?;
        }
        Ok(request)
    }

    fn keep_cookies(&mut self, headers: &HeaderMap) {
        for value in headers.get_all(SET_COOKIE) {
            let pair = value.to_str().ok().and_then(|text| text.split(';').next()?.split_once('='));
            if let Some((name, value)) = pair {
                self.cookies.insert(name.trim().to_owned(), value.to_owned());
            }
        }
    }

    async fn ready(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, ClientError> {
        let mut sender = match self.sender.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => self.connect().await?,
        };
        if sender.ready().await.is_err() {
            sender = self.connect().await?;
        }
        Ok(self.sender.insert(sender))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let failed = |why| ClientError::Connect { to: self.connect_to.clone(), why };
        let tcp = TcpStream::connect(&self.connect_to).await.map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        let Some(Tls(config)) = &self.tls else { return self.speak(tcp).await };
        let host = self.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|_| ClientError::Address(self.base()))?;
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await.map_err(failed)?;
        self.speak(stream).await
    }

    async fn speak<S>(&self, stream: S) -> Result<SendRequest<Full<Bytes>>, ClientError>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| self.broke(&e))?;
        // The task ends with the connection; what went wrong in it, the call that was waiting is told.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn broke(&self, error: &hyper::Error) -> ClientError {
        let mut why = error.to_string();
        if let Some(cause) = std::error::Error::source(error) {
            why = format!("{why}: {cause}");
        }
        ClientError::Exchange { to: self.connect_to.clone(), why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A server that gives these bytes on each connection, one text after each request, and tells what it was sent.
    async fn server(connections: Vec<Vec<&'static str>>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let mut seen = Vec::new();
            for answers in connections {
                let (mut stream, _) = listener.accept().await.unwrap();
                for answer in answers {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await.unwrap());
                    }
                    seen.push(String::from_utf8(head).unwrap());
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
            seen
        });
        (base, task)
    }

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nset-cookie: session=abc; Path=/; HttpOnly\r\n\r\n{}";

    #[tokio::test]
    async fn a_connection_is_kept_with_its_cookies_and_opened_again_when_it_was_closed() {
        let (base, seen) = server(vec![vec![OK, OK], vec![OK]]).await;
        let mut client = Client::new(&base, None).unwrap();
        for _ in 0..3 {
            let response = client.get("/v1/me/score").await.unwrap();
            assert_eq!((response.status.as_u16(), response.json().unwrap()), (200, serde_json::json!({})));
        }
        assert!(!format!("{client:?}").contains("abc"), "a Client shows no cookie");
        let seen = seen.await.unwrap();
        assert!(!seen[0].contains("cookie:") && seen[1].contains("cookie: session=abc\r\n"), "{seen:?}");
        assert!(seen.iter().all(|s| s.starts_with("GET /v1/me/score HTTP/1.1\r\n") && s.contains("host: 127.0.0.1:")));
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_and_a_silent_server_are_errors() {
        let (base, _task) = server(vec![vec!["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n12345"]]).await;
        let mut client = Client::new(&base, None).unwrap().body_bytes_max(4);
        assert!(matches!(client.get("/").await, Err(ClientError::TooLarge { limit: 4, .. })));

        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", silent.local_addr().unwrap());
        let mut client = Client::new(&base, None).unwrap().patience(Duration::from_millis(20));
        assert!(matches!(client.get("/").await, Err(ClientError::TooSlow { .. })));

        drop(silent);
        assert!(matches!(client.get("/").await, Err(ClientError::Connect { .. })));
    }

    #[test]
    fn an_address_is_read_strictly() {
        for good in ["http://127.0.0.1:8080", "http://localhost/", "http://[::1]:80"] {
            assert!(Client::new(good, None).is_ok(), "{good}");
        }
        for bad in ["", "127.0.0.1:8080", "ftp://a", "http://", "http://a/b", "http://u@a", "http://a?b", "https://a"] {
            assert!(Client::new(bad, None).is_err(), "{bad}");
        }
        assert!(Tls::trusting(b"no certificate").is_err());
    }
}
