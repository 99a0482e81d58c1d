//! What transfers came to (PURE). Names carry units; the report shows them as they are.

use serde::Serialize;

use crate::scenario::transfer::Way;

/// One transfer.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Which round, from 0.
    pub round: u16,
    /// The way that chunks went.
    pub way: Way,
    /// Bytes of verified chunks.
    pub bytes: u64,
    /// From the first request to the last chunk, in milliseconds.
    pub elapsed_ms: u64,
    /// 10^9 bytes a second.
    pub gb_per_s: f64,
    /// The uploader's processor time for each 10^9 bytes.
    pub up_cpu_s_per_gb: f64,
    /// The downloader's.
    pub down_cpu_s_per_gb: f64,
    /// The most resident memory of the uploader, what it holds in memory included.
    pub up_rss_peak_bytes: u64,
    /// The most resident memory of the downloader.
    pub down_rss_peak_bytes: u64,
}

/// All transfers of one way: medians, and the worst memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The way.
    pub way: Way,
    /// 10^9 bytes a second.
    pub gb_per_s: f64,
    /// The uploader's processor time for each 10^9 bytes.
    pub up_cpu_s_per_gb: f64,
    /// The downloader's.
    pub down_cpu_s_per_gb: f64,
    /// Both together.
    pub cpu_s_per_gb: f64,
    /// The most resident memory of an uploader.
    pub up_rss_peak_bytes: u64,
    /// The most resident memory of a downloader.
    pub down_rss_peak_bytes: u64,
}

/// Everything.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Results {
    /// Way by way.
    pub ways: Vec<Summary>,
    /// The first way's processor time by the last one's; none with one way.
    pub cpu_ratio: Option<f64>,
    /// Every transfer, in order.
    pub runs: Vec<Run>,
    /// True when a signal ended it early.
    pub interrupted: bool,
}

impl Results {
    /// Fills in what follows from the runs.
    pub fn sum_up(&mut self, ways: &[Way]) {
        self.ways = ways.iter().map(|way| self.summary(*way)).collect();
        self.cpu_ratio = match self.ways.as_slice() {
            [first, .., last] if last.cpu_s_per_gb > 0.0 => {
                Some(first.cpu_s_per_gb / last.cpu_s_per_gb)
            }
            _ => None,
        };
    }

    fn summary(&self, way: Way) -> Summary {
        let runs: Vec<&Run> = self.runs.iter().filter(|run| run.way == way).collect();
        let of = |figure: fn(&Run) -> f64| median(runs.iter().map(|run| figure(run)).collect());
        let most = |figure: fn(&Run) -> u64| runs.iter().map(|run| figure(run)).max();
        Summary {
            way,
            gb_per_s: of(|run| run.gb_per_s),
            up_cpu_s_per_gb: of(|run| run.up_cpu_s_per_gb),
            down_cpu_s_per_gb: of(|run| run.down_cpu_s_per_gb),
            cpu_s_per_gb: of(|run| run.up_cpu_s_per_gb + run.down_cpu_s_per_gb),
            up_rss_peak_bytes: most(|run| run.up_rss_peak_bytes).unwrap_or_default(),
            down_rss_peak_bytes: most(|run| run.down_rss_peak_bytes).unwrap_or_default(),
        }
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(way: Way, cpu: f64, rss: u64) -> Run {
        Run {
            round: 0,
            way,
            bytes: 1,
            elapsed_ms: 1,
            gb_per_s: 1.0,
            up_cpu_s_per_gb: cpu,
            down_cpu_s_per_gb: cpu,
            up_rss_peak_bytes: rss,
            down_rss_peak_bytes: rss,
        }
    }

    #[test]
    fn the_median_counts_and_the_worst_memory() {
        let grpc = [4.0, 9.0, 3.0].map(|cpu| run(Way::Grpc, cpu, cpu as u64));
        let lane = [2.0, 1.0, 8.0].map(|cpu| run(Way::Lane, cpu, cpu as u64));
        let mut results = Results { runs: [grpc, lane].concat(), ..Results::default() };
        results.sum_up(&[Way::Grpc, Way::Lane]);
        assert_eq!(results.ways[0].cpu_s_per_gb, 8.0);
        assert_eq!(results.ways[0].up_rss_peak_bytes, 9);
        assert_eq!(results.cpu_ratio, Some(2.0));
        results.sum_up(&[Way::Lane]);
        assert_eq!(results.cpu_ratio, None);
    }
}
