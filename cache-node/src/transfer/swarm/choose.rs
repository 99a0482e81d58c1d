//! PURE. Which chunk is asked of whom next.
//!
//! First what a client waits for, then what fewest peers have, and among those an order of this
//! node's own, so that mates do not all ask for the same.

use shoal_proto::NodeId;

use super::Swarm;
use super::peers::Peer;

/// Chunks from the reader's on that go before all others.
const URGENT_CHUNKS: u32 = 2;
/// Words of the sets of chunks that are looked at for one choice, from the first missing chunk on:
/// keeps a choice short and the disk in order.
const LOOKED_AT_WORDS: usize = 16;
/// Most chunks of one request.
const REQUEST_CHUNKS_MAX: usize = 4;
/// Most bytes in flight.
const IN_FLIGHT_BYTES_MAX: u32 = 32 * 1024 * 1024;
/// Least chunks in flight that are allowed, however large they are.
const IN_FLIGHT_CHUNKS_MIN: u32 = 16;
/// As much is in flight as arrives in this time: what is asked for earlier than it can be sent waits
/// in a queue, while others could send it.
const AHEAD_MS: u64 = 800;
/// A member asks mates for a chunk when they are at least a part of so many of those before it.
const ASKED_BY_MAX: u32 = 4;
/// With fewer chunks on its way a node takes them as they come.
const IN_FLIGHT_FEW: u32 = 8;
/// When all that is missing is asked for, what is on its way for so long, and for as
/// long as so many chunks take, is asked of another too.
const ENDGAME_MS: u64 = 300;
const ENDGAME_CHUNKS: u64 = 30;
/// A node that nothing is on its way to fetches one rank of chunks more from outside its circle
/// after so long, and after as long as so many chunks take.
const PATIENCE_MS: u64 = 500;
const PATIENCE_CHUNKS: u64 = 40;

impl Swarm {
    /// The next request, as long as there is one to be made.
    pub(super) fn next_request(&self, now_ms: u64) -> Option<(NodeId, Vec<u32>)> {
        let in_flight = self.in_flight();
        let most = self.in_flight_max();
        if in_flight >= most {
            return None;
        }
        let free = self.peers.values().filter(|peer| peer.room(now_ms) > 0);
        // Who is likely to send soonest first, those within the circle before those outside, and
        // among equals another one each time.
        let turn = |id: NodeId| mix(self.next_request ^ self.salt ^ mix(id.0 ^ self.me.0));
        let order = |peer: &Peer| (peer.cost(), self.is_outside(peer), turn(peer.facts.id));
        let mut free: Vec<_> = free.map(|peer| (order(peer), peer.facts.id, peer)).collect();
        free.sort_unstable_by_key(|(order, ..)| *order);
        free.into_iter().find_map(|((_, outside, _), id, peer)| {
            let room = (peer.room(now_ms).min(most - in_flight) as usize).min(REQUEST_CHUNKS_MAX);
            let chunks = self.chunks_for(now_ms, (peer, outside), room);
            (!chunks.is_empty()).then_some((id, chunks))
        })
    }

    /// Chunks on their way.
    pub(super) fn in_flight(&self) -> u32 {
        self.peers.values().map(|peer| peer.in_flight).sum()
    }

    fn in_flight_max(&self) -> u32 {
        let most = (IN_FLIGHT_BYTES_MAX / self.chunk_bytes.max(1)).max(IN_FLIGHT_CHUNKS_MIN);
        match self.gap_us {
            0 => IN_FLIGHT_CHUNKS_MIN.max(self.peers.len() as u32).min(most),
            gap_us => {
                let ahead = u32::try_from(AHEAD_MS * 1_000 / gap_us).unwrap_or(most);
                ahead.clamp(IN_FLIGHT_CHUNKS_MIN, most)
            }
        }
    }

    /// Whether what the peer sends comes from outside the circle, while there is a circle or a
    /// zone to take it from instead.
    fn is_outside(&self, peer: &Peer) -> bool {
        let here = self.mates_in(self.zone) > 0;
        let there = !peer.facts.mate && self.mates_in(peer.facts.zone) > 0;
        !peer.is_inside(self.zone) && (here || there)
    }

    fn mates_in(&self, zone: u32) -> u32 {
        self.zones.get(&zone).copied().unwrap_or_default()
    }

    /// Brings the ranks of known chunks up to date. As many chunks as the circle has members make a
    /// round, in which each is first for one chunk, second for another, and so on: shared out at
    /// random, some would wait long for the first chunk that they can pass on. Who sits where is
    /// drawn anew for every round, so that nobody always stands in for the same one.
    pub(super) fn rank_chunks(&mut self) {
        let near = self.mates_in(self.zone) + 1;
        let mut drawn: Option<(u32, u32)> = None;
        for chunk in self.ranks.len() as u32..self.copies.len() as u32 {
            let round = chunk / near;
            let seat = match drawn {
                Some((of, seat)) if of == round => seat,
                _ => self.seat(round),
            };
            drawn = Some((round, seat));
            self.ranks.push((seat + near - chunk % near) % near);
        }
    }

