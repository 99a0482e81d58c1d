//! Upload discipline: a few chunks leave at a time, in the order in which they were asked for. Sent
//! all at once they would all arrive late, and none could be passed on meanwhile. Too few at a time
//! leave the line idle whenever they go to nodes on which much else arrives.
//!
//! A slot is held from before a chunk is read until its last byte is with the operating system, or
//! for [`HELD_MS_MAX`]: a peer that takes what it asked for slowly does not hold up the others.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;
use tonic::server::NamedService;
use tower_service::Service;

use crate::clock;

/// Chunks that leave at a time.
const SLOTS: usize = 8;
/// After so long a chunk that still leaves does not count any more, in milliseconds.
const HELD_MS_MAX: u64 = 1_000;

type Permit = Mutex<Option<OwnedSemaphorePermit>>;

/// The slots of one node.
pub(super) struct Slots {
    free: Arc<Semaphore>,
    /// Slots that were taken, the oldest first.
    taken: Mutex<VecDeque<(Instant, Weak<Permit>)>>,
    held_max: Duration,
}

/// One slot, given up when it is dropped, or taken away before.
pub(super) struct Slot {
    _permit: Arc<Permit>,
}

impl Default for Slots {
    fn default() -> Self {
        Self::new(SLOTS, Duration::from_millis(HELD_MS_MAX))
    }
}

impl Slots {
    fn new(count: usize, held_max: Duration) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), taken: Mutex::default(), held_max }
    }

    /// Waits for a slot, behind whoever waits already.
    pub(super) async fn take(&self) -> Slot {
        let mut free = std::pin::pin!(self.free.clone().acquire_owned());
        let permit = loop {
            tokio::select! {
                biased;
                permit = &mut free => break permit.ok(),
                () = tokio::time::sleep(self.until_overdue()) => self.free_overdue(),
            }
        };
        let slot = Arc::new(Mutex::new(permit));
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|(_, slot)| slot.strong_count() > 0);
        taken.push_back((clock::monotonic(), Arc::downgrade(&slot)));
        Slot { _permit: slot }
    }

    fn until_overdue(&self) -> Duration {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = taken.iter().find(|(_, slot)| slot.strong_count() > 0);
        let held = oldest.map_or(Duration::ZERO, |(since, _)| clock::since(*since));
        self.held_max.saturating_sub(held)
    }

    fn free_overdue(&self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while taken.front().is_some_and(|(since, _)| clock::since(*since) >= self.held_max) {
            if let Some(slot) = taken.pop_front().and_then(|(_, slot)| slot.upgrade()) {
                drop(slot.lock().unwrap_or_else(PoisonError::into_inner).take());
            }
        }
    }
}

/// Slots of chunks that are on their way into one answer's body.
#[derive(Clone, Default)]
pub(super) struct Leaving(Arc<Mutex<VecDeque<Slot>>>);

impl Leaving {
    /// The next chunk of the body has this slot.
    pub(super) fn push(&self, slot: Slot) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(slot);
    }

    fn take(&self) -> VecDeque<Slot> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Bytes that hold slots until they are gone.
struct Held {
    bytes: Bytes,
    _slots: VecDeque<Slot>,
}

/// The peer service, whose answers hold the slots that they name.
#[derive(Clone)]
pub struct Discipline<S>(pub(super) S);

impl<S: NamedService> NamedService for Discipline<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, R> Service<R> for Discipline<S>
where
    S: Service<R, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            let mut answer = answer.await?;
            Ok(match answer.extensions_mut().remove::<Leaving>() {
                Some(leaving) => answer.map(|body| holding(body, leaving)),
                None => answer,
            })
        })
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The body, each piece of which holds the slots of the chunks in it until it has left.
fn holding(body: Body, leaving: Leaving) -> Body {
    Body::new(body.map_frame(move |frame| {
        frame.map_data(|bytes| {
            let slots = leaving.take();
            match slots.is_empty() {
                true => bytes,
                false => Bytes::from_owner(Held { bytes, _slots: slots }),
            }
        })
    }))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn chunks_leave_in_the_order_in_which_they_were_asked_for() {
        let slots = Slots::new(2, Duration::from_secs(3600));
        let (one, _two) = (slots.take().await, slots.take().await);
        let (first, second) = (slots.take(), slots.take());
        let (mut first, mut second) = (std::pin::pin!(first), std::pin::pin!(second));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        let body = Body::new(http_body_util::Full::new(Bytes::from_static(b"a chunk")));
        let leaving = Leaving::default();
        leaving.push(one);
        let mut body = holding(body, leaving);
        let bytes = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(&bytes[..], b"a chunk");
        let tail = bytes.slice(5..);
        drop(bytes);
        assert!(first.as_mut().now_or_never().is_none(), "its tail has not left");
        drop(tail);
        assert!(second.as_mut().now_or_never().is_none(), "it is not its turn");
        assert!(first.as_mut().now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_takes_it_slowly_does_not_hold_up_the_others() {
        let slots = Slots::new(1, Duration::from_millis(20));
        let slow = slots.take().await;
        let next = slots.take().await;
        drop(slow);
        assert!(slots.free.available_permits() == 0, "what was taken away is not given back twice");
        drop(next);
        assert_eq!(slots.free.available_permits(), 1);
    }
}
