//! PURE. One object's pull from a swarm: holders that have all of it, a filler that gets it in
//! order, and mates that pull it at the same time and have parts of it.
//!
//! `on(now, event) -> actions`: no clock, no socket, no task.
//!
//! | file | purpose |
//! |---|---|
//! | `mod` | what happens, and what follows from it |
//! | `choose` | which chunk is asked of whom next |
//! | `peers` | what is known of a peer: chunks, rate, slots |
//! | `chunks` | sets of chunks |
//!
//! A chunk enters a circle (this node and the mates near it) once: chunks are dealt out to the
//! members of the circle in rounds, whoever has it dealt fetches it from outside, and the others
//! take it from one another, rarest first, a few at a time. Whoever should have come and did not is
//! stood in for, one after the other, as time passes. So a filler uploads each chunk once however
//! many follow it, and a zone takes each byte in once.
//!
//! Invariants: a chunk is asked of one peer at a time, of two when the first is slow; what is in
//! flight is bounded; a peer that sent one bad chunk is asked nothing more; every chunk ends up
//! here, or the session ends in [`Action::Stuck`] when nothing has come for [`STUCK_AFTER_MS`].

mod choose;
mod chunks;
#[cfg(test)]
mod lines;
mod peers;
#[cfg(test)]
mod simulator;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use shoal_proto::NodeId;

use self::chunks::Chunks;
use self::peers::Peer;

/// With no chunk for so long the session gives up, and its caller turns to the origin.
pub const STUCK_AFTER_MS: u64 = 10_000;
/// Between two ticks that a session needs, in milliseconds.
pub const TICK_MS: u64 = 50;
/// A request may be asked elsewhere too when it has taken so long, as long as so many chunks take,
/// and so many times what its peer's rate says.
const SLOW_MS_MIN: u64 = 750;
const SLOW_CHUNKS: u64 = 60;
const SLOW_TIMES: u64 = 3;
/// Between two chunks: as if so long before it is known, and at most, in a pause.
const GAP_FIRST_US: u64 = 50_000;
const GAP_MS_MAX: u64 = 500;
/// Failed requests in a row after which a peer is asked nothing more.
const STRIKES_MAX: u32 = 3;

/// What there is to know of a peer before anything was asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its id.
    pub id: NodeId,
    /// Its zone's number; all alike where zones are not told.
    pub zone: u32,
    /// Pulls at the same time; else it has all of the object, or gets it from the origin.
    pub mate: bool,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// In order: what it did not bring its peer has not.
    Served,
    /// The peer has no free slot now.
    Busy,
    /// The peer was lost, or failed.
    Failed,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer can be asked from now on.
    Met(Facts),
    /// A node pulls too, whether or not it can be asked: it has its share of what its zone takes in.
    Pulls {
        /// The node.
        id: NodeId,
        /// Its zone.
        zone: u32,
    },
    /// A node is gone, or pulls no more.
    Lost(NodeId),
    /// A peer has these chunks now.
    Has {
        /// The peer.
        peer: NodeId,
        /// First chunk.
        first: u32,
        /// How many.
        count: u32,
    },
    /// The hashes of so many chunks, from the first on, are known: they can be verified.
    Known {
        /// How many.
        count: u32,
        /// There are no more.
        all: bool,
    },
    /// A chunk arrived and matched its hash.
    Good {
        /// The request that it came by.
        request: u64,
        /// The chunk.
        chunk: u32,
    },
    /// A chunk arrived and did not match its hash.
    Bad {
        /// The request that it came by.
        request: u64,
    },
    /// A request ended; its chunks came before.
    Ended {
        /// The request.
        request: u64,
        /// How.
        ending: Ending,
    },
    /// A client waits for this chunk, and will for those after it.
    Reads {
        /// The chunk.
        chunk: u32,
    },
    /// Time passed.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask a peer for chunks.
    Request {
        /// The request's number.
        request: u64,
        /// Whom.
        peer: NodeId,
        /// Which, in the order in which they are wanted.
        chunks: Vec<u32>,
    },
    /// Break off a request: what it would bring is here, or its peer is not to be trusted.
    Cancel {
        /// The request.
        request: u64,
    },
    /// Every chunk is here.
    Done,
    /// Nothing has come for too long, or nobody is left to ask.
    Stuck,
}

