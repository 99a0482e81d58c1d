//! temporary
#![expect(missing_docs, reason = "temporary")]
use std::sync::Arc;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response, StatusCode, Method};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use crate::fetch::{FetchRequest, Fetched, Fetcher, BodyError, OriginRequest};
use crate::metrics::EdgeMetrics;
use crate::policy::{self, site::Sites};
use crate::tasks::Tasks;
#[derive(Default)]
pub struct EdgeConfig { pub unknown_host: StatusCode, pub connections_max: usize }
pub struct Edge<F> { sites: Arc<Sites>, secret: [u8;32], fetcher: F, metrics: EdgeMetrics }
impl Edge<Fetcher> {
    pub fn new(_: EdgeConfig, sites: Arc<Sites>, secret: [u8;32], fetcher: Fetcher, metrics: EdgeMetrics) -> Self { Self { sites, secret, fetcher, metrics } }
    async fn handle(&self, req: Request<Incoming>) -> Response<UnsyncBoxBody<Bytes, BodyError>> {
        let host = req.headers().get("host").and_then(|h| h.to_str().ok()).unwrap_or_default().to_owned();
        let empty = |s: StatusCode, t: String| { let mut r = Response::new(StreamBody::new(futures::stream::iter([Ok::<_, BodyError>(Frame::data(Bytes::from(t)))])).boxed_unsync()); *r.status_mut() = s; r };
        let Some(site) = self.sites.find(&host) else { return empty(StatusCode::MISDIRECTED_REQUEST, "unknown host".into()) };
        let target = req.uri().path_and_query().map_or("/".to_owned(), |p| p.to_string());
        if req.method() != Method::GET && req.method() != Method::HEAD { 
            let o = OriginRequest { method: req.method().clone(), target, client_authority: host, headers: policy::hop::pass_headers(req.headers()), body: None };
            return match self.fetcher.pass(site, o).await { Ok(r) => { let mut x = Response::new(StreamBody::new(r.body.map(|b| b.map(Frame::data))).boxed_unsync()); *x.status_mut()=r.status; x }, Err(e) => empty(StatusCode::BAD_GATEWAY, e.to_string()) };
        }
        let key = policy::key::object_key(&self.secret, &site, &host, &target);
        let f = FetchRequest { site, key, method: req.method().clone(), target, client_authority: host, headers: policy::hop::fill_headers(req.headers()), authorized: false };
        match self.fetcher.get(f).await {
            Ok(Fetched::Object(o)) => {
                self.metrics.requests.of(o.tier).inc();
                let (head, tier, lookup) = (o.head.clone(), o.tier, o.lookup);
                let bytes = self.metrics.response_bytes.of(tier).clone();
                let body = o.into_body(None).map(move |b| b.map(|b| { bytes.inc_by(b.len() as u64); Frame::data(b) }));
                let mut r = Response::new(StreamBody::new(body).boxed_unsync());
                *r.status_mut() = StatusCode::from_u16(head.status).unwrap_or_default();
                *r.headers_mut() = policy::hop::from_stored(&head.headers);
                if let Some(l) = head.length { r.headers_mut().insert("content-length", l.into()); }
                r.headers_mut().insert("cache-status", format!("shoal; {}; detail={}", if lookup == crate::fetch::Lookup::Hit {"hit"} else {"fwd=miss"}, tier.name()).parse().unwrap_or(http::HeaderValue::from_static("x")));
                r
            }
            Ok(Fetched::Pass(r)) => { let mut x = Response::new(StreamBody::new(r.body.map(|b| b.map(Frame::data))).boxed_unsync()); *x.status_mut()=r.status; *x.headers_mut()=r.headers; x }
            Err(e) => empty(StatusCode::BAD_GATEWAY, e.to_string()),
        }
    }
}
pub async fn serve(listener: tokio::net::TcpListener, edge: Arc<Edge<Fetcher>>, tasks: Tasks) {
    loop {
        let (s, _) = tokio::select! { () = tasks.stopped() => return, a = listener.accept() => match a { Ok(a) => a, Err(_) => continue } };
        let _ = s.set_nodelay(true);
        let edge = edge.clone();
        tasks.spawn_until_stopped("conn", async move {
            let svc = hyper::service::service_fn(move |r| { let e = edge.clone(); async move { Ok::<_, std::convert::Infallible>(e.handle(r).await) } });
            let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(s), svc).await;
        });
    }
}
