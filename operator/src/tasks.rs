//! The only spawner. Every task has a name and hears the cancellation; one that panics stops the
//! process's work instead of leaving a hole in it.

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

impl Tasks {
    /// An empty group.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task` until it ends or the group is stopped, at whatever await it then stands.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            let guarded = std::panic::AssertUnwindSafe(task).catch_unwind();
            tokio::select! {
                () = stop.cancelled() => {}
                ended = guarded => if ended.is_err() {
                    tracing::error!(task = name, "task panicked, stopping");
                    stop.cancel();
                }
            }
        });
    }

    /// Asks every task to end.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits for [`Tasks::stop`].
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Stops the group and waits for its tasks; false when some still ran after `deadline`.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_stops_the_group() {
        let tasks = Tasks::new();
        tasks.spawn("waits", std::future::pending());
        tasks.spawn("panics", async { panic!("on purpose") });
        tasks.stopped().await;
        assert!(tasks.shutdown(Duration::from_secs(5)).await);
    }
}
