//! The super-node inside a node whose role the tier chooses: started, kept and retired at the
//! leader's word, on the node's own cluster listener.
//!
//! Invariants: one super-node at a time, on one directory, whose log and vote stay there while it is
//! not running: whoever is chosen again goes on with them, so that no id ever forgets a vote. A mark
//! in the data directory says that the tier has chosen this node: after a restart it goes on at once,
//! unless the tier says that the place was given away meanwhile. The node's own session says what
//! it is: a super-node only once the index knows it as that, a node again only once nobody can trust
//! its super-node any more.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shoal_proto::NodeId;
use shoal_proto::wire::v1;
use shoal_proto::wire::v1::index_server::IndexServer;
use shoal_proto::wire::v1::raft_server::RaftServer;
use tokio::sync::watch;

use super::capability::Meter;
use super::{NodeError, selection};
use crate::admin::StatusDocument;
use crate::config::Config;
use crate::files;
use crate::identity::IdentityError;
use crate::membership::{ClusterView, ConfiguredRole, Role};
use crate::metrics::{IndexMetrics, Metrics};
use crate::rpc::{Channels, MemberRouter};
use crate::supernode::gate::Gate;
use crate::supernode::raft::RaftService;
use crate::supernode::standby::{Place, Standby, place_of};
use crate::supernode::{IndexService, SuperConfig, SuperNode, Timing};
use crate::tasks::{self, Tasks};

/// The mark in the data directory of a node that the tier has chosen.
const MARK_FILE: &str = "selected";
const MARK_TEXT: &str = "The tier chose this node to keep the index.\n";
/// The super-node's part of the data directory.
const RAFT_FOLDER: &str = "raft";
/// Between two looks at whether the index knows the super-node.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Before a super-node that could not start is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// For the super-node's tasks to end, and for its databases to be let go of.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// The part of a node that may become a super-node.
pub(super) struct Auto {
    me: NodeId,
    config: SuperConfig,
    channels: Channels,
    metrics: IndexMetrics,
    mark: PathBuf,
    index: Gate<IndexServer<IndexService>>,
    raft: Gate<RaftServer<RaftService>>,
    line: Standby,
    meter: Meter,
    role: watch::Sender<Role>,
    node: watch::Sender<Option<SuperNode>>,
}

/// One life of the super-node.
struct Life {
    node: SuperNode,
    tasks: Tasks,
}

/// Why a life ends.
enum End {
    Unwanted,
    Stopped,
    Died,
}

impl Auto {
    /// Finds out whether the super-node is to run from the start; `None` for a member whose role is
    /// configured.
    ///
    /// # Errors
    /// When its metrics are taken, or the data directory cannot be written.
    pub(super) async fn prepare(
        config: &Config,
        me: &v1::NodeInfo,
        channels: &Channels,
        metrics: &Metrics,
    ) -> Result<Option<Arc<Self>>, NodeError> {
        if config.node.role != ConfiguredRole::Auto {
            return Ok(None);
        }
        let dir = config.node.data_dir.clone();
        let mark = dir.join(MARK_FILE);
        let marked = mark.exists();
        let founds = config.cluster.bootstrap && !dir.join(RAFT_FOLDER).exists();
        let seeds = config.cluster.super_nodes.clone();
        let id = NodeId(me.node_id);
        let wanted = match marked || founds {
            false => false,
            true => {
                let others: Vec<_> =
                    seeds.iter().filter(|seed| **seed != me.cluster_address).cloned().collect();
                let place = place_of(channels, &config.cluster.id, &others, id).await;
                if place == Place::Without {
                    tracing::info!("the tier goes on without this node as a super-node");
                }
                place != Place::Without
            }
        };
        if marked && !wanted {
            unmark(&mark).await?;
        }
        let config = SuperConfig {
            cluster_id: config.cluster.id.clone(),
            me: v1::NodeInfo { role: v1::Role::Super.into(), ..me.clone() },
            dir: dir.clone(),
            bootstrap: founds && wanted,
            seeds,
            timing: Timing::default(),
            wanted: config.cluster.selection,
        };
        Ok(Some(Arc::new(Self {
            me: id,
            config,
            channels: channels.clone(),
            metrics: IndexMetrics::new(metrics)?,
            mark,
            index: Gate::closed(),
            raft: Gate::closed(),
            line: Standby::new(wanted),
            meter: Meter::new(dir),
            role: watch::channel(if wanted { Role::Super } else { Role::Node }).0,
            node: watch::channel(None).0,
        })))
    }

    /// What the node's session is to say of it.
    pub(super) fn role(&self) -> watch::Receiver<Role> {
        self.role.subscribe()
    }

    /// Puts what the super-node knows into the node's status, while it runs.
    pub(super) fn show(&self, document: &mut StatusDocument, view: &ClusterView) {
        let node = self.node.borrow().clone();
        if let Some(node) = node {
            document.role = Role::Super.name().to_owned();
            document.applied_position = node.status().applied;
            document.selection = selection::status(&node, view);
        }
    }

