//! Watches, queues and retries: which object is looked at when. What a look does stands in
//! `reconcile`.
//!
//! Invariants: an object that cannot be read is left alone and stops nobody; an object that fails is
//! tried again, ever more rarely; nothing is done before all definitions are there, and by nobody
//! without the lease.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::apply::Writable;
use crate::clock;
use crate::context::{Context, Error};
use crate::crd::{CacheCluster, CacheMember, CachePool, CachePrefetch, CachePurge, CacheSite};
use crate::reconcile::{cluster, member, pool, run, site, trouble};
use crate::resources::names;
use crate::tasks::Tasks;

/// Changes that come close together are one.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Objects of a kind looked at at a time.
const CONCURRENCY: u16 = 4;
/// Before an object that cannot be read is looked at again.
const UNREADABLE_WAIT: Duration = Duration::from_secs(300);

/// The kinds that are not served yet, by name; empty when all are.
///
/// # Errors
/// When the API server does not answer.
pub async fn missing_definitions(
    client: &Client,
    namespaces: &[String],
) -> Result<Vec<&'static str>, kube::Error> {
    let mut missing = Vec::new();
    let names = ["CacheCluster", "CachePool", "CacheMember", "CacheSite", "CachePurge"];
    let asked = [
        is_served::<CacheCluster>(client, namespaces).await?,
        is_served::<CachePool>(client, namespaces).await?,
        is_served::<CacheMember>(client, namespaces).await?,
        is_served::<CacheSite>(client, namespaces).await?,
        is_served::<CachePurge>(client, namespaces).await?,
    ];
    missing.extend(names.into_iter().zip(asked).filter(|(_, served)| !served).map(|(n, _)| n));
    if !is_served::<CachePrefetch>(client, namespaces).await? {
        missing.push("CachePrefetch");
    }
    Ok(missing)
}

async fn is_served<K: Writable>(
    client: &Client,
    namespaces: &[String],
) -> Result<bool, kube::Error> {
    let api: Api<K> = scope(client, namespaces.first());
    match api.list_metadata(&ListParams::default().limit(1)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

fn scope<K>(client: &Client, namespace: Option<&String>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Starts the controllers of all kinds, for one namespace or for all.
pub fn start(tasks: &Tasks, context: &Arc<Context>, namespace: Option<&String>) {
    let client = &context.client;
    let pods = |role: &str| {
        let config = watcher::Config::default().labels(&format!("{}={role}", names::ROLE));
        (scope::<Pod>(client, namespace), config)
    };
    let (supers, of_supers) = pods(names::SUPER);
    let clusters = of::<CacheCluster>(client, namespace)
        .owns(scope::<CacheMember>(client, namespace), watcher::Config::default())
        .watches(supers, of_supers, |pod| cluster_of(&pod));
    drive(tasks, context, "CacheCluster", clusters, cluster::reconcile);

    let (nodes, of_nodes) = pods(names::NODE);
    let pools = of::<CachePool>(client, namespace).owns(nodes, of_nodes);
    let known = pools.store();
    let clusters: Api<DeserializeGuard<CacheCluster>> = scope(client, namespace);
    let pools = pools.watches(clusters, watcher::Config::default(), move |cluster| {
        let of = |pool: &CachePool| pool.spec.cluster_ref.name == cluster.name_any();
        referring(&known, cluster.namespace(), of)
    });
    drive(tasks, context, "CachePool", pools, pool::reconcile);

    let members = of::<CacheMember>(client, namespace);
    drive(tasks, context, "CacheMember", members, member::reconcile);
    drive(tasks, context, "CacheSite", of::<CacheSite>(client, namespace), site::reconcile);
    drive(tasks, context, "CachePurge", of::<CachePurge>(client, namespace), run::purge);
    drive(tasks, context, "CachePrefetch", of::<CachePrefetch>(client, namespace), run::prefetch);
}

fn of<K>(client: &Client, namespace: Option<&String>) -> Controller<DeserializeGuard<K>>
where
    K: Writable + DeserializeOwned + Send + Sync + 'static,
{
    let config = Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY);
    let api: Api<DeserializeGuard<K>> = scope(client, namespace);
    Controller::new(api, watcher::Config::default()).with_config(config)
}

fn cluster_of(pod: &Pod) -> Option<ObjectRef<DeserializeGuard<CacheCluster>>> {
    let name = pod.labels().get(names::CLUSTER)?;
    Some(ObjectRef::new(name).within(&pod.namespace()?))
}

/// Those of a namespace that `of` holds for.
fn referring<K: Writable>(
    known: &Store<DeserializeGuard<K>>,
    namespace: Option<String>,
    of: impl Fn(&K) -> bool,
) -> Vec<ObjectRef<DeserializeGuard<K>>> {
    let all = known.state().into_iter().filter(|object| object.namespace() == namespace);
    let all = all.filter(|object| object.0.as_ref().is_ok_and(&of));
    all.map(|object| ObjectRef::from_obj(&*object)).collect()
}

fn key<K: ResourceExt>(kind: &str, object: &K) -> String {
    format!("{kind}/{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

/// Runs a kind's controller until the tasks stop.
fn drive<K, F, Fut>(
    tasks: &Tasks,
    context: &Arc<Context>,
    kind: &'static str,
    controller: Controller<DeserializeGuard<K>>,
    reconcile: F,
) where
    K: Writable + Debug + Send + Sync + 'static,
    F: Fn(Arc<K>, Arc<Context>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Action, Error>> + Send + 'static,
{
    let look = move |object: Arc<DeserializeGuard<K>>, context: Arc<Context>| {
        let reconcile = reconcile.clone();
        async move { look(kind, &object, context, reconcile).await }
    };
    let retry = move |object: Arc<DeserializeGuard<K>>, error: &Error, context: Arc<Context>| {
        let wait = context.failed(&key(kind, &*object));
        context.metrics.failures.with_label_values(&[kind]).inc();
        tracing::warn!(kind, name = object.name_any(), %error, ?wait, "tried again later");
        Action::requeue(wait)
    };
    let stream = controller.run(look, retry, Arc::clone(context));
    tasks.spawn(kind, async move {
        stream
            .for_each(|done| async move {
                if let Err(error) = done {
                    tracing::debug!(kind, %error, "the queue says");
                }
            })
            .await;
    });
}

async fn look<K, F, Fut>(
    kind: &'static str,
    object: &DeserializeGuard<K>,
    context: Arc<Context>,
    reconcile: F,
) -> Result<Action, Error>
where
    K: Writable,
    F: Fn(Arc<K>, Arc<Context>) -> Fut,
    Fut: Future<Output = Result<Action, Error>>,
{
    let object = match &object.0 {
        Ok(object) => object,
        Err(invalid) => {
            context.metrics.unreadable.with_label_values(&[kind]).inc();
            let name = invalid.metadata.name.as_deref().unwrap_or_default();
            tracing::warn!(kind, name, error = invalid.error, "an object cannot be read");
            return Ok(Action::requeue(UNREADABLE_WAIT));
        }
    };
    let started = context.metrics.started.with_label_values(&[kind]);
    started.set(clock::unix_s());
    let done = reconcile(Arc::new(object.clone()), Arc::clone(&context)).await;
    started.set(0);
    match &done {
        Ok(_) => {
            context.succeeded(&key(kind, object));
            context.metrics.reconciles.with_label_values(&[kind]).inc();
        }
        Err(error) => {
            context.event(object, true, ("Failed", &error.to_string())).await;
            trouble::tell(&context, object, error).await;
        }
    }
    done
}
