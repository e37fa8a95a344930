//! The stream under a connection: it stamps when bytes last came, and it closes gently.
//!
//! Closing a socket while the peer still sends would reset the connection, and the peer could lose
//! the refusal that says why. So what still comes is read and thrown away, for a moment.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long a closed connection is still read.
const LINGER: Duration = Duration::from_secs(1);

/// The instant of the latest read of a connection that gave bytes.
#[derive(Debug)]
pub struct Arrival {
    origin: Instant,
    nanos: AtomicU64,
}

impl Arrival {
    /// A connection on which nothing has come yet.
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), nanos: AtomicU64::new(0) }
    }

    fn stamp(&self) {
        let nanos = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanos.store(nanos, Ordering::Release);
    }

    /// When bytes last came. Read it when the whole body is there: later bytes belong to the next call.
    pub fn last_byte(&self) -> Instant {
        let since = Duration::from_nanos(self.nanos.load(Ordering::Acquire));
        self.origin.checked_add(since).unwrap_or(self.origin)
    }
}

/// A stream that stamps an [`Arrival`] as it is read.
pub(super) struct Stamped<S> {
    stream: S,
    arrival: Arc<Arrival>,
    linger: Option<Pin<Box<Sleep>>>,
}

impl<S> Stamped<S> {
    /// Stamps this arrival at each read of the stream.
    pub fn new(stream: S, arrival: Arc<Arrival>) -> Self {
        Self { stream, arrival, linger: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stamped<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        if into.filled().len() > before {
            self.arrival.stamp();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stamped<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        let Self { stream, linger, .. } = &mut *self;
        let linger = linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut scratch = [0; 8192];
        while linger.as_mut().poll(cx).is_pending() {
            let mut into = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut *stream).poll_read(cx, &mut into)) {
                Ok(()) if !into.filled().is_empty() => {}
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn only_reads_that_give_bytes_are_stamped() {
        let (mut far, near) = tokio::io::duplex(64);
        let arrival = Arc::new(Arrival::new());
        let began = Instant::now();
        let mut near = Stamped::new(near, Arc::clone(&arrival));
        let mut two = [0; 2];
        advance(Duration::from_millis(7)).await;
        far.write_all(b"ab").await.unwrap();
        near.read_exact(&mut two).await.unwrap();
        assert_eq!((arrival.last_byte() - began).as_millis(), 7);
        advance(Duration::from_millis(5)).await;
        far.write_all(b"c").await.unwrap();
        assert_eq!(near.read(&mut two).await.unwrap(), 1);
        near.write_all(b"answer").await.unwrap();
        assert_eq!((arrival.last_byte() - began).as_millis(), 12);
        advance(Duration::from_millis(5)).await;
        drop(far);
        assert_eq!(near.read(&mut two).await.unwrap(), 0);
        assert_eq!((arrival.last_byte() - began).as_millis(), 12, "the end of a stream is no byte");
    }
}
