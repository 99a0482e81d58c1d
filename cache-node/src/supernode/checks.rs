//! PURE. Requests to the index service, checked against the limits: what passes here is not checked
//! again.

use shoal_proto::limits::{
    ANNOUNCE_CHANGES_MAX, CHUNKS_MAX, FILL_LEASE_MS, MEMBERS_MAX, NAME_BYTES_MAX, OBJECT_BYTES_MAX,
    RENEW_LEASES_MAX,
};
use shoal_proto::wire::v1::{self, fence_matcher::Matcher, holder_change::Change};
use shoal_proto::wire::{WireError, check_node_info, id_from};
use shoal_proto::{
    ClusterId, ErrorKind, LeaseId, ManifestId, NodeId, ObjectId, ObjectKey, RpcError,
};

use crate::home::Ask;

/// A command of holder changes is cut at this size, in bytes.
const HOLDERS_COMMAND_BYTES: usize = 48 * 1024;

pub(super) fn key(field: &[u8]) -> Result<ObjectKey, WireError> {
    id_from("key", field)
}

pub(super) fn ask(request: v1::AcquireRequest) -> Result<Ask, WireError> {
    let stale = (!request.stale_manifest_id.is_empty())
        .then(|| id_from::<ManifestId>("stale_manifest_id", &request.stale_manifest_id));
    let suspect = (request.suspect_lease_id != 0)
        .then_some((NodeId(request.suspect_node_id), LeaseId(request.suspect_lease_id)));
    let failed = request.failed_holders;
    if failed.len() > MEMBERS_MAX {
        return Err(WireError::field("failed_holders", failed.len(), "at most 4,096"));
    }
    Ok(Ask {
        key: key(&request.key)?,
        node: NodeId(request.node_id),
        stale: stale.transpose()?,
        suspect,
        failed: failed.into_iter().map(NodeId).collect(),
    })
}

pub(super) fn cluster(ours: &ClusterId, theirs: &str) -> Result<(), RpcError> {
    if ours.as_str() == theirs {
        return Ok(());
    }
    let message = format!("this is cluster {ours}, the caller's is {theirs:?}");
    Err(RpcError::new(ErrorKind::Denied, message))
}

/// A member's facts, of which at least the way to reach it must be there.
pub(super) fn member(info: Option<v1::NodeInfo>) -> Result<v1::NodeInfo, WireError> {
    let info = info.ok_or_else(|| WireError::field("node", "missing", "a node's facts"))?;
    check_node_info(&info)?;
    if info.cluster_address.is_empty() {
        return Err(WireError::field("cluster_address", "empty", "host:port"));
    }
    Ok(info)
}

pub(super) fn leases(request: &v1::RenewRequest) -> Result<Vec<(ObjectKey, LeaseId)>, WireError> {
    let count = request.leases.len();
    if count > RENEW_LEASES_MAX {
        return Err(WireError::field("leases", count, "at most 4,096"));
    }
    request.leases.iter().map(|lease| Ok((key(&lease.key)?, LeaseId(lease.lease_id)))).collect()
}

pub(super) fn lease(id: u64, lease_ms: u32) -> Result<LeaseId, WireError> {
    if id == 0 {
        return Err(WireError::field("lease_id", 0, "a number above 0"));
    }
    if lease_ms > FILL_LEASE_MS {
        return Err(WireError::field("lease_ms", lease_ms, format!("at most {FILL_LEASE_MS}")));
    }
    Ok(LeaseId(id))
}

/// A new head, published by `publisher`.
pub(super) fn head(
    head: Option<v1::IndexHead>,
    publisher: u64,
) -> Result<(ObjectKey, v1::IndexHead), WireError> {
    let head = head.ok_or_else(|| WireError::field("head", "missing", "a head"))?;
    let key = key(&head.key)?;
    id_from::<ObjectId>("object_id", &head.object_id)?;
    id_from::<ManifestId>("manifest_id", &head.manifest_id)?;
    if head.site.len() > NAME_BYTES_MAX {
        return Err(WireError::field("site", head.site.len(), "at most 128 bytes"));
    }
    if head.chunk_count > CHUNKS_MAX || head.length > OBJECT_BYTES_MAX {
        return Err(WireError::field("length", head.length, "at most 65,536 chunks"));
    }
    if head.publisher_node_id != publisher {
        return Err(WireError::field("publisher_node_id", head.publisher_node_id, "the caller"));
    }
    Ok((key, head))
}

