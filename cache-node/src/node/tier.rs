//! A super-node: the tier's part of it, behind the cluster listener.

use std::borrow::Cow;
use std::future::Future;
use std::time::Duration;

use shoal_proto::wire::v1;
use tokio::sync::watch;

use super::members::Members;
use super::{NodeError, Running, certificates, mode, selection, sites, verify};
use crate::admin::{Control, ModeStatus, StatusDocument};
use crate::config::Config;
use crate::membership::mode::Sight;
use crate::metrics::{IndexMetrics, ModeMetrics};
use crate::rpc::{self, Channels};
use crate::supernode::{SuperConfig, SuperNode, SuperStatus, Timing};
use crate::tasks::Tasks;

/// For running calls to end at the stop.
const CALLS_GRACE: Duration = Duration::from_secs(2);
/// For everything to end at the stop.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Between two looks at whether the super-node can do its work.
const READY_EVERY: Duration = Duration::from_millis(100);

/// What a super-node can be told to do.
fn control(config: &Config, node: &SuperNode) -> Control {
    let cluster_id = config.cluster.id.clone();
    let running = watch::channel(Some(node.clone())).1;
    let members = Members { cluster_id, node: running, view: node.view() };
    let node = node.clone();
    let control = sites::add_to(members.add_to(Control::new()), node.clone());
    verify::add_to(control, move || {
        let node = node.clone();
        async move { node.verify().await }
    })
}

/// Runs a super-node until `stop`.
pub(super) async fn run(
    (config, me, base): (Config, v1::NodeInfo, StatusDocument),
    listener: tokio::net::TcpListener,
    running: &Running,
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let tasks = Tasks::new();
    let channels = Channels::new(config.cluster.security.clone());
    let metrics = IndexMetrics::new(&running.metrics)?;
    let super_config = SuperConfig {
        cluster_id: config.cluster.id.clone(),
        me,
        dir: config.node.data_dir.clone(),
        bootstrap: config.cluster.bootstrap,
        seeds: config.cluster.super_nodes.clone(),
        timing: Timing::default(),
        wanted: config.cluster.selection,
    };
    let refusals = running.refusals()?;
    let mut server = rpc::server(refusals.clone());
    let door = rpc::Door::new(listener, &config.cluster.security, None, refusals)?;
    let node = SuperNode::start(super_config, channels, tasks.clone(), metrics).await?;
    let router = server.add_service(node.service()).add_service(node.raft_service());
    let serving = Tasks::new();
    let stopped = serving.token();
    serving.spawn("cluster-listener", async move {
        if let Err(error) = rpc::serve_at(router, door, stopped, CALLS_GRACE).await {
            tracing::error!(%error, "the cluster listener failed");
        }
    });
    serving.spawn_until_stopped("certificates", certificates::of_member(&config.cluster.security));
    let view = node.view();
    running.set_control(control(&config, &node));
    let (shown, mode) = watch::channel(None);
    tasks.spawn_until_stopped("mode", {
        let (node, view) = (node.clone(), view.clone());
        let sight = move || {
            let SuperStatus { leader, in_touch, .. } = node.status();
            Sight { tier: leader.is_some() && in_touch, voters: view.borrow().voters().count() }
        };
        mode::watch(sight, shown, ModeMetrics::new(&running.metrics)?)
    });
    running.set_status({
        let (node, view) = (node.clone(), view.clone());
        move || {
            let mut document = base.clone().with_view(&view.borrow());
            document.applied_position = node.status().applied;
            document.selection = selection::status(&node, &view.borrow());
            document.mode = mode.borrow().as_ref().map(ModeStatus::from);
            document
        }
    });
    tokio::pin!(stop);
    let ready = async {
        loop {
            let (ready, reason) = readiness(&node.status());
            running.set_ready(ready, &reason);
            tokio::select! {
                () = tasks.stopped() => return,
                () = tokio::time::sleep(READY_EVERY) => {}
            }
        }
    };
    let died = tokio::select! {
        () = &mut stop => false,
        () = ready => true,
    };
    running.set_ready(false, "stopping");
    node.shutdown().await;
    if !serving.shutdown(STOP_DEADLINE).await || !tasks.shutdown(STOP_DEADLINE).await {
        tracing::warn!("some tasks did not end in time");
    }
    if died { Err(NodeError::Died) } else { Ok(()) }
}

/// Whether a super-node can do its work, or why not.
fn readiness(status: &SuperStatus) -> (bool, Cow<'static, str>) {
    if let Some(ended) = status.ended {
        return (false, ended.reason().into());
    }
    if let Some(position) = status.diverged {
        let reason = format!("index differs from the tier's at position {position}");
        return (false, reason.into());
    }
    if status.leader.is_none() {
        return (false, "no leader is known".into());
    }
    if !status.voter && !status.held_back {
        return (false, "not taken into the tier yet".into());
    }
    if !status.in_touch {
        return (false, "what the tier has committed lately is not known here".into());
    }
    let reason = if status.voter { "ready" } else { "ready; a learner, held back from voting" };
    (true, reason.into())
}
