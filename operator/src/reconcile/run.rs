//! CachePurge and CachePrefetch: each runs once. A purge that was interrupted is purged again, which
//! does no harm; a prefetch is asked for once and then followed.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use serde_json::{Value, json};

use super::{cluster_of, nodes_of};
use crate::apply::Writable;
use crate::clock;
use crate::context::{Context, Doing, Error};
use crate::control::documents::{Prefetch, Purged};
use crate::control::{CallError, Caller};
use crate::crd::run::{PrefetchStatus, PurgeStatus};
use crate::crd::{CacheCluster, CachePrefetch, CachePurge};
use crate::observe;
use crate::status::{self, Says, says};

/// Before the next try while nobody can be asked, and while a prefetch runs.
const AWAY_WAIT: Duration = Duration::from_secs(10);
const RUN_WAIT: Duration = Duration::from_secs(3);
/// Failures kept in status.
const FAILURES_MAX: usize = 10;

/// One look at a purge.
///
/// # Errors
/// When it is to be repeated.
pub async fn purge(purge: Arc<CachePurge>, context: Arc<Context>) -> Result<Action, Error> {
    let before = purge.status.clone().unwrap_or_default();
    if let Some(at) = before.finished_at {
        let ttl = purge.spec.ttl_seconds_after_finished;
        return after(&context, &*purge, (at, ttl)).await;
    }
    let cluster = cluster(&context, &*purge, &purge.spec.cluster_ref.name).await?;
    let outcome = match cluster {
        Err(missing) => Err(missing),
        Ok((cluster, caller)) => {
            let body = json!({ "purges": purge.spec.purges, "soft": purge.spec.soft });
            let call = (Method::POST, "/v1/purge", body);
            ask::<Purged>(&context, &cluster, &caller, call).await?.map(|(_, purged)| purged)
        }
    };
    let generation = purge.metadata.generation;
    let now_s = clock::unix_s();
    let mut told = PurgeStatus { observed_generation: generation, ..before.clone() };
    let said = match outcome {
        Ok(purged) => purged_says(&mut told, &purged, now_s),
        Err(error) => failure_says(&mut told.finished_at, &error, now_s),
    };
    let over = told.finished_at.is_some();
    told.conditions = status::conditions(&before.conditions, now_s, generation, vec![said]);
    let old = purge.status.as_ref();
    context.writer.status(&*purge, old, &told).await.doing("tell of a purge")?;
    Ok(Action::requeue(if over { RUN_WAIT } else { AWAY_WAIT }))
}

fn purged_says(told: &mut PurgeStatus, purged: &Purged, now_s: i64) -> Says {
    let whole = |number: Option<u64>| number.and_then(|number| i64::try_from(number).ok());
    told.position = whole(purged.purges.iter().filter_map(|one| one.position).max());
    let fewest = purged.purges.iter().filter_map(|one| one.nodes_acknowledged).min();
    told.nodes_acknowledged = whole(fewest).and_then(|n| i32::try_from(n).ok()).unwrap_or(0);
    told.failed = i32::try_from(purged.failed).unwrap_or(i32::MAX);
    told.done = i32::try_from(purged.purges.len()).unwrap_or(i32::MAX) - told.failed;
    if purged.failed == 0 {
        told.finished_at = Some(now_s);
        return says("Complete", true, "Purged", "no node serves what was purged");
    }
    let why = purged.purges.iter().find_map(|one| one.error.as_ref());
    let why = why.map_or_else(String::new, |error| {
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        format!("{}; {}", text("message"), text("remedy"))
    });
    says("Complete", false, "Retrying", format!("{} purges failed: {why}", purged.failed))
}

/// What a refusal means: a final one ends the run.
fn failure_says(finished_at: &mut Option<i64>, error: &Missing, now_s: i64) -> Says {
    match error {
        Missing::Cluster(name) => says(
            "Complete",
            false,
            "ClusterMissing",
            format!("make the CacheCluster {name}, or name another in a new object"),
        ),
        Missing::Call(error) if error.is_final() => {
            *finished_at = Some(now_s);
            says("Complete", false, "Refused", error.to_string())
        }
        Missing::Call(error) => says("Complete", false, "Retrying", error.to_string()),
    }
}

