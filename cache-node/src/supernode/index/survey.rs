//! Looks for what is of no use any more, piece by piece: what void slots still hold, heads that
//! nobody holds, heads that a fence covers. Finding alone: what is found goes through the log.

use std::collections::BTreeMap;

use rocksdb::{Direction, IteratorMode, ReadOptions};
use shoal_proto::ObjectKey;

use super::apply::read_head;
use super::fences::subject;
use super::slot_list::{self, Slot};
use super::slots::VoidSlot;
use super::storage::{self, family};
use super::tables::{self, HEADS, HOLDERS, PARTIAL};
use super::{Index, IndexError};

/// One piece of a survey.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<T> {
    /// What was found.
    pub found: T,
    /// Where to go on; `None` after the last piece.
    pub next: Option<Vec<u8>>,
}

/// References of objects, packed, by the slot that is said to hold them.
pub type Refs = BTreeMap<Slot, Vec<u8>>;

impl Index {
    /// Slots whose nodes are gone, and which are not yet free.
    pub fn void_slots(&self) -> Vec<VoidSlot> {
        self.read(|live| live.tables.slots.voids().collect())
    }

    /// The complete holdings of some slots, among `keys_max` records from `from` on.
    ///
    /// # Errors
    /// When RocksDB fails.
    pub fn complete_of(
        &self,
        slots: &[Slot],
        from: &[u8],
        keys_max: usize,
    ) -> Result<Piece<Refs>, IndexError> {
        self.pick((HOLDERS, from, keys_max), |found: &mut Refs, key, value| {
            for (slot, _) in slot_list::entries(value).filter(|(slot, _)| slots.contains(slot)) {
                found.entry(slot).or_default().extend_from_slice(key);
            }
            Ok(())
        })
    }

    /// The partial holdings of some slots, among `keys_max` records from `from` on.
    ///
    /// # Errors
    /// When RocksDB fails or a record cannot be read.
    pub fn partial_of(
        &self,
        slots: &[Slot],
        from: &[u8],
        keys_max: usize,
    ) -> Result<Piece<Refs>, IndexError> {
        self.pick((PARTIAL, from, keys_max), |found: &mut Refs, key, _| {
            let corrupt = || IndexError::Corrupt { family: PARTIAL };
            let (object, slot) = tables::partial_parts(key).ok_or_else(corrupt)?;
            if slots.contains(&slot) {
                found.entry(slot).or_default().extend_from_slice(&object.0);
            }
            Ok(())
        })
    }

    /// Heads that nobody holds or that a fence covers, among `keys_max` from `from` on.
    ///
    /// # Errors
    /// When RocksDB fails or a record cannot be read.
    pub fn useless_heads(
        &self,
        from: &[u8],
        keys_max: usize,
    ) -> Result<Piece<Vec<ObjectKey>>, IndexError> {
        let (db, tables) = self.read(|live| (live.db.clone(), live.tables.clone()));
        self.pick((HEADS, from, keys_max), |found: &mut Vec<ObjectKey>, _, value| {
            let head = storage::decode_head(value)?;
            let corrupt = || IndexError::Corrupt { family: HEADS };
            let (key, object) = read_head(&head).ok_or_else(corrupt)?;
            if tables.fences.outdates(&subject(&key, &head))
                || storage::holdings(&db, &tables.slots, object)?.is_empty()
            {
                found.push(key);
            }
            Ok(())
        })
    }

    /// Up to where a look through all heads that begins now will have held them against the fences;
    /// `None` when that is of no use.
    pub fn checkable(&self) -> Option<u64> {
        self.read(|live| live.tables.fences.checkable())
    }

    fn pick<T: Default>(
        &self,
        (name, from, keys_max): (&'static str, &[u8], usize),
        mut pick: impl FnMut(&mut T, &[u8], &[u8]) -> Result<(), IndexError>,
    ) -> Result<Piece<T>, IndexError> {
        let db = self.db();
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let mode = IteratorMode::From(from, Direction::Forward);
        let mut records = db.iterator_cf_opt(family(&db, name)?, options, mode);
        let mut found = T::default();
        for _ in 0..keys_max {
            let Some((key, value)) = records.next().transpose()? else {
                return Ok(Piece { found, next: None });
            };
            pick(&mut found, &key, &value)?;
        }
        let next = records.next().transpose()?.map(|(key, _)| key.into_vec());
        Ok(Piece { found, next })
    }
}
