//! Objects that are here in part: how they come into being, how their chunks come and leave.
//!
//! Invariants: a chunk counts as here after it is on disk and the catalog says so; a chunk that
//! leaves is not found before its space is given back. Each place that is between the two is noted,
//! so that the next opening gives back what no record tells of. The order of locks: a file's
//! [`Absent::writing`], the turn, the table; who has the turn already only tries the first.

use std::sync::{Arc, MutexGuard};

use bytes::Bytes;
use shoal_proto::limits::INLINE_BODY_BYTES_MAX;
use shoal_proto::wire::WireError;
use shoal_proto::{Manifest, ObjectKey};

use super::absent::Absent;
use super::body::Body;
use super::budget::Reservation;
use super::catalog::Holes;
use super::error::StoreError;
use super::memory::Described;
use super::object::StoredObject;
use super::record::{BodyRow, HoleRow, Place};
use super::shared::{Finished, Shared, Turn};
use super::table::Part;
use super::{FileId, charge, read, write};
use crate::tasks;

/// Stores an object without its chunks.
pub(super) async fn outline(
    shared: &Arc<Shared>,
    manifest: Manifest,
) -> Result<Arc<StoredObject>, StoreError> {
    if manifest.length() <= u64::from(INLINE_BODY_BYTES_MAX) {
        let wanted = "longer than what is kept in the catalog";
        return Err(WireError::field("length", manifest.length(), wanted).into());
    }
    let charge_bytes = charge::of_outline(manifest.head(), manifest.length());
    let mut reservation = shared.reserve(charge_bytes).await?;
    let shared = Arc::clone(shared);
    let work = move || {
        let id = FileId::draw().map_err(|e| StoreError::body(&shared.dir, "name a file", e))?;
        let body = Body::new(id, &shared.disk, &shared.budget, reservation.bytes());
        shared.check_disk(0)?;
        shared.disk.catalog.note(BodyRow { file: id, place: Place::File })?;
        let absent = Absent::all(manifest.chunk_count());
        let described = Described::new(manifest);
        let finished = Finished {
            described: &described,
            body: &body,
            inline: None,
            charge_bytes,
            absent: Some(&absent),
        };
        let length = described.manifest.length();
        let made = body.file().outline(length).and_then(|()| body.file().sync());
        let stored = made.and_then(|()| shared.commit(&finished, || reservation.take()));
        if let Err(error) = stored {
            // The note stays where this does not help.
            if shared.disk.bodies.remove(id).is_ok() {
                shared.disk.catalog.settle(BodyRow { file: id, place: Place::File })?;
            }
            return Err(error.while_writing(&shared.dir, 0));
        }
        let key = described.manifest.head().key;
        // Whoever came between has another version of it.
        let found = shared.find(&key).filter(|found| found.body.id() == id);
        let found = found.ok_or(StoreError::NotFound { key })?;
        Ok(StoredObject::found(shared, described, found))
    };
    tasks::blocking("store-outline", work).await?
}

impl StoredObject {
    /// Stores a chunk that was not here. The caller has verified it against the manifest.
    ///
    /// # Errors
    /// [`StoreError::NoRoom`] when there is none for it, [`StoreError::NotFound`] when the object
    /// was replaced or removed: the chunk can be used all the same, it is just not kept.
    pub async fn put_chunk(&self, index: u32, data: Bytes) -> Result<(), StoreError> {
        let manifest = &self.described.manifest;
        if self.has_chunk(index) {
            return Ok(());
        }
        let wanted = manifest.chunk_length(index);
        if wanted == 0 || data.len() as u64 != u64::from(wanted) {
            let place = format!("{wanted} bytes");
            return Err(WireError::field("chunk length", data.len(), place).into());
        }
        let bytes = charge::of_piece(wanted);
        match self.put_once((index, data.clone()), bytes).await {
            Err(error) if error.is_disk_full() => {
                self.shared.relieve(bytes).await?;
                self.put_once((index, data), bytes).await
            }
            put => put,
        }
    }

    async fn put_once(&self, chunk: (u32, Bytes), bytes: u64) -> Result<(), StoreError> {
        let growth = self.shared.reserve(bytes).await?;
        let object = self.clone();
        tasks::blocking("store-put", move || object.put_now(chunk, growth)).await?
    }

