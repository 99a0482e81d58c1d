//! The operator's own listener: `/livez` while the process runs, `/readyz` while it can work,
//! `/metrics`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::metrics::Metrics;
use crate::tasks::Tasks;

/// Connections served at a time.
const CONNECTIONS_MAX: usize = 32;
/// For a request's head to arrive.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// A connection's whole life.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(60);
/// Before the next try when a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why it cannot work, while it cannot.
pub type Readiness = Option<String>;

/// Listens at `address`, and serves until the tasks stop.
///
/// # Errors
/// When it cannot listen there.
pub async fn serve(
    tasks: &Tasks,
    address: SocketAddr,
    metrics: Metrics,
    ready: watch::Receiver<Readiness>,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    let own = tasks.clone();
    tasks.spawn("health", async move { accept(own, listener, metrics, ready).await });
    Ok(bound)
}

async fn accept(
    tasks: Tasks,
    listener: TcpListener,
    metrics: Metrics,
    ready: watch::Receiver<Readiness>,
) {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (metrics, ready) = (metrics.clone(), ready.clone());
        tasks.spawn("health-connection", async move {
            let _permit = permit;
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer(request.uri().path(), &metrics, &ready.borrow());
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
            let served = server.serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(CONNECTION_DEADLINE, served).await;
        });
    }
}

fn answer(path: &str, metrics: &Metrics, ready: &Readiness) -> Response<Full<Bytes>> {
    let (status, text) = match (path, ready) {
        ("/livez", _) => (StatusCode::OK, "ok\n".to_owned()),
        ("/readyz", None) => (StatusCode::OK, "ok\n".to_owned()),
        ("/readyz", Some(why)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        ("/metrics", _) => (StatusCode::OK, metrics.text()),
        _ => (StatusCode::NOT_FOUND, "see /livez, /readyz, /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
