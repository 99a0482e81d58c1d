//! Announcements of what this node holds: gathered for some milliseconds, sent in batches, kept
//! until the tier has committed them.

use std::sync::Arc;
use std::time::Duration;

use shoal_proto::limits::{ANNOUNCE_CHANGES_MAX, WRITE_DEADLINE_MS};
use shoal_proto::wire::v1;
use shoal_proto::{ErrorKind, NodeId, ObjectId, ObjectKey};
use tokio::sync::mpsc;

use super::homes::Homes;
use crate::rpc::with_deadline;

/// Changes waiting to be sent; a full queue makes those who announce wait.
pub(super) const QUEUE_MAX: usize = 4_096;
/// How long changes gather.
const GATHER_MS: u64 = 10;
/// Pause after a batch that could not be committed.
const RETRY_PAUSE_MS: u64 = 200;

/// A change in what this node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The object's key.
    pub key: ObjectKey,
    /// The object.
    pub object: ObjectId,
    /// All of it is held now; else nothing is.
    pub held: bool,
}

impl From<Change> for v1::HolderChange {
    fn from(change: Change) -> Self {
        let what = if change.held {
            v1::holder_change::Change::Complete(true)
        } else {
            v1::holder_change::Change::Gone(true)
        };
        Self { object_id: change.object.to_wire(), key: change.key.to_wire(), change: Some(what) }
    }
}

/// Sends what arrives on `changes` until its senders are gone.
pub(super) async fn run(homes: Arc<Homes>, node: NodeId, mut changes: mpsc::Receiver<Change>) {
    let mut batch = Vec::with_capacity(ANNOUNCE_CHANGES_MAX);
    while changes.recv_many(&mut batch, ANNOUNCE_CHANGES_MAX).await > 0 {
        tokio::time::sleep(Duration::from_millis(GATHER_MS)).await;
        while batch.len() < ANNOUNCE_CHANGES_MAX {
            match changes.try_recv() {
                Ok(change) => batch.push(change),
                Err(_) => break,
            }
        }
        let wire: Vec<_> = batch.drain(..).map(v1::HolderChange::from).collect();
        send(&homes, node, wire).await;
    }
}

async fn send(homes: &Homes, node: NodeId, changes: Vec<v1::HolderChange>) {
    // Any super-node takes announcements: the first change's key spreads them over the tier.
    let key = changes.first().and_then(|change| ObjectKey::try_from(change.key.as_ref()).ok());
    let Some(key) = key else { return };
    let request = v1::AnnounceRequest { node_id: node.0, changes };
    let deadline = Duration::from_millis(WRITE_DEADLINE_MS);
    loop {
        let sent = homes
            .call(&key, deadline, |mut client| {
                let request = request.clone();
                async move { with_deadline(deadline, client.announce(request)).await }
            })
            .await;
        match sent {
            Ok(_) => return,
            Err(error) if matches!(error.kind, ErrorKind::Invalid | ErrorKind::Denied) => {
                tracing::error!(%error, "an announcement was refused");
                return;
            }
            Err(error) => tracing::warn!(%error, "an announcement was not committed, trying again"),
        }
        tokio::time::sleep(Duration::from_millis(RETRY_PAUSE_MS)).await;
    }
}
