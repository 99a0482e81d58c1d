//! What a node is to reach beside others (PURE): each figure with its least and its aim.

use serde::Serialize;

use super::results::{Name, Protocol, Results, Run};

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Target {
    /// What it is.
    pub figure: &'static str,
    /// What was measured; none when it was not.
    pub value: Option<f64>,
    /// What is just good enough.
    pub least: f64,
    /// What is aimed at.
    pub aim: f64,
    /// True unless it was measured and is not good enough.
    pub met: bool,
}

const SMALL_BYTES: u64 = 1 << 10;
const LARGE_BYTES: u64 = 100 << 20;
/// Connections that the bound of memory is for.
const IDLE: u32 = 10_000;

/// All figures.
#[must_use]
pub fn judge(results: &Results) -> Vec<Target> {
    let ratio = |object, rival, of: fn(&Run) -> f64| {
        let own = of(results.of(Name::Shoal, Protocol::Http1, object)?);
        let other = of(results.of(rival, Protocol::Http1, object)?);
        (other > 0.0).then(|| own / other)
    };
    let rate = |run: &Run| run.requests_per_core_s;
    let p99 = |server| {
        let paced = results.paced.iter().find(|paced| paced.server == server)?;
        Some(paced.p99_us as f64)
    };
    let late = p99(Name::Shoal).zip(p99(Name::Nginx)).map(|(own, other)| own / other);
    let more = [
        ("1 KiB, requests per core by nginx's", ratio(SMALL_BYTES, Name::Nginx, rate), 1.0, 2.0),
        (
            "1 KiB, requests per core by Varnish's",
            ratio(SMALL_BYTES, Name::Varnish, rate),
            1.0,
            1.5,
        ),
        (
            "100 MiB, bytes per core by nginx's",
            ratio(LARGE_BYTES, Name::Nginx, |run| run.gb_per_core_s),
            0.8,
            1.05,
        ),
        (
            "100 MiB, bytes per second by nginx's",
            ratio(LARGE_BYTES, Name::Nginx, |run| run.gb_per_s),
            0.8,
            1.05,
        ),
    ];
    let less = [
        ("p99 at half of nginx's rate by nginx's", late, 1.0, 0.7),
        ("first byte of a miss over the origin's, p50, ms", added_ms(results), 1.5, 0.5),
        ("memory with 10,000 idle connections, MiB", idle_mib(results), 150.0, 60.0),
    ];
    let more = more.map(|target| (target, true));
    let all = more.into_iter().chain(less.map(|target| (target, false)));
    all.map(|((figure, value, least, aim), more)| {
        let good = |value: f64| if more { value >= least } else { value <= least };
        Target { figure, value, least, aim, met: value.is_none_or(good) }
    })
    .collect()
}

impl Target {
    /// Whether the aim is reached.
    #[must_use]
    pub fn aim_reached(&self) -> bool {
        let more = self.aim > self.least;
        self.value.is_some_and(|value| if more { value >= self.aim } else { value <= self.aim })
    }
}

fn added_ms(results: &Results) -> Option<f64> {
    let of = |server| results.misses.iter().find(|misses| misses.server == server);
    let (own, origin) = (of(Some(Name::Shoal))?, of(None)?);
    Some((own.p50_us as f64 - origin.p50_us as f64) / 1e3)
}

fn idle_mib(results: &Results) -> Option<f64> {
    let own = results.idle.iter().find(|idle| idle.server == Name::Shoal)?;
    (own.connections >= IDLE).then(|| own.rss_bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::{Idle, Misses, Paced};

    #[test]
    fn what_is_less_is_better_for_times_and_memory_alone() {
        let run = |server, figure| Run {
            server,
            protocol: Protocol::Http1,
            object_bytes: SMALL_BYTES,
            requests_per_s: 0.0,
            gb_per_s: 0.0,
            p50_us: None,
            p99_us: None,
            busy_cores: 1.0,
            cpu_us_per_request: 0.0,
            requests_per_core_s: figure,
            gb_per_core_s: 0.0,
            rss_bytes: 0,
        };
        let paced = |server, p99_us| Paced { server, requests_per_s: 1.0, p50_us: 1, p99_us };
        let misses = |server, p50_us| Misses { server, p50_us, p99_us: p50_us };
        let results = Results {
            medians: vec![run(Name::Shoal, 30.0), run(Name::Nginx, 20.0)],
            paced: vec![paced(Name::Shoal, 500), paced(Name::Nginx, 1_000)],
            misses: vec![misses(None, 100), misses(Some(Name::Shoal), 2_000)],
            idle: vec![Idle {
                server: Name::Shoal,
                connections: IDLE,
                rss_before_bytes: 0,
                rss_bytes: 100 << 20,
            }],
            ..Results::default()
        };
        let targets = judge(&results);
        let verdicts: Vec<_> =
            targets.iter().map(|target| (target.met, target.aim_reached())).collect();
        let none = (true, false);
        let wanted = [(true, false), none, none, none, (true, true), (false, false), (true, false)];
        assert_eq!(verdicts, wanted, "{targets:?}");
    }
}