    fn put_now(&self, (index, data): (u32, Bytes), growth: Reservation) -> Result<(), StoreError> {
        let Some(absent) = &self.absent else { return Ok(()) };
        let _writing = absent.writing();
        if !absent.has(index) {
            return Ok(());
        }
        let shared = &self.shared;
        shared.check_disk(data.len() as u64)?;
        let offset = u64::from(index) * u64::from(self.described.manifest.head().chunk_size);
        let bytes = data.len() as u64;
        let hole = HoleRow { file: self.body.id(), chunk: index, offset, bytes };
        shared.disk.catalog.note_hole(hole)?;
        let mut growth = growth;
        let written = self
            .body
            .file()
            .write_at(&data, offset)
            .and_then(|()| self.body.file().sync())
            .and_then(|()| self.admit(hole, absent, &mut growth));
        match written {
            Ok(()) => {
                shared.disk.memory.copy_chunk(self.body.id(), index, &data);
                if let Err(error) = shared.disk.catalog.sync_when_due() {
                    tracing::warn!(%error, "a power cut now would lose more than the newest chunks");
                }
                Ok(())
            }
            Err(error) => {
                shared.give_up(hole, growth);
                Err(error.while_writing(&shared.dir, bytes))
            }
        }
    }

    /// The chunk is on disk: from here on it is here.
    fn admit(
        &self,
        hole: HoleRow,
        absent: &Absent,
        growth: &mut Reservation,
    ) -> Result<(), StoreError> {
        let shared = &self.shared;
        let key = self.described.manifest.head().key;
        let _turn = shared.commit_turn();
        let here = read(&shared.table).get(&key).filter(|e| e.file == hole.file).map(|e| e.bytes());
        let Some(bytes) = here else { return Err(StoreError::NotFound { key }) };
        let charge_bytes = bytes + growth.bytes();
        let noted = (absent.bits_with(hole.chunk), charge_bytes);
        shared.disk.catalog.put_absent(&key, noted, Holes::Filled(hole))?;
        self.body.grow(growth.bytes());
        let mut table = write(&shared.table);
        absent.came(hole.chunk);
        table.grow(&key, growth.take());
        Ok(())
    }
}

impl Shared {
    /// A chunk that was written and does not count: its space is free again, or stays taken.
    fn give_up(&self, hole: HoleRow, growth: Reservation) {
        let punched = self.disk.bodies.punch(hole.file, hole.offset, hole.bytes);
        match punched.and_then(|done| self.disk.catalog.settle_holes(&[hole]).map(|()| done)) {
            Ok(true) => drop(growth),
            Ok(false) | Err(_) => growth.forfeit(),
        }
    }

    /// Frees the space of chunks that were taken from an object, and says how much that was.
    pub(super) fn give_back(
        &self,
        key: &ObjectKey,
        part: Part,
        (turn, writing): (Turn<'_>, Option<MutexGuard<'_, ()>>),
    ) -> Result<u64, StoreError> {
        let Part { file, object_id, absent, holes, reservation, charge_bytes } = part;
        let noted = (absent.bits(), charge_bytes);
        let noted = self.disk.catalog.put_absent(key, noted, Holes::Left(&holes));
        self.tell(*key, object_id);
        drop(turn);
        let chunks: Vec<u32> = holes.iter().map(|hole| hole.chunk).collect();
        self.disk.memory.forget_chunks(file, &chunks);
        let punch = |hole: &HoleRow| self.disk.bodies.punch(file, hole.offset, hole.bytes);
        let freed = match (noted, writing.is_some()) {
            (Ok(()), true) => holes.iter().try_fold(true, |all, hole| Ok(all & punch(hole)?)),
            (Ok(()), false) => Ok(false),
            (Err(error), _) => Err(error),
        };
        drop(writing);
        if matches!(freed, Ok(true)) {
            let bytes = reservation.bytes();
            self.metrics.parts_evicted.inc();
            self.metrics.evicted_bytes.inc_by(bytes);
            drop(reservation);
            self.disk.catalog.settle_holes(&holes)?;
            return Ok(bytes);
        }
        // Its space is still taken. From now on objects go as a whole, this one too.
        self.cannot_cut.store(true, std::sync::atomic::Ordering::Relaxed);
        tracing::warn!(%key, %file, "no part of a file could be given back: whole objects go instead");
        write(&self.table).grow(key, reservation);
        freed.map(|_| 0)
    }

    /// Gives back once more what is not here of an object. Blocks.
    pub(super) fn close_gaps(&self, key: &ObjectKey, file: FileId) {
        let Ok(Some(manifest)) = self.disk.catalog.manifest(key) else { return };
        let _turn = self.commit_turn();
        let found = read(&self.table)
            .get(key)
            .filter(|entry| entry.file == file)
            .map(|entry| (entry.absent.clone(), entry.chunk_size));
        let Some((Some(absent), chunk_size)) = found else { return };
        // Who writes now knows what it does.
        let Some(_writing) = absent.try_writing() else { return };
        for run in absent.runs(true) {
            let offset = u64::from(run.start) * u64::from(chunk_size);
            let end = (u64::from(run.end) * u64::from(chunk_size)).min(manifest.length());
            if let Err(error) = self.disk.bodies.punch(file, offset, end - offset) {
                tracing::warn!(%key, %error, "space of chunks that left was not given back");
                return;
            }
        }
    }
}
