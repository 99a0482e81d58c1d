//! Asks on lanes, one a member, made when first used. A member that has no lanes is asked by gRPC,
//! and after a while for a lane again: it may have been replaced by a newer one.
//!
//! Invariants: a lane reads no more than was asked for, each frame bounded, and ends with the first
//! byte that should not be there; silence ends it too. What comes is not verified here.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{self, Stream};
use prost::Message;
use shoal_proto::limits::STREAM_IDLE_MS;
use shoal_proto::wire::v1;
use shoal_proto::{ErrorKind, RpcError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::mpsc;

use super::frame::{BadFrame, HEADER_BYTES, Header, Kind, Refused};
use super::server::send;
use crate::clock;
use crate::membership::Member;
use crate::rpc::{Calling, LaneEnd};
use crate::tasks::Tasks;
use crate::tls::{IdentityError, Security};

/// A member that speaks gRPC alone is not asked for a lane for so long.
const GRPC_ALONE_S: u64 = 60;
/// Requests of a lane that are not over.
const OPEN_MAX: usize = 64;
/// Chunks of one request that wait to be taken.
const TAKEN_MAX: usize = 8;
/// Members whose lanes are kept; all are made anew beyond it.
const PLACES_MAX: usize = 8_192;

/// A chunk, or none at the request's end.
type Piece = Result<Option<(u32, Bytes)>, RpcError>;
/// What whoever asked gets.
type Chunk = Result<(u32, Bytes), RpcError>;

/// Lanes to other members. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lanes {
    calling: Calling,
    tasks: Tasks,
    places: Arc<Mutex<HashMap<(String, String), Place>>>,
}

/// A member's lane; held while one is made, so that one is made at a time.
type Place = Arc<tokio::sync::Mutex<State>>;

#[derive(Debug)]
enum State {
    None,
    Open(Arc<Open>),
    GrpcAlone(Instant),
}

/// A lane that is open, or was.
#[derive(Debug)]
struct Open {
    orders: mpsc::Sender<Order>,
    next: AtomicU32,
    asked: Arc<Asked>,
}

#[derive(Debug)]
enum Order {
    Ask(u32, Vec<u8>),
    Cancel(u32),
}

/// Requests that are not over.
#[derive(Debug, Default)]
struct Asked(Mutex<BTreeMap<u32, Waiting>>);

#[derive(Debug)]
struct Waiting {
    /// Chunks that may still come.
    left: u32,
    to: mpsc::Sender<Piece>,
}

impl Asked {
    fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<u32, Waiting>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Lanes {
    /// No lanes yet; they live in `tasks`. `None` in plain text, where there are none.
    ///
    /// # Errors
    /// When the identity cannot be used.
    pub fn new(security: &Security, tasks: Tasks) -> Result<Option<Self>, IdentityError> {
        let calling = Calling::new(security)?;
        Ok(calling.map(|calling| Self { calling, tasks, places: Arc::default() }))
    }

    /// Asks for chunks; `None` when that member is to be asked by gRPC.
    ///
    /// # Errors
    /// When it does not answer; later failures come on the stream.
    pub(in crate::transfer) async fn ask(
        &self,
        peer: &Member,
        request: &v1::GetChunksRequest,
        chunks: &[u32],
    ) -> Result<Option<impl Stream<Item = Chunk> + Send + use<>>, RpcError> {
        let Some(lane) = self.lane(peer).await? else { return Ok(None) };
        let (to, taken) = mpsc::channel(chunks.len().clamp(1, TAKEN_MAX));
        let left = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        let number = lane.next.fetch_add(1, Ordering::Relaxed);
        let entered = lane.asked.with(|asked| {
            let room = asked.len() < OPEN_MAX && !asked.contains_key(&number);
            room && asked.insert(number, Waiting { left, to }).is_none()
        });
        if !entered {
            let why = format!("{}: {OPEN_MAX} requests are under way", peer.name);
            return Err(RpcError::new(ErrorKind::Retry, why));
        }
        let order = Order::Ask(number, request.encode_to_vec());
        if lane.orders.send(order).await.is_err() {
            lane.asked.with(|asked| asked.remove(&number));
            let why = format!("{}: the lane has just ended", peer.name);
            return Err(RpcError::new(ErrorKind::Retry, why));
        }
        Ok(Some(pieces(Request { taken, number, orders: lane.orders.clone(), over: false })))
    }

    async fn lane(&self, peer: &Member) -> Result<Option<Arc<Open>>, RpcError> {
        let place = self.place(peer);
        let mut state = place.lock().await;
        match &*state {
            State::Open(open) if !open.orders.is_closed() => return Ok(Some(open.clone())),
            State::GrpcAlone(since) if clock::since(*since).as_secs() < GRPC_ALONE_S => {
                return Ok(None);
            }
            _ => {}
        }
        *state = State::None;
        let Some(end) = self.calling.call(&peer.cluster_address, &peer.name).await? else {
            *state = State::GrpcAlone(clock::monotonic());
            return Ok(None);
        };
        let (orders, ordered) = mpsc::channel(OPEN_MAX);
        let asked = Arc::<Asked>::default();
        let open = Arc::new(Open { orders, next: AtomicU32::new(1), asked: asked.clone() });
        self.tasks.spawn_until_stopped("lane", drive(end, ordered, asked));
        *state = State::Open(open.clone());
        Ok(Some(open))
    }

    fn place(&self, peer: &Member) -> Place {
        let at = (peer.cluster_address.clone(), peer.name.clone());
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= PLACES_MAX && !places.contains_key(&at) {
            places.clear();
        }
        places.entry(at).or_insert_with(|| Arc::new(State::None.into())).clone()
    }
}

/// A request's end: dropped before it is over, it is cancelled.
struct Request {
    taken: mpsc::Receiver<Piece>,
    number: u32,
    orders: mpsc::Sender<Order>,
    over: bool,
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.over {
            // A lane that has no room for it sends a few chunks in vain.
            let _ = self.orders.try_send(Order::Cancel(self.number));
        }
    }
}

