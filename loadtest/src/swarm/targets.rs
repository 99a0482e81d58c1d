//! What a swarm is to reach (PURE): each figure with its least and its aim.

use serde::Serialize;

use super::results::Results;

/// One figure; less is better for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Target {
    /// What it is.
    pub figure: &'static str,
    /// What was measured; none when it was not.
    pub value: Option<f64>,
    /// The most that is good enough.
    pub least: f64,
    /// What is aimed at.
    pub aim: f64,
    /// True unless it was measured and is not good enough.
    pub met: bool,
}

/// All figures.
#[must_use]
pub fn judge(results: &Results) -> Vec<Target> {
    let timed = |value: f64| (results.times.count > 0).then_some(value);
    let (least, aim) = if results.killed.is_empty() { (1.01, 1.0) } else { (1.2, 1.05) };
    let all = [
        ("clients that failed", Some(results.failed as f64), 0.0, 0.0),
        ("p50 by the ideal", timed(results.times.p50), 1.15, 1.05),
        ("p99.9 by the ideal", timed(results.times.p99_9), 1.4, 1.15),
        ("origin bytes by the size", Some(results.origin_bytes_per_object), least, aim),
        ("bytes into a zone by the size", results.zone_bytes_per_object, 1.2, 1.02),
    ];
    // What is lost half way makes times worse that no target is set for.
    let counts = |figure: &str| results.killed.is_empty() || !figure.contains("ideal");
    let target = |(figure, value, least, aim): (_, Option<f64>, f64, _)| {
        let met = value.is_none_or(|value| value <= least);
        Target { figure, value, least, aim, met }
    };
    all.into_iter().filter(|(figure, ..)| counts(figure)).map(target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::results::Ratios;

    #[test]
    fn a_kill_allows_for_more_of_the_origin_but_not_for_a_failed_client() {
        let times = Ratios::of(vec![1.1, 1.2]);
        let results = Results { times, origin_bytes_per_object: 1.1, ..Results::default() };
        let missed = |results: &Results| {
            judge(results)
                .into_iter()
                .filter(|target| !target.met)
                .map(|target| target.figure)
                .collect::<Vec<_>>()
        };
        assert_eq!(missed(&results), ["origin bytes by the size"]);
        let killed = Results { killed: vec!["node-0".into()], ..results.clone() };
        assert!(missed(&killed).is_empty());
        assert_eq!(missed(&Results { failed: 1, ..killed }), ["clients that failed"]);
    }
}
