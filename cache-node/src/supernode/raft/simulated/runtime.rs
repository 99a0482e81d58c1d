//! The simulation's runtime: the library's deterministic one, and in it *lives*. A life is one run
//! of one process: what it spawns belongs to it, a pause freezes all of it, a kill drops all of it
//! at once, in the middle of whatever it did.
//!
//! Invariant: nothing of a dead life is ever polled again, so that nothing it would still have
//! written or sent ever happens.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use openraft::async_runtime::AsyncRuntime;
use openraft::{Instant as _, OptionalSend};
use openraft_rt_sim::{Elapsed, SimInstant, SimJoinError, SimJoinHandle, SimRuntime};
use openraft_rt_sim::{SimSleep, SimTimeout};

thread_local! {
    static CURRENT: RefCell<Option<Life>> = const { RefCell::new(None) };
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

#[derive(Default)]
struct State {
    dead: bool,
    paused: bool,
    wakers: BTreeMap<u64, Waker>,
    next: u64,
}

/// One run of one process. Clones are the same life.
#[derive(Clone, Default)]
pub(in crate::supernode) struct Life(Arc<Mutex<State>>);

impl Life {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has ended.
    pub(in crate::supernode) fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Ends it; must not be called from within.
    pub(in crate::supernode) fn kill(&self) {
        self.state().dead = true;
        self.wake_all();
    }

    /// Freezes it, or lets it go on.
    pub(in crate::supernode) fn pause(&self, paused: bool) {
        self.state().paused = paused;
        if !paused {
            self.wake_all();
        }
    }

    /// Whether it is frozen.
    pub(in crate::supernode) fn is_paused(&self) -> bool {
        self.state().paused
    }

    fn wake_all(&self) {
        let wakers: Vec<_> = self.state().wakers.values().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Runs a future as a part of this life.
    pub(in crate::supernode) fn spawn<F>(&self, future: F) -> SimJoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        SimRuntime::spawn(Gated {
            life: Some(self.clone()),
            future: Some(Box::pin(future)),
            slot: 0,
        })
    }
}

/// Runs a future that belongs to no process: the world's own.
pub(in crate::supernode) fn spawn_outside<F>(future: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    SimRuntime::spawn(Gated { life: None, future: Some(Box::pin(future)), slot: 0 });
}

/// Waits, in virtual time.
pub(in crate::supernode) async fn sleep_us(us: u64) {
    SimRuntime::sleep(Duration::from_micros(us)).await;
}

/// Waits, in virtual time.
pub(in crate::supernode) async fn sleep_ms(ms: u64) {
    sleep_us(ms * 1_000).await;
}

/// `None` when `future` takes longer than that.
pub(in crate::supernode) async fn within_ms<F: Future + Send>(
    ms: u64,
    future: F,
) -> Option<F::Output> {
    SimRuntime::timeout(Duration::from_millis(ms), future).await.ok()
}

/// Virtual time since the start.
pub(in crate::supernode) fn now_us() -> u64 {
    u64::try_from(SimInstant::now().elapsed_since_start().as_micros()).unwrap_or(u64::MAX)
}

/// Runs a whole simulated world on this thread; what panicked in it.
pub(in crate::supernode) fn run<T>(seed: u64, world: impl Future<Output = T>) -> (T, Vec<String>) {
    PANICS.take();
    let mut runtime = SimRuntime::with_seed(seed);
    let output = runtime.block_on(world);
    drop(runtime);
    (output, PANICS.take())
}

/// What panicked since the last look.
pub(in crate::supernode) fn panics() -> Vec<String> {
    PANICS.take()
}

struct Gated<F> {
    life: Option<Life>,
    future: Option<Pin<Box<F>>>,
    slot: u64,
}

impl<F: Future> Gated<F> {
    /// Whether the future may be polled now.
    fn admitted(&mut self, cx: &Context<'_>) -> bool {
        let Some(life) = self.life.clone() else { return true };
        let mut state = life.state();
        if state.dead {
            drop(state);
            entered(Some(&life), || self.future = None);
            return false;
        }
        if self.slot == 0 {
            state.next += 1;
            self.slot = state.next;
            state.wakers.insert(self.slot, cx.waker().clone());
        }
        !state.paused
    }
}

fn entered<T>(life: Option<&Life>, work: impl FnOnce() -> T) -> T {
    let before = CURRENT.replace(life.cloned());
    let done = catch_unwind(AssertUnwindSafe(work));
    CURRENT.set(before);
    done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        PANICS.with_borrow_mut(|all| all.push(text.unwrap_or_default()));
        resume_unwind(panic)
    })
}

impl<F: Future> Future for Gated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if !this.admitted(cx) {
            return Poll::Pending;
        }
        let Some(future) = this.future.as_mut() else { return Poll::Pending };
        let polled = entered(this.life.as_ref(), || future.as_mut().poll(cx));
        if polled.is_ready() {
            entered(this.life.as_ref(), || this.future = None);
        }
        polled
    }
}

impl<F> Drop for Gated<F> {
    fn drop(&mut self) {
        if let Some(life) = &self.life {
            life.state().wakers.remove(&self.slot);
        }
    }
}

/// The library's runtime with lives in it.
#[derive(Clone, Copy, Debug)]
pub(in crate::supernode) struct Runtime;

impl AsyncRuntime for Runtime {
    type JoinError = SimJoinError;
    type JoinHandle<T: OptionalSend + 'static> = SimJoinHandle<T>;
    type Sleep = SimSleep;
    type Instant = SimInstant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = SimTimeout<T>;
    type ThreadLocalRng = <SimRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <SimRuntime as AsyncRuntime>::Mpsc;
    type Watch = <SimRuntime as AsyncRuntime>::Watch;
    type Oneshot = <SimRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <SimRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        let life = CURRENT.with_borrow(Clone::clone);
        SimRuntime::spawn(Gated { life, future: Some(Box::pin(future)), slot: 0 })
    }

    fn sleep(duration: Duration) -> SimSleep {
        SimRuntime::sleep(duration)
    }

    fn sleep_until(deadline: SimInstant) -> SimSleep {
        SimRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        SimRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: SimInstant,
        future: F,
    ) -> Self::Timeout<R, F> {
        SimRuntime::timeout_at(deadline, future)
    }

    fn is_panic(error: &SimJoinError) -> bool {
        SimRuntime::is_panic(error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        SimRuntime::thread_rng()
    }

    fn new(_threads: usize) -> Self {
        Self
    }

    /// The world runs in [`run`]; this one has none of its own.
    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        SimRuntime::with_seed(0).block_on(future)
    }
}
