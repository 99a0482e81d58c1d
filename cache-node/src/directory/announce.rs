//! Announcements of what this node holds: gathered for some milliseconds, sent in batches, kept
//! until the tier has committed them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shoal_proto::limits::{ANNOUNCE_CHANGES_MAX, WRITE_DEADLINE_MS};
use shoal_proto::wire::v1;
use shoal_proto::{ErrorKind, NodeId, ObjectId, ObjectKey, ObjectRef};
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

/// Sends what arrives on `changes` until its senders are gone.
pub(super) async fn run(homes: Arc<Homes>, node: NodeId, mut changes: mpsc::Receiver<Change>) {
    let mut batch = Vec::new();
    while changes.recv_many(&mut batch, ANNOUNCE_CHANGES_MAX).await > 0 {
        tokio::time::sleep(Duration::from_millis(GATHER_MS)).await;
        while batch.len() < ANNOUNCE_CHANGES_MAX {
            match changes.try_recv() {
                Ok(change) => batch.push(change),
                Err(_) => break,
            }
        }
        send(&homes, node, &batch).await;
        batch.clear();
    }
}

/// The announcement of what `changes` leave: of an object, the last one counts. PURE.
fn pack(node: NodeId, changes: &[Change]) -> v1::AnnounceRequest {
    let last: BTreeMap<ObjectRef, bool> =
        changes.iter().map(|change| (ObjectRef::from(&change.object), change.held)).collect();
    let refs = |held: bool| -> Vec<u8> {
        last.iter().filter(|(_, holds)| **holds == held).flat_map(|(object, _)| object.0).collect()
    };
    let (complete, gone) = (refs(true).into(), refs(false).into());
    v1::AnnounceRequest { node_id: node.0, complete, gone, partial: Vec::new() }
}

async fn send(homes: &Homes, node: NodeId, changes: &[Change]) {
    // Any super-node takes announcements: the first change's key spreads them over the tier.
    let Some(key) = changes.first().map(|change| change.key) else { return };
    let request = pack(node, changes);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_changes_of_an_object_the_last_counts() {
        let change = |n: u8, held| Change {
            key: ObjectKey::new([n; 32]),
            object: ObjectId::new([n; 32]),
            held,
        };
        let changes = [change(2, true), change(1, false), change(1, true), change(2, false)];
        let packed = pack(NodeId(7), &changes);
        assert_eq!((&packed.complete[..], &packed.gone[..]), (&[1; 12][..], &[2; 12][..]));
        assert_eq!(packed.node_id, 7);
    }
}
