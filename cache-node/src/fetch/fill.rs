//! The fill: the one act of fetching an object's bytes from its origin, or of learning that the
//! stored ones still stand. Readers get the bytes as they arrive; the store gets whole chunks.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Method, StatusCode};
use shoal_proto::limits::UNKNOWN_LENGTH_BYTES_MAX;
use shoal_proto::manifest::chunk_size_for;
use shoal_proto::wire::v1::follow_failed::Reason;
use shoal_proto::{ChunkHash, Labels, ObjectHead, Refresh};

use super::fencing::Entrance;
use super::flight::Outcome;
use super::job::{Job, Step};
use super::tierless::Word;
use super::types::{BodyStream, FetchError, Lookup, OriginResponse};
use crate::clock;
use crate::directory::{Lease, Verdict};
use crate::metrics::Tier;
use crate::policy::freshness::{Times, freshness};
use crate::policy::rules::Rules;
use crate::policy::serve::{OriginTrouble, may_serve_stale_on_error};
use crate::policy::storable::{NotStorable, RequestFacts, ResponseFacts, storable};
use crate::policy::{conditional, hop, label, parts};
use crate::store::PartialObject;
use crate::transfer::{CopyRequest, FillEntry, Live, Source, SourcePart, Tail};

/// How long nobody waits for another's fill of a key whose response could not be stored.
const PASS_MS: u32 = 5_000;
/// Tries to publish an object before it stays unknown to the tier.
const PUBLISH_TRIES: u32 = 3;

impl Job {
    /// Asks the origin, under a lease if the tier gave one.
    pub(super) async fn fill(&mut self, entry: &FillEntry, lease: Option<Lease>) -> Step {
        entry.begin(lease.map(|lease| lease.id));
        self.inner.metrics.fills.inc();
        let step = match self.live.clone() {
            Some(live) if !self.asks_for(live.head()) => {
                self.broken("the rest of another variant cannot be asked for")
            }
            Some(live) => self.resume(entry, lease, live).await,
            None => self.fill_anew(entry, lease).await,
        };
        if let Some(lease) = lease {
            // A lease that was not ended by a publication is given back.
            if self.inner.directory.holds(self.key(), lease) {
                self.inner.directory.release(self.key(), Some(lease), 0).await;
            }
        }
        step
    }

    pub(super) async fn ask(&self, extra: HeaderMap) -> Result<OriginResponse, FetchError> {
        self.inner.ask(&self.request, extra).await
    }

    async fn fill_anew(&mut self, entry: &FillEntry, lease: Option<Lease>) -> Step {
        let word = match self.word().take() {
            // Younger than all that was known when it was asked for, whatever the lease says.
            Some(word) => word,
            None => {
                let stale = self.stale.as_ref();
                let stale = stale.map(|stale| conditional::validators(stale.manifest().head()));
                let mut extra = stale.unwrap_or_default();
                extra.extend(self.question());
                match self.ask_word(extra).await {
                    Ok(word) => Word { position: position(lease, word.position), ..word },
                    Err(error) => return self.origin_failed(entry, error),
                }
            }
        };
        let status = word.response.status;
        if status == StatusCode::NOT_MODIFIED && self.stale.is_some() {
            return self.not_modified(lease, word).await;
        }
        let trouble = OriginTrouble::Status(status.as_u16());
        if status.is_server_error() && self.serve_stale(entry, trouble, "a server error") {
            return Step::Landed;
        }
        if let Some(part) = self.request.part.clone() {
            return self.fill_part(entry, lease, (word, part)).await;
        }
        let of_part = [StatusCode::PARTIAL_CONTENT, StatusCode::RANGE_NOT_SATISFIABLE];
        if let Some(asked) = self.asked.take().filter(|_| of_part.contains(&status)) {
            return self.fill_first(entry, lease, (word, asked)).await;
        }
        let Word { response, times, position } = word;
        let answer = (status, &response.headers, response.length);
        if let Err(reason) = self.storable(answer, times) {
            return self.not_stored(entry, lease, response, &reason.to_string()).await;
        }
        let head = self.head(position, answer, times);
        match self.inner.store.begin(head).await {
            Ok(partial) => self.grow(entry, lease, (partial, response.body)).await,
            Err(error) => {
                tracing::debug!(%error, "no room for an object, passing it through");
                self.not_stored(entry, lease, response, "no room in the store").await
            }
        }
    }

