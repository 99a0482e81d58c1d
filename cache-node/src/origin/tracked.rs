//! What is known of a pooled connection when it dies, so that a lost race can be told from a
//! failure.
//!
//! Origins close idle connections, and now and then just as a request is written. Nobody has read
//! that request, so it can be sent again. An origin that reads a request and then closes is another
//! matter: sending again would be a duplicate, and hides a failure that may allow a stale answer.
//! From here both look alike, but for two facts:
//! - a reset answers bytes that nobody was left to read;
//! - an end of stream that arrives within one round trip of the request's first byte was sent
//!   before that byte arrived.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock;

/// A handshake that took longer says more of its own delays than of the way, in milliseconds.
const ROUND_TRIP_MS_MAX: u64 = 250;
/// What this machine's own delays may have added to a handshake, in milliseconds.
const NOISE_MS: u64 = 2;

/// Facts of one connection.
#[derive(Debug)]
pub(super) struct Facts {
    round_trip: Duration,
    multiplexed: bool,
    answered: AtomicBool,
    /// When the first byte was written since something was last read; `None` since a read.
    asked: Mutex<Option<Instant>>,
    ended: Mutex<Option<(End, Instant)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// In order, or as if.
    Closed,
    /// By a reset, or by a write that found nobody.
    Reset,
}

impl Facts {
    /// A response head came: from now on, the connection is reused.
    pub(super) fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Whether the connection, once used before, ended without a byte in answer to the last
    /// request, and the origin cannot have read that request.
    pub(super) fn lost_the_race(&self) -> bool {
        if self.multiplexed || !self.answered.load(Ordering::Relaxed) {
            return false;
        }
        let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = *self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(asked), Some((end, at))) = (asked, ended) else { return false };
        let limit = self
            .round_trip
            .min(Duration::from_millis(ROUND_TRIP_MS_MAX))
            .saturating_sub(Duration::from_millis(NOISE_MS));
        end == End::Reset || at.saturating_duration_since(asked) < limit
    }

    fn wrote(&self) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.get_or_insert_with(clock::monotonic);
    }

    fn read(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn end(&self, end: End) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.get_or_insert_with(|| (end, clock::monotonic()));
    }

    fn failed(&self, error: &io::Error) {
        let reset = matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
        );
        self.end(if reset { End::Reset } else { End::Closed });
    }
}

/// A connection that keeps [`Facts`].
#[derive(Debug)]
pub(super) struct Tracked<S> {
    inner: S,
    facts: Arc<Facts>,
}

impl<S: Connection> Tracked<S> {
    pub(super) fn new(inner: S, round_trip: Duration) -> Self {
        let facts = Facts {
            round_trip,
            multiplexed: inner.connected().is_negotiated_h2(),
            answered: AtomicBool::new(false),
            asked: Mutex::default(),
            ended: Mutex::default(),
        };
        Self { inner, facts: Arc::new(facts) }
    }
}

impl<S: Connection> Connection for Tracked<S> {
    fn connected(&self) -> Connected {
        self.inner.connected().extra(Arc::clone(&self.facts))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tracked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.remaining();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        match &polled {
            Poll::Ready(Ok(())) if buf.remaining() < before => self.facts.read(),
            Poll::Ready(Ok(())) if before > 0 => self.facts.end(End::Closed),
            Poll::Ready(Err(error)) => self.facts.failed(error),
            _ => {}
        }
        polled
    }
}

impl<S> Tracked<S> {
    fn written(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &polled {
            Poll::Ready(Ok(_)) => self.facts.wrote(),
            Poll::Ready(Err(error)) => {
                self.facts.wrote();
                self.facts.failed(error);
            }
            Poll::Pending => {}
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tracked<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.written(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.written(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection whose last request was written at `start` and which then ended.
    fn died(end: End, after_ms: u64, round_trip_ms: u64) -> Facts {
        let start = clock::monotonic();
        Facts {
            round_trip: Duration::from_millis(round_trip_ms),
            multiplexed: false,
            answered: AtomicBool::new(true),
            asked: Mutex::new(Some(start)),
            ended: Mutex::new(Some((end, start + Duration::from_millis(after_ms)))),
        }
    }

    #[test]
    fn an_end_sooner_than_a_round_trip_was_no_answer() {
        assert!(died(End::Closed, 17, 20).lost_the_race());
        assert!(!died(End::Closed, 18, 20).lost_the_race());
        assert!(!died(End::Closed, 0, 1).lost_the_race(), "too near to tell");
        assert!(!died(End::Closed, 260, 5_000).lost_the_race(), "a slow handshake proves little");
    }

    #[test]
    fn a_reset_answers_what_nobody_read() {
        assert!(died(End::Reset, 500, 20).lost_the_race());
    }

    #[test]
    fn anything_else_is_a_failure() {
        let unused = died(End::Reset, 0, 20);
        unused.answered.store(false, Ordering::Relaxed);
        assert!(!unused.lost_the_race(), "its first request");
        let answering = died(End::Reset, 0, 20);
        answering.read();
        assert!(!answering.lost_the_race(), "bytes of a response came");
        assert!(!Facts { multiplexed: true, ..died(End::Reset, 0, 20) }.lost_the_race());
        let alive = Facts { ended: Mutex::default(), ..died(End::Reset, 0, 20) };
        assert!(!alive.lost_the_race());
    }
}
