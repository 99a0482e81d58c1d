//! CacheMember: one super-node. The operator alone writes these.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::LocalRef;

/// One super-node of a cluster, with its pod and its volume. The operator makes, changes and
/// removes these; change the CacheCluster instead.
#[derive(Clone, Debug, PartialEq, Eq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "shoal.dev",
    version = "v1alpha1",
    kind = "CacheMember",
    namespaced,
    status = "MemberStatus",
    shortname = "cmember",
    category = "shoal",
    derive = "PartialEq",
    doc = "One super-node of a Shoal cluster. Written by the operator: change the CacheCluster.",
    selectable = ".spec.clusterRef.name",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Role", type_ = "string", json_path = ".status.role"),
    printcolumn(name = "Leader", type_ = "boolean", json_path = ".status.leader"),
    printcolumn(name = "Lag", type_ = "integer", json_path = ".status.lag", priority = 1),
    printcolumn(name = "Id", type_ = "string", json_path = ".status.memberId", priority = 1),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = (
        "self.clusterRef.name == oldSelf.clusterRef.name",
        "clusterRef cannot change; a super-node belongs to one cluster for ever"
    ),
    validation = (
        "self.leaving || !oldSelf.leaving",
        "leaving cannot be taken back: a super-node that left has an id that is never taken back"
    ),
)]
pub struct CacheMemberSpec {
    /// Its cluster.
    pub cluster_ref: LocalRef,
    /// It founds the tier, unless that was founded already.
    #[serde(default)]
    pub founder: bool,
    /// It is to leave the tier.
    #[serde(default)]
    pub leaving: bool,
}

/// What is known of a super-node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Its id in the tier, 16 hexadecimal digits; latched when it first joined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member_id: Option<String>,
    /// What it is in the tier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<MemberRole>,
    /// It leads.
    #[serde(default)]
    pub leader: bool,
    /// Positions by which its log is behind the leader's, when it is more than a moment's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<i64>,
    /// Its pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// Its volume, latched when it was first there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_uid: Option<String>,
    /// Since when its volume is missing, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_missing_since: Option<i64>,
    /// Since when nobody heard of it, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silent_since: Option<i64>,
    /// The version that it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Joined, Ready, VersionDrifted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::common::conditions")]
    pub conditions: Vec<Condition>,
}

/// What a super-node is in the tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MemberRole {
    /// Not in the tier yet.
    Joining,
    /// Without a vote.
    Learner,
    /// With a vote.
    Voter,
    /// On its way out.
    Leaving,
    /// Out, for ever.
    Removed,
}
