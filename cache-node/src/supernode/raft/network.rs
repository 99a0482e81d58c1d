//! The caller's side between super-nodes. Every call has a deadline; a member that cannot be
//! reached is an error, never a granted vote.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError};
use openraft::errors::{Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse};
use openraft::raft::{TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse};
use openraft::raft::{VoteRequest, VoteResponse};
use shoal_proto::limits::MEMBERS_MAX;
use shoal_proto::wire::v1;
use shoal_proto::{ErrorKind, NodeId, RpcError};
use tonic::service::interceptor::InterceptedService;
use tonic::{Response, Status};

use super::RaftClient;
use super::generation::{Generation, Stamp};
use super::snapshot::SnapshotDir;
use super::wire::{self, Types, Vote, log_id_to, some_vote, vote_to};
use crate::rpc::{Channels, MESSAGE_BYTES_MAX};

/// Deadline of an append that carries entries, in milliseconds. The library's own, three quarters
/// of a heartbeat, is for heartbeats: cutting off entries that the other side is just syncing would
/// send them again, to a disk that is already slow. Heartbeats have a connection stream of their
/// own and keep the short deadline, so a slow disk costs no election.
const APPEND_DEADLINE_MS: u64 = 1_000;

type Failed = RPCError<Types>;

/// Where super-nodes were last heard of. Addresses change over restarts, names and ids do not.
#[derive(Clone, Debug, Default)]
pub(super) struct AddressBook {
    known: Arc<Mutex<BTreeMap<u64, v1::RaftNode>>>,
    generation: Generation,
    stands: Arc<AtomicBool>,
}

impl AddressBook {
    /// An empty one; its clients tell others `generation`. While it does not stand nobody is
    /// called: no election is won, and no lead of an earlier life goes on.
    pub(super) fn new(generation: Generation, stands: bool) -> Self {
        Self { known: Arc::default(), generation, stands: Arc::new(stands.into()) }
    }

    /// From now on others are called.
    pub(super) fn stand(&self) {
        self.stands.store(true, Ordering::Relaxed);
    }

    /// Notes a member's name and address.
    pub(super) fn learn(&self, info: &v1::NodeInfo) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MEMBERS_MAX || known.contains_key(&info.node_id) {
            known.insert(info.node_id, node_of(info));
        }
    }

    /// What is known of `id`.
    pub(super) fn find(&self, id: u64) -> Option<v1::RaftNode> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// A client for `id`. The address is the newest known; the name, which the other side's
    /// certificate must bear, is the membership's where there is one.
    pub(super) fn client(
        &self,
        channels: &Channels,
        id: u64,
        member: Option<&v1::RaftNode>,
    ) -> Result<RaftClient, RpcError> {
        if !self.stands.load(Ordering::Relaxed) {
            let message = "the others are asked first to which tier they belong";
            return Err(RpcError::new(ErrorKind::Retry, message));
        }
        let learned = self.find(id);
        let unknown = || RpcError::redirect(format!("no address of super-node {}", NodeId(id)), "");
        let at = learned.as_ref().or(member).ok_or_else(unknown)?;
        let channel = channels.to(&at.cluster_address, &member.unwrap_or(at).name)?;
        let stamp = Stamp { generation: self.generation.clone(), target: id };
        Ok(RaftClient::new(InterceptedService::new(channel, stamp))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }
}

/// A member as the log's membership names it.
pub(super) fn node_of(info: &v1::NodeInfo) -> v1::RaftNode {
    v1::RaftNode {
        name: info.name.clone(),
        cluster_address: info.cluster_address.clone(),
        held_back: false,
        auto: info.auto,
    }
}

/// Makes callers.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) me: u64,
    pub(super) book: AddressBook,
    pub(super) channels: Channels,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &v1::RaftNode) -> Peer {
        Peer { network: self.clone(), target, node: node.clone() }
    }
}

/// Calls one super-node.
pub(super) struct Peer {
    network: Network,
    target: u64,
    node: v1::RaftNode,
}

impl Peer {
    fn client(&self) -> Result<RaftClient, Failed> {
        let Network { book, channels, .. } = &self.network;
        book.client(channels, self.target, Some(&self.node)).map_err(|error| unreachable(&error))
    }

    async fn call<T>(
        &self,
        action: RPCTypes,
        timeout: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failed> {
        match tokio::time::timeout(timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(unreachable(&RpcError::from(status))),
            Err(_) => {
                let (id, target) = (self.network.me, self.target);
                Err(Timeout { action, id, target, timeout }.into())
            }
        }
    }
}

fn unreachable(error: &RpcError) -> Failed {
    Unreachable::from_string(error).into()
}

fn malformed(error: impl std::error::Error) -> Failed {
    NetworkError::from_string(error).into()
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = SnapshotDir;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, Failed> {
        let from_start = request.prev_log_id.is_none();
        let deadline = match request.entries.is_empty() {
            true => option.soft_ttl(),
            false => option.soft_ttl().max(Duration::from_millis(APPEND_DEADLINE_MS)),
        };
        let mut client = self.client()?;
        let call = client.append(wire::append_to(request));
        let reply = self.call(RPCTypes::AppendEntries, deadline, call).await?;
        match wire::appended_from(reply).map_err(malformed)? {
            // Nothing comes before the start; the library takes that for granted.
            AppendEntriesResponse::Conflict if from_start => {
                Err(NetworkError::from_string("a conflict before the log's start").into())
            }
            appended => Ok(appended),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, Failed> {
        let mut client = self.client()?;
        let call = client.vote(wire::vote_request_to(&request));
        let reply = self.call(RPCTypes::Vote, option.soft_ttl(), call).await?;
        wire::vote_reply_from(reply).map_err(malformed)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, Failed> {
        let mut client = self.client()?;
        let call = client.pre_vote(wire::vote_request_to(&request));
        let reply = self.call(RPCTypes::Vote, option.soft_ttl(), call).await?;
        wire::vote_reply_from(reply).map_err(malformed)
    }

    /// Offers the snapshot; the other side fetches what it lacks, in pieces, and installs it. The
    /// offer holds the snapshot meanwhile, so that its files stay.
    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<Types, SnapshotDir>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let manifest = Some(snapshot.snapshot.manifest().clone());
        let mut client = self.client()?;
        let offer = v1::SnapshotOffer { vote: Some(vote_to(&vote)), manifest };
        let call = client.install_snapshot(offer);
        let reply = tokio::select! {
            closed = cancel => return Err(closed.into()),
            reply = self.call(RPCTypes::InstallSnapshot, option.soft_ttl(), call) => reply?,
        };
        Ok(SnapshotResponse::new(some_vote(reply.vote).map_err(malformed)?))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, Failed> {
        let mut client = self.client()?;
        let call = client.transfer_leader(v1::TransferLeaderRequest {
            from_leader: Some(vote_to(request.from_leader())),
            to_node_id: *request.to_node_id(),
            last_log_id: request.last_log_id().copied().map(log_id_to),
        });
        let reply = self.call(RPCTypes::TransferLeader, option.soft_ttl(), call).await?;
        let expected = request.last_log_id().copied();
        Ok(match reply.accepted {
            true => Ok(()),
            false => Err(TransferLeaderError::LogNotFlushed { expected, actual: None }),
        })
    }
}
