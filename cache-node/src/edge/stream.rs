//! A client's connection, with the limits that hyper does not keep.
//!
//! - Until it is clear which protocol a client speaks, hyper-util waits without limit.
//! - A client that stops taking what it asked for would hold the response for ever.
//! - A body of HTTP/1.0 without a length ends with the connection: only a reset tells a client
//!   that it broke off.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::EdgeConfig;
use super::interim::Outlet;
use super::socket::Socket;

/// RFC 9113 section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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
#[derive(Clone, Debug, Default)]
pub(super) struct Handle {
    pub(super) abort: Abort,
    pub(super) outlet: Outlet,
    pub(super) client: Option<IpAddr>,
    /// The client came by TLS.
    pub(super) secure: bool,
}

pub(super) struct ClientStream {
    socket: Socket,
    handle: Handle,
    /// While all bytes read could begin HTTP/2's preface: how many, and how long to wait.
    preface: Option<(usize, Pin<Box<Sleep>>)>,
    stall_max: Duration,
    /// Armed while the client takes nothing.
    stall: Option<Pin<Box<Sleep>>>,
}

impl ClientStream {
    pub(super) fn new(socket: Socket, config: &EdgeConfig) -> (Self, Handle) {
        let (client, secure) = (socket.peer(), socket.is_secure());
        let handle = Handle { client, secure, ..Handle::default() };
        let deadline = Box::pin(tokio::time::sleep(Duration::from_millis(config.head_ms)));
        let stream = Self {
            socket,
            handle: handle.clone(),
            preface: Some((0, deadline)),
            stall_max: Duration::from_millis(config.stall_ms),
            stall: None,
        };
        (stream, handle)
    }

    /// The protocol is clear as soon as a byte differs from the preface, or none is left of it.
    fn learn(&mut self, read: &[u8]) {
        let Some((seen, _)) = &mut self.preface else { return };
        let rest = &PREFACE[*seen..];
        *seen += read.len();
        if read.len() >= rest.len() || !rest.starts_with(read) {
            self.preface = None;
        }
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
        match (&polled, &mut self.preface) {
            (Poll::Ready(Ok(())), Some(_)) => self.learn(&buf.filled()[before..]),
            (Poll::Pending, Some((_, deadline))) => {
                return deadline.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()));
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
        Pin::new(&mut self.socket).poll_flush(cx)
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
