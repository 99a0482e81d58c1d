//! Prefetches: an object is got as if a client had asked for it, and nobody reads it. Whoever else
//! wants it meanwhile, here or on other nodes, waits for the same fill.

use std::sync::Arc;

use futures::StreamExt;
use http::{HeaderMap, Method};
use shoal_proto::{ObjectId, ObjectKey};
use tokio::sync::{Semaphore, mpsc};

use super::{FetchRequest, Fetched, Fetcher, Lookup};
use crate::policy::directives::RequestDirectives;
use crate::policy::key::object_key;
use crate::policy::parts::{self, Part};
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

    /// Gets an object, with all of its parts: the bytes of its body that came, 0 when it was here
    /// already.
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
            range: None,
            part: None,
            whole: false,
            avoid: None,
            interims: None,
        };
        let before = self.absent(&request.key).await;
        let object = match self.get(request).await.map_err(|error| error.to_string())? {
            Fetched::Object(object) => object,
            Fetched::Pass(response) => {
                return Err(format!("the response, {}, may not be stored", response.status));
            }
        };
        if object.head.status >= 400 {
            return Err(format!("the origin answers {}", object.head.status));
        }
        let key = object.head.key;
        let same = |of: &(ObjectId, u64)| self.inner.store.locate(&key) == Some(of.0);
        let absent = match object.lookup {
            Lookup::Hit | Lookup::Stale => self.absent(&key).await,
            _ => before.filter(same),
        };
        let absent = absent.map(|(_, bytes)| bytes);
        if absent == Some(0) {
            return Ok(0);
        }
        let (mut body, mut bytes) = (object.body(None), 0);
        while let Some(piece) = body.next().await {
            bytes += piece.map_err(|error| error.to_string())?.len() as u64;
        }
        Ok(absent.unwrap_or(bytes))
    }

    /// What is stored under a key, and how many bytes of it are not here: of its chunks, or of its
    /// parts where it is kept in parts.
    async fn absent(&self, key: &ObjectKey) -> Option<(ObjectId, u64)> {
        let stored = self.inner.store.get(key).await?;
        let (manifest, id) = (stored.manifest(), stored.object_id());
        if parts::total(manifest.head()).is_none() {
            let absent = (0..manifest.chunk_count()).filter(|chunk| !stored.has_chunk(*chunk));
            return Some((id, absent.map(|chunk| u64::from(manifest.chunk_length(chunk))).sum()));
        }
        let whole = parts::whole(manifest.head());
        let numbers = parts::covering(&(0..whole.length.unwrap_or(0)));
        let absent = numbers.filter_map(|number| Part::of(&whole, number)).filter(|part| {
            let held = self.inner.store.holding(&part.key(&self.inner.secret, key));
            !matches!(held, Some((_, None)))
        });
        let bytes = absent.map(|part| part.range()).map(|range| range.end - range.start).sum();
        Some((id, bytes))
    }
}
