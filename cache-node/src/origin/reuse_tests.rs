//! Connections: kept, closed by origins at bad moments, encrypted, multiplexed.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::HOST;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::RootCertStore;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::tests::*;
use super::*;
use crate::metrics::Metrics;

#[tokio::test]
async fn a_connection_is_used_again() {
    let rig = Rig::new(&[(HELLO, Then::Keep)]).await;
    for _ in 0..3 {
        collect(rig.send("GET", None).await).await.unwrap();
    }
    assert_eq!((rig.connections(), rig.seen().len()), (1, 3));
}

#[tokio::test]
async fn bytes_beyond_a_response_end_its_connection() {
    const BEYOND: &str =
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\nevil";
    let rig = Rig::new(&[(BEYOND, Then::Keep), (HELLO, Then::Keep)]).await;
    assert_eq!(collect(rig.send("GET", None).await).await.unwrap(), "ok");
    assert_eq!(collect(rig.send("GET", None).await).await.unwrap(), "hello");
    assert_eq!(rig.connections(), 2);
}

#[tokio::test]
async fn an_idle_connection_that_its_origin_closed_costs_nothing() {
    let rig = Rig::new(&[(HELLO, Then::Close)]).await;
    for method in ["GET", "POST", "GET"] {
        collect(rig.send(method, None).await).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((rig.connections(), rig.seen().len()), (3, 3), "no duplicates");
    assert_eq!(rig.client.metrics.failures.get(), 0);
}

/// What an origin does with the second request of its first connection.
#[derive(Clone, Copy)]
enum Second {
    /// It is gone: the request stays unread, and is answered by a reset.
    Unread,
    /// Reads it, thinks, closes.
    ReadAndClose,
    /// Begins an answer, and resets.
    Begun,
}

async fn origin_that(second: Second) -> (Rig, Arc<Site>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rig = Rig::at(listener.local_addr().unwrap().to_string());
    let seen = Arc::clone(&rig.seen);
    rig.tasks.spawn_until_stopped("origin", async move {
        for first in [true, false, false] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = read_request(&mut stream).await.unwrap();
            seen.lock().unwrap().push(request);
            stream.write_all(HELLO.as_bytes()).await.unwrap();
            if first {
                end(stream, second, &seen).await;
            }
        }
    });
    let site = rig.site("");
    (rig, site)
}

async fn end(mut stream: TcpStream, second: Second, seen: &Mutex<Vec<String>>) {
    match second {
        Second::Unread => drop(stream.peek(&mut [0]).await),
        Second::ReadAndClose => {
            let request = read_request(&mut stream).await.unwrap();
            seen.lock().unwrap().push(request);
            // Longer than any round trip that could excuse it.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Second::Begun => {
            stream.peek(&mut [0]).await.unwrap();
            stream.write_all(b"HTTP/1.1 200").await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn a_lost_race_is_run_again_once_if_that_is_harmless() {
    for (method, again) in [("GET", true), ("HEAD", true), ("DELETE", true), ("POST", false)] {
        let (rig, site) = origin_that(Second::Unread).await;
        collect(rig.send_to(&site, "GET", None).await).await.unwrap();
        let sent = rig.send_to(&site, method, None).await;
        assert_eq!(sent.is_ok(), again, "{method}: {sent:?}");
        let read = if again { 2 } else { 1 };
        assert_eq!(rig.seen().len(), read, "{method} was read once at most");
        assert_eq!(rig.client.metrics.failures.get(), u64::from(!again));
    }
    let (rig, site) = origin_that(Second::Unread).await;
    collect(rig.send_to(&site, "GET", None).await).await.unwrap();
    let put = rig.send_to(&site, "PUT", upload(Some(2), &["ok"])).await;
    assert!(put.is_err(), "its body is gone");
}

#[tokio::test]
async fn an_origin_that_reads_and_closes_has_failed() {
    for second in [Second::ReadAndClose, Second::Begun] {
        let (rig, site) = origin_that(second).await;
        collect(rig.send_to(&site, "GET", None).await).await.unwrap();
        let failed = rig.send_to(&site, "GET", None).await.unwrap_err();
        assert!(matches!(failed, OriginError::Unreachable { .. }), "{failed}");
        let read = if matches!(second, Second::ReadAndClose) { 2 } else { 1 };
        assert_eq!(rig.seen().len(), read, "not sent again");
    }
}

/// An origin behind TLS that offers these protocols; it answers with the version it was asked in
/// and the `Host` or authority it saw.
struct Secure {
    roots: RootCertStore,
    url: String,
    connections: Arc<AtomicUsize>,
    tasks: Tasks,
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn secure(alpn: &[&[u8]]) -> Secure {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    tls.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let connections = Arc::new(AtomicUsize::new(0));
    let tasks = Tasks::new();
    let (count, inner) = (Arc::clone(&connections), tasks.clone());
    tasks.spawn_until_stopped("origin", async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let acceptor = acceptor.clone();
            inner.spawn_until_stopped("origin-connection", async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(|request: Request<Incoming>| async move {
                    let host = request.headers().get(HOST).map(|host| host.to_str().unwrap());
                    let named = request.uri().authority().map(|authority| authority.as_str());
                    let said = format!("{:?} {}", request.version(), named.or(host).unwrap());
                    Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from(said))))
                });
                let server = auto::Builder::new(TokioExecutor::new());
                drop(server.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    Secure { roots, url, connections, tasks }
}

impl Secure {
    fn client(&self, roots: RootCertStore) -> OriginClient {
        let metrics = OriginMetrics::new(&Metrics::new().unwrap()).unwrap();
        OriginClient::with_roots(metrics, self.tasks.clone(), roots).unwrap()
    }

    async fn ask(&self, client: &OriginClient, more: &str) -> Sent {
        let request = OriginRequest {
            method: Method::GET,
            target: "/".into(),
            client_authority: "client.test".into(),
            headers: HeaderMap::new(),
            body: None,
            interims: None,
        };
        client.send(&site(&self.url, more), request).await
    }
}

#[tokio::test]
async fn alpn_chooses_the_protocol_and_host_stays_what_the_site_says() {
    for (alpn, version) in [
        (&[&b"h2"[..], b"http/1.1"][..], "HTTP/2.0"),
        (&[b"http/1.1"], "HTTP/1.1"),
        (&[], "HTTP/1.1"),
    ] {
        let origin = secure(alpn).await;
        let client = origin.client(origin.roots.clone());
        let own = origin.url.strip_prefix("https://").unwrap();
        for _ in 0..2 {
            let said = collect(origin.ask(&client, "").await).await.unwrap();
            assert_eq!(said, format!("{version} {own}"));
        }
        assert_eq!(origin.connections.load(Ordering::Relaxed), 1);
        let sent = origin.ask(&client, "host_header = \"client\"").await;
        assert_eq!(collect(sent).await.unwrap(), "HTTP/1.1 client.test");
    }
}

#[tokio::test]
async fn certificates_are_verified() {
    let origin = secure(&[b"h2"]).await;
    let client = origin.client(RootCertStore::empty());
    let refused = origin.ask(&client, "").await.unwrap_err();
    assert!(refused.to_string().contains("certificate"), "{refused}");
}
