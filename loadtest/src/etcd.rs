//! Three members of etcd on loopback, and its key-value API over gRPC: what the index is compared
//! with. Default durability; plain text, to etcd's advantage.

use std::{
    io,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use thiserror::Error;
use tonic::transport::{Channel, Endpoint};

use crate::{
    clock::Clock,
    process::{
        Process, ProcessError, disk, find_program,
        usage::{self, Usage},
    },
};
use wire::kv_client::KvClient;

/// The generated messages of etcd's API.
mod wire {
    #![expect(unused_qualifications, reason = "generated")]
    #![expect(unreachable_pub, reason = "generated")]
    #![expect(clippy::allow_attributes_without_reason, reason = "generated")]
    tonic::include_proto!("etcdserverpb");
}

/// Members.
pub const MEMBERS: usize = 3;
/// Largest database that etcd allows here, in bytes: its own default of 2 GiB would end a long run.
const QUOTA_BYTES: u64 = 8 << 30;
/// For the members to elect a leader.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// Between two tries.
const TRY_EVERY: Duration = Duration::from_millis(100);
/// For one call.
const CALL_DEADLINE: Duration = Duration::from_secs(20);
/// For a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// Request overhead that etcd allows beside the puts of a transaction; its own default.
const REQUEST_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Why there is no etcd to compare with.
#[derive(Debug, Error)]
pub enum EtcdError {
    /// The program is missing.
    #[error(
        "the program `etcd` is not on PATH; install it (apt-get install etcd-server), give \
         --etcd FILE, or leave --against out"
    )]
    NoProgram,
    /// No ports.
    #[error("no free port for etcd: {0}")]
    Port(io::Error),
    /// A folder cannot be made.
    #[error("{}: {source}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A process failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// An address cannot be one.
    #[error("etcd's address: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// It does not answer.
    #[error("etcd takes no write: {reason}; its log ends:\n{said}")]
    NotReady {
        /// Why.
        reason: String,
        /// The end of a log.
        said: String,
    },
}

/// The program.
///
/// # Errors
/// When it is not there.
pub fn find(given: Option<&Path>) -> Result<PathBuf, EtcdError> {
    find_program("etcd", given).ok_or(EtcdError::NoProgram)
}

/// What `etcd --version` says first.
#[must_use]
pub fn version(program: &Path) -> String {
    let said = std::process::Command::new(program).arg("--version").output();
    let said = said.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned()
}

/// A running cluster.
#[derive(Debug)]
pub struct Etcd {
    program: PathBuf,
    folder: PathBuf,
    /// Each member's arguments.
    args: Vec<Vec<String>>,
    processes: Vec<Process>,
    /// One connection to each member.
    pub clients: Vec<Client>,
}

impl Etcd {
    /// Starts the members with their data in `folder`, and waits until a write is acknowledged.
    ///
    /// # Errors
    /// When they do not come up.
    pub async fn start(program: &Path, folder: &Path, txn_ops: usize) -> Result<Self, EtcdError> {
        let made = std::fs::create_dir_all(folder);
        made.map_err(|source| EtcdError::Folder { path: folder.to_owned(), source })?;
        let ports = free_ports(2 * MEMBERS).map_err(EtcdError::Port)?;
        let (client_ports, peer_ports) = ports.split_at(MEMBERS);
        let url = |port: &u16| format!("http://127.0.0.1:{port}");
        let all = peer_ports.iter().enumerate().map(|(at, port)| format!("e{at}={}", url(port)));
        let all = all.collect::<Vec<_>>().join(",");
        let mut etcd = Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
            args: Vec::new(),
            processes: Vec::new(),
            clients: Vec::new(),
        };
        for (at, (client, peer)) in client_ports.iter().zip(peer_ports).enumerate() {
            let args = [
                format!("--name=e{at}"),
                format!("--data-dir={}", data_of(folder, at).display()),
                format!("--listen-client-urls={}", url(client)),
                format!("--advertise-client-urls={}", url(client)),
                format!("--listen-peer-urls={}", url(peer)),
                format!("--initial-advertise-peer-urls={}", url(peer)),
                format!("--initial-cluster={all}"),
                format!("--quota-backend-bytes={QUOTA_BYTES}"),
                format!("--max-txn-ops={txn_ops}"),
                format!("--max-request-bytes={REQUEST_BYTES_MAX}"),
                "--logger=zap".to_owned(),
                "--log-level=error".to_owned(),
            ];
            etcd.args.push(args.to_vec());
            etcd.clients.push(Client::new(&url(client))?);
        }
        etcd.start_members().await?;
        Ok(etcd)
    }

    async fn start_members(&mut self) -> Result<(), EtcdError> {
        for (at, args) in self.args.iter().enumerate() {
            let (name, log) = (format!("e{at}"), self.folder.join(format!("e{at}.log")));
            self.processes.push(Process::start(&name, &self.program, args, &log, false)?);
        }
        self.wait_ready().await
    }

    /// Ends all members in order and starts them again. etcd 3.4 copies, for every read, a buffer
    /// that is as large as the largest batch it has ever written: reads are measured without it.
    ///
    /// # Errors
    /// When they do not come back.
    pub async fn restart(&mut self) -> Result<(), EtcdError> {
        self.stop().await?;
        self.start_members().await
    }

    async fn wait_ready(&self) -> Result<(), EtcdError> {
        let clock = Clock::start();
        for (client, process) in self.clients.iter().zip(&self.processes) {
            loop {
                let Err(reason) = client.put(Bytes::from_static(b"ready")).await else { break };
                if clock.now() >= READY_DEADLINE {
                    return Err(EtcdError::NotReady { reason, said: process.log_tail() });
                }
                tokio::time::sleep(TRY_EVERY).await;
            }
        }
        Ok(())
    }

    /// What the members have used.
    #[must_use]
    pub fn usage(&self) -> Vec<Usage> {
        self.processes.iter().map(|process| usage::of(process.pid())).collect()
    }

    /// Bytes in the first member's data directory.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        disk::bytes_in(&data_of(&self.folder, 0))
    }

    /// Ends all members.
    ///
    /// # Errors
    /// When one does not end.
    pub async fn stop(&mut self) -> Result<(), EtcdError> {
        for mut process in self.processes.drain(..) {
            process.stop().await?;
        }
        Ok(())
    }
}