/// Holder changes, cut into commands of a size that still batches well.
pub(super) fn holders(request: v1::AnnounceRequest) -> Result<Vec<v1::NodeHolders>, WireError> {
    let v1::AnnounceRequest { node_id, changes } = request;
    if changes.len() > ANNOUNCE_CHANGES_MAX {
        return Err(WireError::field("changes", changes.len(), "at most 1,024"));
    }
    let mut commands: Vec<v1::NodeHolders> = Vec::new();
    let mut bytes = HOLDERS_COMMAND_BYTES;
    for change in changes {
        let size = change_bytes(&change)?;
        if bytes + size > HOLDERS_COMMAND_BYTES {
            commands.push(v1::NodeHolders { node_id, changes: Vec::new() });
            bytes = 0;
        }
        bytes += size;
        if let Some(command) = commands.last_mut() {
            command.changes.push(change);
        }
    }
    Ok(commands)
}

fn change_bytes(change: &v1::HolderChange) -> Result<usize, WireError> {
    key(&change.key)?;
    id_from::<ObjectId>("object_id", &change.object_id)?;
    let bitmap = match &change.change {
        Some(Change::Complete(true) | Change::Gone(true)) => 0,
        Some(Change::Chunks(bitmap)) => bitmap.len(),
        _ => return Err(WireError::field("change", "missing", "complete, chunks or gone")),
    };
    let bitmap_max = CHUNKS_MAX as usize / 8;
    if bitmap > bitmap_max || matches!(&change.change, Some(Change::Chunks(_)) if bitmap == 0) {
        return Err(WireError::field("chunks", bitmap, format!("1 to {bitmap_max} bytes")));
    }
    Ok(bitmap + 80)
}

pub(super) fn matcher(request: v1::PurgeRequest) -> Result<v1::FenceMatcher, WireError> {
    let wanted = || WireError::field("matcher", "missing", "a key or a site");
    let matcher = request.matcher.ok_or_else(wanted)?;
    match matcher.matcher.as_ref().ok_or_else(wanted)? {
        Matcher::Key(bytes) => key(bytes).map(|_| ())?,
        Matcher::Site(site) if (1..=NAME_BYTES_MAX).contains(&site.len()) => {}
        Matcher::Site(site) => {
            return Err(WireError::field("site", format!("{site:?}"), "1 to 128 bytes"));
        }
    }
    Ok(matcher)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(change: Change) -> v1::HolderChange {
        let id = bytes::Bytes::from_static(&[1; 32]);
        v1::HolderChange { object_id: id.clone(), key: id, change: Some(change) }
    }

    #[test]
    fn announcements_are_cut_by_size() {
        let small = vec![change(Change::Complete(true)); 600];
        let one = holders(v1::AnnounceRequest { node_id: 3, changes: small }).unwrap();
        assert_eq!(one.len(), 1);
        let large = vec![change(Change::Chunks(vec![1; 8_192].into())); 12];
        let cut = holders(v1::AnnounceRequest { node_id: 3, changes: large }).unwrap();
        assert_eq!(cut.iter().map(|command| command.changes.len()).collect::<Vec<_>>(), [5, 5, 2]);
        assert!(cut.iter().all(|command| command.node_id == 3));
        assert!(holders(v1::AnnounceRequest::default()).unwrap().is_empty());
    }

    #[test]
    fn what_breaks_a_limit_is_named() {
        let refused = |changes| holders(v1::AnnounceRequest { node_id: 3, changes }).unwrap_err();
        assert_eq!(refused(vec![change(Change::Gone(true)); 1_025]).field, "changes");
        assert_eq!(refused(vec![change(Change::Complete(false))]).field, "change");
        assert_eq!(refused(vec![change(Change::Chunks(vec![1; 8_193].into()))]).field, "chunks");
        let short = v1::AcquireRequest { key: vec![1; 31].into(), ..Default::default() };
        assert_eq!(ask(short).unwrap_err().field, "key");
        let nothing = v1::PurgeRequest { matcher: Some(v1::FenceMatcher { matcher: None }) };
        assert_eq!(matcher(nothing).unwrap_err().field, "matcher");
        let nowhere = v1::NodeInfo {
            node_id: 1,
            name: "a".into(),
            role: v1::Role::Node.into(),
            ..Default::default()
        };
        assert_eq!(member(Some(nowhere)).unwrap_err().field, "cluster_address");
        let forged = v1::IndexHead {
            key: vec![1; 32].into(),
            object_id: vec![1; 32].into(),
            manifest_id: vec![1; 32].into(),
            publisher_node_id: 2,
            ..Default::default()
        };
        assert_eq!(head(Some(forged), 3).unwrap_err().field, "publisher_node_id");
    }
}
