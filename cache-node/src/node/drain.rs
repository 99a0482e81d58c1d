//! Leaving without loss: on demand the node is unready, asks clients to go elsewhere, is given no
//! copies any more, and gives away what nobody else would have. Then it may be stopped.
//!
//! A node that is told to stop drains likewise for `edge.stop_wait`, and stops then, done or not.
//!
//! Invariant: `drained` is said only when every object of the store was looked at since the last
//! one came, and each has a holder that stays. What clients ask is served all the while.
//!
//! Not here: objects of which this node has some chunks only; whoever wants one of those after it
//! has left fetches it again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use http::Method;
use serde_json::Value;
use shoal_proto::{NodeId, ObjectId, ObjectKey};
use tokio::sync::watch;

use super::auto::Auto;
use crate::admin::tokens::{Target, Verb};
use crate::admin::{Call, Control, ControlError, DrainStatus};
use crate::clock;
use crate::directory::{Directory, OTHERS_OBJECTS_MAX, Others};
use crate::fetch::{Fetcher, Given};
use crate::membership::ClusterView;
use crate::membership::handoff::{HandOff, Next};
use crate::metrics::DrainMetrics;
use crate::store::Store;
use crate::tasks::Tasks;

/// Nodes asked to take a copy at a time.
const ASKED_MAX: usize = 16;
/// Between two looks at what was asked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Pause after the tier did not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// So long without an object more that is safe, and the drain counts as stalled.
const STALLED_AFTER: Duration = Duration::from_secs(60);

/// What draining needs of the node.
pub(super) struct Parts {
    pub(super) store: Arc<Store>,
    pub(super) directory: Arc<Directory>,
    pub(super) fetcher: Fetcher,
    /// The edge asks clients to go elsewhere while it is set.
    pub(super) leaving: Arc<AtomicBool>,
    pub(super) metrics: DrainMetrics,
}

/// A node's drain, as others may steer and watch it.
#[derive(Clone)]
pub(super) struct Drain {
    wanted: watch::Sender<bool>,
    shown: watch::Receiver<DrainStatus>,
}

impl Drain {
    /// The drain of a node, carried out by a task of `tasks`.
    pub(super) fn start(parts: Parts, tasks: &Tasks) -> Self {
        let (wanted, asked) = watch::channel(false);
        let (show, shown) = watch::channel(DrainStatus::serving());
        let begun = clock::monotonic();
        let progress = Duration::ZERO;
        let worker = Worker { parts, show, hand_off: HandOff::default(), begun, progress };
        tasks.spawn_until_stopped("drain", worker.run(asked));
        Self { wanted, shown }
    }

    /// How far it is.
    pub(super) fn shown(&self) -> watch::Receiver<DrainStatus> {
        self.shown.clone()
    }

    /// Begins a drain, as on demand, because the process is told to stop.
    pub(super) fn begin(&self) {
        self.wanted.send_replace(true);
    }

    /// Follows whether the node is to leave.
    pub(super) fn wanted(&self) -> watch::Receiver<bool> {
        self.wanted.subscribe()
    }

    /// `control` with the calls that begin, cancel and show the drain.
    pub(super) fn add_to(self, control: Control, auto: Option<Arc<Auto>>) -> Control {
        let begin = self.clone();
        let cancel = self.clone();
        control
            .with((Method::GET, "/v1/drain"), Verb::Read, move |_| {
                let status = self.shown.borrow().clone();
                async move { answer(&status) }
            })
            .with((Method::POST, "/v1/drain"), Verb::Drain, move |call| {
                let (drain, auto) = (begin.clone(), auto.clone());
                async move {
                    if auto.is_some_and(|auto| auto.super_node().borrow().is_some()) {
                        return Err(ControlError::conflict(
                            "this node keeps the index too: the tier would lose a member",
                            "take it out of the tier first: shoal members replace or remove",
                        ));
                    }
                    drain.want(&call, true).await
                }
            })
            .with((Method::DELETE, "/v1/drain"), Verb::Drain, move |call| {
                let drain = cancel.clone();
                async move { drain.want(&call, false).await }
            })
    }

    async fn want(&self, call: &Call, wanted: bool) -> Result<Value, ControlError> {
        call.allow(Target::Everything)?;
        let mut shown = self.shown.clone();
        if self.wanted.send_replace(wanted) != wanted {
            tracing::info!(caller = call.caller(), wanted, "a drain was asked for, or cancelled");
        }
        // The worker lives as long as the node; when it stops there is nothing to show.
        let _ = shown.wait_for(|status| (status.state == "serving") != wanted).await;
        let status = shown.borrow().clone();
        answer(&status)
    }
}

fn answer(status: &DrainStatus) -> Result<Value, ControlError> {
    let strange = |error: serde_json::Error| {
        ControlError::unavailable(error.to_string(), "look at the node's log")
    };
    serde_json::to_value(status).map_err(strange)
}

/// Carries a drain out.
struct Worker {
    parts: Parts,
    show: watch::Sender<DrainStatus>,
    hand_off: HandOff,
    begun: Instant,
    /// When something last became safe, after the beginning.
    progress: Duration,
}

/// An object of the store.
type Object = (ObjectKey, ObjectId);

impl Worker {
    async fn run(mut self, mut wanted: watch::Receiver<bool>) {
        while wanted.wait_for(|wanted| *wanted).await.is_ok() {
            self.begin();
            tokio::select! {
                () = self.drain() => {}
                cancelled = wanted.wait_for(|wanted| !wanted) => {
                    if cancelled.is_err() {
                        return;
                    }
                }
            }
            self.end();
        }
    }

