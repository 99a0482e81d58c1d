//! A whole edge: clients, sites, a read path without peers, an origin.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use shoal_proto::{ChunkHash, Labels, Manifest, ObjectHead, ObjectKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::*;
use crate::clock;
use crate::fetch::{BodyError, FetchedObject, Lookup};
use crate::metrics::{Metrics, OriginMetrics, Tier};
use crate::origin::OriginClient;
use crate::policy::freshness::{Times, freshness};
use crate::policy::hop;
use crate::policy::site::SiteConfig;
use crate::policy::storable::{RequestFacts, ResponseFacts, storable};
use crate::tasks::Tasks;

/// Memory and origin: no peers, no disk, no collapsing, no revalidation.
pub(super) struct Direct {
    origin: OriginClient,
    pub(super) stored: Mutex<HashMap<ObjectKey, (Arc<ObjectHead>, Bytes)>>,
}

impl Direct {
    fn found(&self, key: &ObjectKey) -> Option<Fetched> {
        let (head, bytes) = self.stored.lock().unwrap().get(key)?.clone();
        if !head.freshness.is_fresh(clock::unix_ms()) {
            return None;
        }
        Some(Fetched::Object(of_bytes(head, bytes, Lookup::Hit, Tier::Memory)))
    }
}

fn of_bytes(head: Arc<ObjectHead>, bytes: Bytes, lookup: Lookup, tier: Tier) -> FetchedObject {
    FetchedObject::new(head, tier, lookup, move |range| {
        let part = match range {
            Some(range) => bytes.slice(range.start as usize..range.end as usize),
            None => bytes.clone(),
        };
        Box::pin(futures::stream::iter([Ok(part)]))
    })
}

impl ReadPath for Arc<Direct> {
    fn hit(&self, asked: &Question<'_>) -> Option<Hit> {
        let (head, bytes) = self.stored.lock().unwrap().get(&asked.key)?.clone();
        if !head.freshness.is_fresh(asked.now_ms) || bytes.is_empty() {
            return None;
        }
        let hashes = vec![ChunkHash::of(&bytes)];
        let manifest = Manifest::new((*head).clone(), bytes.len() as u64, hashes).ok()?;
        Some(Hit::of(manifest, bytes))
    }

    async fn get(&self, request: FetchRequest) -> Result<Fetched, FetchError> {
        if let Some(found) = self.found(&request.key) {
            return Ok(found);
        }
        let request_ms = clock::unix_ms();
        let asked = OriginRequest {
            method: request.method.clone(),
            target: request.target,
            client_authority: request.client_authority,
            headers: request.headers,
            body: None,
            interims: request.interims,
        };
        let response = self.origin.send(&request.site, asked).await?;
        let times = Times { request_ms, response_ms: clock::unix_ms() };
        let facts = ResponseFacts {
            status: response.status,
            headers: &response.headers,
            length: response.length,
            times,
        };
        let asked = RequestFacts { method: &request.method, authorized: request.authorized };
        if storable(asked, facts, &request.site).is_err() {
            return Ok(Fetched::Pass(response));
        }
        let head = Arc::new(ObjectHead {
            key: request.key,
            site: request.site.name().to_owned(),
            status: response.status.as_u16(),
            headers: hop::to_stored(&response.headers),
            length: response.length,
            chunk_size: shoal_proto::limits::CHUNK_BYTES_MIN,
            freshness: freshness(&response.headers, times, &request.site.rules),
            fence_position: 0,
            labels: Labels::default(),
        });
        let (this, filled) = (Arc::clone(self), Arc::clone(&head));
        let body = Mutex::new(Some((response.body, this, filled)));
        Ok(Fetched::Object(FetchedObject::new(head, Tier::Origin, Lookup::Miss, move |range| {
            assert!(range.is_none(), "this read path cuts no range from a fill");
            let (mut body, this, filled) = body.lock().unwrap().take().expect("one reader");
            let (send, receive) = tokio::sync::mpsc::channel(1);
            Tasks::new().spawn("tee", async move {
                let mut whole = Vec::new();
                while let Some(piece) = body.next().await {
                    match &piece {
                        Ok(bytes) => whole.extend_from_slice(bytes),
                        Err(_) => return drop(send.send(piece).await),
                    }
                    drop(send.send(piece).await);
                }
                let mut head = (*filled).clone();
                head.length = Some(whole.len() as u64);
                let entry = (Arc::new(head), Bytes::from(whole));
                this.stored.lock().unwrap().insert(filled.key, entry);
            });
            Box::pin(tokio_stream::wrappers::ReceiverStream::new(receive))
        })))
    }

