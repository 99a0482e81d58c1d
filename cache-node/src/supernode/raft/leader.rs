//! What only the leader can do: writing, and reading linearizably. Asked of the leader from any
//! super-node, through an election if need be.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::raft::ReadPolicy;
use prost::Message;
use shoal_proto::limits::RPC_DEADLINE_MS;
use shoal_proto::wire::{WireError, v1};
use shoal_proto::{ErrorKind, NodeId, RpcError};
use tokio::sync::watch;
use tonic::{Response, Status};

use super::network::Network;
use super::wire::{Batch, Types};
use super::{Raft, RaftClient, TierState, closed};
use crate::clock;
use crate::rpc::{MESSAGE_BYTES_MAX, with_deadline};

/// Largest batch that is proposed, in bytes.
const BATCH_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2;
/// Between two tries while the leader stays the same, in milliseconds.
const RETRY_PAUSE_MS: u64 = 50;

/// A batch that was committed and applied by the leader.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposed {
    /// Its position in the log.
    pub position: u64,
    /// What its commands came to, in their order.
    pub replies: Vec<v1::CommandReply>,
}

impl Raft {
    /// Has the tier agree on `batch`. Forwarded to the leader; waits out an election. It may be
    /// applied more than once: tries whose outcome is unknown are repeated, which is right because
    /// the index's commands are idempotent.
    ///
    /// # Errors
    /// `Invalid` when the batch is too large, `Retry` when it is not known to be committed within
    /// `deadline`, `Closed` when this super-node has stopped.
    pub async fn propose(
        &self,
        batch: v1::CommandBatch,
        deadline: Duration,
    ) -> Result<Proposed, RpcError> {
        check_size(&batch)?;
        self.inner.metrics.batches.inc();
        let again = batch.clone();
        let local = move |raft: Self| {
            let batch = again.clone();
            async move { raft.write(batch).await }.boxed()
        };
        let node_id = self.inner.me;
        let remote = move |mut leader: RaftClient| {
            let request = v1::ProposeRequest { node_id, batch: Some(batch.clone()) };
            let proposed = |v1::ProposeReply { position, replies }| Proposed { position, replies };
            async move { Ok(leader.propose(request).await?.map(proposed)) }.boxed()
        };
        self.at_leader(deadline, local, remote).await
    }

    /// Returns once this super-node has applied everything that was committed before the call: what
    /// it then reads is linearizable. The position read is returned.
    ///
    /// # Errors
    /// `Retry` when no quorum answered within `deadline`.
    pub async fn read_barrier(&self, deadline: Duration) -> Result<u64, RpcError> {
        let local = |raft: Self| async move { raft.read_position().await }.boxed();
        let request = v1::ReadPositionRequest { node_id: self.inner.me };
        let remote = move |mut leader: RaftClient| {
            async move { Ok(leader.read_position(request).await?.map(|reply| reply.position)) }
                .boxed()
        };
        let started = clock::monotonic();
        let position = self.at_leader(deadline, local, remote).await?;
        let left = deadline.saturating_sub(clock::since(started));
        self.wait_applied(position, left).await?;
        Ok(position)
    }

    /// Writes `batch` if this super-node leads.
    pub(super) async fn write(&self, batch: v1::CommandBatch) -> Result<Proposed, RpcError> {
        check_size(&batch)?;
        let written = self.inner.core.client_write(Batch(batch)).await;
        let done = written.map_err(|error| self.write_error(error))?;
        Ok(Proposed { position: done.log_id.index, replies: done.data })
    }

    /// The position that a linearizable read must have applied, if this super-node leads.
    pub(super) async fn read_position(&self) -> Result<u64, RpcError> {
        let read = self.inner.core.get_read_log_id(ReadPolicy::ReadIndex).await;
        let (position, _) = read.map_err(|error| match error {
            RaftError::APIError(LinearizableReadError::ForwardToLeader(to)) => self.forward(to),
            RaftError::APIError(error) => RpcError::new(ErrorKind::Retry, error.to_string()),
            RaftError::Fatal(fatal) => closed(fatal),
        })?;
        Ok(position.index())
    }

