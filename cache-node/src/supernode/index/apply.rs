//! What each command does to the index. Deterministic: no clock, no randomness, nothing but the
//! state and the command; a command that breaks a limit is refused the same way everywhere.

use std::sync::Arc;

use prost::Message;
use rocksdb::{DB, WriteBatch};
use shoal_proto::id::HASH_BYTES;
use shoal_proto::limits::{
    ANNOUNCE_CHANGES_MAX, BITMAP_BYTES_MAX, CHUNKS_MAX, LABELS_MAX, NAME_BYTES_MAX,
    OBJECT_BYTES_MAX,
};
use shoal_proto::wire::v1::{self, command::Command};
use shoal_proto::{ManifestId, NodeId, ObjectId, ObjectKey, ObjectRef, wire};

use super::fences::{FenceTable, subject};
use super::members::{Changed, Members};
use super::slot_list::Slot;
use super::slots::Slots;
use super::staging::Staging;
use super::tables::{
    FENCES, FenceEntry, MEMBERS, SITES, member_key, removed_site_key, retired_key, site_key,
    slot_key,
};
use super::{IndexError, Tables};
use crate::fences::{Fenced, Matcher};

/// Most heads that one command clears.
pub(in crate::supernode) const CLEAR_HEADS_MAX: usize = 1_024;

const REFUSED: v1::CommandReply = v1::CommandReply { refused: true, created: false };
const DONE: v1::CommandReply = v1::CommandReply { refused: false, created: false };

/// A group of positions being applied: its own tables, its writes staged.
pub(super) struct Group<'a> {
    tables: Tables,
    staging: Staging<'a>,
    #[cfg(test)]
    faulty: bool,
}

impl<'a> Group<'a> {
    pub(super) fn new(tables: Tables, db: &'a DB, batch: &'a mut WriteBatch) -> Self {
        Self {
            tables,
            staging: Staging::new(db, batch),
            #[cfg(test)]
            faulty: false,
        }
    }

    #[cfg(test)]
    pub(super) fn be_faulty(&mut self, faulty: bool) {
        self.faulty = faulty;
    }

    /// The tables as the group leaves them; all its writes are in the batch.
    pub(super) fn finish(self) -> Result<Tables, IndexError> {
        self.staging.finish(&self.tables.digests.record())?;
        Ok(self.tables)
    }

    /// Applies one position's commands.
    pub(super) fn position(
        &mut self,
        position: u64,
        commands: &v1::CommandBatch,
    ) -> Result<Vec<v1::CommandReply>, IndexError> {
        self.staging.digest_into(self.tables.digests.begin(position));
        let commands = commands.commands.iter();
        let replies = commands.map(|command| self.command(position, command)).collect();
        let digest = self.staging.digest_into(blake3::Hasher::new());
        Arc::make_mut(&mut self.tables.digests).end(position, &digest);
        replies
    }

    fn command(
        &mut self,
        position: u64,
        command: &v1::Command,
    ) -> Result<v1::CommandReply, IndexError> {
        match &command.command {
            Some(Command::PutMember(put)) => self.put_member(position, put),
            Some(Command::MemberDown(down)) => {
                let Some(changed) = self.members().down(position, down) else { return Ok(REFUSED) };
                self.member_changed(position, &changed)?;
                Ok(DONE)
            }
            Some(Command::PutHead(head)) => self.put_head(head),
            Some(Command::Holders(holders)) => self.holders(holders),
            Some(Command::Fence(matcher)) => self.fence(position, matcher),
            Some(Command::HeadsChecked(upto)) => {
                let changed = self.fences().heads_checked(upto.position.min(position));
                self.write_fences(changed)
            }
            Some(Command::Retire(gone)) => {
                let changed = self.members().retire(position, &gone.node_ids);
                self.member_changed(position, &changed)?;
                Ok(DONE)
            }
            Some(Command::Clear(clear)) => self.clear(position, clear),
            Some(Command::ChangeSites(change)) => self.change_sites(position, change),
            // Begun when the position is written.
            Some(Command::Audit(_)) => Ok(DONE),
            None => Ok(REFUSED),
        }
    }

    fn members(&mut self) -> &mut Members {
        Arc::make_mut(&mut self.tables.members)
    }

    fn slots(&mut self) -> &mut Slots {
        Arc::make_mut(&mut self.tables.slots)
    }

    fn fences(&mut self) -> &mut FenceTable {
        Arc::make_mut(&mut self.tables.fences)
    }

    /// A node without a slot is one of which nothing is known: its holdings are to be announced.
    fn put_member(
        &mut self,
        position: u64,
        put: &v1::PutMember,
    ) -> Result<v1::CommandReply, IndexError> {
        let node = NodeId(put.node.as_ref().map_or(0, |info| info.node_id));
        if !self.tables.slots.has_room_for(node) {
            return Ok(REFUSED);
        }
        let Some(changed) = self.members().put(position, put) else { return Ok(REFUSED) };
        if changed.renamed {
            self.void(node, position)?;
        }
        self.member_changed(position, &changed)?;
        let taken = self.slots().take(node);
        let Some((slot, created)) = taken else { return Ok(REFUSED) };
        if created {
            self.write_slot(slot)?;
        }
        Ok(v1::CommandReply { refused: false, created })
    }

