//! A deterministic HTTP/1.1 origin that counts what leaves it.
//!
//! `select`, `knobs` and `bucket::TokenBucket` decide and are pure; `body`, `object`, `echo` and
//! `service` execute; this file owns the socket. Invariant: the bytes of a reply depend on seed,
//! path, version and range only, never on what was asked before.

pub mod body;
pub mod bucket;
pub mod echo;
pub mod knobs;
pub mod object;
pub mod pages;
pub mod select;
pub mod service;
pub mod stats;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use http::HeaderValue;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;

use self::{bucket::Pacer, stats::Stats};
use crate::{
    clock::{self, Clock},
    content::Content,
    scenario::OriginScenario,
    tasks::Group,
};

/// Connections open at once; others wait to be accepted.
pub const CONNECTIONS_MAX: usize = 4096;
/// What a connection may hold back before it sends; also the largest head it reads. Small, so
/// that the counted bytes are close to the sent ones.
pub const CONNECTION_BUFFER_MAX_BYTES: usize = 16 << 10;
/// A connection without a request for so long is closed. Longer than a cache's usual pool keeps
/// connections, so that it is the cache that closes them.
pub const IDLE_TIMEOUT_MS: u64 = 120_000;
/// How long replies under way may take when the origin stops.
pub const STOP_GRACE_MS: u64 = 5_000;
/// Pause after a failed accept, such as for want of file descriptors.
const ACCEPT_RETRY_MS: u64 = 50;

/// Why an origin did not start.
#[derive(Debug, Error)]
pub enum OriginError {
    /// The address cannot be listened on.
    #[error(
        "--listen {address}: {source}; stop what listens there, or choose another address \
         (port 0 takes a free one)"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
}

/// What every request sees.
#[derive(Debug)]
pub struct State {
    content: Content,
    stats: Stats,
    pacer: Option<Arc<Pacer>>,
    cache_control: HeaderValue,
    latency: Duration,
}

/// An origin that listens; it answers once it is served.
#[derive(Debug)]
pub struct Origin {
    listener: TcpListener,
    address: SocketAddr,
    state: Arc<State>,
}

impl Origin {
    /// Listens as the scenario says.
    ///
    /// # Errors
    /// When the address is taken or not this machine's.
    pub async fn bind(scenario: &OriginScenario) -> Result<Self, OriginError> {
        let address = scenario.listen;
        let failed = |source| OriginError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let clock = Clock::start();
        let instance = format!("{}-{}", std::process::id(), clock::wall_unix_ms());
        let max_age = HeaderValue::from_str(&format!("public, max-age={}", scenario.max_age_s));
        let state = State {
            content: Content::new(scenario.seed),
            stats: Stats::new(format!("{instance}-{}", address.port())),
            pacer: scenario.rate_bytes_per_s.map(|rate| Arc::new(Pacer::new(rate, clock))),
            cache_control: max_age.unwrap_or(HeaderValue::from_static("public")),
            latency: scenario.latency,
        };
        Ok(Self { listener, address, state: Arc::new(state) })
    }

    /// Where it listens; never port 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then lets replies under way finish for [`STOP_GRACE_MS`].
    pub async fn serve(self, stop: CancellationToken) {
        let connections = Group::new();
        let graceful = GracefulShutdown::new();
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(&self.listener, &room) => accepted,
            };
            let state = Arc::clone(&self.state);
            connections.spawn(connection(state, accepted, graceful.watcher()));
        }
        drop(self.listener);
        let grace = Duration::from_millis(STOP_GRACE_MS);
        tokio::select! {
            () = graceful.shutdown() => {}
            () = tokio::time::sleep(grace) => connections.abort(),
        }
        connections.finish(grace).await;
    }
}

async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> (TcpStream, Permit) {
    let permit = Arc::clone(room).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(_) => tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await,
        }
    }
}

/// Held while a connection is open; none only if the semaphore were closed, which nothing does.
type Permit = Option<OwnedSemaphorePermit>;

async fn connection(state: Arc<State>, accepted: (TcpStream, Permit), watcher: Watcher) {
    let (stream, _permit) = accepted;
    // Without it small replies wait for the peer's delayed acknowledgement; not worth an error.
    drop(stream.set_nodelay(true));
    let service = service_fn(move |request| service::handle(Arc::clone(&state), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(IDLE_TIMEOUT_MS))
        .max_buf_size(CONNECTION_BUFFER_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    // A client that goes away, or a body that is cut on purpose, ends here as an error.
    drop(watcher.watch(connection).await);
}
