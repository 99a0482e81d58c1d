//! Informational responses (RFC 9110 section 15.2) on their way to a client of HTTP/1.1, which
//! hyper's server cannot send: they go onto the connection beside it, while it has nothing to write.
//!
//! Invariants: what waits here is written whole, and only when all that came before it is; whoever
//! sends waits until that has happened, so that no final response can overtake it. Nothing of it is
//! stored or merged into a final response. Not here: HTTP/2, where hyper gives no way.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;
use tokio::sync::Notify;

use crate::fetch::{Interim, Interims};

/// Longest head of one; longer ones are dropped, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A connection's way out beside hyper.
#[derive(Clone, Debug, Default)]
pub(super) struct Outlet(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Something waits: spares hits the lock.
    waits: AtomicBool,
    heads: Mutex<BytesMut>,
    written: Notify,
}

impl Outlet {
    /// Sends one; returns when it is on its way. A connection that dies meanwhile ends this too.
    async fn send(&self, interim: &Interim) {
        let Some(head) = encode(interim) else { return };
        let mut written = pin!(self.0.written.notified());
        written.as_mut().enable();
        self.0.heads.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&head);
        self.0.waits.store(true, Ordering::Release);
        written.await;
    }

    /// Writes what waits; to be called when all of hyper's bytes are written.
    pub(super) fn poll_write_to<W: AsyncWrite + Unpin>(
        &self,
        to: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.0.waits.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        let mut heads = self.0.heads.lock().unwrap_or_else(PoisonError::into_inner);
        while !heads.is_empty() {
            match ready!(Pin::new(&mut *to).poll_write(cx, &heads))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => heads.advance(count),
            }
        }
        self.0.waits.store(false, Ordering::Release);
        self.0.written.notify_waiters();
        Poll::Ready(Ok(()))
    }
}

fn encode(interim: &Interim) -> Option<Vec<u8>> {
    let reason = interim.status.canonical_reason().unwrap_or("");
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", interim.status.as_u16()).into_bytes();
    for (name, value) in &interim.headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    (head.len() <= HEAD_BYTES_MAX).then_some(head)
}

/// Waits for the `answer` and relays what comes before it.
pub(super) async fn relay<T>(
    relayed: Option<(&Outlet, Interims)>,
    answer: impl Future<Output = T>,
) -> T {
    let Some((outlet, interims)) = relayed else { return answer.await };
    let mut answer = pin!(answer);
    let answered = loop {
        tokio::select! {
            biased;
            interim = interims.next() => outlet.send(&interim).await,
            answered = &mut answer => break answered,
        }
    };
    while let Some(interim) = interims.take() {
        outlet.send(&interim).await;
    }
    answered
}
