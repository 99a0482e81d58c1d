//! Services, budgets, the account, secrets and volumes.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolumeClaim, PersistentVolumeClaimSpec, Secret, Service, ServiceAccount,
    ServicePort, ServiceSpec, VolumeResourceRequirements,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource, ResourceExt};

use super::config::CONFIG_FILE;
use super::names;
use crate::crd::cluster::Retention;
use crate::crd::pool::StorageType;
use crate::crd::{CacheCluster, CacheMember, CachePool};

/// The headless service of the super-nodes: they find one another before they are ready.
#[must_use]
pub fn tier_service(cluster: &CacheCluster) -> Service {
    let name = cluster.name_any();
    let metadata = names::meta(cluster, &name, Some(names::SUPER), names::tier_service(&name));
    let spec = ServiceSpec {
        cluster_ip: Some("None".to_owned()),
        publish_not_ready_addresses: Some(true),
        selector: Some(names::selector(&name, names::SUPER)),
        ports: Some(vec![port("cluster", 7400, "cluster"), port("admin", 9400, "admin")]),
        ..ServiceSpec::default()
    };
    Service { metadata, spec: Some(spec), status: None }
}

/// The service that clients use: all ready nodes of all pools.
#[must_use]
pub fn client_service(cluster: &CacheCluster) -> Service {
    let name = cluster.name_any();
    let metadata = names::meta(cluster, &name, Some(names::NODE), name.clone());
    let spec = ServiceSpec {
        selector: Some(names::selector(&name, names::NODE)),
        ports: Some(vec![port("http", 80, "http")]),
        ..ServiceSpec::default()
    };
    Service { metadata, spec: Some(spec), status: None }
}

fn port(name: &str, number: i32, target: &str) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number,
        target_port: Some(IntOrString::String(target.to_owned())),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}

/// The members' account, which may do nothing.
#[must_use]
pub fn account(cluster: &CacheCluster) -> ServiceAccount {
    let name = cluster.name_any();
    ServiceAccount {
        metadata: names::meta(cluster, &name, None, name.clone()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// The members' configuration.
#[must_use]
pub fn config_map(cluster: &CacheCluster, text: String) -> ConfigMap {
    let name = cluster.name_any();
    ConfigMap {
        metadata: names::meta(cluster, &name, None, names::config_map(&name)),
        data: Some([(CONFIG_FILE.to_owned(), text)].into()),
        ..ConfigMap::default()
    }
}

/// A secret of `owner`'s.
#[must_use]
pub fn secret<K: Resource<DynamicType = ()>>(
    owner: &K,
    cluster: &str,
    name: String,
    data: &[(&str, &str)],
) -> Secret {
    let entry =
        |(key, value): &(&str, &str)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()));
    Secret {
        metadata: names::meta(owner, cluster, None, name),
        data: Some(data.iter().map(entry).collect()),
        ..Secret::default()
    }
}

/// Voluntary disruptions leave a quorum of the voters, and of those to come. One super-node has none:
/// nothing could ever be evicted.
#[must_use]
pub fn tier_budget(cluster: &CacheCluster, voters: usize) -> Option<PodDisruptionBudget> {
    let wanted = usize::try_from(cluster.spec.super_nodes.replicas).unwrap_or_default();
    let most = wanted.max(voters);
    if most < 2 {
        return None;
    }
    let name = cluster.name_any();
    let mut selector = names::selector(&name, names::SUPER);
    selector.insert(names::VOTER.to_owned(), "true".to_owned());
    let quorum = i32::try_from(most / 2 + 1).unwrap_or(i32::MAX);
    let metadata = names::meta(cluster, &name, Some(names::SUPER), names::tier_service(&name));
    let spec = PodDisruptionBudgetSpec {
        min_available: Some(IntOrString::Int(quorum)),
        ..budget(selector)
    };
    Some(PodDisruptionBudget { metadata, spec: Some(spec), status: None })
}

/// Voluntary disruptions take one node of a pool at a time.
#[must_use]
pub fn pool_budget(cluster: &str, pool: &CachePool) -> PodDisruptionBudget {
    let name = pool.name_any();
    let mut selector = names::selector(cluster, names::NODE);
    selector.insert(names::POOL.to_owned(), name.clone());
    let metadata = names::meta(pool, cluster, Some(names::NODE), name);
    let spec =
        PodDisruptionBudgetSpec { max_unavailable: Some(IntOrString::Int(1)), ..budget(selector) };
    PodDisruptionBudget { metadata, spec: Some(spec), status: None }
}

fn budget(selector: BTreeMap<String, String>) -> PodDisruptionBudgetSpec {
    PodDisruptionBudgetSpec {
        selector: Some(LabelSelector { match_labels: Some(selector), match_expressions: None }),
        unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
        ..PodDisruptionBudgetSpec::default()
    }
}

/// A super-node's volume; it goes with its owner, or stays without one.
#[must_use]
pub fn super_volume(cluster: &CacheCluster, member: &CacheMember) -> PersistentVolumeClaim {
    let storage = &cluster.spec.super_nodes.storage;
    let (name, cluster_name) = (member.name_any(), cluster.name_any());
    let mut metadata = names::meta(member, &cluster_name, Some(names::SUPER), names::volume(&name));
    if storage.retention == Retention::Retain {
        metadata.owner_references = None;
    }
    let spec = claim(&storage.size, storage.storage_class_name.clone());
    PersistentVolumeClaim { metadata, spec: Some(spec), status: None }
}

/// A node's volume, where its pool has them.
#[must_use]
pub fn node_volume(cluster: &str, pool: &CachePool, name: &str) -> Option<PersistentVolumeClaim> {
    let storage = &pool.spec.storage;
    if storage.r#type != StorageType::Volume {
        return None;
    }
    let mut metadata = names::meta(pool, cluster, Some(names::NODE), names::volume(name));
    metadata.labels.get_or_insert_default().insert(names::POOL.to_owned(), pool.name_any());
    let spec = claim(&storage.size, storage.storage_class_name.clone());
    Some(PersistentVolumeClaim { metadata, spec: Some(spec), status: None })
}

fn claim(size: &Quantity, class: Option<String>) -> PersistentVolumeClaimSpec {
    PersistentVolumeClaimSpec {
        access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
        storage_class_name: class,
        resources: Some(VolumeResourceRequirements {
            requests: Some([("storage".to_owned(), size.clone())].into()),
            limits: None,
        }),
        ..PersistentVolumeClaimSpec::default()
    }
}
