//! Lanes over real sockets, with real certificates: what they carry, what they refuse, and how they
//! end. Peers that lie on them stand in `transfer/tests`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use shoal_proto::limits::CHUNK_BYTES_MIN;
use shoal_proto::{ErrorKind, Manifest, RpcError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::frame::{HEADER_BYTES, Header, Kind};
use crate::membership::Member;
use crate::metrics::{Metrics, RefusalMetrics};
use crate::rpc::{self, Calling, Door, Lane, Refusals, ServesLanes};
use crate::tasks::Tasks;
use crate::tls::Security;
use crate::transfer::client::Wanted;
use crate::transfer::tests::ways::{Authority, Way};
use crate::transfer::tests::{KEY, LENGTH, Node, body, member, node_by};
use crate::transfer::{Lanes, Peers};

/// What never takes so long.
const DEADLINE: Duration = Duration::from_secs(30);

async fn held() -> (Node, Node, Manifest, Bytes) {
    let (holder, taker) = (node_by(Way::Lane, 1).await, node_by(Way::Lane, 2).await);
    let body = body(LENGTH);
    let manifest = holder.hold(&body).await;
    (holder, taker, manifest, body)
}

fn wanted(manifest: &Manifest) -> Wanted {
    Wanted { key: KEY, object: Some(manifest.object_id()), growth: 0 }
}

async fn take(
    peers: &Peers,
    from: &Member,
    wanted: Wanted,
    chunks: &[u32],
) -> Result<Vec<(u32, Bytes)>, RpcError> {
    let pieces = peers.chunks(from, wanted, chunks).await?;
    let all = async { pieces.collect::<Vec<_>>().await.into_iter().collect() };
    tokio::time::timeout(DEADLINE, all).await.expect("the pieces never end")
}

fn chunk(body: &Bytes, index: u32) -> Bytes {
    let size = CHUNK_BYTES_MIN as usize;
    let start = index as usize * size;
    body.slice(start..(start + size).min(body.len()))
}

/// A member whose gRPC knows no service: what comes from it comes by lanes.
async fn lanes_alone(lanes: impl ServesLanes, id: u64, tasks: &Tasks) -> Member {
    serve(Arc::new(lanes), Refusals::default(), id, tasks).await
}

async fn serve(lanes: Arc<dyn ServesLanes>, refusals: Refusals, id: u64, tasks: &Tasks) -> Member {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let member = member(id, listener.local_addr().unwrap());
    let router = rpc::plain_server(refusals.clone()).add_routes(tonic::service::Routes::default());
    let door = Door::new(listener, &Way::Lane.security(id), Some(lanes), refusals).unwrap();
    let stop = tasks.token();
    tasks.spawn("door", async move {
        rpc::serve_at(router, door, stop, Duration::from_millis(100)).await.unwrap();
    });
    member
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_come_by_a_lane_in_the_order_asked_and_what_is_not_there_is_left_out() {
    let (holder, taker, manifest, body) = held().await;
    let lanes = lanes_alone(holder.lanes(), 1, &holder.tasks).await;
    let last = manifest.chunk_count() - 1;
    let got = take(&taker.peers, &lanes, wanted(&manifest), &[3, last, 0]).await.unwrap();
    let expected = [3, last, 0].map(|index| (index, chunk(&body, index)));
    assert_eq!(got, expected);
    let bytes: usize = expected.iter().map(|(_, chunk)| chunk.len()).sum();
    assert_eq!(holder.metrics.bytes_out.get(), bytes as u64);
    let missing = Wanted { growth: 9, object: None, ..wanted(&manifest) };
    let refused = take(&taker.peers, &lanes, missing, &[0]).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::NotFound, "{refused}");
    // The lane goes on.
    assert_eq!(take(&taker.peers, &lanes, wanted(&manifest), &[1]).await.unwrap().len(), 1);
    assert_eq!(holder.metrics.uploads.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_lanes_is_asked_by_grpc_and_one_in_plain_text_too() {
    let (holder, taker, manifest, body) = held().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let older = member(1, listener.local_addr().unwrap());
    let server = rpc::server(&Way::Lane.security(1)).unwrap().add_service(holder.grpc());
    let stop = holder.tasks.token();
    holder.tasks.spawn("older", async move {
        rpc::serve(server, listener, stop, Duration::from_millis(100)).await.unwrap();
    });
    for _ in 0..2 {
        let got = take(&taker.peers, &older, wanted(&manifest), &[2]).await.unwrap();
        assert_eq!(got, [(2, chunk(&body, 2))]);
    }
    assert!(Lanes::new(&Security::Insecure, Tasks::new()).unwrap().is_none());
    let plain = node_by(Way::Grpc, 4).await;
    let manifest = plain.hold(&body).await;
    let asks = node_by(Way::Grpc, 5).await;
    assert_eq!(take(&asks.peers, &plain.me, wanted(&manifest), &[2]).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_gets_no_lane_and_a_member_only_the_one_it_means() {
    let (holder, _taker, ..) = held().await;
    let call = async |security: &Security, name: &str| {
        let calling = Calling::new(security).unwrap().unwrap();
        let Some(mut end) = calling.call(&holder.me.cluster_address, name).await? else {
            panic!("no lane")
        };
        // A refused caller finds out when it first reads.
        let mut byte = [0];
        match tokio::time::timeout(Duration::from_millis(300), end.read(&mut byte)).await {
            Ok(Ok(0) | Err(_)) => Err(RpcError::new(ErrorKind::Denied, "closed")),
            _ => Ok(()),
        }
    };
    let own = Way::Lane.security(2);
    assert_eq!(call(&own, "node-1").await, Ok(()));
    assert!(call(&own, "node-7").await.is_err(), "it is somebody else");
    let stranger = Authority::new().security("node-2");
    assert!(call(&stranger, "node-1").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_dropped_is_cancelled_and_the_lane_goes_on() {
    let (holder, taker, manifest, _) = held().await;
    let all: Vec<u32> = (0..manifest.chunk_count()).collect();
    for _ in 0..20 {
        let pieces = taker.peers.chunks(&holder.me, wanted(&manifest), &all).await.unwrap();
        drop(pieces);
    }
    let got = take(&taker.peers, &holder.me, wanted(&manifest), &[5]).await.unwrap();
    assert_eq!(got.len(), 1);
    let sent = holder.metrics.bytes_out.get();
    assert!(sent < 10 * LENGTH as u64, "{sent} bytes were sent of 20 times {LENGTH}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_requests_than_a_lane_holds_are_refused_at_once() {
    let (holder, taker, manifest, _) = held().await;
    let mut open = Vec::new();
    let refused = loop {
        match taker.peers.chunks(&holder.me, wanted(&manifest), &[0, 1, 2]).await {
            Ok(pieces) => open.push(pieces),
            Err(error) => break error,
        }
        assert!(open.len() < 1_000);
    };
    assert_eq!(refused.kind, ErrorKind::Retry, "{refused}");
    drop(open);
    let mut tried = 0;
    while take(&taker.peers, &holder.me, wanted(&manifest), &[5]).await.is_err() {
        tried += 1;
        assert!(tried < 1_000, "the lane never has room again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A header whose numbers are what they should not be.
fn raw(kind: u8, number: u32, length: u32) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0];
    bytes.extend(number.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(length.to_be_bytes());
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_break_the_rules_are_told_counted_and_lose_their_lane() {
    let (holder, ..) = held().await;
    let metrics = RefusalMetrics::new(&Metrics::new().unwrap()).unwrap();
    let refusals = Refusals::new(metrics.clone());
    let at = serve(Arc::new(holder.lanes()), refusals, 1, &holder.tasks).await;
    let calling = Calling::new(&Way::Lane.security(2)).unwrap().unwrap();
    let bad_key = [raw(1, 1, 2), vec![0x0a, 0]].concat();
    let cases = [
        ("malformed", vec![9; HEADER_BYTES], false),
        ("malformed", raw(3, 1, 0), false),
        ("oversized", raw(1, 1, u32::MAX), false),
        ("malformed", [raw(1, 1, 2), vec![0xff, 0xff]].concat(), false),
        ("invalid", bad_key, true),
    ];
    for (kind, bytes, goes_on) in cases {
        let before = metrics.refused(kind).get();
        let mut end = calling.call(&at.cluster_address, "node-1").await.unwrap().unwrap();
        end.write_all(&bytes).await.unwrap();
        end.flush().await.unwrap();
        let mut header = [0; HEADER_BYTES];
        end.read_exact(&mut header).await.unwrap();
        let Header { kind: told, length, .. } = Header::decode(header).unwrap();
        assert_eq!(told, Kind::Refused, "{kind}");
        end.read_exact(&mut vec![0; length as usize]).await.unwrap();
        assert_eq!(metrics.refused(kind).get(), before + 1, "{kind}");
        let mut byte = [0];
        let more = tokio::time::timeout(Duration::from_millis(200), end.read(&mut byte)).await;
        assert_eq!(more.is_err(), goes_on, "{kind}: {more:?}");
    }
}

/// A holder that answers every request with the same bytes.
struct Says(Vec<u8>);

impl ServesLanes for Says {
    fn serve(&self, lane: Lane, _: CancellationToken) -> BoxFuture<'static, ()> {
        let says = self.0.clone();
        Box::pin(async move {
            let mut stream = lane.stream;
            let mut asked = [0; 64];
            while matches!(stream.read(&mut asked).await, Ok(read) if read > 0) {
                if stream.write_all(&says).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holders_that_break_the_rules_bring_an_error_and_nothing_else() {
    let (_holder, taker, manifest, _) = held().await;
    let tasks = &taker.tasks;
    let cases = [
        ("no frame", vec![9; HEADER_BYTES]),
        ("too long a chunk", raw(3, 1, u32::MAX)),
        ("a chunk nobody asked for", [raw(3, 77, 1), vec![0]].concat()),
        ("more chunks than asked for", [raw(3, 1, 0), raw(3, 1, 0)].concat()),
        ("an end of nothing", raw(4, 9, 0)),
        ("a frame of callers", raw(2, 1, 0)),
    ];
    for (id, (what, says)) in (10..).zip(cases) {
        let liar = lanes_alone(Says(says), id, tasks).await;
        let ended = take(&taker.peers, &liar, wanted(&manifest), &[0]).await;
        let error = ended.expect_err(what);
        assert!(matches!(error.kind, ErrorKind::Corrupt | ErrorKind::Retry), "{what}: {error}");
    }
    let silent = lanes_alone(Says(raw(3, 1, 100)), 20, tasks).await;
    let mut pieces = taker.peers.chunks(&silent, wanted(&manifest), &[0]).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(200), pieces.next()).await;
    assert!(waited.is_err(), "half a chunk is none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_stops_ends_its_lanes() {
    let (holder, taker, manifest, _) = held().await;
    take(&taker.peers, &holder.me, wanted(&manifest), &[0]).await.unwrap();
    assert!(holder.tasks.shutdown(DEADLINE).await, "a lane holds up the end");
    let ended = take(&taker.peers, &holder.me, wanted(&manifest), &[0]).await;
    assert_eq!(ended.unwrap_err().kind, ErrorKind::Retry);
}