    /// Puts the services of the super-node, there or not, behind the node's listener, and starts to
    /// do what the leader wants.
    pub(super) fn add_to(
        self: &Arc<Self>,
        router: MemberRouter,
        view: watch::Receiver<ClusterView>,
        group: &Tasks,
    ) -> MemberRouter {
        let standby = self.line.service(self.channels.security().clone(), view.clone());
        group.spawn("super-node", self.clone().run(view, group.clone()));
        router.add_service(self.index.clone()).add_service(self.raft.clone()).add_service(standby)
    }

    /// The super-node of this process, while it runs one.
    pub(super) fn super_node(&self) -> watch::Receiver<Option<SuperNode>> {
        self.node.subscribe()
    }

    /// What this node has.
    pub(super) fn capability(&self, moved_bytes: u64) -> v1::Capability {
        self.meter.read(moved_bytes, *self.line.runs.borrow())
    }

    /// Does what the leader wants, until `group` stops; stops it when the super-node dies.
    async fn run(self: Arc<Self>, view: watch::Receiver<ClusterView>, group: Tasks) {
        let mut wanted = self.line.wanted.subscribe();
        loop {
            tokio::select! {
                () = group.stopped() => return,
                found = wanted.wait_for(|wanted| *wanted) => if found.is_err() { return },
            }
            let life = match self.start(&view).await {
                Ok(life) => life,
                Err(error) => {
                    tracing::error!(%error, "the super-node of this node cannot start");
                    self.role.send_replace(Role::Node);
                    tokio::select! {
                        () = group.stopped() => return,
                        () = tokio::time::sleep(RETRY_AFTER) => continue,
                    }
                }
            };
            match self.keep(&life, &mut wanted, &group).await {
                End::Unwanted => self.retire(life).await,
                End::Stopped => {
                    life.node.shutdown().await;
                    life.tasks.shutdown(END_DEADLINE).await;
                    return;
                }
                End::Died => {
                    group.stop();
                    return;
                }
            }
        }
    }

    async fn start(&self, view: &watch::Receiver<ClusterView>) -> Result<Life, NodeError> {
        let mark = self.mark.clone();
        let write = move || files::write_whole(&mark, MARK_TEXT.as_bytes(), files::PLAIN_MODE);
        tasks::blocking("mark", write)
            .await
            .map_err(|_| NodeError::Died)?
            .map_err(IdentityError::File)?;
        let mut config = self.config.clone();
        let known = view.borrow().clone();
        let supers = known.members.iter().filter(|m| m.role == Role::Super && m.id != self.me);
        config.seeds.extend(supers.map(|member| member.cluster_address.clone()));
        let tasks = Tasks::new();
        let started =
            SuperNode::start(config, self.channels.clone(), tasks.clone(), self.metrics.clone());
        let node = started.await?;
        self.index.open(node.service());
        self.raft.open(node.raft_service());
        self.node.send_replace(Some(node.clone()));
        self.line.runs.send_replace(true);
        tracing::info!("the super-node of this node runs");
        Ok(Life { node, tasks })
    }

    async fn keep(&self, life: &Life, wanted: &mut watch::Receiver<bool>, group: &Tasks) -> End {
        loop {
            if life.node.is_registered() {
                self.role.send_if_modified(|role| std::mem::replace(role, Role::Super) != *role);
            }
            tokio::select! {
                () = group.stopped() => return End::Stopped,
                () = life.tasks.stopped() => return End::Died,
                changed = wanted.wait_for(|wanted| !*wanted) => match changed {
                    Ok(_) => return End::Unwanted,
                    Err(_) => return End::Stopped,
                },
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    async fn retire(&self, life: Life) {
        tracing::info!("the super-node of this node retires");
        let Life { node, tasks } = life;
        node.retire().await;
        self.index.close();
        self.raft.close();
        self.node.send_replace(None);
        let released = node.released();
        drop(node);
        if !tasks.shutdown(END_DEADLINE).await {
            tracing::warn!("some tasks of the super-node did not end in time");
        }
        let looks = END_DEADLINE.as_millis() / LOOK_EVERY.as_millis();
        for _ in 0..looks {
            if released() {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        if let Err(error) = unmark(&self.mark).await {
            tracing::warn!(%error, "a restart will start the super-node of this node again");
        }
        self.role.send_replace(Role::Node);
        self.line.runs.send_replace(false);
        tracing::info!("this node stands by");
    }
}

async fn unmark(mark: &std::path::Path) -> Result<(), NodeError> {
    let path = mark.to_owned();
    let removed = tasks::blocking("mark", move || files::remove(&path)).await;
    Ok(removed.map_err(|_| NodeError::Died)?.map_err(IdentityError::File)?)
}