#[derive(Clone, Debug)]
struct Request {
    peer: NodeId,
    left: Vec<u32>,
    since_ms: u64,
    slow: bool,
    /// Its first chunk is here.
    answered: bool,
}

/// One object's pull.
#[derive(Debug)]
pub struct Swarm {
    me: NodeId,
    zone: u32,
    /// Tells objects apart where chunks are shared out.
    salt: u64,
    chunk_bytes: u32,
    here: Chunks,
    /// Chunks on their way.
    asked: Chunks,
    /// Those of them that take too long.
    slow: BTreeSet<u32>,
    /// How many peers have a chunk.
    copies: Vec<u16>,
    /// How many mates of this zone have it.
    inside: Vec<u16>,
    all_known: bool,
    first_missing: u32,
    reader: u32,
    peers: BTreeMap<NodeId, Peer>,
    /// Nodes that pull too, whether or not they can be asked, and their zones.
    members: BTreeMap<NodeId, u32>,
    /// How many of them each zone has.
    zones: BTreeMap<u32, u32>,
    /// How many members of this zone come before this node for a chunk, as far as asked.
    ranks: Vec<u32>,
    /// Since when nothing is on its way, though chunks are missing.
    idle_since_ms: Option<u64>,
    requests: BTreeMap<u64, Request>,
    next_request: u64,
    progress_ms: u64,
    /// When the last chunk came.
    arrived_ms: u64,
    /// Between two chunks from whomever, in microseconds, on average; 0 while unknown.
    gap_us: u64,
    stuck_after_ms: u64,
    ended: bool,
}

impl Swarm {
    /// A session of node `me` (its id, its zone) for an object told apart by `salt`, which every
    /// member must give alike, with chunks of so many bytes.
    pub fn new(now_ms: u64, me: (NodeId, u32), salt: u64, chunk_bytes: u32) -> Self {
        Self {
            me: me.0,
            zone: me.1,
            salt,
            chunk_bytes,
            here: Chunks::default(),
            asked: Chunks::default(),
            slow: BTreeSet::new(),
            copies: Vec::new(),
            inside: Vec::new(),
            all_known: false,
            first_missing: 0,
            reader: 0,
            peers: BTreeMap::new(),
            members: BTreeMap::new(),
            zones: BTreeMap::new(),
            ranks: Vec::new(),
            idle_since_ms: None,
            requests: BTreeMap::new(),
            next_request: 0,
            progress_ms: now_ms,
            arrived_ms: now_ms,
            gap_us: 0,
            stuck_after_ms: STUCK_AFTER_MS,
            ended: false,
        }
    }

    /// Gives up earlier or later than after [`STUCK_AFTER_MS`].
    pub fn give_up_after(&mut self, milliseconds: u64) {
        self.stuck_after_ms = milliseconds;
    }

    /// A chunk is here from before: it is not asked for.
    pub fn has(&mut self, chunk: u32) {
        self.here.insert(chunk);
        while self.here.contains(self.first_missing) {
            self.first_missing += 1;
        }
    }

    /// The peer that a request went to, while it is under way.
    pub fn peer_of(&self, request: u64) -> Option<NodeId> {
        self.requests.get(&request).map(|request| request.peer)
    }

    /// Takes in an event; returns what is to be done because of it.
    pub fn on(&mut self, now_ms: u64, event: Event) -> Vec<Action> {
        if self.ended {
            return Vec::new();
        }
        let mut actions = Vec::new();
        match event {
            Event::Met(facts) => self.met(facts),
            Event::Pulls { id, zone } => self.pulls(id, zone),
            Event::Lost(peer) => {
                self.left(peer);
                self.drop_peer(peer, &mut actions);
            }
            Event::Has { peer, first, count } => self.peer_has(peer, first, count),
            Event::Known { count, all } => self.known(now_ms, count, all),
            Event::Good { request, chunk } => self.good(now_ms, (request, chunk), &mut actions),
            Event::Bad { request } => {
                if let Some(peer) = self.peer_of(request) {
                    self.drop_peer(peer, &mut actions);
                }
            }
            Event::Ended { request, ending } => self.end(now_ms, (request, ending), &mut actions),
            Event::Reads { chunk } => self.reader = self.reader.max(chunk),
            Event::Tick => self.mark_slow(now_ms),
        }
        self.go_on(now_ms, &mut actions);
        actions
    }