    fn member_changed(&mut self, position: u64, changed: &Changed) -> Result<(), IndexError> {
        for node in &changed.nodes {
            let record = self.tables.members.get(*node).map(v1::MemberRecord::from);
            let record = record.map(|record| record.encode_to_vec());
            self.staging.write(MEMBERS, &member_key(*node), record.as_deref())?;
            let retired = self.tables.members.retired_at(*node).map(u64::to_be_bytes);
            let retired = retired.as_ref().map(<[u8; 8]>::as_slice);
            self.staging.write(MEMBERS, &retired_key(*node), retired)?;
            if record.is_none() {
                self.void(*node, position)?;
            }
        }
        Ok(())
    }

    fn void(&mut self, node: NodeId, position: u64) -> Result<(), IndexError> {
        match self.slots().void(node, position) {
            Some(slot) => self.write_slot(slot),
            None => Ok(()),
        }
    }

    fn write_slot(&mut self, slot: Slot) -> Result<(), IndexError> {
        let record = self.tables.slots.record(slot).map(|record| record.encode_to_vec());
        self.staging.write(MEMBERS, &slot_key(slot), record.as_deref())
    }

    fn put_head(&mut self, head: &v1::IndexHead) -> Result<v1::CommandReply, IndexError> {
        let Some((key, object)) = read_head(head) else { return Ok(REFUSED) };
        let fenced = self.tables.fences.refuses(&subject(&key, head));
        let publisher = self.tables.slots.of(NodeId(head.publisher_node_id));
        let Some(slot) = publisher.filter(|_| !fenced) else { return Ok(REFUSED) };
        self.staging.put_head(key, head.clone())?;
        self.set_complete(slot, true, &object.0)?;
        Ok(DONE)
    }

    fn holders(&mut self, holders: &v1::NodeHolders) -> Result<v1::CommandReply, IndexError> {
        #[cfg(test)]
        if self.faulty {
            return Ok(DONE);
        }
        let slot = self.tables.slots.of(NodeId(holders.node_id));
        let (Some(slot), Some(changes)) = (slot, Changes::read(holders)) else {
            return Ok(REFUSED);
        };
        let Changes { complete, partial, gone } = changes;
        self.set_complete(slot, true, complete)?;
        if !partial.is_empty() && self.slots().has_partials_now(slot) {
            self.write_slot(slot)?;
        }
        for (object, bitmap) in partial {
            self.staging.set_complete(slot, false, &object.0);
            self.staging.set_partial(object, slot, Some(bitmap))?;
        }
        self.set_complete(slot, false, gone)?;
        Ok(DONE)
    }

    /// Whether a slot has all of some objects or nothing: what it had in part is forgotten.
    fn set_complete(&mut self, slot: Slot, holds: bool, packed: &[u8]) -> Result<(), IndexError> {
        self.staging.set_complete(slot, holds, packed);
        if self.tables.slots.has_partials(slot) {
            for object in ObjectRef::list(packed).into_iter().flatten() {
                self.staging.set_partial(object, slot, None)?;
            }
        }
        Ok(())
    }

    fn fence(
        &mut self,
        position: u64,
        matcher: &v1::FenceMatcher,
    ) -> Result<v1::CommandReply, IndexError> {
        let Ok(fenced) = Fenced::try_from(matcher) else { return Ok(REFUSED) };
        if let Fenced { matcher: Matcher::Key(key), soft: false } = &fenced {
            self.staging.drop_head(*key)?;
        }
        let changed = self.fences().add(position, fenced);
        self.write_fences(changed)
    }

    /// A site made again under a removed one's name begins empty.
    fn change_sites(
        &mut self,
        position: u64,
        change: &v1::ChangeSites,
    ) -> Result<v1::CommandReply, IndexError> {
        let touched = Arc::make_mut(&mut self.tables.sites).change(position, change);
        let Some(touched) = touched else { return Ok(REFUSED) };
        for name in &touched {
            let site = self.tables.sites.site(name).map(Message::encode_to_vec);
            self.staging.write(SITES, &site_key(name), site.as_deref())?;
            let removed = self.tables.sites.removed_at(name).map(u64::to_be_bytes);
            let removed = removed.as_ref().map(<[u8; 8]>::as_slice);
            self.staging.write(SITES, &removed_site_key(name), removed)?;
        }
        for name in &change.drop {
            let matcher = Matcher::Site(name.clone());
            let changed = self.fences().add(position, Fenced { matcher, soft: false });
            self.write_fences(changed)?;
        }
        Ok(DONE)
    }

    fn write_fences(&mut self, changed: Vec<FenceEntry>) -> Result<v1::CommandReply, IndexError> {
        for changed in changed {
            let entry = self.tables.fences.entry(&changed).map(u64::to_be_bytes);
            let entry = entry.as_ref().map(<[u8; 8]>::as_slice);
            self.staging.write(FENCES, &changed.encode(), entry)?;
        }
        Ok(DONE)
    }

