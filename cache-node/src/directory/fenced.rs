//! What purges leave of what this node has, as far as it knows every fence.

use std::sync::PoisonError;

use shoal_proto::{ObjectHead, ObjectKey};

use super::{Directory, Pass, Verdict};
use crate::fences::table::FenceTable;

impl Directory {
    fn fences<T>(&self, read: impl FnOnce(&FenceTable) -> T) -> T {
        read(&self.shared.fences.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn fences_mut<T>(&self, change: impl FnOnce(&mut FenceTable) -> T) -> T {
        change(&mut self.shared.fences.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// What purges leave of a stored object.
    pub fn verdict(&self, head: &ObjectHead) -> Verdict {
        self.fences(|fences| fences.verdict(&head.into()))
    }

    /// Whether a hard purge covers the object.
    pub fn fenced(&self, head: &ObjectHead) -> bool {
        self.verdict(head) == Verdict::Gone
    }

    /// The position of the newest purge that covers the object; `None` when none does.
    pub fn covering(&self, head: &ObjectHead) -> Option<u64> {
        self.fences(|fences| fences.covering(&head.into()))
    }

    /// Whether an object may come into the store, which the index vouched for at position `vouched`,
    /// or did not: 0.
    pub fn admits(&self, head: &ObjectHead, vouched: u64) -> bool {
        self.fences(|fences| fences.admits(&head.into(), vouched))
    }

    /// Keys that were purged after `position`.
    pub fn keys_purged_after(&self, position: u64) -> Vec<ObjectKey> {
        self.fences(|fences| fences.keys_after(position))
    }

    /// Whether fences that came after `position`, or their number, make a pass worth its while.
    pub fn wants_pass(&self, position: u64) -> bool {
        self.fences(|fences| fences.wants_pass(position))
    }

    /// Begins to hold the fences against everything stored; `None` when there are none. Nothing may
    /// be between [`Directory::admits`] and the store meanwhile.
    pub fn begin_pass(&self) -> Option<Pass> {
        self.fences_mut(FenceTable::begin_pass)
    }

    /// An object comes into the store although a fence covers it: up to where a later process may
    /// take all fences for carried out.
    pub fn let_in(&self, head: &ObjectHead) -> u64 {
        self.fences_mut(|fences| fences.let_in(&head.into()))
    }

    /// Whether a pass removes the stored object.
    pub fn doomed(&self, head: &ObjectHead) -> bool {
        self.fences(|fences| fences.doomed(&head.into()))
    }

    /// Ends a pass over everything stored. Returns what to begin with after a restart, once all that
    /// the pass removed is gone for good.
    pub fn end_pass(&self, pass: Pass) -> u64 {
        self.fences_mut(|fences| fences.end_pass(pass))
    }
}
