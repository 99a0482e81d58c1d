//! Which part of a large object goes when room is needed. PURE.
//!
//! The end goes first: what is asked for of a large object is most often its beginning, and whoever
//! reads all of it needs the end last. A part is large enough that the index hears of an object's
//! shrinking a bounded number of times, and what would be left of little use goes with it.

use shoal_proto::manifest::chunk_length;

use super::charge;
use super::record::{HoleRow, Place};
use super::table::Entry;

/// Objects from so many bytes on give way a part at a time.
pub const CUT_FROM_BYTES: u64 = 64 * 1024 * 1024;
/// No less than one in so many bytes of what an object must have to be cut is cut, or left.
const STEP_PART: u64 = 4;
/// No object is cut more often.
const STEPS_MAX: u64 = 64;

/// What goes of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// The places of its chunks.
    pub(super) holes: Vec<HoleRow>,
    /// What it frees of the budget.
    pub(super) freed_bytes: u64,
}

impl Cut {
    pub(super) fn chunks(&self) -> Vec<u32> {
        self.holes.iter().map(|hole| hole.chunk).collect()
    }
}

/// What is to go of an object that nobody holds, for somebody who needs so many bytes; `None` when
/// it goes as a whole.
pub(super) fn plan(entry: &Entry, needed_bytes: u64, cut_from_bytes: u64) -> Option<Cut> {
    let Entry { file, length, chunks, chunk_size, .. } = *entry;
    if entry.place != Place::File || chunk_size == 0 || length < cut_from_bytes {
        return None;
    }
    let step_bytes = needed_bytes.max(cut_from_bytes / STEP_PART).max(length / STEPS_MAX);
    let is_here = |chunk: &u32| entry.absent.as_ref().is_none_or(|absent| !absent.has(*chunk));
    let piece = |chunk: u32| charge::of_piece(chunk_length(length, chunk_size, chunk));
    let (mut holes, mut freed_bytes, mut left_bytes) = (Vec::new(), 0, 0);
    for chunk in (0..chunks).rev().filter(is_here) {
        if freed_bytes >= step_bytes {
            left_bytes += piece(chunk);
            continue;
        }
        let offset = u64::from(chunk) * u64::from(chunk_size);
        let bytes = u64::from(chunk_length(length, chunk_size, chunk));
        holes.push(HoleRow { file, chunk, offset, bytes });
        freed_bytes += piece(chunk);
    }
    // From the first cut on there is a bit for each chunk to be written.
    let bits_bytes = match entry.absent {
        Some(_) => 0,
        None => charge::of_bits(u64::from(chunks)),
    };
    let enough_is_left = left_bytes >= (cut_from_bytes / STEP_PART).max(1);
    (enough_is_left && freed_bytes > bits_bytes)
        .then(|| Cut { holes, freed_bytes: freed_bytes - bits_bytes })
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use shoal_proto::ObjectId;

    use super::super::FileId;
    use super::super::budget::Budget;
    use super::super::record::Record;
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn entry(length: u64, absent: &[u32]) -> Entry {
        let chunks = length.div_ceil(MIB) as u32;
        let bits = super::super::absent::Absent::none(chunks);
        bits.left(absent);
        let record = Record {
            file: FileId(7),
            place: Place::File,
            object_id: ObjectId::new([1; 32]),
            length,
            chunks,
            stored_ms: 0,
            charge_bytes: length,
            absent: bits.bits(),
            chunk_size: MIB as u32,
        };
        let budget = Budget::new(u64::MAX, prometheus::IntGauge::new("b", "b").unwrap());
        Entry::new(&record, budget.reserve(length).unwrap(), Weak::new())
    }

    fn chunks(entry: &Entry, needed_bytes: u64) -> Option<Vec<u32>> {
        plan(entry, needed_bytes, 8 * MIB).map(|cut| cut.chunks())
    }

    #[test]
    fn the_end_goes_first_in_steps() {
        assert_eq!(chunks(&entry(10 * MIB, &[]), 1), Some(vec![9, 8]));
        assert_eq!(chunks(&entry(10 * MIB, &[8, 3]), 3 * MIB), Some(vec![9, 7, 6]));
        assert_eq!(chunks(&entry(256 * MIB, &[]), 1).unwrap().len(), 4, "at most 64 times");
        let odd = plan(&entry(10 * MIB - 5000, &[9]), 1, 8 * MIB).unwrap();
        assert_eq!(odd.freed_bytes, 2 * MIB, "it was cut before");
        assert_eq!((odd.holes[0].offset, odd.holes[0].bytes), (8 * MIB, MIB));
        let last = plan(&entry(10 * MIB - 5000, &[]), 1, 8 * MIB).unwrap();
        assert_eq!(last.freed_bytes, 3 * MIB - 4096 - charge::of_bits(10));
        assert_eq!(last.holes[0].bytes, MIB - 5000);
    }

    #[test]
    fn what_is_small_or_would_be_of_no_use_goes_as_a_whole() {
        assert_eq!(chunks(&entry(7 * MIB, &[]), 1), None, "small");
        assert_eq!(chunks(&entry(10 * MIB, &[]), 9 * MIB), None, "too little would be left");
        assert_eq!(chunks(&entry(10 * MIB, &[2, 3, 4, 5, 6, 7, 8]), 1), None, "no more to cut");
        let mut inline = entry(10 * MIB, &[]);
        inline.chunk_size = 0;
        assert_eq!(chunks(&inline, 1), None, "an earlier version wrote it");
    }
}
