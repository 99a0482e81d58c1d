//! The called side between super-nodes. Nobody is answered whose certificate is not that of the
//! member it speaks for, as the log's membership or the address book names it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::{AppendEntriesResponse, TransferLeaderRequest};
use shoal_proto::limits::WRITE_DEADLINE_MS;
use shoal_proto::wire::{WireError, v1};
use shoal_proto::{ErrorKind, NodeId, RpcError};
use tonic::{Request, Response, Status};

use super::receive::Incoming;
use super::snapshot::{self, SnapshotDir, check_manifest};
use super::wire::{self, log_id_from, some_vote, vote_to};
use super::{Proposed, Raft, plan};
use crate::{rpc, tasks};

/// Deadline of one piece of a snapshot, in milliseconds.
const PIECE_DEADLINE_MS: u64 = 10_000;

/// Answers other super-nodes.
pub struct RaftService(pub(super) Raft);

type Answer<T> = Result<Response<T>, Status>;

fn stopped(error: impl std::fmt::Display) -> Status {
    RpcError::new(ErrorKind::Closed, format!("raft: {error}")).into()
}

impl RaftService {
    /// Checks that the caller is the super-node `id`.
    fn caller<T>(&self, request: &Request<T>, id: u64) -> Result<(), Status> {
        if self.0.inner.state.index().is_retired(NodeId(id)) {
            let message = plan::Refusal::Retired(NodeId(id)).to_string();
            return Err(RpcError::new(ErrorKind::Denied, message).into());
        }
        let Some(node) = self.0.node(id) else {
            let message = format!("super-node {} is not known here", NodeId(id));
            return Err(RpcError::new(ErrorKind::Denied, message).into());
        };
        rpc::check_caller(self.0.inner.network.channels.security(), request, &node.name)?;
        Ok(self.0.check_stamp(request)?)
    }

    /// Checks that the caller is the one whose vote it sends.
    fn voter<T>(&self, request: &Request<T>, vote: Option<v1::Vote>) -> Result<(), Status> {
        self.caller(request, vote.map_or(0, |vote| vote.node_id))
    }
}

#[tonic::async_trait]
impl v1::raft_server::Raft for RaftService {
    async fn append(&self, request: Request<v1::AppendRequest>) -> Answer<v1::AppendReply> {
        self.voter(&request, request.get_ref().vote)?;
        let request = wire::append_from(request.into_inner())?;
        let reply = self.0.inner.core.append_entries(request).await.map_err(stopped)?;
        if !matches!(reply, AppendEntriesResponse::HigherVote(_)) {
            self.0.inner.heard.now();
        }
        Ok(Response::new(wire::appended_to(reply)))
    }

    async fn vote(&self, request: Request<v1::VoteRequest>) -> Answer<v1::VoteReply> {
        self.voter(&request, request.get_ref().vote)?;
        let request = wire::vote_request_from(request.into_inner())?;
        let reply = self.0.inner.core.vote(request).await.map_err(stopped)?;
        Ok(Response::new(wire::vote_reply_to(&reply)))
    }

