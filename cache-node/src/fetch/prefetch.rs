//! Prefetches: an object is got as if a client had asked for it, and nobody reads it. Whoever else
//! wants it meanwhile, here or on other nodes, waits for the same fill.

use std::sync::Arc;

use futures::StreamExt;
use http::{HeaderMap, Method};
use tokio::sync::{Semaphore, mpsc};

use super::{FetchRequest, Fetched, Fetcher, Lookup};
use crate::policy::directives::RequestDirectives;
use crate::policy::key::object_key;
use crate::transfer::{PrefetchWish, Source};

/// Prefetches under way at a time.
const AT_ONCE_MAX: usize = 16;
/// Wishes that wait.
pub const PREFETCH_QUEUE_MAX: usize = 256;

impl Fetcher {
    /// Gets objects as other nodes wish, for as long as it is polled.
    pub async fn take_prefetches(self, mut wishes: mpsc::Receiver<PrefetchWish>) {
        let slots = Arc::new(Semaphore::new(AT_ONCE_MAX));
        while let Some(PrefetchWish { source, done }) = wishes.recv().await {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let fetcher = self.clone();
            self.inner.tasks.spawn("prefetch", async move {
                // Whoever wished may be gone.
                let _ = done.send(fetcher.prefetch(source).await);
                drop(slot);
            });
        }
    }

    /// Gets an object: the bytes of its body that came, 0 when it was here already.
    ///
    /// # Errors
    /// Why there is no object.
    pub async fn prefetch(&self, source: Source) -> Result<u64, String> {
        let site = self.inner.sites.with(|sites| sites.get(&source.site));
        let site = site.map(|site| site.at(&source.target));
        let site = site.ok_or_else(|| "the node does not know the site".to_owned())?;
        if site.bypass {
            return Err("the site does not cache it".to_owned());
        }
        let target = site.key.target(&source.target).into_owned();
        let secret = &self.inner.secret;
        let url = object_key(secret, &site, &source.authority, &target);
        let headers = HeaderMap::new();
        let request = FetchRequest {
            key: site.key.key(secret, url, &headers, false),
            site,
            method: Method::GET,
            target,
            client_authority: source.authority,
            headers,
            authorized: false,
            client: RequestDirectives::default(),
            interims: None,
        };
        let object = match self.get(request).await.map_err(|error| error.to_string())? {
            Fetched::Object(object) => object,
            Fetched::Pass(response) => {
                return Err(format!("the response, {}, may not be stored", response.status));
            }
        };
        if object.head.status >= 400 {
            return Err(format!("the origin answers {}", object.head.status));
        }
        if matches!(object.lookup, Lookup::Hit | Lookup::Stale) {
            return Ok(0);
        }
        let (mut body, mut bytes) = (object.body(None), 0);
        while let Some(piece) = body.next().await {
            bytes += piece.map_err(|error| error.to_string())?.len() as u64;
        }
        Ok(bytes)
    }
}
