//! What the tier and other nodes answer, from arbitrary bytes: refused or read, never a panic.

use proptest::prelude::*;
use shoal_proto::limits::{ANNOUNCE_CHANGES_MAX, MEMBERS_MAX, NAME_BYTES_MAX};
use shoal_proto::wire::v1;

use super::types::read_answer;
use super::{Acquired, Giver, tierless};
use crate::fences::table::FenceTable;
use crate::home::Ask;
use crate::membership::ClusterView;
use crate::rpc::arbitrary::{decoded, message_bytes};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn answers_are_refused_or_read(bytes in message_bytes()) {
        if let Some(Ok(answer)) = decoded(&bytes).map(|reply| read_answer(reply, (Giver::Node, 0))) {
            match answer {
                Acquired::Have { holders, .. } => {
                    prop_assert!(holders.iter().all(|holder| holder.id.0 != 0));
                }
                Acquired::Follow { filler, .. } => prop_assert!(filler.id.0 != 0),
                Acquired::Fill(lease) => prop_assert_eq!(lease.giver, Giver::Node),
                Acquired::Pass => {}
            }
        }
        if let Some(Ok(view)) = decoded::<v1::View>(&bytes).map(ClusterView::try_from) {
            prop_assert!(view.members.len() <= MEMBERS_MAX);
            prop_assert!(view.members.iter().all(|member| member.name.len() <= NAME_BYTES_MAX));
            prop_assert!(view.members.is_sorted_by_key(|member| member.id));
        }
    }

    #[test]
    fn a_fence_that_cannot_be_read_never_makes_less_fenced(bytes in message_bytes()) {
        let Some(fence) = decoded::<v1::Fence>(&bytes) else { return Ok(()) };
        let mut table = FenceTable::after_pass(0);
        table.add(&fence);
        prop_assert!(table.position() >= fence.position);
    }

    #[test]
    fn what_home_nodes_are_asked_is_within_the_limits(bytes in message_bytes()) {
        if let Some(Ok(ask)) = decoded::<v1::AcquireRequest>(&bytes).map(Ask::try_from) {
            prop_assert!(ask.failed.len() <= MEMBERS_MAX);
        }
        if let Some(request) = decoded::<v1::TellRequest>(&bytes)
            && let Ok(read) = tierless::holdings(&request)
        {
            prop_assert_eq!(read.len(), request.holdings.len());
            prop_assert!(read.len() <= ANNOUNCE_CHANGES_MAX);
        }
    }
}
