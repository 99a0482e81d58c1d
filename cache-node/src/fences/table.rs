//! PURE. The fences that a node knows, and what they leave of an object.
//!
//! Two questions, with two answers. *What is left of a stored object?* The fences that are kept say
//! so: those that were forgotten have been held against everything stored, and what they covered is
//! gone. *May this object come in?* Then also its position must not be below the floor, under which
//! fences were forgotten, unless the index has just vouched for it.
//!
//! Invariants: forgetting never makes an object current again; the table is bounded. Where fences
//! came faster than they could be held against the store, or the tier no longer keeps some that this
//! node has missed, everything older counts as gone until the next [`Pass`] has removed it.

use shoal_proto::ObjectKey;
use shoal_proto::limits::FENCES_MAX;
use shoal_proto::wire::v1;

use super::{Fenced, Fences, Matcher, Subject, Verdict};

/// Fences kept although they were held against the store: fills that began before them are still on
/// their way.
const KEPT_MAX: usize = FENCES_MAX / 2;
/// Most fences kept, however fast they come.
const TABLE_MAX: usize = 4 * FENCES_MAX;

/// What purges have matched.
#[derive(Debug)]
pub(crate) struct FenceTable {
    kept: Fences,
    kept_max: usize,
    /// Objects from before it may not come in.
    floor: u64,
    /// Stored objects from before it are gone, whatever they are.
    blanket: u64,
    position: u64,
    /// The lowest position of what came in although a fence covers it, and no pass has seen yet.
    let_in: Option<u64>,
}

/// A look at everything stored, for what the fences up to a position cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// The position.
    pub upto: u64,
    blanket: u64,
}

impl FenceTable {
    /// Nothing known, but that everything stored was held against all fences up to `position`.
    pub(crate) fn after_pass(position: u64) -> Self {
        let kept = Fences::default();
        Self { kept, kept_max: KEPT_MAX, floor: position, blanket: 0, position, let_in: None }
    }

    /// Takes in a fence; one that cannot be read fences everything before it.
    pub(crate) fn add(&mut self, fence: &v1::Fence) {
        let position = fence.position;
        match fence.matcher.as_ref().map(Fenced::try_from) {
            Some(Ok(fenced)) => self.kept.add(position, fenced),
            Some(Err(_)) | None => raise(&mut self.blanket, position),
        }
        self.advance(position);
        if self.kept.len() > TABLE_MAX {
            self.fold();
        }
    }

    /// Every fence up to `position` is known.
    pub(crate) fn advance(&mut self, position: u64) {
        raise(&mut self.position, position);
    }

    /// The position up to which every fence is known.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// What the fences leave of a stored object.
    pub(crate) fn verdict(&self, subject: &Subject<'_>) -> Verdict {
        if subject.fence_position < self.blanket {
            return Verdict::Gone;
        }
        self.kept.verdict(subject)
    }

    /// The position of the newest fence that covers an object: what began to be filled from there on
    /// may be of use. `None` when the object is clear.
    pub(crate) fn covering(&self, subject: &Subject<'_>) -> Option<u64> {
        let blanket = Some(self.blanket).filter(|blanket| subject.fence_position < *blanket);
        blanket.max(self.kept.covering(subject))
    }

    /// Whether an object may come into the store. The index vouched for it at `vouched`, after it
    /// had held all fences up to there against it; 0 when it did not.
    pub(crate) fn admits(&self, subject: &Subject<'_>, vouched: u64) -> bool {
        let known = subject.fence_position.max(vouched);
        known >= self.floor && self.verdict(subject) != Verdict::Gone
    }

    /// An object comes in although a fence covers it. Up to where, from now on until a pass that begins
    /// later has ended, a process may start at most: further on it would not know that fence.
    pub(crate) fn let_in(&mut self, subject: &Subject<'_>) -> u64 {
        let lowest = subject.fence_position.min(self.let_in.unwrap_or(u64::MAX));
        self.let_in = Some(lowest);
        lowest
    }

    /// Begins a pass: `None` when there is nothing to hold against the store. Whatever came into the
    /// store before must be found there by now, and what comes in later is asked about afterwards.
    pub(crate) fn begin_pass(&mut self) -> Option<Pass> {
        if self.kept.is_empty() && self.blanket == 0 {
            return None;
        }
        self.let_in = None;
        let surplus = self.kept.len().saturating_sub(self.kept_max);
        if let Some((forgotten, _)) = surplus.checked_sub(1).and_then(|n| self.kept.after(0).nth(n))
        {
            raise(&mut self.floor, *forgotten);
        }
        raise(&mut self.floor, self.blanket);
        Some(Pass { upto: self.position, blanket: self.blanket })
    }

    /// What a pass removes: soft fences age into hard ones when they are forgotten.
    pub(crate) fn doomed(&self, subject: &Subject<'_>) -> bool {
        match self.verdict(subject) {
            Verdict::Gone => true,
            Verdict::Stale => subject.fence_position < self.floor,
            Verdict::Clear => false,
        }
    }

    /// Ends a pass that looked at everything: what lies below the floor can be forgotten. Says up to
    /// where nothing stored is covered any more: a process that starts from there misses nothing.
    pub(crate) fn end_pass(&mut self, pass: Pass) -> u64 {
        if self.blanket <= pass.blanket {
            self.blanket = 0;
        }
        let floor = self.floor.min(pass.upto);
        self.kept.forget_upto(floor);
        // What a soft fence covers is still there.
        let soft = self.kept.after(0).find(|(_, fenced)| fenced.soft);
        let clear =
            soft.map_or(pass.upto, |(position, _)| pass.upto.min(position.saturating_sub(1)));
        clear.min(self.let_in.unwrap_or(u64::MAX))
    }

    /// Keys under hard fences that came after `position`.
    pub(crate) fn keys_after(&self, position: u64) -> Vec<ObjectKey> {
        let key = |fenced: &Fenced| match fenced {
            Fenced { matcher: Matcher::Key(key), soft: false } => Some(*key),
            _ => None,
        };
        self.kept.after(position).filter_map(|(_, fenced)| key(fenced)).collect()
    }

    /// Whether a pass is worth its while: fences that no key names came after `position`, more are
    /// kept than need be, or everything old counts as gone.
    pub(crate) fn wants_pass(&self, position: u64) -> bool {
        let wide = |fenced: &Fenced| !fenced.soft && !matches!(fenced.matcher, Matcher::Key(_));
        self.blanket > 0
            || self.let_in.is_some()
            || self.kept.len() > self.kept_max
            || self.kept.after(position).any(|(_, fenced)| wide(fenced))
    }

    /// Fences come faster than passes end: everything before the newer half is gone.
    fn fold(&mut self) {
        let middle =
            self.kept.after(0).nth(self.kept.len() / 2).map_or(0, |(position, _)| *position);
        raise(&mut self.blanket, middle);
        raise(&mut self.floor, middle);
        self.kept.forget_upto(self.blanket);
    }
}

fn raise(value: &mut u64, to: u64) {
    *value = (*value).max(to);
}

#[cfg(test)]
mod tests;
