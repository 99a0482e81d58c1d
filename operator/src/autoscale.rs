//! PURE. How many nodes a pool should have: by load, and by what one more node would save of the
//! origin's traffic. Up quickly, down slowly, and only when one more or fewer was wanted for as long
//! as the spec says; every decision has a reason that a person can check.
//!
//! Must not know where figures come from.

use serde::{Deserialize, Serialize};

/// A pool grows at most by this factor at a time, and by at least one.
const GROWTH_PERCENT_MAX: usize = 100;
/// Fewer nodes are wanted only when they would be this much below the target.
const SLACK_PERCENT: f64 = 20.0;
/// Below so many bytes a second from origins nothing is worth a node.
const ORIGIN_FLOOR_BYTES_S: f64 = 1_048_576.0;

/// What is wanted of each node, and within which bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Targets {
    /// Fewest nodes.
    pub min: usize,
    /// Most nodes.
    pub max: usize,
    /// Requests a second.
    pub requests_s: Option<f64>,
    /// Bytes a second to clients.
    pub egress_bytes_s: Option<f64>,
    /// Percent of a processor core.
    pub cpu_percent: Option<f64>,
    /// Percent of the origin's traffic that one more node has to save.
    pub origin_saved_percent: Option<f64>,
    /// For how long more must have been wanted, in seconds.
    pub up_after_s: i64,
    /// For how long fewer must have been wanted, in seconds.
    pub down_after_s: i64,
}

/// What the nodes did lately, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Load {
    /// Nodes that these figures are from.
    pub nodes: usize,
    /// Requests a second.
    pub requests_s: f64,
    /// Bytes a second to clients.
    pub egress_bytes_s: f64,
    /// Percent of processor cores.
    pub cpu_percent: f64,
    /// Bytes a second from origins.
    pub origin_bytes_s: f64,
    /// Bytes a second that missed, and would have hit with half as large a store again.
    pub ghost_bytes_s: f64,
}

/// What was wanted so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Memory {
    /// Since when more were wanted.
    pub more_since_s: Option<i64>,
    /// Since when fewer were wanted.
    pub fewer_since_s: Option<i64>,
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// Nodes.
    pub nodes: usize,
    /// Why.
    pub reason: String,
    /// A bound stands against what the figures say.
    pub limited: bool,
    /// To be given next time.
    pub memory: Memory,
}

/// Decides, `now` nodes being wanted so far. Without figures of all nodes nothing changes.
#[must_use]
pub fn decide(
    now_s: i64,
    now: usize,
    load: Option<&Load>,
    targets: &Targets,
    memory: &Memory,
) -> Decision {
    let bounded = now.clamp(targets.min, targets.max);
    let keep = |reason: String, limited: bool, memory: Memory| Decision {
        nodes: bounded,
        reason,
        limited,
        memory,
    };
    if bounded != now {
        let reason = format!("{now} is outside {} to {}", targets.min, targets.max);
        return keep(reason, true, Memory::default());
    }
    let Some(load) = load.filter(|load| load.nodes > 0) else {
        return keep("not all nodes gave figures".to_owned(), false, Memory::default());
    };
    let (wish, reason) = wish(now, load, targets);
    let limited = wish > targets.max || wish < targets.min;
    let wish = wish.clamp(targets.min, targets.max);
    if wish == now {
        return keep(reason, limited, Memory::default());
    }
    let (since, after) = if wish > now {
        (memory.more_since_s.unwrap_or(now_s), targets.up_after_s)
    } else {
        (memory.fewer_since_s.unwrap_or(now_s), targets.down_after_s)
    };
    let for_s = now_s.saturating_sub(since);
    if for_s < after {
        let memory = if wish > now {
            Memory { more_since_s: Some(since), fewer_since_s: None }
        } else {
            Memory { more_since_s: None, fewer_since_s: Some(since) }
        };
        let reason = format!("{reason}; {wish} wanted for {for_s} s of {after} s");
        return keep(reason, limited, memory);
    }
    Decision { nodes: wish, reason, limited, memory: Memory::default() }
}

/// What the figures ask for, before bounds and patience.
fn wish(now: usize, load: &Load, targets: &Targets) -> (usize, String) {
    let each = [
        ("requests a second", load.requests_s, targets.requests_s),
        ("bytes a second to clients", load.egress_bytes_s, targets.egress_bytes_s),
        ("percent of a processor", load.cpu_percent, targets.cpu_percent),
    ];
    let mut most: Option<(usize, String)> = None;
    for (what, figure, target) in each {
        let Some(target) = target.filter(|target| *target > 0.0) else { continue };
        let nodes = needed(now, figure, target);
        let reason = format!("{figure:.0} {what}, {target:.0} a node");
        if most.as_ref().is_none_or(|(other, _)| nodes > *other) {
            most = Some((nodes, reason));
        }
    }
    let by_load = most.unwrap_or((0, "no load target".to_owned()));
    let by_cache = targets.origin_saved_percent.map(|least| economics(now, load, least));
    let (nodes, reason) = match by_cache {
        Some((nodes, reason)) if nodes >= by_load.0 => (nodes, reason),
        Some(_) | None => by_load,
    };
    let most = now + (now * GROWTH_PERCENT_MAX / 100).max(1);
    (nodes.min(most).max(1), reason)
}

/// Nodes for a figure: more as soon as the target is passed, fewer only well below it.
fn needed(now: usize, figure: f64, target: f64) -> usize {
    let nodes = whole((figure / target).ceil());
    if nodes >= now {
        return nodes;
    }
    let careful = whole((figure / (target * (1.0 - SLACK_PERCENT / 100.0))).ceil());
    careful.min(now)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to what fits before"
)]
fn whole(nodes: f64) -> usize {
    if nodes.is_nan() { 0 } else { nodes.clamp(0.0, 100_000.0) as usize }
}

