//! PURE. What nodes ask of a home, checked against the limits.

use shoal_proto::limits::{FILL_LEASE_MS, MEMBERS_MAX};
use shoal_proto::wire::{WireError, id_from, v1};
use shoal_proto::{LeaseId, ManifestId, NodeId};

use super::Ask;

impl TryFrom<v1::AcquireRequest> for Ask {
    type Error = WireError;

    fn try_from(request: v1::AcquireRequest) -> Result<Self, WireError> {
        let stale = (!request.stale_manifest_id.is_empty())
            .then(|| id_from::<ManifestId>("stale_manifest_id", &request.stale_manifest_id));
        let suspect = (request.suspect_lease_id != 0)
            .then_some((NodeId(request.suspect_node_id), LeaseId(request.suspect_lease_id)));
        let failed = request.failed_holders;
        if failed.len() > MEMBERS_MAX {
            return Err(WireError::field("failed_holders", failed.len(), "at most 4,096"));
        }
        Ok(Self {
            key: id_from("key", &request.key)?,
            node: NodeId(request.node_id),
            stale: stale.transpose()?,
            suspect,
            failed: failed.into_iter().map(NodeId).collect(),
            since: request.since_position,
        })
    }
}

/// The lease that a filler tells of.
///
/// # Errors
/// When its id is 0, or it is to live longer than leases do.
pub(crate) fn lease(id: u64, lease_ms: u32) -> Result<LeaseId, WireError> {
    if id == 0 {
        return Err(WireError::field("lease_id", 0, "a number above 0"));
    }
    if lease_ms > FILL_LEASE_MS {
        return Err(WireError::field("lease_ms", lease_ms, format!("at most {FILL_LEASE_MS}")));
    }
    Ok(LeaseId(id))
}
