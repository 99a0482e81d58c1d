//! What each command does to the index. Deterministic: no clock, no randomness, nothing but the
//! state and the command; a command that breaks a limit is refused the same way everywhere.

use std::sync::Arc;

use prost::Message;
use rocksdb::{DB, WriteBatch};
use shoal_proto::limits::{ANNOUNCE_CHANGES_MAX, CHUNKS_MAX, NAME_BYTES_MAX, OBJECT_BYTES_MAX};
use shoal_proto::wire::v1::{self, command::Command, holder_change::Change};
use shoal_proto::{ManifestId, NodeId, ObjectId, ObjectKey, wire};

use super::fences::{FenceTable, read_matcher};
use super::members::{Changed, Members};
use super::overlay::{Overlay, PairFamily};
use super::tables::{
    FENCES, Fenced, MEMBERS, forgotten_key, held_key, held_object, holder_key, member_key,
    retired_key,
};
use super::{IndexError, Tables};

/// Longest bitmap of one holder, in bytes: a bit a chunk.
const BITMAP_BYTES_MAX: usize = CHUNKS_MAX.div_ceil(8) as usize;
/// Holdings of nodes that will not be back that one position takes out of the index.
const FORGET_PER_POSITION: usize = 64;

const REFUSED: v1::CommandReply = v1::CommandReply { refused: true, created: false };
const DONE: v1::CommandReply = v1::CommandReply { refused: false, created: false };

/// A group of positions being applied: its own tables, its writes staged.
pub(super) struct Group<'a> {
    tables: Tables,
    overlay: Overlay<'a>,
}

impl<'a> Group<'a> {
    pub(super) fn new(tables: Tables, db: &'a DB, batch: &'a mut WriteBatch) -> Self {
        Self { tables, overlay: Overlay::new(db, batch) }
    }

    /// The tables as the group leaves them.
    pub(super) fn into_tables(self) -> Tables {
        self.tables
    }

    /// Applies one position's commands.
    pub(super) fn position(
        &mut self,
        position: u64,
        commands: &v1::CommandBatch,
    ) -> Result<Vec<v1::CommandReply>, IndexError> {
        let replies = commands
            .commands
            .iter()
            .map(|command| self.command(position, command))
            .collect::<Result<_, _>>()?;
        self.forget_some()?;
        Ok(replies)
    }

    fn command(
        &mut self,
        position: u64,
        command: &v1::Command,
    ) -> Result<v1::CommandReply, IndexError> {
        match &command.command {
            Some(Command::PutMember(put)) => {
                let changed = self.members().put(position, put);
                self.member_changed(changed)
            }
            Some(Command::MemberDown(down)) => {
                let changed = self.members().down(position, down);
                self.member_changed(changed)
            }
            Some(Command::PutHead(head)) => self.put_head(head),
            Some(Command::Holders(holders)) => self.holders(holders),
            Some(Command::Fence(matcher)) => self.fence(position, matcher),
            Some(Command::Retire(gone)) => {
                let changed = self.members().retire(position, &gone.node_ids);
                self.member_changed(Some(changed))
            }
            None => Ok(REFUSED),
        }
    }

    fn members(&mut self) -> &mut Members {
        Arc::make_mut(&mut self.tables.members)
    }

    fn fences(&mut self) -> &mut FenceTable {
        Arc::make_mut(&mut self.tables.fences)
    }

    fn member_changed(&mut self, changed: Option<Changed>) -> Result<v1::CommandReply, IndexError> {
        let Some(Changed { nodes, created }) = changed else { return Ok(REFUSED) };
        for node in nodes {
            let record = self.tables.members.get(node).map(v1::MemberRecord::from);
            let record = record.map(|record| record.encode_to_vec());
            self.overlay.write(MEMBERS, &member_key(node), record.as_deref())?;
            let forgotten = self.tables.members.is_forgotten(node).then_some(&[][..]);
            self.overlay.write(MEMBERS, &forgotten_key(node), forgotten)?;
            let retired = self.tables.members.retired_at(node).map(u64::to_be_bytes);
            let retired = retired.as_ref().map(<[u8; 8]>::as_slice);
            self.overlay.write(MEMBERS, &retired_key(node), retired)?;
        }
        Ok(v1::CommandReply { refused: false, created })
    }

    fn put_head(&mut self, head: &v1::IndexHead) -> Result<v1::CommandReply, IndexError> {
        let Some((key, object)) = read_head(head) else { return Ok(REFUSED) };
        let publisher = NodeId(head.publisher_node_id);
        let fenced = self.tables.fences.refuses(&key, &head.site, head.fence_position);
        if fenced || self.tables.members.get(publisher).is_none() {
            return Ok(REFUSED);
        }
        self.overlay.put_head(key, head.clone())?;
        self.hold(publisher, &key, &object, &[])?;
        Ok(DONE)
    }

