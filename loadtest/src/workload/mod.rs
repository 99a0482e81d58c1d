//! Which object is asked for when (PURE): a function of the scenario and its seed.

pub mod arrivals;
pub mod catalog;
pub mod zipf;

use std::time::Duration;

pub use arrivals::Arrivals;
pub use catalog::Catalog;
pub use zipf::Zipf;

use crate::{
    rng::Rng,
    scenario::{Scenario, SizeMix},
};

/// Keeps the uses of the one workload seed apart.
#[derive(Clone, Copy)]
enum Stream {
    Sizes = 1,
    Popularity = 2,
    Arrivals = 3,
}

/// One request that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its number, from 0.
    pub number: u64,
    /// When, from the run's start.
    pub at: Duration,
    /// Which object.
    pub object: usize,
}

/// All requests of a run, in the order in which they are due.
#[derive(Clone, Debug)]
pub struct Workload {
    arrivals: Arrivals,
    zipf: Zipf,
    popularity: Rng,
    number: u64,
}

impl Workload {
    /// The requests of `scenario`.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        let rng = |stream: Stream| Rng::new(scenario.workload_seed, stream as u64);
        Self {
            arrivals: Arrivals::new(
                scenario.spacing,
                scenario.rate_per_s,
                scenario.duration,
                rng(Stream::Arrivals),
            ),
            zipf: Zipf::new(scenario.objects, scenario.zipf_exponent),
            popularity: rng(Stream::Popularity),
            number: 0,
        }
    }

    /// The objects of `scenario`.
    #[must_use]
    pub fn catalog(scenario: &Scenario) -> Catalog {
        Self::objects((&scenario.prefix, scenario.workload_seed), scenario.objects, &scenario.sizes)
    }

    /// So many objects of these sizes, by the start of their names and the workload's seed.
    #[must_use]
    pub fn objects((prefix, seed): (&str, u64), objects: usize, sizes: &SizeMix) -> Catalog {
        let mut rng = Rng::new(seed, Stream::Sizes as u64);
        let mut sizes = sizes.apportion(objects);
        // Popularity goes by number, so the order of sizes decides which sizes are popular.
        rng.shuffle(&mut sizes);
        Catalog::new(prefix, seed, sizes)
    }
}

impl Iterator for Workload {
    type Item = Due;

    fn next(&mut self) -> Option<Due> {
        let at = self.arrivals.next()?;
        let object = self.zipf.pick(self.popularity.unit());
        let number = self.number;
        self.number += 1;
        Some(Due { number, at, object })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::scenario::{Cli, Command};

    fn scenario(flags: &str) -> Scenario {
        let line = format!("shoal-loadtest run --edge http://a:1 {flags}");
        match Cli::parse_from(line.split_whitespace()).command {
            Command::Run(args) => Scenario::try_from(*args).unwrap(),
            _ => panic!("not a run"),
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_run() {
        let run = |flags| Workload::new(&scenario(flags)).take(200).collect::<Vec<_>>();
        assert_eq!(run("--workload-seed 5"), run("--workload-seed 5"));
        assert_ne!(run("--workload-seed 5"), run("--workload-seed 6"));
        assert_eq!(run("--seed 5"), run("--seed 6"), "the content's seed changes no request");
    }

    #[test]
    fn the_run_has_the_asked_rate_and_ends_in_time() {
        let all: Vec<_> = Workload::new(&scenario("--rate 500 --duration 20s")).collect();
        assert!((9_600..10_400).contains(&all.len()), "{}", all.len());
        assert!(all.iter().all(|due| due.at < Duration::from_secs(20)));
        assert!(all.windows(2).all(|pair| pair[0].at <= pair[1].at));
        assert!(all.iter().zip(0..).all(|(due, number)| due.number == number));
    }

    #[test]
    fn the_catalog_has_the_mix_in_a_seeded_order() {
        let catalog = Workload::catalog(&scenario("--objects 100 --sizes 10:90,20:10"));
        let large = (0..100).filter(|&object| catalog.size_bytes(object) == 20).count();
        assert_eq!(large, 10);
        let other =
            Workload::catalog(&scenario("--objects 100 --sizes 10:90,20:10 --workload-seed 2"));
        let sizes = |catalog: &Catalog| (0..100).map(|o| catalog.size_bytes(o)).collect::<Vec<_>>();
        assert_ne!(sizes(&catalog), sizes(&other));
    }
}
