//! The only place in this crate that starts tasks and threads.
//!
//! Invariant: what a [`Group`] started has ended, or was cut off and has been counted as such,
//! when [`Group::finish`] returns.

use std::{io, thread, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Tasks that end together. Clones share the same tasks.
#[derive(Clone, Debug, Default)]
pub struct Group {
    tracker: TaskTracker,
    abort: CancellationToken,
}

impl Group {
    /// An empty group.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task that ends at the latest when the group is aborted.
    #[expect(clippy::disallowed_methods, reason = "tasks.rs is where tasks start")]
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let abort = self.abort.clone();
        let task = async move {
            tokio::select! {
                () = abort.cancelled() => {}
                () = future => {}
            }
        };
        drop(tokio::spawn(self.tracker.track_future(task)));
    }

    /// Tasks that have not ended.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// True when no task is running.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Cuts off every task at its next await.
    pub fn abort(&self) {
        self.abort.cancel();
    }

    /// Waits for every task; after `within`, aborts what is left. True when nothing was cut off.
    pub async fn finish(&self, within: Duration) -> bool {
        self.tracker.close();
        let whole = tokio::time::timeout(within, self.tracker.wait()).await.is_ok();
        if !whole {
            self.abort();
            self.tracker.wait().await;
        }
        whole
    }
}

/// Connection tasks of hyper's client go into the group as well.
impl<F> hyper::rt::Executor<F> for Group
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        self.spawn(async move {
            drop(future.await);
        });
    }
}

/// Starts a named thread, for work that must not wait for the runtime's millisecond timer.
///
/// # Errors
/// When the operating system has no thread to give.
pub fn thread(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(body)
}
