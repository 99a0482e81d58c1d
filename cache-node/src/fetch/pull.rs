//! Sources within the cluster: holders of a whole object, a running fill, a copy on request.

use std::sync::Arc;

use futures::StreamExt;
use shoal_proto::wire::v1::{self, follow_failed::Reason};
use shoal_proto::{ChunkHash, LeaseId, Manifest, NodeId, ObjectHead, ObjectId, ObjectKey};

use super::fencing::Entrance;
use super::flight::Outcome;
use super::job::{Job, Step};
use super::types::{FetchError, Lookup};
use crate::clock;
use crate::directory::Verdict;
use crate::membership::{Member, placement};
use crate::metrics::Tier;
use crate::policy::parts;
use crate::store::StoreError;
use crate::transfer::{
    Control, CopyRequest, FOLLOWED_WHOLE_CHUNKS, FillEntry, Followed, GatherError, Live,
};

impl Job {
    /// Pulls a whole object from its holders.
    pub(super) async fn pull_from(&mut self, head: v1::IndexHead, holders: Vec<Member>) -> Step {
        let Ok(object) = ObjectId::try_from(head.object_id.as_ref()) else { return Step::Again };
        let publisher = NodeId(head.publisher_node_id);
        // Whoever pulls meets the others at the publisher.
        let mut holders = holders;
        holders.sort_by_key(|holder| holder.id != publisher);
        let Some((manifest, body)) = self.manifest_from(object, &holders).await else {
            return Step::Again;
        };
        let manifest = match self.tierless && self.live.is_none() {
            false => manifest,
            true => match self.checked(manifest).await {
                Ok(Some(manifest)) => manifest,
                Ok(None) => {
                    holders.iter().for_each(|holder| self.next_source_without(holder.id));
                    return Step::Again;
                }
                Err(step) => return step,
            },
        };
        if let Some(stale) = self.stale.as_ref().filter(|stale| stale.object_id() == object) {
            let tier = stale.tier();
            let entrance = self.inner.entrance(manifest.head(), self.vouched).await;
            if matches!(entrance, Entrance::Shut) {
                return Step::Again;
            }
            return match self.inner.store.refresh(manifest).await {
                Ok(stored) => {
                    self.flight.set(Outcome::Stored(stored, tier, Lookup::Revalidated));
                    self.turn = None;
                    Step::Landed
                }
                Err(_) => Step::Again,
            };
        }
        if body.is_none() && self.live.is_none() && self.wants_some_of(&manifest) {
            match self.outline(manifest.clone()).await {
                Ok(step) => return step,
                Err(error) => tracing::debug!(%error, "all of an object is pulled"),
            }
        }
        let manifest = Arc::new(manifest);
        let Some(live) = self.continue_or_begin(manifest.head().clone(), &manifest).await else {
            return Step::Landed;
        };
        let pulled = match body {
            Some(data) => self.put_small(&live, data).await,
            None => {
                live.name_object(object);
                self.inner.fills.grows(&live);
                self.show(live.clone(), Tier::Peer);
                self.inner.gatherer.pull(&manifest, &holders, &live).await
            }
        };
        match pulled {
            Ok(()) => self.finish_pull(&live, manifest.length()).await,
            Err(GatherError::Stuck { last }) => {
                tracing::debug!(error = %last, "no holder gave the whole object");
                holders.iter().for_each(|holder| self.next_source_without(holder.id));
                Step::Again
            }
            Err(error) => self.broken(&error.to_string()),
        }
    }

    /// Whether its request wants a part of a large object, whose chunks can be had one by one.
    fn wants_some_of(&self, manifest: &Manifest) -> bool {
        let length = manifest.length();
        length >= parts::PARTS_FROM_BYTES
            && self.request.wanted(length).is_some()
            && parts::Part::of(manifest.head(), 0).is_some()
    }

    /// Stores an object whose chunks come as they are read.
    async fn outline(&mut self, manifest: Manifest) -> Result<Step, StoreError> {
        let stored = {
            let entrance = self.inner.entrance(manifest.head(), self.vouched).await;
            if matches!(entrance, Entrance::Shut) {
                return Ok(Step::Again);
            }
            self.inner.store.outline(manifest).await?
        };
        let lookup = if self.stale.is_some() { Lookup::Replaced } else { Lookup::Miss };
        self.flight.set(Outcome::Stored(stored.clone(), Tier::Peer, lookup));
        self.flight.land();
        self.turn = None;
        self.inner.expel(stored.manifest().head()).await;
        Ok(Step::Landed)
    }

