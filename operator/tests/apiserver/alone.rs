//! Operators in trouble: without definitions, beside another, with too few rights, with objects that
//! nobody can read.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use shoal_operator::crd::{CacheCluster, CachePool};

use crate::operator::{Operator, Place};
use crate::plane::{Plane, define, eventually, namespace, operators_token};

async fn degraded<K>(client: &Client, space: &str, name: &str) -> Value
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), space);
    eventually(name, || async {
        let object = serde_json::to_value(api.get(name).await.unwrap()).unwrap();
        let all = object["status"]["conditions"].as_array()?.clone();
        all.iter().find(|c| c["type"] == "Degraded" && c["status"] == "True").cloned()
    })
    .await
}

fn pool(name: &str) -> CachePool {
    serde_json::from_value(json!({
        "apiVersion": "shoal.dev/v1alpha1", "kind": "CachePool", "metadata": { "name": name },
        "spec": { "clusterRef": { "name": "nowhere" } },
    }))
    .unwrap()
}

#[tokio::test]
async fn without_definitions_it_waits_and_bad_objects_stop_nobody() {
    let plane = Plane::start();
    let client = plane.client().await;
    namespace(&client, "alone").await;
    let kubeconfig = plane.file("kubeconfig");
    let place = Place { kubeconfig, namespace: "alone", admin_port: 1 };
    let operator = Operator::start(&plane, "alone", &place);
    let why = eventually("unready", || async {
        let (status, text) = operator.page("/readyz");
        (status == 503 && text.contains("CacheCluster")).then_some(text)
    })
    .await;
    assert!(why.contains("apply deploy/crds"), "{why}");
    assert_eq!(operator.page("/livez").0, 200, "it waits, and does not end");

    define(&client).await;
    eventually("ready", || async { (operator.page("/readyz").0 == 200).then_some(()) }).await;

    // A definition of another time let something in that nobody can read.
    let open = json!({ "spec": { "versions": [{
        "name": "v1alpha1", "served": true, "storage": true, "subresources": { "status": {} },
        "schema": { "openAPIV3Schema": {
            "type": "object", "x-kubernetes-preserve-unknown-fields": true,
        }},
    }]}});
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let by = PatchParams::default();
    definitions.patch("cachepools.shoal.dev", &by, &Patch::Merge(open)).await.unwrap();
    let resource = kube::api::ApiResource::erase::<CachePool>(&());
    let pools: Api<DynamicObject> = Api::namespaced_with(client.clone(), "alone", &resource);
    let bad: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "shoal.dev/v1alpha1", "kind": "CachePool", "metadata": { "name": "bad" },
        "spec": { "replicas": "many" },
    }))
    .unwrap();
    eventually("the open definition", || async {
        pools.create(&PostParams::default(), &bad).await.ok()
    })
    .await;
    let pools: Api<CachePool> = Api::namespaced(client.clone(), "alone");
    pools.create(&PostParams::default(), &pool("good")).await.unwrap();
    let told = degraded::<CachePool>(&client, "alone", "good").await;
    assert_eq!(told["reason"], "ClusterMissing", "{told}");
    assert!(operator.figure("shoal_operator_unreadable_objects_total") >= 1.0);
}

#[tokio::test]
async fn one_of_two_acts_and_the_other_takes_over() {
    let plane = Plane::shared();
    let client = plane.client().await;
    define(&client).await;
    namespace(&client, "two").await;
    let kubeconfig = plane.file("kubeconfig");
    let place = Place { kubeconfig, namespace: "two", admin_port: 1 };
    let leads = |operator: &Operator| operator.figure("shoal_operator_leading") > 0.5;
    let first = Operator::start(&plane, "two-first", &place);
    eventually("a leader", || async { leads(&first).then_some(()) }).await;
    let second = Operator::start(&plane, "two-second", &place);
    eventually("readiness", || async { (second.page("/readyz").0 == 200).then_some(()) }).await;
    assert!(!leads(&second), "one at a time");
    assert!(first.end(), "it ends well when told to");
    eventually("the other leads", || async { leads(&second).then_some(()) }).await;
}

#[tokio::test]
async fn too_few_rights_are_told() {
    let plane = Plane::shared();
    let client = plane.client().await;
    define(&client).await;
    namespace(&client, "few").await;
    let token = operators_token(&client, "few", "secrets").await;
    let kubeconfig = plane.kubeconfig_file("few-rights", &token);
    let place = Place { kubeconfig, namespace: "few", admin_port: 1 };
    let _operator = Operator::start(&plane, "few", &place);
    let clusters: Api<CacheCluster> = Api::namespaced(client.clone(), "few");
    let cluster: CacheCluster = serde_json::from_value(json!({
        "apiVersion": "shoal.dev/v1alpha1", "kind": "CacheCluster",
        "metadata": { "name": "demo" },
        "spec": { "image": { "repository": "registry.example.com/shoal", "tag": "1" } },
    }))
    .unwrap();
    clusters.create(&PostParams::default(), &cluster).await.unwrap();
    let told = degraded::<CacheCluster>(&client, "few", "demo").await;
    assert_eq!(told["reason"], "Forbidden", "{told}");
    let message = told["message"].as_str().unwrap();
    assert!(message.contains("secrets") && message.contains("chart"), "{message}");
}
