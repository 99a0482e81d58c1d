//! What a node has of one object and whom it came from, for people who look at a swarm.
//!
//! Invariant: looking is no use of the object, and what is remembered is bounded.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use shoal_proto::wire::v1;
use shoal_proto::{NodeId, ObjectKey};

use super::availability;
use super::live::Live;
use crate::store::Store;

/// Objects whose sources are remembered, the newest ones.
const REMEMBERED_MAX: usize = 256;
/// Runs of chunks in one answer; more are left out.
const RUNS_MAX: usize = 4_096;

/// How many of an object's chunks came from whom.
#[derive(Debug, Default)]
pub(super) struct Sources(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    by_peer: BTreeMap<NodeId, u32>,
    all: u32,
}

impl Sources {
    /// A chunk came.
    pub(super) fn came(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).all += 1;
    }

    /// One of those came from `peer`; the others are the origin's.
    pub(super) fn given_by(&self, peer: NodeId) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.by_peer.entry(peer).or_default() += 1;
    }

    fn told(&self) -> (Vec<v1::SurveySource>, u32) {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let peers: u32 = counts.by_peer.values().sum();
        let source =
            |(peer, chunks): (&NodeId, &u32)| v1::SurveySource { node_id: peer.0, chunks: *chunks };
        (counts.by_peer.iter().map(source).collect(), counts.all.saturating_sub(peers))
    }
}

/// The sources of what grew here last.
#[derive(Debug, Default)]
pub(super) struct Remembered(Mutex<VecDeque<(ObjectKey, Arc<Sources>)>>);

impl Remembered {
    /// What grows under `key` now comes from `sources`.
    pub(super) fn remember(&self, key: ObjectKey, sources: Arc<Sources>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| known.0 != key);
        if all.len() >= REMEMBERED_MAX {
            all.pop_front();
        }
        all.push_back((key, sources));
    }

    fn of(&self, key: &ObjectKey) -> Option<Arc<Sources>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|known| known.0 == *key).map(|known| known.1.clone())
    }
}

/// The answer about `key`: what grows, else what is stored.
pub(super) fn answer(
    store: &Store,
    growing: Option<Arc<Live>>,
    remembered: &Remembered,
    key: &ObjectKey,
) -> v1::SurveyReply {
    let (from, from_origin) = remembered.of(key).map(|of| of.told()).unwrap_or_default();
    let growing = growing.filter(|live| live.end().is_none());
    let mut reply = v1::SurveyReply { from, from_origin, ..v1::SurveyReply::default() };
    if let Some(live) = growing {
        reply.growing = true;
        reply.chunk_count = live.chunk_count().unwrap_or(0);
        reply.has = availability::ranges(live.arrivals_after(0));
    } else if let Some((chunks, runs)) = store.runs(key) {
        let range =
            |run: Range<u32>| v1::ChunkRange { first: run.start, count: run.end - run.start };
        reply.chunk_count = chunks;
        reply.has = runs.into_iter().map(range).collect();
    } else {
        // It came and went.
        (reply.from, reply.from_origin) = Default::default();
    }
    reply.has.truncate(RUNS_MAX);
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_peer_gave_came_from_the_origin() {
        let sources = Sources::default();
        for chunk in 0..5 {
            sources.came();
            if chunk % 2 == 0 {
                sources.given_by(NodeId(7));
            }
        }
        let (peers, origin) = sources.told();
        assert_eq!((peers[0].node_id, peers[0].chunks, origin), (7, 3, 2));
    }

    #[test]
    fn the_newest_objects_are_remembered() {
        let remembered = Remembered::default();
        let key = |number: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            ObjectKey::new(bytes)
        };
        for number in 0..=REMEMBERED_MAX {
            remembered.remember(key(number), Arc::default());
        }
        assert!(remembered.of(&key(0)).is_none() && remembered.of(&key(1)).is_some());
    }
}
