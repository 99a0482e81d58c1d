//! What is stored here: found, told apart by variants, served fresh or, where the origin or the
//! client allows it, stale.
//!
//! Invariants: nothing is served to a request that does not select it (RFC 9111 section 4.1),
//! whoever stored it; a purge outweighs every permission to be stale.

use http::HeaderMap;
use shoal_proto::{Header, Labels, ObjectHead, ObjectKey};

use super::job::Job;
use super::types::{FetchRequest, Lookup, Question};
use super::{Fetcher, Found, Hit, Inner, VARIANTS_MAX};
use crate::clock;
use crate::directory::Verdict;
use crate::policy::choices::SetCookie;
use crate::policy::key::object_key;
use crate::policy::serve::{OnHit, accepts, on_hit, wants_origin};
use crate::policy::{hop, label, parts, vary};

/// What the store has for a request.
pub(super) enum Local {
    /// Its answer.
    Answer(Found),
    /// Another variant.
    Another(Found),
    /// Nothing that could be served now.
    Nothing,
}

impl Fetcher {
    /// What [`Fetcher::get`] would come to for what is whole in memory and fresh, without a wait and
    /// without what only a miss needs. `None` says nothing: then that is to be asked.
    pub fn hit(&self, asked: &Question<'_>) -> Option<Hit> {
        if wants_origin(asked.client) {
            return None;
        }
        let Inner { store, secret, .. } = &*self.inner;
        let mut filled = None;
        let mut key = asked.key;
        for _ in 0..VARIANTS_MAX {
            let mut variant = None;
            let hit = store.hit(&key, |head| {
                if !self.inner.answers(head, asked) {
                    return false;
                }
                if head.header("vary").is_none() {
                    return true;
                }
                let headers = filled.get_or_insert_with(|| hop::fill_headers(asked.headers));
                let selected = vary::selects(head, secret, headers);
                if !selected {
                    variant = vary::key(secret, &asked.key, head, headers);
                }
                selected
            });
            match (hit, variant) {
                (None, Some(variant)) if variant != key => key = variant,
                (hit, _) => return hit,
            }
        }
        None
    }

    pub(super) async fn local(&self, request: &FetchRequest) -> Local {
        let Some(found) = self.inner.store.get(&request.key).await else { return Local::Nothing };
        if request.avoid == Some(found.manifest_id()) {
            return Local::Nothing;
        }
        let head = found.manifest().head();
        let verdict = self.inner.directory.verdict(head);
        if verdict != Verdict::Gone && !self.inner.selects(head, request) {
            let tier = found.tier();
            return Local::Another(Found::Stored(found, tier, Lookup::Hit));
        }
        if verdict != Verdict::Clear || !self.inner.directory.session_holds() {
            return Local::Nothing;
        }
        let tier = found.tier();
        let lookup = match on_hit(&head.freshness, &request.client, clock::unix_ms()) {
            OnHit::Serve => Lookup::Hit,
            OnHit::ServeStale => Lookup::Stale,
            OnHit::ServeAndRefresh => {
                self.refresh(request.clone());
                Lookup::Stale
            }
            OnHit::Validate => return Local::Nothing,
        };
        Local::Answer(Found::Stored(found, tier, lookup))
    }

    /// Validates in the background (RFC 5861 section 3), once at a time, with the headers of the
    /// request that found it stale.
    fn refresh(&self, request: FetchRequest) {
        if let (_, Some(flight)) = self.inner.flights.join(request.key, true) {
            // Its client has its answer.
            let request = FetchRequest { interims: None, ..request };
            let job = Job::new(self.inner.clone(), request, flight);
            self.inner.tasks.spawn("refresh", job.run());
        }
    }
}

impl Inner {
    /// Whether a stored response, if it is the variant that the request selects, is its answer as it
    /// is.
    fn answers(&self, head: &ObjectHead, asked: &Question<'_>) -> bool {
        let Question { client, now_ms, .. } = *asked;
        on_hit(&head.freshness, client, now_ms) == OnHit::Serve
            && accepts(&head.freshness, client, now_ms)
            && parts::total(head).is_none()
            && self.directory.verdict(head) == Verdict::Clear
            && self.directory.session_holds()
    }

    pub(super) fn selects(&self, head: &ObjectHead, request: &FetchRequest) -> bool {
        vary::selects(head, &self.secret, &request.headers)
    }

    /// The key of the variant for a request that `other` does not answer.
    pub(super) fn variant(
        &self,
        url: &ObjectKey,
        other: &ObjectHead,
        request: &FetchRequest,
    ) -> Option<ObjectKey> {
        vary::key(&self.secret, url, other, &request.headers)
            .filter(|variant| *variant != request.key)
    }
}

impl Job {
    /// Headers of a response to this job's request, as they are stored.
    pub(super) fn stored(&self, headers: Vec<Header>) -> Vec<Header> {
        let rules = &self.request.site.rules;
        let mut headers = parts::marked(label::without_tags(headers, &rules.tags), None);
        if rules.set_cookie != SetCookie::Store {
            headers.retain(|header| header.name != "set-cookie");
        }
        vary::marked(headers, &self.inner.secret, &self.request.headers)
    }

    /// What purges match an object of this job's by.
    pub(super) fn labels(&self, headers: &HeaderMap) -> Labels {
        let (secret, site) = (&self.inner.secret, &self.request.site);
        let target = &self.request.target;
        let labels = label::labels(secret, site.name(), target, (headers, &site.rules.tags));
        let url = object_key(secret, site, &self.request.client_authority, target);
        if url == self.key() {
            return labels;
        }
        label::of_variant(labels, secret, site.name(), &url)
    }

    /// Whether what this job's request asks for is the object that was begun: only then may the
    /// origin be asked for more of it.
    pub(super) fn asks_for(&self, head: &ObjectHead) -> bool {
        self.inner.selects(head, &self.request)
    }
}
