//! The mix of object sizes (PURE): `4KiB:50,64KiB:30`, a size and its weight each.

use std::{fmt, str::FromStr};

use serde::Serialize;
use thiserror::Error;

use crate::{
    content::OBJECT_SIZE_MAX_BYTES,
    units::{UnitError, parse_size, show_bytes},
};

/// Size classes in one mix.
pub const SIZE_CLASSES_MAX: usize = 64;

/// The largest weight; weights are relative, so more would say nothing new.
pub const WEIGHT_MAX: u32 = 1_000_000;

/// One size and how often it occurs, relative to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SizeClass {
    /// Bytes of each object in the class.
    pub size_bytes: u64,
    /// Share among all weights.
    pub weight: u32,
}

/// A list of size classes with at least one positive weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SizeMix {
    classes: Vec<SizeClass>,
}

/// Why a mix was not understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SizesError {
    /// A part without a colon, or an empty list.
    #[error("`{0}` is no size with a weight; write SIZE:WEIGHT,..., for example 4KiB:50,1MiB:15")]
    Form(String),
    /// The size in front of the colon.
    #[error("{0}")]
    Size(#[from] UnitError),
    /// A size that the origin does not offer.
    #[error("{0} bytes are too large; the origin's limit is {OBJECT_SIZE_MAX_BYTES} bytes")]
    TooLarge(u64),
    /// The number after the colon.
    #[error("the weight `{0}` is no whole number up to {WEIGHT_MAX}; write for example 4KiB:50")]
    Weight(String),
    /// Every weight is zero.
    #[error("every weight is zero; give at least one size a weight of 1 or more")]
    NoWeight,
    /// The list is too long.
    #[error("{0} sizes are too many; the limit is {SIZE_CLASSES_MAX}")]
    TooMany(usize),
}

impl FromStr for SizeMix {
    type Err = SizesError;

    fn from_str(text: &str) -> Result<Self, SizesError> {
        let classes = text.split(',').map(parse_class).collect::<Result<Vec<_>, _>>()?;
        if classes.len() > SIZE_CLASSES_MAX {
            return Err(SizesError::TooMany(classes.len()));
        }
        if classes.iter().all(|class| class.weight == 0) {
            return Err(SizesError::NoWeight);
        }
        Ok(Self { classes })
    }
}

fn parse_class(part: &str) -> Result<SizeClass, SizesError> {
    let (size, weight) =
        part.rsplit_once(':').ok_or_else(|| SizesError::Form(part.trim().to_owned()))?;
    let size_bytes = parse_size(size)?;
    if size_bytes > OBJECT_SIZE_MAX_BYTES {
        return Err(SizesError::TooLarge(size_bytes));
    }
    let parsed = weight.trim().parse().ok().filter(|weight| *weight <= WEIGHT_MAX);
    let weight = parsed.ok_or_else(|| SizesError::Weight(weight.trim().to_owned()))?;
    Ok(SizeClass { size_bytes, weight })
}

impl SizeMix {
    /// The classes, as given.
    #[must_use]
    pub fn classes(&self) -> &[SizeClass] {
        &self.classes
    }

    /// Sizes of `objects` objects, class by class, in shares as exact as whole numbers allow
    /// (largest remainder), so that a small run is not a different mix by chance.
    #[must_use]
    pub fn apportion(&self, objects: usize) -> Vec<u64> {
        let total: u128 = self.classes.iter().map(|class| u128::from(class.weight)).sum();
        let share = |class: &SizeClass| objects as u128 * u128::from(class.weight);
        let mut counts: Vec<usize> =
            self.classes.iter().map(|class| (share(class) / total) as usize).collect();
        let missing = objects - counts.iter().sum::<usize>();
        let mut by_remainder: Vec<usize> = (0..self.classes.len()).collect();
        by_remainder.sort_by_key(|&index| std::cmp::Reverse(share(&self.classes[index]) % total));
        for &index in by_remainder.iter().take(missing) {
            counts[index] += 1;
        }
        let sizes = self.classes.iter().zip(counts);
        sizes.flat_map(|(class, count)| std::iter::repeat_n(class.size_bytes, count)).collect()
    }
}

impl fmt::Display for SizeMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, class) in self.classes.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{} x{}", show_bytes(class.size_bytes), class.weight)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix(text: &str) -> SizeMix {
        text.parse().unwrap()
    }

    #[test]
    fn reads_sizes_and_weights() {
        let classes: Vec<_> = mix("4KiB:50, 1MiB:15 ,7:1")
            .classes()
            .iter()
            .map(|class| (class.size_bytes, class.weight))
            .collect();
        assert_eq!(classes, [(4096, 50), (1 << 20, 15), (7, 1)]);
    }

    #[test]
    fn refuses_what_is_no_mix() {
        let refused = |text: &str| text.parse::<SizeMix>().unwrap_err();
        assert!(matches!(refused(""), SizesError::Form(_)));
        assert!(matches!(refused("4KiB"), SizesError::Form(_)));
        assert!(matches!(refused("4KiB:50,"), SizesError::Form(_)));
        assert!(matches!(refused("4XiB:50"), SizesError::Size(_)));
        assert!(matches!(refused("4KiB:-1"), SizesError::Weight(_)));
        assert!(matches!(refused("4KiB:1000001"), SizesError::Weight(_)));
        assert!(matches!(refused("4KiB:0,1:0"), SizesError::NoWeight));
        assert!(matches!(refused("2TiB:1"), SizesError::TooLarge(_)));
        assert!(matches!(refused(&["1:1"; 65].join(",")), SizesError::TooMany(65)));
    }

    #[test]
    fn shares_are_exact() {
        let sizes = mix("1:50,2:30,3:15,4:5").apportion(400);
        let count = |size| sizes.iter().filter(|&&s| s == size).count();
        assert_eq!([count(1), count(2), count(3), count(4)], [200, 120, 60, 20]);
        let sizes = mix("1:1,2:1,3:1").apportion(10);
        assert_eq!(sizes.len(), 10);
        assert_eq!(mix("1:1,2:0").apportion(3), [1, 1, 1]);
        assert_eq!(mix("5:1000000").apportion(1), [5]);
    }
}
