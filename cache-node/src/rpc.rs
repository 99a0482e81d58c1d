//! gRPC between members: tuned channels, tuned servers, deadlines and callers' identities.
//!
//! Windows and frames are set by hand: with hyper's defaults one stream carries about half as much
//! (`docs/adr/0003`). Every call goes out with a deadline; see [`with_deadline`].

#[cfg(test)]
pub(crate) mod arbitrary;
mod door;
mod lane;
mod refusals;
mod watched;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::TryStreamExt;
use shoal_proto::limits::{CONNECT_DEADLINE_MS, RPC_MESSAGE_BYTES_MAX};
use shoal_proto::{ErrorKind, RpcError};
use socket2::SockRef;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Router;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tower_layer::{Identity, Stack};

pub use door::{Door, serve_at};
pub use lane::{Caller, Calling, LANE, Lane, LaneEnd, ServesLanes};
pub use refusals::{Refusal, Refusals};

use crate::tls::{Security, claims_name};
use watched::Watch;

/// Bytes in flight on one stream.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Bytes in flight on one connection.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// Largest HTTP/2 frame.
const FRAME_BYTES_MAX: u32 = 1024 * 1024;
/// Bytes that the system takes on a connection before it has sent those before them: what has not
/// left yet is ours to order.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;
/// Concurrent streams of one connection.
const STREAMS_MAX: u32 = 1_024;
/// Between two pings on an idle connection.
const KEEP_ALIVE_S: u64 = 5;
/// Most channels kept; the cache starts anew beyond it.
const CHANNELS_MAX: usize = 8_192;

/// Largest message, for generated clients and servers.
pub const MESSAGE_BYTES_MAX: usize = RPC_MESSAGE_BYTES_MAX;

/// Connections to other members, made when first used and shared from then on.
#[derive(Clone, Debug)]
pub struct Channels {
    security: Security,
    open: Arc<Mutex<Open>>,
}

/// Channels by address and name, all made with one identity.
#[derive(Debug, Default)]
struct Open {
    generation: u64,
    channels: HashMap<(String, String), Channel>,
}

impl Channels {
    /// No connections yet.
    pub fn new(security: Security) -> Self {
        Self { security, open: Arc::default() }
    }

    /// How these connections are secured.
    pub fn security(&self) -> &Security {
        &self.security
    }

    /// A channel to `address` (`host:port`), expecting the member called `name` there; an empty
    /// name accepts any member. Connects in the background; calls fail while it cannot.
    ///
    /// # Errors
    /// `Invalid` when the address cannot be one.
    pub fn to(&self, address: &str, name: &str) -> Result<Channel, RpcError> {
        let at = (address.to_owned(), name.to_owned());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.security.generation();
        if open.generation != generation || open.channels.len() >= CHANNELS_MAX {
            // Calls that run keep the channel that they began on.
            *open = Open { generation, channels: HashMap::new() };
        }
        if let Some(channel) = open.channels.get(&at) {
            return Ok(channel.clone());
        }
        let channel = self.endpoint(address, name)?.connect_lazy();
        open.channels.insert(at, channel.clone());
        Ok(channel)
    }

    fn endpoint(&self, address: &str, name: &str) -> Result<Endpoint, RpcError> {
        let bad = |error: tonic::transport::Error| {
            RpcError::new(
                ErrorKind::Invalid,
                format!("address {address:?}: {error}; expected host:port"),
            )
        };
        let expected = Some(name).filter(|name| !name.is_empty());
        let tls = self.security.client(expected);
        let scheme = if tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .map_err(bad)?
            .connect_timeout(Duration::from_millis(CONNECT_DEADLINE_MS))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(KEEP_ALIVE_S))
            .keep_alive_timeout(Duration::from_secs(KEEP_ALIVE_S))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .http2_max_header_list_size(16 * 1024);
        match tls {
            Some(tls) => endpoint.tls_config(tls).map_err(bad),
            None => Ok(endpoint),
        }
    }
}

/// A layer that looks at every answer.
type Layers = Stack<Watch, Identity>;

/// A server's services behind the layers that every member's server has.
pub type MemberRouter = Router<Layers>;

/// A server with Shoal's windows, frames and security; services are added to it. What it refuses
/// is counted nowhere: for tests.
///
/// # Errors
/// When the identity cannot be used for TLS.
pub fn server(security: &Security) -> Result<Server<Layers>, tonic::transport::Error> {
    server_with(security, Refusals::default())
}

/// The same server; what it refuses is counted and logged.
///
/// # Errors
/// When the identity cannot be used for TLS.
pub fn server_with(
    security: &Security,
    refusals: Refusals,
) -> Result<Server<Layers>, tonic::transport::Error> {
    let server = plain_server(refusals);
    match security.server() {
        Some(tls) => server.tls_config(tls),
        None => Ok(server),
    }
}

/// The same server for [`serve_at`], whose door secures connections.
pub fn plain_server(refusals: Refusals) -> Server<Layers> {
    Server::builder()
        .layer(Watch { refusals })
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(Duration::from_secs(KEEP_ALIVE_S)))
        .http2_keepalive_timeout(Some(Duration::from_secs(KEEP_ALIVE_S)))
}

/// Serves `router` on `listener` until `stop`, then lets running calls end for at most `grace`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    router: MemberRouter,
    listener: tokio::net::TcpListener,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), tonic::transport::Error> {
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let incoming = incoming.inspect_ok(|stream| {
        // Where the system does not know the option, more waits in its buffers: no harm beyond time.
        let _ = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
    });
    let ended = stop.clone();
    tokio::select! {
        served = router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()) => served,
        () = async { ended.cancelled().await; tokio::time::sleep(grace).await } => Ok(()),
    }
}

/// Whether `address` refuses connections, so that no process listens there. An answer, a time-out and
/// an unknown name are no refusals.
pub async fn refuses(address: &str, deadline: Duration) -> bool {
    let connected = tokio::time::timeout(deadline, tokio::net::TcpStream::connect(address)).await;
    matches!(connected, Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// Runs a call within `deadline`.
///
/// # Errors
/// What the call failed with, or `Retry` when the deadline passed.
pub async fn with_deadline<T>(
    deadline: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, RpcError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(status.into()),
        Err(_) => Err(RpcError::new(
            ErrorKind::Retry,
            format!("no answer within {} ms", deadline.as_millis()),
        )),
    }
}

/// Checks that the caller is the member called `name`, as its certificate says.
///
/// # Errors
/// `Denied` when it is somebody else. Plain-text clusters check nothing.
pub fn check_caller<T>(
    security: &Security,
    request: &Request<T>,
    name: &str,
) -> Result<(), RpcError> {
    if matches!(security, Security::Insecure) {
        return Ok(());
    }
    let certificates = request.peer_certs();
    let first = certificates.as_ref().and_then(|chain| chain.first());
    if first.is_some_and(|certificate| claims_name(certificate, name)) {
        return Ok(());
    }
    let message = format!("the caller's certificate is not that of member {name:?}");
    Err(RpcError::new(ErrorKind::Denied, message))
}
