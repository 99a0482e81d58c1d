//! Between the listener and the services: looks at every answer's status, wherever it stands, in
//! the head of an answer without a body or in the trailers of a stream. Changes nothing.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tower_layer::Layer;
use tower_service::Service;

use super::refusals::Refusals;
use crate::tls;

/// Longest method name that is kept, in bytes.
const METHOD_BYTES_MAX: usize = 64;

/// Adds the look to a server.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    pub(super) refusals: Refusals,
}

impl<S> Layer<S> for Watch {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched { inner, refusals: self.refusals.clone() }
    }
}

/// A service whose answers are looked at.
#[derive(Clone, Debug)]
pub struct Watched<S> {
    inner: S,
    refusals: Refusals,
}

/// Who was answered, and by what.
#[derive(Clone)]
struct Asked {
    peer: Arc<str>,
    method: Arc<str>,
    refusals: Refusals,
}

impl Asked {
    fn note(&self, headers: &http::HeaderMap) {
        if let Some(status) = Status::from_header_map(headers) {
            self.refusals.note(&self.peer, &self.method, &status);
        }
    }
}

type Future<T, E> = Pin<Box<dyn std::future::Future<Output = Result<T, E>> + Send>>;

impl<S> Service<http::Request<Body>> for Watched<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<WatchedBody>;
    type Error = S::Error;
    type Future = Future<Self::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let method = path.get(..METHOD_BYTES_MAX.min(path.len())).unwrap_or_default().into();
        let asked = Asked { peer: peer(&request).into(), method, refusals: self.refusals.clone() };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            asked.note(response.headers());
            Ok(response.map(|body| WatchedBody { body, asked }))
        })
    }
}

/// The caller's name by its certificate, or its address; no port, which is another each time.
fn peer(request: &http::Request<Body>) -> String {
    let extensions = request.extensions();
    let secured = extensions.get::<TlsConnectInfo<TcpConnectInfo>>();
    let certificates = secured.and_then(TlsConnectInfo::peer_certs);
    let first = certificates.as_ref().and_then(|chain| chain.first());
    let plain = || extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    let address = || secured.and_then(|info| info.get_ref().remote_addr()).or_else(plain);
    match first.and_then(|certificate| tls::name_of(certificate)) {
        Some(name) => name,
        None => {
            address().map_or_else(|| "unknown".to_owned(), |at: SocketAddr| at.ip().to_string())
        }
    }
}

/// A body whose trailers are looked at.
pub struct WatchedBody {
    body: Body,
    asked: Asked,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            self.asked.note(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
