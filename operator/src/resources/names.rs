//! Names and labels of what the operator makes.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};

use crate::crd::CacheCluster;

/// Label: the cluster.
pub const CLUSTER: &str = "shoal.dev/cluster";
/// Label: the pool.
pub const POOL: &str = "shoal.dev/pool";
/// Label: what a member is, [`SUPER`] or [`NODE`].
pub const ROLE: &str = "shoal.dev/role";
/// Label of super-nodes that have a vote.
pub const VOTER: &str = "shoal.dev/voter";
/// Value of [`ROLE`]: a super-node.
pub const SUPER: &str = "super";
/// Value of [`ROLE`]: a node.
pub const NODE: &str = "node";
/// Annotation: the hash of what a pod was made from.
pub const TEMPLATE: &str = "shoal.dev/template";
/// Annotation of a node's pod that is to leave.
pub const LEAVING: &str = "shoal.dev/leaving";
/// Annotation of a certificate: when it is to be replaced, in Unix seconds.
pub const RENEW_AT: &str = "shoal.dev/renew-at";
/// Finalizer of super-nodes: they leave the tier first.
pub const FINALIZER: &str = "shoal.dev/leave";
/// The field manager of everything that the operator writes.
pub const MANAGER: &str = "shoal-operator";

/// The cluster's name for itself.
#[must_use]
pub fn cluster_id(cluster: &CacheCluster) -> String {
    let own = || format!("{}.{}", cluster.namespace().unwrap_or_default(), cluster.name_any());
    cluster.spec.cluster_id.clone().unwrap_or_else(own)
}

/// The headless service through which super-nodes find one another.
#[must_use]
pub fn tier_service(cluster: &str) -> String {
    format!("{cluster}-super")
}

/// The secret that all members share.
#[must_use]
pub fn shared_secret(cluster: &str) -> String {
    format!("{cluster}-shared")
}

/// The authority's secret.
#[must_use]
pub fn authority_secret(cluster: &str) -> String {
    format!("{cluster}-ca")
}

/// The members' configuration.
#[must_use]
pub fn config_map(cluster: &str) -> String {
    format!("{cluster}-config")
}

/// A member's certificate.
#[must_use]
pub fn certificate(member: &str) -> String {
    format!("{member}-tls")
}

/// A super-node's volume.
#[must_use]
pub fn volume(member: &str) -> String {
    format!("data-{member}")
}

/// A super-node's cluster address.
#[must_use]
pub fn address(cluster: &str, namespace: &str, member: &str) -> String {
    format!("{member}.{}.{namespace}.svc:7400", tier_service(cluster))
}

/// The labels of everything that belongs to a cluster.
#[must_use]
pub fn labels(cluster: &str, role: Option<&str>) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = [
        ("app.kubernetes.io/name", "shoal"),
        ("app.kubernetes.io/instance", cluster),
        ("app.kubernetes.io/managed-by", MANAGER),
        (CLUSTER, cluster),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    labels.extend(role.map(|role| (ROLE.to_owned(), role.to_owned())));
    labels
}

/// What selects a cluster's members of one role.
#[must_use]
pub fn selector(cluster: &str, role: &str) -> BTreeMap<String, String> {
    [(CLUSTER, cluster), (ROLE, role)].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

/// The metadata of an object of a cluster's, owned by `owner`.
#[must_use]
pub fn meta<K: Resource<DynamicType = ()>>(
    owner: &K,
    cluster: &str,
    role: Option<&str>,
    name: String,
) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: owner.namespace(),
        labels: Some(labels(cluster, role)),
        owner_references: owned_by(owner),
        ..ObjectMeta::default()
    }
}

/// A reference to the owner, where it has been stored.
#[must_use]
pub fn owned_by<K: Resource<DynamicType = ()>>(owner: &K) -> Option<Vec<OwnerReference>> {
    owner.controller_owner_ref(&()).map(|reference| vec![reference])
}
