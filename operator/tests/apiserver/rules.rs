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
type Bad = (&'static str, String, Value, &'static str);

fn bad_clusters() -> Vec<Bad> {
    let image = |image: Value| cluster(json!({ "image": image }));
    let supers = |more: Value| cluster(json!({ "superNodes": more }));
    let digest = format!("sha256:{}", "0".repeat(64));
    let both = json!({ "repository": "a", "tag": "1", "digest": digest });
    let tls = |more: Value| cluster(json!({ "tls": more }));
    let hours = json!({ "validHours": 10, "renewBeforeHours": 10 });
    let one = |spec: Value, part: &'static str| ("CacheCluster", "a".to_owned(), spec, part);
    let named = |name: String| ("CacheCluster", name, cluster(json!({})), "choose another name");
    vec![
        one(supers(json!({ "replicas": 2 })), "must be 1, 3, 5 or 7"),
        one(supers(json!({ "replicas": 9 })), "must be 1, 3, 5 or 7"),
        one(supers(json!({ "storage": { "size": "0" } })), "must be above zero"),
        one(image(json!({ "repository": "a" })), "exactly one of tag and digest"),
        one(image(both), "exactly one of tag and digest"),
        one(tls(json!({ "issuer": "CertManager" })), "name the Issuer or ClusterIssuer"),
        one(tls(hours), "must be below tls.validHours"),
        named("x".repeat(41)),
        named("a.b".to_owned()),
    ]
}

fn bad_pools() -> Vec<Bad> {
    let scaled = |more: Value| pool(json!({ "autoscaling": more }));
    let update = json!({ "updateStrategy": { "maxSurge": 0, "maxUnavailable": 0 } });
    let crossed = json!({ "minReplicas": 3, "maxReplicas": 2, "cpuPercent": 50 });
    let one = |spec: Value, part: &'static str| ("CachePool", "a".to_owned(), spec, part);
    vec![
        ("CachePool", "x".repeat(41), pool(json!({})), "choose another name"),
        one(pool(json!({ "storage": { "type": "HostPath" } })), "needs storage.path"),
        one(pool(update), "maxSurge or maxUnavailable above 0"),
        one(scaled(crossed), "must not be above autoscaling.maxReplicas"),
        one(scaled(json!({ "minReplicas": 1, "maxReplicas": 2 })), "autoscaling needs a target"),
    ]
}

fn bad_sites_and_runs() -> Vec<Bad> {
    let one = |spec: Value, part: &'static str| ("CacheSite", "a".to_owned(), spec, part);
    let purge = |item: Value| pool(json!({ "purges": [item] }));
    let run = |item: Value, part: &'static str| ("CachePurge", "a".to_owned(), purge(item), part);
    let path = json!({ "origin": "https://o.example.com/path" });
    vec![
        ("CacheSite", "s".repeat(64), site(json!({})), "choose a shorter one"),
        one(site(json!({ "origin": "ftp://origin.example.com" })), "origin is http:// or https://"),
        one(site(path), "without user, path and query"),
        one(site(json!({ "hosts": ["http://docs.example.com"] })), "without scheme, port and path"),
        one(site(json!({ "hosts": [] })), "should have at least 1 items"),
        one(site(json!({ "moreOrigins": ["http://o/path"] })), "without user, path and query"),
        one(site(json!({ "setCookie": "eat" })), "supported values"),
        one(site(json!({ "ttl": 5 })), "must be of type object"),
        run(json!({ "url": "http://a/", "site": "b" }), "name one of url, prefix and site"),
        run(json!({ "tag": "t" }), "tag goes with site"),
        run(json!({}), "name one of url, prefix and site"),
        (
            "CachePrefetch",
            "a".to_owned(),
            pool(json!({ "urls": ["ftp://a.example.com/"] })),
            "urls begin with http://",
        ),
    ]
}

#[tokio::test]
async fn what_is_wrong_is_refused_with_the_remedy() {
    let plane = Plane::shared();
    let client = plane.client().await;
    define(&client).await;
    namespace(&client, SPACE).await;
    let all = [bad_clusters(), bad_pools(), bad_sites_and_runs()].concat();
    for (kind, name, spec, part) in all {
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