fn data_of(folder: &Path, member: usize) -> PathBuf {
    folder.join(format!("e{member}"))
}

/// A connection to one member.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
}

impl Client {
    fn new(url: &str) -> Result<Self, EtcdError> {
        let endpoint = Endpoint::from_shared(url.to_owned())?;
        let endpoint = endpoint.connect_timeout(CONNECT_DEADLINE).tcp_nodelay(true);
        Ok(Self { channel: endpoint.connect_lazy() })
    }

    /// Puts one key, with the smallest value that says "complete".
    ///
    /// # Errors
    /// When it is not acknowledged.
    pub async fn put(&self, key: Bytes) -> Result<(), String> {
        let mut client = KvClient::new(self.channel.clone());
        within(client.put(put(key))).await.map(drop)
    }

    /// Puts all `keys` in one transaction.
    ///
    /// # Errors
    /// When it is not acknowledged.
    pub async fn txn(&self, keys: impl Iterator<Item = Bytes>) -> Result<(), String> {
        let op = |key| wire::RequestOp {
            request: Some(wire::request_op::Request::RequestPut(put(key))),
        };
        let request = wire::TxnRequest { success: keys.map(op).collect() };
        let mut client = KvClient::new(self.channel.clone());
        match within(client.txn(request)).await?.succeeded {
            true => Ok(()),
            false => Err("the transaction did not go through".to_owned()),
        }
    }

    /// How many keys begin with `prefix`, at most `limit`.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn range(
        &self,
        prefix: &[u8],
        limit: usize,
        serializable: bool,
    ) -> Result<usize, String> {
        let request = wire::RangeRequest {
            key: Bytes::copy_from_slice(prefix),
            range_end: after(prefix),
            limit: i64::try_from(limit).unwrap_or(i64::MAX),
            serializable,
            keys_only: true,
        };
        let mut client = KvClient::new(self.channel.clone());
        Ok(within(client.range(request)).await?.kvs.len())
    }
}

fn put(key: Bytes) -> wire::PutRequest {
    wire::PutRequest { key, value: Bytes::from_static(b"c") }
}

async fn within<T>(
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, String> {
    match tokio::time::timeout(CALL_DEADLINE, call).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err(format!("no answer within {CALL_DEADLINE:?}")),
    }
}

/// The first key after all that begin with `prefix`; empty, which etcd takes for no end, when there
/// is none.
fn after(prefix: &[u8]) -> Bytes {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX).map_or(0, |last| last + 1);
    let mut end = prefix[..kept].to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end.into()
}

/// Ports that are free now.
fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let bound: io::Result<Vec<_>> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    bound?.iter().map(|listener| listener.local_addr().map(|address| address.port())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_its_last_byte_goes_up() {
        assert_eq!(after(b"ab"), Bytes::from_static(b"ac"));
        assert_eq!(after(&[1, 0xff, 0xff]), Bytes::from_static(&[2]));
        assert_eq!(after(&[0xff]), Bytes::new());
    }

    #[test]
    fn a_missing_program_is_told_with_its_package() {
        let told = find(Some(Path::new("/nowhere/etcd"))).unwrap_err().to_string();
        assert!(told.contains("apt-get install etcd-server"), "{told}");
    }
}
