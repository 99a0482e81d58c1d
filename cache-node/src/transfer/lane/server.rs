//! Answers on a lane. Three things go on at a time, in one task: requests are read, the next chunk is
//! read from the store, and one is on its way.
//!
//! Invariants: requests that wait are bounded, and so are their bytes; chunks leave in the order in
//! which they were asked for, each in a slot of the node's; what was cancelled is not read any more;
//! a caller that breaks the rules is told why, counted, and loses its lane.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::FutureExt;
use futures::future::BoxFuture;
use prost::Message;
use shoal_proto::limits::STREAM_IDLE_MS;
use shoal_proto::wire::v1;
use shoal_proto::{ErrorKind, RpcError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::super::server::{Opened, PeerService, Upload};
use super::super::slots::Slots;
use super::frame::{BadFrame, HEADER_BYTES, Header, Kind, Refused};
use crate::rpc::{Lane, ServesLanes};

/// Requests of a lane that wait for their turn; more are told to try another holder.
const WAITING_MAX: usize = 64;
/// Chunks that are read ahead of the one on its way.
const AHEAD_MAX: usize = 1;

/// Serves chunks on lanes.
pub struct LaneService(Arc<PeerService>);

impl LaneService {
    pub(in crate::transfer) fn new(service: Arc<PeerService>) -> Self {
        Self(service)
    }
}

impl ServesLanes for LaneService {
    fn serve(&self, lane: Lane, stop: CancellationToken) -> BoxFuture<'static, ()> {
        let service = self.0.clone();
        async move {
            let Lane { stream, caller } = lane;
            let told = move |status: &Status| caller.refused(status);
            serve(tokio::io::split(stream), &service, &told, &stop).await;
        }
        .boxed()
    }
}

/// Numbers of what a caller asked for and still wants.
#[derive(Default)]
struct Wanted(Mutex<BTreeSet<u32>>);

