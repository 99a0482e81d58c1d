//! CacheCluster: a cluster's super-nodes, and what all its members share.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Image, LocalRef, PodOptions, Resources};

/// A Shoal cluster: its super-nodes, which keep the index, and what all members share. Nodes that
/// cache are CachePools, origins are CacheSites.
#[derive(Clone, Debug, PartialEq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "shoal.dev",
    version = "v1alpha1",
    kind = "CacheCluster",
    namespaced,
    status = "ClusterStatus",
    shortname = "cc",
    shortname = "shoal",
    category = "shoal",
    derive = "PartialEq",
    doc = "A Shoal cluster: its super-nodes, which keep the index, and what all members share.",
    validation = (
        "self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')",
        "a cluster's name has 1 to 40 lower-case letters, digits and '-', and begins with a \
         letter: pods and certificates are named after it; choose another name"
    ),
    printcolumn(name = "Ready", type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Quorum", type_ = "string", json_path = ".status.quorum"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Leader", type_ = "string", json_path = ".status.leader", priority = 1),
    printcolumn(name = "Status", type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Progressing\")].message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = (
        "has(self.clusterId) == has(oldSelf.clusterId) && (!has(self.clusterId) || \
         self.clusterId == oldSelf.clusterId)",
        "clusterId cannot change: members' data belongs to it; make a new cluster"
    ),
)]
pub struct CacheClusterSpec {
    /// The image of all members; a pool may have another for a while.
    pub image: Image,
    /// The super-nodes: who keeps the index.
    #[serde(default)]
    pub super_nodes: SuperNodes,
    /// The cluster's name for itself, `NAMESPACE.NAME` unless set. Data of another cluster is
    /// refused. It cannot change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub cluster_id: Option<String>,
    /// Copies of an object that the cluster keeps.
    #[serde(default = "copies")]
    #[schemars(range(min = 1, max = 8))]
    pub copies: i32,
    /// Certificates of the members.
    #[serde(default)]
    pub tls: Tls,
    /// How a change of image or options is brought to the pods.
    #[serde(default)]
    pub upgrade: Upgrade,
    /// How a node leaves.
    #[serde(default)]
    pub drain: Drain,
    /// Leave everything as it is; status goes on being told.
    #[serde(default)]
    pub paused: bool,
    /// `Plan` shows in status what would be done next and what it waits for, and does nothing.
    #[serde(default)]
    pub mode: Mode,
    /// How much the members log: error, warn, info, debug, trace, or tracing directives.
    #[serde(default = "log_level")]
    #[schemars(length(min = 1, max = 256))]
    pub log_level: String,
}

fn copies() -> i32 {
    2
}

fn log_level() -> String {
    "info,openraft=warn".to_owned()
}

/// The super-nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SuperNodes {
    /// How many: 1, 3, 5 or 7. Three survive the loss of one, five that of two.
    #[serde(default = "super_nodes")]
    #[x_kube(validation = (
        "self in [1, 3, 5, 7]",
        "superNodes.replicas must be 1, 3, 5 or 7: an even number adds one to lose and none to \
         spare"
    ))]
    pub replicas: i32,
    /// The volume of each.
    #[serde(default)]
    pub storage: SuperStorage,
    /// What each may use.
    #[serde(default)]
    pub resources: Resources,
    /// Where they run. They are spread over zones and machines without being told.
    #[serde(default)]
    pub pod: PodOptions,
    /// A super-node whose volume is there, but that nobody heard of for so many seconds, is
    /// replaced by a new one.
    #[serde(default = "replace_after_s")]
    #[schemars(range(min = 60, max = 86_400))]
    pub replace_after_seconds: i32,
}

impl Default for SuperNodes {
    fn default() -> Self {
        Self {
            replicas: super_nodes(),
            storage: SuperStorage::default(),
            resources: Resources::default(),
            pod: PodOptions::default(),
            replace_after_seconds: replace_after_s(),
        }
    }
}

fn super_nodes() -> i32 {
    3
}

fn replace_after_s() -> i32 {
    300
}

/// A super-node's volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = (
        "quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
        "superNodes.storage.size can only grow: volumes cannot shrink; keep the old size, or make \
         a new cluster"
    ),
    validation = (
        "has(self.storageClassName) == has(oldSelf.storageClassName) && \
         (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",
        "superNodes.storage.storageClassName cannot change: volumes do not move; make a new cluster"
    ),
)]
pub struct SuperStorage {
    /// How large. It can grow where the storage class allows that, and never shrink.
    #[serde(default = "super_size")]
    #[schemars(schema_with = "super::common::size")]
    pub size: Quantity,
    /// The storage class; the cluster's default one unless set. It cannot change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// What becomes of the volume of a super-node that left the tier.
    #[serde(default)]
    pub retention: Retention,
}

impl Default for SuperStorage {
    fn default() -> Self {
        Self { size: super_size(), storage_class_name: None, retention: Retention::default() }
    }
}

fn super_size() -> Quantity {
    Quantity("10Gi".to_owned())
}

/// What becomes of a volume that is no longer used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Retention {
    /// It is deleted once the tier has confirmed that its super-node is out.
    #[default]
    Delete,
    /// It is kept, without an owner; nothing of Shoal's will ever use it again.
    Retain,
}

