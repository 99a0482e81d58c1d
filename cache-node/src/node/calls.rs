//! What can be asked of a caching node by its control calls, beside its drain.

use std::sync::Arc;

use shoal_proto::ClusterId;

use super::auto::Auto;
use super::explain::Explainer;
use super::members::Members;
use super::prefetch::Prefetcher;
use super::purges::Purger;
use super::swarm::Surveyor;
use super::{sites, verify};
use crate::admin::Control;
use crate::config::ClusterSecret;
use crate::current::Current;
use crate::directory::Directory;
use crate::fetch::Fetcher;
use crate::policy::site::Sites;
use crate::store::Store;
use crate::tasks::Tasks;
use crate::transfer::Peers;

/// What answers those calls that are about what is cached.
pub(super) struct Calls {
    purger: Purger,
    explainer: Explainer,
    prefetcher: Prefetcher,
    surveyor: Surveyor,
}

impl Calls {
    /// Calls whose work belongs to `tasks`.
    pub(super) fn new(
        (directory, sites, secret): (Arc<Directory>, Arc<Current<Sites>>, ClusterSecret),
        (fetcher, peers, store): (Fetcher, Peers, Arc<Store>),
        tasks: Tasks,
    ) -> Self {
        let purger =
            Purger { directory: directory.clone(), sites: sites.clone(), secret: secret.clone() };
        let surveyor = Surveyor {
            directory: directory.clone(),
            sites: sites.clone(),
            secret: secret.clone(),
            peers: peers.clone(),
        };
        let explainer = Explainer {
            directory: directory.clone(),
            sites: sites.clone(),
            secret: secret.clone(),
            store,
        };
        let jobs = Arc::default();
        let prefetcher = Prefetcher { directory, sites, secret, fetcher, peers, tasks, jobs };
        Self { purger, explainer, prefetcher, surveyor }
    }

    /// `control` with these calls, and with those about the cluster and its sites.
    pub(super) fn add_to(
        self,
        control: Control,
        (cluster_id, directory): (ClusterId, &Arc<Directory>),
        auto: Option<&Auto>,
    ) -> Control {
        let control = self.surveyor.add_to(control);
        let control = self.explainer.add_to(self.prefetcher.add_to(self.purger.add_to(control)));
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
