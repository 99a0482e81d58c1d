//! A client's connection, with the limits that hyper does not keep.
//!
//! - Until it is clear which protocol a client speaks, hyper-util waits without limit.
//! - A client that is slow with a request's head would hold the connection for ever. hyper would
//!   limit that too, with a timer made and dropped for each request.
//! - A connection that waits for its next request would hold hyper's buffers, some 16 KiB: it is
//!   parked, and hyper begins anew when something comes.
//! - A client that stops taking what it asked for would hold the response for ever.
//! - A body of HTTP/1.0 without a length ends with the connection: only a reset tells a client
//!   that it broke off.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::EdgeConfig;
use super::interim::Outlet;
use super::socket::Socket;
use crate::clock;

/// RFC 9113 section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Between two looks at whether a request is still being answered, in milliseconds.
const BUSY_LOOK_MS: u64 = 1_000;
/// What a request without a body ends with.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Ends the connection by a reset instead of in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Abort(Arc<AtomicBool>);

impl Abort {
    /// From now on, closing means resetting.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a connection's requests may do to it, past hyper.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    pub(super) abort: Abort,
    pub(super) outlet: Outlet,
    pub(super) client: Option<IpAddr>,
    /// The client came by TLS.
    pub(super) secure: bool,
    turns: Arc<Turns>,
    parked: Arc<Mutex<Option<Parked>>>,
}

/// A connection of HTTP/1 between two requests.
pub(super) struct Parked {
    pub(super) socket: Socket,
    /// Since when its client has asked for nothing.
    since: Instant,
}

impl std::fmt::Debug for Parked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parked").field("since", &self.since).finish_non_exhaustive()
    }
}

impl Parked {
    /// Waits until its client says something; false when that takes too long.
    pub(super) async fn wakes(&self, head_max: Duration) -> bool {
        let left = head_max.saturating_sub(clock::since(self.since));
        matches!(tokio::time::timeout(left, self.socket.readable()).await, Ok(Ok(())))
    }
}

impl Handle {
    /// The connection, once hyper is done with it because it was parked.
    pub(super) fn parked(&self) -> Option<Parked> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A request has come, and is being answered until that is dropped.
    pub(super) fn turn(&self) -> Turn {
        self.turns.begun.fetch_add(1, Ordering::Relaxed);
        Turn(Arc::clone(&self.turns))
    }
}

/// Requests of a connection, counted round and round.
#[derive(Debug)]
struct Turns {
    begun: AtomicU32,
    ended: AtomicU32,
    /// When the last one ended, in microseconds since `born`.
    ended_us: AtomicU64,
    born: Instant,
}

impl Turns {
    fn new(born: Instant) -> Self {
        let (begun, ended) = Default::default();
        Self { begun, ended, ended_us: AtomicU64::default(), born }
    }

    /// Since when no request is being answered; none while one is.
    fn idle_since(&self) -> Option<Instant> {
        let ended = self.ended.load(Ordering::Acquire);
        let idle = self.begun.load(Ordering::Relaxed) == ended;
        idle.then(|| self.born + Duration::from_micros(self.ended_us.load(Ordering::Relaxed)))
    }
}

/// A request that is being answered.
pub(super) struct Turn(Arc<Turns>);

impl Drop for Turn {
    fn drop(&mut self) {
        let us = u64::try_from(clock::since(self.0.born).as_micros()).unwrap_or(u64::MAX);
        self.0.ended_us.store(us, Ordering::Relaxed);
        self.0.ended.fetch_add(1, Ordering::Release);
    }
}

pub(super) struct ClientStream {
    socket: Socket,
    handle: Handle,
    /// While all bytes read could begin HTTP/2's preface: how many, and how long to wait.
    preface: Option<(usize, Pin<Box<Sleep>>)>,
    head_max: Duration,
    park_after: Duration,
    /// For a client that is known to speak HTTP/1: one for all requests, which ends at the time that
    /// matters or before it.
    timer: Option<Pin<Box<Sleep>>>,
    http1: bool,
    /// When it was last seen that a request was being answered.
    busy_at: Option<Instant>,
    /// hyper has written something, and not heard yet that all of it is on its way.
    unflushed: bool,
    /// What was read last ended a head: then hyper has nothing left to read of it.
    at_end: bool,
    stall_max: Duration,
    /// Armed while the client takes nothing.
    stall: Option<Pin<Box<Sleep>>>,
}

impl ClientStream {
    pub(super) fn new(socket: Socket, config: &EdgeConfig) -> (Self, Handle) {
        Self::since(clock::monotonic(), socket, config)
    }

    fn since(since: Instant, socket: Socket, config: &EdgeConfig) -> (Self, Handle) {
        let handle = Handle {
            abort: Abort::default(),
            outlet: Outlet::default(),
            client: socket.peer(),
            secure: socket.is_secure(),
            turns: Arc::new(Turns::new(since)),
            parked: Arc::default(),
        };
        let deadline = Box::pin(tokio::time::sleep(Duration::from_millis(config.head_ms)));
        let stream = Self {
            socket,
            handle: handle.clone(),
            preface: Some((0, deadline)),
            head_max: Duration::from_millis(config.head_ms),
            park_after: Duration::from_millis(config.park_ms),
            timer: None,
            http1: false,
            busy_at: None,
            unflushed: false,
            at_end: false,
            stall_max: Duration::from_millis(config.stall_ms),
            stall: None,
        };
        (stream, handle)
    }

