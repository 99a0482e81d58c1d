//! The admin listener: `/livez`, `/readyz`, `/metrics`, `/status`, and the control calls under
//! `/v1/`. It has a thread and a runtime of its own, so that a busy or stuck node still answers, and
//! it is the last thing to stop.
//!
//! Whatever changes anything is a control call, and needs a token. Must not know where its figures
//! come from, or what the calls do.
//!
//! | file | purpose |
//! |---|---|
//! | `mod` | the listener, and what needs no token |
//! | `status` | the document behind `/status` |
//! | `gather` | asks all members for theirs |
//! | `report` | PURE: a cluster's status, put together |
//! | `page` | the status page for browsers |
//! | `tokens` | PURE: who may do what |
//! | `control` | the table of control calls |
//! | `guard` | lets calls in, or refuses them |
//! | `client` | asks another member's admin listener |

pub mod client;
mod control;
pub mod gather;
mod guard;
mod members;
mod page;
pub(crate) mod report;
mod status;
pub mod tokens;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

pub use control::{Answer, Call, Control, ControlError};
pub use members::{Change, ChangeOrder, Changed, MembersDocument, TierMember};
pub use report::{MemberEvent, MemberReport, Report, Totals};
pub use status::{
    CandidateStatus, DrainStatus, Figures, Hits, MemberStatus, ModeStatus, SelectionChange,
    SelectionStatus, StatusDocument,
};

use crate::metrics::{AdminMetrics, Metrics};
use crate::tasks::{self, Tasks};
use guard::Guard;
use tokens::Tokens;

/// Connections served at a time; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 64;
/// Largest request head, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// For a request's head to arrive.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// A connection's whole life: clients come back on another.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(300);
/// For open connections to end at the stop.
const STOP_GRACE: Duration = Duration::from_millis(500);
/// Before the next try when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN_TYPE: &str = "text/plain; charset=utf-8";
const JSON_TYPE: &str = "application/json";
const INDEX: &str = "Shoal's admin listener\n\n\
    /livez    200 while the process runs\n\
    /readyz   200 when the member can do its work, else 503 and the reason\n\
    /metrics  figures in the Prometheus text format\n\
    /status   this member's view of the cluster and its own figures, JSON\n\
    /cluster  all members' figures, as in `shoal status --json`\n\
    /         all of it as a page, for browsers\n\
    /v1/...   control calls, with a token; see docs/control-api.md\n";

/// Whether the member can do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// It can.
    pub ready: bool,
    /// Why not, or in which way.
    pub reason: String,
}

/// What the listener tells.
#[derive(Clone)]
pub struct AdminState {
    /// Behind `/metrics`.
    pub metrics: Metrics,
    /// Behind `/readyz`.
    pub ready: watch::Receiver<Readiness>,
    /// Behind `/status`; called for each request, must not wait.
    pub status: Arc<dyn Fn() -> StatusDocument + Send + Sync>,
    /// Behind `/v1/`; `None` until the member can answer calls.
    pub control: watch::Receiver<Option<Arc<Control>>>,
    /// Who may call.
    pub tokens: Tokens,
    /// What came of it.
    pub calls: AdminMetrics,
}

/// What all connections share.
struct Shared {
    state: AdminState,
    guard: Guard,
    clusters: page::Clusters,
}

impl std::fmt::Debug for AdminState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminState").field("ready", &*self.ready.borrow()).finish_non_exhaustive()
    }
}

/// Starts the listener.
#[derive(Debug)]
pub struct AdminServer;

/// The running listener. Dropped, it goes on until the process ends.
#[derive(Debug)]
pub struct AdminHandle {
    address: SocketAddr,
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl AdminServer {
    /// Serves `state` on `listener`, on a thread of its own.
    ///
    /// # Errors
    /// When the operating system refuses the thread or its runtime.
    pub fn start(listener: TcpListener, state: AdminState) -> io::Result<AdminHandle> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = tasks::thread("admin", move || {
            runtime.block_on(async move {
                if let Err(error) = serve(listener, state, stopped).await {
                    tracing::error!(%address, %error, "admin listener failed");
                }
            });
        })?;
        Ok(AdminHandle { address, stop, thread })
    }
}

impl AdminHandle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it and waits for its thread, well under a second.
    pub fn stop(self) {
        self.stop.cancel();
        if self.thread.join().is_err() {
            tracing::error!("the admin thread had panicked");
        }
    }
}

async fn serve(
    listener: TcpListener,
    state: AdminState,
    stop: CancellationToken,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let connections = Tasks::new();
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let guard = Guard::new(state.tokens.clone(), state.calls.clone());
    let shared = Arc::new(Shared { state, guard, clusters: page::Clusters::default() });
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &free) => accepted,
        };
        let Some((stream, peer, permit)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (shared, closing) = (shared.clone(), connections.token());
        connections.spawn("admin-connection", async move {
            let _permit = permit;
            let served = connection((stream, peer), shared, closing);
            let _ = tokio::time::timeout(CONNECTION_DEADLINE, served).await;
        });
    }
    connections.shutdown(STOP_GRACE).await;
    Ok(())
}

type Accepted = (tokio::net::TcpStream, IpAddr, tokio::sync::OwnedSemaphorePermit);

async fn accept(listener: &tokio::net::TcpListener, free: &Arc<Semaphore>) -> Option<Accepted> {
    let permit = Arc::clone(free).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer.ip(), permit)),
        Err(error) => {
            tracing::warn!(%error, "admin listener could not accept a connection");
            None
        }
    }
}

async fn connection(
    (stream, peer): (tokio::net::TcpStream, IpAddr),
    shared: Arc<Shared>,
    closing: CancellationToken,
) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let shared = shared.clone();
        async move {
            if !request.uri().path().starts_with(guard::ROOT) {
                return Ok::<_, Infallible>(respond(&request, &shared).await);
            }
            let control = shared.state.control.borrow().clone();
            Ok(shared.guard.answer(request, peer, control).await)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = closing.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "admin connection ended");
    }
}

async fn respond<B>(request: &Request<B>, shared: &Shared) -> Response<Full<Bytes>> {
    let state = &shared.state;
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD here\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/" if !page::wanted(request.headers()) => plain(StatusCode::OK, INDEX),
        "/livez" => plain(StatusCode::OK, "live\n"),
        "/readyz" => {
            let Readiness { ready, reason } = state.ready.borrow().clone();
            let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            plain(code, format!("{reason}\n"))
        }
        "/metrics" => encoded(METRICS_TYPE, state.metrics.text()),
        "/status" => encoded(JSON_TYPE, serde_json::to_vec(&(state.status)())),
        "/cluster" => encoded(JSON_TYPE, shared.clusters.report(&state.status).await),
        path if let Some(file) = page::file(path) => file,
        _ => plain(StatusCode::NOT_FOUND, "nothing here; / lists what there is\n"),
    }
}

fn encoded<E: std::fmt::Display>(
    content_type: &'static str,
    text: Result<Vec<u8>, E>,
) -> Response<Full<Bytes>> {
    match text {
        Ok(text) => response(StatusCode::OK, content_type, text.into()),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn plain(code: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    response(code, PLAIN_TYPE, text.into())
}

fn response(code: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
