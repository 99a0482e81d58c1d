//! The simulated network: between any two processes messages take their time, overtake one
//! another, are lost and doubled; links are cut in one direction or both. Streams keep their order
//! and lose nothing, as TCP does, until they have stood still for too long.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::super::raft::simulated::{Life, now_us, sleep_us, spawn_outside, within_ms};
use super::rng::Rng;

/// A message on an ordinary link takes so long, in microseconds.
const TRAVEL_US: (u64, u64) = (150, 3_000);
/// One in so many is late by so much, in microseconds.
const LATE_ONE_IN: u64 = 40;
const LATE_US: (u64, u64) = (5_000, 150_000);
/// One in so many calls between super-nodes arrives twice.
const TWICE_ONE_IN: u64 = 60;
/// On a bad link one in so many messages is lost.
const LOST_ONE_IN: u64 = 4;
/// A stream is tried again so often, in microseconds, and given up after so many tries.
const RETRY_US: u64 = 100_000;
const TRIES_MAX: u32 = 80;
/// Messages under way on one direction of a stream.
const STREAM_MAX: usize = 256;

struct State {
    rng: Rng,
    cut: BTreeMap<(u64, u64), u32>,
    bad: BTreeSet<u64>,
    slow: BTreeMap<u64, u64>,
    messages: u64,
    lost: u64,
}

/// The network of one world.
#[derive(Clone)]
pub(super) struct Net(Arc<Mutex<State>>);

