//! Making room: on demand only, never on a timer.
//!
//! Invariants: nothing is evicted for an object that cannot fit even then; one eviction runs at a
//! time, so that of two that need room neither finds nothing left while the other frees it; what
//! is held is never evicted, since that would free nothing.

use std::sync::Arc;

use super::budget::Reservation;
use super::error::{Full, StoreError};
use super::shared::Shared;
use crate::tasks;

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

    /// Evicts at least so many bytes whatever the budget says: the file system is full.
    pub(super) async fn relieve(self: &Arc<Self>, bytes: u64) -> Result<(), StoreError> {
        self.evicting(move |shared| {
            shared.disk.reclaim_waiting();
            let mut freed_bytes = 0;
            while freed_bytes < bytes.max(1) {
                let freed = shared.evict_one()?;
                freed_bytes += freed.ok_or_else(|| shared.full(bytes, Full::Disk))?;
            }
            Ok(())
        })
        .await
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
            if !self.budget.could_fit(bytes) || self.evict_one()?.is_none() {
                let budget_bytes = self.budget.limit();
                let pinned_bytes = self.budget.pinned();
                return Err(self.full(bytes, Full::InUse { budget_bytes, pinned_bytes }));
            }
        }
    }

    /// Evicts one object and says how many bytes that freed; `None` when none can go.
    fn evict_one(&self) -> Result<Option<u64>, StoreError> {
        let lost = self.take_victim(&self.commit_turn());
        lost.map(|lost| self.free(lost)).transpose()
    }
}
