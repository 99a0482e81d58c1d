//! One request, sent once. With `--resend` it is sent again in one case, and that is counted: when a
//! connection that had served before ended without a byte of the reply; see `reused`.
//!
//! The client's own repetition of requests is off. Time counts from the intended moment; the
//! timeout counts from sending.

use std::{error::Error, fmt::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyStream, Empty};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, capture_connection},
    },
    rt::TokioTimer,
};

use super::{
    reused::{self, Connector},
    verify::Verifier,
};
use crate::{
    clock::Clock,
    content::{Content, ObjectName},
    sample::{CacheStatus, Failure, FailureKind, Sample},
    scenario::{EdgeUrl, Scenario},
    tasks::Group,
    workload::{Catalog, Due},
};

/// Idle connections kept for one edge.
pub const IDLE_CONNECTIONS_MAX: usize = 512;
/// An idle connection is dropped after so long, before servers usually do it.
pub const IDLE_CONNECTION_MS: u64 = 4_000;
/// The longest wait for a connection.
pub const CONNECT_TIMEOUT_MS: u64 = 5_000;
/// What a connection reads ahead.
pub const CONNECTION_BUFFER_MAX_BYTES: usize = 128 << 10;
/// Times that one request is sent again: so many connections may have been closed at a time.
pub const RESENDS_MAX: u32 = 16;

/// A client for plain HTTP/1.1 without a request body.
pub type HttpClient = Client<Connector, Empty<Bytes>>;

/// A client whose connections live in `connections`.
#[must_use]
pub fn client(connections: Group) -> HttpClient {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(Duration::from_millis(CONNECT_TIMEOUT_MS)));
    Client::builder(connections)
        .retry_canceled_requests(false)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .pool_idle_timeout(Duration::from_millis(IDLE_CONNECTION_MS))
        .pool_timer(TokioTimer::new())
        .http1_max_buf_size(CONNECTION_BUFFER_MAX_BYTES)
        .build(Connector(connector))
}

/// Sends the requests of one run.
#[derive(Debug)]
pub struct Sender {
    client: HttpClient,
    content: Content,
    catalog: Arc<Catalog>,
    clock: Clock,
    timeout: Duration,
    host: Option<HeaderValue>,
    resend: bool,
    close_every: Option<u64>,
}

/// What a request has come to so far; kept outside the timeout so that it survives it.
#[derive(Debug, Default)]
struct Progress {
    head: bool,
    first_byte: Option<Duration>,
    received_bytes: u64,
    cache_status: CacheStatus,
    resent: u32,
}

impl Sender {
    /// A sender for `scenario`, whose host name has been checked.
    #[must_use]
    pub fn new(
        scenario: &Scenario,
        catalog: Arc<Catalog>,
        clock: Clock,
        connections: Group,
    ) -> Self {
        let host = scenario.host.as_ref();
        Self {
            client: client(connections),
            content: Content::new(scenario.seed),
            catalog,
            clock,
            timeout: scenario.timeout,
            host: host.and_then(|host| HeaderValue::from_str(host).ok()),
            resend: scenario.resend,
            close_every: scenario.close_every,
        }
    }

    /// Sends one request and verifies its reply.
    pub async fn send(&self, due: Due, edge: usize, url: &EdgeUrl) -> Sample {
        let sent = self.clock.now();
        let mut progress = Progress::default();
        let exchange = self.exchange(due, url, &mut progress);
        let failure = match tokio::time::timeout(self.timeout, exchange).await {
            Ok(result) => result.err(),
            Err(_) => Some(self.timed_out(due.object, &progress)),
        };
        Sample {
            edge,
            object: due.object,
            intended: due.at,
            sent,
            first_byte: progress.first_byte,
            finished: self.clock.now(),
            received_bytes: progress.received_bytes,
            cache_status: progress.cache_status,
            resent: progress.resent,
            failure,
        }
    }

    async fn exchange(
        &self,
        due: Due,
        url: &EdgeUrl,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let path = self.catalog.path(due.object);
        let name = ObjectName::parse(&path)
            .map_err(|error| Failure::new(FailureKind::Wrong, error.to_string()))?;
        let last = self.close_every.is_some_and(|every| due.number % every == every - 1);
        let response = self.head((url, &path), last, progress).await?;
        progress.head = true;
        progress.cache_status = cache_status(&response);
        if response.status() != StatusCode::OK {
            return Err(Failure::new(FailureKind::Status, response.status().to_string()));
        }
        let mut verifier = Verifier::new(self.content.open(&name, 0));
        let mut frames = BodyStream::new(response.into_body());
        while let Some(frame) = frames.next().await {
            let frame = frame.map_err(|error| verifier.truncated(&chain(&error)))?;
            let Ok(data) = frame.into_data() else { continue };
            progress.first_byte.get_or_insert_with(|| self.clock.now());
            progress.received_bytes += data.len() as u64;
            verifier.feed(&data)?;
        }
        progress.first_byte.get_or_insert_with(|| self.clock.now());
        verifier.finish()
    }

    /// Sends a request, the `last` of its connection, and awaits the reply's head.
    async fn head(
        &self,
        (url, path): (&EdgeUrl, &str),
        last: bool,
        progress: &mut Progress,
    ) -> Result<Response<Incoming>, Failure> {
        loop {
            let mut request = self
                .request(url, path)
                .map_err(|error| Failure::new(FailureKind::Connect, chain(&error)))?;
            if last {
                request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            let connection = capture_connection(&mut request);
            let error = match self.client.request(request).await {
                Ok(response) => {
                    reused::note(&connection);
                    return Ok(response);
                }
                Err(error) => error,
            };
            let excused = !error.is_connect() && reused::had_served(&connection);
            if !self.resend || !excused || progress.resent >= RESENDS_MAX {
                return Err(no_head(&error));
            }
            progress.resent += 1;
        }
    }

    fn request(&self, url: &EdgeUrl, path: &str) -> Result<Request<Empty<Bytes>>, http::Error> {
        let mut builder = Request::get(format!("{url}{path}"))
            .header(header::USER_AGENT, concat!("shoal-loadtest/", env!("CARGO_PKG_VERSION")));
        if let Some(host) = &self.host {
            builder = builder.header(header::HOST, host);
        }
        builder.body(Empty::new())
    }

    fn timed_out(&self, object: usize, progress: &Progress) -> Failure {
        let seen = if progress.head {
            let size = self.catalog.size_bytes(object);
            format!("{} of {size} bytes received", progress.received_bytes)
        } else {
            "no reply".to_owned()
        };
        let detail = format!("{seen} after {}", crate::units::show_duration(self.timeout));
        Failure::new(FailureKind::Timeout, detail)
    }
}

fn cache_status(response: &Response<Incoming>) -> CacheStatus {
    let lines = response.headers().get_all("cache-status").iter();
    CacheStatus::parse(lines.filter_map(|line| line.to_str().ok()))
}

fn no_head(error: &hyper_util::client::legacy::Error) -> Failure {
    let kind = if error.is_connect() { FailureKind::Connect } else { FailureKind::Closed };
    Failure::new(kind, chain(error))
}

/// The error and its causes in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.ends_with(&message) {
            // Writing to a String cannot fail.
            let _ = write!(text, ": {message}");
        }
        cause = error.source();
    }
    text
}
