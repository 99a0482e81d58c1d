//! Making room: on demand only, never on a timer.
//!
//! Invariants: nothing is evicted for an object that cannot fit even then; one eviction runs at a
//! time, so that of two that need room neither finds nothing left while the other frees it; what
//! is held is never evicted, since that would free nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::budget::Reservation;
use super::error::{Full, StoreError};
use super::shared::Shared;
use super::table::{Victim, Victims};
use super::write;
use crate::tasks;

/// Free space of the file system that is left to the catalog's log and compactions, in bytes; of
/// a small file system one part in so many.
const DISK_RESERVE_BYTES: u64 = 256 * 1024 * 1024;
const DISK_RESERVE_PART: u64 = 6;

impl Shared {
    /// So many bytes of the budget, evicting what must go for them.
    pub(super) async fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, StoreError> {
        if let Some(reservation) = self.budget.reserve(bytes) {
            return Ok(reservation);
        }
        let budget_bytes = self.budget.limit();
        if bytes > budget_bytes {
            return Err(self.full(bytes, Full::Budget { budget_bytes }));
        }
        self.evicting(move |shared| shared.make_room(bytes)).await
    }

    /// Evicts files of at least so many bytes whatever the budget says: the file system is full.
    /// Small bodies would not help: RocksDB gives their space back in its own time.
    pub(super) async fn relieve(self: &Arc<Self>, bytes: u64) -> Result<(), StoreError> {
        self.evicting(move |shared| {
            shared.disk.reclaim_waiting();
            let mut freed_bytes = 0;
            while freed_bytes < bytes {
                let evicted = shared.evict_next(Victims::Files, bytes)?;
                freed_bytes += evicted.as_ref().map_or(0, |evicted| evicted.freed_bytes);
                if !evicted.is_some_and(|evicted| evicted.is_file) {
                    return Err(shared.full(bytes, Full::Disk));
                }
            }
            Ok(())
        })
        .await
    }

    /// Fails when writing so many bytes would leave too little of the file system for the catalog,
    /// which a full disk keeps even from forgetting.
    pub(super) fn check_disk(&self, bytes: u64) -> Result<(), StoreError> {
        let Ok(space) = rustix::fs::statvfs(&self.dir) else { return Ok(()) };
        let part_bytes = space.f_blocks.saturating_mul(space.f_frsize) / DISK_RESERVE_PART;
        let reserve_bytes = part_bytes.min(DISK_RESERVE_BYTES);
        let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
        if free_bytes < bytes.saturating_add(reserve_bytes) {
            return Err(self.full(bytes, Full::Disk));
        }
        Ok(())
    }

    async fn evicting<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = Arc::clone(&self.evict_turn).lock_owned().await;
        let shared = Arc::clone(self);
        let work = move || {
            // Kept through the work, even when nobody waits for its end any more.
            let _turn = turn;
            work(&shared)
        };
        tasks::blocking("store-evict", work).await?
    }

    fn make_room(&self, bytes: u64) -> Result<Reservation, StoreError> {
        self.disk.reclaim_waiting();
        loop {
            if let Some(reservation) = self.budget.reserve(bytes) {
                return Ok(reservation);
            }
            if !self.budget.could_fit(bytes) || self.evict_next(Victims::Any, bytes)?.is_none() {
                let budget_bytes = self.budget.limit();
                let pinned_bytes = self.budget.pinned();
                return Err(self.full(bytes, Full::InUse { budget_bytes, pinned_bytes }));
            }
        }
    }

    /// Evicts one object, or a part of a large one; `None` when none can go.
    fn evict_next(&self, victims: Victims, bytes: u64) -> Result<Option<Evicted>, StoreError> {
        let turn = self.commit_turn();
        let cut_from_bytes = match self.cannot_cut.load(Ordering::Relaxed) {
            true => u64::MAX,
            false => self.cut_from_bytes,
        };
        let mut table = write(&self.table);
        let Some((victim, spared)) = table.take_part(victims, (bytes, cut_from_bytes)) else {
            return Ok(None);
        };
        self.metrics.last_copies_spared.inc_by(spared);
        match victim {
            Victim::Whole(key, entry) => {
                drop(table);
                let lost = self.evicted(&key, entry, &turn);
                drop(turn);
                let is_file = lost.is_file();
                self.free(lost).map(|freed_bytes| Some(Evicted { freed_bytes, is_file }))
            }
            Victim::Part(key, part) => {
                let absent = Arc::clone(&part.absent);
                // Nobody holds the object, so nobody writes to it; who finds it from here on waits.
                let writing = absent.try_writing();
                drop(table);
                let freed_bytes = self.give_back(&key, part, (turn, writing))?;
                Ok(Some(Evicted { freed_bytes, is_file: true }))
            }
        }
    }
}

/// What an eviction came to.
struct Evicted {
    freed_bytes: u64,
    is_file: bool,
}