    fn met(&mut self, facts: Facts) {
        if facts.id != self.me {
            if facts.mate {
                self.pulls(facts.id, facts.zone);
            }
            self.peers.entry(facts.id).or_insert_with(|| Peer::new(facts));
        }
    }

    fn pulls(&mut self, id: NodeId, zone: u32) {
        if id != self.me && self.members.insert(id, zone).is_none() {
            *self.zones.entry(zone).or_default() += 1;
            self.ranks.clear();
        }
    }

    fn left(&mut self, id: NodeId) {
        let Some(zone) = self.members.remove(&id) else { return };
        if let Some(count) = self.zones.get_mut(&zone) {
            *count -= 1;
        }
        self.ranks.clear();
    }

    fn peer_has(&mut self, peer: NodeId, first: u32, count: u32) {
        let Some(peer) = self.peers.get_mut(&peer) else { return };
        let inside = peer.is_inside(self.zone);
        for chunk in first..first.saturating_add(count) {
            if peer.has.insert(chunk)
                && let Some(copies) = self.copies.get_mut(chunk as usize)
            {
                *copies += 1;
                self.inside[chunk as usize] += u16::from(inside);
            }
        }
    }

    fn known(&mut self, now_ms: u64, count: u32, all: bool) {
        for chunk in self.copies.len() as u32..count {
            let has = |peer: &&Peer| peer.has.contains(chunk);
            let inside = |peer: &&Peer| peer.is_inside(self.zone);
            self.copies.push(self.peers.values().filter(has).count() as u16);
            self.inside.push(self.peers.values().filter(has).filter(inside).count() as u16);
        }
        // What was not to be had could not be waited for.
        self.progress_ms = now_ms;
        self.all_known |= all;
    }

    fn good(&mut self, now_ms: u64, (request, chunk): (u64, u32), actions: &mut Vec<Action>) {
        self.arrived(now_ms);
        let asked = self.requests.get_mut(&request);
        if let Some((asked, peer)) =
            asked.and_then(|asked| self.peers.get_mut(&asked.peer).map(|peer| (asked, peer)))
        {
            peer.brought(now_ms);
            if !std::mem::replace(&mut asked.answered, true) {
                peer.answered(now_ms.saturating_sub(asked.since_ms));
            }
        }
        self.here.insert(chunk);
        self.asked.remove(chunk);
        self.slow.remove(&chunk);
        while self.here.contains(self.first_missing) {
            self.first_missing += 1;
        }
        // Another that was asked for it need not bring it any more.
        let mut over = Vec::new();
        for (number, other) in &mut self.requests {
            let before = other.left.len();
            other.left.retain(|left| *left != chunk);
            if other.left.len() < before
                && let Some(peer) = self.peers.get_mut(&other.peer)
            {
                peer.in_flight = peer.in_flight.saturating_sub(1);
            }
            if other.left.is_empty() && *number != request {
                over.push(*number);
            }
        }
        for number in over {
            self.requests.remove(&number);
            actions.push(Action::Cancel { request: number });
        }
    }

    /// A chunk came: how fast they come says how many may be on their way.
    fn arrived(&mut self, now_ms: u64) {
        let gap_us = now_ms.saturating_sub(self.arrived_ms).min(GAP_MS_MAX) * 1_000;
        let first = self.gap_us == 0;
        self.gap_us = if first { GAP_FIRST_US } else { (self.gap_us * 15 + gap_us) / 16 }.max(1);
        (self.progress_ms, self.arrived_ms) = (now_ms, now_ms);
    }

