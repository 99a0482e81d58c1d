//! Calls between simulated super-nodes. Every message goes through the product's own encoding and
//! back, as bytes; a snapshot is handed over whole.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse};
use openraft::raft::{TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse};
use openraft::raft::{VoteRequest, VoteResponse};
use openraft::storage::Snapshot;
use prost::Message as _;
use shoal_proto::wire::v1;

use super::super::wire::{self, Meta, Vote, log_id_from, log_id_to, some_vote, vote_to};
use super::machine::Contents;
use super::{SimRaft, Types};

/// Deadline of an append that carries entries, in milliseconds: as the product's.
const APPEND_DEADLINE_MS: u64 = 1_000;

type Real = wire::Types;
type Failed = RPCError<Types>;

/// What goes from one super-node to another, or back.
#[derive(Clone)]
pub(in crate::supernode) enum Message {
    Append(Vec<u8>),
    Vote(Vec<u8>),
    PreVote(Vec<u8>),
    Transfer(Vec<u8>),
    Snapshot(Vec<u8>, Arc<Contents>),
    Reply(Vec<u8>),
}

/// Carries messages between super-nodes.
pub(in crate::supernode) trait Transport: Send + Sync {
    /// The answer, or `None` when there is none in time.
    fn call(&self, to: u64, message: Message, ms: u64) -> BoxFuture<'static, Option<Message>>;
}

#[derive(Clone)]
pub(super) struct Network {
    pub(super) me: u64,
    pub(super) transport: Arc<dyn Transport>,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _node: &v1::RaftNode) -> Peer {
        Peer { network: self.clone(), target }
    }
}

pub(super) struct Peer {
    network: Network,
    target: u64,
}

impl Peer {
    async fn call<M: prost::Message + Default>(
        &self,
        action: RPCTypes,
        timeout: Duration,
        message: Message,
    ) -> Result<M, Failed> {
        let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        match self.network.transport.call(self.target, message, ms).await {
            Some(Message::Reply(bytes)) => M::decode(&bytes[..]).map_err(malformed),
            Some(_) => Err(NetworkError::from_string("not a reply").into()),
            None => {
                let (id, target) = (self.network.me, self.target);
                Err(Timeout { action, id, target, timeout }.into())
            }
        }
    }
}

