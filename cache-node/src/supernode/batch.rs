//! Proposals in batches: commands gather for some milliseconds or kilobytes and become one entry of
//! the log. Throughput comes from here, not from weaker guarantees.
//!
//! Invariants: every waiter hears what became of its own command; the queue is bounded, and a full
//! one holds callers back; a few batches are on their way at once, so that a slow one delays the next
//! no longer than the log does.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use shoal_proto::wire::v1::{self, command::Command};
use shoal_proto::{ErrorKind, RpcError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::raft::Proposed;
use crate::tasks::Tasks;

/// Commands waiting to be gathered.
const QUEUE_MAX: usize = 4_096;
/// How long commands gather, in milliseconds.
const GATHER_MS: u64 = 3;
/// A batch is closed at this size, in bytes.
const BATCH_BYTES: usize = 512 * 1024;
/// Most commands in a batch.
const BATCH_COMMANDS_MAX: usize = 4_096;
/// Most bytes of commands that wait or are on their way, in KiB.
const QUEUE_KIB_MAX: u32 = 64 * 1024;
/// Batches on their way at once.
const IN_FLIGHT_MAX: usize = 8;

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Its position in the log.
    pub(super) position: u64,
    /// What applying it came to.
    pub(super) reply: v1::CommandReply,
}

struct Item {
    command: v1::Command,
    bytes: usize,
    room: OwnedSemaphorePermit,
    done: oneshot::Sender<Result<Outcome, RpcError>>,
}

/// The way into the log for everything small.
#[derive(Clone, Debug)]
pub(super) struct Batcher {
    queue: mpsc::Sender<Item>,
    room: Arc<Semaphore>,
}

impl Batcher {
    /// Starts gathering; `propose` agrees on one batch, within a deadline of its own.
    pub(super) fn start<F, Fut>(tasks: &Tasks, propose: F) -> Self
    where
        F: Fn(v1::CommandBatch) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Proposed, RpcError>> + Send + 'static,
    {
        let (queue, items) = mpsc::channel(QUEUE_MAX);
        tasks.spawn_until_stopped("tier-batches", run(tasks.clone(), items, propose));
        Self { queue, room: Arc::new(Semaphore::new(QUEUE_KIB_MAX as usize)) }
    }

    /// Has the tier agree on a command.
    ///
    /// # Errors
    /// `Retry` when it is not known to be committed in time, `Closed` when this super-node stops.
    pub(super) async fn submit(&self, command: Command) -> Result<Outcome, RpcError> {
        let closed = || RpcError::new(ErrorKind::Closed, "this super-node is shutting down");
        let (done, outcome) = oneshot::channel();
        let command = v1::Command { command: Some(command) };
        let bytes = command.encoded_len();
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX).min(QUEUE_KIB_MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(kib).await;
        let item = Item { command, bytes, room: room.map_err(|_| closed())?, done };
        self.queue.send(item).await.map_err(|_| closed())?;
        outcome.await.map_err(|_| closed())?
    }
}

async fn run<F, Fut>(tasks: Tasks, mut items: mpsc::Receiver<Item>, propose: F)
where
    F: Fn(v1::CommandBatch) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Proposed, RpcError>> + Send + 'static,
{
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    while let Some(first) = items.recv().await {
        let batch = gather(first, &mut items).await;
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else { return };
        let propose = propose.clone();
        tasks.spawn_until_stopped("tier-propose", async move {
            let _permit = permit;
            deliver(batch, propose).await;
        });
    }
}

async fn gather(first: Item, items: &mut mpsc::Receiver<Item>) -> Vec<Item> {
    let mut bytes = first.bytes;
    let mut batch = vec![first];
    let gathering = async {
        while bytes < BATCH_BYTES && batch.len() < BATCH_COMMANDS_MAX {
            let Some(item) = items.recv().await else { return };
            bytes += item.bytes;
            batch.push(item);
        }
    };
    // Time is up: what has gathered goes.
    let _ = tokio::time::timeout(Duration::from_millis(GATHER_MS), gathering).await;
    batch
}

