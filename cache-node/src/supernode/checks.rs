//! PURE. Requests to the index service, checked against the limits: what passes here is not checked
//! again.

use shoal_proto::id::OBJECT_REF_BYTES;
use shoal_proto::limits::{
    ANNOUNCE_BYTES_MAX, ANNOUNCE_CHANGES_MAX, BITMAP_BYTES_MAX, CHUNKS_MAX, LOCATE_OBJECTS_MAX,
    MEMBERS_MAX, NAME_BYTES_MAX, OBJECT_BYTES_MAX, RENEW_LEASES_MAX,
};
use shoal_proto::wire::v1;
use shoal_proto::wire::{WireError, check_node_info, id_from, labels_from};
use shoal_proto::{
    ClusterId, ErrorKind, LeaseId, ManifestId, ObjectId, ObjectKey, ObjectRef, RpcError,
};

use crate::fences::Fenced;
use crate::home::Ask;
pub(super) use crate::home::lease;

/// A command of holder changes is cut at this size, in bytes.
const HOLDERS_COMMAND_BYTES: usize = 256 * 1024;

const _: () = assert!(ANNOUNCE_CHANGES_MAX * OBJECT_REF_BYTES <= HOLDERS_COMMAND_BYTES);

pub(super) fn key(field: &[u8]) -> Result<ObjectKey, WireError> {
    id_from("key", field)
}

