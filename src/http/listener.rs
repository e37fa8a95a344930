//! The accept loop: from a socket to a router, with a limit on everything.
//!
//! Our own, because three things must be known here and nowhere else: who called (socket address,
//! certificate of the handshake), when the last byte of the call came, and which connections may be
//! cut at once when the process stops. A connection without a call under way is closed at once then;
//! one with a call gets the time of the drain.
//!
//! INVARIANT (one withheld): [`Arrival`] is stamped where bytes are read off the decrypted stream, so
//! the fixed time of an answer starts at the last byte of its call and not in the handler.
//!
//! HTTP/1.1 only. A call with Transfer-Encoding ends its connection: hyper hides a Content-Length
//! beside it, and RFC 9112 6.1 wants such a connection closed.

mod call;
mod stamp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

pub(in crate::http) use call::TooSlow;
pub use stamp::Arrival;

use super::{
    figures,
    tls::{CertificateFault, ClientCertificate, Tls},
};
use call::Calls;

/// What one listener bears; every limit has a name.
#[derive(Debug, Clone)]
pub struct ListenerLimits {
    /// What the figures call it: `api`, `web`, `admin`.
    pub name: &'static str,
    /// Connections at a time; more are closed at once.
    pub connections_max: usize,
    /// From the connection to the end of the TLS handshake.
    pub handshake: Duration,
    /// From the connection, or from the last answer, to the end of the next call's head.
    pub head: Duration,
    /// The longest pause in a body.
    pub body_pause: Duration,
    /// From a call's head to the last byte of its body.
    pub body: Duration,
    /// From a call's head to its answer.
    pub call: Duration,
    /// Request line and header fields together.
    pub head_bytes_max: usize,
    /// Header fields; hyper itself stops at 100.
    pub header_fields_max: usize,
    /// How long calls under way may take once the process stops.
    pub drain: Duration,
}

impl ListenerLimits {
    /// The limits that hold unless the policy or the configuration says otherwise.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            connections_max: 4096,
            handshake: Duration::from_secs(5),
            head: Duration::from_secs(20),
            body_pause: Duration::from_secs(15),
            body: Duration::from_secs(120),
            call: Duration::from_secs(180),
            head_bytes_max: 16 * 1024,
            header_fields_max: 64,
            drain: Duration::from_secs(10),
        }
    }
}

/// How long what is already written may take to leave when the process stops.
const FLUSH: Duration = Duration::from_millis(250);
/// How long to wait where the system has no more sockets for us.
const OUT_OF_SOCKETS: Duration = Duration::from_millis(50);

/// Who is at the other end of a call, a request extension; nothing in it comes from a header.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The socket's own address.
    pub address: SocketAddr,
    /// The certificate that the handshake proved and that counts now.
    pub certificate: Option<ClientCertificate>,
    /// When bytes last came; to be read when the whole body is there.
    pub arrival: Arc<Arrival>,
}

/// Serves until `shutdown` is true, then drains; returns when the last connection has ended.
///
/// Each new connection is held to the limits as they are then; one that is open keeps those it came under.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    router: Router,
    mut limits: watch::Receiver<ListenerLimits>,
    mut shutdown: watch::Receiver<bool>,
) {
    let first = limits.borrow_and_update().clone();
    let mut door = Arc::new(Door { tls, router, shutdown: shutdown.clone(), limits: first });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((socket, address)) = accepted else {
                    // Usually no file descriptor is left; connections that time out give some back.
                    sleep(OUT_OF_SOCKETS).await;
                    continue;
                };
                if limits.has_changed().unwrap_or(false) {
                    door = Arc::new(door.under(limits.borrow_and_update().clone()));
                }
                if connections.len() >= door.limits.connections_max {
                    figures::connection_refused(door.limits.name);
                    continue;
                }
                let door = Arc::clone(&door);
                connections.spawn(async move {
                    let _open = figures::OpenConnection::new(door.limits.name);
                    door.connection(socket, address).await;
                });
            }
        }
    }
    drop(listener);
    let drained = timeout(door.limits.drain, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(
            listener = door.limits.name,
            connections = connections.len(),
            "calls were cut at the end of the drain"
        );
    }
    connections.shutdown().await;
}

/// Also where nobody holds the other end any more: nobody could stop the listener then.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// What all connections of one listener share.
struct Door {
    tls: Option<Arc<Tls>>,
    router: Router,
    limits: ListenerLimits,
    shutdown: watch::Receiver<bool>,
}

impl Door {
    /// The same door under other limits.
    fn under(&self, limits: ListenerLimits) -> Self {
        let (tls, router, shutdown) = (self.tls.clone(), self.router.clone(), self.shutdown.clone());
        Self { tls, router, limits, shutdown }
    }

    async fn connection(self: Arc<Self>, socket: TcpStream, address: SocketAddr) {
        let _ = socket.set_nodelay(true);
        let Some(tls) = self.tls.clone() else {
            return self.talk(socket, address, Ok(None)).await;
        };
        let handshake = timeout(self.limits.handshake, TlsAcceptor::from(tls.config()).accept(socket));
        let mut shutdown = self.shutdown.clone();
        let stream = tokio::select! {
            biased;
            () = stopped(&mut shutdown) => return,
            done = handshake => match done {
                Ok(Ok(stream)) => stream,
                _ => return,
            },
        };
        let certificate = tls.certificate(stream.get_ref().1);
        self.talk(stream, address, certificate).await;
    }

    async fn talk<S>(
        self: Arc<Self>,
        stream: S,
        address: SocketAddr,
        certificate: Result<Option<ClientCertificate>, CertificateFault>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let arrival = Arc::new(Arrival::new());
        let stream = stamp::Stamped::new(stream, Arc::clone(&arrival));
        let under_way = UnderWay::default();
        let calls = Calls { door: Arc::clone(&self), address, certificate, arrival, under_way: under_way.clone() };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head)
            // Beyond our own limit, so that what is a little too large gets its problem and not an empty 431.
            .max_header_size(self.limits.head_bytes_max.saturating_mul(2))
            .max_buf_size(self.limits.head_bytes_max.saturating_mul(4).max(16 * 1024))
            .serve_connection(TokioIo::new(stream), calls);
        tokio::pin!(connection);
        let mut shutdown = self.shutdown.clone();
        tokio::select! {
            _ = connection.as_mut() => return,
            () = stopped(&mut shutdown) => {}
        }
        connection.as_mut().graceful_shutdown();
        // Silent, idle, or in the middle of a head: hyper alone would wait for the rest of it.
        if timeout(FLUSH, connection.as_mut()).await.is_err() && under_way.any() {
            let _ = connection.await;
        }
    }
}

/// How many calls of a connection are under way, from head to the last byte of the answer.
#[derive(Debug, Clone, Default)]
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn begin(&self) -> CallGuard {
        self.0.fetch_add(1, Ordering::AcqRel);
        CallGuard(self.clone())
    }

    fn any(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }
}

/// One call under way.
#[derive(Debug)]
struct CallGuard(UnderWay);

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests;
