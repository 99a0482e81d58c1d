//! The called side between super-nodes. Nobody is answered whose certificate is not that of the
//! member it speaks for, as the log's membership or the address book names it.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openraft::raft::TransferLeaderRequest;
use shoal_proto::limits::{STREAM_IDLE_MS, WRITE_DEADLINE_MS};
use shoal_proto::wire::{WireError, v1};
use shoal_proto::{ErrorKind, NodeId, RpcError};
use tonic::{Request, Response, Status, Streaming};

use super::snapshot::SnapshotFile;
use super::wire::{self, log_id_from, some_vote, vote_to};
use super::{Proposed, Raft, machine, plan};
use crate::{rpc, tasks};

/// Longest snapshot that is taken, in bytes.
const SNAPSHOT_BYTES_MAX: u64 = 256 * 1024 * 1024 * 1024;

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
        Ok(rpc::check_caller(self.0.inner.network.channels.security(), request, &node.name)?)
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
        request: Request<Streaming<v1::SnapshotPiece>>,
    ) -> Answer<v1::SnapshotReply> {
        let (metadata, extensions, mut pieces) = request.into_parts();
        let start = match next(&mut pieces).await? {
            Some(v1::snapshot_piece::Piece::Start(start)) => start,
            _ => return Err(WireError::field("piece", "missing", "a start first").into()),
        };
        self.voter(&Request::from_parts(metadata, extensions, ()), start.vote)?;
        let vote = some_vote(start.vote)?;
        if start.length > SNAPSHOT_BYTES_MAX {
            return Err(WireError::field("length", start.length, "at most 256 GiB").into());
        }
        let Ok(_turn) = self.0.inner.receiving.try_lock() else {
            let message = "another snapshot is being received";
            return Err(RpcError::new(ErrorKind::Retry, message).into());
        };
        let path = self.0.inner.state.incoming();
        let installed = match receive(&path, start.length, &mut pieces).await {
            Ok(file) => self.install(vote, file).await,
            Err(status) => Err(status),
        };
        // Gone already when it was installed: then it bears another name.
        let _ = std::fs::remove_file(path);
        installed
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
}

impl RaftService {
    async fn install(&self, vote: wire::Vote, file: SnapshotFile) -> Answer<v1::SnapshotReply> {
        let state = Arc::clone(&self.0.inner.state);
        let checked = tasks::blocking("raft check", move || machine::received(&state, file)).await;
        let snapshot = checked.map_err(stopped)?.map_err(bad_snapshot)?;
        let done = self.0.inner.core.install_full_snapshot(vote, snapshot).await;
        let vote = Some(vote_to(&done.map_err(stopped)?.vote));
        Ok(Response::new(v1::SnapshotReply { vote }))
    }
}

async fn within_write<T>(work: impl Future<Output = Result<T, RpcError>>) -> Result<T, RpcError> {
    let deadline = Duration::from_millis(WRITE_DEADLINE_MS);
    let late = |_| RpcError::new(ErrorKind::Retry, "not committed in time; the outcome is unknown");
    tokio::time::timeout(deadline, work).await.map_err(late)?
}

fn bad_snapshot(error: std::io::Error) -> Status {
    RpcError::new(ErrorKind::Corrupt, error.to_string()).into()
}

async fn next(
    pieces: &mut Streaming<v1::SnapshotPiece>,
) -> Result<Option<v1::snapshot_piece::Piece>, Status> {
    let idle = Duration::from_millis(STREAM_IDLE_MS);
    let late = |_| RpcError::new(ErrorKind::Retry, "the snapshot stopped coming");
    let message = tokio::time::timeout(idle, pieces.message()).await.map_err(late)??;
    Ok(message.and_then(|message| message.piece))
}

/// Takes exactly `length` bytes into a new file at `path`; durable on return.
async fn receive(
    path: &Path,
    length: u64,
    pieces: &mut Streaming<v1::SnapshotPiece>,
) -> Result<SnapshotFile, Status> {
    let failed = |error: std::io::Error| {
        RpcError::new(ErrorKind::Retry, format!("cannot keep a snapshot: {error}"))
    };
    let file = std::fs::File::options().read(true).write(true).create_new(true).open(path);
    let file = Arc::new(file.map_err(failed)?);
    let mut left = length;
    while let Some(piece) = next(pieces).await? {
        let v1::snapshot_piece::Piece::Data(data) = piece else {
            return Err(WireError::field("piece", "start", "data after the start").into());
        };
        left = left
            .checked_sub(data.len() as u64)
            .ok_or_else(|| WireError::field("data", data.len(), "no more than announced"))?;
        let out = Arc::clone(&file);
        let write = tasks::blocking("raft snapshot write", move || (&*out).write_all(&data)).await;
        write.map_err(stopped)?.map_err(failed)?;
    }
    if left > 0 {
        return Err(RpcError::new(ErrorKind::Retry, "the snapshot broke off").into());
    }
    let out = Arc::clone(&file);
    let synced = tasks::blocking("raft snapshot sync", move || out.sync_all()).await;
    synced.map_err(stopped)?.map_err(failed)?;
    Ok(SnapshotFile { path: path.to_owned(), file })
}