    fn begin(&mut self) {
        self.hand_off = HandOff::default();
        (self.begun, self.progress) = (clock::monotonic(), Duration::ZERO);
        self.parts.directory.set_draining(true);
        self.parts.leaving.store(true, Ordering::Relaxed);
        self.parts.metrics.draining.set(1);
        let why = "the cluster is told that this node leaves";
        let objects_left = self.parts.store.usage().objects as u64;
        self.show.send_replace(DrainStatus { objects_left, ..DrainStatus::new("draining", why) });
    }

    fn end(&self) {
        self.parts.directory.set_draining(false);
        self.parts.leaving.store(false, Ordering::Relaxed);
        self.parts.metrics.draining.set(0);
        self.parts.metrics.objects_left.set(0);
        self.show.send_replace(DrainStatus::serving());
    }

    /// Gives away what is here, and what comes later, until it is dropped.
    async fn drain(&mut self) {
        let me = self.parts.directory.node_id();
        let mut view = self.parts.directory.watch_view();
        let known = |view: &ClusterView| view.member(me).is_some_and(|member| member.draining);
        // The directory lives as long as the node.
        let _ = view.wait_for(known).await;
        loop {
            let stored = self.parts.store.stored();
            self.pass(me).await;
            if stored == self.parts.store.stored() {
                self.show.send_modify(|status| {
                    let why = "a node that stays has every object: this one may be stopped";
                    "drained".clone_into(&mut status.state);
                    why.clone_into(&mut status.why);
                    (status.objects_left, status.stalled) = (0, false);
                });
                self.parts.metrics.objects_left.set(0);
                while stored == self.parts.store.stored() {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                self.show.send_modify(|status| "draining".clone_into(&mut status.state));
            }
        }
    }

    /// Goes through the whole store once.
    async fn pass(&mut self, me: NodeId) {
        let mut after: Option<ObjectKey> = None;
        let mut looked_at = 0;
        loop {
            let page = self.parts.store.list(after, OTHERS_OBJECTS_MAX);
            let Some((last, _)) = page.last() else { return };
            after = Some(*last);
            let count = page.len();
            self.settle(me, page, looked_at).await;
            looked_at += count;
        }
    }

    /// Returns when all of `page` is safe, or not whole here any more; `looked_at` are done.
    async fn settle(&mut self, me: NodeId, mut page: Vec<Object>, looked_at: usize) {
        let count = page.len();
        loop {
            page.retain(|(key, object)| {
                let here = self.parts.store.holding(key) == Some((*object, None));
                if !here {
                    self.hand_off.forget(key);
                }
                here
            });
            if page.is_empty() {
                return;
            }
            let others = match self.parts.directory.others(&page).await {
                Ok(others) => others,
                Err(error) => {
                    tracing::debug!(%error, "who else holds what is not known");
                    self.tell(
                        looked_at + count - page.len(),
                        "no super-node says who else holds what",
                    );
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (left, asks, nobody) = self.sort(me, page, &others);
            page = left;
            let why = match nobody {
                true => "no other node is up that stays: there is nobody to give copies to",
                false => "copies are being given away",
            };
            self.tell(looked_at + count - page.len(), why);
            let gone = self.ask(asks).await;
            page.retain(|(key, _)| !gone.contains(key));
            if !page.is_empty() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }

    /// What is left of `page`, whom to ask for what, and whether somebody is missing.
    fn sort(
        &mut self,
        me: NodeId,
        page: Vec<Object>,
        others: &[Others],
    ) -> (Vec<Object>, Vec<(Object, NodeId)>, bool) {
        let (now, view) = (clock::since(self.begun), self.parts.directory.view());
        let (mut left, mut asks, mut nobody) = (Vec::new(), Vec::new(), false);
        for (object, holders) in page.into_iter().zip(others) {
            match self.hand_off.next(now, (&object.0, holders), (me, &view)) {
                Next::Safe { given_bytes } => {
                    self.progress = now;
                    given_bytes.into_iter().for_each(|bytes| self.handed_off(bytes));
                    continue;
                }
                Next::Ask(node) => asks.push((object, node)),
                Next::Wait => {}
                Next::Nobody => nobody = true,
            }
            left.push(object);
        }
        (left, asks, nobody)
    }

    /// Asks for copies; returns what needs none, because a purge covers it.
    async fn ask(&mut self, asks: Vec<(Object, NodeId)>) -> Vec<ObjectKey> {
        let fetcher = &self.parts.fetcher;
        let asked: Vec<_> = futures::stream::iter(asks)
            .map(|((key, object), node)| async move {
                (key, fetcher.give_copy(key, object, node).await)
            })
            .buffer_unordered(ASKED_MAX)
            .collect()
            .await;
        let now = clock::since(self.begun);
        let mut gone = Vec::new();
        for (key, answer) in asked {
            match answer {
                Given::Taken(length) => self.hand_off.asked(now, key, Some(length)),
                Given::Refused => self.hand_off.asked(now, key, None),
                Given::Gone => {
                    self.hand_off.forget(&key);
                    gone.push(key);
                }
            }
        }
        gone
    }

    fn handed_off(&self, bytes: u64) {
        self.parts.metrics.objects.inc();
        self.parts.metrics.bytes.inc_by(bytes);
        self.show.send_modify(|status| {
            status.handed_off += 1;
            status.handed_off_bytes += bytes;
        });
    }

    /// So many of the store's objects are safe.
    fn tell(&self, safe: usize, why: &str) {
        let left = self.parts.store.usage().objects.saturating_sub(safe) as u64;
        let stalled = clock::since(self.begun) - self.progress > STALLED_AFTER;
        self.parts.metrics.objects_left.set(i64::try_from(left).unwrap_or(i64::MAX));
        self.show.send_modify(|status| {
            (status.objects_left, status.stalled) = (left, stalled);
            why.clone_into(&mut status.why);
        });
    }
}
