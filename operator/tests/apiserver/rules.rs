//! The API server takes the definitions, and says in its refusals what would be right.

use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::discovery::ApiResource;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::plane::{Plane, define, namespace};

fn api(client: &Client, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let plural = match kind {
        "CachePrefetch" => "cacheprefetches".to_owned(),
        kind => format!("{}s", kind.to_lowercase()),
    };
    let resource = ApiResource {
        group: "shoal.dev".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "shoal.dev/v1alpha1".to_owned(),
        kind: kind.to_owned(),
        plural,
    };
    Api::namespaced_with(client.clone(), namespace, &resource)
}

fn object(kind: &str, name: &str, spec: &Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "shoal.dev/v1alpha1", "kind": kind,
        "metadata": { "name": name }, "spec": spec,
    }))
    .unwrap()
}

fn cluster(more: Value) -> Value {
    merged(json!({ "image": { "repository": "registry.example.com/shoal", "tag": "1" } }), more)
}

fn pool(more: Value) -> Value {
    merged(json!({ "clusterRef": { "name": "demo" } }), more)
}

fn site(more: Value) -> Value {
    let plain = json!({ "hosts": ["docs.example.com"], "origin": "https://origin.example.com" });
    merged(pool(plain), more)
}

fn merged(mut whole: Value, more: Value) -> Value {
    for (key, value) in more.as_object().cloned().unwrap_or_default() {
        whole[key] = value;
    }
    whole
}

async fn refusal(api: &Api<DynamicObject>, kind: &str, name: &str, spec: Value) -> String {
    match api.create(&PostParams::default(), &object(kind, name, &spec)).await {
        Ok(_) => panic!("{kind} {spec} was taken"),
        Err(error) => error.to_string(),
    }
}

const SPACE: &str = "rules";

/// Kind, name, spec, and a part of the refusal.
fn bad() -> Vec<(&'static str, String, Value, &'static str)> {
    let image = |image: Value| cluster(json!({ "image": image }));
    let supers = |more: Value| cluster(json!({ "superNodes": more }));
    let scaled = |more: Value| pool(json!({ "autoscaling": more }));
    let purge = |item: Value| pool(json!({ "purges": [item] }));
    let (long, longer) = ("x".repeat(41), "s".repeat(64));
    let both =
        json!({ "repository": "a", "tag": "1", "digest": format!("sha256:{}", "0".repeat(64)) });
    let cases = vec![
        ("CacheCluster", "a", supers(json!({ "replicas": 2 })), "must be 1, 3, 5 or 7"),
        ("CacheCluster", "a", supers(json!({ "replicas": 9 })), "must be 1, 3, 5 or 7"),
        ("CacheCluster", "a", supers(json!({ "storage": { "size": "0" } })), "must be above zero"),
        ("CacheCluster", "a", image(json!({ "repository": "a" })), "exactly one of tag and digest"),
        ("CacheCluster", "a", image(both), "exactly one of tag and digest"),
        ("CacheCluster", &long, cluster(json!({})), "choose another name"),
        ("CacheCluster", "a.b", cluster(json!({})), "choose another name"),
        (
            "CacheCluster",
            "a",
            cluster(json!({ "tls": { "issuer": "CertManager" } })),
            "name the Issuer or ClusterIssuer",
        ),
        (
            "CacheCluster",
            "a",
            cluster(json!({ "tls": { "validHours": 10, "renewBeforeHours": 10 } })),
            "must be below tls.validHours",
        ),
        ("CachePool", &long, pool(json!({})), "choose another name"),
        (
            "CachePool",
            "a",
            pool(json!({ "storage": { "type": "HostPath" } })),
            "needs storage.path",
        ),
        (
            "CachePool",
            "a",
            pool(json!({ "updateStrategy": { "maxSurge": 0, "maxUnavailable": 0 } })),
            "maxSurge or maxUnavailable above 0",
        ),
        (
            "CachePool",
            "a",
            scaled(json!({ "minReplicas": 3, "maxReplicas": 2, "cpuPercent": 50 })),
            "must not be above autoscaling.maxReplicas",
        ),
        (
            "CachePool",
            "a",
            scaled(json!({ "minReplicas": 1, "maxReplicas": 2 })),
            "autoscaling needs a target",
        ),
        ("CacheSite", &longer, site(json!({})), "choose a shorter one"),
        (
            "CacheSite",
            "a",
            site(json!({ "origin": "ftp://origin.example.com" })),
            "origin is http:// or https://",
        ),
        (
            "CacheSite",
            "a",
            site(json!({ "origin": "https://o.example.com/path" })),
            "without user, path and query",
        ),
        (
            "CacheSite",
            "a",
            site(json!({ "hosts": ["http://docs.example.com"] })),
            "without scheme, port and path",
        ),
        ("CacheSite", "a", site(json!({ "hosts": [] })), "should have at least 1 items"),
        (
            "CachePurge",
            "a",
            purge(json!({ "url": "http://a/", "site": "b" })),
            "name one of url, prefix and site",
        ),
        ("CachePurge", "a", purge(json!({ "tag": "t" })), "tag goes with site"),
        ("CachePurge", "a", purge(json!({})), "name one of url, prefix and site"),
        (
            "CachePrefetch",
            "a",
            pool(json!({ "urls": ["ftp://a.example.com/"] })),
            "urls begin with http://",
        ),
    ];
    cases.into_iter().map(|(kind, name, spec, part)| (kind, name.to_owned(), spec, part)).collect()
}

