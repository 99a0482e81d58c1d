//! A pool's figures, for autoscaling: counters of its nodes' `/metrics`, and what they rose by since
//! the last look.

use std::collections::HashMap;
use std::net::IpAddr;

use futures::future::join_all;

use crate::autoscale::Load;
use crate::context::Sample;
use crate::control::Caller;

/// Requests, bytes to clients, processor seconds, bytes from origins, bytes of ghost hits.
const COUNTERS: [&str; 5] = [
    "shoal_edge_requests_total",
    "shoal_edge_response_bytes_total",
    "process_cpu_seconds_total",
    "shoal_origin_bytes_total",
    "shoal_store_ghost_hit_bytes_total",
];

/// The nodes' counters now, by node.
pub(super) async fn counters(
    caller: &Caller,
    nodes: &[(String, IpAddr)],
) -> HashMap<String, [f64; 5]> {
    let asked = nodes.iter().map(|(name, host)| async move {
        let text = caller.text(*host, "/metrics").await.ok()?;
        Some((name.clone(), COUNTERS.map(|counter| sum(&text, counter))))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// The sum of a counter over its labels.
fn sum(text: &str, counter: &str) -> f64 {
    let series = text.lines().filter_map(|line| line.strip_prefix(counter));
    let own = series.filter(|rest| rest.starts_with(['{', ' ']));
    own.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// What the nodes did between two samples, all together; nothing when one of `nodes` has no figures
/// in both.
pub(super) fn between(before: &Sample, now: &Sample, nodes: &[(String, IpAddr)]) -> Option<Load> {
    let seconds = u32::try_from(now.at_s.saturating_sub(before.at_s)).ok().filter(|s| *s > 0)?;
    let mut rose = [0.0; 5];
    for (name, _) in nodes {
        let (then, now) = (before.counters.get(name)?, now.counters.get(name)?);
        for (sum, (then, now)) in rose.iter_mut().zip(then.iter().zip(now)) {
            // A process that began anew begins at zero.
            *sum += if now >= then { now - then } else { *now };
        }
    }
    let [requests, egress, cpu, origin, ghost] = rose.map(|sum| sum / f64::from(seconds));
    Some(Load {
        nodes: nodes.len(),
        requests_s: requests,
        egress_bytes_s: egress,
        cpu_percent: cpu * 100.0,
        origin_bytes_s: origin,
        ghost_bytes_s: ghost,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP shoal_edge_requests_total x\n\
        shoal_edge_requests_total{tier=\"disk\"} 3\nshoal_edge_requests_total{tier=\"peer\"} 4\n\
        shoal_edge_requests_total_other 9\nprocess_cpu_seconds_total 1.5\n";

    #[test]
    fn counters_are_summed_over_labels() {
        assert!((sum(TEXT, "shoal_edge_requests_total") - 7.0).abs() < 1e-9);
        assert!((sum(TEXT, "process_cpu_seconds_total") - 1.5).abs() < 1e-9);
    }

    #[test]
    fn rates_need_all_nodes_twice() {
        let nodes = [("a".to_owned(), IpAddr::from([127, 0, 0, 1]))];
        let at = |at_s, requests| Sample {
            at_s,
            counters: [("a".to_owned(), [requests, 0.0, 0.0, 0.0, 0.0])].into(),
            ..Sample::default()
        };
        let load = between(&at(100, 50.0), &at(110, 150.0), &nodes).unwrap();
        assert!((load.requests_s - 10.0).abs() < 1e-9, "{load:?}");
        let anew = between(&at(100, 50.0), &at(110, 20.0), &nodes).unwrap();
        assert!((anew.requests_s - 2.0).abs() < 1e-9, "{anew:?}");
        assert_eq!(between(&Sample::default(), &at(110, 1.0), &nodes), None);
    }
}
