//! Connections that switch to another protocol, where their site allows it: bytes are carried both
//! ways, unread, until either side ends, neither says anything for too long, or the node leaves.
//!
//! Invariants: off unless a site names the protocol; over HTTP/1.1 alone, by a `GET` without a body;
//! the number of a site's tunnels on a node is bounded; none outlives the edge. Without permission
//! the request goes on without its `Upgrade`, which RFC 9110 section 7.8 lets a server do. Not here:
//! WebSockets over HTTP/2 (RFC 8441).

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONNECTION, TRANSFER_ENCODING, UPGRADE, VIA};
use http::{HeaderValue, Method, StatusCode};
use hyper::body::Body;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use prometheus::IntGauge;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};

use super::request::{Asked, fail};
use super::respond::{self, Forwarded, Reply};
use super::stream::Turn;
use super::{Edge, ReadPath};
use crate::clock;
use crate::fetch::{Duplex, OriginRequest, Switched};
use crate::tasks::Tasks;

/// Longest wait for the client's side of the switch, in milliseconds.
const SWITCH_MS: u64 = 5_000;
/// Between two looks at whether a tunnel still has a reason to be, in milliseconds.
const LOOK_MS: u64 = 250;
/// How long tunnels may take to notice that they are closed, in milliseconds.
const CLOSE_MS: u64 = 2_000;

/// All tunnels of an edge.
#[derive(Debug)]
pub(super) struct Tunnels {
    tasks: Tasks,
    /// By site.
    open: Arc<Mutex<HashMap<String, u32>>>,
    gauge: IntGauge,
}

/// A tunnel's place among its site's.
struct Place {
    site: String,
    open: Arc<Mutex<HashMap<String, u32>>>,
    gauge: IntGauge,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gauge.dec();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(&self.site) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.remove(&self.site)),
        }
    }
}

impl Tunnels {
    pub(super) fn new(gauge: IntGauge) -> Self {
        Self { tasks: Tasks::new(), open: Arc::default(), gauge }
    }

    fn place(&self, site: &str, max: u32) -> Option<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.get(site).copied().unwrap_or(0);
        if count >= max {
            return None;
        }
        open.insert(site.to_owned(), count + 1);
        self.gauge.inc();
        Some(Place {
            site: site.to_owned(),
            open: Arc::clone(&self.open),
            gauge: self.gauge.clone(),
        })
    }

    /// Closes all of them; no more are opened.
    pub(super) async fn close(&self) {
        self.tasks.shutdown(Duration::from_millis(CLOSE_MS)).await;
    }
}

/// The protocol that the request may switch its connection to.
pub(super) fn wanted(asked: &Asked, body: &impl Body) -> Option<String> {
    // Who knows informational responses speaks HTTP/1.1.
    let plain = asked.outlet.is_some()
        && asked.method == Method::GET
        && body.is_end_stream()
        && !asked.headers.contains_key(TRANSFER_ENCODING);
    asked.site.upgrade.wanted(&asked.headers).filter(|_| plain).map(str::to_owned)
}

/// Asks the origin to switch; when it does, the client's connection does.
pub(super) async fn open<R: ReadPath>(
    edge: &Edge<R>,
    asked: Asked,
    protocol: String,
    (client, turn): (OnUpgrade, Turn),
) -> Reply {
    if edge.leaving.load(Ordering::Relaxed) || edge.tunnels.tasks.is_stopped() {
        return Reply::refused(StatusCode::SERVICE_UNAVAILABLE, "leaving");
    }
    let rules = &asked.site.upgrade;
    let Some(place) = edge.tunnels.place(asked.site.name(), rules.max) else {
        return Reply::refused(StatusCode::SERVICE_UNAVAILABLE, "too many tunnels");
    };
    let request = OriginRequest {
        method: Method::GET,
        target: asked.target.clone(),
        client_authority: asked.authority.clone(),
        headers: asked.headers.clone(),
        body: None,
        interims: None,
    };
    let switching = edge.read_path.switch(Arc::clone(&asked.site), request, &protocol);
    let (headers, stream) = match switching.await {
        Ok(Switched::To { headers, stream }) => (headers, stream),
        Ok(Switched::Not(response)) => {
            return respond::passed(&asked, response, Forwarded::Bypass).edited(&asked.site);
        }
        Err(error) => return fail(&asked, &error, Forwarded::Bypass),
    };
    let (idle, leaving) = (rules.idle, Arc::clone(&edge.leaving));
    edge.tunnels.tasks.spawn_until_stopped("tunnel", async move {
        let switched = tokio::time::timeout(Duration::from_millis(SWITCH_MS), client).await;
        if let Ok(Ok(client)) = switched {
            carry(TokioIo::new(client), stream, (idle, leaving)).await;
        }
        drop((place, turn));
    });
    let mut reply = Reply::switched(headers).edited(&asked.site);
    let headers = reply.response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(VIA, HeaderValue::from_static("1.1 shoal"));
    if let Ok(protocol) = HeaderValue::from_str(&protocol) {
        headers.insert(UPGRADE, protocol);
    }
    reply
}

/// Carries bytes until there is a reason not to.
async fn carry(
    client: impl Duplex,
    origin: Box<dyn Duplex>,
    (idle, leaving): (Duration, Arc<AtomicBool>),
) {
    let moved = Arc::new(AtomicU64::new(0));
    let mut client = Counted { inner: client, moved: Arc::clone(&moved) };
    let mut origin = Counted { inner: origin, moved: Arc::clone(&moved) };
    tokio::select! {
        carried = copy_bidirectional(&mut client, &mut origin) => {
            if let Err(error) = carried {
                tracing::debug!(%error, "a tunnel broke off");
            }
        }
        why = useless(&moved, idle, &leaving) => tracing::debug!(why, "a tunnel was closed"),
    }
}

/// Waits until a tunnel is of no use any more.
async fn useless(moved: &AtomicU64, idle: Duration, leaving: &AtomicBool) -> &'static str {
    let (mut seen, mut since) = (0, clock::monotonic());
    loop {
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        let now = moved.load(Ordering::Relaxed);
        if leaving.load(Ordering::Relaxed) {
            return "leaving";
        }
        if now != seen {
            (seen, since) = (now, clock::monotonic());
        } else if clock::since(since) >= idle {
            return "idle";
        }
    }
}

/// Counts what is read.
struct Counted<S> {
    inner: S,
    moved: Arc<AtomicU64>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        let read = (buf.filled().len() - before) as u64;
        self.moved.fetch_add(read, Ordering::Relaxed);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