    async fn pre_vote(&self, request: Request<v1::VoteRequest>) -> Answer<v1::VoteReply> {
        self.voter(&request, request.get_ref().vote)?;
        let request = wire::vote_request_from(request.into_inner())?;
        let reply = self.0.inner.core.pre_vote(request).await.map_err(stopped)?;
        Ok(Response::new(wire::vote_reply_to(&reply)))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Answer<v1::TransferLeaderReply> {
        self.voter(&request, request.get_ref().from_leader)?;
        let request = request.into_inner();
        let last_log_id = request.last_log_id.map(log_id_from);
        let from = some_vote(request.from_leader)?;
        let request = TransferLeaderRequest::new(from, request.to_node_id, last_log_id);
        let done = self.0.inner.core.handle_transfer_leader(request).await.map_err(stopped)?;
        Ok(Response::new(v1::TransferLeaderReply { accepted: done.is_ok() }))
    }

    async fn install_snapshot(
        &self,
        request: Request<v1::SnapshotOffer>,
    ) -> Answer<v1::SnapshotReply> {
        self.voter(&request, request.get_ref().vote)?;
        let offer = request.into_inner();
        let vote = some_vote(offer.vote)?;
        let mine = self.0.inner.core.metrics().borrow_watched().vote;
        if mine > vote {
            return Ok(Response::new(v1::SnapshotReply { vote: Some(vote_to(&mine)) }));
        }
        let manifest = offer.manifest.unwrap_or_default();
        check_manifest(&manifest)?;
        let Ok(_turn) = self.0.inner.receiving.try_lock() else {
            let message = "another snapshot is being received";
            return Err(RpcError::new(ErrorKind::Retry, message).into());
        };
        let incoming = Incoming::new(self.0.inner.state.incoming());
        let leader = vote.leader_id.voted_for;
        let received = self.0.receive(&incoming, leader, manifest).await.inspect_err(|error| {
            tracing::warn!(%error, "a snapshot was not received whole; what has arrived stays");
        })?;
        let snapshot = received.described().map_err(stopped)?;
        let done = self.0.inner.core.install_full_snapshot(vote, snapshot).await;
        let vote = done.map_err(stopped)?.vote;
        let cleared = tasks::blocking("raft snapshot clear", move || incoming.clear()).await;
        if let Ok(Err(error)) = cleared {
            tracing::warn!(%error, "cannot remove what is left of an installed snapshot");
        }
        Ok(Response::new(v1::SnapshotReply { vote: Some(vote_to(&vote)) }))
    }

    async fn read_snapshot(&self, request: Request<v1::SnapshotRead>) -> Answer<v1::SnapshotPiece> {
        self.caller(&request, request.get_ref().node_id)?;
        let v1::SnapshotRead { hash, offset, .. } = request.into_inner();
        let state = Arc::clone(&self.0.inner.state);
        let read = move || {
            let (_held, path) = state.snapshots().find(&hash)?;
            Some(snapshot::read_piece(&path, offset))
        };
        let read = tasks::blocking("raft snapshot read", read).await.map_err(stopped)?;
        let gone = || RpcError::new(ErrorKind::Retry, "no snapshot here has this file any more");
        let data = read.ok_or_else(gone)?;
        let data = data.map_err(|error| RpcError::new(ErrorKind::Retry, error.to_string()))?;
        self.0.inner.metrics.snapshot_sent_bytes.inc_by(data.len() as u64);
        Ok(Response::new(v1::SnapshotPiece { data }))
    }

    async fn propose(&self, request: Request<v1::ProposeRequest>) -> Answer<v1::ProposeReply> {
        self.caller(&request, request.get_ref().node_id)?;
        let batch = request.into_inner().batch;
        let batch = batch.ok_or_else(|| WireError::field("batch", "missing", "commands"))?;
        let written = within_write(self.0.write(batch)).await?;
        let Proposed { position, replies } = written;
        Ok(Response::new(v1::ProposeReply { position, replies }))
    }

    async fn read_position(
        &self,
        request: Request<v1::ReadPositionRequest>,
    ) -> Answer<v1::ReadPositionReply> {
        self.caller(&request, request.get_ref().node_id)?;
        let position = within_write(self.0.read_position()).await?;
        Ok(Response::new(v1::ReadPositionReply { position }))
    }

    async fn members(&self, request: Request<v1::MembersRequest>) -> Answer<v1::MembersReply> {
        self.caller(&request, request.get_ref().node_id)?;
        Ok(Response::new(within_write(self.0.members_here()).await?))
    }

    async fn change_membership(
        &self,
        request: Request<v1::ChangeMembershipRequest>,
    ) -> Answer<v1::ChangeMembershipReply> {
        self.caller(&request, request.get_ref().node_id)?;
        let changed = self.0.change_asked(request.into_inner());
        Ok(Response::new(within_write(changed).await?))
    }

    async fn digests(&self, request: Request<v1::DigestsRequest>) -> Answer<v1::DigestsReply> {
        self.caller(&request, request.get_ref().node_id)?;
        Ok(Response::new(self.0.digests_here()))
    }

    async fn audited(&self, request: Request<v1::AuditedRequest>) -> Answer<v1::AuditedReply> {
        self.caller(&request, request.get_ref().node_id)?;
        Ok(Response::new(self.0.audited_here(request.get_ref().audit_id)))
    }

    async fn describe_snapshot(
        &self,
        request: Request<v1::DescribeSnapshotRequest>,
    ) -> Answer<v1::SnapshotManifest> {
        self.caller(&request, request.get_ref().node_id)?;
        Ok(Response::new(self.0.snapshot_after(request.get_ref().after).await?))
    }
}

impl Raft {
    /// Takes in a snapshot that super-node `from` offers.
    pub(super) async fn receive(
        &self,
        incoming: &Incoming,
        from: u64,
        manifest: v1::SnapshotManifest,
    ) -> Result<SnapshotDir, RpcError> {
        let Raft { inner } = self;
        let member = self.member(from);
        let client = inner.network.book.client(&inner.network.channels, from, member.as_ref())?;
        let fetch = |hash: Bytes, offset| {
            let (mut client, node_id) = (client.clone(), inner.me);
            async move {
                let read = client.read_snapshot(v1::SnapshotRead { node_id, hash, offset });
                let deadline = Duration::from_millis(PIECE_DEADLINE_MS);
                let piece = rpc::with_deadline(deadline, read).await?;
                inner.metrics.snapshot_received_bytes.inc_by(piece.data.len() as u64);
                Ok(piece.data)
            }
        };
        incoming.receive(manifest, inner.state.snapshots().current(), fetch).await
    }
}

async fn within_write<T>(work: impl Future<Output = Result<T, RpcError>>) -> Result<T, RpcError> {
    let deadline = Duration::from_millis(WRITE_DEADLINE_MS);
    let late = |_| RpcError::new(ErrorKind::Retry, "not committed in time; the outcome is unknown");
    tokio::time::timeout(deadline, work).await.map_err(late)?
}