    async fn pass(
        &self,
        site: Arc<Site>,
        request: OriginRequest,
    ) -> Result<OriginResponse, FetchError> {
        Ok(self.origin.send(&site, request).await?)
    }

    async fn switch(
        &self,
        site: Arc<Site>,
        request: OriginRequest,
        protocol: &str,
    ) -> Result<Switched, FetchError> {
        Ok(self.origin.switch(&site, request, protocol).await?)
    }

    async fn purge(&self, _: &Site, key: ObjectKey, _: bool) -> Result<Purged, RpcError> {
        let found = self.stored.lock().unwrap().remove(&key).is_some();
        Ok(Purged { found, position: 7, nodes_acknowledged: 1, nodes_expired: 0 })
    }

    async fn invalidate(&self, _: &Site, key: ObjectKey) {
        self.stored.lock().unwrap().remove(&key);
    }
}

/// A body that an origin of these tests may send.
pub(super) type OriginBody = UnsyncBoxBody<Bytes, BodyError>;

/// A body of that text.
pub(super) fn text(body: impl Into<Bytes>) -> OriginBody {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(super) struct Rig {
    pub(super) address: SocketAddr,
    pub(super) edge: Arc<Edge<Arc<Direct>>>,
    pub(super) tasks: Tasks,
    origins: Tasks,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.tasks.stop();
        self.origins.stop();
    }
}

/// What an origin was asked: `METHOD target`, in order.
pub(super) type Log = Arc<Mutex<Vec<String>>>;

