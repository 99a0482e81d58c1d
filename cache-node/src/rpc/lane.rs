//! Lanes: connections between members that carry chunks in frames of their own, beside gRPC, over
//! the same port with the same identities. What the frames are is `transfer`'s business; a lane is
//! bytes both ways and a name.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use shoal_proto::limits::CONNECT_DEADLINE_MS;
use shoal_proto::{ErrorKind, RpcError};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::refusals::Refusals;
use crate::tls::{self, Derived, HTTP2, IdentityError, MEMBER_NAME, Security};

/// What a lane is called where a connection's protocol is agreed on.
pub const LANE: &[u8] = b"shoal-lane/1";
/// Read from the system at once, in bytes: rustls asks for no more than 4 KiB by itself.
const READ_BYTES: usize = 128 * 1024;
/// Encrypted at once and not yet with the system, in bytes.
const ENCRYPTED_BYTES_MAX: usize = 256 * 1024;
/// A lane whose other end is silent is asked for a sign of life after so long, and so often.
const SILENT_S: u64 = 5;

/// Serves lanes.
pub trait ServesLanes: Send + Sync + 'static {
    /// Serves one until it ends; after `stop` no new request of it.
    fn serve(&self, lane: Lane, stop: CancellationToken) -> BoxFuture<'static, ()>;
}

/// The caller's end of a lane.
pub type LaneEnd = tokio_rustls::client::TlsStream<BufReader<TcpStream>>;

/// The called member's end of a lane.
pub struct Lane {
    /// What is read and written.
    pub stream: tokio_rustls::server::TlsStream<TcpStream>,
    /// Who is at the other end.
    pub caller: Caller,
}

/// Who is at the other end of a lane, for what it is refused.
pub struct Caller {
    name: String,
    refusals: Refusals,
}

impl Lane {
    pub(super) fn new(
        mut stream: tokio_rustls::server::TlsStream<TcpStream>,
        refusals: Refusals,
    ) -> Self {
        let (socket, session) = stream.get_mut();
        session.set_buffer_limit(Some(ENCRYPTED_BYTES_MAX));
        let first = session.peer_certificates().and_then(|chain| chain.first());
        let certified = first.and_then(|certificate| tls::name_of(certificate));
        let address = || socket.peer_addr().map(|address| address.ip().to_string());
        let name = certified.or_else(|| address().ok()).unwrap_or_else(|| "unknown".to_owned());
        Self { stream, caller: Caller { name, refusals } }
    }
}

impl Caller {
    /// What it was refused, taken in as gRPC's refusals are.
    pub fn refused(&self, status: &Status) {
        self.refusals.note(&self.name, "lane", status);
    }
}

/// Opens lanes to other members.
#[derive(Clone)]
pub struct Calling {
    config: Arc<Derived<Arc<ClientConfig>>>,
}

impl std::fmt::Debug for Calling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Calling")
    }
}

impl Calling {
    /// A caller with that identity; `None` in plain text, where there are no lanes.
    ///
    /// # Errors
    /// When the identity cannot be used.
    pub fn new(security: &Security) -> Result<Option<Self>, IdentityError> {
        Ok(security.calling(&[LANE, HTTP2])?.map(|config| Self { config: Arc::new(config) }))
    }

    /// A lane to the member called `name` at `address`; `None` when it speaks gRPC alone.
    ///
    /// # Errors
    /// `Retry` when it does not answer in time, or is somebody else.
    pub async fn call(&self, address: &str, name: &str) -> Result<Option<LaneEnd>, RpcError> {
        let expected = expected(name)?;
        let deadline = Duration::from_millis(CONNECT_DEADLINE_MS);
        let connect = async {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            tune(&socket);
            let socket = BufReader::with_capacity(READ_BYTES, socket);
            TlsConnector::from(self.config.get()).connect(expected, socket).await
        };
        let failed = |why: String| RpcError::new(ErrorKind::Retry, format!("{name}: {why}"));
        let connected = tokio::time::timeout(deadline, connect).await;
        let stream = connected
            .map_err(|_| failed(format!("no connection within {} ms", deadline.as_millis())))?
            .map_err(|error| failed(error.to_string()))?;
        let agreed = stream.get_ref().1.alpn_protocol() == Some(LANE);
        Ok(agreed.then_some(stream))
    }
}

fn expected(name: &str) -> Result<ServerName<'static>, RpcError> {
    let full = if name.is_empty() { MEMBER_NAME.to_owned() } else { tls::node_name(name) };
    ServerName::try_from(full).map_err(|_| {
        RpcError::new(ErrorKind::Invalid, format!("{name:?} cannot be a member's name"))
    })
}

/// A silent end is found out; where the system does not know an option, later.
pub(super) fn tune(socket: &TcpStream) {
    let silent = Duration::from_secs(SILENT_S);
    let alive = TcpKeepalive::new().with_time(silent).with_interval(silent).with_retries(1);
    let _ = SockRef::from(socket).set_tcp_keepalive(&alive);
}
