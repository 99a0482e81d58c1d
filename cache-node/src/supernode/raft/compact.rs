//! When a snapshot is taken and how much of the log is purged. The library counts entries; here
//! bytes are counted too, since entries differ in size by orders of magnitude.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;

use super::Core;
use super::sizes::Sizes;
use crate::tasks::Tasks;

/// Between two looks at the log's length, in milliseconds.
const LOOK_EVERY_MS: u64 = 250;

/// When snapshots are taken and logs purged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compaction {
    /// A snapshot after so many entries.
    pub(super) every: u64,
    /// Or after so many bytes.
    pub(super) every_bytes: u64,
    /// Entries kept behind a snapshot, so that a short absence needs no snapshot.
    pub(super) keep: u64,
    /// But at most so many bytes.
    pub(super) keep_bytes: u64,
    /// A follower further behind gets a snapshot; above `every`, or it would not help.
    pub(super) lag: u64,
}

impl Default for Compaction {
    fn default() -> Self {
        Self {
            every: 10_000,
            every_bytes: 256 * 1024 * 1024,
            keep: 5_000,
            keep_bytes: 128 * 1024 * 1024,
            lag: 20_000,
        }
    }
}

/// What to do about the log's length.
#[derive(Debug, Default, PartialEq)]
struct Due {
    snapshot: bool,
    purge: Option<u64>,
}

impl Compaction {
    /// PURE. What to do when `snapshot` is the last snapshot's position and the log was purged up to
    /// `purged`.
    fn due(&self, sizes: &Sizes, snapshot: Option<u64>, purged: Option<u64>) -> Due {
        let purge = sizes.to_keep(self.keep_bytes).min(snapshot);
        Due {
            snapshot: sizes.after(snapshot) > self.every_bytes,
            purge: purge.filter(|_| purge > purged),
        }
    }
}

/// Keeps the log within its bytes until `core` or the process ends.
pub(super) fn follow(core: &Core, sizes: Arc<Sizes>, compaction: Compaction, tasks: &Tasks) {
    let (core, source) = (core.clone(), core.metrics());
    tasks.spawn_until_stopped("raft-compact", async move {
        loop {
            tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
            let metrics = source.borrow_watched().clone();
            let (snapshot, purged) = (metrics.snapshot, metrics.purged);
            let position = |id: Option<super::wire::LogId>| id.map(|id| id.index);
            let due = compaction.due(&sizes, position(snapshot), position(purged));
            let trigger = core.trigger();
            if due.snapshot && metrics.last_applied > snapshot && trigger.snapshot().await.is_err()
            {
                return;
            }
            if let Some(upto) = due.purge
                && trigger.purge_log(upto).await.is_err()
            {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_entries_are_compacted_before_there_are_many() {
        let compaction = Compaction { every_bytes: 1_000, keep_bytes: 300, ..Default::default() };
        let sizes = Sizes::default();
        assert_eq!(compaction.due(&sizes, None, None), Due::default());
        (0..10).for_each(|index| sizes.add(index, 1024 * 1024));
        let due = compaction.due(&sizes, None, None);
        assert_eq!(due, Due { snapshot: true, purge: None }, "nothing goes before a snapshot");
        let due = compaction.due(&sizes, Some(5), None);
        assert_eq!(due, Due { snapshot: true, purge: Some(5) });
        let due = compaction.due(&sizes, Some(9), Some(9));
        assert_eq!(due, Due::default());
    }
}
