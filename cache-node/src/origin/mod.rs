//! Requests to origins: connections, timeouts, one honest retry, bodies that end in an error unless
//! they are whole.
//!
//! Invariants: an origin sees `Host` as its site says, `Via`, no hop-by-hop header and nothing that
//! names the client; redirects are not followed; a body that is short, too long, reset or silent
//! ends in an error, never in an end. It must not know what is cached or why it is asked.
//!
//! What is retried. Never-sent requests: by hyper-util, on other pooled connections and at last a
//! fresh one, since a request that was not written cannot be a duplicate. Sent ones: once, on a
//! fresh connection, when [`tracked::Facts::lost_the_race`] shows that the origin had closed the
//! pooled connection before it could have read the request; idempotent methods without body only.
//! Over HTTP/2 only never-sent requests are retried.
//!
//! | file | purpose |
//! |---|---|
//! | `connect` | opens connections, to addresses that an origin may have |
//! | `head` | a request's head as it goes out |
//! | `response` | what a response head must be to be trusted |
//! | `body`, `trailers` | bodies, and what may come after them |
//! | `upgrade` | connections that switch to another protocol |
//! | `interim` | informational responses |
//! | `health` | which of several origins is asked |
//! | `tracked` | what is known of a connection, for the one retry |

mod body;
mod connect;
mod head;
mod health;
mod interim;
mod response;
mod tracked;
mod trailers;
mod upgrade;

use std::collections::HashMap;
use std::error::Error as StdError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::TokioTimer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use body::{BodyError, BodyStream, RequestBody};
pub use connect::OriginSetupError;
pub use interim::{Interim, Interims};
pub use trailers::Trailers;
pub use upgrade::{Duplex, Switched};

use crate::clock;
use crate::metrics::OriginMetrics;
use crate::policy::site::{HostHeader, OriginUrl, Site};
use crate::tasks::Tasks;
use body::{Progress, SendBody};
use connect::Connector;
use head::head;
use health::Health;
use tracked::Facts;

/// Requests to one site's origin at a time, bodies included; more wait.
const SITE_REQUESTS_MAX: usize = 512;
/// Idle connections kept to one origin.
const IDLE_CONNECTIONS_MAX: usize = 64;
/// An idle connection's life, in milliseconds: less than the 5 s after which common servers close.
const IDLE_MS: u64 = 4_000;
/// Longest response head over HTTP/1.1, which is also the read buffer, in bytes.
const HEAD_BYTES_MAX: usize = 256 * 1024;
/// Most response headers accepted.
const RESPONSE_HEADERS_MAX: usize = 256;
/// Longest response header list over HTTP/2, in bytes.
const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;
/// Flow-control windows over HTTP/2, in bytes.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// Between two pings on an HTTP/2 connection, in milliseconds.
const PING_MS: u64 = 15_000;

/// A request to an origin.
pub struct OriginRequest {
    /// Its method.
    pub method: Method,
    /// Path and query, sent as they are.
    pub target: String,
    /// The authority that the client asked, for `Host` where the site wants it.
    pub client_authority: String,
    /// Headers; hop-by-hop ones, `Host` and framing are made anew.
    pub headers: HeaderMap,
    /// Its body, if any.
    pub body: Option<RequestBody>,
    /// Where informational responses go, if anybody waits for them.
    pub interims: Option<Interims>,
}

impl std::fmt::Debug for OriginRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = self.body.is_some();
        f.debug_struct("OriginRequest")
            .field("method", &self.method)
            .field("body", &body)
            .finish_non_exhaustive()
    }
}

/// A response streamed straight from the origin: end-to-end headers only, without
/// `Content-Length`, always with `Date`.
pub struct OriginResponse {
    /// Its status.
    pub status: StatusCode,
    /// Its end-to-end headers.
    pub headers: HeaderMap,
    /// `Content-Length`, where the origin declared it; of the body that `GET` would have, for
    /// `HEAD`.
    pub length: Option<u64>,
    /// Its body, with back-pressure.
    pub body: BodyStream,
    /// What may come after it.
    pub trailers: Trailers,
}

impl std::fmt::Debug for OriginResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OriginResponse")
            .field("status", &self.status)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// Why an origin gave no response.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum OriginError {
    /// It could not be reached or broke off before its head.
    #[error("origin {origin} could not be reached: {reason}")]
    Unreachable {
        /// The origin's base URL.
        origin: String,
        /// What went wrong.
        reason: String,
    },
    /// It did not answer in time.
    #[error("origin {origin} sent no response head within {waited_ms} ms")]
    Timeout {
        /// The origin's base URL.
        origin: String,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// Its answer cannot be trusted (framing, lengths).
    #[error("origin {origin} sent a malformed response: {reason}")]
    Malformed {
        /// The origin's base URL.
        origin: String,
        /// What was wrong with it.
        reason: String,
    },
}