#[tokio::test]
async fn what_is_wrong_is_refused_with_the_remedy() {
    let plane = Plane::shared();
    let client = plane.client().await;
    define(&client).await;
    namespace(&client, SPACE).await;
    for (kind, name, spec, part) in bad() {
        let said = refusal(&api(&client, kind, SPACE), kind, &name, spec.clone()).await;
        assert!(said.contains(part), "{kind} {spec}: {said:?} lacks {part:?}");
    }
}

#[tokio::test]
async fn what_cannot_change_does_not() {
    let plane = Plane::shared();
    let client = plane.client().await;
    define(&client).await;
    namespace(&client, "changes").await;
    let storage = |size: &str| json!({ "superNodes": { "storage": { "size": size } } });
    let member = |leaving: bool| pool(json!({ "leaving": leaving }));
    let volume = |size: &str| pool(json!({ "storage": { "type": "Volume", "size": size } }));
    let purge = |url: &str| pool(json!({ "purges": [{ "url": url }] }));
    let other = json!({ "clusterRef": { "name": "other" } });
    let cases = [
        ("CacheCluster", cluster(storage("10Gi")), storage("5Gi"), "can only grow"),
        (
            "CacheCluster",
            cluster(json!({ "clusterId": "a" })),
            json!({ "clusterId": "b" }),
            "clusterId cannot change",
        ),
        (
            "CacheCluster",
            cluster(json!({ "superNodes": { "storage": { "storageClassName": "a" } } })),
            json!({ "superNodes": { "storage": { "storageClassName": "b" } } }),
            "storageClassName cannot change",
        ),
        ("CachePool", pool(json!({})), other.clone(), "clusterRef cannot change"),
        (
            "CachePool",
            pool(json!({})),
            json!({ "storage": { "type": "Volume" } }),
            "storage.type cannot change",
        ),
        ("CachePool", volume("10Gi"), volume("5Gi"), "can only grow"),
        ("CacheMember", member(true), member(false), "cannot be taken back"),
        ("CacheMember", member(false), other.clone(), "clusterRef cannot change"),
        ("CacheSite", site(json!({})), other, "clusterRef cannot change"),
        ("CachePurge", purge("http://a/"), purge("http://b/"), "make a new CachePurge"),
        (
            "CachePrefetch",
            pool(json!({ "urls": ["http://a.example/"] })),
            json!({ "urls": ["http://b.example/"] }),
            "make a new CachePrefetch",
        ),
    ];
    for (at, (kind, spec, change, part)) in cases.into_iter().enumerate() {
        let api = api(&client, kind, "changes");
        let name = format!("case-{at}");
        api.create(&PostParams::default(), &object(kind, &name, &spec)).await.unwrap();
        let patch = Patch::Merge(json!({ "spec": change }));
        let said = match api.patch(&name, &PatchParams::default(), &patch).await {
            Ok(_) => panic!("{kind} {spec} took {change}"),
            Err(error) => error.to_string(),
        };
        assert!(said.contains(part), "{kind}: {said:?} lacks {part:?}");
    }
}

#[tokio::test]
async fn defaults_are_filled_in_and_growth_is_allowed() {
    let plane = Plane::shared();
    let client = plane.client().await;
    define(&client).await;
    namespace(&client, "defaults").await;
    let clusters = api(&client, "CacheCluster", "defaults");
    let plain = object("CacheCluster", "demo", &cluster(json!({})));
    let made = clusters.create(&PostParams::default(), &plain).await.unwrap();
    let spec = &made.data["spec"];
    assert_eq!(spec["superNodes"]["replicas"], 3, "{spec}");
    assert_eq!(spec["superNodes"]["storage"]["size"], "10Gi", "{spec}");
    assert_eq!(spec["mode"], "Apply", "{spec}");
    assert_eq!(spec["drain"]["graceSeconds"], 60, "{spec}");
    let grown = Patch::Merge(json!({ "spec": { "superNodes": {
        "replicas": 5, "storage": { "size": "20Gi" } } } }));
    let grown = clusters.patch("demo", &PatchParams::default(), &grown).await.unwrap();
    assert_eq!(grown.metadata.generation, Some(2), "{}", grown.name_any());
    let pools = api(&client, "CachePool", "defaults");
    pools
        .create(&PostParams::default(), &object("CachePool", "edge", &pool(json!({}))))
        .await
        .unwrap();
    let scaled = Patch::Merge(json!({ "spec": { "replicas": 4 } }));
    let scale = pools.patch_scale("edge", &PatchParams::default(), &scaled).await.unwrap();
    assert_eq!(scale.spec.and_then(|spec| spec.replicas), Some(4));
}
