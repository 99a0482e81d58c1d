//! What servers came to (PURE). Names carry units; the report shows them as they are.

use serde::Serialize;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Name {
    /// One node of Shoal.
    Shoal,
    /// nginx with `proxy_cache`.
    Nginx,
    /// Varnish with its store in memory.
    Varnish,
}

impl Name {
    /// As reports have it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Shoal => "shoal",
            Self::Nginx => "nginx",
            Self::Varnish => "varnish",
        }
    }
}

/// How clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1, connections kept.
    Http1,
    /// HTTP/2 in clear, by prior knowledge.
    Http2,
    /// HTTP/1.1 over TLS.
    Http1Tls,
    /// HTTP/2 over TLS.
    Http2Tls,
}

impl Protocol {
    /// As tables have it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
            Self::Http1Tls => "HTTP/1.1, TLS",
            Self::Http2Tls => "HTTP/2, TLS",
        }
    }
}

/// One server, asked for one object for a while.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Run {
    /// Who.
    pub server: Name,
    /// How.
    pub protocol: Protocol,
    /// The object's length.
    pub object_bytes: u64,
    /// Requests answered whole in a second.
    pub requests_per_s: f64,
    /// 10^9 bytes in a second, heads included.
    pub gb_per_s: f64,
    /// Half of the requests took no longer, in microseconds; none when hardly any ended.
    pub p50_us: Option<u64>,
    /// Of a hundred requests, all but one took no longer.
    pub p99_us: Option<u64>,
    /// Processors that the server kept busy.
    pub busy_cores: f64,
    /// Its processor time for each request, in microseconds.
    pub cpu_us_per_request: f64,
    /// Requests for each second of its processor time: what a core can do.
    pub requests_per_core_s: f64,
    /// 10^9 bytes for each second of its processor time.
    pub gb_per_core_s: f64,
    /// Its resident memory right after.
    pub rss_bytes: u64,
}

/// A server, asked at half of the highest rate that nginx came to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Paced {
    /// Who.
    pub server: Name,
    /// Requests that were sent in a second.
    pub requests_per_s: f64,
    /// Half of them took no longer, in microseconds.
    pub p50_us: u64,
    /// All but one of a hundred took no longer.
    pub p99_us: u64,
}

/// How long the first byte of what nobody has takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Misses {
    /// Who is before the origin; none for the origin alone.
    pub server: Option<Name>,
    /// Half of the first bytes took no longer, in microseconds.
    pub p50_us: u64,
    /// All but one of a hundred took no longer.
    pub p99_us: u64,
}

/// Memory with connections that have nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Idle {
    /// Who.
    pub server: Name,
    /// Connections that have asked once and stay.
    pub connections: u32,
    /// Resident memory of a server that has just started, in bytes.
    pub rss_before_bytes: u64,
    /// The same with those connections.
    pub rss_bytes: u64,
}

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Results {
    /// Medians of all rounds, each figure by itself.
    pub medians: Vec<Run>,
    /// Every run, in order.
    pub runs: Vec<Run>,
    /// At half of nginx's rate; medians.
    pub paced: Vec<Paced>,
    /// First bytes of misses.
    pub misses: Vec<Misses>,
    /// Memory with idle connections.
    pub idle: Vec<Idle>,
    /// True when a signal ended it early.
    pub interrupted: bool,
}

impl Results {
    /// Fills in what follows from the runs.
    pub fn sum_up(&mut self) {
        let mut seen = Vec::new();
        for run in &self.runs {
            let of = (run.protocol, run.object_bytes, run.server);
            if !seen.contains(&of) {
                seen.push(of);
            }
        }
        self.medians = seen.into_iter().filter_map(|of| self.median(of)).collect();
    }

    fn median(&self, of: (Protocol, u64, Name)) -> Option<Run> {
        let is_of = |run: &&Run| (run.protocol, run.object_bytes, run.server) == of;
        let runs: Vec<Run> = self.runs.iter().filter(is_of).copied().collect();
        let first = *runs.first()?;
        let real = |value: fn(&Run) -> f64| middle(runs.iter().map(value).collect());
        let time = |value: fn(&Run) -> Option<u64>| {
            let times: Vec<f64> = runs.iter().filter_map(value).map(|us| us as f64).collect();
            (!times.is_empty()).then(|| middle(times) as u64)
        };
        Some(Run {
            requests_per_s: real(|run| run.requests_per_s),
            gb_per_s: real(|run| run.gb_per_s),
            p50_us: time(|run| run.p50_us),
            p99_us: time(|run| run.p99_us),
            busy_cores: real(|run| run.busy_cores),
            cpu_us_per_request: real(|run| run.cpu_us_per_request),
            requests_per_core_s: real(|run| run.requests_per_core_s),
            gb_per_core_s: real(|run| run.gb_per_core_s),
            rss_bytes: real(|run| run.rss_bytes as f64) as u64,
            ..first
        })
    }

    /// The median run of a server.
    #[must_use]
    pub fn of(&self, server: Name, protocol: Protocol, object_bytes: u64) -> Option<&Run> {
        let of = (protocol, object_bytes, server);
        self.medians.iter().find(|run| (run.protocol, run.object_bytes, run.server) == of)
    }
}

/// The median; 0 of nothing.
#[must_use]
pub fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_one_server_and_object_each() {
        let run = |server, requests_per_s| Run {
            server,
            protocol: Protocol::Http1,
            object_bytes: 1024,
            requests_per_s,
            gb_per_s: 0.0,
            p50_us: None,
            p99_us: Some(requests_per_s as u64),
            busy_cores: 1.0,
            cpu_us_per_request: 0.0,
            requests_per_core_s: 0.0,
            gb_per_core_s: 0.0,
            rss_bytes: 1,
        };
        let (shoal, nginx) = (Name::Shoal, Name::Nginx);
        let runs = [(shoal, 3.0), (nginx, 50.0), (shoal, 1.0), (shoal, 2.0), (nginx, 70.0)];
        let runs = runs.into_iter().map(|(server, rate)| run(server, rate)).collect();
        let mut results = Results { runs, ..Results::default() };
        results.sum_up();
        let rate = |server| results.of(server, Protocol::Http1, 1024).unwrap().requests_per_s;
        assert_eq!((rate(shoal), rate(nginx)), (2.0, 60.0));
        assert_eq!(results.of(shoal, Protocol::Http1, 1024).unwrap().p99_us, Some(2));
        assert!(results.of(Name::Varnish, Protocol::Http1, 1024).is_none());
    }
}