type Http = Client<Connector, SendBody>;

/// The client of all origins. Clones share connections.
#[derive(Clone, Debug)]
pub struct OriginClient {
    /// HTTP/1.1 and HTTP/2, by ALPN.
    any: Http,
    /// HTTP/1.1 alone: where `Host` is not the authority that is connected to.
    http1: Http,
    /// HTTP/1.1, each request on a connection of its own.
    fresh: Http,
    metrics: OriginMetrics,
    slots: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
    health: Health,
}

impl OriginClient {
    /// A client that trusts the system's root certificates (or those of `SSL_CERT_FILE`).
    ///
    /// Its connections end when `tasks` is stopped: stop it after the edge has drained.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(metrics: OriginMetrics, tasks: Tasks) -> Result<Self, OriginSetupError> {
        Ok(Self::build(metrics, tasks, connect::native_tls()?))
    }

    /// A client that trusts `roots` alone.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn with_roots(
        metrics: OriginMetrics,
        tasks: Tasks,
        roots: rustls::RootCertStore,
    ) -> Result<Self, OriginSetupError> {
        Ok(Self::build(metrics, tasks, connect::tls_with(roots)?))
    }

    fn build(metrics: OriginMetrics, tasks: Tasks, tls: rustls::ClientConfig) -> Self {
        let executor = connect::Connections(tasks);
        let both = Connector::new(tls.clone(), &[b"h2", b"http/1.1"]);
        let http1 = Connector::new(tls, &[b"http/1.1"]);
        let mut builder = Client::builder(executor);
        builder
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_millis(IDLE_MS))
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .http1_max_headers(RESPONSE_HEADERS_MAX)
            .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
            .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(Duration::from_millis(PING_MS));
        let pooled = builder.build(both);
        let pooled_http1 = builder.build(http1.clone());
        let fresh = builder.pool_max_idle_per_host(0).build(http1);
        Self {
            any: pooled,
            http1: pooled_http1,
            fresh,
            metrics,
            slots: Arc::default(),
            health: Health::new(),
        }
    }

    /// Sends a request and waits for the response head.
    ///
    /// # Errors
    /// When there is none, or none that can be trusted.
    pub async fn send(
        &self,
        site: &Site,
        request: OriginRequest,
    ) -> Result<OriginResponse, OriginError> {
        let sent = self.send_uncounted(site, request).await;
        match &sent {
            Ok(response) if response.status == StatusCode::NOT_MODIFIED => {
                self.metrics.not_modified.inc();
            }
            Ok(_) => {}
            Err(_) => self.metrics.failures.inc(),
        }
        sent
    }

    async fn send_uncounted(
        &self,
        site: &Site,
        mut request: OriginRequest,
    ) -> Result<OriginResponse, OriginError> {
        let slot = self.slot(site).await?;
        let mut body = request.body.take();
        let repeatable = is_repeatable(&request.method, body.is_none());
        let mut origins = self.health.order(site).into_iter().peekable();
        let method = request.method.clone();
        while let Some(origin) = origins.next() {
            // Made before anything is waited for: a request with a body cannot be shared.
            let mut head = head((site, &origin), &request, body.as_ref())?;
            if let Some(interims) = request.interims.clone() {
                interim::listen(&mut head, interims);
            }
            let sent = self.send_to((site, &origin), &method, (head, body.take())).await;
            match sent {
                Ok(checked) => {
                    self.health.answered(site, &origin);
                    let metrics = self.metrics.clone();
                    return Ok(checked.into_response(site.between_bytes_timeout, metrics, slot));
                }
                Err(error) => {
                    if !matches!(error, OriginError::Malformed { .. }) {
                        self.health.failed(site, &origin, 1);
                    }
                    if !repeatable || origins.peek().is_none() {
                        return Err(error);
                    }
                    tracing::debug!(site = site.name(), %error, "the next origin is asked");
                }
            }
        }
        // A site has an origin.
        Err(timeout(site))
    }

    async fn send_to(
        &self,
        (site, origin): (&Site, &OriginUrl),
        method: &Method,
        (head, body): (Request<()>, Option<RequestBody>),
    ) -> Result<response::Checked, OriginError> {
        let again = is_repeatable(method, body.is_none()).then(|| head.clone());
        let client = match site.host_header() {
            HostHeader::Origin => &self.any,
            HostHeader::Client => &self.http1,
        };
        let sent = match (self.attempt(client, site, head, body).await, again) {
            (Err(Failure::Race), Some(head)) => {
                tracing::debug!(site = site.name(), "pooled connection had been closed, retrying");
                self.attempt(&self.fresh, site, head, None).await
            }
            (sent, _) => sent,
        };
        let response = sent.map_err(|failure| failure.into_error(site, origin))?;
        response::check(response, method).map_err(|reason| OriginError::Malformed {
            origin: origin.to_string(),
            reason: reason.to_owned(),
        })
    }

    /// A place among the site's requests, held until the response body has ended.
    async fn slot(&self, site: &Site) -> Result<OwnedSemaphorePermit, OriginError> {
        let slots = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            match slots.get(site.name()) {
                Some(slots) => Arc::clone(slots),
                None => {
                    let fresh = Arc::new(Semaphore::new(SITE_REQUESTS_MAX));
                    slots.insert(site.name().to_owned(), Arc::clone(&fresh));
                    fresh
                }
            }
        };
        let waited = tokio::time::timeout(site.first_byte_timeout, slots.acquire_owned()).await;
        waited.ok().and_then(Result::ok).ok_or_else(|| timeout(site))
    }

    async fn attempt(
        &self,
        client: &Http,
        site: &Site,
        head: Request<()>,
        body: Option<RequestBody>,
    ) -> Result<http::Response<Incoming>, Failure> {
        self.metrics.requests.inc();
        let progress = Progress::default();
        let body = body.map_or(SendBody::empty(), |body| SendBody::new(body, progress.clone()));
        let (parts, ()) = head.into_parts();
        let mut request = Request::from_parts(parts, body);
        let mut captured = capture_connection(&mut request);
        let mut answer = std::pin::pin!(client.request(request));
        let connected = tokio::select! {
            biased;
            answer = &mut answer => Some(answer),
            _ = captured.wait_for_connection_metadata() => None,
            () = tokio::time::sleep(site.connect_timeout) => return Err(Failure::Connect),
        };
        let answered = match connected {
            Some(answered) => answered,
            None => match wait(answer, &progress, site.first_byte_timeout).await {
                Some(answered) => answered,
                None => return Err(Failure::Silent),
            },
        };
        let facts = facts(&captured);
        if answered.is_ok() {
            facts.inspect(|facts| facts.answered());
        } else if facts.is_some_and(|facts| facts.lost_the_race()) {
            return Err(Failure::Race);
        }
        answered.map_err(Failure::Client)
    }
}