/// One look at a prefetch.
///
/// # Errors
/// When it is to be repeated.
pub async fn prefetch(of: Arc<CachePrefetch>, context: Arc<Context>) -> Result<Action, Error> {
    let before = of.status.clone().unwrap_or_default();
    if let Some(at) = before.finished_at {
        return after(&context, &*of, (at, of.spec.ttl_seconds_after_finished)).await;
    }
    let cluster = cluster(&context, &*of, &of.spec.cluster_ref.name).await?;
    let outcome = match cluster {
        Err(missing) => Err(missing),
        Ok((cluster, caller)) => run(&context, &cluster, &caller, (&of, &before)).await?,
    };
    let generation = of.metadata.generation;
    let now_s = clock::unix_s();
    let mut told = PrefetchStatus { observed_generation: generation, ..before.clone() };
    let said = match outcome {
        Ok((asked, answer)) => prefetched_says(&mut told, (asked, answer), now_s),
        Err(Missing::Call(error)) if error.is_not_found() && told.run_id.is_some() => {
            // The node that ran it began anew: so does the run.
            told.run_id = None;
            says("Complete", false, "Retrying", "the node that ran it knows of it no more")
        }
        Err(error) => failure_says(&mut told.finished_at, &error, now_s),
    };
    told.conditions = status::conditions(&before.conditions, now_s, generation, vec![said]);
    let old = of.status.as_ref();
    context.writer.status(&*of, old, &told).await.doing("tell of a prefetch")?;
    Ok(Action::requeue(RUN_WAIT))
}

/// Asks for the run, or how far it is.
async fn run(
    context: &Context,
    cluster: &CacheCluster,
    caller: &Caller,
    (of, before): (&CachePrefetch, &PrefetchStatus),
) -> Result<Result<(String, Prefetch), Missing>, Error> {
    if let (Some(id), Some(host)) = (&before.run_id, &before.asked)
        && let Ok(address) = host.parse()
    {
        let path = format!("/v1/prefetch/{id}");
        let answer = caller.get::<Prefetch>(address, &path).await;
        return Ok(answer.map(|answer| (host.clone(), answer)).map_err(Missing::Call));
    }
    let body = json!({ "urls": of.spec.urls });
    ask(context, cluster, caller, (Method::POST, "/v1/prefetch", body)).await
}

fn prefetched_says(
    told: &mut PrefetchStatus,
    (asked, answer): (String, Prefetch),
    now_s: i64,
) -> Says {
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    told.asked = Some(asked);
    told.run_id = told.run_id.take().or(Some(answer.id).filter(|id| !id.is_empty()));
    told.total = whole(answer.total);
    told.done = whole(answer.done);
    told.failed = whole(answer.failed);
    told.bytes = whole(answer.bytes);
    let text = |failure: &Value| {
        let word = |key: &str| failure[key].as_str().unwrap_or_default();
        format!("{} at {}: {}", word("url"), word("node"), word("message"))
    };
    told.failures = answer.failures.iter().take(FAILURES_MAX).map(text).collect();
    if !answer.finished {
        return says("Complete", false, "Running", "URLs are being fetched");
    }
    told.finished_at = Some(now_s);
    let message = format!("{} of {} objects were had", told.done, told.total);
    says("Complete", told.failed == 0, if told.failed == 0 { "Fetched" } else { "Failed" }, message)
}

/// Why nothing was done.
enum Missing {
    /// There is no such cluster.
    Cluster(String),
    /// Nobody did it.
    Call(CallError),
}

async fn cluster<K: Writable>(
    context: &Context,
    of: &K,
    name: &str,
) -> Result<Result<(CacheCluster, Caller), Missing>, Error> {
    let namespace = of.namespace().unwrap_or_default();
    let Some(cluster) = cluster_of(context, &namespace, name).await? else {
        return Ok(Err(Missing::Cluster(name.to_owned())));
    };
    let caller = observe::caller(context, name, &namespace).await?;
    Ok(Ok((cluster, caller)))
}

/// Asks one node after the other until one answers.
async fn ask<T: serde::de::DeserializeOwned>(
    context: &Context,
    cluster: &CacheCluster,
    caller: &Caller,
    (method, path, body): (Method, &str, Value),
) -> Result<Result<(String, T), Missing>, Error> {
    let mut last = CallError::Unreachable {
        address: cluster.name_any(),
        reason: "the cluster has no node that runs; make a CachePool".to_owned(),
    };
    for host in nodes_of(context, cluster).await? {
        match caller.send(host, (method.clone(), path), &body).await {
            Ok(answer) => return Ok(Ok((host.to_string(), answer))),
            Err(error) if error.is_final() => return Ok(Err(Missing::Call(error))),
            Err(error) => last = error,
        }
    }
    Ok(Err(Missing::Call(last)))
}

/// It is over: the object goes when its time has come.
async fn after<K: Writable>(
    context: &Context,
    of: &K,
    (at_s, ttl): (i64, Option<i32>),
) -> Result<Action, Error> {
    let Some(ttl) = ttl else { return Ok(Action::await_change()) };
    let left = (at_s + i64::from(ttl)).saturating_sub(clock::unix_s());
    if left > 0 {
        return Ok(Action::requeue(Duration::from_secs(u64::try_from(left).unwrap_or(1))));
    }
    context.writer.delete(of).await.doing("delete what is over")?;
    Ok(Action::await_change())
}
