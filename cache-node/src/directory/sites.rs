//! The cluster's sites, asked of any super-node. What this node answers requests by comes with its
//! session.

use std::time::Duration;

use shoal_proto::limits::{RPC_DEADLINE_MS, SITES_APPLY_MS, WRITE_DEADLINE_MS};
use shoal_proto::wire::v1;
use shoal_proto::{ObjectKey, RpcError};

use super::Directory;
use crate::rpc::with_deadline;

impl Directory {
    /// All sites, read linearizably.
    ///
    /// # Errors
    /// When no super-node could read them in time.
    pub async fn sites(&self) -> Result<v1::SiteTable, RpcError> {
        let request = v1::SitesRequest { node_id: self.me.node_id };
        let one = Duration::from_millis(2 * RPC_DEADLINE_MS);
        let deadline = Duration::from_millis(WRITE_DEADLINE_MS);
        self.homes
            .call(&self.anybody(), deadline, |mut client| async move {
                with_deadline(one, client.sites(request)).await
            })
            .await
    }

    /// Changes sites; returns when all nodes that can be heard have applied it. After an error it
    /// may have been made all the same.
    ///
    /// # Errors
    /// When the tier could not commit it in time.
    pub async fn change_sites(
        &self,
        change: v1::ChangeSites,
    ) -> Result<v1::ChangeSitesReply, RpcError> {
        let request = v1::ChangeSitesRequest { node_id: self.me.node_id, change: Some(change) };
        let applying = u64::from(SITES_APPLY_MS) + RPC_DEADLINE_MS;
        let deadline = Duration::from_millis(WRITE_DEADLINE_MS + applying);
        self.homes
            .call(&self.anybody(), deadline, |mut client| {
                let request = request.clone();
                async move { with_deadline(deadline, client.change_sites(request)).await }
            })
            .await
    }

    /// A key of this node's own, for what any super-node can do.
    pub(super) fn anybody(&self) -> ObjectKey {
        ObjectKey::new(*blake3::hash(&self.me.node_id.to_be_bytes()).as_bytes())
    }
}