    async fn manifest_from(
        &mut self,
        object: ObjectId,
        holders: &[Member],
    ) -> Option<(Manifest, Option<bytes::Bytes>)> {
        let now_ms = clock::unix_ms();
        let zone = self.inner.gatherer.zone();
        let me = (self.inner.gatherer.me, zone.as_str());
        for holder in asked_for_manifest(holders, me, self.key()) {
            match self.inner.peers.manifest(holder, self.key(), object).await {
                Ok((manifest, body)) if self.is_of_use(manifest.head(), now_ms) => {
                    return Some((manifest, body));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(holder = holder.name, %error, "no manifest");
                    self.inner.peers.metrics().failures.inc();
                }
            }
            self.next_source_without(holder.id);
        }
        None
    }

    fn is_of_use(&self, head: &ObjectHead, now_ms: u64) -> bool {
        let directory = &self.inner.directory;
        if self.tierless {
            // The origin will be asked whether it still stands.
            return !directory.fenced(head);
        }
        head.freshness.is_fresh(now_ms)
            && directory.verdict(head) == Verdict::Clear
            && directory.admits(head, self.vouched)
    }

    async fn put_small(&self, live: &Live, data: bytes::Bytes) -> Result<(), GatherError> {
        if !data.is_empty() && !live.has_chunk(0) {
            let hash = ChunkHash::of(&data);
            live.put_chunk(0, data, hash).await?;
        }
        Ok(())
    }

    async fn finish_pull(&mut self, live: &Arc<Live>, length: u64) -> Step {
        let finished = {
            let entrance = self.inner.entrance(live.head(), self.vouched).await;
            if matches!(entrance, Entrance::Shut) {
                return self.broken("it is older than the purges that this node remembers");
            }
            live.finish(length).await
        };
        match finished {
            Ok(stored) => {
                self.inner.fills.grown(self.key(), live.growth(), stored.object_id());
                if !matches!(self.flight.outcome(), Outcome::Live(..)) {
                    let lookup = if self.stale.is_some() { Lookup::Replaced } else { Lookup::Miss };
                    self.flight.set(Outcome::Stored(stored.clone(), Tier::Peer, lookup));
                }
                self.flight.land();
                if !self.inner.expel(stored.manifest().head()).await {
                    self.announce(&stored).await;
                }
                Step::Landed
            }
            Err(error) => self.broken(&error.to_string()),
        }
    }

    /// The growing object to go on with, if the source has the same version; a new one otherwise.
    /// `None` when neither is possible: the flight then has its outcome.
    async fn continue_or_begin(
        &mut self,
        head: ObjectHead,
        manifest: &Manifest,
    ) -> Option<Arc<Live>> {
        if let Some(live) = self.live.clone() {
            let held = (0..manifest.chunk_count()).filter_map(|i| Some((i, live.hash(i)?)));
            let same = head.length == live.head().length || live.head().length.is_none();
            if same && held.into_iter().all(|(i, hash)| manifest.hash(i) == Some(hash)) {
                return Some(live);
            }
            self.broken("the object has another version now");
            return None;
        }
        self.begin(head, None).await
    }

    /// A place in the store for a new object; without room everybody asks the origin.
    pub(super) async fn begin(
        &mut self,
        head: ObjectHead,
        lease: Option<LeaseId>,
    ) -> Option<Arc<Live>> {
        match self.inner.store.begin(head).await {
            Ok(partial) => Some(Live::new(partial, lease)),
            Err(error) => {
                if !matches!(error, StoreError::NoRoom { .. }) {
                    tracing::warn!(%error, "the store takes no object, passing through");
                }
                self.flight.set(Outcome::Pass);
                None
            }
        }
    }

