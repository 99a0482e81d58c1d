//! The cluster listener of a member that serves lanes too: one port, one identity; what a
//! connection speaks, gRPC or a lane, is agreed on while it is secured (RFC 7301).
//!
//! Invariants: nobody comes in without a certificate of the cluster's authority; handshakes and
//! lanes are bounded in number, handshakes in time. Plain text has no lanes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::lane::{LANE, Lane, ServesLanes, tune};
use super::{MemberRouter, Refusals, UNSENT_BYTES_MAX, serve};
use crate::tasks::Tasks;
use crate::tls::{Derived, HTTP2, IdentityError, Security};

/// For a handshake, in milliseconds.
const HANDSHAKE_MS: u64 = 5_000;
/// Handshakes at a time; who comes then waits in the system's queue.
const HANDSHAKES_MAX: usize = 256;
/// Lanes at a time; more are closed, and their callers ask others.
const LANES_MAX: u32 = 1_024;
/// Secured connections that wait for the gRPC server.
const SECURED_MAX: usize = 64;
/// After a connection could not be taken in, in milliseconds.
const PAUSE_MS: u64 = 50;
/// For tasks to end that were told to, in milliseconds.
const END_MS: u64 = 500;

/// Where connections come in, and who serves the lanes among them.
pub struct Door {
    listener: TcpListener,
    config: Option<Derived<Arc<ServerConfig>>>,
    lanes: Option<Arc<dyn ServesLanes>>,
    refusals: Refusals,
}

impl Door {
    /// A door, with lanes where somebody serves them. What is refused on lanes is counted.
    ///
    /// # Errors
    /// When the identity cannot be used.
    pub fn new(
        listener: TcpListener,
        security: &Security,
        lanes: Option<Arc<dyn ServesLanes>>,
        refusals: Refusals,
    ) -> Result<Self, IdentityError> {
        let protocols: &[&[u8]] = if lanes.is_some() { &[LANE, HTTP2] } else { &[HTTP2] };
        let config = security.accepting(protocols)?;
        Ok(Self { listener, config, lanes, refusals })
    }
}

/// Serves `router`, of a [`super::plain_server`], and lanes at `door` until `stop`, then lets what
/// runs end for at most `grace`.
///
/// # Errors
/// When the listener fails.
pub async fn serve_at(
    router: MemberRouter,
    door: Door,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), tonic::transport::Error> {
    let Door { listener, config, lanes, refusals } = door;
    let Some(config) = config else { return serve(router, listener, stop, grace).await };
    let tasks = Tasks::new();
    let (sender, secured) = mpsc::channel(SECURED_MAX);
    let places = Arc::new(Semaphore::new(LANES_MAX as usize));
    let hall = Hall {
        config: Arc::new(config),
        handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
        places: places.clone(),
        lanes,
        refusals,
        grpc: sender,
        tasks: tasks.clone(),
        stop: stop.clone(),
    };
    tasks.spawn_until_stopped("cluster-door", hall.open(listener));
    let ended = stop.clone();
    let incoming = ReceiverStream::new(secured);
    let serving = async {
        let served = router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await;
        // All places are free when every lane has sent what it had begun.
        let _ = places.acquire_many(LANES_MAX).await;
        served
    };
    let served = tokio::select! {
        served = serving => served,
        () = async { ended.cancelled().await; tokio::time::sleep(grace).await } => Ok(()),
    };
    tasks.shutdown(Duration::from_millis(END_MS)).await;
    served
}

#[derive(Clone)]
struct Hall {
    config: Arc<Derived<Arc<ServerConfig>>>,
    handshakes: Arc<Semaphore>,
    places: Arc<Semaphore>,
    lanes: Option<Arc<dyn ServesLanes>>,
    refusals: Refusals,
    grpc: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
    tasks: Tasks,
    stop: CancellationToken,
}

impl Hall {
    async fn open(self, listener: TcpListener) {
        while !self.stop.is_cancelled() {
            let Ok(permit) = self.handshakes.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let hall = self.clone();
                    self.tasks.spawn_until_stopped("cluster-connection", async move {
                        let secured = hall.secure(stream).await;
                        drop(permit);
                        if let Some(stream) = secured {
                            hall.hand_over(stream).await;
                        }
                    });
                }
                Err(error) => {
                    // Too many files, or a caller that is gone already.
                    tracing::debug!(%error, "a connection could not be taken in");
                    tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
                }
            }
        }
    }

    async fn secure(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        // Where the system does not know the option, more waits in its buffers: no harm beyond time.
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
        let _ = stream.set_nodelay(true);
        let handshake = TlsAcceptor::from(self.config.get()).accept(stream);
        let deadline = Duration::from_millis(HANDSHAKE_MS);
        match tokio::time::timeout(deadline, handshake).await.map_err(io::Error::other) {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) | Err(error) => {
                tracing::debug!(%error, "a connection was not secured");
                None
            }
        }
    }

    async fn hand_over(&self, stream: TlsStream<TcpStream>) {
        if stream.get_ref().1.alpn_protocol() != Some(LANE) {
            // Once the server has stopped nobody is there to take it.
            let _ = self.grpc.send(Ok(stream)).await;
            return;
        }
        let Ok(_place) = self.places.clone().try_acquire_owned() else { return };
        tune(stream.get_ref().0);
        let lane = Lane::new(stream, self.refusals.clone());
        if let Some(lanes) = &self.lanes {
            lanes.serve(lane, self.stop.clone()).await;
        }
    }
}
