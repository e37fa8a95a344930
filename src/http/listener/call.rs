//! One call of a connection: refused by its form or its certificate, or handed to the router.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::{BoxError, body::Body, response::IntoResponse};
use http::{HeaderValue, Method, Request, Response, Version, header};
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep, timeout};
use tower::ServiceExt;
use tower_http::timeout::{TimeoutBody, TimeoutError};

use super::{Arrival, CallGuard, Door, Peer, UnderWay};
use crate::http::{
    figures,
    problem::{Problem, code},
    tls::{CertificateFault, ClientCertificate},
};

/// The calls of one connection.
pub(super) struct Calls {
    /// What all connections of the listener share.
    pub door: Arc<Door>,
    /// The socket's own address.
    pub address: SocketAddr,
    /// What the handshake proved.
    pub certificate: Result<Option<ClientCertificate>, CertificateFault>,
    /// When bytes last came.
    pub arrival: Arc<Arrival>,
    /// How many calls are being answered.
    pub under_way: UnderWay,
}

impl hyper::service::Service<Request<Incoming>> for Calls {
    type Response = Response<Held>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let guard = self.under_way.begin();
        let door = Arc::clone(&self.door);
        let peer = self.peer(&request).inspect_err(|problem| figures::refused(problem.code()));
        Box::pin(async move {
            let response = match peer {
                Ok(peer) => door.answer(request, peer).await,
                Err(problem) => problem.closing().into_response(),
            };
            Ok(response.map(|body| Held { body, _guard: guard }))
        })
    }
}

impl Calls {
    fn peer(&self, request: &Request<Incoming>) -> Result<Peer, Problem> {
        well_formed(request, &self.door)?;
        let certificate = self.certificate?;
        if let (Some(tls), Some(certificate)) = (&self.door.tls, &certificate) {
            tls.still_counts(certificate)?;
        }
        Ok(Peer { address: self.address, certificate, arrival: Arc::clone(&self.arrival) })
    }
}

/// What hyper lets through and we do not.
fn well_formed(request: &Request<Incoming>, door: &Door) -> Result<(), Problem> {
    let limits = &door.limits;
    let headers = request.headers();
    let line = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if line.saturating_add(fields) > limits.head_bytes_max || headers.len() > limits.header_fields_max {
        let detail = format!(
            "request line and header fields may have {} bytes, and there may be {} fields",
            limits.head_bytes_max, limits.header_fields_max
        );
        return Err(Problem::new(code::HEADER_TOO_LARGE, detail).with("limit", limits.head_bytes_max));
    }
    let hosts = headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Err(Problem::new(code::BAD_HOST, "send exactly one Host field (RFC 9112, 3.2)"));
    }
    if request.method() == Method::CONNECT || !request.uri().path().starts_with('/') {
        return Err(Problem::new(code::BAD_REQUEST, "the request target must be a path that begins with /"));
    }
    Ok(())
}

impl Door {
    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let ends = request.headers().contains_key(header::TRANSFER_ENCODING);
        let pause = self.limits.body_pause;
        let ends_at = Box::pin(sleep(self.limits.body));
        let timed = |body| Timed { body: Box::pin(TimeoutBody::new(pause, body)), ends_at };
        let mut request = request.map(|body| Body::new(timed(body)));
        request.extensions_mut().insert(peer);
        let mut response = match timeout(self.limits.call, self.router.clone().oneshot(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => {
                figures::refused(code::TIMEOUT);
                Problem::plain(code::TIMEOUT).closing().into_response()
            }
        };
        if ends {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// A body that did not come to its end in time: it paused, or it crept.
#[derive(Debug, thiserror::Error)]
#[error("the body did not arrive in time")]
pub(in crate::http) struct TooSlow;

/// A call's body with its time limits; whoever sends a byte now and then does not hold a call for ever.
struct Timed {
    body: Pin<Box<TimeoutBody<Incoming>>>,
    ends_at: Pin<Box<Sleep>>,
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = self.body.as_mut().poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| {
                frame.map_err(|error| if error.is::<TimeoutError>() { Box::new(TooSlow) as BoxError } else { error })
            }));
        }
        self.ends_at.as_mut().poll(cx).map(|()| Some(Err(TooSlow.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body, which keeps its call under way until it is written.
pub(super) struct Held {
    body: Body,
    _guard: CallGuard,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
