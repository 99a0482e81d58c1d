//! PURE. Which slots hold an object, in a few bytes: the values of the family `holders`, and the
//! operands by which they change without being read.
//!
//! A list is a sequence of varints, one for each slot in ascending order: the distance from the slot
//! before (from 0 for the first), shifted left by one; the lowest bit says that the slot holds the
//! object no longer. Such entries stand in operands alone: where a value results they are left out.
//!
//! Invariants: merging is associative, the later entry for a slot wins; it is total: of bytes that
//! are no list, what can be read from their start counts and the rest does not.

use rocksdb::{MergeOperands, Options};

/// Stands for a node in lists of holders.
pub type Slot = u16;

/// The operator's name, kept by RocksDB: another layout needs another name.
const OPERATOR: &std::ffi::CStr = c"shoal-slots-1";
const FILTER: &std::ffi::CStr = c"shoal-held-1";

/// Entries of a list: slots, and whether each holds the object.
#[derive(Clone, Debug)]
pub(super) struct Entries<'a> {
    bytes: &'a [u8],
    slot: Slot,
}

/// Reads a list.
pub(super) fn entries(bytes: &[u8]) -> Entries<'_> {
    Entries { bytes, slot: 0 }
}

impl Iterator for Entries<'_> {
    type Item = (Slot, bool);

    fn next(&mut self) -> Option<(Slot, bool)> {
        let (mut code, mut shift) = (0u32, 0);
        loop {
            let (&byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            code |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift > 14 {
                return self.end();
            }
        }
        let distance = Slot::try_from(code >> 1).ok().filter(|distance| *distance > 0);
        match distance.and_then(|distance| self.slot.checked_add(distance)) {
            Some(slot) => {
                self.slot = slot;
                Some((slot, code & 1 == 0))
            }
            None => self.end(),
        }
    }
}

impl Entries<'_> {
    fn end(&mut self) -> Option<(Slot, bool)> {
        self.bytes = &[];
        None
    }
}

/// The list of `entries`, which are in ascending order of slots.
pub(super) fn encode(entries: impl IntoIterator<Item = (Slot, bool)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_into(&mut bytes, entries);
    bytes
}

/// Appends the list of `entries`, which are in ascending order of slots.
pub(super) fn encode_into(bytes: &mut Vec<u8>, entries: impl IntoIterator<Item = (Slot, bool)>) {
    let mut before = 0;
    for (slot, holds) in entries {
        let mut code = u32::from(slot - before) << 1 | u32::from(!holds);
        before = slot;
        while code >= 0x80 {
            bytes.push(code.to_le_bytes()[0] | 0x80);
            code >>= 7;
        }
        bytes.push(code.to_le_bytes()[0]);
    }
}

/// The entries that `lists` leave, oldest list first.
pub(super) fn fold<'a>(lists: impl IntoIterator<Item = &'a [u8]>) -> Vec<(Slot, bool)> {
    let mut all: Vec<(Slot, bool)> = Vec::new();
    for list in lists {
        for entry in entries(list) {
            apply(&mut all, entry);
        }
    }
    all
}

/// Takes one change into entries that are in ascending order of slots.
pub(super) fn apply(all: &mut Vec<(Slot, bool)>, entry: (Slot, bool)) {
    if all.last().is_none_or(|last| last.0 < entry.0) {
        return all.push(entry);
    }
    match all.binary_search_by_key(&entry.0, |(slot, _)| *slot) {
        Ok(at) => all[at] = entry,
        Err(at) => all.insert(at, entry),
    }
}

fn merge(value: Option<&[u8]>, operands: &MergeOperands) -> Vec<u8> {
    let all = fold(value.into_iter().chain(operands.iter()));
    encode(all.into_iter().filter(|(_, holds)| *holds))
}

fn merge_operands(operands: &MergeOperands) -> Vec<u8> {
    encode(fold(operands.iter()))
}

/// Has RocksDB merge lists, and drop the empty ones when it compacts.
pub(super) fn merged(options: &mut Options) {
    options.set_merge_operator(
        OPERATOR,
        |_: &[u8], value: Option<&[u8]>, operands: &MergeOperands| Some(merge(value, operands)),
        |_: &[u8], _: Option<&[u8]>, operands: &MergeOperands| Some(merge_operands(operands)),
    );
    // An empty value is no value to every reader, so which replica still has it does not matter.
    options.set_compaction_filter(FILTER, |_: u32, _: &[u8], value: &[u8]| {
        match value.is_empty() {
            true => rocksdb::CompactionDecision::Remove,
            false => rocksdb::CompactionDecision::Keep,
        }
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(lists: &[&[u8]]) -> Vec<u8> {
        encode(fold(lists.iter().copied()).into_iter().filter(|(_, holds)| *holds))
    }

    #[test]
    fn a_slot_takes_a_byte_or_two() {
        assert_eq!(encode([(1, true)]), [2]);
        assert_eq!(encode([(63, true), (64, false)]), [126, 3]);
        assert_eq!(encode([(4_096, true)]).len(), 2);
        assert_eq!(encode((1..=100).map(|slot| (slot, true))).len(), 100);
    }

    #[test]
    fn the_later_entry_wins() {
        let (add, drop) = (encode([(7, true)]), encode([(7, false)]));
        assert!(value(&[&add, &drop]).is_empty());
        assert_eq!(value(&[&drop, &add]), add);
        let both = encode([(3, true), (7, true)]);
        assert_eq!(value(&[&add, &encode([(3, true)])]), both);
        assert_eq!(value(&[&both, &drop]), encode([(3, true)]));
    }

    #[test]
    fn what_is_no_list_ends_it() {
        assert_eq!(entries(&[2, 0x80]).collect::<Vec<_>>(), [(1, true)]);
        assert_eq!(entries(&[0, 2]).count(), 0, "a distance of nothing");
        assert_eq!(entries(&[0xff, 0xff, 0xff, 1, 2]).count(), 0, "too long");
        let highest = encode([(u16::MAX, true)]);
        assert_eq!(entries(&[&highest[..], &[2]].concat()).count(), 1, "beyond the last slot");
    }

    fn list() -> impl Strategy<Value = Vec<u8>> {
        let sorted = prop::collection::btree_map(1u16.., any::<bool>(), 0..6).prop_map(encode);
        prop_oneof![sorted, prop::collection::vec(any::<u8>(), 0..8)]
    }

    proptest! {
        #[test]
        fn lists_round_trip(slots in prop::collection::btree_map(1u16.., any::<bool>(), 0..40)) {
            let bytes = encode(slots.clone());
            prop_assert_eq!(entries(&bytes).collect::<Vec<_>>(), slots.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn merging_is_associative_whatever_the_bytes(
            lists in prop::collection::vec(list(), 1..8),
            from in 0usize..8,
            count in 0usize..8,
        ) {
            let lists: Vec<&[u8]> = lists.iter().map(Vec::as_slice).collect();
            let from = from.min(lists.len());
            let to = (from + count).min(lists.len());
            let some = encode(fold(lists[from..to].iter().copied()));
            let mut fewer = lists[..from].to_vec();
            fewer.push(&some);
            fewer.extend(&lists[to..]);
            prop_assert_eq!(value(&fewer), value(&lists));
            prop_assert_eq!(encode(fold(fewer)), encode(fold(lists)));
        }
    }
}