    fn seat(&self, round: u32) -> u32 {
        let mine = self.share(round, self.me);
        let near = self.members.iter().filter(|(_, zone)| **zone == self.zone);
        near.filter(|(id, _)| self.share(round, **id) > mine).count() as u32
    }

    fn chunks_for(&self, now_ms: u64, (peer, outside): (&Peer, bool), count: usize) -> Vec<u32> {
        let known = self.copies.len() as u32;
        let first = (self.first_missing / u64::BITS) as usize;
        let few = self.in_flight() < IN_FLIGHT_FEW;
        let mut wanted: Vec<(bool, u32, u16, u64, u32)> = Vec::new();
        for word in first..first + LOOKED_AT_WORDS {
            let mut bits = peer.has.word(word) & !self.here.word(word) & !self.asked.word(word);
            while bits != 0 {
                let chunk = word as u32 * u64::BITS + bits.trailing_zeros();
                bits &= bits - 1;
                let mine = || match outside {
                    true => self.is_mine(now_ms, chunk, peer),
                    false => self.is_my_turn(chunk, few),
                };
                if chunk < known && mine() {
                    wanted.push(self.order(chunk));
                }
            }
        }
        if wanted.is_empty() {
            let others = self.slow.iter().filter(|chunk| peer.has.contains(**chunk));
            let late = others.filter(|chunk| self.may_hedge(**chunk, peer));
            wanted.extend(late.map(|chunk| self.order(*chunk)));
        }
        if wanted.is_empty() && peer.in_flight == 0 && self.is_endgame() {
            wanted.extend(self.longest_asked(now_ms, peer).map(|chunk| self.order(chunk)));
        }
        wanted.sort_unstable();
        wanted.into_iter().take(count).map(|(.., chunk)| chunk).collect()
    }

    fn order(&self, chunk: u32) -> (bool, u32, u16, u64, u32) {
        let urgent = (self.reader..self.reader + URGENT_CHUNKS).contains(&chunk);
        let copies = self.copies.get(chunk as usize).copied().unwrap_or_default();
        (!urgent, if urgent { chunk } else { 0 }, copies, self.share(chunk, self.me), chunk)
    }

    /// Whether all that is missing is on its way.
    fn is_endgame(&self) -> bool {
        self.all_known && self.asked.len() + self.here.len() >= self.copies.len()
    }

    /// The chunk that is on its way for longest, if it is for long and the peer has it.
    fn longest_asked(&self, now_ms: u64, peer: &Peer) -> Option<u32> {
        let after_ms = ENDGAME_MS.max(self.chunks_ms(ENDGAME_CHUNKS));
        let old = self.requests.values().filter(|r| now_ms >= r.since_ms + after_ms);
        let chunks = old.flat_map(|request| request.left.iter().map(|c| (request.since_ms, *c)));
        let may = |chunk: u32| peer.has.contains(chunk) && self.may_hedge(chunk, peer);
        chunks.filter(|(_, chunk)| may(*chunk)).min().map(|(_, chunk)| chunk)
    }

    /// Only one more peer is asked for what is slow to come, and not the same.
    fn may_hedge(&self, chunk: u32, peer: &Peer) -> bool {
        let mut asked = self.requests.values().filter(|request| request.left.contains(&chunk));
        let first = asked.next();
        asked.next().is_none() && first.is_some_and(|request| request.peer != peer.facts.id)
    }

    /// Whether this node is to fetch the chunk from that peer for its circle: by rank, or in for
    /// those before it while it has nothing else to do. Who has all, or gets all, gives to its own
    /// zone first, where it has mates: the others take it from those.
    fn is_mine(&self, now_ms: u64, chunk: u32, peer: &Peer) -> bool {
        let at = chunk as usize;
        if self.inside.get(at).is_some_and(|inside| *inside > 0) {
            return false;
        }
        let elsewhere =
            !peer.facts.mate && peer.facts.zone != self.zone && self.mates_in(peer.facts.zone) > 0;
        let before = self.ranks.get(at).copied().unwrap_or_default() + u32::from(elsewhere);
        let idle_ms = self.idle_since_ms.map_or(0, |since| now_ms.saturating_sub(since));
        u64::from(before) <= idle_ms / PATIENCE_MS.max(self.chunks_ms(PATIENCE_CHUNKS))
    }

    /// Whether this node is among those that mates with the chunk send it to next, by rank: were it
    /// asked by all at once, the first to have it would be the last to have given it to everybody,
    /// while others that have it by then are asked for nothing.
    fn is_my_turn(&self, chunk: u32, few: bool) -> bool {
        let at = chunk as usize;
        let inside = self.inside.get(at).copied().unwrap_or_default();
        let rank = self.ranks.get(at).copied().unwrap_or_default();
        // A client that waits for it waits for no turn.
        few || chunk == self.reader || rank <= u32::from(inside) * ASKED_BY_MAX
    }

    /// What so many chunks take, by how fast they came of late.
    pub(super) fn chunks_ms(&self, chunks: u64) -> u64 {
        self.gap_us * chunks / 1_000
    }

    /// A member's number for a chunk, or a round: the same on every node.
    fn share(&self, chunk: u32, member: NodeId) -> u64 {
        mix(self.salt ^ mix(u64::from(chunk) ^ mix(member.0)))
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
