//! What the consensus library asks of a state machine: applying committed entries to the [`State`],
//! in groups, and its snapshots.
//!
//! Invariant: nothing is applied before it is durable in this super-node's own log, so the state is
//! never ahead of what a restart finds there.

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, RaftSnapshotBuilder};
use shoal_proto::wire::v1;
use tokio::sync::watch;

use super::disk::{Alive, other};
use super::durable::Progress;
use super::snapshot::{SnapshotDir, SnapshotOf};
use super::state::State;
use super::wire::{Entry, LogId, Members, Meta, StoredMembers, Types};
use crate::metrics::IndexMetrics;
use crate::supernode::index;
use crate::{clock, tasks};

/// Most entries of one write batch.
const GROUP_ENTRIES_MAX: usize = 256;

/// Whom `members` leaves out, as a command to the index: they are retired with the membership's own
/// entry, all or nothing. Not those that the tier itself chose: they go back to being nodes.
pub(super) fn retired(before: &Members, members: &Members) -> Option<v1::CommandBatch> {
    let gone = before.nodes().filter(|(id, node)| !node.auto && members.get_node(id).is_none());
    let node_ids: Vec<u64> = gone.map(|(id, _)| *id).collect();
    let retire = |node_ids| {
        let retire = v1::command::Command::Retire(v1::RetireSuperNodes { node_ids });
        v1::CommandBatch { commands: vec![v1::Command { command: Some(retire) }] }
    };
    (!node_ids.is_empty()).then(|| retire(node_ids))
}

type Item = io::Result<EntryResponder<Types>>;

/// Cuts a group behind every entry that must be its part's last.
fn cut(group: Vec<Item>) -> Vec<Vec<Item>> {
    let mut parts = vec![Vec::with_capacity(group.len())];
    for item in group {
        let last = matches!(
            &item,
            Ok((Entry { payload: EntryPayload::Normal(batch), .. }, _))
                if index::ends_group(&batch.0)
        );
        if let Some(part) = parts.last_mut() {
            part.push(item);
        }
        if last {
            parts.push(Vec::new());
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// The state machine.
pub(super) struct Machine {
    state: Arc<State>,
    meta: Meta,
    applied: watch::Sender<u64>,
    durable: watch::Receiver<Progress>,
    metrics: IndexMetrics,
    _alive: Alive,
}

impl Machine {
    /// The machine over `state`; what it has applied goes to `applied`, and `durable` says how much
    /// of the log may be.
    ///
    /// # Errors
    /// When what was applied cannot be read.
    pub(super) fn new(
        state: Arc<State>,
        applied: watch::Sender<u64>,
        durable: watch::Receiver<Progress>,
        metrics: IndexMetrics,
    ) -> io::Result<Self> {
        let (meta, _alive) = (state.applied()?, state.alive());
        let machine = Self { state, meta, applied, durable, metrics, _alive };
        machine.report();
        Ok(machine)
    }

    fn report(&self) {
        let position = self.meta.last_log_id.map_or(0, |id| id.index);
        self.applied.send_replace(position);
        self.metrics.applied_position.set(i64::try_from(position).unwrap_or(i64::MAX));
    }

    /// Waits until the log is durable up to `upto`.
    async fn wait_durable(&mut self, upto: Option<LogId>) -> io::Result<()> {
        let Some(upto) = upto else { return Ok(()) };
        let enough = |progress: &Progress| !matches!(progress, Ok(end) if *end <= upto.index);
        let waited = self.durable.wait_for(enough).await.map_err(other)?;
        waited.clone().map(drop).map_err(io::Error::other)
    }

    async fn apply_group(&mut self, group: Vec<Item>) -> io::Result<()> {
        let mut meta = self.meta.clone();
        let (mut commands, mut waiting) = (Vec::new(), Vec::new());
        for item in group {
            let (entry, responder) = item?;
            meta.last_log_id = Some(entry.log_id);
            let batch = match entry.payload {
                EntryPayload::Blank => None,
                EntryPayload::Normal(batch) => Some(batch.0),
                EntryPayload::Membership(members) => {
                    let gone = retired(meta.last_membership.membership(), &members);
                    meta.last_membership = StoredMembers::new(Some(entry.log_id), members);
                    gone
                }
            };
            waiting.push((batch.is_some(), responder));
            commands.extend(batch.map(|batch| (entry.log_id.index, batch)));
        }
        self.wait_durable(meta.last_log_id).await?;
        let started = clock::monotonic();
        let (state, meta_then) = (Arc::clone(&self.state), meta.clone());
        let work = move || state.apply(&commands, &meta_then);
        let replies = tasks::blocking("raft apply", work).await.map_err(other)??;
        self.metrics.note_apply(clock::since(started));
        self.meta = meta;
        self.report();
        let mut replies = replies.into_iter();
        for (commands, responder) in waiting {
            let reply = if commands { replies.next().unwrap_or_default() } else { Vec::new() };
            self.metrics.commands.inc_by(reply.len() as u64);
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }
}

/// Builds snapshots beside applying.
pub(super) struct Builder(Arc<State>);

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotDir;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf> {
        let state = Arc::clone(&self.0);
        tasks::blocking("raft snapshot", move || state.build()).await.map_err(other)?
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotDir;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembers)> {
        Ok((self.meta.last_log_id, self.meta.last_membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + Send,
    {
        let mut groups = entries.ready_chunks(GROUP_ENTRIES_MAX);
        while let Some(group) = groups.next().await {
            for part in cut(group) {
                self.apply_group(part).await?;
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder(Arc::clone(&self.state))
    }

    async fn install_snapshot(&mut self, meta: &Meta, snapshot: SnapshotDir) -> io::Result<()> {
        let state = Arc::clone(&self.state);
        let install = move || state.install(&snapshot);
        tasks::blocking("raft install", install).await.map_err(other)??;
        self.meta = meta.clone();
        self.report();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf>> {
        self.state.snapshots().current().map(SnapshotDir::described).transpose()
    }
}
