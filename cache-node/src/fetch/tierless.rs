//! The read path while no super-node answers: nothing counts as fresh, so that no purge is missed
//! that was agreed on out of this node's sight (ADR 15).
//!
//! Invariants: every answer rests on a word of the origin that was asked for after the request had
//! come: the flight takes no one in once it asks. Bytes come from this node's store, from what grows
//! here, from peers and from running fills, in this order; the origin only says that they still
//! stand. Requests for one key take turns, so that those who wait share the next word.

use shoal_proto::wire::v1::follow_failed::Reason;
use shoal_proto::{Manifest, ObjectHead, Refresh};

use super::flight::Outcome;
use super::job::{Job, Step};
use super::types::{FetchError, Lookup, OriginResponse};
use crate::clock;
use crate::directory::Acquired;
use crate::policy::freshness::{Times, freshness};
use crate::policy::serve::{OriginTrouble, may_serve_stale_on_error};
use crate::policy::{conditional, hop, parts, resume};
use crate::transfer::FillEntry;

/// What the origin said, and when.
pub(super) struct Word {
    pub(super) response: OriginResponse,
    pub(super) times: Times,
    /// Every fence up to here was known before the origin was asked.
    pub(super) position: u64,
}

/// What the origin's word means for an object.
pub(super) enum Verdict {
    /// It still stands.
    Current(Word),
    /// It does not; the word may hold another version.
    Changed(Word),
    /// The origin cannot be asked.
    Silent(FetchError),
}

impl Job {
    /// One attempt without the tier.
    pub(super) async fn attempt_tierless(&mut self, entry: &FillEntry) -> Step {
        self.tierless = true;
        if self.live.is_none() && self.word().is_none() {
            if self.turn.is_none() {
                self.turn = Some(self.inner.flights.turn(self.key()).await);
            }
            if let Some(step) = self.own_copy(entry).await {
                return step;
            }
        }
        let site = self.request.site.name().to_owned();
        let asked = self.inner.directory.acquire_tierless(self.key(), &site, &self.known);
        match asked.await {
            Ok(Acquired::Have { head, holders, .. }) => {
                entry.ended(Reason::Gone, "this node pulls the object from its holders");
                self.pull_from(head, holders).await
            }
            Ok(Acquired::Follow { lease, filler }) => {
                entry.ended(Reason::Gone, "this node follows another's fill");
                self.follow(&filler, lease).await
            }
            Ok(Acquired::Fill(lease)) => self.fill(entry, Some(lease)).await,
            Ok(Acquired::Pass) => {
                entry.ended(Reason::NotStorable, "responses for this key are not stored");
                self.pass_on()
            }
            Err(error) => {
                tracing::debug!(%error, "no home node answers, this node fills alone");
                self.fill(entry, None).await
            }
        }
    }

    /// What grows or is stored here, if the origin says that it still stands.
    async fn own_copy(&mut self, entry: &FillEntry) -> Option<Step> {
        if let Some((live, tier)) = self.inner.flights.growing(&self.key()) {
            if self.inner.directory.fenced(live.head()) {
                return Some(self.pass_on());
            }
            return Some(match self.check(live.head()).await {
                Ok(stands) => {
                    let lookup = if stands.is_some() { Lookup::Collapsed } else { Lookup::Stale };
                    self.flight.set(Outcome::Live(live, tier, lookup));
                    Step::Landed
                }
                Err(step) => step,
            });
        }
        let stored = self.inner.store.get(&self.key()).await?;
        if self.request.avoid == Some(stored.manifest_id()) {
            return None;
        }
        let head = stored.manifest().head();
        if self.inner.directory.fenced(head) || !self.asks_for(head) {
            self.stale = None;
            return None;
        }
        let head = parts::whole(stored.manifest().head());
        self.known.stale = Some(stored.manifest_id());
        self.stale = Some(stored);
        match self.ask_about(&head).await {
            Verdict::Current(word) => Some(self.not_modified(None, word).await),
            Verdict::Changed(word) => {
                let status = word.response.status;
                let trouble = OriginTrouble::Status(status.as_u16());
                if status.is_server_error() && self.serve_stale(entry, trouble, "a server error") {
                    return Some(Step::Landed);
                }
                *self.word() = Some(word);
                None
            }
            Verdict::Silent(error) => Some(self.origin_failed(entry, error)),
        }
    }

