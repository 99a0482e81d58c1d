//! Listens in between members: an HTTP/2 proxy on the address that a member advertises, which takes
//! each message apart before it passes it on. So header compression hides nothing: what is kept are
//! decoded headers, the bytes of bodies, and trailers.

#![expect(clippy::disallowed_methods, reason = "a proxy of the test, not of the product")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{HeaderMap, Request, Response, Uri};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// More than the longest form of a word.
const OVERLAP_BYTES: usize = 64;

type Body = UnsyncBoxBody<Bytes, hyper::Error>;
type Forward = Client<HttpConnector, Body>;

/// Everything that members said to one another.
pub(super) struct Tap {
    said: Arc<Mutex<Vec<u8>>>,
    _runtime: Runtime,
}

impl Tap {
    /// Listens at each first address, and passes on to the second.
    pub(super) fn start(lines: &[(SocketAddr, SocketAddr)]) -> Self {
        let runtime = Runtime::new().unwrap();
        let said = Arc::<Mutex<Vec<u8>>>::default();
        for (from, to) in lines.iter().copied() {
            let listener = runtime.block_on(TcpListener::bind(from)).unwrap();
            runtime.spawn(listen(listener, to, said.clone()));
        }
        Self { said, _runtime: runtime }
    }

    pub(super) fn said(&self) -> Vec<u8> {
        self.said.lock().unwrap().clone()
    }
}

async fn listen(listener: TcpListener, to: SocketAddr, said: Arc<Mutex<Vec<u8>>>) {
    let client: Forward = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (client, said) = (client.clone(), said.clone());
        let service = service_fn(move |request| pass(request, to, client.clone(), said.clone()));
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new()).http2_only();
            // A member that was killed leaves its connections broken.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn pass(
    request: Request<Incoming>,
    to: SocketAddr,
    client: Forward,
    said: Arc<Mutex<Vec<u8>>>,
) -> Result<Response<Body>, hyper_util::client::legacy::Error> {
    let (mut head, body) = request.into_parts();
    note(&said, head.uri.to_string().as_bytes());
    note_headers(&said, &head.headers);
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = Uri::try_from(format!("http://{to}{path}")).unwrap();
    let response = client.request(Request::from_parts(head, listened(body, &said))).await?;
    let (head, body) = response.into_parts();
    note_headers(&said, &head.headers);
    Ok(Response::from_parts(head, listened(body, &said)))
}

fn listened(body: Incoming, said: &Arc<Mutex<Vec<u8>>>) -> Body {
    let said = said.clone();
    let mut end = Vec::new();
    body.map_frame(move |frame: Frame<Bytes>| {
        if let Some(data) = frame.data_ref() {
            // A word may stand across two frames: each is kept with the end of the one before it.
            end.extend_from_slice(data);
            note(&said, &end);
            end.drain(..end.len().saturating_sub(OVERLAP_BYTES));
        }
        if let Some(trailers) = frame.trailers_ref() {
            note_headers(&said, trailers);
        }
        frame
    })
    .boxed_unsync()
}

fn note_headers(said: &Mutex<Vec<u8>>, headers: &HeaderMap) {
    for (name, value) in headers {
        note(said, name.as_str().as_bytes());
        note(said, value.as_bytes());
    }
}

fn note(said: &Mutex<Vec<u8>>, bytes: &[u8]) {
    let mut said = said.lock().unwrap();
    said.extend_from_slice(bytes);
    said.push(b'\n');
}
