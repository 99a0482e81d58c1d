//! The index: the state machine that the super-nodes replicate. Members, object heads, holders,
//! fences and sites; nothing soft, nothing that is not in the log.
//!
//! Invariants: what a group of positions changes is written with the caller's own write batch, all
//! or nothing, and is visible to readers only after [`Index::committed`]; equal commands leave equal
//! bytes, however they were grouped. A reader sees one database with its own tables, also while
//! [`Index::replace`] puts another in its place. Must not know of Raft, of time or of anybody's
//! leases.

mod apply;
mod audit;
mod digest;
mod fences;
mod members;
mod sites;
mod slot_list;
mod slots;
mod staging;
mod storage;
mod survey;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use prost::Message;
use rocksdb::{DB, WriteBatch};
use shoal_proto::wire::v1;
use shoal_proto::{NodeId, ObjectId, ObjectKey, ObjectRef};
use tokio::sync::watch;

use self::apply::Group;
use self::audit::Audits;
use self::digest::Digests;
use self::fences::FenceTable;
use self::members::Members;
use self::sites::Sites;
use self::slots::Slots;
use self::tables::FenceEntry;
use crate::fences::Verdict;
use crate::membership::Member;

pub(super) use self::apply::CLEAR_HEADS_MAX;
pub use self::audit::{AuditState, Audited, ends_group};
pub use self::digest::{DIGEST_VERSION, Digest, DigestAt};
pub use self::members::Record;
pub use self::slot_list::Slot;
pub use self::slots::VoidSlot;
pub use self::storage::descriptors;
pub use self::survey::{Piece, Refs};
pub use self::tables::COLUMN_FAMILIES;

/// A fault of the index; the replica must stop rather than go on with half a change.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// RocksDB failed.
    #[error("index storage: {0}")]
    Storage(#[from] rocksdb::Error),
    /// The database was opened without a family of the index.
    #[error("column family {name:?} is missing: open the database with the index's descriptors")]
    Family {
        /// The family's name.
        name: &'static str,
    },
    /// A record that cannot be read back.
    #[error("column family {family:?} holds a record that cannot be read: rebuild this replica")]
    Corrupt {
        /// The family's name.
        family: &'static str,
    },
}

/// What a node has of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holding {
    /// All chunks.
    Complete,
    /// One bit a chunk, least significant first.
    Bitmap(Vec<u8>),
}

/// The holders of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    /// Nodes that have all of it.
    pub complete: Vec<NodeId>,
    /// Nodes that have some of it.
    pub partial: Vec<NodeId>,
}

/// What changed last, for those who wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The position at which members last changed.
    pub members_epoch: u64,
    /// The newest fence's position.
    pub fence_position: u64,
    /// The position at which sites last changed.
    pub sites_revision: u64,
}

/// What is small enough to live in memory; cheap to clone, copied on write.
#[derive(Clone, Default)]
struct Tables {
    members: Arc<Members>,
    slots: Arc<Slots>,
    fences: Arc<FenceTable>,
    sites: Arc<Sites>,
    digests: Arc<Digests>,
}

/// What readers see: always of one state.
struct Live {
    db: Arc<DB>,
    tables: Tables,
    list: Arc<[Member]>,
}

/// The replicated state, over RocksDB.
pub struct Index {
    live: RwLock<Live>,
    pending: Mutex<Option<Pending>>,
    changes: watch::Sender<Changes>,
    audits: Audits,
    #[cfg(test)]
    faulty: std::sync::atomic::AtomicBool,
}

/// What was applied and is not yet written.
struct Pending {
    tables: Tables,
    audits: Vec<u64>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("changes", &*self.changes.borrow()).finish_non_exhaustive()
    }
}

impl Index {
    /// The index in `db`, which must have all of [`COLUMN_FAMILIES`].
    ///
    /// # Errors
    /// When a family is missing or a record cannot be read.
    pub fn open(db: Arc<DB>) -> Result<Self, IndexError> {
        let tables = load(&db)?;
        let list = tables.members.list();
        let (changes, _) = watch::channel(changes_of(&tables));
        let live = RwLock::new(Live { db, tables, list });
        Ok(Self {
            live,
            pending: Mutex::default(),
            changes,
            audits: Audits::default(),
            #[cfg(test)]
            faulty: false.into(),
        })
    }

    /// Applies positions in order: stages their writes in `batch` and says what each command came
    /// to. Later commands see earlier ones; nobody else sees anything before the caller has written
    /// the batch and called [`Index::committed`]. A batch that is not written is forgotten by the
    /// next call.
    ///
    /// # Errors
    /// Only when RocksDB fails or holds what it should not: a command is never an error.
    pub fn apply(
        &self,
        group: &[(u64, v1::CommandBatch)],
        batch: &mut WriteBatch,
    ) -> Result<Vec<Vec<v1::CommandReply>>, IndexError> {
        let (db, tables) = self.read(|live| (Arc::clone(&live.db), live.tables.clone()));
        let mut applying = Group::new(tables, &db, batch);
        #[cfg(test)]
        applying.be_faulty(self.faulty.load(std::sync::atomic::Ordering::Relaxed));
        let replies = group
            .iter()
            .map(|(position, commands)| applying.position(*position, commands))
            .collect::<Result<_, _>>()?;
        let tables = applying.finish()?;
        // Of a group that does not end with it, an audit would see too much.
        let audits = group.last().map(|(_, batch)| audit::audits(batch).collect());
        let pending = Pending { tables, audits: audits.unwrap_or_default() };
        *self.pending.lock().unwrap_or_else(PoisonError::into_inner) = Some(pending);
        Ok(replies)
    }

