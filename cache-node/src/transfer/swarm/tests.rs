//! The session alone, and in swarms.

use shoal_proto::NodeId;

use super::simulator::{Outcome, Setup, Simulator};
use super::{Event, Facts, Swarm};

const CHUNK: u32 = 256 * 1024;

fn slowest(out: &Outcome) -> f64 {
    out.times.iter().copied().fold(0.0, f64::max)
}

fn sixteen() -> Setup {
    Setup {
        nodes: 16,
        zones: 1,
        chunks: 1_024,
        chunk_bytes: CHUNK,
        rate: 12_500_000,
        mates_max: 32,
        killed: 0,
        filled: false,
        latency_us: 1_000,
        slots: 8,
    }
}

fn runs(setup: Setup) -> Outcome {
    let out = Simulator::new(setup).run();
    assert_eq!(out.stuck, 0, "{out:?}");
    assert_eq!(out.times.len(), setup.nodes - 1 - setup.killed);
    out
}

#[test]
fn sixteen_nodes_take_little_longer_than_one_and_the_filler_sends_each_chunk_once() {
    for filled in [false, true] {
        let out = runs(Setup { filled, ..sixteen() });
        assert!(slowest(&out) <= 1.06);
        assert!(out.filler_sent <= 1.02);
    }
}

#[test]
fn a_zone_takes_each_chunk_in_once() {
    let out = runs(Setup { zones: 2, ..sixteen() });
    assert!(slowest(&out) <= 1.05);
    assert!(out.zone_entered <= 1.02);
}

#[test]
fn who_is_lost_half_way_holds_nobody_up() {
    let out = runs(Setup { killed: 3, ..sixteen() });
    assert!(slowest(&out) <= 1.08);
}

#[test]
fn chunks_that_take_long_on_lines_that_are_slow_and_late_are_not_asked_for_twice() {
    let few = Setup { chunks: 256, rate: 2_500_000, latency_us: 100_000, ..sixteen() };
    let out = runs(few);
    assert!(slowest(&out) <= 1.20);
    assert!(out.filler_sent <= 1.05);
}

#[test]
fn few_chunks_at_a_time_leave_lines_idle_when_they_go_where_much_arrives() {
    let out = runs(Setup { slots: 2, chunks: 256, ..sixteen() });
    assert!(slowest(&out) > 1.3, "lines are not shared with whatever else is on them");
}

#[test]
fn in_every_round_each_member_is_first_for_one_chunk() {
    let all = 1..=5;
    let ranks = all.clone().map(|me| {
        let mut swarm = Swarm::new(0, (NodeId(me), 0), 7, CHUNK);
        swarm.on(0, Event::Met(Facts { id: NodeId(9), zone: 0, mate: false }));
        for other in all.clone() {
            swarm.on(0, Event::Pulls { id: NodeId(other), zone: 0 });
        }
        swarm.on(0, Event::Known { count: 20, all: false });
        swarm.ranks
    });
    let ranks: Vec<Vec<u32>> = ranks.collect();
    for chunk in 0..20 {
        let mut of_chunk: Vec<u32> = ranks.iter().map(|ranks| ranks[chunk]).collect();
        of_chunk.sort_unstable();
        assert_eq!(of_chunk, [0, 1, 2, 3, 4], "members agree");
    }
    for mine in ranks {
        let firsts = mine.chunks(5).map(|round| round.iter().filter(|rank| **rank == 0).count());
        assert_eq!(firsts.collect::<Vec<_>>(), [1, 1, 1, 1]);
    }
}
