//! The HTTP front of a node: HTTP/1.1 and HTTP/2 to clients, over TLS by ALPN, in clear by prior
//! knowledge.
//!
//! A request goes through steps (`request.rs`): received and understood, looked up, answered from
//! an object or passed to its origin, or answered here when none of these works. What a response
//! says about itself is composed in `respond.rs`; connections live and end in `accept.rs`.
//!
//! Invariants: a host that no site serves never causes a fetch; a response is whole or its
//! connection is cut; nothing a client sends or withholds holds a connection for ever; error texts
//! name no origin and no URL. It must not know where objects come from beyond [`ReadPath`].
//!
//! Decided (RFC 9111 section 5.2.1): of a client's `Cache-Control` counts what its site listens to,
//! by default what costs the origin nothing. Decided (RFC 9110 section 7.8): `Upgrade` is ignored
//! unless the site allows it (`tunnel.rs`). Not here: informational responses over HTTP/2, which
//! hyper's server cannot send; `CONNECT` and `TRACE`.

mod accept;
mod access;
mod body;
mod hit;
mod interim;
mod multipart;
mod purge;
mod request;
mod respond;
mod socket;
mod stream;
mod tls;
mod tunnel;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use http::StatusCode;
use shoal_proto::{ObjectKey, RpcError};
use tokio::sync::Semaphore;

pub use accept::{Door, serve};
pub use access::{AccessAddresses, AccessFormat, AccessLog};
pub use purge::TokenPurges;
pub use tls::{EdgeTls, EdgeTlsError};

use crate::current::Current;
use crate::fetch::{
    FetchError, FetchRequest, Fetched, Fetcher, Hit, OriginRequest, OriginResponse, Purged,
    Question, Switched,
};
use crate::metrics::EdgeMetrics;
use crate::policy::site::{Site, Sites};
use purge::Purges;
use tunnel::Tunnels;

/// The edge's limits. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeConfig {
    /// The answer for a host that no site serves: 421 (RFC 9110 section 15.5.20) or 404.
    pub unknown_host: StatusCode,
    /// Most client connections at a time; more wait to be accepted.
    pub connections_max: usize,
    /// Longest wait for a request head, on an idle connection too.
    pub head_ms: u64,
    /// A client of HTTP/1 that asks for nothing for so long is parked, which costs less memory.
    pub park_ms: u64,
    /// Longest silence within a request body.
    pub upload_silence_ms: u64,
    /// Longest time in which a client takes no byte of what is sent.
    pub stall_ms: u64,
    /// How long requests in flight may take to end when the edge stops.
    pub drain_ms: u64,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            unknown_host: StatusCode::MISDIRECTED_REQUEST,
            connections_max: 16_384,
            head_ms: 10_000,
            park_ms: 100,
            upload_silence_ms: 30_000,
            stall_ms: 60_000,
            drain_ms: 20_000,
        }
    }
}

/// What the edge asks of the read path.
pub trait ReadPath: Send + Sync + 'static {
    /// The response for a key where it is at hand, without a wait; `None` says nothing, and
    /// [`ReadPath::get`] is to be asked.
    fn hit(&self, asked: &Question<'_>) -> Option<Hit>;

    /// The response for a key, for `GET` and `HEAD`.
    fn get(
        &self,
        request: FetchRequest,
    ) -> impl Future<Output = Result<Fetched, FetchError>> + Send;

    /// A request straight to the origin, streamed both ways.
    fn pass(
        &self,
        site: Arc<Site>,
        request: OriginRequest,
    ) -> impl Future<Output = Result<OriginResponse, FetchError>> + Send;

    /// A request that wants to switch its connection to another protocol.
    fn switch(
        &self,
        site: Arc<Site>,
        request: OriginRequest,
        protocol: &str,
    ) -> impl Future<Output = Result<Switched, FetchError>> + Send;

    /// Purges the URL of that key with all its variants; nobody serves it once this has returned.
    fn purge(
        &self,
        site: &Site,
        key: ObjectKey,
        soft: bool,
    ) -> impl Future<Output = Result<Purged, RpcError>> + Send;

    /// After a successful unsafe request: nobody serves the URL's object, or a variant of it, from
    /// here on.
    fn invalidate(&self, site: &Site, key: ObjectKey) -> impl Future<Output = ()> + Send;
}

impl ReadPath for Fetcher {
    fn hit(&self, asked: &Question<'_>) -> Option<Hit> {
        Self::hit(self, asked)
    }

    async fn get(&self, request: FetchRequest) -> Result<Fetched, FetchError> {
        Self::get(self, request).await
    }

    async fn pass(
        &self,
        site: Arc<Site>,
        request: OriginRequest,
    ) -> Result<OriginResponse, FetchError> {
        Self::pass(self, site, request).await
    }

    async fn switch(
        &self,
        site: Arc<Site>,
        request: OriginRequest,
        protocol: &str,
    ) -> Result<Switched, FetchError> {
        Self::switch(self, site, request, protocol).await
    }

    async fn purge(&self, site: &Site, key: ObjectKey, soft: bool) -> Result<Purged, RpcError> {
        Self::purge(self, site, key, soft).await
    }

    async fn invalidate(&self, site: &Site, key: ObjectKey) {
        Self::invalidate(self, site, key).await;
    }
}

/// The edge over a read path.
#[derive(Debug)]
pub struct Edge<R> {
    config: EdgeConfig,
    sites: Arc<Current<Sites>>,
    secret: [u8; 32],
    read_path: R,
    metrics: EdgeMetrics,
    /// Connections that may still come, through whatever door.
    slots: Arc<Semaphore>,
    access: Option<Arc<AccessLog>>,
    leaving: Arc<AtomicBool>,
    purges: Purges,
    tunnels: Tunnels,
}

impl<R: ReadPath> Edge<R> {
    /// An edge for `sites`, whichever they are when a request comes; `secret` is the cluster's, for keys.
    pub fn new(
        config: EdgeConfig,
        sites: Arc<Current<Sites>>,
        secret: [u8; 32],
        read_path: R,
        metrics: EdgeMetrics,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(config.connections_max));
        let tunnels = Tunnels::new(metrics.tunnels.clone());
        Self {
            config,
            sites,
            secret,
            read_path,
            metrics,
            slots,
            access: None,
            leaving: Arc::default(),
            purges: Purges::default(),
            tunnels,
        }
    }

    /// While it is set, every response over HTTP/1.1 asks its client to come by another connection,
    /// which a balancer takes elsewhere. Nobody is cut off: HTTP/2 has its own word when it ends.
    pub fn leaving(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.leaving)
    }

    /// The same, and those whom `tokens` says may purge by a token.
    #[must_use]
    pub fn with_token_purges(mut self, tokens: TokenPurges) -> Self {
        self.purges.tokens = tokens;
        self
    }

    /// The same, and every response has a line in `log`.
    #[must_use]
    pub fn with_access_log(self, log: AccessLog) -> Self {
        Self { access: Some(Arc::new(log)), ..self }
    }
}

#[cfg(test)]
mod tests;
