//! Requests to the index service from arbitrary bytes: whatever passes a check is within the limits.

use proptest::prelude::*;
use shoal_proto::limits::{
    ADDRESS_BYTES_MAX, ANNOUNCE_CHANGES_MAX, CHUNKS_MAX, MEMBERS_MAX, NAME_BYTES_MAX,
    OBJECT_BYTES_MAX, RENEW_LEASES_MAX,
};
use shoal_proto::wire::v1;

use crate::rpc::arbitrary::{decoded, message_bytes};
use crate::supernode::checks;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_passes_is_within_the_limits(bytes in message_bytes()) {
        if let Some(Ok(ask)) = decoded(&bytes).map(checks::ask) {
            prop_assert!(ask.failed.len() <= MEMBERS_MAX);
        }
        if let Some(request) = decoded::<v1::RenewRequest>(&bytes)
            && let Ok(leases) = checks::leases(&request)
        {
            prop_assert!(leases.len() <= RENEW_LEASES_MAX);
        }
        if let Some(request) = decoded::<v1::PublishRequest>(&bytes)
            && let Ok((key, head)) = checks::head(request.head, request.node_id)
        {
            prop_assert_eq!(key.as_bytes().as_slice(), head.key.as_ref());
            prop_assert!(head.chunk_count <= CHUNKS_MAX && head.length <= OBJECT_BYTES_MAX);
            prop_assert!(head.site.len() <= NAME_BYTES_MAX);
            prop_assert_eq!(head.publisher_node_id, request.node_id);
        }
        if let Some(request) = decoded::<v1::AnnounceRequest>(&bytes) {
            let node = request.node_id;
            if let Ok(commands) = checks::holders(request) {
                prop_assert!(commands.len() <= ANNOUNCE_CHANGES_MAX + 1);
                prop_assert!(commands.iter().all(|command| command.node_id == node));
            }
        }
        if let Some(request) = decoded::<v1::JoinRequest>(&bytes)
            && let Ok(info) = checks::member(request.node)
        {
            prop_assert!(info.node_id != 0 && !info.name.is_empty());
            prop_assert!(!info.cluster_address.is_empty());
            prop_assert!(info.cluster_address.len() <= ADDRESS_BYTES_MAX);
        }
        let _ = decoded::<v1::PurgeRequest>(&bytes).map(|request| checks::fenced(&request));
        let _ = checks::objects(&bytes);
        if let Some(shadow) = decoded::<v1::ShadowRequest>(&bytes)
            && let Ok(id) = checks::lease(shadow.lease_id, shadow.lease_ms)
        {
            prop_assert!(id.0 != 0);
        }
    }
}