impl Wanted {
    fn with<T>(&self, look: impl FnOnce(&mut BTreeSet<u32>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn holds(&self, number: u32) -> bool {
        self.with(|wanted| wanted.contains(&number))
    }

    fn close(&self, number: u32) {
        self.with(|wanted| wanted.remove(&number));
    }
}

/// One request, or what is said of it at once.
enum Asked {
    Chunks(u32, v1::GetChunksRequest),
    Refused(u32, Status),
}

/// One frame to be sent.
enum Answer {
    Chunk { number: u32, index: u32, data: Bytes, upload: Arc<Upload> },
    End(u32),
    Refused(u32, Status),
}

/// Takes in what its caller was refused.
type Told<'a> = &'a (dyn Fn(&Status) + Send + Sync);

async fn serve(
    lane: (impl AsyncRead + Unpin + Send, impl AsyncWrite + Unpin + Send),
    service: &PeerService,
    told: Told<'_>,
    stop: &CancellationToken,
) {
    let (reader, writer) = lane;
    let wanted = Wanted::default();
    let (asks, asked) = mpsc::channel(WAITING_MAX);
    let (answers, answered) = mpsc::channel(AHEAD_MAX);
    let reading = async {
        tokio::select! {
            () = stop.cancelled() => {}
            ended = read(reader, &wanted, &asks) => if let Err((number, bad)) = ended {
                // Whoever takes it is gone only when all of the lane is.
                let _ = asks.send(Asked::Refused(number, bad.status())).await;
            },
        }
        drop(asks);
    };
    let finding = find(service, (asked, answers), &wanted, told);
    let rest = async {
        tokio::join!(reading, finding);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        // It ends when all has been found and sent, or when nothing can be sent any more.
        () = write(writer, answered, &wanted, service.slots()) => {}
        () = rest => {}
    }
}

/// Takes in requests until there are no more.
async fn read(
    mut reader: impl AsyncRead + Unpin,
    wanted: &Wanted,
    asks: &mpsc::Sender<Asked>,
) -> Result<(), (u32, BadFrame)> {
    let mut header = [0; HEADER_BYTES];
    loop {
        if reader.read_exact(&mut header).await.is_err() {
            break;
        }
        let Header { kind, number, length, .. } = Header::decode(header).map_err(|bad| (0, bad))?;
        match kind {
            Kind::Cancel => wanted.close(number),
            Kind::Ask => {
                let mut request = vec![0; length as usize];
                if reader.read_exact(&mut request).await.is_err() {
                    break;
                }
                let asked = admit(wanted, number, &request).map_err(|bad| (number, bad))?;
                if asks.send(asked).await.is_err() {
                    break;
                }
            }
            _ => return Err((number, BadFrame::Order("a frame that no caller sends"))),
        }
    }
    // The caller is gone: what it asked for is of no use.
    wanted.with(BTreeSet::clear);
    Ok(())
}

fn admit(wanted: &Wanted, number: u32, request: &[u8]) -> Result<Asked, BadFrame> {
    let request = v1::GetChunksRequest::decode(request);
    let request = request.map_err(|_| BadFrame::Order("a request that cannot be read"))?;
    if wanted.with(|wanted| wanted.len()) >= WAITING_MAX {
        let why = format!("{WAITING_MAX} requests of this lane wait");
        return Ok(Asked::Refused(number, RpcError::new(ErrorKind::Retry, why).into()));
    }
    if !wanted.with(|wanted| wanted.insert(number)) {
        return Err(BadFrame::Order("a request with the number of another"));
    }
    Ok(Asked::Chunks(number, request))
}

/// Finds what is asked for, one request after the other. Ends when nobody takes it any more.
async fn find(
    service: &PeerService,
    (mut asked, answers): (mpsc::Receiver<Asked>, mpsc::Sender<Answer>),
    wanted: &Wanted,
    told: Told<'_>,
) {
    while let Some(asked) = asked.recv().await {
        let (number, found) = match asked {
            Asked::Refused(number, status) => (number, Err(status)),
            Asked::Chunks(number, request) => {
                let opened = service.open(&request).await;
                let found = match opened {
                    Ok(opened) => chunks(opened, number, wanted, &answers).await,
                    Err(status) => Err(status),
                };
                (number, found)
            }
        };
        let last = match found {
            Ok(()) => Answer::End(number),
            Err(status) => {
                told(&status);
                Answer::Refused(number, status)
            }
        };
        if answers.send(last).await.is_err() {
            return;
        }
    }
}

async fn chunks(
    opened: Opened,
    number: u32,
    wanted: &Wanted,
    answers: &mpsc::Sender<Answer>,
) -> Result<(), Status> {
    let Opened { source, chunks, upload } = opened;
    let upload = Arc::new(upload);
    for index in chunks {
        if !wanted.holds(number) {
            break;
        }
        let Some(data) = source.read(index).await? else { continue };
        let chunk = Answer::Chunk { number, index, data, upload: upload.clone() };
        if answers.send(chunk).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Sends what was found until there is no more, or it cannot be sent.
async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut answered: mpsc::Receiver<Answer>,
    wanted: &Wanted,
    slots: &Slots,
) {
    while let Some(answer) = answered.recv().await {
        let sent = match answer {
            Answer::Chunk { number, index, data, upload } => {
                let _slot = slots.take().await;
                if !wanted.holds(number) {
                    continue;
                }
                upload.sent(&data);
                let header = Header { index, ..Header::of(Kind::Chunk, number, data.len()) };
                send(&mut writer, header, data).await
            }
            Answer::End(number) => {
                wanted.close(number);
                send(&mut writer, Header::of(Kind::End, number, 0), Bytes::new()).await
            }
            Answer::Refused(number, status) => {
                wanted.close(number);
                let refused = Bytes::from(Refused::from(&status).encode_to_vec());
                let header = Header::of(Kind::Refused, number, refused.len());
                send(&mut writer, header, refused).await
            }
        };
        if sent.is_err() {
            return;
        }
    }
    let idle = Duration::from_millis(STREAM_IDLE_MS);
    // A caller that does not even take the end will see the connection's.
    let _ = tokio::time::timeout(idle, writer.shutdown()).await;
}

/// Sends a frame; an error when the other side takes nothing of it for too long.
pub(in crate::transfer) async fn send(
    writer: &mut (impl AsyncWrite + Unpin),
    header: Header,
    rest: Bytes,
) -> io::Result<()> {
    let idle = Duration::from_millis(STREAM_IDLE_MS);
    let header = header.encode();
    let mut frame = Buf::chain(&header[..], rest);
    while frame.has_remaining() {
        if tokio::time::timeout(idle, writer.write_buf(&mut frame)).await?? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    tokio::time::timeout(idle, writer.flush()).await?
}