    fn end(&mut self, now_ms: u64, (number, ending): (u64, Ending), actions: &mut Vec<Action>) {
        let Some(request) = self.requests.remove(&number) else { return };
        self.give_back(&request);
        let Some(peer) = self.peers.get_mut(&request.peer) else { return };
        match ending {
            Ending::Served => {
                peer.strikes = 0;
                let inside = peer.is_inside(self.zone);
                for chunk in request.left {
                    if peer.has.remove(chunk)
                        && let Some(copies) = self.copies.get_mut(chunk as usize)
                    {
                        *copies -= 1;
                        self.inside[chunk as usize] -= u16::from(inside);
                    }
                }
            }
            Ending::Busy => peer.busy(now_ms),
            Ending::Failed => {
                peer.strikes += 1;
                peer.busy(now_ms);
                if peer.strikes >= STRIKES_MAX {
                    self.drop_peer(request.peer, actions);
                }
            }
        }
    }

    /// What a request did not bring may be asked of others.
    fn give_back(&mut self, request: &Request) {
        for chunk in &request.left {
            // Another may have been asked for it too.
            if !self.requests.values().any(|other| other.left.contains(chunk)) {
                self.asked.remove(*chunk);
                self.slow.remove(chunk);
            }
        }
        if let Some(peer) = self.peers.get_mut(&request.peer) {
            peer.in_flight = peer.in_flight.saturating_sub(request.left.len() as u32);
        }
    }

    fn drop_peer(&mut self, id: NodeId, actions: &mut Vec<Action>) {
        let numbers = self.requests.iter().filter(|(_, request)| request.peer == id);
        let numbers: Vec<u64> = numbers.map(|(number, _)| *number).collect();
        for number in numbers {
            if let Some(request) = self.requests.remove(&number) {
                self.give_back(&request);
            }
            actions.push(Action::Cancel { request: number });
        }
        let Some(peer) = self.peers.remove(&id) else { return };
        let inside = peer.is_inside(self.zone);
        for (chunk, copies) in self.copies.iter_mut().enumerate() {
            if peer.has.contains(chunk as u32) {
                *copies -= 1;
                self.inside[chunk] -= u16::from(inside);
            }
        }
    }

    /// Chunks of a request that takes too long may be asked of a second peer.
    fn mark_slow(&mut self, now_ms: u64) {
        let slow_ms = SLOW_MS_MIN.max(self.chunks_ms(SLOW_CHUNKS));
        for request in self.requests.values_mut().filter(|request| !request.slow) {
            let Some(peer) = self.peers.get(&request.peer) else { continue };
            let expected_ms = peer.expected_ms();
            let since_ms = request.since_ms.max(peer.brought_ms);
            if now_ms >= since_ms + slow_ms.max(expected_ms.saturating_mul(SLOW_TIMES)) {
                request.slow = true;
                self.slow.extend(&request.left);
            }
        }
    }

    fn go_on(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        let known = self.copies.len() as u32;
        if self.all_known && self.first_missing >= known {
            self.ended = true;
            let numbers: BTreeSet<u64> = self.requests.keys().copied().collect();
            actions.extend(numbers.into_iter().map(|request| Action::Cancel { request }));
            actions.push(Action::Done);
            return;
        }
        let alone = self.peers.is_empty() && self.first_missing < known;
        if alone || now_ms >= self.progress_ms + self.stuck_after_ms {
            self.ended = true;
            actions.push(Action::Stuck);
            return;
        }
        self.rank_chunks();
        while let Some((peer, chunks)) = self.next_request(now_ms) {
            let number = self.next_request;
            self.next_request += 1;
            for chunk in &chunks {
                self.asked.insert(*chunk);
            }
            if let Some(peer) = self.peers.get_mut(&peer) {
                peer.in_flight += chunks.len() as u32;
            }
            let left = chunks.clone();
            let request = Request { peer, left, since_ms: now_ms, slow: false, answered: false };
            self.requests.insert(number, request);
            actions.push(Action::Request { request: number, peer, chunks });
        }
        let idle = self.first_missing < known && self.in_flight() == 0;
        self.idle_since_ms = idle.then(|| self.idle_since_ms.unwrap_or(now_ms));
    }
}