pub(super) fn ask(request: v1::AcquireRequest) -> Result<Ask, WireError> {
    Ask::try_from(request)
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

/// What another super-node tells of its standbys.
pub(super) fn standbys(reply: v1::StandbysReply) -> Result<Vec<v1::StandbyReport>, WireError> {
    let count = reply.standbys.len();
    if count > MEMBERS_MAX {
        return Err(WireError::field("standbys", count, "at most 4,096"));
    }
    Ok(reply.standbys)
}

pub(super) fn leases(request: &v1::RenewRequest) -> Result<Vec<(ObjectKey, LeaseId)>, WireError> {
    let count = request.leases.len();
    if count > RENEW_LEASES_MAX {
        return Err(WireError::field("leases", count, "at most 4,096"));
    }
    request.leases.iter().map(|lease| Ok((key(&lease.key)?, LeaseId(lease.lease_id)))).collect()
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
    labels_from(head.labels.as_ref())?;
    if head.publisher_node_id != publisher {
        return Err(WireError::field("publisher_node_id", head.publisher_node_id, "the caller"));
    }
    Ok((key, head))
}

/// Holder changes, as commands of a size that still batches well.
pub(super) fn holders(request: v1::AnnounceRequest) -> Result<Vec<v1::NodeHolders>, WireError> {
    let v1::AnnounceRequest { node_id, complete, gone, partial } = request;
    let changes = refs("complete", &complete)? + refs("gone", &gone)? + partial.len();
    if changes > ANNOUNCE_CHANGES_MAX {
        return Err(WireError::field("changes", changes, "at most 16,384"));
    }
    let bitmaps: usize = partial.iter().map(|partial| partial.chunks.len()).sum();
    if bitmaps + changes * OBJECT_REF_BYTES > ANNOUNCE_BYTES_MAX {
        return Err(WireError::field("partial", bitmaps, "at most 1 MiB with all references"));
    }
    let mut commands = Vec::new();
    if !(complete.is_empty() && gone.is_empty()) {
        commands.push(v1::NodeHolders { node_id, complete, gone, partial: Vec::new() });
    }
    let mut bytes = HOLDERS_COMMAND_BYTES;
    for partial in partial {
        let size = partial_bytes(&partial)?;
        if bytes + size > HOLDERS_COMMAND_BYTES {
            commands.push(v1::NodeHolders { node_id, ..Default::default() });
            bytes = 0;
        }
        bytes += size;
        if let Some(command) = commands.last_mut() {
            command.partial.push(partial);
        }
    }
    Ok(commands)
}

fn refs(field: &'static str, packed: &[u8]) -> Result<usize, WireError> {
    let expected = || WireError::field(field, packed.len(), "references of 12 bytes each");
    ObjectRef::list(packed).map(|refs| refs.len()).ok_or_else(expected)
}

fn partial_bytes(partial: &v1::PartialHolding) -> Result<usize, WireError> {
    let v1::PartialHolding { object_ref, chunks } = partial;
    if ObjectRef::read(object_ref).is_none() {
        return Err(WireError::field("object_ref", object_ref.len(), "12 bytes"));
    }
    if !(1..=BITMAP_BYTES_MAX).contains(&chunks.len()) {
        let expected = format!("1 to {BITMAP_BYTES_MAX} bytes");
        return Err(WireError::field("chunks", chunks.len(), expected));
    }
    Ok(chunks.len() + OBJECT_REF_BYTES + 8)
}

/// The objects to be located.
pub(super) fn objects(packed: &[u8]) -> Result<Vec<ObjectRef>, WireError> {
    match refs("object_refs", packed)? {
        count if count > LOCATE_OBJECTS_MAX => {
            Err(WireError::field("object_refs", count, "at most 1,024 objects"))
        }
        _ => Ok(ObjectRef::list(packed).into_iter().flatten().collect()),
    }
}

pub(super) fn fenced(request: &v1::PurgeRequest) -> Result<Fenced, WireError> {
    let missing = || WireError::field("matcher", "missing", "a key, site, prefix or tag");
    Fenced::try_from(request.matcher.as_ref().ok_or_else(missing)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partial(bytes: usize) -> v1::PartialHolding {
        v1::PartialHolding { object_ref: vec![1; 12].into(), chunks: vec![1; bytes].into() }
    }

    fn announcement() -> v1::AnnounceRequest {
        v1::AnnounceRequest { node_id: 3, ..Default::default() }
    }

    #[test]
    fn announcements_are_cut_by_size() {
        let packed = vec![1; 12 * ANNOUNCE_CHANGES_MAX];
        let one = v1::AnnounceRequest { complete: packed.into(), ..announcement() };
        assert_eq!(holders(one).unwrap().len(), 1);
        let large =
            v1::AnnounceRequest { partial: vec![partial(BITMAP_BYTES_MAX); 70], ..announcement() };
        let cut = holders(large).unwrap();
        assert_eq!(cut.iter().map(|c| c.partial.len()).collect::<Vec<_>>(), [31, 31, 8]);
        assert!(cut.iter().all(|command| command.node_id == 3));
        assert!(holders(v1::AnnounceRequest::default()).unwrap().is_empty());
    }

    #[test]
    fn announcements_that_break_a_limit_are_named() {
        let refused = |request| holders(request).unwrap_err().field;
        let packed = |count: usize| bytes::Bytes::from(vec![1; 12 * count]);
        let many =
            v1::AnnounceRequest { complete: packed(8_192), gone: packed(8_193), ..announcement() };
        assert_eq!(refused(many), "changes");
        let torn = v1::AnnounceRequest { gone: vec![1; 13].into(), ..announcement() };
        assert_eq!(refused(torn), "gone");
        let some = |partial| v1::AnnounceRequest { partial, ..announcement() };
        assert_eq!(refused(some(vec![partial(8_193)])), "chunks");
        assert_eq!(refused(some(vec![partial(0)])), "chunks");
        assert_eq!(refused(some(vec![partial(8_192); 128])), "partial");
        let nameless = v1::PartialHolding { object_ref: vec![1; 32].into(), ..partial(1) };
        assert_eq!(refused(some(vec![nameless])), "object_ref");
        assert_eq!(objects(&[1; 12 * 3]).unwrap().len(), 3);
        assert_eq!(objects(&packed(1_025)).unwrap_err().field, "object_refs");
    }

    #[test]
    fn what_breaks_a_limit_is_named() {
        let short = v1::AcquireRequest { key: vec![1; 31].into(), ..Default::default() };
        assert_eq!(ask(short).unwrap_err().field, "key");
        assert_eq!(fenced(&v1::PurgeRequest::default()).unwrap_err().field, "matcher");
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
