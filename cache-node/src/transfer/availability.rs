//! Tells another node which chunks are here, as they come.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use shoal_proto::wire::v1;
use tokio::sync::watch;
use tonic::Status;

use super::live::{End, Live, Progress};
use super::source::Source;

/// How long arrivals gather before they are told, in milliseconds.
const GATHER_MS: u64 = 5;
/// Most arrivals told at once.
const TOLD_MAX: usize = 4_096;

type Events = Pin<Box<dyn Stream<Item = Result<v1::AvailabilityEvent, Status>> + Send>>;

struct Teller {
    live: Arc<Live>,
    progress: watch::Receiver<Progress>,
    told: usize,
}

/// What there is, then what comes, until it is all there or the growth breaks off.
pub(super) fn stream(source: Source) -> Events {
    match source {
        Source::Stored(stored) if stored.is_whole() => {
            let all = v1::AvailabilityEvent { has: Vec::new(), all: true };
            Box::pin(stream::iter([Ok(all)]))
        }
        Source::Stored(stored) => {
            let held = stored.held().into_iter();
            let range =
                |run: Range<u32>| v1::ChunkRange { first: run.start, count: run.end - run.start };
            let some = v1::AvailabilityEvent { has: held.map(range).collect(), all: false };
            // Who asks counts on a peer for as long as it tells.
            Box::pin(stream::iter([Ok(some)]).chain(stream::pending()))
        }
        Source::Growing(live) => {
            let teller = Teller { progress: live.watch(), live, told: 0 };
            Box::pin(stream::unfold(Some(teller), |teller| async move {
                let mut teller = teller?;
                let event = teller.next().await?;
                let last = event.all;
                Some((Ok(event), (!last).then_some(teller)))
            }))
        }
    }
}

impl Teller {
    async fn next(&mut self) -> Option<v1::AvailabilityEvent> {
        loop {
            // The end is read first: what it finished is then seen by the look below it.
            let end = self.progress.borrow_and_update().end.clone();
            let mut arrived = self.live.arrivals_after(self.told);
            arrived.truncate(TOLD_MAX);
            match end {
                Some(End::Done(_)) => {
                    return Some(v1::AvailabilityEvent { has: Vec::new(), all: true });
                }
                Some(End::Failed(_)) => return None,
                None if !arrived.is_empty() => {
                    self.told += arrived.len();
                    return Some(v1::AvailabilityEvent { has: ranges(arrived), all: false });
                }
                None => {}
            }
            self.progress.changed().await.ok()?;
            tokio::time::sleep(Duration::from_millis(GATHER_MS)).await;
        }
    }
}

pub(super) fn ranges(mut chunks: Vec<u32>) -> Vec<v1::ChunkRange> {
    chunks.sort_unstable();
    let mut ranges: Vec<v1::ChunkRange> = Vec::new();
    for chunk in chunks {
        match ranges.last_mut() {
            Some(last) if last.first + last.count == chunk => last.count += 1,
            _ => ranges.push(v1::ChunkRange { first: chunk, count: 1 }),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_make_ranges() {
        let told = ranges(vec![7, 3, 4, 9, 8]);
        let pairs: Vec<_> = told.iter().map(|range| (range.first, range.count)).collect();
        assert_eq!(pairs, [(3, 2), (7, 3)]);
    }
}
