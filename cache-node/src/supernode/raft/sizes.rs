//! PURE. How many bytes of entries stand where in the log, in spans: what bounds the log when
//! entries differ in size by orders of magnitude.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Entries are counted together up to so many bytes.
const SPAN_BYTES: u64 = 1024 * 1024;

#[derive(Clone, Copy, Debug)]
struct Span {
    first: u64,
    last: u64,
    bytes: u64,
}

/// The log's sizes; shared by whoever writes it and whoever decides what to purge.
#[derive(Debug, Default)]
pub(super) struct Sizes(Mutex<VecDeque<Span>>);

impl Sizes {
    fn spans(&self) -> MutexGuard<'_, VecDeque<Span>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An entry was written.
    pub(super) fn add(&self, index: u64, bytes: u64) {
        let mut spans = self.spans();
        match spans.back_mut() {
            Some(span) if span.bytes + bytes <= SPAN_BYTES => {
                span.last = index;
                span.bytes += bytes;
            }
            _ => spans.push_back(Span { first: index, last: index, bytes }),
        }
    }

    /// Entries from `end` on are gone.
    pub(super) fn cut(&self, end: u64) {
        let mut spans = self.spans();
        while spans.back().is_some_and(|span| span.first >= end) {
            spans.pop_back();
        }
        if let Some(span) = spans.back_mut() {
            span.last = span.last.min(end.saturating_sub(1));
        }
    }

    /// Entries up to `upto` are gone.
    pub(super) fn purge(&self, upto: u64) {
        let mut spans = self.spans();
        while spans.front().is_some_and(|span| span.last <= upto) {
            spans.pop_front();
        }
    }

    /// About how many bytes stand after `position`; all, for `None`.
    pub(super) fn after(&self, position: Option<u64>) -> u64 {
        let spans = self.spans();
        let newer = spans.iter().rev().take_while(|span| Some(span.last) > position);
        newer.map(|span| span.bytes).sum()
    }

    /// Up to where entries may go so that at most about `bytes` stay.
    pub(super) fn to_keep(&self, bytes: u64) -> Option<u64> {
        let spans = self.spans();
        let mut kept = 0;
        let mut newest = spans.iter().rev();
        let gone = newest.find(|span| {
            kept += span.bytes;
            kept > bytes
        });
        gone.map(|span| span.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_in_bytes() {
        let sizes = Sizes::default();
        for index in 0..100 {
            sizes.add(index, SPAN_BYTES / 2);
        }
        assert_eq!(sizes.after(None), 50 * SPAN_BYTES);
        assert_eq!(sizes.after(Some(89)), 5 * SPAN_BYTES);
        assert_eq!(sizes.to_keep(100 * SPAN_BYTES), None);
        assert_eq!(sizes.to_keep(5 * SPAN_BYTES), Some(89));
        sizes.purge(89);
        assert_eq!(sizes.after(None), 5 * SPAN_BYTES);
        sizes.cut(95);
        assert_eq!(sizes.after(None), 3 * SPAN_BYTES);
        sizes.add(95, 2 * SPAN_BYTES);
        assert_eq!(sizes.to_keep(SPAN_BYTES), Some(95));
        sizes.cut(0);
        assert_eq!(sizes.after(None), 0);
    }
}
