//! What can be asked of a caching node by its control calls, beside its drain.

use std::sync::Arc;

use shoal_proto::ClusterId;

use super::auto::Auto;
use super::members::Members;
use super::prefetch::Prefetcher;
use super::purges::Purger;
use super::{sites, verify};
use crate::admin::Control;
use crate::directory::Directory;

/// What answers those calls that change what is cached.
pub(super) struct Calls {
    pub(super) purger: Purger,
    pub(super) prefetcher: Prefetcher,
}

impl Calls {
    /// `control` with these calls, and with those about the cluster and its sites.
    pub(super) fn add_to(
        self,
        control: Control,
        (cluster_id, directory): (ClusterId, &Arc<Directory>),
        auto: Option<&Auto>,
    ) -> Control {
        let control = self.prefetcher.add_to(self.purger.add_to(control));
        let control = match auto {
            None => control,
            Some(auto) => {
                let (node, view) = (auto.super_node(), directory.watch_view());
                Members { cluster_id, node, view }.add_to(control)
            }
        };
        let directory = directory.clone();
        let control = sites::add_to(control, directory.clone());
        verify::add_to(control, move || {
            let directory = directory.clone();
            async move { directory.verify().await }
        })
    }
}