fn malformed(error: impl std::fmt::Display) -> Failed {
    NetworkError::from_string(error).into()
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = Arc<Contents>;

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
        let AppendEntriesRequest { vote, prev_log_id, entries, leader_commit } = request;
        let request = AppendEntriesRequest::<Real> { vote, prev_log_id, entries, leader_commit };
        let message = Message::Append(wire::append_to(request).encode_to_vec());
        let reply: v1::AppendReply = self.call(RPCTypes::AppendEntries, deadline, message).await?;
        match appended(wire::appended_from(reply).map_err(malformed)?) {
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
        let bytes = wire::vote_request_to(&real_vote(request)).encode_to_vec();
        let reply = self.call(RPCTypes::Vote, option.soft_ttl(), Message::Vote(bytes)).await?;
        wire::vote_reply_from(reply).map(vote_reply).map_err(malformed)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, Failed> {
        let bytes = wire::vote_request_to(&real_vote(request)).encode_to_vec();
        let reply = self.call(RPCTypes::Vote, option.soft_ttl(), Message::PreVote(bytes)).await?;
        wire::vote_reply_from(reply).map(vote_reply).map_err(malformed)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<Types, Arc<Contents>>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let message = Message::Snapshot(vote_to(&vote).encode_to_vec(), snapshot.snapshot);
        let call = self.call(RPCTypes::InstallSnapshot, option.soft_ttl(), message);
        let (cancel, call) = (std::pin::pin!(cancel), std::pin::pin!(call));
        let reply: v1::SnapshotReply = match futures::future::select(cancel, call).await {
            futures::future::Either::Left((closed, _)) => return Err(closed.into()),
            futures::future::Either::Right((reply, _)) => reply?,
        };
        Ok(SnapshotResponse::new(some_vote(reply.vote).map_err(malformed)?))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, Failed> {
        let message = v1::TransferLeaderRequest {
            from_leader: Some(vote_to(request.from_leader())),
            to_node_id: *request.to_node_id(),
            last_log_id: request.last_log_id().copied().map(log_id_to),
        };
        let message = Message::Transfer(message.encode_to_vec());
        let reply: v1::TransferLeaderReply =
            self.call(RPCTypes::TransferLeader, option.soft_ttl(), message).await?;
        let expected = request.last_log_id().copied();
        Ok(match reply.accepted {
            true => Ok(()),
            false => Err(TransferLeaderError::LogNotFlushed { expected, actual: None }),
        })
    }
}

/// The called side.
pub(super) async fn handle(raft: &SimRaft, message: Message) -> Result<Message, String> {
    let core = &raft.core;
    let reply = match message {
        Message::Append(bytes) => {
            let request = wire::append_from(decode(&bytes)?).map_err(text)?;
            let AppendEntriesRequest { vote, prev_log_id, entries, leader_commit } = request;
            let request = AppendEntriesRequest { vote, prev_log_id, entries, leader_commit };
            let reply = core.append_entries(request).await.map_err(text)?;
            wire::appended_to(appended(reply)).encode_to_vec()
        }
        Message::Vote(bytes) => {
            let request = sim_vote(wire::vote_request_from(decode(&bytes)?).map_err(text)?);
            let asked = request.vote;
            let reply = core.vote(request).await.map_err(text)?;
            if reply.vote_granted {
                raft.observer.granted(raft.id, &vote_to(&asked));
            }
            wire::vote_reply_to(&real_reply(reply)).encode_to_vec()
        }
        Message::PreVote(bytes) => {
            let request = sim_vote(wire::vote_request_from(decode(&bytes)?).map_err(text)?);
            let reply = core.pre_vote(request).await.map_err(text)?;
            wire::vote_reply_to(&real_reply(reply)).encode_to_vec()
        }
        Message::Transfer(bytes) => {
            let request: v1::TransferLeaderRequest = decode(&bytes)?;
            let from = some_vote(request.from_leader).map_err(text)?;
            let last = request.last_log_id.map(log_id_from);
            let request = TransferLeaderRequest::new(from, request.to_node_id, last);
            let done = core.handle_transfer_leader(request).await.map_err(text)?;
            v1::TransferLeaderReply { accepted: done.is_ok() }.encode_to_vec()
        }
        Message::Snapshot(bytes, contents) => {
            let vote = some_vote(Some(decode(&bytes)?)).map_err(text)?;
            let meta: Meta = wire::meta_from(contents.applied.clone()).map_err(text)?;
            let snapshot = Snapshot { meta, snapshot: contents };
            let done = core.install_full_snapshot(vote, snapshot).await.map_err(text)?;
            v1::SnapshotReply { vote: Some(vote_to(&done.vote)) }.encode_to_vec()
        }
        Message::Reply(_) => return Err("a reply that nobody asked for".to_owned()),
    };
    Ok(Message::Reply(reply))
}

fn decode<M: prost::Message + Default>(bytes: &[u8]) -> Result<M, String> {
    M::decode(bytes).map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn appended<A, B>(reply: AppendEntriesResponse<A>) -> AppendEntriesResponse<B>
where
    A: SameTypes,
    B: SameTypes,
{
    match reply {
        AppendEntriesResponse::Success => AppendEntriesResponse::Success,
        AppendEntriesResponse::PartialSuccess(at) => AppendEntriesResponse::PartialSuccess(at),
        AppendEntriesResponse::Conflict => AppendEntriesResponse::Conflict,
        AppendEntriesResponse::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote),
    }
}

/// The product's types and the simulation's differ in their runtime alone.
trait SameTypes: openraft::RaftTypeConfig<LeaderId = LeaderId, Vote = Vote> {}
impl<C: openraft::RaftTypeConfig<LeaderId = LeaderId, Vote = Vote>> SameTypes for C {}
type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;

fn real_vote(request: VoteRequest<Types>) -> VoteRequest<Real> {
    let mut real = VoteRequest::new(request.vote, request.last_log_id);
    real.leadership_transfer = request.leadership_transfer;
    real
}

fn sim_vote(request: VoteRequest<Real>) -> VoteRequest<Types> {
    let mut sim = VoteRequest::new(request.vote, request.last_log_id);
    sim.leadership_transfer = request.leadership_transfer;
    sim
}

fn vote_reply(reply: VoteResponse<Real>) -> VoteResponse<Types> {
    VoteResponse::new(reply.vote, reply.last_log_id, reply.vote_granted)
}

fn real_reply(reply: VoteResponse<Types>) -> VoteResponse<Real> {
    VoteResponse::new(reply.vote, reply.last_log_id, reply.vote_granted)
}