    fn holders(&mut self, holders: &v1::NodeHolders) -> Result<v1::CommandReply, IndexError> {
        let node = NodeId(holders.node_id);
        let known = self.tables.members.get(node).is_some();
        if !known || holders.changes.len() > ANNOUNCE_CHANGES_MAX {
            return Ok(REFUSED);
        }
        let mut reply = DONE;
        for change in &holders.changes {
            let Some((key, object)) = read_change(change) else {
                reply = REFUSED;
                continue;
            };
            match &change.change {
                Some(Change::Complete(true)) => self.hold(node, &key, &object, &[])?,
                Some(Change::Chunks(bitmap)) if is_bitmap(bitmap) => {
                    self.hold(node, &key, &object, bitmap)?;
                }
                Some(Change::Gone(true)) => self.drop_holding(node, &key, &object)?,
                _ => reply = REFUSED,
            }
        }
        Ok(reply)
    }

    fn hold(
        &mut self,
        node: NodeId,
        key: &ObjectKey,
        object: &ObjectId,
        bitmap: &[u8],
    ) -> Result<(), IndexError> {
        self.overlay.set_pair(PairFamily::Holders, holder_key(object, node), Some(bitmap))?;
        self.overlay.set_pair(PairFamily::Held, held_key(node, object), Some(key.as_bytes()))
    }

    /// A head that nobody can serve any more goes with its last holder.
    fn drop_holding(
        &mut self,
        node: NodeId,
        key: &ObjectKey,
        object: &ObjectId,
    ) -> Result<(), IndexError> {
        self.overlay.set_pair(PairFamily::Holders, holder_key(object, node), None)?;
        self.overlay.set_pair(PairFamily::Held, held_key(node, object), None)?;
        if !self.overlay.pairs(PairFamily::Holders, object.as_bytes(), 1)?.is_empty() {
            return Ok(());
        }
        let current = self.overlay.head(key)?;
        if current.is_some_and(|head| head.object_id.as_ref() == object.as_bytes()) {
            self.overlay.drop_head(*key)?;
        }
        Ok(())
    }

    fn fence(
        &mut self,
        position: u64,
        matcher: &v1::FenceMatcher,
    ) -> Result<v1::CommandReply, IndexError> {
        let Some(fenced) = read_matcher(matcher) else { return Ok(REFUSED) };
        if let Fenced::Key(key) = &fenced {
            self.overlay.drop_head(*key)?;
        }
        for changed in self.fences().add(position, fenced) {
            let entry = self.tables.fences.entry(&changed).map(u64::to_be_bytes);
            let entry = entry.as_ref().map(<[u8; 8]>::as_slice);
            self.overlay.write(FENCES, &changed.encode(), entry)?;
        }
        Ok(DONE)
    }

    /// A little at every position, so that no node's end stops the applies.
    fn forget_some(&mut self) -> Result<(), IndexError> {
        let Some(node) = self.tables.members.first_forgotten() else { return Ok(()) };
        let prefix = node.0.to_be_bytes();
        let held = self.overlay.pairs(PairFamily::Held, &prefix, FORGET_PER_POSITION)?;
        for (pair, key) in &held {
            let corrupt = || IndexError::Corrupt { family: super::tables::HELD };
            let object = held_object(pair).ok_or_else(corrupt)?;
            let key = ObjectKey::try_from(key.as_slice()).map_err(|_| corrupt())?;
            self.drop_holding(node, &key, &object)?;
        }
        if held.len() < FORGET_PER_POSITION {
            self.members().forgotten_wholly(node);
            self.overlay.write(MEMBERS, &forgotten_key(node), None)?;
        }
        Ok(())
    }
}

/// A head's key and object, or `None` when it breaks a limit.
fn read_head(head: &v1::IndexHead) -> Option<(ObjectKey, ObjectId)> {
    let fits = head.chunk_count <= CHUNKS_MAX
        && head.length <= OBJECT_BYTES_MAX
        && head.site.len() <= NAME_BYTES_MAX;
    wire::id_from::<ManifestId>("manifest_id", &head.manifest_id).ok()?;
    let key = wire::id_from("key", &head.key).ok()?;
    let object = wire::id_from("object_id", &head.object_id).ok()?;
    fits.then_some((key, object))
}

fn read_change(change: &v1::HolderChange) -> Option<(ObjectKey, ObjectId)> {
    let key = wire::id_from("key", &change.key).ok()?;
    let object = wire::id_from("object_id", &change.object_id).ok()?;
    Some((key, object))
}

fn is_bitmap(bitmap: &[u8]) -> bool {
    (1..=BITMAP_BYTES_MAX).contains(&bitmap.len())
}
