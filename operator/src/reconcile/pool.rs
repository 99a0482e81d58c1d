//! CachePool: as many nodes as are wanted, of what is wanted; who leaves hands off first.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use http::Method;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::ListParams;
use kube::runtime::controller::Action;
use serde_json::{Value, json};

use super::{certificates, cluster_of, load};
use crate::autoscale::{self, Memory, Targets};
use crate::clock;
use crate::context::{Context, Doing, Error, Sample};
use crate::control::documents::Drain;
use crate::control::{CallError, Caller};
use crate::crd::cluster::{Mode, OnStall};
use crate::crd::pool::{Autoscaling, AutoscalingStatus, PoolStatus};
use crate::crd::{CacheCluster, CachePool};
use crate::observe;
use crate::plan::pool::{self, DrainState, Node, Observed, Wanted};
use crate::plan::{Gate, Op, Plan, Step};
use crate::resources::{names, pods as templates, shared};
use crate::status::{self, Says, says};

/// Between two looks while something goes on, and while nothing does.
const BUSY_WAIT: Duration = Duration::from_secs(5);
const IDLE_WAIT: Duration = Duration::from_secs(30);
/// Between two samples of the nodes' figures, at least, in seconds.
const SAMPLE_EVERY_S: i64 = 15;
const MEBIBYTE: f64 = 1_048_576.0;

/// What was seen of a pool.
struct Seen {
    now_s: i64,
    pods: BTreeMap<String, Pod>,
    volumes: BTreeMap<String, PersistentVolumeClaim>,
    drains: BTreeMap<String, Drain>,
    caller: Caller,
}

/// One look.
///
/// # Errors
/// When it is to be repeated.
pub async fn reconcile(pool: Arc<CachePool>, context: Arc<Context>) -> Result<Action, Error> {
    if pool.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let namespace = pool.namespace().unwrap_or_default();
    let cluster_name = pool.spec.cluster_ref.name.clone();
    let Some(cluster) = cluster_of(&context, &namespace, &cluster_name).await? else {
        let remedy = format!("make the CacheCluster {cluster_name}, or name another in a new pool");
        return without(&context, &pool, ("ClusterMissing", remedy)).await;
    };
    if !cluster.status.as_ref().is_some_and(|status| status.founded) {
        let remedy = format!("the CacheCluster {cluster_name} has no tier yet; it is waited for");
        return without(&context, &pool, ("ClusterNotFounded", remedy)).await;
    }
    let seen = see(&context, &pool, &cluster_name).await?;
    let (wish, chosen) = wish(&context, &pool, &seen).await;
    let wanted = wanted(&cluster, &pool, wish);
    let facts = seen.facts(&cluster, &pool);
    let plan = pool::plan(&facts, &wanted);
    if !cluster.spec.paused {
        let budget = shared::pool_budget(&cluster_name, &pool);
        context.writer.ensure(&budget).await.doing("apply the pool's budget")?;
        for pod in seen.pods.values().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            certificates::of(&context, &cluster, pod, &pod.name_any()).await?;
        }
    }
    tell(&context, &pool, &facts, (&plan, wish, chosen)).await?;
    for step in plan.ready() {
        execute(&context, (&cluster, &pool), &seen, step).await?;
        context.metrics.steps.with_label_values(&[step.op.name()]).inc();
        context.event(&*pool, false, (step.op.name(), &step.why)).await;
    }
    let idle = plan.is_done() && pool.spec.autoscaling.is_none();
    Ok(Action::requeue(if idle { IDLE_WAIT } else { BUSY_WAIT }))
}