async fn deliver<F, Fut>(batch: Vec<Item>, propose: F)
where
    F: Fn(v1::CommandBatch) -> Fut,
    Fut: Future<Output = Result<Proposed, RpcError>>,
{
    // The room that the commands take is theirs until they are agreed on.
    let (commands, waiters): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|item| (item.command, (item.done, item.room))).unzip();
    let proposed = propose(v1::CommandBatch { commands }).await;
    let mut outcomes: Box<dyn Iterator<Item = Result<Outcome, RpcError>> + Send> = match proposed {
        Ok(Proposed { position, replies }) => {
            Box::new(replies.into_iter().map(move |reply| Ok(Outcome { position, reply })))
        }
        Err(error) => Box::new(std::iter::repeat_with(move || Err(error.clone()))),
    };
    for (waiter, _room) in waiters {
        let missing = || Err(RpcError::new(ErrorKind::Bug, "a command without a reply"));
        // A waiter that gave up hears nothing, by its own choice.
        let _ = waiter.send(outcomes.next().unwrap_or_else(missing));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::future::join_all;

    use super::*;

    fn down(node_id: u64) -> Command {
        Command::MemberDown(v1::MemberDown { node_id, session_id: 0 })
    }

    fn refuse_odd(commands: &[v1::Command]) -> Vec<v1::CommandReply> {
        let odd = |command: &v1::Command| match &command.command {
            Some(Command::MemberDown(down)) => down.node_id % 2 == 1,
            _ => false,
        };
        commands.iter().map(|c| v1::CommandReply { refused: odd(c), created: false }).collect()
    }

    #[tokio::test]
    async fn many_commands_make_few_entries_and_each_hears_its_own_reply() {
        let tasks = Tasks::new();
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let position = Arc::new(AtomicU64::new(0));
        let seen = sizes.clone();
        let batcher = Batcher::start(&tasks, move |batch: v1::CommandBatch| {
            seen.lock().unwrap().push(batch.commands.len());
            let position = position.fetch_add(1, Ordering::Relaxed) + 1;
            async move { Ok(Proposed { position, replies: refuse_odd(&batch.commands) }) }
        });
        let outcomes = join_all((0..12_000).map(|n| batcher.submit(down(n)))).await;
        for (n, outcome) in outcomes.into_iter().enumerate() {
            assert_eq!(outcome.unwrap().reply.refused, n % 2 == 1);
        }
        let sizes = sizes.lock().unwrap().clone();
        assert_eq!(sizes.iter().sum::<usize>(), 12_000);
        assert!(sizes.iter().all(|size| *size <= BATCH_COMMANDS_MAX), "{sizes:?}");
        assert!(sizes.len() < 100, "{sizes:?}");
    }

    #[tokio::test]
    async fn a_large_batch_is_closed_early() {
        let tasks = Tasks::new();
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let seen = sizes.clone();
        let batcher = Batcher::start(&tasks, move |batch: v1::CommandBatch| {
            seen.lock().unwrap().push(batch.encoded_len());
            let replies = refuse_odd(&batch.commands);
            async move { Ok(Proposed { position: 1, replies }) }
        });
        let large = |n: u8| {
            let site = String::from_utf8(vec![b'a' + n; 160 * 1024]).unwrap();
            Command::PutHead(v1::IndexHead { site, ..Default::default() })
        };
        join_all((0..16).map(|n| batcher.submit(large(n)))).await;
        let sizes = sizes.lock().unwrap().clone();
        assert!(sizes.iter().all(|bytes| *bytes < BATCH_BYTES + 161 * 1024), "{sizes:?}");
    }

    #[tokio::test]
    async fn a_failure_reaches_everybody_in_the_batch() {
        let tasks = Tasks::new();
        let batcher =
            Batcher::start(&tasks, |_| async { Err(RpcError::new(ErrorKind::Retry, "no leader")) });
        for outcome in join_all((0..10).map(|n| batcher.submit(down(n)))).await {
            assert_eq!(outcome.unwrap_err().message, "no leader");
        }
    }

    #[tokio::test]
    async fn after_a_stop_nothing_is_taken() {
        let tasks = Tasks::new();
        let batcher = Batcher::start(&tasks, |_| std::future::pending());
        let waiting = batcher.submit(down(1));
        tokio::pin!(waiting);
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        tasks.shutdown(Duration::from_secs(5)).await;
        assert_eq!(waiting.await.unwrap_err().kind, ErrorKind::Closed);
        assert_eq!(batcher.submit(down(2)).await.unwrap_err().kind, ErrorKind::Closed);
    }
}
