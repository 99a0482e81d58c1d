//! The look at every body file that an opening does not wait for: a little at a time, with a pause
//! after each, so that neither readers nor writers notice.
//!
//! It finds what only a power cut or a foreign hand leaves: files that belong to nothing, which go,
//! and objects whose file is gone or of another length, which are dropped. Bytes that changed in
//! place are found when they are read, by their hash. Of an object that is here in part, the space
//! of what is not here is given back once more: a power cut may have forgotten who had it.
//!
//! Invariants: a file that this process made or that a record named at the opening is never removed
//! here; an object is dropped only if it still has the file that was looked at.

use std::sync::{Arc, Weak};
use std::time::Duration;

use shoal_proto::ObjectKey;

use super::error::StoreError;
use super::record::{Place, Record};
use super::shared::Shared;
use super::{FileId, read};
use crate::tasks;

/// Objects looked at in one step.
const STEP_OBJECTS: usize = 512;
/// After each step: at most some 10,000 files a second.
const PAUSE: Duration = Duration::from_millis(50);

/// Where the look stands.
#[derive(Debug)]
pub(super) struct Scrub {
    /// Files that had a record at the opening, in order.
    known: Vec<FileId>,
    next: Next,
    removed: usize,
    dropped: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The files whose names begin with that byte.
    Part(u8),
    /// The objects after that key.
    Objects(Option<ObjectKey>),
    Done,
}

impl Scrub {
    pub(super) fn new(records: &[(ObjectKey, Record)]) -> Self {
        let files = records.iter().filter(|(_, record)| record.place == Place::File);
        let mut known: Vec<FileId> = files.map(|(_, record)| record.file).collect();
        known.sort_unstable();
        Self { known, next: Next::Part(0), removed: 0, dropped: 0 }
    }

    /// Looks at everything, until the store is closed or dropped.
    pub(super) fn run(mut self, shared: &Arc<Shared>) {
        let store = Arc::downgrade(shared);
        let background = shared.disk.background.clone();
        shared.disk.background.spawn("store-scrub", async move {
            while self.next != Next::Done && !background.is_stopped() {
                match step(self, store.clone()).await {
                    Some(stepped) => self = stepped,
                    None => return,
                }
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = background.stopped() => {}
                }
            }
        });
    }

    /// Looks at about [`STEP_OBJECTS`] more. Blocks.
    fn step(&mut self, shared: &Shared) {
        let mut looked = 0;
        while looked < STEP_OBJECTS && self.next != Next::Done {
            looked += match self.next {
                Next::Part(part) => {
                    self.next = part.checked_add(1).map_or(Next::Objects(None), Next::Part);
                    self.remove_strays(shared, part).unwrap_or_else(|error| {
                        tracing::warn!(%error, part, "some body files were not looked at");
                        0
                    })
                }
                Next::Objects(after) => {
                    let (last, files) = read(&shared.table).files(after, STEP_OBJECTS);
                    self.next = last.map_or(Next::Done, |last| Next::Objects(Some(last)));
                    self.drop_short(shared, &files);
                    files.len()
                }
                Next::Done => 0,
            };
        }
        if self.next == Next::Done {
            shared.disk.bodies.forget_born();
            shared.scrub.send_replace(true);
            let Self { removed, dropped, .. } = *self;
            tracing::info!(removed, dropped, "every body file was looked at");
        }
    }

    fn remove_strays(&mut self, shared: &Shared, part: u8) -> Result<usize, StoreError> {
        let bodies = &shared.disk.bodies;
        let files = bodies.part(part)?;
        let looked = files.len();
        for file in files {
            if self.known.binary_search(&file).is_err() && !bodies.is_born(file) {
                bodies.remove(file)?;
                self.removed += 1;
            }
        }
        Ok(looked)
    }

    fn drop_short(&mut self, shared: &Shared, files: &[(ObjectKey, FileId)]) {
        for (key, file) in files {
            // What cannot be looked at now may be well: its next reader will know.
            let Ok(found) = shared.disk.bodies.length(*file) else { continue };
            let wanted = match shared.disk.catalog.record(key) {
                Ok(Some(record)) if record.file == *file => {
                    (record.length, !record.absent.is_empty())
                }
                _ => continue,
            };
            if found == Some(wanted.0) {
                if wanted.1 {
                    shared.close_gaps(key, *file);
                }
                continue;
            }
            let wanted = wanted.0;
            if shared.drop_damaged(key, *file) {
                tracing::warn!(%key, %file, ?found, wanted, "an object without its file was dropped");
                self.dropped += 1;
            }
        }
    }
}

/// A step on the blocking pool; `None` when the store is gone.
async fn step(mut scrub: Scrub, store: Weak<Shared>) -> Option<Scrub> {
    let work = move || {
        let shared = store.upgrade()?;
        scrub.step(&shared);
        Some(scrub)
    };
    tasks::blocking("store-scrub", work).await.ok().flatten()
}

/// For whoever has to know that it is over.
#[cfg(test)]
pub(super) async fn done(shared: &Shared) {
    shared.scrub.subscribe().wait_for(|done| *done).await.unwrap();
}