/// Certificates of the members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = (
        "self.issuer != 'CertManager' || has(self.issuerRef)",
        "tls.issuer CertManager needs tls.issuerRef: name the Issuer or ClusterIssuer"
    ),
    validation = (
        "self.renewBeforeHours < self.validHours",
        "tls.renewBeforeHours must be below tls.validHours, or certificates are never left alone"
    ),
)]
pub struct Tls {
    /// Who issues them.
    #[serde(default)]
    pub issuer: Issuer,
    /// cert-manager's issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerRef>,
    /// How long a certificate holds.
    #[serde(default = "valid_hours")]
    #[schemars(range(min = 1, max = 87_600))]
    pub valid_hours: i32,
    /// How long before its end it is replaced.
    #[serde(default = "renew_before_hours")]
    #[schemars(range(min = 1, max = 43_800))]
    pub renew_before_hours: i32,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            issuer: Issuer::default(),
            issuer_ref: None,
            valid_hours: valid_hours(),
            renew_before_hours: renew_before_hours(),
        }
    }
}

fn valid_hours() -> i32 {
    2_160
}

fn renew_before_hours() -> i32 {
    720
}

/// Who issues certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Issuer {
    /// The operator, from an authority of the cluster's own.
    #[default]
    Operator,
    /// cert-manager.
    CertManager,
}

/// An issuer of cert-manager's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// `Issuer` or `ClusterIssuer`.
    #[serde(default = "issuer_kind")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
}

fn issuer_kind() -> String {
    "Issuer".to_owned()
}

/// How a change is brought to the pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Upgrade {
    /// One by one, or when somebody deletes the pod.
    #[serde(default)]
    pub strategy: Strategy,
    /// Seconds for which the tier must have been whole before the next super-node is restarted.
    #[serde(default = "min_ready_s")]
    #[schemars(range(min = 0, max = 3_600))]
    pub min_ready_seconds: i32,
    /// A step that takes longer is told of in the condition Degraded.
    #[serde(default = "progress_deadline_s")]
    #[schemars(range(min = 30, max = 86_400))]
    pub progress_deadline_seconds: i32,
    /// Wait before the leader is restarted, the last of all, until this is false again.
    #[serde(default)]
    pub pause_before_leader: bool,
}

impl Default for Upgrade {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            min_ready_seconds: min_ready_s(),
            progress_deadline_seconds: progress_deadline_s(),
            pause_before_leader: false,
        }
    }
}

fn min_ready_s() -> i32 {
    10
}

fn progress_deadline_s() -> i32 {
    600
}

/// When pods are restarted for a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Strategy {
    /// One by one, the leader last.
    #[default]
    Rolling,
    /// When somebody deletes them.
    OnDelete,
}

/// How a node leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// What is done when a node says that it makes no progress in handing off.
    #[serde(default)]
    pub on_stall: OnStall,
    /// Seconds that a pod has to end its requests after it was told to stop.
    #[serde(default = "grace_s")]
    #[schemars(range(min = 5, max = 3_600))]
    pub grace_seconds: i32,
}

impl Default for Drain {
    fn default() -> Self {
        Self { on_stall: OnStall::default(), grace_seconds: grace_s() }
    }
}

fn grace_s() -> i32 {
    60
}

/// What is done with a drain that makes no progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnStall {
    /// The node goes on waiting with all that it has; the condition says so.
    #[default]
    Wait,
    /// The node leaves all the same: what only it had is fetched from origins again.
    Force,
}

/// Whether the operator acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// It does what it plans.
    #[default]
    Apply,
    /// It only says what it would do.
    Plan,
}

/// What the operator found, and what it is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The cluster's name for itself, latched when it was founded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The tier was founded: nobody founds it again.
    #[serde(default)]
    pub founded: bool,
    /// Voters that are up, and voters there are: `3/3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quorum: Option<String>,
    /// Super-nodes with a vote.
    #[serde(default)]
    pub voters: i32,
    /// Super-nodes without one.
    #[serde(default)]
    pub learners: i32,
    /// Nodes that the tier knows of.
    #[serde(default)]
    pub nodes: i32,
    /// Who leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Since when the same one leads, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_since: Option<i64>,
    /// The membership's mark, with which changes go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub membership: Option<String>,
    /// The lowest version that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What is done next, and what it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<PlannedStep>,
    /// Most super-nodes are lost: what is needed to go on from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoveryStatus>,
    /// Ready, Available, Progressing, Degraded, QuorumAtRisk, Paused, RecoveryRequired.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::common::conditions")]
    pub conditions: Vec<Condition>,
}

/// A step of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedStep {
    /// What would be done.
    pub op: String,
    /// To whom.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Why.
    pub why: String,
    /// The gate that it waits for; empty when it waits for nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub blocked_by: String,
    /// What the gate found.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What is needed to go on from one super-node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryStatus {
    /// Super-nodes that are still there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub survivors: Vec<String>,
    /// What to do.
    pub remedy: String,
}

impl LocalRef {
    /// A reference to `name`.
    #[must_use]
    pub fn to(name: &str) -> Self {
        Self { name: name.to_owned() }
    }
}
