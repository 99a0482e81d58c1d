//! Purges on the read path: what may be served, what may come into the store, and what has to leave
//! it. The directory knows the fences; the store knows nothing of them.
//!
//! Invariant: between the question whether an object may come in and its being found in the store, no
//! pass over the store begins: a fence is forgotten only after everything it covers was seen. What
//! comes in although a fence covers it takes the store's mark back to before that fence first.

use std::sync::Arc;
use std::time::Duration;

use shoal_proto::{ObjectHead, ObjectKey};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use super::types::Lookup;
use super::{Fetcher, Inner};
use crate::directory::{Pass, Verdict};

/// Keys looked at together in a pass.
const PAGE: usize = 256;
/// Fences gather for so long before a pass over the whole store.
const PASS_PAUSE: Duration = Duration::from_secs(1);

/// Held while an object comes in.
pub(super) type Gate = Arc<RwLock<()>>;

/// What becomes of an object on its way into the store.
pub(super) enum Entrance {
    /// It may come in, while this is held.
    Open(OwnedRwLockReadGuard<()>),
    /// Fences against it may have been forgotten: it may not.
    Shut,
}

impl Inner {
    /// Whether a flight's object may be the answer to a request of now.
    pub(super) fn stands(&self, head: &ObjectHead, lookup: Lookup) -> bool {
        match self.directory.verdict(head) {
            Verdict::Clear => true,
            // Policy has allowed it, stale as it is; or the origin has given its word for it, as it
            // does for everything without the tier.
            Verdict::Stale => lookup == Lookup::Stale || !self.directory.session_holds(),
            Verdict::Gone => false,
        }
    }

    /// Asks for an object, which the index vouched for at position `vouched`, to be let in. One that
    /// a fence covers may come in, since it is not served, and has to leave: see [`Inner::expel`].
    pub(super) async fn entrance(&self, head: &ObjectHead, vouched: u64) -> Entrance {
        let held = self.gate.clone().read_owned().await;
        if self.directory.verdict(head) != Verdict::Gone {
            return match self.directory.admits(head, vouched) {
                true => Entrance::Open(held),
                false => Entrance::Shut,
            };
        }
        // It may still be there when the process ends: the next one has to learn of that fence.
        match self.store.lower_mark(self.directory.let_in(head)).await {
            Ok(()) => Entrance::Open(held),
            Err(error) => {
                tracing::warn!(%error, "how far purges were carried out was not noted");
                Entrance::Shut
            }
        }
    }

    /// Removes a stored object that a fence covers; true when it did.
    pub(super) async fn expel(&self, head: &ObjectHead) -> bool {
        let gone = self.directory.verdict(head) == Verdict::Gone;
        if gone && let Err(error) = self.store.remove(&head.key).await {
            tracing::warn!(%error, "a purged object could not be removed");
        }
        gone
    }
}

impl Fetcher {
    /// Holds fences against the store as they come, for as long as it is polled: what a key names
    /// leaves at once, the rest in passes over everything.
    pub async fn hold_fences(self) {
        let directory = &self.inner.directory;
        let mut fences = directory.watch_fences();
        let (mut keys_upto, mut passed_upto) = (0, 0);
        fences.mark_changed();
        while fences.changed().await.is_ok() {
            let position = *fences.borrow_and_update();
            for key in directory.keys_purged_after(keys_upto) {
                self.remove_doomed(vec![key]).await;
            }
            keys_upto = position;
            if !directory.wants_pass(passed_upto) {
                continue;
            }
            tokio::time::sleep(PASS_PAUSE).await;
            let pass = {
                let _shut = self.inner.gate.write().await;
                directory.begin_pass()
            };
            if let Some(pass) = pass {
                passed_upto = pass.upto;
                self.hold_all(pass).await;
            }
        }
    }

    async fn hold_all(&self, pass: Pass) {
        let mut after: Option<ObjectKey> = None;
        let mut removed = 0;
        loop {
            let page = self.inner.store.list(after, PAGE);
            let keys: Vec<_> = page.into_iter().map(|(key, _)| key).collect();
            let Some(last) = keys.last().copied() else { break };
            match self.remove_doomed(keys).await {
                Some(count) => removed += count,
                // Not everything was seen: the fences stay, and the next pass begins anew.
                None => return,
            }
            after = Some(last);
        }
        // Nothing comes in between the mark's being known and its being written.
        let _shut = self.inner.gate.write().await;
        let mark = self.inner.directory.end_pass(pass);
        if let Err(error) = self.inner.store.set_mark(mark).await {
            tracing::warn!(%error, "how far purges were carried out was not noted");
        }
        if removed > 0 {
            tracing::info!(removed, upto = pass.upto, "purged objects have left the store");
        }
    }

    /// Removes those of the keys' objects that fences cover; how many, or `None` when some could not
    /// be looked at or removed.
    async fn remove_doomed(&self, keys: Vec<ObjectKey>) -> Option<u64> {
        let Inner { store, directory, .. } = &*self.inner;
        let heads = match store.heads(keys).await {
            Ok(heads) => heads,
            Err(error) => {
                tracing::warn!(%error, "stored objects could not be held against purges");
                return None;
            }
        };
        let mut removed = 0;
        for head in heads.iter().filter(|head| directory.doomed(head)) {
            match store.remove(&head.key).await {
                Ok(_) => removed += 1,
                Err(error) => {
                    tracing::warn!(%error, "a purged object could not be removed");
                    return None;
                }
            }
        }
        Some(removed)
    }
}
