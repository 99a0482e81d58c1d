//! Connections: accepted up to a cap, served, drained.
//!
//! Invariants: every connection is a task of one group, which ends before [`serve`] returns; what
//! is in flight when the edge stops may finish until the drain deadline, and is cut after it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus::IntGauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::socket::Socket;
use super::stream::{ClientStream, Handle, Parked};
use super::tls::EdgeTls;
use super::{Edge, ReadPath, request};
use crate::tasks::Tasks;

/// Longest request head over HTTP/1.1, which is also a connection's buffer, in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Most headers of a request over HTTP/1.1.
const HEADERS_MAX: usize = 128;
/// Longest header list of a request over HTTP/2, in bytes.
const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// Most requests at a time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 100;
/// Streams that a client may open and reset before they are accepted (rapid reset).
const PENDING_RESETS_MAX: usize = 20;
/// Streams that may end by a client's fault before its connection does.
const FAULTY_STREAMS_MAX: usize = 128;
/// Flow-control windows for uploads over HTTP/2, in bytes.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Bytes buffered towards a client on each HTTP/2 stream.
const SEND_BUFFER_BYTES: usize = 512 * 1024;
/// Between two pings on an HTTP/2 connection, and how long an answer may take, in milliseconds.
const PING_MS: u64 = 20_000;
/// Pause after a failed `accept`, which mostly means that descriptors ran out, in milliseconds.
const ACCEPT_PAUSE_MS: u64 = 50;
/// How long connections may take to notice that they are cut, in milliseconds.
const CUT_MS: u64 = 5_000;

/// Where clients come in.
#[derive(Debug)]
pub struct Door {
    /// The listener.
    pub listener: TcpListener,
    /// What they are shown, where they speak TLS.
    pub tls: Option<Arc<EdgeTls>>,
}

impl From<TcpListener> for Door {
    fn from(listener: TcpListener) -> Self {
        Self { listener, tls: None }
    }
}

/// Serves clients until `tasks` is stopped and what is in flight has ended or the drain deadline
/// has passed.
pub async fn serve<R: ReadPath>(door: impl Into<Door>, edge: Arc<Edge<R>>, tasks: Tasks) {
    let Door { listener, tls } = door.into();
    let connections = Tasks::new();
    let cut = CancellationToken::new();
    let slots = Arc::clone(&edge.slots);
    let speakers = Arc::new(Speakers::new(&connections));
    loop {
        let (stream, slot) = tokio::select! {
            biased;
            () = tasks.stopped() => break,
            // A connection's task panicked.
            () = connections.stopped() => {
                tasks.stop();
                break;
            }
            accepted = accept(&listener, &slots) => match accepted {
                Some(accepted) => accepted,
                None => continue,
            },
        };
        let connection = Connection {
            edge: Arc::clone(&edge),
            speakers: Arc::clone(&speakers),
            tls: tls.as_ref().map(|tls| tls.acceptor()),
            stop: connections.token(),
            cut: cut.clone(),
        };
        connections.spawn("edge-connection", connection.run(stream, slot));
    }
    drop(listener);
    edge.tunnels.close().await;
    if !connections.shutdown(Duration::from_millis(edge.config.drain_ms)).await {
        tracing::warn!(drain_ms = edge.config.drain_ms, "cutting connections still in use");
        cut.cancel();
        connections.shutdown(Duration::from_millis(CUT_MS)).await;
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, slot)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            None
        }
    }
}

/// Spawns what serves the streams of HTTP/2 connections.
#[derive(Clone)]
struct Streams(Tasks);

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn("edge-stream", stream);
    }
}

