//! CacheSite: the cluster's site of that name is what the object says. The object's end is the site's
//! end, unless the cluster goes too, or cannot be asked for too long.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use serde_json::{Map, Value, json};

use super::{ask, cluster_of, nodes_of};
use crate::clock;
use crate::context::{Context, Doing, Error};
use crate::control::CallError;
use crate::control::documents::Site;
use crate::crd::site::SiteStatus;
use crate::crd::{CacheCluster, CacheSite};
use crate::observe;
use crate::resources::names::FINALIZER;
use crate::status::{self, says};

/// While members take it up, while all is well, and while nobody can be asked.
const BUSY_WAIT: Duration = Duration::from_secs(10);
const IDLE_WAIT: Duration = Duration::from_secs(120);
const AWAY_WAIT: Duration = Duration::from_secs(10);
/// A site whose cluster cannot be asked for so long after the deletion is let go, in seconds.
const LET_GO_AFTER_S: i64 = 600;

/// One look.
///
/// # Errors
/// When it is to be repeated.
pub async fn reconcile(site: Arc<CacheSite>, context: Arc<Context>) -> Result<Action, Error> {
    let namespace = site.namespace().unwrap_or_default();
    let cluster = cluster_of(&context, &namespace, &site.spec.cluster_ref.name).await?;
    if site.metadata.deletion_timestamp.is_some() {
        return end(&context, &site, cluster).await;
    }
    let Some(cluster) = cluster else {
        let name = &site.spec.cluster_ref.name;
        let remedy = format!("make the CacheCluster {name}, or name another in a new CacheSite");
        return tell(&context, &site, Err(("ClusterMissing", remedy))).await;
    };
    if !site.finalizers().iter().any(|name| name == FINALIZER) {
        let mut all = site.finalizers().to_vec();
        all.push(FINALIZER.to_owned());
        let patch = json!({ "metadata": { "finalizers": all } });
        context.writer.merge(&*site, patch).await.doing("hold a CacheSite")?;
    }
    match put(&context, &site, &cluster).await? {
        Ok(told) => tell(&context, &site, Ok(told)).await,
        Err(error) => {
            let reason = if error.is_final() { "Refused" } else { "Unreachable" };
            tell(&context, &site, Err((reason, error.to_string()))).await
        }
    }
}

fn path(site: &CacheSite) -> String {
    format!("/v1/sites/{}", site.name_any())
}

/// Brings the site to the cluster.
async fn put(
    context: &Context,
    site: &CacheSite,
    cluster: &CacheCluster,
) -> Result<Result<Site, CallError>, Error> {
    let caller =
        observe::caller(context, &cluster.name_any(), &cluster.namespace().unwrap_or_default())
            .await?;
    // What is so already stays of its revision: asking is as good as looking.
    let call = (Method::PUT, &*path(site), document(site));
    Ok(ask(context, cluster, &caller, call).await?.map(|(_, answer)| answer))
}

/// The site as members read it: PURE.
fn document(site: &CacheSite) -> Value {
    let mut spec = serde_json::to_value(&site.spec).unwrap_or_default();
    let fields = spec.as_object_mut().map(std::mem::take).unwrap_or_default();
    let fields = fields.into_iter().filter(|(key, _)| key != "clusterRef");
    let mut all: Map<String, Value> = fields.map(|(key, value)| (snake(&key), value)).collect();
    all.insert("name".to_owned(), json!(site.name_any()));
    Value::Object(all)
}

