//! Connections to origins: name, TCP, TLS. Addresses are tried in the order that the resolver
//! gives.
//!
//! Invariants: certificates are always verified; how many addresses are tried is bounded; an address
//! that no origin may have is not connected to, whatever name led there. The deadline of the whole
//! belongs to the caller.

use std::future::{Future, Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use tokio::net::TcpStream;
use tower_service::Service;

use super::tracked::Tracked;
use crate::clock;
use crate::policy::address::may_be_origin;
use crate::tasks::Tasks;

/// Addresses tried for one connection.
const ADDRESSES_MAX: usize = 8;
/// Longest wait for one address while others remain, in milliseconds.
const ADDRESS_MS: u64 = 1_000;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Plain = TokioIo<TcpStream>;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[error("TLS towards origins cannot be set up: {0}")]
pub struct OriginSetupError(#[from] rustls::Error);

fn tls() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}

/// TLS that trusts `roots` alone.
pub(super) fn tls_with(roots: RootCertStore) -> Result<ClientConfig, OriginSetupError> {
    Ok(tls()?.with_root_certificates(roots).with_no_client_auth())
}

/// TLS that trusts the system's root certificates. To have none is no fault by itself: origins may
/// all be plain HTTP.
pub(super) fn native_tls() -> Result<ClientConfig, OriginSetupError> {
    match tls()?.with_native_roots() {
        Ok(tls) => Ok(tls.with_no_client_auth()),
        Err(error) => {
            tracing::warn!(
                %error,
                "no root certificates: origins at https:// will be refused; install \
                 ca-certificates or set SSL_CERT_FILE"
            );
            tls_with(RootCertStore::empty())
        }
    }
}

/// Spawns what drives the connections.
#[derive(Clone, Debug)]
pub(super) struct Connections(pub(super) Tasks);

impl<F> hyper::rt::Executor<F> for Connections
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, connection: F) {
        self.0.spawn_until_stopped("origin-connection", connection);
    }
}

/// Opens connections.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    tls: Arc<ClientConfig>,
}

impl Connector {
    /// Offers these protocols by ALPN.
    pub(super) fn new(mut tls: ClientConfig, alpn: &[&[u8]]) -> Self {
        tls.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Self { tls: Arc::new(tls) }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Tracked<TokioIo<MaybeHttpsStream<Plain>>>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = Arc::clone(&self.tls);
        Box::pin(async move {
            let (tcp, round_trip) = connect(&uri).await?;
            let tcp = Opened(Some(TokioIo::new(tcp)));
            let stream = HttpsConnector::from((tcp, tls)).call(uri).await?;
            Ok(TokioIo::new(Tracked::new(TokioIo::new(stream), round_trip)))
        })
    }
}

/// A TCP connection, and how long its handshake took: one round trip.
async fn connect(uri: &Uri) -> io::Result<(TcpStream, Duration)> {
    let host = uri.host().unwrap_or("").trim_start_matches('[').trim_end_matches(']');
    let own_port = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    let port = uri.port_u16().unwrap_or(own_port);
    let found = tokio::net::lookup_host((host, port)).await?.take(ADDRESSES_MAX);
    let mut addresses = found.filter(|address| may_be_origin(address.ip())).peekable();
    let none = "the name has no address, or none that an origin may have";
    let mut last = io::Error::new(io::ErrorKind::NotFound, none);
    while let Some(address) = addresses.next() {
        let start = clock::monotonic();
        let opening = TcpStream::connect(address);
        let opened = if addresses.peek().is_some() {
            tokio::time::timeout(Duration::from_millis(ADDRESS_MS), opening)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        } else {
            opening.await
        };
        match opened {
            Ok(tcp) => {
                let round_trip = clock::since(start);
                tcp.set_nodelay(true)?;
                return Ok((tcp, round_trip));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A connection that is already open, as the TLS layer wants it.
struct Opened(Option<Plain>);

impl Service<Uri> for Opened {
    type Response = Plain;
    type Error = io::Error;
    type Future = Ready<io::Result<Plain>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}
