//! Certificates, as both sides of a real connection see them.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use shoal_proto::wire::v1;
use tonic::Code;

use super::*;
use crate::rpc::{self, Channels, Door, Refusals};
use crate::tasks::Tasks;
use crate::tls::{Security, claims_name};

struct Cluster {
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Cluster {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::open(&folder.path().join("ca"), "test").unwrap();
        Self { folder, authority }
    }

    fn member(&self, name: &str) -> TlsFiles {
        self.authority.issue(&self.folder.path().join(name), name).unwrap()
    }

    fn security(&self, name: &str) -> Security {
        Security::from_files(&self.member(name)).unwrap()
    }
}

/// A server without services: whoever gets past TLS is told so.
async fn serve(security: &Security, tasks: &Tasks) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let refusals = Refusals::default();
    let router = rpc::plain_server(refusals.clone()).add_routes(tonic::service::Routes::default());
    let door = Door::new(listener, security, None, refusals).unwrap();
    let stop = tasks.token();
    tasks.spawn_until_stopped("server", async move {
        let _ = rpc::serve_at(router, door, stop, Duration::ZERO).await;
    });
    address
}

async fn call(security: &Security, address: &str, name: &str) -> Code {
    let channel = Channels::new(security.clone()).to(address, name).unwrap();
    let mut client = v1::index_client::IndexClient::new(channel);
    client.whois(v1::WhoisRequest::default()).await.unwrap_err().code()
}

fn install_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[tokio::test]
async fn members_accept_each_other_by_name() {
    install_provider();
    let (cluster, tasks) = (Cluster::new(), Tasks::new());
    let address = serve(&cluster.security("node-0"), &tasks).await;
    let caller = cluster.security("node-1");
    assert_eq!(call(&caller, &address, "node-0").await, Code::Unimplemented);
    assert_eq!(call(&caller, &address, "").await, Code::Unimplemented);
    assert_ne!(call(&caller, &address, "node-2").await, Code::Unimplemented);
    tasks.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn another_authority_is_refused() {
    install_provider();
    let (cluster, foreign, tasks) = (Cluster::new(), Cluster::new(), Tasks::new());
    let address = serve(&cluster.security("node-0"), &tasks).await;
    let stranger = foreign.security("node-1");
    assert_ne!(call(&stranger, &address, "node-0").await, Code::Unimplemented);
    let plain = call(&Security::Insecure, &address, "node-0").await;
    assert_ne!(plain, Code::Unimplemented);
    tasks.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn an_authority_that_is_kept_goes_on() {
    install_provider();
    let (cluster, tasks) = (Cluster::new(), Tasks::new());
    let address = serve(&cluster.security("node-0"), &tasks).await;
    let reopened = Authority::open(&cluster.folder.path().join("ca"), "test").unwrap();
    let files = reopened.issue(&cluster.folder.path().join("late"), "late").unwrap();
    let late = Security::from_files(&files).unwrap();
    assert_eq!(call(&late, &address, "node-0").await, Code::Unimplemented);
    tasks.shutdown(Duration::from_secs(5)).await;
}

/// Puts other files in the place of a member's.
fn replace(own: &TlsFiles, from: &TlsFiles, which: &[fn(&TlsFiles) -> &PathBuf]) {
    for file in which {
        std::fs::copy(file(from), file(own)).unwrap();
    }
}

#[tokio::test]
async fn an_authority_is_replaced_while_members_run() {
    install_provider();
    let (old, new, tasks) = (Cluster::new(), Cluster::new(), Tasks::new());
    let (mine, theirs) = (old.member("node-0"), old.member("node-1"));
    let [server, caller] = [&mine, &theirs].map(|files| Security::from_files(files).unwrap());
    let address = serve(&server, &tasks).await;
    let kept = Channels::new(caller.clone());
    kept.to(&address, "node-0").unwrap();
    assert_eq!(call(&caller, &address, "node-0").await, Code::Unimplemented);
    assert!(!server.look().unwrap(), "nothing has changed");

    // Both authorities are trusted first, so that certificates can be replaced one by one.
    let authority = |files: &TlsFiles| std::fs::read(&files.ca).unwrap();
    let (my_new, their_new) = (new.member("node-0"), new.member("node-1"));
    let both = [authority(&mine), authority(&my_new)].concat();
    for (files, security) in [(&mine, &server), (&theirs, &caller)] {
        std::fs::write(&files.ca, &both).unwrap();
        assert!(security.look().unwrap());
    }
    replace(&mine, &my_new, &[|files| &files.cert]);
    assert!(server.look().is_err(), "a certificate without its key");
    assert_eq!(call(&caller, &address, "node-0").await, Code::Unimplemented, "as it was");
    replace(&mine, &my_new, &[|files| &files.key]);
    assert!(server.look().unwrap());
    assert_eq!(call(&caller, &address, "node-0").await, Code::Unimplemented);
    replace(&theirs, &their_new, &[|files| &files.cert, |files| &files.key]);
    assert!(caller.look().unwrap());
    assert_eq!(call(&caller, &address, "node-0").await, Code::Unimplemented);

    // Now the old one goes: who has nothing newer is refused.
    replace(&mine, &my_new, &[|files| &files.ca]);
    assert!(server.look().unwrap());
    assert_eq!(call(&caller, &address, "node-0").await, Code::Unimplemented);
    let late = old.security("node-2");
    assert_ne!(call(&late, &address, "node-0").await, Code::Unimplemented);
    assert_eq!((server.generation(), caller.generation()), (3, 2));
    tasks.shutdown(Duration::from_secs(5)).await;
}

#[test]
fn a_certificate_claims_its_own_name_only() {
    let cluster = Cluster::new();
    let files = cluster.member("node-0");
    let certificate = CertificateDer::from_pem_file(&files.cert).unwrap();
    assert!(claims_name(&certificate, "node-0"));
    for other in ["node-1", "node-0.node", "", "localhost"] {
        assert!(!claims_name(&certificate, other), "{other}");
    }
}

#[test]
fn keys_and_secrets_are_their_owners() {
    let cluster = Cluster::new();
    let secret = cluster.folder.path().join("secret");
    ensure_secret(&secret).unwrap();
    let first = std::fs::read_to_string(&secret).unwrap();
    ensure_secret(&secret).unwrap();
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), first);
    assert_eq!(first.trim().len(), 2 * SECRET_BYTES);
    let mode = |path: &PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let ca_key = cluster.folder.path().join("ca/ca.key");
    for path in [&secret, &ca_key, &cluster.member("node-0").key] {
        assert_eq!(mode(path), 0o600, "{}", path.display());
    }
}

#[test]
fn a_name_that_is_no_name_is_refused() {
    let cluster = Cluster::new();
    let refused = cluster.authority.issue(cluster.folder.path(), "nöde");
    assert!(matches!(refused, Err(CaError::Certificate { subject, .. }) if subject == "nöde"));
}
