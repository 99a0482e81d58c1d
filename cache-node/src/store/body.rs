//! A stored body while somebody holds it, and the freeing of its space when nobody does.
//!
//! Invariants: what was evicted, replaced or removed is freed by whoever comes last: at once when
//! nobody holds the [`Body`], else when its last holder lets go. The order is always: space freed,
//! then bytes given back to the budget. Freeing that waits for a thread is done by whoever needs
//! room first, so that nothing else is evicted for want of it.
//! It must not know: keys, who may be evicted.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use shoal_proto::Manifest;

use super::bodies::{Bodies, BodyFile, KeptOpen};
use super::budget::{Budget, Pin, Reservation};
use super::catalog::Catalog;
use super::error::{Fault, StoreError};
use super::memory::Memory;
use super::record::{BodyRow, Place};
use super::{FileId, lock};
use crate::tasks::{self, Tasks};

/// What holds bytes: catalog, body files and memory tier; and the freeing that waits.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) catalog: Catalog,
    pub(super) bodies: Arc<Bodies>,
    pub(super) memory: Memory,
    pub(super) background: Tasks,
    /// No more than there were bodies held; a task that empties it is on its way.
    waiting: Mutex<Vec<Reclaim>>,
    freeing: Mutex<()>,
}

/// The freeing of one body's space.
#[derive(Debug)]
pub(super) struct Reclaim {
    pub(super) id: FileId,
    pub(super) place: Place,
    pub(super) chunks: u32,
    pub(super) reservation: Reservation,
    /// Removing a file frees its space when its last descriptor closes, not before.
    pub(super) open: Option<KeptOpen>,
}

impl Disk {
    pub(super) fn new(catalog: Catalog, bodies: Arc<Bodies>, memory: Memory) -> Self {
        let background = Tasks::new();
        let (waiting, freeing) = (Mutex::default(), Mutex::default());
        Self { catalog, bodies, memory, background, waiting, freeing }
    }

    /// Frees the space now, then gives its bytes back. Blocks.
    ///
    /// # Errors
    /// When the space could not be freed: its bytes then stay taken.
    pub(super) fn reclaim(&self, reclaim: Reclaim) -> Result<(), StoreError> {
        let Reclaim { id, place, chunks, reservation, open } = reclaim;
        self.memory.forget(id, chunks);
        let removed = match place {
            Place::File => self.bodies.remove(id),
            Place::Inline => Ok(()),
        };
        drop(open);
        // A note that stays costs the next opening a look.
        let freed = removed.and_then(|()| {
            let settled = self.catalog.settle(BodyRow { file: id, place });
            if place == Place::File { Ok(()) } else { settled }
        });
        match freed {
            Ok(()) => drop(reservation),
            Err(_) => reservation.forfeit(),
        }
        freed
    }

    /// Does all freeing that waits, and waits for what is being done. Blocks.
    pub(super) fn reclaim_waiting(&self) {
        let _turn = lock(&self.freeing);
        loop {
            let next = lock(&self.waiting).pop();
            let Some(next) = next else { return };
            let id = next.id;
            if let Err(error) = self.reclaim(next) {
                tracing::warn!(file = %id, %error, "space of a dropped body was not freed");
            }
        }
    }

    /// Frees the space soon, without blocking where there is a runtime to do it.
    fn reclaim_later(self: &Arc<Self>, reclaim: Reclaim) {
        lock(&self.waiting).push(reclaim);
        if tokio::runtime::Handle::try_current().is_err() {
            return self.reclaim_waiting();
        }
        let disk = Arc::clone(self);
        self.background.spawn("store-reclaim", async move {
            let work = move || disk.reclaim_waiting();
            if let Err(lost) = tasks::blocking("store-reclaim", work).await {
                tracing::warn!(%lost, "space of a dropped body is freed at the next start");
            }
        });
    }
}

/// A body that is being read or filled. Its file opens when first needed and closes with it.
#[derive(Debug)]
pub(super) struct Body {
    disk: Arc<Disk>,
    file: BodyFile,
    pin: Pin,
    doom: Mutex<Option<Reclaim>>,
}

impl Body {
    /// A body of which `bytes` are reserved so far: no eviction frees them while it is held.
    pub(super) fn new(id: FileId, disk: &Arc<Disk>, budget: &Arc<Budget>, bytes: u64) -> Arc<Self> {
        let file = BodyFile::new(id, Arc::clone(&disk.bodies));
        let pin = budget.pin();
        pin.grow(bytes);
        Arc::new(Self { disk: Arc::clone(disk), file, pin, doom: Mutex::new(None) })
    }

    pub(super) fn id(&self) -> FileId {
        self.file.id()
    }

    pub(super) fn file(&self) -> &BodyFile {
        &self.file
    }

    /// So many more bytes are reserved for it.
    pub(super) fn grow(&self, bytes: u64) {
        self.pin.grow(bytes);
    }

    /// Frees its space once nobody holds it.
    pub(super) fn doom(&self, reclaim: Reclaim) {
        *lock(&self.doom) = Some(reclaim);
    }

    /// Chunk `index` from disk, not yet verified. Blocks.
    pub(super) fn read(
        &self,
        place: Place,
        manifest: &Manifest,
        index: u32,
    ) -> Result<Bytes, Fault> {
        if place == Place::Inline {
            let found = self.disk.catalog.body(self.id())?;
            return found.ok_or_else(|| Fault::Damaged("its small body is missing".to_owned()));
        }
        let offset = u64::from(index) * u64::from(manifest.head().chunk_size);
        let length = manifest.chunk_length(index) as usize;
        self.file.read_at(length, offset)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let doom = self.doom.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reclaim) = doom {
            let open = self.file.take_open();
            self.disk.reclaim_later(Reclaim { open, ..reclaim });
        }
    }
}
