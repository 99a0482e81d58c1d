//! What left the origin, by path.
//!
//! Invariant: the totals count every request except those to `/_origin/`; the paths count a subset
//! of them, and `paths_truncated` says when it is a proper one. Bytes are counted as they are
//! handed to a connection, slice by slice; a connection takes a new slice only when all but a few
//! kilobytes of the last one are with the operating system.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use serde::{Deserialize, Serialize};

/// Paths counted one by one.
pub const PATHS_MAX: usize = 65_536;
/// The longest path, with its query, that is counted one by one.
pub const PATH_MAX_BYTES: usize = 1024;

/// Sums, as the stats document shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests of any method.
    pub requests: u64,
    /// Those with If-None-Match or If-Modified-Since.
    pub conditional_requests: u64,
    /// Those with Range.
    pub range_requests: u64,
    /// Those answered with 304.
    pub not_modified: u64,
    /// Body bytes sent.
    pub body_bytes: u64,
}

/// The document at `/_origin/stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsDocument {
    /// Another text after each start of an origin.
    pub instance: String,
    /// How often the counts were cleared.
    pub resets: u64,
    /// True when there were more or longer paths than are counted one by one.
    pub paths_truncated: bool,
    /// By path with its query, as received.
    pub paths: BTreeMap<String, Counts>,
    /// Of all requests.
    pub totals: Counts,
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    conditional_requests: AtomicU64,
    range_requests: AtomicU64,
    not_modified: AtomicU64,
    body_bytes: AtomicU64,
}

impl Counters {
    fn read(&self) -> Counts {
        Counts {
            requests: self.requests.load(Relaxed),
            conditional_requests: self.conditional_requests.load(Relaxed),
            range_requests: self.range_requests.load(Relaxed),
            not_modified: self.not_modified.load(Relaxed),
            body_bytes: self.body_bytes.load(Relaxed),
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    resets: u64,
    truncated: bool,
    paths: HashMap<String, Arc<Counters>>,
    totals: Arc<Counters>,
}

/// The origin's counters.
#[derive(Debug)]
pub struct Stats {
    instance: String,
    table: Mutex<Table>,
}

/// What one request contains that is counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// It has a condition.
    pub conditional: bool,
    /// It has a range.
    pub range: bool,
}

/// Counts for one request; it keeps counting into what was current when the request came.
#[derive(Clone, Debug)]
pub struct Tally {
    path: Option<Arc<Counters>>,
    totals: Arc<Counters>,
}

impl Stats {
    /// Counters at zero for the origin that `instance` names.
    #[must_use]
    pub fn new(instance: String) -> Self {
        Self { instance, table: Mutex::default() }
    }

    /// Counts a request.
    #[must_use]
    pub fn begin(&self, path_and_query: &str, asked: Asked) -> Tally {
        let tally = self.tally(path_and_query);
        tally.add(|counters| &counters.requests, 1);
        tally.add(|counters| &counters.conditional_requests, asked.conditional.into());
        tally.add(|counters| &counters.range_requests, asked.range.into());
        tally
    }

    fn tally(&self, path_and_query: &str) -> Tally {
        let mut table = self.lock();
        let totals = Arc::clone(&table.totals);
        if let Some(known) = table.paths.get(path_and_query) {
            return Tally { path: Some(Arc::clone(known)), totals };
        }
        if table.paths.len() >= PATHS_MAX || path_and_query.len() > PATH_MAX_BYTES {
            table.truncated = true;
            return Tally { path: None, totals };
        }
        let counters = Arc::<Counters>::default();
        table.paths.insert(path_and_query.to_owned(), Arc::clone(&counters));
        Tally { path: Some(counters), totals }
    }

    /// Sets every count to zero. Replies under way count into what was there before.
    pub fn reset(&self) {
        let mut table = self.lock();
        *table = Table { resets: table.resets + 1, ..Table::default() };
    }

    /// All counts.
    #[must_use]
    pub fn document(&self) -> StatsDocument {
        let table = self.lock();
        StatsDocument {
            instance: self.instance.clone(),
            resets: table.resets,
            paths_truncated: table.truncated,
            paths: table.paths.iter().map(|(path, count)| (path.clone(), count.read())).collect(),
            totals: table.totals.read(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    /// Counts body bytes.
    pub fn body_bytes(&self, bytes: usize) {
        self.add(|counters| &counters.body_bytes, bytes as u64);
    }

    /// Counts a 304.
    pub fn not_modified(&self) {
        self.add(|counters| &counters.not_modified, 1);
    }

    fn add(&self, counter: impl Fn(&Counters) -> &AtomicU64, amount: u64) {
        for counters in self.path.iter().chain([&self.totals]) {
            counter(counters).fetch_add(amount, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_path_and_in_total() {
        let stats = Stats::new("i".into());
        stats.begin("/a", Asked::default()).body_bytes(10);
        let tally = stats.begin("/a", Asked { conditional: true, range: true });
        tally.not_modified();
        stats.begin("/a?x=1", Asked::default()).body_bytes(5);
        let document = stats.document();
        let a = document.paths["/a"];
        assert_eq!((a.requests, a.conditional_requests, a.range_requests), (2, 1, 1));
        assert_eq!((a.not_modified, a.body_bytes), (1, 10));
        assert_eq!((document.totals.requests, document.totals.body_bytes), (3, 15));
        assert!(!document.paths_truncated);
    }

    #[test]
    fn paths_are_bounded_and_the_totals_go_on() {
        let stats = Stats::new("i".into());
        for number in 0..PATHS_MAX + 10 {
            stats.begin(&format!("/{number}"), Asked::default()).body_bytes(1);
        }
        stats.begin("/0", Asked::default()).body_bytes(1);
        let document = stats.document();
        assert_eq!(document.paths.len(), PATHS_MAX);
        assert!(document.paths_truncated);
        assert_eq!(document.totals.body_bytes, PATHS_MAX as u64 + 11);
        assert_eq!(document.paths["/0"].requests, 2);
        let long = Stats::new("i".into());
        let _tally = long.begin(&"x".repeat(PATH_MAX_BYTES + 1), Asked::default());
        assert!(long.document().paths_truncated && long.document().paths.is_empty());
    }

    #[test]
    fn a_reset_clears_and_is_told() {
        let stats = Stats::new("i".into());
        let old = stats.begin("/a", Asked::default());
        stats.reset();
        old.body_bytes(10);
        let document = stats.document();
        assert_eq!((document.resets, document.totals), (1, Counts::default()));
        assert!(document.paths.is_empty());
    }
}