    /// Moves a whole body into its place in the store, and ends it.
    pub(super) async fn grow(
        &mut self,
        entry: &FillEntry,
        lease: Option<Lease>,
        (partial, body): (PartialObject, BodyStream),
    ) -> Step {
        let live = self.shown(entry, lease, partial);
        self.tee(live, body, lease).await
    }

    /// A place in the store for a body that comes from the origin, for all to see.
    pub(super) async fn begun(
        &mut self,
        entry: &FillEntry,
        lease: Option<Lease>,
        head: ObjectHead,
    ) -> Option<Arc<Live>> {
        let partial = self.inner.store.begin(head).await.ok()?;
        Some(self.shown(entry, lease, partial))
    }

    fn shown(
        &mut self,
        entry: &FillEntry,
        lease: Option<Lease>,
        partial: PartialObject,
    ) -> Arc<Live> {
        let live = Live::new(partial, lease.map(|lease| lease.id));
        self.inner.fills.grows(&live);
        self.show(live.clone(), Tier::Origin);
        entry.live(live.clone());
        self.wish_for_copies(&live);
        live
    }

    pub(super) fn storable(
        &self,
        (status, headers, length): (StatusCode, &HeaderMap, Option<u64>),
        times: Times,
    ) -> Result<(), NotStorable> {
        let request = RequestFacts { method: &Method::GET, authorized: self.request.authorized };
        let response = ResponseFacts { status, headers, length, times };
        storable(request, response, &self.request.site)
    }

    pub(super) fn head(
        &self,
        fence_position: u64,
        (status, headers, length): (StatusCode, &HeaderMap, Option<u64>),
        times: Times,
    ) -> ObjectHead {
        ObjectHead {
            key: self.key(),
            site: self.request.site.name().to_owned(),
            status: status.as_u16(),
            headers: self.stored(hop::to_stored(headers)),
            length,
            chunk_size: chunk_size_for(length),
            freshness: freshness(headers, times, &self.request.site.rules.of_status(status)),
            fence_position,
            labels: self.labels(headers),
        }
    }

    /// Moves the body into the growing object, and ends it.
    async fn tee(&mut self, live: Arc<Live>, body: BodyStream, lease: Option<Lease>) -> Step {
        let moved = self.pour(&live, body, 0..u64::MAX).await;
        self.finish_poured(&live, moved, lease).await
    }

    /// Ends an object whose last bytes came to an end at that position, or did not come.
    pub(super) async fn finish_poured(
        &mut self,
        live: &Arc<Live>,
        poured: Result<u64, String>,
        lease: Option<Lease>,
    ) -> Step {
        let announced = live.head().length;
        let length = match poured {
            Ok(length) if announced.is_none_or(|announced| announced == length) => length,
            Ok(_) => return self.broken("the origin sent another length than it announced"),
            Err(reason) => {
                self.inner.metrics.failures.inc();
                tracing::info!(reason, "a fill broke off");
                return self.broken(&reason);
            }
        };
        self.finish_fill(live, length, lease).await
    }

    /// Moves a body, which begins at `part`'s start, into the growing object: readers see every
    /// piece, the store whole chunks. Where it ended, which is not beyond `part`.
    pub(super) async fn pour(
        &self,
        live: &Arc<Live>,
        mut body: BodyStream,
        part: Range<u64>,
    ) -> Result<u64, String> {
        let size = live.head().chunk_size as usize;
        let (live, tail) = (live.clone(), live.open_tail());
        let mut writer = Writer { live, tail, size, position: part.start };
        while let Some(piece) = body.next().await {
            writer.write(piece.map_err(|error| error.to_string())?).await?;
            if writer.position > part.end {
                return Err("the origin sent more than was asked for".to_owned());
            }
        }
        writer.flush().await?;
        Ok(writer.position)
    }

