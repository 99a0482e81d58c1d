//! PURE. What is known of one peer: its chunks, how fast it sends, how much is asked of it.

use super::Facts;
use super::chunks::Chunks;

/// Chunks asked of a peer at a time, before its rate is known, and at least: what waits in a queue
/// at one peer could meanwhile come from another.
const WINDOW_FIRST: u32 = 1;
/// The same, at most.
const WINDOW_MAX: u32 = 16;
/// A peer is asked for as much as it sends in this time, so that its line never runs dry.
const AHEAD_MS: u64 = 250;
/// Times between chunks are averaged over about so many.
const AVERAGED: u64 = 8;
/// First pause after a peer had no slot, doubled for each further one up to the longest.
const BUSY_MS: u64 = 50;
const BUSY_MS_MAX: u64 = 2_000;

/// One peer.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) facts: Facts,
    pub(super) has: Chunks,
    /// Chunks asked of it and not here yet.
    pub(super) in_flight: u32,
    pub(super) strikes: u32,
    /// When it last brought a chunk; 0 before.
    pub(super) brought_ms: u64,
    /// Between two chunks, in microseconds, on average; 0 while unknown.
    gap_us: u64,
    /// From a request to its first chunk, in milliseconds, on average; 0 while unknown.
    wait_ms: u64,
    pause_ms: u64,
    paused_until_ms: u64,
}

impl Peer {
    pub(super) fn new(facts: Facts) -> Self {
        Self {
            facts,
            has: Chunks::default(),
            in_flight: 0,
            strikes: 0,
            brought_ms: 0,
            gap_us: 0,
            wait_ms: 0,
            pause_ms: BUSY_MS,
            paused_until_ms: 0,
        }
    }

    /// Whether it pulls too, in that zone.
    pub(super) fn is_inside(&self, zone: u32) -> bool {
        self.facts.mate && self.facts.zone == zone
    }

    /// It brought a chunk.
    pub(super) fn brought(&mut self, now_ms: u64) {
        let gap_us = now_ms.saturating_sub(self.brought_ms).max(1) * 1_000;
        if self.brought_ms > 0 {
            // A pause in which nothing was asked of it says nothing of its rate.
            let fair_us = gap_us.min(2_000_000);
            self.gap_us = match self.gap_us {
                0 => fair_us,
                old => (old * (AVERAGED - 1) + fair_us) / AVERAGED,
            };
        }
        self.brought_ms = now_ms;
        self.strikes = 0;
        self.pause_ms = BUSY_MS;
    }

    /// The first chunk of a request came after so long.
    pub(super) fn answered(&mut self, waited_ms: u64) {
        self.wait_ms = match self.wait_ms {
            0 => waited_ms.max(1),
            old => (old * (AVERAGED - 1) + waited_ms).div_ceil(AVERAGED),
        };
    }

    /// How long one more chunk would take, by what is on its way and how it answered so far.
    pub(super) fn cost(&self) -> u64 {
        u64::from(self.in_flight + 1) * self.wait_ms.max(1)
    }

    /// It had no free slot.
    pub(super) fn busy(&mut self, now_ms: u64) {
        self.paused_until_ms = now_ms + self.pause_ms;
        self.pause_ms = (self.pause_ms * 2).min(BUSY_MS_MAX);
    }

    /// How many more chunks may be asked of it now.
    pub(super) fn room(&self, now_ms: u64) -> u32 {
        if now_ms < self.paused_until_ms {
            return 0;
        }
        let window = match self.gap_us {
            0 => WINDOW_FIRST,
            gap_us => {
                let chunks = AHEAD_MS * 1_000 / gap_us;
                u32::try_from(chunks).unwrap_or(WINDOW_MAX).clamp(WINDOW_FIRST, WINDOW_MAX)
            }
        };
        window.saturating_sub(self.in_flight)
    }

    /// For what is asked of it to arrive, by its rate; 0 while that is unknown.
    pub(super) fn expected_ms(&self) -> u64 {
        self.gap_us * u64::from(self.in_flight.max(1)) / 1_000
    }
}
