//! CachePool: nodes that cache and serve clients.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Image, LocalRef, PodOptions, Resources};

/// Nodes of a cluster that cache and serve clients; a cluster may have several pools.
#[derive(Clone, Debug, PartialEq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "shoal.dev",
    version = "v1alpha1",
    kind = "CachePool",
    namespaced,
    status = "PoolStatus",
    shortname = "cpool",
    category = "shoal",
    derive = "PartialEq",
    doc = "Nodes of a Shoal cluster that cache and serve clients; a cluster may have several pools.",
    selectable = ".spec.clusterRef.name",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    validation = (
        "self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')",
        "a pool's name has 1 to 40 lower-case letters, digits and '-', and begins with a letter: \
         pods and certificates are named after it; choose another name"
    ),
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.desiredReplicas"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Updated", type_ = "integer", json_path = ".status.updatedReplicas"),
    printcolumn(name = "Draining", type_ = "integer", json_path = ".status.drainingReplicas",
        priority = 1),
    printcolumn(name = "Status", type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Progressing\")].message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.clusterRef.name == oldSelf.clusterRef.name",
    "clusterRef cannot change: what the nodes have belongs to their cluster; make a new pool"
))]
pub struct CachePoolSpec {
    /// The cluster. It cannot change.
    pub cluster_ref: LocalRef,
    /// How many nodes; while autoscaling is set, what it begins with.
    #[serde(default = "replicas")]
    #[schemars(range(min = 0, max = 1_000))]
    pub replicas: i32,
    /// The image, where it is not the cluster's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// Where a node keeps what it has.
    #[serde(default)]
    pub storage: PoolStorage,
    /// Bytes of hot bodies in memory.
    #[serde(default = "memory")]
    #[schemars(schema_with = "super::common::size")]
    pub memory: Quantity,
    /// What each node may use.
    #[serde(default)]
    pub resources: Resources,
    /// Where they run. They are spread over zones and machines without being told.
    #[serde(default)]
    pub pod: PodOptions,
    /// How a change of image or options is brought to the nodes.
    #[serde(default)]
    pub update_strategy: UpdateStrategy,
    /// Seconds for which a node must be ready before it counts.
    #[serde(default)]
    #[schemars(range(min = 0, max = 3_600))]
    pub min_ready_seconds: i32,
    /// Let the operator choose how many, by load and by what one more node would save.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
}

fn replicas() -> i32 {
    2
}

fn memory() -> Quantity {
    Quantity("256Mi".to_owned())
}

/// Where a node keeps what it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = (
        "self.type != 'HostPath' || has(self.path)",
        "storage.type HostPath needs storage.path: an absolute path on the machines"
    ),
    validation = (
        "self.type == oldSelf.type",
        "storage.type cannot change: make a new pool, and delete this one when it is ready"
    ),
    validation = (
        "self.type != 'Volume' || quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
        "storage.size of volumes can only grow; make a new pool for smaller ones"
    ),
)]
pub struct PoolStorage {
    /// Which kind of storage. It cannot change.
    #[serde(default)]
    pub r#type: StorageType,
    /// How large. Nine tenths of it are the store's byte budget.
    #[serde(default = "pool_size")]
    #[schemars(schema_with = "super::common::size")]
    pub size: Quantity,
    /// The storage class of volumes; the cluster's default one unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// The folder on the machines; each node has one of its own in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^/[^:]*$"), length(max = 1_024))]
    pub path: Option<String>,
}

impl Default for PoolStorage {
    fn default() -> Self {
        Self {
            r#type: StorageType::default(),
            size: pool_size(),
            storage_class_name: None,
            path: None,
        }
    }
}

fn pool_size() -> Quantity {
    Quantity("20Gi".to_owned())
}

/// A kind of storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StorageType {
    /// The machine's own, gone with the pod.
    #[default]
    Ephemeral,
    /// A folder of the machine.
    HostPath,
    /// A volume for each node.
    Volume,
}

/// How a change is brought to the nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.maxSurge > 0 || self.maxUnavailable > 0",
    "updateStrategy needs maxSurge or maxUnavailable above 0, or no node could ever be replaced"
))]
pub struct UpdateStrategy {
    /// Nodes above the wanted number meanwhile.
    #[serde(default = "max_surge")]
    #[schemars(range(min = 0, max = 100))]
    pub max_surge: i32,
    /// Nodes below the wanted number meanwhile.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub max_unavailable: i32,
}

impl Default for UpdateStrategy {
    fn default() -> Self {
        Self { max_surge: max_surge(), max_unavailable: 0 }
    }
}

fn max_surge() -> i32 {
    1
}

/// How the operator chooses the number of nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = (
        "self.minReplicas <= self.maxReplicas",
        "autoscaling.minReplicas must not be above autoscaling.maxReplicas"
    ),
    validation = (
        "has(self.requestsPerSecond) || has(self.egressMebibytesPerSecond) || \
         has(self.cpuPercent) || has(self.originSavedPercent)",
        "autoscaling needs a target: requestsPerSecond, egressMebibytesPerSecond, cpuPercent or \
         originSavedPercent"
    ),
)]
pub struct Autoscaling {
    /// Fewest nodes.
    #[schemars(range(min = 1, max = 1_000))]
    pub min_replicas: i32,
    /// Most nodes.
    #[schemars(range(min = 1, max = 1_000))]
    pub max_replicas: i32,
    /// Requests a second that one node should answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub requests_per_second: Option<i32>,
    /// Mebibytes a second that one node should send to clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub egress_mebibytes_per_second: Option<i32>,
    /// Percent of one processor core that one node should use.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 12_800))]
    pub cpu_percent: Option<i32>,
    /// Add a node when that would save at least so many percent of the origin's traffic, judged by
    /// lookups that would have hit in a larger store.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub origin_saved_percent: Option<i32>,
    /// Seconds for which more nodes must have been wanted.
    #[serde(default = "up_after_s")]
    #[schemars(range(min = 0, max = 3_600))]
    pub scale_up_after_seconds: i32,
    /// Seconds for which fewer nodes must have been wanted.
    #[serde(default = "down_after_s")]
    #[schemars(range(min = 30, max = 86_400))]
    pub scale_down_after_seconds: i32,
}

fn up_after_s() -> i32 {
    30
}

fn down_after_s() -> i32 {
    600
}

/// What the operator found, and what it is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Nodes there are, those that leave included.
    #[serde(default)]
    pub replicas: i32,
    /// Nodes wanted now, by spec or by autoscaling.
    #[serde(default)]
    pub desired_replicas: i32,
    /// Nodes that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Nodes that run what the spec says.
    #[serde(default)]
    pub updated_replicas: i32,
    /// Nodes that are leaving.
    #[serde(default)]
    pub draining_replicas: i32,
    /// The nodes' labels, for autoscalers.
    #[serde(default)]
    pub selector: String,
    /// What autoscaling decided last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingStatus>,
    /// What is done next, and what it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<super::cluster::PlannedStep>,
    /// Ready, Progressing, Degraded, Paused, ScalingLimited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::common::conditions")]
    pub conditions: Vec<Condition>,
}

/// What autoscaling decided last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalingStatus {
    /// Nodes that it wants.
    pub desired_replicas: i32,
    /// Why.
    pub reason: String,
    /// When it last changed its mind, in Unix seconds.
    pub changed_at: i64,
}