    pub(super) async fn finish_fill(
        &mut self,
        live: &Arc<Live>,
        length: u64,
        lease: Option<Lease>,
    ) -> Step {
        let finished = {
            let entrance = self.inner.entrance(live.head(), 0).await;
            if matches!(entrance, Entrance::Shut) {
                return self.broken("it is older than the purges that this node remembers");
            }
            live.finish(length).await
        };
        match finished {
            Ok(stored) => {
                self.inner.fills.grown(self.key(), live.growth(), stored.object_id());
                // New requests find the object in the store from here on.
                self.flight.land();
                self.publish(lease, stored.manifest()).await;
            }
            Err(error) => tracing::warn!(%error, "a filled object could not be stored"),
        }
        Step::Landed
    }

    pub(super) async fn publish(&self, lease: Option<Lease>, manifest: &shoal_proto::Manifest) {
        for _ in 0..PUBLISH_TRIES {
            match self.inner.directory.publish(lease, manifest).await {
                Ok(true) => return,
                Ok(false) => {
                    tracing::info!("a purge came while the object was filled");
                    if self.inner.directory.verdict(manifest.head()) == Verdict::Stale {
                        return;
                    }
                    if let Err(error) = self.inner.store.remove(&self.key()).await {
                        tracing::warn!(%error, "a purged object could not be removed");
                    }
                    return;
                }
                Err(error) => tracing::warn!(%error, "an object was not published"),
            }
        }
    }

    /// The site's rules for the stored object.
    pub(super) fn rules_of(&self, head: &ObjectHead) -> std::borrow::Cow<'_, Rules> {
        let status = StatusCode::from_u16(head.status).unwrap_or(StatusCode::OK);
        self.request.site.rules.of_status(status)
    }

    /// What purges match a validated object by.
    pub(super) fn labels_after(&self, head: &ObjectHead, validated: &HeaderMap) -> Labels {
        let tagged = (validated, &self.request.site.rules.tags[..]);
        label::validated(&head.labels, &self.inner.secret, &head.site, tagged)
    }

    /// The stored object still stands: it gets the headers and the freshness of the `304`.
    pub(super) async fn not_modified(&mut self, lease: Option<Lease>, word: Word) -> Step {
        let Word { response, times, position } = word;
        let Some(stale) = self.stale.take() else { return Step::Again };
        let manifest = stale.manifest();
        let Some(headers) = conditional::refreshed(&manifest.head().headers, &response.headers)
        else {
            return self.without_stale("the origin validated another version");
        };
        let head = manifest.head();
        let rules = self.rules_of(head);
        let freshness = freshness(&hop::from_stored(&headers), times, &rules);
        let labels = self.labels_after(head, &response.headers);
        let headers = parts::marked(self.stored(headers), parts::total(head));
        let refresh = Refresh { headers, freshness, fence_position: position, labels };
        let refreshed = {
            let manifest = manifest.refreshed(refresh);
            match self.inner.entrance(manifest.head(), 0).await {
                Entrance::Shut => return self.without_stale("purges came meanwhile"),
                Entrance::Open(_held) => self.inner.store.refresh(manifest).await,
            }
        };
        match refreshed {
            Ok(stored) => {
                let tier = stored.tier();
                self.flight.set(Outcome::Stored(stored.clone(), tier, Lookup::Revalidated));
                self.flight.land();
                self.turn = None;
                self.publish(lease, stored.manifest()).await;
                if !stored.is_whole() {
                    // Who publishes is taken to have all of it.
                    self.announce(&stored).await;
                }
                Step::Landed
            }
            Err(error) => self.without_stale(&error.to_string()),
        }
    }

    fn without_stale(&mut self, reason: &str) -> Step {
        tracing::info!(reason, "a stale object is of no use, fetching it anew");
        self.stale = None;
        self.known.stale = None;
        Step::Again
    }

    pub(super) fn origin_failed(&mut self, entry: &FillEntry, error: FetchError) -> Step {
        if self.serve_stale(entry, OriginTrouble::Unreachable, &error.to_string()) {
            return Step::Landed;
        }
        let reason = match error {
            FetchError::Timeout { .. } => Reason::Timeout,
            _ => Reason::Origin,
        };
        entry.ended(reason, error.to_string());
        self.fail(error);
        Step::Landed
    }

    pub(super) fn serve_stale(&self, entry: &FillEntry, trouble: OriginTrouble, why: &str) -> bool {
        let Some(stale) = self.stale.clone() else { return false };
        let facts = &stale.manifest().head().freshness;
        if !may_serve_stale_on_error(facts, trouble, clock::unix_ms()) {
            return false;
        }
        tracing::info!(why, "serving a stale object");
        entry.ended(Reason::Origin, why);
        let tier = stale.tier();
        self.flight.set(Outcome::Stored(stale, tier, Lookup::Stale));
        true
    }

    async fn not_stored(
        &mut self,
        entry: &FillEntry,
        lease: Option<Lease>,
        response: OriginResponse,
        reason: &str,
    ) -> Step {
        tracing::debug!(reason, "a response is passed through");
        entry.ended(Reason::NotStorable, reason);
        self.flight.set(Outcome::Pass);
        self.flight.land();
        if let Some(pass) = self.pass.take() {
            // The client may be gone: its response goes with it.
            let _ = pass.send(response);
        }
        self.inner.directory.release(self.key(), lease, PASS_MS).await;
        Step::Landed
    }

    /// Asks other nodes to follow the fill, so that the loss of this one loses nothing.
    fn wish_for_copies(&self, live: &Arc<Live>) {
        let copy = CopyRequest { lease: live.lease(), ..self.copy_request() };
        if copy.lease.is_some() {
            self.inner.wish_for_copies(copy);
        }
    }
}

