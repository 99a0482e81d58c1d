//! The only spawner. Every task has a name, hears the cancellation, and is awaited at shutdown; a
//! task that panics stops the process's work instead of leaving a hole in it.

use std::future::Future;
use std::time::Duration;

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A group of tasks that live and end together. Clones belong to the same group.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

/// A blocking piece of work that did not finish.
#[derive(Debug, thiserror::Error)]
#[error("background work {name} was lost: {reason}")]
pub struct LostWork {
    name: &'static str,
    reason: String,
}

impl Tasks {
    /// An empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// A group inside this one: stopped with it, or alone.
    pub fn child(&self) -> Self {
        Self { tracker: self.tracker.clone(), stop: self.stop.child_token() }
    }

    /// Runs `task` until it ends by itself. It must listen to [`Tasks::stopped`] wherever it waits.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            if std::panic::AssertUnwindSafe(task).catch_unwind().await.is_err() {
                tracing::error!(task = name, "task panicked, stopping");
                stop.cancel();
            }
        });
    }

    /// Runs `task` until it ends or the group is stopped, at whatever await it then stands.
    pub fn spawn_until_stopped<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.spawn(name, async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Asks every task of the group to end.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether [`Tasks::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits for [`Tasks::stop`].
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// The token behind [`Tasks::stopped`], for libraries that want one.
    pub fn token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Stops the group and waits for its tasks; false when some still ran after `deadline`.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}

/// Runs blocking work (disk, RocksDB) on the blocking pool, whose size the runtime bounds.
///
/// # Errors
/// When the work panicked or the runtime is shutting down.
pub async fn blocking<T, F>(name: &'static str, work: F) -> Result<T, LostWork>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| LostWork { name, reason: error.to_string() })
}

/// Runs `work` on another runtime, such as the member's own, and waits for it. Dropped, the wait
/// ends and the work goes on: it must have a deadline of its own.
///
/// # Errors
/// When the work panicked or that runtime is shutting down.
pub async fn on<T>(
    runtime: &tokio::runtime::Handle,
    name: &'static str,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, LostWork>
where
    T: Send + 'static,
{
    runtime.spawn(work).await.map_err(|error| LostWork { name, reason: error.to_string() })
}

/// Starts a named operating-system thread.
///
/// # Errors
/// When the operating system refuses.
pub fn thread<F>(name: &str, work: F) -> std::io::Result<std::thread::JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    std::thread::Builder::new().name(name.to_owned()).spawn(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shutdown_waits_for_tasks() {
        let tasks = Tasks::new();
        let inner = tasks.clone();
        tasks.spawn("waits", async move { inner.stopped().await });
        assert!(tasks.shutdown(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_panic_stops_the_group() {
        let tasks = Tasks::new();
        tasks.spawn("panics", async { panic!("on purpose") });
        tasks.stopped().await;
        assert!(tasks.is_stopped());
    }

    #[tokio::test]
    async fn a_child_stops_alone_or_with_its_parent() {
        let parent = Tasks::new();
        let child = parent.child();
        child.stop();
        assert!(!parent.is_stopped());
        let other = parent.child();
        parent.stop();
        assert!(other.is_stopped());
    }
}