fn snake(camel: &str) -> String {
    let mut snake = String::with_capacity(camel.len() + 4);
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

async fn tell(
    context: &Context,
    site: &CacheSite,
    outcome: Result<Site, (&'static str, String)>,
) -> Result<Action, Error> {
    let before = site.status.clone().unwrap_or_default();
    let generation = site.metadata.generation;
    let (mut told, said, wait) = match outcome {
        Ok(answer) => {
            let whole = answer.waiting_for.is_empty();
            let message = format!(
                "{} nodes serve revision {}, {} do not yet",
                answer.applied_on,
                answer.revision,
                answer.waiting_for.len()
            );
            let reason = if whole { "Served" } else { "Spreading" };
            let told = SiteStatus {
                observed_generation: generation,
                revision: answer.revision.parse().ok(),
                applied_on: i32::try_from(answer.applied_on).unwrap_or(i32::MAX),
                waiting_for: answer.waiting_for,
                conditions: Vec::new(),
            };
            let wait = if whole { IDLE_WAIT } else { BUSY_WAIT };
            (told, says("Ready", whole, reason, message), wait)
        }
        // What is served goes on being served.
        Err((reason, remedy)) => (before.clone(), says("Ready", false, reason, remedy), AWAY_WAIT),
    };
    let now_s = clock::unix_s();
    told.conditions = status::conditions(&before.conditions, now_s, generation, vec![said]);
    context.writer.status(site, site.status.as_ref(), &told).await.doing("tell of a site")?;
    Ok(Action::requeue(wait))
}

/// Takes the site away, and lets the object go.
async fn end(
    context: &Context,
    site: &CacheSite,
    cluster: Option<CacheCluster>,
) -> Result<Action, Error> {
    if !site.finalizers().iter().any(|name| name == FINALIZER) {
        return Ok(Action::await_change());
    }
    if let Some(cluster) = cluster {
        let since = site.metadata.deletion_timestamp.as_ref().map_or(0, |at| at.0.as_second());
        let patient = clock::unix_s().saturating_sub(since) < LET_GO_AFTER_S;
        let gone = take_away(context, site, &cluster).await?;
        if !gone && patient {
            return Ok(Action::requeue(AWAY_WAIT));
        }
        if !gone {
            let note = "the cluster could not be asked: remove the site with `shoal site`";
            context.event(site, true, ("LetGo", note)).await;
        }
    }
    let others: Vec<_> = site.finalizers().iter().filter(|name| *name != FINALIZER).collect();
    let patch = json!({ "metadata": { "finalizers": others } });
    match context.writer.merge(site, patch).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Action::await_change()),
        other => other.doing("let a CacheSite go").map(|()| Action::await_change()),
    }
}

async fn take_away(
    context: &Context,
    site: &CacheSite,
    cluster: &CacheCluster,
) -> Result<bool, Error> {
    if site.status.as_ref().is_none_or(|status| status.revision.is_none()) {
        return Ok(true);
    }
    let namespace = cluster.namespace().unwrap_or_default();
    let caller = observe::caller(context, &cluster.name_any(), &namespace).await?;
    for host in nodes_of(context, cluster).await? {
        let asked = caller.send::<Value>(host, (Method::DELETE, &path(site)), &Value::Null).await;
        match asked {
            Ok(_) => return Ok(true),
            Err(error) if error.is_not_found() => return Ok(true),
            Err(error) => tracing::info!(%error, site = site.name_any(), "not taken away yet"),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_written_as_members_read_it() {
        let site: CacheSite = serde_json::from_value(json!({
            "apiVersion": "shoal.dev/v1alpha1", "kind": "CacheSite",
            "metadata": { "name": "docs", "namespace": "web" },
            "spec": {
                "clusterRef": { "name": "demo" }, "hosts": ["docs.example.com"],
                "origin": "https://o.example.com", "firstByteTimeoutMs": 500,
                "clientDirectives": "safe", "moreOrigins": ["http://b.example.com"],
                "setCookie": "strip", "ttl": { "default_s": 5, "negative_s": { "404": 1 } },
                "path": [{ "prefix": "/api/", "bypass": true }],
            },
        }))
        .unwrap();
        assert_eq!(
            document(&site),
            json!({
                "name": "docs", "hosts": ["docs.example.com"], "origin": "https://o.example.com",
                "host_header": "origin", "first_byte_timeout_ms": 500, "client_directives": "safe",
                "more_origins": ["http://b.example.com"], "set_cookie": "strip",
                "ttl": { "default_s": 5, "negative_s": { "404": 1 } },
                "path": [{ "prefix": "/api/", "bypass": true }],
            })
        );
    }
}
