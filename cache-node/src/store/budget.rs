//! The byte budget: a ledger of body bytes, held at all times.
//!
//! Invariants: the sum of all [`Reservation`]s is what [`Budget::used`] says and never passes the
//! limit; bytes go back when their reservation is dropped, which is after their space is free.
//! Pinned bytes (being read, being filled) are a part of the used ones: no eviction frees them.
//! It must not know: files, objects, who is evicted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::IntGauge;

/// The ledger.
#[derive(Debug)]
pub(super) struct Budget {
    limit_bytes: u64,
    used_bytes: AtomicU64,
    pinned_bytes: AtomicU64,
    gauge: IntGauge,
}

impl Budget {
    pub(super) fn new(limit_bytes: u64, gauge: IntGauge) -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        Arc::new(Self { limit_bytes, used_bytes: zero(), pinned_bytes: zero(), gauge })
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit_bytes
    }

    pub(super) fn used(&self) -> u64 {
        self.used_bytes.load(Ordering::Acquire)
    }

    pub(super) fn pinned(&self) -> u64 {
        self.pinned_bytes.load(Ordering::Acquire)
    }

    /// So many bytes, if they are free now.
    pub(super) fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        let add = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit_bytes);
        self.used_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).ok()?;
        self.gauge.add(gauge_value(bytes));
        Some(Reservation { budget: Arc::clone(self), bytes })
    }

    /// Whether so many bytes would fit with everything evicted that can go now.
    pub(super) fn could_fit(&self, bytes: u64) -> bool {
        self.pinned().saturating_add(bytes) <= self.limit_bytes
    }

    /// A pin on no bytes yet.
    pub(super) fn pin(self: &Arc<Self>) -> Pin {
        Pin { budget: Arc::clone(self), bytes: AtomicU64::new(0) }
    }
}

fn gauge_value(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Bytes taken from the budget; dropped, they are free again.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Reservation {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds another reservation's bytes to this one.
    pub(super) fn merge(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// All its bytes in a new reservation; this one keeps none.
    pub(super) fn take(&mut self) -> Self {
        Self { budget: Arc::clone(&self.budget), bytes: std::mem::take(&mut self.bytes) }
    }

    /// So many of its bytes in a new reservation; all of them when it has fewer.
    pub(super) fn split(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { budget: Arc::clone(&self.budget), bytes }
    }

    /// Never gives the bytes back: their space could not be freed.
    pub(super) fn forfeit(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.budget.gauge.sub(gauge_value(self.bytes));
    }
}

/// Reserved bytes that no eviction can free while this lives.
#[derive(Debug)]
pub(super) struct Pin {
    budget: Arc<Budget>,
    bytes: AtomicU64,
}

impl Pin {
    /// Pins so many bytes more.
    pub(super) fn grow(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        self.budget.pinned_bytes.fetch_add(bytes, Ordering::AcqRel);
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.budget.pinned_bytes.fetch_sub(*self.bytes.get_mut(), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(limit_bytes: u64) -> Arc<Budget> {
        Budget::new(limit_bytes, IntGauge::new("used", "used").unwrap())
    }

    #[test]
    fn gives_no_more_than_it_has() {
        let budget = budget(10);
        let mut all = budget.reserve(6).unwrap();
        assert!(budget.reserve(5).is_none());
        all.merge(budget.reserve(4).unwrap());
        assert_eq!((all.bytes(), budget.used(), budget.gauge.get()), (10, 10, 10));
        assert!(budget.reserve(u64::MAX).is_none(), "no wrap");
        let mut moved = all.take();
        drop(all);
        assert_eq!(budget.used(), 10);
        drop(moved.split(3));
        assert_eq!((moved.bytes(), budget.used()), (7, 7));
        assert_eq!(moved.split(8).bytes(), 7, "no more than it has");
        drop(moved);
        assert_eq!((budget.used(), budget.gauge.get()), (0, 0));
    }

    #[test]
    fn space_that_was_not_freed_stays_taken() {
        let budget = budget(10);
        budget.reserve(6).unwrap().forfeit();
        assert_eq!(budget.used(), 6);
    }

    #[test]
    fn pinned_bytes_cannot_be_made_free() {
        let budget = budget(10);
        let pin = budget.pin();
        pin.grow(4);
        pin.grow(2);
        assert!(budget.could_fit(4));
        assert!(!budget.could_fit(5));
        drop(pin);
        assert!(budget.could_fit(10));
    }

    #[test]
    fn holds_under_contention() {
        let budget = budget(100);
        std::thread::scope(|scope| {
            for step in 1..=4u64 {
                let budget = &budget;
                scope.spawn(move || {
                    for turn in 0..20_000 {
                        let held = budget.reserve((turn * step) % 60);
                        assert!(budget.used() <= 100);
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(budget.used(), 0);
    }
}