    /// Asks the origin; the flight takes in nobody from here on.
    pub(super) async fn ask_word(&mut self, extra: http::HeaderMap) -> Result<Word, FetchError> {
        if self.tierless {
            self.flight.land();
        }
        let position = self.inner.directory.fence_position();
        let request_ms = clock::unix_ms();
        let response = self.ask(extra).await?;
        let times = Times { request_ms, response_ms: clock::unix_ms() };
        Ok(Word { response, times, position })
    }

    /// Whether an object still stands, by the word at hand or by a new one.
    async fn ask_about(&mut self, head: &ObjectHead) -> Verdict {
        let word = match self.word().take() {
            Some(word) => word,
            None => match self.ask_word(conditional::validators(head)).await {
                Ok(word) => word,
                Err(error) => return Verdict::Silent(error),
            },
        };
        let OriginResponse { status, headers, length, .. } = &word.response;
        let same = *status == http::StatusCode::NOT_MODIFIED
            || resume::same_version(head, (*status, headers, *length));
        if same { Verdict::Current(word) } else { Verdict::Changed(word) }
    }

    /// Lets an object of a peer's, or one that grows, be served: with the origin's word, or, where
    /// the origin cannot be asked and the policy allows it, without one. Otherwise the step that
    /// ends this attempt.
    pub(super) async fn check(&mut self, head: &ObjectHead) -> Result<Option<Word>, Step> {
        match self.ask_about(head).await {
            Verdict::Current(word) => Ok(Some(word)),
            Verdict::Changed(word) => {
                let trouble = OriginTrouble::Status(word.response.status.as_u16());
                if may_serve_stale_on_error(&head.freshness, trouble, clock::unix_ms()) {
                    return Ok(None);
                }
                *self.word() = Some(word);
                Err(self.pass_on())
            }
            Verdict::Silent(error) => {
                let trouble = OriginTrouble::Unreachable;
                if may_serve_stale_on_error(&head.freshness, trouble, clock::unix_ms()) {
                    return Ok(None);
                }
                self.fail(error);
                Err(Step::Landed)
            }
        }
    }

    /// A holder's manifest, renewed by the origin's word; without one, when it may be served all
    /// the same. `None` when the holders have another version than the origin.
    pub(super) async fn checked(&mut self, manifest: Manifest) -> Result<Option<Manifest>, Step> {
        let head = parts::whole(manifest.head());
        if !self.asks_for(&head) {
            return Ok(None);
        }
        let word = match self.ask_about(&head).await {
            Verdict::Current(word) => word,
            Verdict::Changed(word) => {
                *self.word() = Some(word);
                return Ok(None);
            }
            Verdict::Silent(error) => {
                let trouble = OriginTrouble::Unreachable;
                if may_serve_stale_on_error(&head.freshness, trouble, clock::unix_ms()) {
                    return Ok(Some(manifest));
                }
                self.fail(error);
                return Err(Step::Landed);
            }
        };
        let headers = match word.response.status {
            http::StatusCode::NOT_MODIFIED => {
                conditional::refreshed(&head.headers, &word.response.headers)
            }
            _ => Some(hop::to_stored(&word.response.headers)),
        };
        let Some(headers) = headers else { return Ok(None) };
        let freshness = freshness(&hop::from_stored(&headers), word.times, &self.rules_of(&head));
        let labels = self.labels_after(&head, &word.response.headers);
        let headers = parts::marked(self.stored(headers), parts::total(manifest.head()));
        let refresh = Refresh { headers, freshness, fence_position: word.position, labels };
        Ok(Some(manifest.refreshed(refresh)))
    }

    /// Everybody asks the origin for himself; the word at hand goes to the first client.
    pub(super) fn pass_on(&mut self) -> Step {
        self.flight.set(Outcome::Pass);
        self.flight.land();
        if let (Some(pass), Some(word)) = (self.pass.take(), self.word().take()) {
            // The client may be gone: its response goes with it. A `304` is no answer to it.
            if word.response.status != http::StatusCode::NOT_MODIFIED {
                let _ = pass.send(word.response);
            }
        }
        self.turn = None;
        Step::Landed
    }
}
