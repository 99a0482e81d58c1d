//! The ways that chunks can go: gRPC alone, in plain text; and lanes, with certificates.

use std::sync::LazyLock;

use futures::FutureExt;
use futures::future::BoxFuture;
use prost::Message;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use super::super::lane::frame::{HEADER_BYTES, Header, Kind};
use super::super::lane::server::send;
use super::*;
use crate::rpc::{Door, Lane, Refusals, ServesLanes};
use crate::tls::{MEMBER_NAME, TlsFiles, node_name};

/// How chunks go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Grpc,
    Lane,
}

static AUTHORITY: LazyLock<Authority> = LazyLock::new(Authority::new);

impl Way {
    pub(crate) const ALL: [Self; 2] = [Self::Grpc, Self::Lane];

    pub(crate) fn security(self, id: u64) -> Security {
        match self {
            Self::Grpc => Security::Insecure,
            Self::Lane => AUTHORITY.security(&format!("node-{id}")),
        }
    }

    /// Serves a peer that way, and by gRPC what else peers are asked for.
    pub(crate) async fn listen<S>(
        self,
        service: S,
        lanes: Arc<dyn ServesLanes>,
        id: u64,
        tasks: &Tasks,
    ) -> Member
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let me = member(id, listener.local_addr().unwrap());
        let refusals = Refusals::default();
        let router = rpc::plain_server(refusals.clone()).add_service(service);
        let door = Door::new(listener, &self.security(id), Some(lanes), refusals).unwrap();
        let stop = tasks.token();
        tasks.spawn("peer", async move {
            rpc::serve_at(router, door, stop, Duration::from_millis(100)).await.unwrap();
        });
        me
    }
}

/// Issues certificates.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        // gRPC's side of TLS takes the process's provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn security(&self, name: &str) -> Security {
        let mut params = CertificateParams::default();
        for name in [node_name(name), MEMBER_NAME.to_owned()] {
            params.subject_alt_names.push(SanType::DnsName(name.try_into().unwrap()));
        }
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let dir = tempfile::tempdir_in(self.dir.path()).unwrap();
        let write = |file: &str, text: String| {
            let path = dir.path().join(file);
            std::fs::write(&path, text).unwrap();
            path
        };
        let files = TlsFiles {
            ca: write("ca.pem", self.issuer.pem()),
            cert: write("cert.pem", certificate.pem()),
            key: write("key.pem", key.serialize_pem()),
        };
        Security::from_files(&files).unwrap()
    }
}

/// A peer that lies about the chunks of a body, on lanes.
pub(super) struct LaneLiar(pub(super) Bytes, pub(super) Lie);

impl ServesLanes for LaneLiar {
    fn serve(&self, lane: Lane, _: CancellationToken) -> BoxFuture<'static, ()> {
        let liar = Liar(self.0.clone(), self.1);
        async move {
            let (mut reader, mut writer) = tokio::io::split(lane.stream);
            let mut header = [0; HEADER_BYTES];
            while reader.read_exact(&mut header).await.is_ok() {
                let Header { kind, number, length, .. } = Header::decode(header).unwrap();
                if kind != Kind::Ask {
                    continue;
                }
                let mut request = vec![0; length as usize];
                reader.read_exact(&mut request).await.unwrap();
                let ranges = v1::GetChunksRequest::decode(&*request).unwrap().ranges;
                let wanted: Vec<_> =
                    ranges.iter().flat_map(|r| r.first..r.first + r.count).collect();
                let mut pieces = liar.pieces(&wanted);
                while let Some(Ok(v1::ChunkPiece { index, data })) = pieces.next().await {
                    let header = Header { index, ..Header::of(Kind::Chunk, number, data.len()) };
                    if send(&mut writer, header, data).await.is_err() {
                        return;
                    }
                }
                let end = Header::of(Kind::End, number, 0);
                if send(&mut writer, end, Bytes::new()).await.is_err() {
                    return;
                }
            }
        }
        .boxed()
    }
}
