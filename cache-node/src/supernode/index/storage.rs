//! The index's column families in RocksDB: how they are opened, and reads of what they hold.

use prost::Message;
use rocksdb::{
    BlockBasedOptions, ColumnFamily, ColumnFamilyDescriptor, DB, IteratorMode, Options,
    PrefixRange, ReadOptions,
};
use shoal_proto::wire::v1;
use shoal_proto::{NodeId, ObjectKey, ObjectRef};

use super::slot_list::{self, Slot};
use super::slots::Slots;
use super::tables::{self, COLUMN_FAMILIES, HEADS, HOLDERS, PARTIAL};
use super::{Holders, Holding, IndexError};

/// Bits of a filter for each key, in families that are read by whole keys.
const FILTER_BITS: f64 = 10.0;

/// The families as they must be opened wherever the index is; what is not the index's to say comes
/// from `base`.
pub fn descriptors(base: &Options) -> Vec<ColumnFamilyDescriptor> {
    let descriptor = |name: &str| ColumnFamilyDescriptor::new(name, options(name, base.clone()));
    COLUMN_FAMILIES.into_iter().map(descriptor).collect()
}

fn options(name: &str, mut options: Options) -> Options {
    if name == HOLDERS || name == HEADS {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_bloom_filter(FILTER_BITS, false);
        options.set_block_based_table_factory(&blocks);
        // The last level holds almost everything, and most of what is looked up is there.
        options.set_optimize_filters_for_hits(true);
    }
    if name == HOLDERS {
        slot_list::merged(&mut options);
    }
    options
}

/// A family's handle.
pub(super) fn family<'a>(db: &'a DB, name: &'static str) -> Result<&'a ColumnFamily, IndexError> {
    db.cf_handle(name).ok_or(IndexError::Family { name })
}

type Entry = Result<(Box<[u8]>, Box<[u8]>), rocksdb::Error>;

/// All entries of a family under `prefix`, in order.
pub(super) fn scan<'a>(
    db: &'a DB,
    name: &'static str,
    prefix: &[u8],
) -> Result<impl Iterator<Item = Entry> + use<'a>, IndexError> {
    let mut options = ReadOptions::default();
    if !prefix.is_empty() {
        options.set_iterate_range(PrefixRange(prefix.to_vec()));
    }
    Ok(db.iterator_cf_opt(family(db, name)?, options, IteratorMode::Start))
}

/// The key's head as RocksDB holds it.
pub(super) fn read_head(db: &DB, key: &ObjectKey) -> Result<Option<v1::IndexHead>, IndexError> {
    let value = db.get_pinned_cf(family(db, HEADS)?, key.as_bytes())?;
    value.map(|value| decode_head(&value)).transpose()
}

pub(super) fn decode_head(value: &[u8]) -> Result<v1::IndexHead, IndexError> {
    v1::IndexHead::decode(value).map_err(|_| IndexError::Corrupt { family: HEADS })
}

/// The slots that have all of an object, void ones among them.
pub(super) fn complete(db: &DB, object: ObjectRef) -> Result<Vec<(Slot, bool)>, IndexError> {
    let value = db.get_pinned_cf(family(db, HOLDERS)?, object.0)?;
    Ok(value.map(|value| slot_list::entries(&value).collect()).unwrap_or_default())
}

type SlotBitmap = (Slot, Box<[u8]>);

/// The slots that have some of an object and what, void ones among them.
pub(super) fn partial(
    db: &DB,
    object: ObjectRef,
) -> Result<impl Iterator<Item = Result<SlotBitmap, IndexError>> + use<'_>, IndexError> {
    let corrupt = || IndexError::Corrupt { family: PARTIAL };
    Ok(scan(db, PARTIAL, &object.0)?.map(move |entry| {
        let (key, value) = entry?;
        let (_, slot) = tables::partial_parts(&key).ok_or_else(corrupt)?;
        Ok((slot, value))
    }))
}

/// Who has what of an object, in the order of node ids.
pub(super) fn holdings(
    db: &DB,
    slots: &Slots,
    object: ObjectRef,
) -> Result<Vec<(NodeId, Holding)>, IndexError> {
    let all = complete(db, object)?;
    let has_all = |slot: Slot| all.binary_search_by_key(&slot, |(slot, _)| *slot).is_ok();
    let node = |slot: Slot| slots.node(slot);
    let mut found: Vec<_> =
        all.iter().filter_map(|(slot, _)| Some((node(*slot)?, Holding::Complete))).collect();
    if slots.any_partials() {
        for entry in partial(db, object)? {
            let (slot, bitmap) = entry?;
            if let Some(node) = node(slot).filter(|_| !has_all(slot)) {
                found.push((node, Holding::Bitmap(bitmap.into_vec())));
            }
        }
    }
    found.sort_unstable_by_key(|(node, _)| *node);
    Ok(found)
}

/// Who has all, and who some, of each of many objects.
pub(super) fn locate(
    db: &DB,
    slots: &Slots,
    objects: &[ObjectRef],
) -> Result<Vec<Holders>, IndexError> {
    let keys = objects.iter().map(|object| &object.0);
    let values = db.batched_multi_get_cf(family(db, HOLDERS)?, keys, false);
    let mut found = Vec::with_capacity(objects.len());
    for (value, object) in values.into_iter().zip(objects) {
        let value = value?;
        let all = value.iter().flat_map(|value| slot_list::entries(value));
        let complete = all.filter_map(|(slot, _)| slots.node(slot)).collect();
        let mut holders = Holders { complete, partial: Vec::new() };
        if slots.any_partials() {
            for entry in partial(db, *object)? {
                let node = slots.node(entry?.0);
                holders.partial.extend(node.filter(|node| !holders.complete.contains(node)));
            }
        }
        found.push(holders);
    }
    Ok(found)
}