/// Tells why nothing can be done, and leaves everything as it is.
async fn without(
    context: &Context,
    pool: &CachePool,
    (reason, remedy): (&'static str, String),
) -> Result<Action, Error> {
    let before = pool.status.clone().unwrap_or_default();
    let generation = pool.metadata.generation;
    let all = vec![
        says("Ready", false, reason, remedy.clone()),
        says("Progressing", false, reason, remedy.clone()),
        says("Degraded", true, reason, remedy),
    ];
    let now_s = clock::unix_s();
    let told = PoolStatus {
        observed_generation: generation,
        desired_replicas: pool.spec.replicas,
        conditions: status::conditions(&before.conditions, now_s, generation, all),
        ..before
    };
    let before = pool.status.as_ref();
    context.writer.status(pool, before, &told).await.doing("tell of the pool")?;
    Ok(Action::requeue(BUSY_WAIT))
}

async fn see(context: &Context, pool: &CachePool, cluster: &str) -> Result<Seen, Error> {
    let namespace = pool.namespace().unwrap_or_default();
    let labels = format!("{}={},{}={cluster}", names::POOL, pool.name_any(), names::CLUSTER);
    let ours = ListParams::default().labels(&labels);
    let pods = context.api::<Pod>(&namespace).list(&ours).await.doing("list nodes")?.items;
    let volumes = context.api::<PersistentVolumeClaim>(&namespace).list(&ours).await;
    let volumes = volumes.doing("list volumes")?.items;
    let caller = observe::caller(context, cluster, &namespace).await?;
    let leaving: Vec<(String, IpAddr)> = pods
        .iter()
        .filter(|pod| pod.annotations().contains_key(names::LEAVING))
        .filter_map(|pod| Some((pod.name_any(), observe::address(pod)?)))
        .collect();
    let asked = leaving.iter().map(|(name, host)| {
        let caller = &caller;
        async move { Some((name.clone(), caller.get(*host, "/v1/drain").await.ok()?)) }
    });
    let drains = join_all(asked).await.into_iter().flatten().collect();
    Ok(Seen {
        now_s: clock::unix_s(),
        pods: pods.into_iter().map(|pod| (pod.name_any(), pod)).collect(),
        volumes: volumes.into_iter().map(|volume| (volume.name_any(), volume)).collect(),
        drains,
        caller,
    })
}

fn wanted(cluster: &CacheCluster, pool: &CachePool, size: usize) -> Wanted {
    let whole = |number: i32| usize::try_from(number).unwrap_or_default();
    Wanted {
        size,
        max_surge: whole(pool.spec.update_strategy.max_surge),
        max_unavailable: whole(pool.spec.update_strategy.max_unavailable),
        min_ready_s: i64::from(pool.spec.min_ready_seconds),
        force: cluster.spec.drain.on_stall == OnStall::Force,
        paused: cluster.spec.paused,
        plan_only: cluster.spec.mode == Mode::Plan,
    }
}

impl Seen {
    /// What is so: PURE.
    fn facts(&self, cluster: &CacheCluster, pool: &CachePool) -> Observed {
        let template = templates::node_template(cluster, pool);
        let node = |(name, pod): (&String, &Pod)| {
            let facts = observe::pod(pod, &template);
            Node {
                name: name.clone(),
                leaving: pod.annotations().contains_key(names::LEAVING),
                pod: true,
                terminating: facts.terminating,
                running: facts.running,
                ended: facts.ended,
                ready_since_s: facts.ready_since_s,
                current: facts.current,
                volume: self.volumes.contains_key(&names::volume(name)),
                drain: self.drains.get(name).map(|drain| pool::Drain {
                    state: state(&drain.state),
                    objects_left: drain.objects_left,
                    stalled: drain.stalled,
                }),
            }
        };
        let mut nodes: Vec<Node> = self.pods.iter().map(node).collect();
        let alone = self.volumes.keys().filter_map(|name| name.strip_prefix("data-"));
        let alone = alone.filter(|name| !self.pods.contains_key(*name));
        nodes.extend(alone.map(|name| Node {
            name: name.to_owned(),
            volume: true,
            ..Node::default()
        }));
        Observed { now_s: self.now_s, nodes }
    }
}

fn state(word: &str) -> DrainState {
    match word {
        "draining" => DrainState::Draining,
        "drained" => DrainState::Drained,
        _ => DrainState::Serving,
    }
}

/// How many nodes are wanted, and what autoscaling says to that.
async fn wish(
    context: &Context,
    pool: &CachePool,
    seen: &Seen,
) -> (usize, Option<(AutoscalingStatus, bool)>) {
    let plain = usize::try_from(pool.spec.replicas).unwrap_or_default();
    let Some(spec) = &pool.spec.autoscaling else { return (plain, None) };
    let before = pool.status.as_ref().and_then(|status| status.autoscaling.clone());
    let now = before.as_ref().and_then(|it| usize::try_from(it.desired_replicas).ok());
    let now = now.unwrap_or(plain);
    let key = pool.uid().unwrap_or_default();
    let old = context.sample(&key);
    if old.as_ref().is_some_and(|old| seen.now_s.saturating_sub(old.at_s) < SAMPLE_EVERY_S) {
        return (now, before.map(|it| (it, false)));
    }
    let nodes: Vec<(String, IpAddr)> = seen
        .pods
        .iter()
        .filter(|(_, pod)| observe::pod(pod, "").ready_since_s.is_some())
        .filter_map(|(name, pod)| Some((name.clone(), observe::address(pod)?)))
        .collect();
    let counters = load::counters(&seen.caller, &nodes).await;
    let mut sample = Sample { at_s: seen.now_s, counters, memory: Memory::default() };
    let figures = old.as_ref().and_then(|old| load::between(old, &sample, &nodes));
    let memory = old.map(|old| old.memory).unwrap_or_default();
    let decision = autoscale::decide(seen.now_s, now, figures.as_ref(), &targets(spec), &memory);
    sample.memory = decision.memory.clone();
    context.remember(&key, sample);
    if decision.nodes == now
        && let Some(before) = before
    {
        return (now, Some((before, decision.limited)));
    }
    context.event(pool, false, ("Scaled", &decision.reason)).await;
    let told = AutoscalingStatus {
        desired_replicas: i32::try_from(decision.nodes).unwrap_or(i32::MAX),
        reason: decision.reason,
        changed_at: seen.now_s,
    };
    (decision.nodes, Some((told, decision.limited)))
}

fn targets(spec: &Autoscaling) -> Targets {
    let whole = |number: i32| usize::try_from(number).unwrap_or_default();
    Targets {
        min: whole(spec.min_replicas),
        max: whole(spec.max_replicas),
        requests_s: spec.requests_per_second.map(f64::from),
        egress_bytes_s: spec.egress_mebibytes_per_second.map(|it| f64::from(it) * MEBIBYTE),
        cpu_percent: spec.cpu_percent.map(f64::from),
        origin_saved_percent: spec.origin_saved_percent.map(f64::from),
        up_after_s: i64::from(spec.scale_up_after_seconds),
        down_after_s: i64::from(spec.scale_down_after_seconds),
    }
}

async fn execute(
    context: &Context,
    (cluster, pool): (&CacheCluster, &CachePool),
    seen: &Seen,
    step: &Step,
) -> Result<(), Error> {
    let target = step.op.target();
    tracing::info!(pool = pool.name_any(), step = step.op.name(), target, why = step.why, "step");
    let pod = seen.pods.get(target);
    match (&step.op, pod) {
        (Op::CreateNode, _) => {
            let name = format!("{}-{}", pool.name_any(), clock::random_suffix()?);
            start(context, (cluster, pool), &name).await
        }
        (Op::RestoreNode { node }, _) => start(context, (cluster, pool), node).await,
        (Op::DrainNode { .. }, Some(pod)) => {
            if !pod.annotations().contains_key(names::LEAVING) {
                let patch = json!({ "metadata": { "annotations": { names::LEAVING: "true" } } });
                context.writer.merge(pod, patch).await.doing("mark a node as leaving")?;
            }
            drain(&seen.caller, pod, Method::POST).await
        }
        (Op::KeepNode { .. }, Some(pod)) => {
            drain(&seen.caller, pod, Method::DELETE).await?;
            let patch = json!({ "metadata": { "annotations": { names::LEAVING: null } } });
            context.writer.merge(pod, patch).await.doing("keep a node")
        }
        (Op::DeleteNode { node }, _) => {
            if let Some(volume) = seen.volumes.get(&names::volume(node)) {
                context.writer.delete(volume).await.doing("delete a node's volume")?;
            }
            match pod {
                Some(pod) => context.writer.delete(pod).await.doing("delete a node"),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Volume, pod, certificate: the pod waits for its certificate, which goes with it.
async fn start(
    context: &Context,
    (cluster, pool): (&CacheCluster, &CachePool),
    name: &str,
) -> Result<(), Error> {
    if let Some(volume) = shared::node_volume(&cluster.name_any(), pool, name) {
        context.writer.ensure(&volume).await.doing("make a node's volume")?;
    }
    let pod = templates::node(cluster, pool, name);
    let pod = context.writer.create(&pod).await.doing("make a node's pod")?;
    certificates::of(context, cluster, &pod, name).await
}

/// Begins a drain, or takes it back. A node that does not run has nothing to say.
async fn drain(caller: &Caller, pod: &Pod, method: Method) -> Result<(), Error> {
    let Some(host) = observe::address(pod) else { return Ok(()) };
    let asked = caller.send::<Value>(host, (method, "/v1/drain"), &Value::Null).await;
    match asked {
        Ok(_) | Err(CallError::Strange { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn tell(
    context: &Context,
    pool: &CachePool,
    facts: &Observed,
    (plan, wish, chosen): (&Plan, usize, Option<(AutoscalingStatus, bool)>),
) -> Result<(), Error> {
    let before = pool.status.clone().unwrap_or_default();
    let generation = pool.metadata.generation;
    let number = |which: &dyn Fn(&&Node) -> bool| {
        i32::try_from(facts.nodes.iter().filter(|node| node.pod).filter(which).count())
            .unwrap_or(i32::MAX)
    };
    let labels =
        [(names::CLUSTER, pool.spec.cluster_ref.name.as_str()), (names::POOL, &pool.name_any())]
            .map(|(key, value)| format!("{key}={value}"));
    let desired = i32::try_from(wish).unwrap_or(i32::MAX);
    let ready = number(&|node| node.ready_since_s.is_some() && !node.terminating);
    let limited = chosen.as_ref().is_some_and(|(_, limited)| *limited);
    let all = conditions(plan, (ready, desired), limited);
    let told = PoolStatus {
        observed_generation: generation,
        replicas: number(&|node| !node.terminating),
        desired_replicas: desired,
        ready_replicas: ready,
        updated_replicas: number(&|node| node.current && !node.terminating),
        draining_replicas: number(&|node| node.leaving && !node.terminating),
        selector: labels.join(","),
        autoscaling: chosen.map(|(told, _)| told),
        plan: status::planned(plan),
        conditions: status::conditions(&before.conditions, facts.now_s, generation, all),
    };
    context.writer.status(pool, pool.status.as_ref(), &told).await.doing("tell of the pool")
}

fn conditions(plan: &Plan, (ready, desired): (i32, i32), limited: bool) -> Vec<Says> {
    let shut = plan.steps.iter().filter_map(|step| step.blocked.as_ref());
    let stalled = shut.into_iter().find(|blocked| blocked.by == Gate::Stalled);
    let whole = ready >= desired;
    let figures = format!("{ready} nodes are ready, {desired} are wanted");
    vec![
        says("Ready", whole, if whole { "AsWanted" } else { "NotYet" }, figures),
        status::progress(plan),
        match stalled {
            Some(blocked) => says("Degraded", true, "Stalled", blocked.detail.clone()),
            None => says("Degraded", false, "Sound", "nothing stands against the plan"),
        },
        says("ScalingLimited", limited, "Bounds", "whether autoscaling would go beyond its bounds"),
    ]
}
