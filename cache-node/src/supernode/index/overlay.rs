//! Reads that see a group's own writes: what is staged for the group's write batch lies over what
//! RocksDB holds. Every staged write is in the batch too, so that both always agree.

use std::collections::BTreeMap;

use prost::Message;
use rocksdb::{ColumnFamily, DB, IteratorMode, PrefixRange, ReadOptions, WriteBatch};
use shoal_proto::ObjectKey;
use shoal_proto::wire::v1;

use super::IndexError;
use super::tables::{HEADS, HELD, HOLDERS, Pair};

/// Families of the index whose keys are pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PairFamily {
    Holders,
    Held,
}

impl PairFamily {
    fn name(self) -> &'static str {
        match self {
            Self::Holders => HOLDERS,
            Self::Held => HELD,
        }
    }
}

/// A family's handle.
pub(super) fn family<'a>(db: &'a DB, name: &'static str) -> Result<&'a ColumnFamily, IndexError> {
    db.cf_handle(name).ok_or(IndexError::Family { name })
}

type Staged = BTreeMap<Pair, Option<Vec<u8>>>;

/// A group's staged writes over the database.
pub(super) struct Overlay<'a> {
    db: &'a DB,
    batch: &'a mut WriteBatch,
    heads: BTreeMap<ObjectKey, Option<v1::IndexHead>>,
    holders: Staged,
    held: Staged,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(db: &'a DB, batch: &'a mut WriteBatch) -> Self {
        let (holders, held) = (Staged::new(), Staged::new());
        Self { db, batch, heads: BTreeMap::new(), holders, held }
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
        Ok(())
    }

    pub(super) fn head(&self, key: &ObjectKey) -> Result<Option<v1::IndexHead>, IndexError> {
        match self.heads.get(key) {
            Some(staged) => Ok(staged.clone()),
            None => read_head(self.db, key),
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

    pub(super) fn set_pair(
        &mut self,
        family: PairFamily,
        key: Pair,
        value: Option<&[u8]>,
    ) -> Result<(), IndexError> {
        self.write(family.name(), &key, value)?;
        self.staged_mut(family).insert(key, value.map(<[u8]>::to_vec));
        Ok(())
    }

    /// The first `limit` pairs under `prefix`, in order: whatever the group's size, the same ones.
    pub(super) fn pairs(
        &self,
        family: PairFamily,
        prefix: &[u8],
        limit: usize,
    ) -> Result<Vec<(Pair, Vec<u8>)>, IndexError> {
        let staged = self.staged(family);
        let mut found = BTreeMap::new();
        for entry in scan(self.db, family.name(), prefix)? {
            if found.len() == limit {
                break;
            }
            let (key, value) = entry?;
            let key = Pair::try_from(key.as_ref())
                .map_err(|_| IndexError::Corrupt { family: family.name() })?;
            if !staged.contains_key(&key) {
                found.insert(key, value.into_vec());
            }
        }
        let mut first = [0; super::tables::PAIR_BYTES];
        first[..prefix.len()].copy_from_slice(prefix);
        let under = staged.range(first..).take_while(|(key, _)| key.starts_with(prefix));
        let present = under.filter_map(|(key, value)| Some((*key, value.clone()?)));
        found.extend(present.take(limit));
        Ok(found.into_iter().take(limit).collect())
    }

    fn staged(&self, family: PairFamily) -> &Staged {
        match family {
            PairFamily::Holders => &self.holders,
            PairFamily::Held => &self.held,
        }
    }

    fn staged_mut(&mut self, family: PairFamily) -> &mut Staged {
        match family {
            PairFamily::Holders => &mut self.holders,
            PairFamily::Held => &mut self.held,
        }
    }
}

/// The key's head as RocksDB holds it.
pub(super) fn read_head(db: &DB, key: &ObjectKey) -> Result<Option<v1::IndexHead>, IndexError> {
    let value = db.get_pinned_cf(family(db, HEADS)?, key.as_bytes())?;
    let decode = |bytes: &[u8]| {
        v1::IndexHead::decode(bytes).map_err(|_| IndexError::Corrupt { family: HEADS })
    };
    value.map(|value| decode(&value)).transpose()
}

type Entry = Result<(Box<[u8]>, Box<[u8]>), rocksdb::Error>;

/// All entries of a family under `prefix`, in order.
pub(super) fn scan<'a>(
    db: &'a DB,
    name: &'static str,
    prefix: &[u8],
) -> Result<impl Iterator<Item = Entry> + 'a, IndexError> {
    let mut options = ReadOptions::default();
    if !prefix.is_empty() {
        options.set_iterate_range(PrefixRange(prefix.to_vec()));
    }
    Ok(db.iterator_cf_opt(family(db, name)?, options, IteratorMode::Start))
}
