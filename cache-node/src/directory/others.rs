//! How many others hold what this node holds, as the index knows it.
//!
//! A count may be old by the time it is read: it orders evictions, nothing else.

use std::time::Duration;

use shoal_proto::limits::RPC_DEADLINE_MS;
use shoal_proto::wire::v1;
use shoal_proto::{ErrorKind, NodeId, ObjectId, ObjectKey, ObjectRef, RpcError};

use super::homes::Homes;
use crate::rpc::with_deadline;

/// Most objects in one question.
pub const OTHERS_OBJECTS_MAX: usize = 512;

pub(super) async fn ask(
    homes: &Homes,
    me: NodeId,
    objects: &[(ObjectKey, ObjectId)],
) -> Result<Vec<u32>, RpcError> {
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
    count(me, objects.len(), &reply.located)
}

/// Of each answer, the nodes with all of it, but for `me`. PURE.
fn count(me: NodeId, asked: usize, located: &[v1::Located]) -> Result<Vec<u32>, RpcError> {
    if located.len() != asked {
        let message = format!("{} answers to {asked} objects", located.len());
        return Err(RpcError::new(ErrorKind::Bug, message));
    }
    let others = |found: &v1::Located| {
        let others = found.complete.iter().filter(|node| **node != me.0).count();
        u32::try_from(others).unwrap_or(u32::MAX)
    };
    Ok(located.iter().map(others).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_whole_copies_elsewhere() {
        let located =
            |complete: &[u64]| v1::Located { complete: complete.into(), partial: vec![9] };
        let answers = [located(&[1, 2, 3]), located(&[2]), located(&[])];
        assert_eq!(count(NodeId(2), 3, &answers).unwrap(), [2, 0, 0]);
        assert!(count(NodeId(2), 2, &answers).is_err(), "an answer too many");
    }
}
