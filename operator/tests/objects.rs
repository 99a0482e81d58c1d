//! The objects of a cluster: what restarts pods, what is restricted, and what the file says.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use shoal_operator::crd::{CacheCluster, CacheMember, CachePool};
use shoal_operator::resources::{config, names, pods, shared};

fn cluster(more: serde_json::Value) -> CacheCluster {
    let mut spec = json!({ "image": { "repository": "registry.example.com/shoal", "tag": "1" } });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    let whole = json!({
        "apiVersion": "shoal.dev/v1alpha1", "kind": "CacheCluster",
        "metadata": { "name": "demo", "namespace": "web", "uid": "u-1" }, "spec": spec,
    });
    serde_json::from_value(whole).unwrap()
}

fn member() -> CacheMember {
    serde_json::from_value(json!({
        "apiVersion": "shoal.dev/v1alpha1", "kind": "CacheMember",
        "metadata": { "name": "demo-super-b2c4d", "namespace": "web", "uid": "u-2" },
        "spec": { "clusterRef": { "name": "demo" } },
    }))
    .unwrap()
}

fn pool(spec: serde_json::Value) -> CachePool {
    serde_json::from_value(json!({
        "apiVersion": "shoal.dev/v1alpha1", "kind": "CachePool",
        "metadata": { "name": "edge", "namespace": "web", "uid": "u-3" }, "spec": spec,
    }))
    .unwrap()
}

fn restricted(pod: &Pod) {
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!(spec.automount_service_account_token, Some(false));
    let whole = spec.security_context.as_ref().unwrap();
    assert_eq!(whole.run_as_non_root, Some(true));
    assert_eq!(whole.seccomp_profile.as_ref().unwrap().type_, "RuntimeDefault");
    for container in &spec.containers {
        let own = container.security_context.as_ref().unwrap();
        assert_eq!(own.allow_privilege_escalation, Some(false));
        assert_eq!(own.read_only_root_filesystem, Some(true));
        assert_eq!(own.capabilities.as_ref().unwrap().drop, Some(vec!["ALL".to_owned()]));
        let path = |probe: &Option<k8s_openapi::api::core::v1::Probe>| {
            probe.as_ref().unwrap().http_get.as_ref().unwrap().path.clone().unwrap()
        };
        assert_eq!(path(&container.readiness_probe), "/readyz");
        assert_eq!(path(&container.liveness_probe), "/livez");
    }
}

#[test]
fn pods_are_restricted() {
    let cluster = cluster(json!({}));
    restricted(&pods::super_node(&cluster, &member(), false));
    restricted(&pods::node(&cluster, &pool(json!({ "clusterRef": { "name": "demo" } })), "edge-x"));
}

#[test]
fn only_what_matters_restarts_a_pod() {
    let plain = pods::super_template(&cluster(json!({})));
    for same in [json!({ "paused": true }), json!({ "superNodes": { "replicas": 5 } })] {
        assert_eq!(pods::super_template(&cluster(same.clone())), plain, "{same}");
    }
    for other in [
        json!({ "image": { "repository": "registry.example.com/shoal", "tag": "2" } }),
        json!({ "logLevel": "debug" }),
        json!({ "superNodes": { "resources": { "requests": { "cpu": "1" } } } }),
    ] {
        assert_ne!(pods::super_template(&cluster(other.clone())), plain, "{other}");
    }
}

#[test]
fn only_the_founder_founds() {
    let cluster = cluster(json!({}));
    let founds = |pod: &Pod| serde_json::to_string(pod).unwrap().contains("SHOAL_BOOTSTRAP");
    assert!(founds(&pods::super_node(&cluster, &member(), true)));
    assert!(!founds(&pods::super_node(&cluster, &member(), false)));
}

#[test]
fn the_file_names_seeds_and_secrets_but_bears_none() {
    let members = ["demo-super-b2c4d".to_owned()];
    let text = config::render(&cluster(json!({})), ("demo", "web"), &members).unwrap();
    for part in [
        "id = \"web.demo\"",
        "demo-super.web.svc:7400",
        "demo-super-b2c4d.demo-super.web.svc:7400",
        "file = \"/etc/shoal/shared/operator-token\"",
        "secret_file = \"/etc/shoal/shared/cluster-secret\"",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn the_budget_keeps_a_quorum_of_what_is_and_of_what_is_to_come() {
    let least = |replicas: i32, voters: usize| {
        let cluster = cluster(json!({ "superNodes": { "replicas": replicas } }));
        let budget = shared::tier_budget(&cluster, voters)?;
        budget.spec.unwrap().min_available.map(|least| serde_json::to_value(least).unwrap())
    };
    assert_eq!(least(3, 3), Some(json!(2)));
    assert_eq!(least(5, 3), Some(json!(3)));
    assert_eq!(least(3, 5), Some(json!(3)));
    assert_eq!(least(1, 1), None);
}

#[test]
fn sizes_are_read() {
    for (text, bytes) in [
        ("0", 0),
        ("1024", 1_024),
        ("10Gi", 10 << 30),
        ("1.5Gi", (1 << 30) + (1_u64 << 30) / 1_000 * 500),
        ("5M", 5_000_000),
        ("5x", 0),
    ] {
        assert_eq!(pods::bytes(text), bytes, "{text}");
    }
}

#[test]
fn a_retained_volume_has_no_owner() {
    let deleted = shared::super_volume(&cluster(json!({})), &member());
    assert!(deleted.metadata.owner_references.is_some());
    let kept = cluster(json!({ "superNodes": { "storage": { "retention": "Retain" } } }));
    let kept = shared::super_volume(&kept, &member());
    assert_eq!(kept.metadata.owner_references, None);
    assert_eq!(kept.metadata.name.as_deref(), Some("data-demo-super-b2c4d"));
    assert_eq!(names::address("demo", "web", "m"), "m.demo-super.web.svc:7400");
}