/// One more node when it would save enough: a store half as large again would have hit so much
/// more, of which one node among `now` is worth its share.
fn economics(now: usize, load: &Load, least_percent: f64) -> (usize, String) {
    let nodes = now.max(1);
    #[expect(clippy::cast_precision_loss, reason = "numbers of nodes are small")]
    let share = (2.0 / nodes as f64).min(1.0);
    let saved = (load.ghost_bytes_s * share).min(load.origin_bytes_s);
    if load.origin_bytes_s < ORIGIN_FLOOR_BYTES_S {
        return (0, "origins send too little to be worth a node".to_owned());
    }
    let percent = 100.0 * saved / load.origin_bytes_s;
    let reason = format!(
        "one more node would save {percent:.0}% of {:.0} bytes a second from origins, worth it \
         from {least_percent:.0}%",
        load.origin_bytes_s
    );
    if percent >= least_percent {
        return (nodes + 1, reason);
    }
    // One fewer would lose about as much as one more would save, and then some.
    let fewer = percent < least_percent / 4.0;
    (if fewer { nodes - 1 } else { nodes }, reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn targets() -> Targets {
        Targets {
            min: 2,
            max: 10,
            requests_s: Some(100.0),
            up_after_s: 30,
            down_after_s: 600,
            ..Targets::default()
        }
    }

    fn load(requests_s: f64) -> Load {
        Load { nodes: 4, requests_s, ..Load::default() }
    }

    /// Decides every 15 seconds under one load until nothing changes; the number of changes.
    fn settle(mut now: usize, load: &Load, targets: &Targets) -> (usize, usize) {
        let (mut memory, mut changes) = (Memory::default(), 0);
        for round in 0..400 {
            let decision = decide(round * 15, now, Some(load), targets, &memory);
            changes += usize::from(decision.nodes != now);
            now = decision.nodes;
            memory = decision.memory;
        }
        (now, changes)
    }

    #[test]
    fn more_are_wanted_at_once_and_made_after_a_while() {
        let first = decide(0, 4, Some(&load(700.0)), &targets(), &Memory::default());
        assert_eq!(first.nodes, 4, "{first:?}");
        assert!(first.reason.contains("7 wanted for 0 s of 30 s"), "{}", first.reason);
        let then = decide(30, 4, Some(&load(700.0)), &targets(), &first.memory);
        assert_eq!(then.nodes, 7, "{then:?}");
        assert_eq!(then.reason, "700 requests a second, 100 a node");
    }

    #[test]
    fn fewer_come_slowly_and_a_peak_begins_anew() {
        let first = decide(0, 8, Some(&load(100.0)), &targets(), &Memory::default());
        assert_eq!((first.nodes, first.memory.fewer_since_s), (8, Some(0)));
        let peak = decide(300, 8, Some(&load(790.0)), &targets(), &first.memory);
        assert_eq!(peak.memory, Memory::default());
        let again = decide(600, 8, Some(&load(100.0)), &targets(), &peak.memory);
        assert_eq!(again.nodes, 8, "patience begins anew: {again:?}");
    }

    #[test]
    fn bounds_hold_and_say_so() {
        let high = decide(0, 10, Some(&load(5_000.0)), &targets(), &Memory::default());
        assert!(high.limited && high.nodes == 10, "{high:?}");
        let outside = decide(0, 20, None, &targets(), &Memory::default());
        assert_eq!(outside.nodes, 10, "{outside:?}");
    }

    #[test]
    fn without_figures_nothing_changes() {
        let blind = decide(
            900,
            5,
            None,
            &targets(),
            &Memory { more_since_s: Some(0), ..Memory::default() },
        );
        assert_eq!((blind.nodes, blind.reason.as_str()), (5, "not all nodes gave figures"));
    }

    #[test]
    fn what_a_node_saves_is_worth_it_or_not() {
        let targets = Targets { requests_s: None, origin_saved_percent: Some(10.0), ..targets() };
        let thrashing =
            Load { nodes: 4, origin_bytes_s: 100e6, ghost_bytes_s: 60e6, ..Load::default() };
        let decision = decide(
            60,
            4,
            Some(&thrashing),
            &targets,
            &Memory { more_since_s: Some(0), ..Memory::default() },
        );
        assert_eq!(decision.nodes, 5, "{decision:?}");
        assert!(decision.reason.contains("save 30%"), "{}", decision.reason);
        let content = Load { ghost_bytes_s: 10e6, ..thrashing };
        assert_eq!(settle(4, &content, &targets).0, 4);
        let idle = Load { origin_bytes_s: 10.0, ..content };
        assert_eq!(settle(4, &idle, &targets).0, 2, "nothing to save: as few as allowed");
    }

    proptest! {
        #[test]
        fn a_steady_load_comes_to_rest_within_bounds(
            start in 1usize..20,
            requests_s in 0.0f64..3_000.0,
            ghost in 0.0f64..1e9,
            origin in 0.0f64..1e9,
            by_cache in any::<bool>(),
        ) {
            let targets = Targets {
                origin_saved_percent: by_cache.then_some(10.0),
                ..targets()
            };
            let load = Load {
                ghost_bytes_s: ghost.min(origin), origin_bytes_s: origin, ..load(requests_s)
            };
            let (nodes, changes) = settle(start, &load, &targets);
            prop_assert!((2..=10).contains(&nodes));
            prop_assert!(changes <= 20, "it never comes to rest: {changes} changes");
        }
    }
}