    pub(super) fn write_error(&self, error: RaftError<Types, ClientWriteError<Types>>) -> RpcError {
        use ClientWriteError as E;
        match error {
            RaftError::APIError(E::ForwardToLeader(to) | E::LogEntryDiscarded(to)) => {
                self.forward(to)
            }
            RaftError::APIError(error) => RpcError::new(ErrorKind::Retry, error.to_string()),
            RaftError::Fatal(fatal) => closed(fatal),
        }
    }

    fn forward(&self, to: ForwardToLeader<Types>) -> RpcError {
        self.redirect(to.leader_id)
    }

    pub(super) fn redirect(&self, leader: Option<u64>) -> RpcError {
        let leader = leader.filter(|id| *id != self.inner.me);
        let address = leader.and_then(|id| self.address_of(NodeId(id))).unwrap_or_default();
        RpcError::redirect("another super-node leads", address)
    }

    /// Runs `local` here while this super-node leads, else `remote` with a client for the leader;
    /// again whenever the leader changes or a try fails for now, until `deadline`.
    pub(super) async fn at_leader<T>(
        &self,
        deadline: Duration,
        local: impl Fn(Self) -> BoxFuture<'static, Result<T, RpcError>>,
        remote: impl Fn(RaftClient) -> BoxFuture<'static, Result<Response<T>, Status>>,
    ) -> Result<T, RpcError> {
        let mut last = String::from("no leader is known");
        let tries = async {
            let mut tier = self.watch();
            loop {
                let leader = tier.borrow_and_update().leader;
                let tried = async {
                    match leader {
                        None => Err(RpcError::new(ErrorKind::Retry, "no leader is known")),
                        Some(id) if id.0 == self.inner.me => local(self.clone()).await,
                        Some(id) => {
                            let patience = Duration::from_millis(RPC_DEADLINE_MS);
                            let asked = with_deadline(patience, remote(self.client(id)?)).await;
                            asked.map_err(for_now)
                        }
                    }
                };
                let mut changes = tier.clone();
                let changed = |now: &TierState| now.leader.is_some() && now.leader != leader;
                let tried = tokio::select! {
                    tried = tried => tried,
                    changed = changes.wait_for(changed) => changed.map_or_else(gone, |_| {
                        Err(RpcError::new(ErrorKind::Retry, "the leader changed"))
                    }),
                };
                match tried {
                    Err(e) if matches!(e.kind, ErrorKind::Retry | ErrorKind::Redirect) => {
                        last = e.message;
                    }
                    done => return done,
                }
                let pause = Duration::from_millis(RETRY_PAUSE_MS);
                let changed = tier.wait_for(|now| now.leader != leader);
                if let Ok(Err(ended)) = tokio::time::timeout(pause, changed).await {
                    return gone(ended);
                }
            }
        };
        tokio::time::timeout(deadline, tries).await.unwrap_or_else(|_| {
            let message = format!(
                "not answered by the tier's leader within {} ms, the outcome is unknown: {last}",
                deadline.as_millis()
            );
            Err(RpcError::new(ErrorKind::Retry, message))
        })
    }

    pub(super) fn client(&self, id: NodeId) -> Result<RaftClient, RpcError> {
        let Network { book, channels, .. } = &self.inner.network;
        book.client(channels, id.0, self.member(id.0).as_ref())
    }
}

fn check_size(batch: &v1::CommandBatch) -> Result<(), WireError> {
    match batch.encoded_len() {
        bytes if bytes > BATCH_BYTES_MAX => Err(WireError::field("batch", bytes, "at most 2 MiB")),
        _ => Ok(()),
    }
}

/// A leader that is stopping is no reason to give up: another will lead.
fn for_now(error: RpcError) -> RpcError {
    match error.kind {
        ErrorKind::Closed => RpcError { kind: ErrorKind::Retry, ..error },
        _ => error,
    }
}

fn gone<T>(error: watch::error::RecvError) -> Result<T, RpcError> {
    Err(closed(error))
}