/// What is done where a message arrives: the life it happens in, and the work. `None` when nobody
/// is there.
pub(super) type Arrival<A> = Option<(Life, BoxFuture<'static, Option<A>>)>;

/// One side of a stream.
pub(super) struct End<S, R> {
    pub(super) up: mpsc::Sender<(u64, S)>,
    pub(super) down: mpsc::Receiver<R>,
}

impl<S, R> End<S, R> {
    /// Whether there is still somebody.
    pub(super) async fn send(&self, message: S) -> bool {
        self.up.send((now_us(), message)).await.is_ok()
    }
}

impl Net {
    pub(super) fn new(rng: Rng) -> Self {
        let (cut, bad, slow) = Default::default();
        Self(Arc::new(Mutex::new(State { rng, cut, bad, slow, messages: 0, lost: 0 })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages sent, and how many of them were lost.
    pub(super) fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.messages, state.lost)
    }

    /// Cuts the way from one to another, once more or once less.
    pub(super) fn cut(&self, from: u64, to: u64, cut: bool) {
        let mut state = self.state();
        let times = state.cut.entry((from, to)).or_default();
        *times = if cut { *times + 1 } else { times.saturating_sub(1) };
    }

    /// Loses many messages from and to one process, or not.
    pub(super) fn bad(&self, host: u64, bad: bool) {
        let mut state = self.state();
        match bad {
            true => state.bad.insert(host),
            false => state.bad.remove(&host),
        };
    }

    /// Slows everything from and to one process down by `us` microseconds.
    pub(super) fn slow(&self, host: u64, us: u64) {
        self.state().slow.insert(host, us);
    }

    /// No faults from here on.
    pub(super) fn heal(&self) {
        let mut state = self.state();
        state.cut.clear();
        state.bad.clear();
        state.slow.clear();
    }

    fn is_cut(&self, from: u64, to: u64) -> bool {
        self.state().cut.get(&(from, to)).is_some_and(|times| *times > 0)
    }

    /// How long a message takes; `None` when it is lost.
    fn travel(&self, from: u64, to: u64, may_lose: bool) -> Option<u64> {
        let mut state = self.state();
        state.messages += 1;
        let cut = state.cut.get(&(from, to)).is_some_and(|times| *times > 0);
        let bad = state.bad.contains(&from) || state.bad.contains(&to);
        if may_lose && (cut || (bad && state.rng.one_in(LOST_ONE_IN))) {
            state.lost += 1;
            return None;
        }
        let mut us = state.rng.between(TRAVEL_US);
        if state.rng.one_in(LATE_ONE_IN) {
            us += state.rng.between(LATE_US);
        }
        let slow = |host: &u64| state.slow.get(host).copied().unwrap_or(0);
        Some(us + slow(&from) + slow(&to))
    }

    /// Asks `to`; the answer, or `None` when there is none within `ms`, or nobody is there. What was
    /// not delivered when the caller gives up is not delivered any more, unless it `doubles`.
    pub(super) async fn call<A, F>(
        &self,
        (from, to): (u64, u64),
        ms: u64,
        doubles: bool,
        arrive: F,
    ) -> Option<A>
    where
        A: Send + 'static,
        F: Fn() -> Arrival<A> + Clone + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let sender = Arc::new(Mutex::new(Some(sender)));
        let twice = doubles && self.state().rng.one_in(TWICE_ONE_IN);
        for _ in 0..=usize::from(twice) {
            let Some(us) = self.travel(from, to, true) else { continue };
            let (net, arrive, sender) = (self.clone(), arrive.clone(), Arc::clone(&sender));
            spawn_outside(async move {
                sleep_us(us).await;
                net.deliver((from, to), doubles, arrive, sender).await;
            });
        }
        let answer = within_ms(ms, receiver).await;
        drop(sender);
        answer.and_then(Result::ok).flatten()
    }

    async fn deliver<A, F>(&self, (from, to): (u64, u64), doubles: bool, arrive: F, done: Done<A>)
    where
        A: Send + 'static,
        F: Fn() -> Arrival<A> + Send + 'static,
    {
        if self.is_cut(from, to) || (!doubles && is_given_up(&done)) {
            return;
        }
        let Some((life, work)) = arrive() else {
            self.back((to, from), None, done);
            return;
        };
        let net = self.clone();
        life.spawn(async move {
            let answer = work.await;
            net.back((to, from), answer, done);
        });
    }

    fn back<A: Send + 'static>(&self, (from, to): (u64, u64), answer: Option<A>, done: Done<A>) {
        let Some(us) = self.travel(from, to, true) else { return };
        let net = self.clone();
        spawn_outside(async move {
            sleep_us(us).await;
            if !net.is_cut(from, to)
                && let Some(sender) = done.lock().unwrap_or_else(PoisonError::into_inner).take()
            {
                drop(sender.send(answer));
            }
        });
    }

    /// A stream between two processes.
    pub(super) fn stream<S, R>(&self, from: u64, to: u64) -> (End<S, R>, End<R, S>)
    where
        S: Send + 'static,
        R: Send + 'static,
    {
        let (here, there) = (self.direction(from, to), self.direction(to, from));
        (End { up: here.0, down: there.1 }, End { up: there.0, down: here.1 })
    }

    fn direction<M: Send + 'static>(
        &self,
        from: u64,
        to: u64,
    ) -> (mpsc::Sender<(u64, M)>, mpsc::Receiver<M>) {
        let (sender, mut queue) = mpsc::channel::<(u64, M)>(STREAM_MAX);
        let (out, receiver) = mpsc::channel(STREAM_MAX);
        let net = self.clone();
        spawn_outside(async move {
            loop {
                let next = queue.recv().await;
                let sent_us = next.as_ref().map_or(now_us(), |(at, _)| *at);
                let arrives = sent_us + net.travel(from, to, false).unwrap_or(0);
                sleep_us(arrives.saturating_sub(now_us())).await;
                let mut tries = 0;
                while net.is_cut(from, to) {
                    sleep_us(RETRY_US).await;
                    tries += 1;
                    if tries > TRIES_MAX {
                        return;
                    }
                }
                // The other side's end is told of like a message: it takes its time.
                let Some((_, message)) = next else { return };
                if out.send(message).await.is_err() {
                    return;
                }
            }
        });
        (sender, receiver)
    }
}

type Done<A> = Arc<Mutex<Option<oneshot::Sender<Option<A>>>>>;

fn is_given_up<A>(done: &Done<A>) -> bool {
    let done = done.lock().unwrap_or_else(PoisonError::into_inner);
    done.as_ref().is_none_or(oneshot::Sender::is_closed)
}

/// Work of a life, for [`Net::call`].
pub(super) fn arrival<A>(
    life: Life,
    work: impl Future<Output = Option<A>> + Send + 'static,
) -> Arrival<A> {
    Some((life, Box::pin(work)))
}
