//! One flight's work: asks the tier who has or fetches the key, and does what it says, again and
//! again until there is an object, a reason to pass, or none left to try.
//!
//! What was received of an object survives a source that is lost: the next source goes on from
//! there, if it has the same version; if not, the object fails, and versions are never mixed.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_proto::wire::v1::follow_failed::Reason;
use shoal_proto::{NodeId, ObjectKey};
use tokio::sync::oneshot;

use super::Inner;
use super::flight::{Flight, Outcome, Turn};
use super::tierless::Word;
use super::types::{FetchError, FetchRequest, Lookup, OriginResponse};
use crate::directory::{Acquired, Known, Verdict};
use crate::metrics::Tier;
use crate::store::StoredObject;
use crate::transfer::{CopyRequest, FillEntry, Live};

/// Sources tried before a flight gives up.
const ATTEMPTS_MAX: u32 = 12;
/// Pause before the second attempt; doubled for each further one.
const PAUSE_MS: u64 = 20;
/// Longest pause between two attempts.
const PAUSE_MS_MAX: u64 = 1_000;

/// What one source came to.
pub(super) enum Step {
    /// The flight has its outcome, and nothing is left to do.
    Landed,
    /// Another source is to be asked.
    Again,
}

/// A flight and what it knows.
pub(super) struct Job {
    pub(super) inner: Arc<Inner>,
    pub(super) request: FetchRequest,
    pub(super) flight: Flight,
    /// A stored object that may be validated, or served when the origin fails.
    pub(super) stale: Option<Arc<StoredObject>>,
    /// The client that started the flight, for a response that may not be stored.
    pub(super) pass: Option<oneshot::Sender<OriginResponse>>,
    /// Take a copy from there, before anybody is asked.
    pub(super) copy: Option<CopyRequest>,
    pub(super) live: Option<Arc<Live>>,
    pub(super) known: Known,
    /// No super-node answers: nothing is served without the origin's word.
    pub(super) tierless: bool,
    /// The origin's word, where it was asked for before it was clear who fills.
    /// Locked by nobody: a body that streams cannot be shared, and this makes the job shareable.
    word: Mutex<Option<Word>>,
    /// The key's turn, from before the origin is asked until others can see what came of it.
    pub(super) turn: Option<Turn>,
    /// The part that the origin was asked for, while nothing is known of the whole.
    pub(super) asked: Option<Range<u64>>,
    /// Where the index last vouched for what its holders have.
    pub(super) vouched: u64,
}

impl Job {
    pub(super) fn new(inner: Arc<Inner>, request: FetchRequest, flight: Flight) -> Self {
        Self {
            inner,
            request,
            flight,
            stale: None,
            pass: None,
            copy: None,
            live: None,
            known: Known::default(),
            tierless: false,
            word: Mutex::default(),
            turn: None,
            asked: None,
            vouched: 0,
        }
    }

    pub(super) fn word(&mut self) -> &mut Option<Word> {
        self.word.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn key(&self) -> ObjectKey {
        self.request.key
    }

    /// Flies until there is an outcome.
    pub(super) async fn run(mut self) {
        let entry = self.inner.fills.expect(self.key());
        if self.arrived_meanwhile().await {
            return;
        }
        for attempt in 0..ATTEMPTS_MAX {
            if attempt > 0 {
                let pause = (PAUSE_MS << (attempt - 1).min(10)).min(PAUSE_MS_MAX);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            if self.inner.tasks.is_stopped() {
                self.fail(FetchError::Closed);
                return;
            }
            if let Step::Landed = self.attempt(&entry).await {
                return;
            }
        }
        // Nobody in the cluster could help: this node's own request is the last resort.
        if let Step::Again = self.fill(&entry, None).await {
            self.fail(FetchError::Unreachable {
                origin: self.request.site.origin(),
                reason: "no source could be found".to_owned(),
            });
        }
    }

    async fn attempt(&mut self, entry: &FillEntry) -> Step {
        if let Some(copy) = self.copy.take() {
            // A copy serves nobody yet: whoever comes for the object has to look for himself.
            self.flight.decided();
            return self.take_copy(entry, copy).await;
        }
        if self.inner.directory.is_tierless().await {
            return self.attempt_tierless(entry).await;
        }
        self.tierless = false;
        let site = self.request.site.name().to_owned();
        let answer = self.inner.directory.acquire(self.key(), &site, &self.known).await;
        self.flight.decided();
        // The word of a super-node that may be cut off itself counts under a session lease alone.
        let trusted = self.inner.directory.session_holds() || self.live.is_some();
        match answer {
            Ok(Acquired::Fill(lease)) => self.fill(entry, Some(lease)).await,
            Ok(_) if !trusted => self.attempt_tierless(entry).await,
            Ok(Acquired::Have { head, holders, fence_position }) => {
                self.vouched = fence_position;
                entry.ended(Reason::Gone, "this node pulls the object from its holders");
                self.pull_from(head, holders).await
            }
            Ok(Acquired::Follow { lease, filler }) => {
                entry.ended(Reason::Gone, "this node follows another's fill");
                self.follow(&filler, lease).await
            }
            Ok(Acquired::Pass) => {
                entry.ended(Reason::NotStorable, "responses for this key are not stored");
                self.flight.set(Outcome::Pass);
                Step::Landed
            }
            Err(error) => {
                tracing::debug!(%error, "no super-node answers");
                self.attempt_tierless(entry).await
            }
        }
    }

    /// A request that found nothing may start a flight just after another's has landed.
    async fn arrived_meanwhile(&mut self) -> bool {
        let Some(found) = self.inner.store.get(&self.key()).await else { return false };
        if self.request.avoid == Some(found.manifest_id()) {
            self.known.stale = self.request.avoid;
            return false;
        }
        if self.inner.may_serve(&found) {
            let tier = found.tier();
            self.flight.set(Outcome::Stored(found, tier, Lookup::Hit));
            return true;
        }
        let head = found.manifest().head();
        // What another request selected says nothing of what this one would.
        if self.inner.directory.verdict(head) != Verdict::Gone && self.asks_for(head) {
            self.known.stale = Some(found.manifest().id());
            self.stale = Some(found);
        }
        false
    }

    /// Ends the flight without a response; what clients already read breaks off.
    pub(super) fn fail(&self, error: FetchError) {
        self.flight.land();
        match &self.live {
            Some(live) => live.fail(error.to_string()),
            None => self.flight.set(Outcome::Failed(error)),
        }
    }

    /// What was received so far cannot be continued: its readers are cut off, and the flight ends.
    pub(super) fn broken(&self, reason: &str) -> Step {
        self.flight.land();
        if let Some(live) = &self.live {
            live.fail(reason);
        }
        Step::Landed
    }

    /// Clients may read the growing object from now on.
    pub(super) fn show(&mut self, live: Arc<Live>, tier: Tier) {
        let lookup = if self.stale.is_some() { Lookup::Replaced } else { Lookup::Miss };
        self.live = Some(live.clone());
        self.flight.grows(&live, tier);
        self.flight.set(Outcome::Live(live, tier, lookup));
        self.turn = None;
    }

    /// Tells the tier what this node holds of the object.
    pub(super) async fn announce(&self, stored: &StoredObject) {
        self.inner.announce(self.key(), stored.object_id()).await;
    }

    pub(super) fn next_source_without(&mut self, holder: NodeId) {
        if !self.known.failed.contains(&holder) {
            self.known.failed.push(holder);
        }
    }
}
