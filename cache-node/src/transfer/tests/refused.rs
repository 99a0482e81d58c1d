//! What breaks a rule is refused with a status of its own, counted by kind, and has no effect.

use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use shoal_proto::limits::RPC_MESSAGE_BYTES_MAX;
use shoal_proto::wire::v1::peer_client::PeerClient;
use tonic::Code;

use super::*;
use crate::metrics::RefusalMetrics;
use crate::rpc::{Door, Refusals};

struct Refusing {
    address: String,
    metrics: RefusalMetrics,
    store: Arc<Store>,
    tasks: Tasks,
    _dir: tempfile::TempDir,
}

impl Refusing {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let m = Metrics::new().unwrap();
        let metrics = RefusalMetrics::new(&m).unwrap();
        let store = store(dir.path(), &m).await;
        let wishes = CopyWishes {
            queue: mpsc::channel(1).0,
            prefetches: mpsc::channel(1).0,
            sealer: Sealer::new(&[7; 32]),
        };
        let transfer = TransferMetrics::new(&m).unwrap();
        let service = PeerService::new(NodeId(1), store.clone(), Arc::default(), wishes, transfer);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let refusals = Refusals::new(metrics.clone());
        let router = rpc::server(refusals.clone()).add_service(service.into_servers().0);
        let door = Door::new(listener, &Security::Insecure, None, refusals).unwrap();
        let (tasks, grace) = (Tasks::new(), Duration::from_millis(100));
        let stop = tasks.token();
        tasks.spawn("peer", async move {
            rpc::serve_at(router, door, stop, grace).await.unwrap();
        });
        Self { address, metrics, store, tasks, _dir: dir }
    }

    fn client(&self) -> PeerClient<tonic::transport::Channel> {
        let channel = Channels::new(Security::Insecure).to(&self.address, "").unwrap();
        PeerClient::new(channel).max_encoding_message_size(64 << 20)
    }

    /// Sends bytes that no client of ours would; gives the status code.
    async fn raw(&self, method: &str, body: &[u8]) -> i32 {
        let client: Client<_, Full<Bytes>> =
            Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        let mut framed = vec![0];
        framed.extend((body.len() as u32).to_be_bytes());
        framed.extend(body);
        let request = Request::post(format!("http://{}/shoal.v1.Peer/{method}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::from(framed))
            .unwrap();
        let response = client.request(request).await.unwrap();
        let status = |headers: &http::HeaderMap| -> Option<i32> {
            headers.get("grpc-status")?.to_str().ok()?.parse().ok()
        };
        let early = status(response.headers());
        let collected = response.into_body().collect().await.unwrap();
        early.or_else(|| collected.trailers().and_then(status)).unwrap()
    }

    fn counted(&self, kind: &'static str) -> u64 {
        self.metrics.refused(kind).get()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_have_a_status_of_their_own_and_are_counted() {
    let node = Refusing::start().await;
    let mut client = node.client();
    let short = v1::GetManifestRequest { key: vec![1; 31].into(), ..Default::default() };
    for _ in 0..3 {
        let refused = client.get_manifest(short.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    assert_eq!(node.counted("invalid"), 3);

    let forged = v1::TakeCopyRequest {
        key: KEY.to_wire(),
        sealed_source: vec![9; 300].into(),
        ..Default::default()
    };
    assert_eq!(client.take_copy(forged).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(node.counted("invalid"), 4);

    let huge = vec![0; RPC_MESSAGE_BYTES_MAX + 1].into();
    let refused = client.ping(v1::PingRequest { key: huge, lease_id: 1 }).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    assert_eq!(node.counted("oversized"), 1);

    assert_eq!(node.raw("Ping", b"\x0a\xff\xff\xff").await, Code::Internal as i32);
    assert_eq!(node.counted("malformed"), 1);
    assert_eq!(node.raw("Nothing", b"").await, Code::Unimplemented as i32);
    assert_eq!(node.counted("unknown"), 1);

    // What is right is answered, what is not there is no fault, and nothing was changed.
    assert!(client.ping(v1::PingRequest::default()).await.is_ok());
    let absent = v1::GetManifestRequest {
        key: KEY.to_wire(),
        object_id: KEY.to_wire(),
        ..Default::default()
    };
    assert_eq!(client.get_manifest(absent).await.unwrap_err().code(), Code::NotFound);
    let kinds = ["invalid", "denied", "corrupt", "malformed", "oversized", "unknown"];
    assert_eq!(kinds.map(|kind| node.counted(kind)), [4, 0, 0, 1, 1, 1]);
    assert_eq!(node.store.usage().objects, 0);
    assert!(node.tasks.shutdown(Duration::from_secs(5)).await);
}