/// Waits for the head; an upload that makes progress does not count as silence.
async fn wait<F: Future + Unpin>(
    mut answer: F,
    progress: &Progress,
    limit: Duration,
) -> Option<F::Output> {
    let mut since: Instant = clock::monotonic();
    loop {
        let left = limit.saturating_sub(clock::since(since));
        if left.is_zero() {
            return None;
        }
        match tokio::time::timeout(left, &mut answer).await {
            Ok(answered) => return Some(answered),
            Err(_) => since = progress.last().filter(|last| *last > since)?,
        }
    }
}

enum Failure {
    /// The origin had closed a pooled connection before the request reached it.
    Race,
    /// No connection in time.
    Connect,
    /// A connection, but no head in time.
    Silent,
    Client(ClientError),
}

impl Failure {
    fn into_error(self, site: &Site, origin: &OriginUrl) -> OriginError {
        let origin = origin.to_string();
        match self {
            Self::Race => {
                OriginError::Unreachable { origin, reason: "it closed the connection".to_owned() }
            }
            Self::Connect => {
                let waited_ms = site.connect_timeout.as_millis();
                let reason = format!("no connection within {waited_ms} ms");
                OriginError::Unreachable { origin, reason }
            }
            Self::Silent => OriginError::Timeout { origin, waited_ms: first_byte_ms(site) },
            Self::Client(error) => {
                let reason = chain(&error);
                let hyper = error.source().and_then(|source| source.downcast_ref::<hyper::Error>());
                if hyper.is_some_and(hyper::Error::is_parse) {
                    OriginError::Malformed { origin, reason }
                } else {
                    OriginError::Unreachable { origin, reason }
                }
            }
        }
    }
}

fn timeout(site: &Site) -> OriginError {
    OriginError::Timeout { origin: site.origin(), waited_ms: first_byte_ms(site) }
}

fn first_byte_ms(site: &Site) -> u64 {
    u64::try_from(site.first_byte_timeout.as_millis()).unwrap_or(u64::MAX)
}

/// An error with its causes.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn facts(captured: &CaptureConnection) -> Option<Arc<Facts>> {
    let mut extras = http::Extensions::new();
    captured.connection_metadata().as_ref()?.get_extras(&mut extras);
    extras.remove::<Arc<Facts>>()
}

/// RFC 9110 section 9.2.2, as far as nothing has to be sent twice that is gone after once.
fn is_repeatable(method: &Method, bodyless: bool) -> bool {
    let idempotent = [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE];
    bodyless && idempotent.contains(method)
}

#[cfg(test)]
mod reuse_tests;
#[cfg(test)]
mod tests;