    /// The leader's word for what is of no use is not taken: where another command has come between
    /// its look and this position, nothing happens.
    fn clear(&mut self, position: u64, clear: &v1::Clear) -> Result<v1::CommandReply, IndexError> {
        let v1::Clear { expired, holdings, slots, heads } = clear;
        let Some(holdings) = read_holdings(holdings) else { return Ok(REFUSED) };
        let (heads, rest) = heads.as_chunks::<HASH_BYTES>();
        if !rest.is_empty() || heads.len() > CLEAR_HEADS_MAX {
            return Ok(REFUSED);
        }
        for down in expired {
            let node = NodeId(down.node_id);
            if self.tables.members.is_down(node, down.session_id) {
                self.void(node, position)?;
            }
        }
        for (void, complete, partial) in holdings {
            if let Some(slot) = self.void_slot(void) {
                self.staging.set_complete(slot, false, complete);
                for object in ObjectRef::list(partial).into_iter().flatten() {
                    self.staging.set_partial(object, slot, None)?;
                }
            }
        }
        for void in slots {
            if let Some(slot) = self.void_slot(*void)
                && self.slots().free(slot, void.since)
            {
                self.write_slot(slot)?;
            }
        }
        self.clear_heads(heads)?;
        Ok(DONE)
    }

    fn void_slot(&self, void: v1::VoidSlot) -> Option<Slot> {
        let slot = Slot::try_from(void.slot).ok()?;
        self.tables.slots.is_void(slot, void.since).then_some(slot)
    }

    fn clear_heads(&mut self, keys: &[[u8; HASH_BYTES]]) -> Result<(), IndexError> {
        let mut doubtful = Vec::new();
        for key in keys.iter().map(|key| ObjectKey::new(*key)) {
            let Some(head) = self.staging.head(&key)? else { continue };
            if self.tables.fences.outdates(&subject(&key, &head)) {
                self.staging.drop_head(key)?;
            } else if let Some((_, object)) = read_head(&head) {
                doubtful.push((key, object));
            }
        }
        let objects: Vec<_> = doubtful.iter().map(|(_, object)| *object).collect();
        let slots = Arc::clone(&self.tables.slots);
        let held = self.staging.held(&objects, |slot| slots.node(slot).is_some())?;
        for ((key, _), _) in doubtful.iter().zip(held).filter(|(_, held)| !held) {
            self.staging.drop_head(*key)?;
        }
        Ok(())
    }
}

/// A head's key and object, or `None` when it breaks a limit.
pub(super) fn read_head(head: &v1::IndexHead) -> Option<(ObjectKey, ObjectRef)> {
    let fits = head.chunk_count <= CHUNKS_MAX
        && head.length <= OBJECT_BYTES_MAX
        && head.site.len() <= NAME_BYTES_MAX
        && head.labels.as_ref().is_none_or(|labels| labels.hashes.len() <= LABELS_MAX);
    wire::id_from::<ManifestId>("manifest_id", &head.manifest_id).ok()?;
    let key = wire::id_from("key", &head.key).ok()?;
    let object = wire::id_from::<ObjectId>("object_id", &head.object_id).ok()?;
    fits.then_some((key, ObjectRef::from(&object)))
}

/// One node's changes, within the limits; references packed and checked.
struct Changes<'a> {
    complete: &'a [u8],
    partial: Vec<(ObjectRef, &'a [u8])>,
    gone: &'a [u8],
}

impl<'a> Changes<'a> {
    fn read(holders: &'a v1::NodeHolders) -> Option<Self> {
        let v1::NodeHolders { node_id: _, complete, gone, partial } = holders;
        let count = count(complete)? + count(gone)? + partial.len();
        let holding = |partial: &'a v1::PartialHolding| {
            let object = ObjectRef::read(&partial.object_ref)?;
            let fits = (1..=BITMAP_BYTES_MAX).contains(&partial.chunks.len());
            fits.then_some((object, &partial.chunks[..]))
        };
        let partial = partial.iter().map(holding).collect::<Option<_>>()?;
        (count <= ANNOUNCE_CHANGES_MAX).then_some(Self { complete, partial, gone })
    }
}

fn count(packed: &[u8]) -> Option<usize> {
    ObjectRef::list(packed).map(|objects| objects.len())
}

/// What a void slot is to lose: complete and partial holdings, packed and checked.
type Lost<'a> = (v1::VoidSlot, &'a [u8], &'a [u8]);

fn read_holdings(holdings: &[v1::VoidHoldings]) -> Option<Vec<Lost<'_>>> {
    let mut total = 0;
    let mut all = Vec::with_capacity(holdings.len());
    for v1::VoidHoldings { slot, complete, partial } in holdings {
        total += count(complete)? + count(partial)?;
        all.push(((*slot)?, &complete[..], &partial[..]));
    }
    (total <= ANNOUNCE_CHANGES_MAX).then_some(all)
}