    /// Follows a fill that runs on another node.
    pub(super) async fn follow(&mut self, filler: &Member, lease: LeaseId) -> Step {
        let me = self.inner.directory.node_id();
        let mut events = match self.inner.peers.follow(filler, self.key(), lease, me).await {
            Ok(events) => events.boxed(),
            Err(error) => return self.lost_filler(filler, lease, &error.to_string()),
        };
        while let Some(event) = events.next().await {
            let step = match event {
                Ok(Followed::Head(head)) => self.follow_head(*head).await,
                Ok(Followed::Members { growth, nodes }) => match self.of_many_chunks() {
                    Some(live) => {
                        live.name_growth(growth);
                        self.inner.fills.grows(&live);
                        return self.gather((events, nodes), live, (filler, lease)).await;
                    }
                    None => None,
                },
                Ok(Followed::Chunk { index, hash, data }) => {
                    self.follow_chunk(index, hash, data).await
                }
                Ok(Followed::Done(manifest)) => Some(self.follow_done(&manifest).await),
                Ok(Followed::Failed(reason, message)) => {
                    Some(self.follow_failed(reason, message, (filler, lease)))
                }
                Err(error) => return self.lost_filler(filler, lease, &error.to_string()),
            };
            if let Some(step) = step {
                return step;
            }
        }
        self.lost_filler(filler, lease, "the stream ended without an end")
    }

    /// The growing object, where its chunks have to be asked for one by one.
    fn of_many_chunks(&self) -> Option<Arc<Live>> {
        let live = self.live.clone()?;
        let size = u64::from(live.head().chunk_size);
        let few = live.head().length.is_some_and(|l| l.div_ceil(size) <= FOLLOWED_WHOLE_CHUNKS);
        (!few).then_some(live)
    }