/// The request's chunks; too long a silence ends them in an error.
fn pieces(request: Request) -> impl Stream<Item = Chunk> + Send {
    stream::unfold(Some(request), |request| async move {
        let mut request = request?;
        let idle = Duration::from_millis(STREAM_IDLE_MS);
        match tokio::time::timeout(idle, request.taken.recv()).await {
            Ok(Some(Ok(Some(chunk)))) => Some((Ok(chunk), Some(request))),
            Ok(Some(ended)) => {
                request.over = true;
                ended.err().map(|error| (Err(error), None))
            }
            Ok(None) => Some((Err(RpcError::new(ErrorKind::Retry, "the lane was lost")), None)),
            Err(_) => {
                let error = RpcError::new(ErrorKind::Retry, "the peer's lane went silent");
                Some((Err(error), None))
            }
        }
    })
}

/// Carries a lane until it ends; whoever waits is told why.
async fn drive(end: LaneEnd, ordered: mpsc::Receiver<Order>, asked: Arc<Asked>) {
    let (reader, writer) = tokio::io::split(end);
    let error = tokio::select! {
        error = take_in(reader, &asked) => error,
        error = give_out(writer, ordered) => error,
    };
    let waiting = asked.with(std::mem::take);
    for waiting in waiting.into_values() {
        // Whoever still has chunks to take finds out then.
        let _ = waiting.to.try_send(Err(error.clone()));
    }
}

async fn give_out(
    mut writer: impl AsyncWrite + Unpin,
    mut ordered: mpsc::Receiver<Order>,
) -> RpcError {
    while let Some(order) = ordered.recv().await {
        let (header, request) = match order {
            Order::Ask(number, request) => {
                (Header::of(Kind::Ask, number, request.len()), Bytes::from(request))
            }
            Order::Cancel(number) => (Header::of(Kind::Cancel, number, 0), Bytes::new()),
        };
        let sent = send(&mut writer, header, request).await;
        if let Err(error) = sent {
            return lost(&error);
        }
    }
    RpcError::new(ErrorKind::Retry, "the lane is not used any more")
}

async fn take_in(mut reader: impl AsyncRead + Unpin, asked: &Asked) -> RpcError {
    loop {
        match take_frame(&mut reader, asked).await {
            Ok(()) => {}
            Err(Broken::Lost(error)) => return lost(&error),
            Err(Broken::Bad(bad)) => return RpcError::new(ErrorKind::Corrupt, bad.to_string()),
        }
    }
}

/// Why a lane is not read any further.
enum Broken {
    Lost(io::Error),
    Bad(BadFrame),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

impl From<BadFrame> for Broken {
    fn from(bad: BadFrame) -> Self {
        Self::Bad(bad)
    }
}

async fn take_frame(reader: &mut (impl AsyncRead + Unpin), asked: &Asked) -> Result<(), Broken> {
    let idle = Duration::from_millis(STREAM_IDLE_MS);
    let mut header = [0; HEADER_BYTES];
    let read = tokio::time::timeout(idle, reader.read_exact(&mut header)).await;
    read.map_err(io::Error::from)??;
    let Header { kind, number, index, length } = Header::decode(header)?;
    match kind {
        Kind::Chunk => {
            let to = asked.with(|asked| {
                let waiting = asked.get_mut(&number)?;
                waiting.left = waiting.left.checked_sub(1)?;
                Some(waiting.to.clone())
            });
            let to = to.ok_or(BadFrame::Order("a chunk that was not asked for"))?;
            let data = take(reader, length).await?;
            // Whoever has cancelled it has no use for it.
            let _ = to.send(Ok(Some((index, data)))).await;
        }
        Kind::End => {
            let ended = asked.with(|asked| asked.remove(&number));
            let ended = ended.ok_or(BadFrame::Order("the end of what was not asked for"))?;
            let _ = ended.to.send(Ok(None)).await;
        }
        Kind::Refused => {
            let refused = Refused::decode(take(reader, length).await?);
            let refused = refused.map_err(|_| BadFrame::Order("a refusal that cannot be read"))?;
            let ended = asked.with(|asked| asked.remove(&number));
            let ended = ended.ok_or(BadFrame::Order("a refusal of what was not asked for"))?;
            let _ = ended.to.send(Err(refused.into())).await;
        }
        Kind::Ask | Kind::Cancel => {
            return Err(BadFrame::Order("a frame that no holder sends").into());
        }
    }
    Ok(())
}

/// So many bytes, read into the place where they stay.
async fn take(reader: &mut (impl AsyncRead + Unpin), length: u32) -> io::Result<Bytes> {
    let length = length as usize;
    let idle = Duration::from_millis(STREAM_IDLE_MS);
    let mut bytes = BytesMut::with_capacity(length);
    while bytes.len() < length {
        let missing = length - bytes.len();
        let mut rest = (&mut bytes).limit(missing);
        if tokio::time::timeout(idle, reader.read_buf(&mut rest)).await?? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(bytes.freeze())
}

fn lost(error: &io::Error) -> RpcError {
    RpcError::new(ErrorKind::Retry, format!("the lane was lost: {error}"))
}
