//! Purges of one URL by a client of the edge.

use futures::future::try_join_all;
use shoal_proto::wire::v1::PurgeReply;
use shoal_proto::{ObjectKey, RpcError};

use super::Fetcher;
use crate::directory::{Acquired, Fenced, Known, Url};
use crate::policy::label;
use crate::policy::site::Site;

/// What a purge came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Whether anybody had the URL's object, or was fetching it. True where that cannot be told,
    /// since more than the URL is in the site's keys.
    pub found: bool,
    /// The fence's position.
    pub position: u64,
    /// Nodes that serve it no more because they said so.
    pub nodes_acknowledged: u64,
    /// Nodes that serve it no more because their session lease ran out.
    pub nodes_expired: u64,
}

impl Fetcher {
    /// Purges the URL of that key with all its variants; returns when nobody serves it any more.
    ///
    /// # Errors
    /// When the tier could not commit it in time.
    pub async fn purge(&self, site: &Site, key: ObjectKey, soft: bool) -> Result<Purged, RpcError> {
        let found = !site.key.is_of_url() || self.is_known(site, key).await;
        let variants = label::of_variants(&self.inner.secret, site.name(), &key);
        let url = Url { key, site: site.name().to_owned(), variants };
        let purges = url.matchers().map(|matcher| async move {
            self.inner.directory.purge(&Fenced { matcher, soft }).await
        });
        let replies = try_join_all(purges).await?;
        let most = |of: fn(&PurgeReply) -> u64| replies.iter().map(of).max().unwrap_or_default();
        Ok(Purged {
            found,
            position: most(|reply| reply.position),
            nodes_acknowledged: most(|reply| reply.nodes_acknowledged.into()),
            nodes_expired: most(|reply| reply.nodes_expired.into()),
        })
    }

    /// Whether anybody has the object or is fetching it: the question of somebody who wants it, who
    /// then does not.
    async fn is_known(&self, site: &Site, key: ObjectKey) -> bool {
        if self.inner.store.holding(&key).is_some() {
            return true;
        }
        match self.inner.directory.acquire(key, site.name(), &Known::default()).await {
            Ok(Acquired::Have { .. } | Acquired::Follow { .. }) => true,
            Ok(Acquired::Fill(lease)) => {
                self.inner.directory.release(key, Some(lease), 0).await;
                false
            }
            Ok(Acquired::Pass) | Err(_) => false,
        }
    }
}
