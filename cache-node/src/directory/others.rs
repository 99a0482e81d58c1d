//! Who else holds what this node holds, as the index knows it. An answer may be old by the time it
//! is read.

use std::time::Duration;

use bytes::Bytes;
use shoal_proto::limits::RPC_DEADLINE_MS;
use shoal_proto::wire::v1;
use shoal_proto::{ErrorKind, NodeId, ObjectId, ObjectKey, ObjectRef, RpcError};

use super::homes::Homes;
use crate::membership::Member;
use crate::rpc::with_deadline;

/// The nodes with all of an object, but for the one that asks.
pub type Others = Vec<NodeId>;

/// Most objects in one question.
pub const OTHERS_OBJECTS_MAX: usize = 512;

pub(super) async fn ask(
    homes: &Homes,
    me: NodeId,
    objects: &[(ObjectKey, ObjectId)],
) -> Result<Vec<Others>, RpcError> {
    // Any super-node knows: the first key spreads the questions over the tier.
    let Some((key, _)) = objects.first() else { return Ok(Vec::new()) };
    let refs: Vec<u8> = objects.iter().flat_map(|(_, id)| ObjectRef::from(id).0).collect();
    let request = v1::LocateRequest { object_id: Vec::new().into(), object_refs: refs.into() };
    let deadline = Duration::from_millis(RPC_DEADLINE_MS);
    let reply = homes
        .call(key, deadline, |mut client| {
            let request = request.clone();
            async move { with_deadline(deadline, client.locate(request)).await }
        })
        .await?;
    read(me, objects.len(), &reply.located)
}

/// Another node with chunks of an object.
#[derive(Clone, Debug)]
pub struct PartHolder {
    /// Who.
    pub member: Member,
    /// A bit for each chunk that it has; none when it has all.
    chunks: Option<Bytes>,
}

impl PartHolder {
    /// Whether it has that chunk.
    pub fn has(&self, chunk: u32) -> bool {
        self.chunks.as_ref().is_none_or(|bits| {
            bits.get(chunk as usize / 8).is_some_and(|byte| byte & (1 << (chunk % 8)) != 0)
        })
    }
}

/// Who has chunks of an object, but for `me`.
pub(super) async fn holders(
    homes: &Homes,
    me: NodeId,
    (key, object): (&ObjectKey, &ObjectId),
) -> Vec<PartHolder> {
    let object_id = object.to_wire();
    let request = v1::LocateRequest { object_id, object_refs: Vec::new().into() };
    let deadline = Duration::from_millis(RPC_DEADLINE_MS);
    let reply = homes
        .call(key, deadline, |mut client| {
            let request = request.clone();
            async move { with_deadline(deadline, client.locate(request)).await }
        })
        .await;
    let reply = reply.unwrap_or_else(|error| {
        tracing::debug!(%error, "who else has chunks of an object is not known");
        v1::LocateReply::default()
    });
    reply.holders.into_iter().filter_map(read_holder).filter(|h| h.member.id != me).collect()
}

fn read_holder(holder: v1::Holder) -> Option<PartHolder> {
    let state = v1::MemberState::Up.into();
    let member = v1::Member { info: Some(holder.node?), state, voter: false };
    let chunks = (!holder.complete).then_some(holder.chunks);
    Some(PartHolder { member: Member::try_from(member).ok()?, chunks })
}

/// PURE.
fn read(me: NodeId, asked: usize, located: &[v1::Located]) -> Result<Vec<Others>, RpcError> {
    if located.len() != asked {
        let message = format!("{} answers to {asked} objects", located.len());
        return Err(RpcError::new(ErrorKind::Bug, message));
    }
    let others = |found: &v1::Located| {
        found.complete.iter().map(|node| NodeId(*node)).filter(|node| *node != me).collect()
    };
    Ok(located.iter().map(others).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_copies_elsewhere_count() {
        let located =
            |complete: &[u64]| v1::Located { complete: complete.into(), partial: vec![9] };
        let answers = [located(&[1, 2, 3]), located(&[2]), located(&[])];
        let others = [vec![NodeId(1), NodeId(3)], vec![], vec![]];
        assert_eq!(read(NodeId(2), 3, &answers).unwrap(), others);
        assert!(read(NodeId(2), 2, &answers).is_err(), "an answer too many");
    }
}