fn builder(connections: &Tasks) -> auto::Builder<Streams> {
    let mut builder = auto::Builder::new(Streams(connections.clone()));
    builder
        .http1()
        // The client's stream counts the time itself: hyper makes a timer for each request.
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(FAULTY_STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(Duration::from_millis(PING_MS))
        .keep_alive_timeout(Duration::from_millis(PING_MS));
    builder
}

/// What speaks with clients.
struct Speakers {
    /// The first bytes tell which protocol.
    either: auto::Builder<Streams>,
    http1: auto::Builder<Streams>,
    http2: auto::Builder<Streams>,
}

impl Speakers {
    fn new(connections: &Tasks) -> Self {
        let either = builder(connections);
        let (http1, http2) = (either.clone().http1_only(), either.clone().http2_only());
        Self { either, http1, http2 }
    }
}

struct Connection<R> {
    edge: Arc<Edge<R>>,
    speakers: Arc<Speakers>,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
    cut: CancellationToken,
}

impl<R: ReadPath> Connection<R> {
    async fn run(self, stream: TcpStream, _slot: OwnedSemaphorePermit) {
        let Self { edge, speakers, tls, stop, cut } = self;
        let _open = Open::new(edge.metrics.connections.clone());
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection was gone at once");
            return;
        }
        let limit = Duration::from_millis(edge.config.head_ms);
        let shaken = tokio::select! {
            shaken = shake_hands(stream, tls, limit) => shaken,
            () = stop.cancelled() => return,
        };
        let Some(socket) = shaken else { return };
        let http2 = socket.chose_http2();
        let mut builder = if http2 { &speakers.http2 } else { &speakers.either };
        let mut next = ClientStream::new(socket, &edge.config);
        while let Some(parked) = serve_one(&edge, next, (builder, http2), (&stop, &cut)).await {
            let wakes = tokio::select! {
                wakes = parked.wakes(limit) => wakes,
                () = stop.cancelled() => false,
            };
            if !wakes {
                return;
            }
            builder = &speakers.http1;
            next = ClientStream::resumed(parked, &edge.config);
        }
    }
}

/// Drives one of hyper's connections until it ends: in order once `stop` says so, at once after
/// `cut`. Not a function: the compiler does not see that one over both kinds can move to another
/// thread. In a box: the connection's own task has no room for it while it is parked.
macro_rules! drive {
    ($served:expr, $stop:expr, $cut:expr) => {{
        let mut served = Box::pin($served);
        tokio::select! {
            ended = served.as_mut() => ended,
            () = $stop.cancelled() => {
                served.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = served.as_mut() => ended,
                    () = $cut.cancelled() => Ok(()),
                }
            }
        }
    }};
}

/// Serves a connection until it ends, or is parked.
async fn serve_one<R: ReadPath>(
    edge: &Arc<Edge<R>>,
    (stream, handle): (ClientStream, Handle),
    (builder, http2): (&auto::Builder<Streams>, bool),
    (stop, cut): (&CancellationToken, &CancellationToken),
) -> Option<Parked> {
    let (edge, asked) = (Arc::clone(edge), handle.clone());
    let service = service_fn(move |request| request::answer(&edge, request, &asked));
    let stream = TokioIo::new(stream);
    // With upgrades, hyper-util would take HTTP/1 on a connection that chose HTTP/2 by ALPN.
    let ended = if http2 {
        drive!(builder.serve_connection(stream, service), stop, cut)
    } else {
        drive!(builder.serve_connection_with_upgrades(stream, service), stop, cut)
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a client's connection ended early");
    }
    handle.parked()
}

/// TLS's handshake, where there is one, in bounded time.
async fn shake_hands(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    limit: Duration,
) -> Option<Socket> {
    let Some(tls) = tls else { return Some(Socket::Plain(stream)) };
    match tokio::time::timeout(limit, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(Socket::Tls(Box::new(stream))),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a client's TLS handshake failed");
            None
        }
        Err(_) => None,
    }
}

/// Counts a connection for as long as it lives.
struct Open(IntGauge);

impl Open {
    fn new(connections: IntGauge) -> Self {
        connections.inc();
        Self(connections)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
