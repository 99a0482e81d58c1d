//! Popularity after Zipf (PURE): object `i` is asked for in proportion to `1 / (i + 1)^s`.
//!
//! The distribution is exact: cumulated weights and a binary search, eight bytes per object.

/// The popularity of a fixed number of objects.
#[derive(Clone, Debug)]
pub struct Zipf {
    cumulated: Vec<f64>,
}

impl Zipf {
    /// Popularity of `objects` objects with the given exponent; 0 makes all alike.
    #[must_use]
    pub fn new(objects: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let cumulate = |rank: usize| {
            sum += (rank as f64).powf(-exponent);
            sum
        };
        Self { cumulated: (1..=objects).map(cumulate).collect() }
    }

    /// The object at `position`, a number from 0 up to but without 1.
    #[must_use]
    pub fn pick(&self, position: f64) -> usize {
        let target = position * self.cumulated.last().copied().unwrap_or(0.0);
        let object = self.cumulated.partition_point(|&sum| sum <= target);
        object.min(self.cumulated.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn counts(objects: usize, exponent: f64, draws: usize) -> Vec<usize> {
        let zipf = Zipf::new(objects, exponent);
        let mut rng = Rng::new(42, 0);
        let mut counts = vec![0; objects];
        (0..draws).for_each(|_| counts[zipf.pick(rng.unit())] += 1);
        counts
    }

    #[test]
    fn shares_follow_the_law() {
        let draws = 200_000;
        let counts = counts(100, 0.9, draws);
        let total: f64 = (1..=100).map(|rank| f64::from(rank).powf(-0.9)).sum();
        for rank in [1_usize, 2, 5, 10, 50, 100] {
            let want = (rank as f64).powf(-0.9) / total * draws as f64;
            let got = counts[rank - 1] as f64;
            assert!((got - want).abs() < 5.0 * want.sqrt(), "rank {rank}: {got} for {want}");
        }
    }

    #[test]
    fn exponent_zero_is_uniform() {
        let counts = counts(10, 0.0, 10_000);
        assert!(counts.iter().all(|&n| (850..1150).contains(&n)), "{counts:?}");
    }

    #[test]
    fn the_ends_are_inside() {
        let zipf = Zipf::new(3, 1.0);
        assert_eq!(zipf.pick(0.0), 0);
        assert_eq!(zipf.pick(1.0), 2);
        assert_eq!(Zipf::new(1, 10.0).pick(0.999), 0);
    }
}
