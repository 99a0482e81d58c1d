//! Super-nodes for tests: certificates, listeners, directories.

use std::path::PathBuf;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use shoal_proto::wire::v1;
use tempfile::TempDir;
use tonic::service::interceptor::InterceptedService;

use super::super::generation::{Generation, Stamp};
use super::super::{Compaction, Raft, RaftClient, RaftConfig};
use super::{ABSENCE, PATIENCE};
use crate::metrics::{IndexMetrics, Metrics};
use crate::rpc::{self, Channels, Door, Refusals};
use crate::tasks::Tasks;
use crate::tls::{MEMBER_NAME, Security, TlsFiles, node_name};

/// Time for running calls to end when a test's server stops.
const GRACE: Duration = Duration::from_secs(5);

/// A certificate authority and what all its super-nodes share.
pub(super) struct Cluster {
    issuer: Issuer<'static, KeyPair>,
    ca: String,
    scratch: TempDir,
    compaction: Compaction,
}

/// A running super-node.
pub(super) struct SuperNode {
    pub(super) info: v1::NodeInfo,
    pub(super) raft: Raft,
    directory: TempDir,
    tasks: Tasks,
}

impl Cluster {
    pub(super) fn new(compaction: Compaction) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, ca, scratch: TempDir::new().unwrap(), compaction }
    }

    pub(super) fn directory(&self) -> TempDir {
        TempDir::new().unwrap()
    }

    fn security(&self, name: &str) -> Security {
        let key = KeyPair::generate().unwrap();
        let names = vec![MEMBER_NAME.to_owned(), node_name(name)];
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        let write = |kind: &str, pem: &str| -> PathBuf {
            let path = self.scratch.path().join(format!("{name}.{kind}"));
            std::fs::write(&path, pem).unwrap();
            path
        };
        let (ca, cert) = (write("ca", &self.ca), write("crt", &cert));
        let files = TlsFiles { ca, cert, key: write("key", &key.serialize_pem()) };
        Security::from_files(&files).unwrap()
    }

    /// A client to `node` with the certificate of a member called `name`.
    pub(super) fn client(&self, node: &SuperNode, name: &str) -> RaftClient {
        self.client_of(node, name, node.info.node_id)
    }

    /// The same, meaning the super-node `target`.
    pub(super) fn client_of(&self, node: &SuperNode, name: &str, target: u64) -> RaftClient {
        let channels = Channels::new(self.security(name));
        let channel = channels.to(&node.info.cluster_address, &node.info.name).unwrap();
        let stamp = Stamp { generation: Generation::default(), target };
        RaftClient::new(InterceptedService::new(channel, stamp))
    }

    /// Starts a super-node on a port of its own.
    pub(super) async fn start(
        &self,
        name: &str,
        id: u64,
        directory: TempDir,
        bootstrap: bool,
    ) -> SuperNode {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let info = v1::NodeInfo {
            node_id: id,
            name: name.to_owned(),
            role: v1::Role::Super.into(),
            cluster_address: listener.local_addr().unwrap().to_string(),
            ..Default::default()
        };
        let security = self.security(name);
        let tasks = Tasks::new();
        let config = RaftConfig {
            cluster_id: "test".parse().unwrap(),
            me: info.clone(),
            dir: directory.path().to_owned(),
            bootstrap,
            stands: true,
        };
        let metrics = IndexMetrics::new(&Metrics::new().unwrap()).unwrap();
        let channels = Channels::new(security.clone());
        let shell = (tasks.clone(), metrics);
        let started = Raft::start_with(config, self.compaction, channels, shell).await;
        let (raft, _) = started.unwrap();
        let router = rpc::server(Refusals::default()).add_service(raft.service());
        let door = Door::new(listener, &security, None, Refusals::default()).unwrap();
        let stop = tasks.token();
        tasks.spawn("server", async move {
            rpc::serve_at(router, door, stop, GRACE).await.unwrap();
        });
        SuperNode { info, raft, directory, tasks }
    }

    /// A tier of three voters led by the first.
    pub(super) async fn three(&self) -> [SuperNode; 3] {
        let one = self.start("one", 1, self.directory(), true).await;
        let two = self.start("two", 2, self.directory(), false).await;
        let three = self.start("three", 3, self.directory(), false).await;
        for (voters, joiner) in [(2, &two), (3, &three)] {
            joiner.raft.learn_address(&one.info);
            one.raft.watch().wait_for(|tier| tier.leader.is_some()).await.unwrap();
            one.raft.join(joiner.info.clone(), ABSENCE, PATIENCE).await.unwrap();
            let mut tier = joiner.raft.watch();
            let joined = tier.wait_for(|tier| tier.voters.len() == voters);
            tokio::time::timeout(PATIENCE, joined).await.unwrap().unwrap();
        }
        [one, two, three]
    }
}

impl SuperNode {
    /// Waits until it stops by itself.
    pub(super) async fn stopped(&self) {
        self.tasks.stopped().await;
    }

    /// Ends it without ceremony; its data stays.
    pub(super) async fn kill(self) -> TempDir {
        self.raft.shutdown().await;
        assert!(self.tasks.shutdown(GRACE * 2).await);
        self.directory
    }
}