impl Job {
    pub(super) fn copy_request(&self) -> CopyRequest {
        let part = self.request.part.as_ref().map(|part| SourcePart {
            number: part.number,
            total: part.total,
            tag: part.tag.clone(),
            modified: part.modified.clone(),
        });
        CopyRequest {
            key: self.key(),
            object: None,
            holder: self.inner.directory.node_id(),
            lease: None,
            source: Source {
                site: self.request.site.name().to_owned(),
                authority: self.request.client_authority.clone(),
                target: self.request.target.clone(),
                part,
            },
        }
    }
}

/// The position from which fences hold against what the origin answers: it is younger than all that
/// was known to the lease's giver, and here, before it was asked.
fn position(lease: Option<Lease>, known: u64) -> u64 {
    lease.map_or(known, |lease| lease.fence_position.max(known))
}

struct Writer {
    live: Arc<Live>,
    tail: Tail,
    size: usize,
    position: u64,
}

impl Writer {
    async fn write(&mut self, mut piece: Bytes) -> Result<(), String> {
        while !piece.is_empty() {
            let chunk = u32::try_from(self.position / self.size as u64)
                .map_err(|_| "longer than an object may be".to_owned())?;
            let room = self.size - (self.position % self.size as u64) as usize;
            let part = piece.split_to(room.min(piece.len()));
            self.position += part.len() as u64;
            if self.position > UNKNOWN_LENGTH_BYTES_MAX.max(self.live.head().length.unwrap_or(0)) {
                return Err("longer than an object may be".to_owned());
            }
            self.tail.push(chunk, &part);
            if part.len() == room {
                self.store(chunk).await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), String> {
        let rest = self.position % self.size as u64;
        if rest == 0 {
            return Ok(());
        }
        self.store((self.position / self.size as u64) as u32).await
    }

    async fn store(&self, chunk: u32) -> Result<(), String> {
        let data = self.tail.bytes(chunk);
        let hash = ChunkHash::of(&data);
        // Known from before, from the filler that was lost.
        if self.live.known_hash(chunk).is_some_and(|known| known != hash) {
            return Err("the origin has another version of the object now".to_owned());
        }
        if self.live.has_chunk(chunk) {
            return Ok(());
        }
        self.live.put_chunk(chunk, data, hash).await.map_err(|error| error.to_string())
    }
}
