//! TLS: both protocols by ALPN, and certificates that change without a restart.

use std::path::Path;
use std::sync::Arc;

use http::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::rig::*;
use crate::edge::{Door, EdgeTls, serve};

/// Writes a certificate for `a.test` and its key into `folder`.
fn write(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

fn load(folder: &Path) -> EdgeTls {
    EdgeTls::load(&folder.join("cert.pem"), &folder.join("key.pem")).unwrap()
}

/// A TLS door to the rig's edge.
async fn door(rig: &Rig, tls: Arc<EdgeTls>) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (edge, tasks) = (rig.edge.clone(), rig.tasks.clone());
    rig.tasks.spawn("edge-tls", serve(Door { listener, tls: Some(tls) }, edge, tasks));
    address
}

/// A client that trusts that certificate and offers those protocols.
async fn connect(
    address: std::net::SocketAddr,
    trusted: &CertificateDer<'static>,
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("a.test").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

async fn origin(_: Request<hyper::body::Incoming>) -> http::Response<OriginBody> {
    http::Response::new(text("hello"))
}

#[tokio::test]
async fn both_protocols_are_spoken_by_alpn() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = write(folder.path());
    let (rig, _) = Rig::new(origin).await;
    let address = door(&rig, Arc::new(load(folder.path()))).await;

    let mut one = connect(address, &trusted, &[b"http/1.1"]).await.unwrap();
    assert_eq!(one.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    one.write_all(request).await.unwrap();
    let mut answer = String::new();
    one.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");

    let two = connect(address, &trusted, &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(two.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let shake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(two));
    let (mut client, connection) = shake.await.unwrap();
    rig.tasks.child().spawn_until_stopped("client", async move { drop(connection.await) });
    let request = Request::get("https://a.test/").body(text("")).unwrap();
    let (head, body) = whole(client.send_request(request).await).await.unwrap();
    assert_eq!((head.version, &body[..]), (Version::HTTP_2, &b"hello"[..]));
    assert!(connect(address, &trusted, &[b"spdy/3"]).await.is_err(), "nothing in common");
}

#[tokio::test]
async fn who_chose_http2_may_speak_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = write(folder.path());
    let (rig, _) = Rig::new(origin).await;
    let address = door(&rig, Arc::new(load(folder.path()))).await;

    let mut chosen = connect(address, &trusted, &[b"h2"]).await.unwrap();
    chosen.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // Closed, in order or not, and no word of HTTP/1.1.
    let _ = chosen.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_new_certificate_is_shown_and_a_torn_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let first = write(folder.path());
    let (rig, _) = Rig::new(origin).await;
    let tls = Arc::new(load(folder.path()));
    let address = door(&rig, tls.clone()).await;
    let mut open = connect(address, &first, &[b"http/1.1"]).await.unwrap();
    assert!(!tls.look().unwrap(), "nothing has changed");

    let key = std::fs::read(folder.path().join("key.pem")).unwrap();
    let second = write(folder.path());
    let new_key = std::fs::read(folder.path().join("key.pem")).unwrap();
    std::fs::write(folder.path().join("key.pem"), key).unwrap();
    let refused = tls.look().unwrap_err().to_string();
    assert!(refused.contains("cert.pem"), "{refused}");
    assert!(connect(address, &first, &[]).await.is_ok(), "half replaced: as it was");

    std::fs::write(folder.path().join("key.pem"), new_key).unwrap();
    assert!(tls.look().unwrap());
    assert!(connect(address, &second, &[]).await.is_ok());
    assert!(connect(address, &first, &[]).await.is_err());
    open.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    open.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("hello"), "what was open goes on");
}

#[test]
fn files_that_are_none_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    for (cert, key, named) in
        [(&key, &key, "key.pem"), (&cert, &cert, "cert.pem"), (&cert, &cert.join("x"), "x")]
    {
        let refused = EdgeTls::load(cert, key).unwrap_err().to_string();
        assert!(refused.contains(named) && refused.contains("PEM"), "{refused}");
    }
}

#[tokio::test]
async fn a_client_that_never_shakes_hands_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let config = crate::edge::EdgeConfig { head_ms: 150, ..Default::default() };
    let rig = Rig::before("127.0.0.1:1", config).await;
    let address = door(&rig, Arc::new(load(folder.path()))).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut rest = Vec::new();
    let closed = silent.read_to_end(&mut rest);
    let closed = tokio::time::timeout(std::time::Duration::from_secs(5), closed).await;
    assert!(closed.is_ok(), "it held its connection");
}
