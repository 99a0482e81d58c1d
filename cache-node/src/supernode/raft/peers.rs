//! What super-nodes ask of one another about their indexes, and what this one does when its own is
//! not the tier's.

use std::sync::Arc;
use std::time::Duration;

use shoal_proto::limits::RPC_DEADLINE_MS;
use shoal_proto::wire::v1;
use shoal_proto::{ErrorKind, NodeId, RpcError};

use super::receive::Incoming;
use super::{Raft, RaftClient, closed};
use crate::rpc::with_deadline;
use crate::supernode::index::{AuditState, Audited, DIGEST_VERSION, DigestAt};
use crate::{clock, tasks};

/// Between two questions whether a snapshot has been made, in milliseconds.
const SNAPSHOT_POLL_MS: u64 = 250;
/// Longest wait for one to be made, in milliseconds.
const SNAPSHOT_MADE_MS: u64 = 120_000;

fn deadline() -> Duration {
    Duration::from_millis(RPC_DEADLINE_MS)
}

impl Raft {
    /// The running digests that super-node `id` remembers, oldest first; none when it makes them in
    /// another way.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn digests_of(&self, id: NodeId) -> Result<Vec<DigestAt>, RpcError> {
        let mut client = self.client(id)?;
        let request = v1::DigestsRequest { node_id: self.inner.me };
        let reply = with_deadline(deadline(), client.digests(request)).await?;
        if reply.version != DIGEST_VERSION {
            return Ok(Vec::new());
        }
        let read = |at: v1::PositionDigest| {
            Some(DigestAt { position: at.position, digest: at.digest.as_ref().try_into().ok()? })
        };
        Ok(reply.digests.into_iter().filter_map(read).collect())
    }

    /// How an audit stands at super-node `id`.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn audit_of(&self, id: NodeId, audit_id: u64) -> Result<AuditState, RpcError> {
        if id.0 == self.inner.me {
            let known = self.inner.state.index().audit(audit_id);
            return Ok(known.unwrap_or(AuditState::Running));
        }
        let mut client = self.client(id)?;
        let request = v1::AuditedRequest { node_id: self.inner.me, audit_id };
        let reply = with_deadline(deadline(), client.audited(request)).await?;
        Ok(audit_from(reply))
    }

    pub(super) fn digests_here(&self) -> v1::DigestsReply {
        let digest = |at: DigestAt| v1::PositionDigest {
            position: at.position,
            digest: bytes::Bytes::copy_from_slice(&at.digest),
        };
        let digests = self.inner.state.index().digests().into_iter().map(digest).collect();
        v1::DigestsReply { version: DIGEST_VERSION, digests }
    }

    pub(super) fn audited_here(&self, audit_id: u64) -> v1::AuditedReply {
        use v1::audited_reply::Result;
        let result = match self.inner.state.index().audit(audit_id) {
            None | Some(AuditState::Running) => Result::Pending(v1::Blank {}),
            Some(AuditState::Failed(why)) => Result::Failure(why),
            Some(AuditState::Done(found)) => Result::Audited(v1::Audited {
                position: found.position,
                running_digest: bytes::Bytes::copy_from_slice(&found.running),
                state_digest: bytes::Bytes::copy_from_slice(&found.state),
                records: found.records,
                took_ms: found.took_ms,
            }),
        };
        v1::AuditedReply { result: Some(result) }
    }

    /// The newest snapshot here if it is newer than `after`; else one is begun.
    ///
    /// # Errors
    /// `Retry` until there is one.
    pub(super) async fn snapshot_after(
        &self,
        after: u64,
    ) -> Result<v1::SnapshotManifest, RpcError> {
        let current = self.inner.state.snapshots().current();
        let newer = current.filter(|found| found.position().is_some_and(|id| id.index > after));
        if let Some(found) = newer {
            return Ok(found.manifest().clone());
        }
        self.inner.core.trigger().snapshot().await.map_err(closed)?;
        Err(RpcError::new(ErrorKind::Retry, "a snapshot is being made"))
    }

    /// This super-node's state is not the tier's: fetches super-node `from`'s, and has the next
    /// start begin with it. To be stopped and started afterwards.
    ///
    /// # Errors
    /// When `from` gives no snapshot in time or the disk fails: then nothing has changed.
    pub async fn abandon_state(&self, from: NodeId) -> Result<(), RpcError> {
        // There must be a position after whatever snapshots there are here: those are of no use.
        let nothing = v1::CommandBatch::default();
        self.propose(nothing, deadline()).await?;
        let state = &self.inner.state;
        let mine = state.snapshots().current().and_then(|found| found.position());
        let after = mine.map_or(0, |id| id.index);
        let client = self.client(from)?;
        let manifest = self.described(client, after).await?;
        let _turn = self.inner.receiving.lock().await;
        let incoming = Incoming::new(state.incoming());
        let snapshot = self.receive(&incoming, from.0, manifest).await?;
        let state = Arc::clone(state);
        let abandon = move || state.abandon(&snapshot).and_then(|()| incoming.clear());
        let done = tasks::blocking("raft abandon", abandon).await.map_err(closed)?;
        done.map_err(|error| RpcError::new(ErrorKind::Retry, error.to_string()))
    }

    async fn described(
        &self,
        client: RaftClient,
        after: u64,
    ) -> Result<v1::SnapshotManifest, RpcError> {
        let begun = clock::monotonic();
        loop {
            let mut client = client.clone();
            let request = v1::DescribeSnapshotRequest { node_id: self.inner.me, after };
            match with_deadline(deadline(), client.describe_snapshot(request)).await {
                Err(error)
                    if error.kind == ErrorKind::Retry
                        && clock::since(begun) < Duration::from_millis(SNAPSHOT_MADE_MS) =>
                {
                    tokio::time::sleep(Duration::from_millis(SNAPSHOT_POLL_MS)).await;
                }
                described => return described,
            }
        }
    }
}

fn audit_from(reply: v1::AuditedReply) -> AuditState {
    use v1::audited_reply::Result;
    let strange = || AuditState::Failed("its answer cannot be read".into());
    match reply.result {
        None | Some(Result::Pending(_)) => AuditState::Running,
        Some(Result::Failure(why)) => AuditState::Failed(why),
        Some(Result::Audited(found)) => {
            let v1::Audited { position, running_digest, state_digest, records, took_ms } = found;
            let digests = (running_digest.as_ref().try_into(), state_digest.as_ref().try_into());
            let (Ok(running), Ok(state)) = digests else { return strange() };
            AuditState::Done(Audited { position, running, state, records, took_ms })
        }
    }
}