impl Rig {
    /// An edge before a hyper origin that answers by `answer`; the log of what it was asked.
    pub(super) async fn new<F, A>(answer: F) -> (Self, Log)
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
        A: Future<Output = Response<OriginBody>> + Send + 'static,
    {
        let log = Log::default();
        let (listener, origin) = bind().await;
        let origins = Tasks::new();
        let (tasks, seen) = (origins.clone(), Arc::clone(&log));
        origins.spawn_until_stopped("origin", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, seen) = (answer.clone(), Arc::clone(&seen));
                let service = service_fn(move |request: Request<Incoming>| {
                    let line = format!("{} {}", request.method(), request.uri());
                    seen.lock().unwrap().push(line);
                    let answer = answer(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                tasks.spawn_until_stopped("origin-connection", async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    drop(server.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        let rig = Self::build(&origin.to_string(), EdgeConfig::default(), 20_000, origins).await;
        (rig, log)
    }

    /// An edge before the origin at `origin`, with more keys of its site, and a token that may purge
    /// what is under `/mine/`.
    pub(super) async fn with_site(origin: &str, keys: &str) -> Self {
        let more =
            format!("first_byte_timeout_ms = 20000\nbetween_bytes_timeout_ms = 20000\n{keys}");
        Self::of_site(origin, EdgeConfig::default(), &more, Tasks::new()).await
    }

    /// One more edge over the same read path.
    pub(super) async fn beside(&self, config: EdgeConfig) -> SocketAddr {
        let Edge { sites, read_path, metrics, .. } = &*self.edge;
        let edge = Edge::new(config, sites.clone(), [7; 32], read_path.clone(), metrics.clone());
        let (listener, address) = bind().await;
        self.tasks.spawn("edge", serve(listener, edge.into(), self.tasks.clone()));
        address
    }

    /// An edge before an origin that sends raw bytes to whoever connects, then closes, or not.
    pub(super) async fn raw(answer: &'static str, close: bool) -> Self {
        let (listener, origin) = bind().await;
        let origins = Tasks::new();
        let tasks = origins.clone();
        origins.spawn_until_stopped("origin", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tasks.spawn_until_stopped("origin-connection", async move {
                    let mut head = [0; 4096];
                    let _ = stream.read(&mut head).await;
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    if !close {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Self::build(&origin.to_string(), EdgeConfig::default(), 500, origins).await
    }

    /// An edge before the origin at `origin`.
    pub(super) async fn before(origin: &str, config: EdgeConfig) -> Self {
        Self::build(origin, config, 20_000, Tasks::new()).await
    }

    /// Site `a` for `a.test`, which waits so long for its origin.
    async fn build(origin: &str, config: EdgeConfig, wait_ms: u64, origins: Tasks) -> Self {
        let waits =
            format!("first_byte_timeout_ms = {wait_ms}\nbetween_bytes_timeout_ms = {wait_ms}\n");
        Self::of_site(origin, config, &waits, origins).await
    }

    async fn of_site(origin: &str, config: EdgeConfig, keys: &str, origins: Tasks) -> Self {
        let text =
            format!("name = \"a\"\nhosts = [\"a.test\"]\norigin = \"http://{origin}\"\n{keys}");
        let site: SiteConfig = toml::from_str(&text).unwrap();
        let sites = Arc::new(Sites::new(vec![site]).unwrap().into());
        let metrics = Metrics::new().unwrap();
        let tasks = Tasks::new();
        let origin_metrics = OriginMetrics::new(&metrics).unwrap();
        let origin = OriginClient::new(origin_metrics, origins.clone()).unwrap();
        let direct = Arc::new(Direct { origin, stored: Mutex::default() });
        let edge_metrics = EdgeMetrics::new(&metrics).unwrap();
        let edge = Edge::new(config, sites, [7; 32], direct, edge_metrics);
        let edge = Arc::new(edge.with_token_purges(TokenPurges::new(|secret, site, path| {
            let may = secret == b"secret" && site == "a" && path.starts_with("/mine/");
            may.then(|| "ci".to_owned())
        })));
        let (listener, address) = bind().await;
        tasks.spawn("edge", serve(listener, Arc::clone(&edge), tasks.clone()));
        Self { address, edge, tasks, origins }
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// One raw exchange; `Connection: close` is added, so that the answer ends with the connection.
    pub(super) async fn ask(&self, request: &str) -> Answer {
        let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        let mut stream = self.connect().await;
        // An edge that refuses a head need not read all of it.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut bytes = Vec::new();
        let ended = stream.read_to_end(&mut bytes).await;
        Answer { text: String::from_utf8(bytes).unwrap(), reset: ended.is_err() }
    }

    /// `GET` of a path of `a.test`, with more header lines.
    pub(super) async fn get(&self, path: &str, lines: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n")).await
    }

    /// An HTTP/2 connection by prior knowledge.
    pub(super) async fn http2(&self) -> hyper::client::conn::http2::SendRequest<OriginBody> {
        let stream = TokioIo::new(self.connect().await);
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
        let (client, connection) = handshake.await.unwrap();
        self.origins.spawn_until_stopped("client", async move { drop(connection.await) });
        client
    }
}

pub(super) async fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// All that came until the connection ended.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) reset: bool,
}

impl Answer {
    pub(super) fn status(&self) -> u16 {
        self.text.get(9..12).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let head = self.text.split("\r\n\r\n").next()?;
        head.split("\r\n").skip(1).find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(super) fn body(&self) -> &str {
        self.text.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }

    pub(super) fn cache_status(&self) -> &str {
        self.header("cache-status").unwrap_or("")
    }
}

/// A head and an HTTP/2 body, or how it failed.
pub(super) async fn whole(
    answer: Result<Response<Incoming>, hyper::Error>,
) -> Result<(http::response::Parts, Bytes), hyper::Error> {
    let (parts, body) = answer?.into_parts();
    Ok((parts, body.collect().await?.to_bytes()))
}

/// Waits until `done`, for a few seconds at most.
pub(super) async fn until(done: impl Fn() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come to pass");
}