    /// Goes on with a connection that was parked.
    pub(super) fn resumed(parked: Parked, config: &EdgeConfig) -> (Self, Handle) {
        let (mut stream, handle) = Self::since(parked.since, parked.socket, config);
        (stream.preface, stream.http1) = (None, true);
        (stream, handle)
    }

    /// The protocol is clear as soon as a byte differs from the preface, or none is left of it.
    fn learn(&mut self, read: &[u8]) {
        let Some((seen, _)) = &mut self.preface else { return };
        let rest = &PREFACE[*seen..];
        *seen += read.len();
        self.http1 = !read.starts_with(rest) && !rest.starts_with(read);
        if self.http1 || read.len() >= rest.len() {
            self.preface = None;
        }
    }

    /// Waits for what a client says next. One that says nothing is parked, which looks to hyper as if
    /// it had closed the connection; one whose head does not end is too late. To be polled while a
    /// request is answered too: hyper does not always ask again once it is.
    fn poll_silent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.http1 {
            return Poll::Pending;
        }
        let parks = self.at_end && self.park_after < self.head_max;
        let limit = if parks { self.park_after } else { self.head_max };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        let idle_since = self.handle.turns.idle_since().filter(|_| !self.unflushed);
        let idle_since = idle_since.max(idle_since.and(self.busy_at));
        if let Some(since) = idle_since.filter(|since| timer.deadline().into_std() > *since + limit)
        {
            timer.as_mut().reset((since + limit).into());
        }
        while timer.as_mut().poll(cx).is_ready() {
            let Some(since) = idle_since else {
                let look = Duration::from_millis(BUSY_LOOK_MS).min(self.head_max);
                let now = clock::monotonic();
                self.busy_at = Some(now);
                timer.as_mut().reset((now + look).into());
                continue;
            };
            let due = since + limit;
            if timer.deadline().into_std() < due {
                timer.as_mut().reset(due.into());
                continue;
            }
            if !parks {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            let socket = std::mem::replace(&mut self.socket, Socket::Gone);
            let parked = Some(Parked { socket, since });
            *self.handle.parked.lock().unwrap_or_else(PoisonError::into_inner) = parked;
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let stall_max = self.stall_max;
        let timer = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall_max)));
        timer.as_mut().poll(cx).map(|()| io::ErrorKind::TimedOut.into())
    }

    fn sent(
        &mut self,
        polled: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        if polled.is_pending() {
            return self.poll_stalled(cx).map(Err);
        }
        self.stall = None;
        polled
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        if polled.is_ready() {
            self.at_end = buf.filled()[before..].ends_with(HEAD_END);
        }
        match (&polled, &mut self.preface) {
            (Poll::Ready(Ok(())), Some(_)) => self.learn(&buf.filled()[before..]),
            (Poll::Pending, Some((_, deadline))) => {
                return deadline.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()));
            }
            (Poll::Pending, None) => {
                return self.poll_silent(cx);
            }
            _ => {}
        }
        polled
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.sent(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.sent(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// hyper flushes when all that it has is written: what waits beside it goes now.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.handle.outlet.poll_write_to(&mut this.socket, cx)?.is_pending() {
            return this.poll_stalled(cx).map(Err);
        }
        let flushed = Pin::new(&mut this.socket).poll_flush(cx);
        this.unflushed &= !matches!(flushed, Poll::Ready(Ok(())));
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        if self.handle.abort.0.load(Ordering::Relaxed) {
            self.socket.set_reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn silence_parks_after_a_head_and_nowhere_else() {
        let config = EdgeConfig { park_ms: 20, head_ms: 400, ..EdgeConfig::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for (sent, parks) in [("GET / HTTP/1.1\r\n\r\n", true), ("GET / HTTP/1.1\r\nHo", false)] {
            let address = listener.local_addr().unwrap();
            let mut client = TcpStream::connect(address).await.unwrap();
            let socket = Socket::Plain(listener.accept().await.unwrap().0);
            let (mut stream, handle) = ClientStream::new(socket, &config);
            client.write_all(sent.as_bytes()).await.unwrap();
            let mut bytes = [0; 64];
            assert_eq!(stream.read(&mut bytes).await.unwrap(), sent.len());
            let turn = handle.turn();
            let early = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut bytes));
            assert!(early.await.is_err(), "parked while it is answered");
            drop(turn);
            stream.write_all(b"HTTP/1.1 204").await.unwrap();
            let early = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut bytes));
            assert!(early.await.is_err(), "parked before all is sent");
            stream.flush().await.unwrap();
            let next = stream.read(&mut bytes).await;
            assert_eq!(next.is_ok(), parks, "{sent:?}");
            assert_eq!(handle.parked().is_some(), parks, "{sent:?}");
        }
    }
}
