//! Announcements of what this node holds: gathered for some milliseconds, sent in batches, kept
//! until the tier has committed them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shoal_proto::limits::{ANNOUNCE_BYTES_MAX, ANNOUNCE_CHANGES_MAX, WRITE_DEADLINE_MS};
use shoal_proto::wire::v1;
use shoal_proto::{ErrorKind, NodeId, ObjectId, ObjectKey, ObjectRef};
use tokio::sync::mpsc;

use shoal_proto::id::OBJECT_REF_BYTES;

use super::homes::Homes;
use crate::rpc::with_deadline;

/// Changes waiting to be sent; a full queue makes those who announce wait.
pub(super) const QUEUE_MAX: usize = 4_096;
/// How long changes gather.
const GATHER_MS: u64 = 10;
/// Pause after a batch that could not be committed.
const RETRY_PAUSE_MS: u64 = 200;

/// How much of an object is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Every chunk.
    All,
    /// Chunks whose bits are set, least significant first.
    Some(Vec<u8>),
    /// None.
    Nothing,
}

impl Held {
    /// What stands in an announcement for it, in bytes.
    fn bytes(&self) -> usize {
        OBJECT_REF_BYTES + if let Self::Some(bits) = self { bits.len() } else { 0 }
    }
}

/// A change in what this node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The object's key.
    pub key: ObjectKey,
    /// The object.
    pub object: ObjectId,
    /// What is held of it now.
    pub held: Held,
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
        for part in parts(&batch) {
            send(&homes, node, part).await;
        }
        batch.clear();
    }
}

/// The changes in their order, no more at a time than an announcement may say. PURE.
fn parts(mut changes: &[Change]) -> Vec<&[Change]> {
    let mut parts = Vec::new();
    while !changes.is_empty() {
        let mut bytes = 0;
        let fits = changes.iter().take_while(|change| {
            bytes += change.held.bytes();
            bytes <= ANNOUNCE_BYTES_MAX
        });
        // One alone always fits: its bitmap is no longer than a bit a chunk.
        let (part, rest) = changes.split_at(fits.count().max(1));
        parts.push(part);
        changes = rest;
    }
    parts
}

/// The announcement of what `changes` leave: of an object, the last one counts. PURE.
fn pack(node: NodeId, changes: &[Change]) -> v1::AnnounceRequest {
    let last: BTreeMap<ObjectRef, &Held> =
        changes.iter().map(|change| (ObjectRef::from(&change.object), &change.held)).collect();
    let refs = |held: Held| -> Vec<u8> {
        last.iter().filter(|(_, holds)| ***holds == held).flat_map(|(object, _)| object.0).collect()
    };
    let (complete, gone) = (refs(Held::All).into(), refs(Held::Nothing).into());
    let some = |(object, held): (&ObjectRef, &&Held)| match held {
        Held::Some(bits) => Some(v1::PartialHolding {
            object_ref: object.0.to_vec().into(),
            chunks: bits.clone().into(),
        }),
        Held::All | Held::Nothing => None,
    };
    let partial = last.iter().filter_map(some).collect();
    v1::AnnounceRequest { node_id: node.0, complete, gone, partial }
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
        let changes = [
            change(2, Held::All),
            change(1, Held::Nothing),
            change(3, Held::All),
            change(1, Held::All),
            change(2, Held::Nothing),
            change(3, Held::Some(vec![5])),
        ];
        let packed = pack(NodeId(7), &changes);
        let [partial] = &packed.partial[..] else { panic!("{packed:?}") };
        assert_eq!((&partial.object_ref[..], &partial.chunks[..]), (&[3; 12][..], &[5][..]));
        assert_eq!((&packed.complete[..], &packed.gone[..]), (&[1; 12][..], &[2; 12][..]));
        assert_eq!(packed.node_id, 7);
    }

    #[test]
    fn no_announcement_is_longer_than_it_may_be() {
        let change =
            |held| Change { key: ObjectKey::new([1; 32]), object: ObjectId::new([1; 32]), held };
        let bits = vec![1; shoal_proto::limits::BITMAP_BYTES_MAX];
        let many: Vec<_> = (0..300).map(|_| change(Held::Some(bits.clone()))).collect();
        let parts = parts(&many);
        assert_eq!(parts.iter().map(|part| part.len()).sum::<usize>(), 300);
        assert!(parts.len() > 2);
        for part in parts {
            assert!(
                part.iter().map(|change| change.held.bytes()).sum::<usize>() <= ANNOUNCE_BYTES_MAX
            );
        }
    }
}
