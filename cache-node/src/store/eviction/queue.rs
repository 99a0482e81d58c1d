//! Entries in a slab, chained into first-in-first-out queues: any entry leaves in constant time
//! and leaves no tombstone behind. PURE.
//!
//! Uses are counted apart from the entries, so that whoever only uses one need not have the slab to
//! itself.
//!
//! Invariant: an index handed out by [`Slab::insert`] is good until [`Slab::remove`]; a [`Queue`]
//! holds indices of its own slab only, each at most once.

use std::sync::atomic::{AtomicU8, Ordering};

/// No entry.
const NONE: u32 = u32::MAX;

/// One entry and its neighbours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<K> {
    pub(super) key: K,
    pub(super) bytes: u64,
    pub(super) in_main: bool,
    older: u32,
    newer: u32,
}

/// All entries of all queues; slots of entries that left are used again.
#[derive(Debug)]
pub(super) struct Slab<K> {
    nodes: Vec<Node<K>>,
    /// Uses since an entry came or had its last turn, up to a small maximum.
    uses: Vec<AtomicU8>,
    free: Vec<u32>,
}

impl<K: Copy> Slab<K> {
    pub(super) fn new() -> Self {
        Self { nodes: Vec::new(), uses: Vec::new(), free: Vec::new() }
    }

    pub(super) fn expect(&mut self, entries: usize) {
        let more = entries.saturating_sub(self.free.len());
        self.nodes.reserve_exact(more);
        self.uses.reserve_exact(more);
    }

    /// A slot for an unchained entry; `None` when four thousand million are taken.
    pub(super) fn insert(&mut self, key: K, bytes: u64, in_main: bool) -> Option<u32> {
        let node = Node { key, bytes, in_main, older: NONE, newer: NONE };
        if let Some(index) = self.free.pop() {
            self.nodes[index as usize] = node;
            self.set_uses(index, 0);
            return Some(index);
        }
        let index = u32::try_from(self.nodes.len()).ok().filter(|index| *index != NONE)?;
        self.nodes.push(node);
        self.uses.push(AtomicU8::new(0));
        Some(index)
    }

    /// Gives an unchained entry's slot back.
    pub(super) fn remove(&mut self, index: u32) {
        self.free.push(index);
    }

    pub(super) fn get(&self, index: u32) -> &Node<K> {
        &self.nodes[index as usize]
    }

    pub(super) fn get_mut(&mut self, index: u32) -> &mut Node<K> {
        &mut self.nodes[index as usize]
    }

    pub(super) fn uses(&self, index: u32) -> u8 {
        self.uses[index as usize].load(Ordering::Relaxed)
    }

    pub(super) fn set_uses(&mut self, index: u32, uses: u8) {
        *self.uses[index as usize].get_mut() = uses;
    }

    /// One use more, up to `most`. Of several at once some may count as one.
    pub(super) fn count_use(&self, index: u32, most: u8) {
        let uses = &self.uses[index as usize];
        let before = uses.load(Ordering::Relaxed);
        if before < most {
            uses.store(before + 1, Ordering::Relaxed);
        }
    }
}

/// A chain of entries from oldest to newest.
#[derive(Debug)]
pub(super) struct Queue {
    oldest: u32,
    newest: u32,
    len: usize,
    bytes: u64,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { oldest: NONE, newest: NONE, len: 0, bytes: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// Its entries, oldest first.
    pub(super) fn iter<'a, K: Copy>(
        &self,
        slab: &'a Slab<K>,
    ) -> impl Iterator<Item = &'a Node<K>> + use<'a, K> {
        let mut at = self.oldest;
        std::iter::from_fn(move || {
            if at == NONE {
                return None;
            }
            let node = slab.get(at);
            at = node.newer;
            Some(node)
        })
    }

    /// Chains an unchained entry as the newest.
    pub(super) fn push<K: Copy>(&mut self, slab: &mut Slab<K>, index: u32) {
        let node = slab.get_mut(index);
        node.older = self.newest;
        node.newer = NONE;
        self.bytes += node.bytes;
        self.len += 1;
        match self.newest {
            NONE => self.oldest = index,
            newest => slab.get_mut(newest).newer = index,
        }
        self.newest = index;
    }

    /// Chains an unchained entry as the oldest.
    pub(super) fn push_oldest<K: Copy>(&mut self, slab: &mut Slab<K>, index: u32) {
        let node = slab.get_mut(index);
        node.older = NONE;
        node.newer = self.oldest;
        self.bytes += node.bytes;
        self.len += 1;
        match self.oldest {
            NONE => self.newest = index,
            oldest => slab.get_mut(oldest).older = index,
        }
        self.oldest = index;
    }

    /// Takes an entry of this queue out of the chain; its slot stays.
    pub(super) fn unlink<K: Copy>(&mut self, slab: &mut Slab<K>, index: u32) {
        let Node { older, newer, bytes, .. } = *slab.get(index);
        match older {
            NONE => self.oldest = newer,
            older => slab.get_mut(older).newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => slab.get_mut(newer).older = older,
        }
        self.bytes -= bytes;
        self.len -= 1;
    }

    /// Gives an entry of this queue another size, in its place.
    pub(super) fn resize<K: Copy>(&mut self, slab: &mut Slab<K>, index: u32, bytes: u64) {
        let node = slab.get_mut(index);
        self.bytes = self.bytes - node.bytes + bytes;
        node.bytes = bytes;
    }

    /// Makes an entry of this queue its newest.
    pub(super) fn rotate<K: Copy>(&mut self, slab: &mut Slab<K>, index: u32) {
        self.unlink(slab, index);
        self.push(slab, index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(slab: &Slab<u8>, queue: &Queue) -> Vec<u8> {
        let mut keys = Vec::new();
        let mut at = queue.oldest;
        while at != NONE {
            keys.push(slab.get(at).key);
            at = slab.get(at).newer;
        }
        keys
    }

    #[test]
    fn entries_leave_from_both_ends_and_the_middle() {
        let (mut slab, mut queue) = (Slab::new(), Queue::new());
        let at: Vec<u32> = (0..5).map(|key| slab.insert(key, 10, false).unwrap()).collect();
        at.iter().for_each(|index| queue.push(&mut slab, *index));
        for index in [0, 2, 4] {
            queue.unlink(&mut slab, at[index]);
            slab.remove(at[index]);
        }
        assert_eq!(keys(&slab, &queue), [1, 3]);
        queue.rotate(&mut slab, at[1]);
        assert_eq!(keys(&slab, &queue), [3, 1]);
        queue.resize(&mut slab, at[1], 1);
        assert_eq!((queue.len(), queue.bytes()), (2, 11));
        let reused = slab.insert(9, 5, false).unwrap();
        assert_eq!(reused, at[4], "the last slot given back");
        queue.push_oldest(&mut slab, reused);
        assert_eq!((keys(&slab, &queue), queue.bytes()), (vec![9, 3, 1], 16));
        let mut other = Queue::new();
        let alone = slab.insert(8, 5, false).unwrap();
        other.push_oldest(&mut slab, alone);
        assert_eq!((other.oldest(), keys(&slab, &other)), (Some(alone), vec![8]));
    }
}