    async fn gather(
        &mut self,
        (events, others): (Control<'_>, Vec<NodeId>),
        live: Arc<Live>,
        (filler, lease): (&Member, LeaseId),
    ) -> Step {
        match self.inner.gatherer.follow(filler, &live, others, events).await {
            Ok(manifest) => self.finish_pull(&live, manifest.length()).await,
            Err(GatherError::FillerLost(error)) => {
                self.lost_filler(filler, lease, &error.to_string())
            }
            Err(GatherError::Stuck { last }) => self.lost_filler(filler, lease, &last.to_string()),
            Err(GatherError::FillFailed(reason, message)) => {
                self.follow_failed(reason, message, (filler, lease))
            }
            Err(error) => self.broken(&error.to_string()),
        }
    }

    fn lost_filler(&mut self, filler: &Member, lease: LeaseId, reason: &str) -> Step {
        tracing::info!(filler = filler.name, reason, "a fill's filler was lost");
        self.inner.peers.metrics().failures.inc();
        self.known.suspect = Some((filler.id, lease));
        Step::Again
    }

    async fn follow_head(&mut self, head: ObjectHead) -> Option<Step> {
        match self.live.clone() {
            Some(live) => {
                let same = head.length == live.head().length
                    && head.chunk_size == live.head().chunk_size
                    && head.header("etag") == live.head().header("etag");
                (!same).then(|| self.broken("the object has another version now"))
            }
            None => {
                if self.tierless {
                    if self.inner.directory.fenced(&head) {
                        return Some(self.pass_on());
                    }
                    if let Err(step) = self.check(&head).await {
                        return Some(step);
                    }
                } else if let Some(purged) = self.inner.directory.covering(&head) {
                    // A purge has come since that fill began: another is needed. One that began
                    // after the purge is of use, whatever was purged beside it meanwhile.
                    self.known.since = self.known.since.max(purged);
                    return Some(Step::Again);
                }
                let Some(live) = self.begin(head, None).await else { return Some(Step::Landed) };
                self.show(live, Tier::Peer);
                None
            }
        }
    }

    async fn follow_chunk(
        &mut self,
        index: u32,
        hash: ChunkHash,
        data: bytes::Bytes,
    ) -> Option<Step> {
        let live = self.live.clone()?;
        if data.is_empty() {
            let same = live.hash(index) == Some(hash);
            return (!same).then(|| self.broken("the object has another version now"));
        }
        match live.put_chunk(index, data, hash).await {
            Ok(()) => None,
            Err(error) => Some(self.broken(&error.to_string())),
        }
    }

    async fn follow_done(&mut self, manifest: &Manifest) -> Step {
        let Some(live) = self.live.clone() else { return Step::Again };
        self.finish_pull(&live, manifest.length()).await
    }

    fn follow_failed(
        &mut self,
        reason: Reason,
        message: String,
        (filler, lease): (&Member, LeaseId),
    ) -> Step {
        let origin = self.request.site.origin();
        match reason {
            Reason::NotStorable => self.flight.set(Outcome::Pass),
            Reason::Timeout => {
                let waited_ms = self.request.site.first_byte_timeout.as_millis() as u64;
                self.fail(FetchError::Timeout { origin, waited_ms });
            }
            Reason::Origin => self.fail(FetchError::Unreachable { origin, reason: message }),
            Reason::Gone | Reason::Unspecified => {
                return self.lost_filler(filler, lease, &message);
            }
        }
        Step::Landed
    }

    /// Takes a copy as another node wished; then, or when it cannot, goes on as any flight.
    pub(super) async fn take_copy(&mut self, entry: &FillEntry, copy: CopyRequest) -> Step {
        entry.ended(Reason::Gone, "this node takes a copy");
        let view = self.inner.directory.view();
        // Who gives away what is stored knows no URL to ask the origin for, and a wish says nothing
        // of the headers that a key is made of as well.
        let nameless = copy.source.target.is_empty() || !self.request.site.key.is_of_url();
        let Some(holder) = view.member(copy.holder).cloned() else {
            self.flight.set(Outcome::Again);
            return Step::Landed;
        };
        let step = match (copy.lease, copy.object) {
            (Some(lease), _) => self.follow(&holder, lease).await,
            (None, Some(object)) => {
                let head = v1::IndexHead {
                    object_id: object.to_wire(),
                    publisher_node_id: holder.id.0,
                    ..v1::IndexHead::default()
                };
                self.pull_from(head, vec![holder]).await
            }
            (None, None) => Step::Again,
        };
        if matches!(step, Step::Again) {
            // Only a copy that has begun is worth the origin's bytes: it saves those it already has.
            if self.live.is_none() {
                self.flight.set(Outcome::Again);
                return Step::Landed;
            }
            if nameless {
                return self.broken("the node that gave this copy away was lost");
            }
        }
        if self.live.is_some() {
            self.inner.peers.metrics().copies_taken.inc();
        }
        step
    }
}

/// Who is asked for the manifest, in order, of holders with the publisher first. The publisher has
/// the newest, but asked first by everybody it would send all small objects, whose bodies come with
/// their manifests. So another comes before it, near ones first, and another one for every node and
/// key; then the publisher, since the other's may be from before a revalidation.
fn asked_for_manifest<'a>(
    holders: &'a [Member],
    (me, zone): (NodeId, &str),
    key: ObjectKey,
) -> Vec<&'a Member> {
    let mut seed = *key.as_bytes();
    seed.iter_mut().zip(me.0.to_le_bytes()).for_each(|(byte, mine)| *byte ^= mine);
    let order = placement::rank(&ObjectKey::new(seed), holders.iter().map(|holder| holder.id));
    let place = |holder: &&Member| {
        let far = zone.is_empty() || holder.zone != zone;
        (far, order.iter().position(|id| *id == holder.id))
    };
    let first = holders.iter().min_by_key(place);
    let rest = holders.iter().filter(|holder| first.is_none_or(|first| first.id != holder.id));
    first.into_iter().chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const KEY: ObjectKey = ObjectKey::new([7; 32]);

    fn holder(id: u64, zone: &str) -> Member {
        Member { zone: zone.into(), ..Member::node(NodeId(id), format!("n{id}")) }
    }

    #[test]
    fn no_holder_is_everybodys_first_and_the_publisher_is_soon_asked() {
        let holders: Vec<_> = (1..=4).map(|id| holder(id, "")).collect();
        let asked = |me| asked_for_manifest(&holders, (NodeId(me), ""), KEY);
        let firsts: BTreeSet<_> = (10..60).map(|me| asked(me)[0].id).collect();
        assert_eq!(firsts.len(), holders.len());
        for me in 10..60 {
            assert_eq!(asked(me).len(), holders.len());
            assert!(asked(me)[..2].contains(&&holders[0]), "the publisher");
        }
    }

    #[test]
    fn a_holder_nearby_is_asked_first() {
        let holders = [holder(1, "a"), holder(2, "a"), holder(3, "b")];
        for me in 10..30 {
            let asked = asked_for_manifest(&holders, (NodeId(me), "b"), KEY);
            assert_eq!(asked[0].id, NodeId(3));
        }
        assert!(asked_for_manifest(&[], (NodeId(1), "b"), KEY).is_empty());
    }
}
