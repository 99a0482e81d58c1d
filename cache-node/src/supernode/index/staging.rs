//! A group's staged writes, and reads that see them over what RocksDB holds.
//!
//! Changes of complete holders, by far the most, are gathered and go into the write batch at the
//! end, sorted and one merge an object: neighbours in the memtable follow one another. All else goes
//! there at once. Every staged write is in the batch, so that both always agree.

use std::collections::{BTreeMap, HashMap};

use prost::Message;
use rocksdb::{DB, WriteBatch};
use shoal_proto::wire::v1;
use shoal_proto::{ObjectKey, ObjectRef};

use super::IndexError;
use super::slot_list::{self, Slot};
use super::storage::{self, family};
use super::tables::{self, DIGEST, HEADS, HOLDERS, PARTIAL, PartialKey, RUNNING};

/// What a staged write does, in digests.
const PUT: u8 = 1;
const DELETE: u8 = 2;
const HOLDS: u8 = 3;
const LACKS: u8 = 4;

fn length(bytes: &[u8]) -> [u8; 8] {
    (bytes.len() as u64).to_be_bytes()
}

/// A staged change of one object's list of holders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    object: ObjectRef,
    sequence: usize,
    slot: Slot,
    holds: bool,
}

/// A group's staged writes over the database.
pub(super) struct Staging<'a> {
    db: &'a DB,
    batch: &'a mut WriteBatch,
    heads: BTreeMap<ObjectKey, Option<v1::IndexHead>>,
    partials: BTreeMap<PartialKey, bool>,
    changes: Vec<Change>,
    /// Takes in everything that the position at hand stages.
    digest: blake3::Hasher,
}

impl<'a> Staging<'a> {
    pub(super) fn new(db: &'a DB, batch: &'a mut WriteBatch) -> Self {
        let (heads, partials) = (BTreeMap::new(), BTreeMap::new());
        let digest = blake3::Hasher::new();
        Self { db, batch, heads, partials, changes: Vec::new(), digest }
    }

    /// From here on, what is staged goes into `digest`; what was before is returned.
    pub(super) fn digest_into(&mut self, digest: blake3::Hasher) -> blake3::Hasher {
        std::mem::replace(&mut self.digest, digest)
    }

    fn digest(&mut self, what: u8, name: &str, parts: [&[u8]; 2]) {
        self.digest.update(&[what]).update(&length(name.as_bytes())).update(name.as_bytes());
        for part in parts {
            self.digest.update(&length(part)).update(part);
        }
    }

    /// Stages a write that the group itself does not read back.
    pub(super) fn write(
        &mut self,
        name: &'static str,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), IndexError> {
        let family = family(self.db, name)?;
        match value {
            Some(value) => self.batch.put_cf(family, key, value),
            None => self.batch.delete_cf(family, key),
        }
        let what = if value.is_some() { PUT } else { DELETE };
        self.digest(what, name, [key, value.unwrap_or_default()]);
        Ok(())
    }

    pub(super) fn head(&self, key: &ObjectKey) -> Result<Option<v1::IndexHead>, IndexError> {
        match self.heads.get(key) {
            Some(staged) => Ok(staged.clone()),
            None => storage::read_head(self.db, key),
        }
    }

    pub(super) fn put_head(
        &mut self,
        key: ObjectKey,
        head: v1::IndexHead,
    ) -> Result<(), IndexError> {
        self.write(HEADS, key.as_bytes(), Some(&head.encode_to_vec()))?;
        self.heads.insert(key, Some(head));
        Ok(())
    }

    pub(super) fn drop_head(&mut self, key: ObjectKey) -> Result<(), IndexError> {
        self.write(HEADS, key.as_bytes(), None)?;
        self.heads.insert(key, None);
        Ok(())
    }

    /// Says of a slot that it has all of some objects, or has it no longer. They are packed
    /// references, which were checked.
    pub(super) fn set_complete(&mut self, slot: Slot, holds: bool, packed: &[u8]) {
        let what = if holds { HOLDS } else { LACKS };
        self.digest(what, HOLDERS, [&slot.to_be_bytes(), packed]);
        for object in ObjectRef::list(packed).into_iter().flatten() {
            let sequence = self.changes.len();
            self.changes.push(Change { object, sequence, slot, holds });
        }
    }

    /// Says what a slot has of an object, or that it has nothing partial of it.
    pub(super) fn set_partial(
        &mut self,
        object: ObjectRef,
        slot: Slot,
        bitmap: Option<&[u8]>,
    ) -> Result<(), IndexError> {
        let key = tables::partial_key(object, slot);
        self.write(PARTIAL, &key, bitmap)?;
        self.partials.insert(key, bitmap.is_some());
        Ok(())
    }

    /// Whether any slot that `counts` has some of each of `objects`.
    pub(super) fn held(
        &self,
        objects: &[ObjectRef],
        counts: impl Fn(Slot) -> bool,
    ) -> Result<Vec<bool>, IndexError> {
        let mut staged: HashMap<ObjectRef, Vec<(Slot, bool)>> =
            objects.iter().map(|object| (*object, Vec::new())).collect();
        for change in &self.changes {
            if let Some(changes) = staged.get_mut(&change.object) {
                changes.push((change.slot, change.holds));
            }
        }
        objects
            .iter()
            .map(|object| {
                let mut all = storage::complete(self.db, *object)?;
                let changes = staged.get(object).into_iter().flatten();
                changes.for_each(|change| slot_list::apply(&mut all, *change));
                let complete = all.iter().any(|(slot, holds)| *holds && counts(*slot));
                Ok(complete || self.held_partly(*object, &counts)?)
            })
            .collect()
    }

    fn held_partly(
        &self,
        object: ObjectRef,
        counts: impl Fn(Slot) -> bool,
    ) -> Result<bool, IndexError> {
        let range = tables::partial_key(object, Slot::MIN)..=tables::partial_key(object, Slot::MAX);
        let mut staged = self.partials.range(range).filter(|(_, there)| **there);
        let slot = |key: &PartialKey| tables::partial_parts(key).map(|(_, slot)| slot);
        if staged.any(|(key, _)| slot(key).is_some_and(&counts)) {
            return Ok(true);
        }
        for entry in storage::partial(self.db, object)? {
            let (slot, _) = entry?;
            let untouched = !self.partials.contains_key(&tables::partial_key(object, slot));
            if untouched && counts(slot) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Puts what was gathered into the batch, and the digest that came of all.
    pub(super) fn finish(mut self, digest: &[u8]) -> Result<(), IndexError> {
        self.batch.put_cf(family(self.db, DIGEST)?, RUNNING, digest);
        let holders = family(self.db, HOLDERS)?;
        self.changes.sort_unstable();
        let mut operand = Vec::new();
        let mut entries = Vec::new();
        for changes in self.changes.chunk_by(|one, other| one.object == other.object) {
            operand.clear();
            match changes {
                [only] => slot_list::encode_into(&mut operand, [(only.slot, only.holds)]),
                several => {
                    entries.clear();
                    for change in several {
                        slot_list::apply(&mut entries, (change.slot, change.holds));
                    }
                    slot_list::encode_into(&mut operand, entries.iter().copied());
                }
            }
            let object = changes.first().map(|change| change.object.0).unwrap_or_default();
            self.batch.merge_cf(holders, object, &operand);
        }
        Ok(())
    }
}