    /// The last applied group's batch is written: readers see it from here on.
    pub fn committed(&self) {
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Pending { tables, audits }) = pending {
            let running = tables.digests.last();
            self.publish(tables, None);
            for id in audits {
                self.audits.begin(id, self.db(), running);
            }
        }
    }

    /// Puts another state in the place of this one: its database and its tables in one step. What
    /// was applied and not yet written is forgotten. The database that was there is closed when its
    /// last reader is done.
    ///
    /// # Errors
    /// When a family of `db` is missing or a record cannot be read; then nothing has changed.
    pub fn replace(&self, db: Arc<DB>) -> Result<(), IndexError> {
        let tables = load(&db)?;
        *self.pending.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.publish(tables, Some(db));
        Ok(())
    }

    /// The database that readers see now.
    pub(super) fn db(&self) -> Arc<DB> {
        self.read(|live| Arc::clone(&live.db))
    }

    fn publish(&self, tables: Tables, db: Option<Arc<DB>>) {
        let changes = changes_of(&tables);
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&live.tables.members, &tables.members) {
            live.list = tables.members.list();
        }
        live.tables = tables;
        // Closing a database takes time: not under the lock.
        let replaced = db.map(|db| std::mem::replace(&mut live.db, db));
        drop(live);
        drop(replaced);
        self.changes.send_if_modified(|last| std::mem::replace(last, changes) != changes);
    }

    fn read<T>(&self, read: impl FnOnce(&Live) -> T) -> T {
        read(&self.live.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The key's current object; `None` when there is none or a hard purge covers it. Under a soft
    /// one it is fresh until the beginning of time. Reads the disk.
    ///
    /// # Errors
    /// When RocksDB fails or the record cannot be read.
    pub fn head(&self, key: &ObjectKey) -> Result<Option<v1::IndexHead>, IndexError> {
        let (db, fences) = self.read(|live| (live.db.clone(), live.tables.fences.clone()));
        let head = storage::read_head(&db, key)?;
        Ok(head.and_then(|head| match fences.verdict(&fences::subject(key, &head)) {
            Verdict::Clear => Some(head),
            Verdict::Stale => Some(v1::IndexHead { fresh_until_ms: 0, ..head }),
            Verdict::Gone => None,
        }))
    }

    /// Who has what of an object, in the order of node ids, whether they are up or not. Reads the
    /// disk.
    ///
    /// # Errors
    /// When RocksDB fails or a record cannot be read.
    pub fn holders(&self, object: &ObjectId) -> Result<Vec<(NodeId, Holding)>, IndexError> {
        let (db, slots) = self.read(|live| (live.db.clone(), live.tables.slots.clone()));
        storage::holdings(&db, &slots, object.into())
    }

    /// Who has all, and who some, of each of many objects, whether they are up or not. Reads the
    /// disk.
    ///
    /// # Errors
    /// When RocksDB fails or a record cannot be read.
    pub fn locate(&self, objects: &[ObjectRef]) -> Result<Vec<Holders>, IndexError> {
        let (db, slots) = self.read(|live| (live.db.clone(), live.tables.slots.clone()));
        storage::locate(&db, &slots, objects)
    }

    /// Whether the index counts what a node says that it holds.
    pub fn has_slot(&self, node: NodeId) -> bool {
        self.read(|live| live.tables.slots.of(node).is_some())
    }

    /// All members in the order of their ids, and the position at which they last changed.
    pub fn members(&self) -> (Arc<[Member]>, u64) {
        self.read(|live| (live.list.clone(), live.tables.members.epoch()))
    }

    /// A member.
    pub fn member(&self, id: NodeId) -> Option<Member> {
        self.record(id).map(|record| record.member)
    }

    /// A member with its session.
    pub fn record(&self, id: NodeId) -> Option<Record> {
        self.read(|live| live.tables.members.get(id).cloned())
    }

    /// The session of a member that is up.
    pub fn session_of(&self, id: NodeId) -> Option<u64> {
        self.read(|live| {
            let record = live.tables.members.get(id).filter(|record| record.member.up);
            record.map(|record| record.session_id)
        })
    }

    /// All members with their sessions, in the order of their ids.
    pub fn records(&self) -> Vec<Record> {
        self.read(|live| live.tables.members.records().cloned().collect())
    }

    /// Super-nodes that were taken out of the tier, and the positions at which they were.
    pub fn retired(&self) -> BTreeMap<NodeId, u64> {
        self.read(|live| live.tables.members.retired().clone())
    }

    /// Whether this super-node was taken out of the tier.
    pub fn is_retired(&self, id: NodeId) -> bool {
        self.read(|live| live.tables.members.retired_at(id).is_some())
    }

    /// The running digest as of the last position that had commands.
    pub fn digest(&self) -> DigestAt {
        self.read(|live| live.tables.digests.last())
    }

    /// Running digests as of some positions, oldest first.
    pub fn digests(&self) -> Vec<DigestAt> {
        self.read(|live| live.tables.digests.all())
    }

    /// From here on, this replica does not do what announcements say.
    #[cfg(test)]
    pub(super) fn be_faulty(&self) {
        self.faulty.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// How an audit stands; `None` when this replica has not come to it, or has forgotten it.
    pub fn audit(&self, id: u64) -> Option<AuditState> {
        self.audits.get(id)
    }

    /// Fences that came after `position`, oldest first; one without a matcher stands for those that
    /// are no longer kept.
    pub fn fences_after(&self, position: u64) -> Vec<v1::Fence> {
        self.read(|live| live.tables.fences.after(position))
    }

    /// The newest fence's position; 0 when there never was one.
    pub fn fence_position(&self) -> u64 {
        self.read(|live| live.tables.fences.position())
    }

    /// All sites.
    pub fn sites(&self) -> v1::SiteTable {
        let sites = self.read(|live| Arc::clone(&live.tables.sites));
        sites.table()
    }

    /// The position at which sites last changed; 0 before they ever did.
    pub fn sites_revision(&self) -> u64 {
        self.read(|live| live.tables.sites.revision())
    }

    /// Tells of changes in members, fences and sites, once they are visible.
    pub fn changed(&self) -> watch::Receiver<Changes> {
        self.changes.subscribe()
    }

    /// About how many heads the index holds.
    pub fn heads_estimate(&self) -> u64 {
        let db = self.db();
        let family = storage::family(&db, tables::HEADS).ok();
        let property = rocksdb::properties::ESTIMATE_NUM_KEYS;
        let estimate = family.map(|family| db.property_int_value_cf(family, property));
        estimate.and_then(Result::ok).flatten().unwrap_or_default()
    }
}

fn changes_of(tables: &Tables) -> Changes {
    Changes {
        members_epoch: tables.members.epoch(),
        fence_position: tables.fences.position(),
        sites_revision: tables.sites.revision(),
    }
}

/// Reads from `db` what lives in memory.
fn load(db: &DB) -> Result<Tables, IndexError> {
    for name in COLUMN_FAMILIES {
        storage::family(db, name)?;
    }
    let (mut members, mut slots) = (Members::default(), Slots::default());
    for entry in storage::scan(db, tables::MEMBERS, &[])? {
        let (key, value) = entry?;
        let corrupt = || IndexError::Corrupt { family: tables::MEMBERS };
        if tables::is_member_key(&key) {
            let record = v1::MemberRecord::decode(&*value).map_err(|_| corrupt())?;
            members.restore(record).map_err(|_| corrupt())?;
        } else if let Some(id) = tables::retired_node(&key) {
            let position = <[u8; 8]>::try_from(&*value).map_err(|_| corrupt())?;
            members.restore_retired(id, u64::from_be_bytes(position));
        } else {
            let slot = tables::slot_of_key(&key).ok_or_else(corrupt)?;
            slots.restore(slot, v1::SlotRecord::decode(&*value).map_err(|_| corrupt())?);
        }
    }
    let mut fences = FenceTable::default();
    for entry in storage::scan(db, tables::FENCES, &[])? {
        let (key, value) = entry?;
        let corrupt = || IndexError::Corrupt { family: tables::FENCES };
        let position = <[u8; 8]>::try_from(&*value).map_err(|_| corrupt())?;
        let fenced = FenceEntry::decode(&key).ok_or_else(corrupt)?;
        fences.restore(u64::from_be_bytes(position), fenced);
    }
    let (members, slots, fences) = (Arc::new(members), Arc::new(slots), Arc::new(fences));
    let (sites, digests) = (Arc::new(load_sites(db)?), Arc::new(load_digests(db)?));
    Ok(Tables { members, slots, fences, sites, digests })
}

fn load_sites(db: &DB) -> Result<Sites, IndexError> {
    let mut sites = Sites::default();
    for entry in storage::scan(db, tables::SITES, &[])? {
        let (key, value) = entry?;
        let corrupt = || IndexError::Corrupt { family: tables::SITES };
        if let Some(name) = tables::removed_site(&key) {
            let position = <[u8; 8]>::try_from(&*value).map_err(|_| corrupt())?;
            sites.restore_removed(name, u64::from_be_bytes(position));
        } else {
            sites.restore(v1::SiteDefinition::decode(&*value).map_err(|_| corrupt())?);
        }
    }
    Ok(sites)
}

fn load_digests(db: &DB) -> Result<Digests, IndexError> {
    let found = db.get_pinned_cf(storage::family(db, tables::DIGEST)?, tables::RUNNING)?;
    let corrupt = || IndexError::Corrupt { family: tables::DIGEST };
    found.map_or_else(|| Ok(Digests::default()), |v| Digests::restore(&v).ok_or_else(corrupt))
}
