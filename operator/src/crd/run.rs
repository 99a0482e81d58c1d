//! CachePurge and CachePrefetch: each runs once and keeps its result in status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::LocalRef;

/// A purge. It runs once: when it is Complete, no node serves what it names. Make a new one to purge
/// again.
#[derive(Clone, Debug, PartialEq, Eq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "shoal.dev",
    version = "v1alpha1",
    kind = "CachePurge",
    namespaced,
    status = "PurgeStatus",
    shortname = "cpurge",
    category = "shoal",
    derive = "PartialEq",
    doc = "A purge of a Shoal cluster. It runs once; make a new one to purge again.",
    selectable = ".spec.clusterRef.name",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(
        name = "Complete",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Complete\")].status"
    ),
    printcolumn(name = "Position", type_ = "integer", json_path = ".status.position"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Complete\")].message"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self == oldSelf",
    "a purge runs once and cannot change; make a new CachePurge"
))]
pub struct CachePurgeSpec {
    /// The cluster.
    pub cluster_ref: LocalRef,
    /// What is purged, all of it or nothing.
    #[schemars(length(min = 1, max = 1_000))]
    pub purges: Vec<PurgeItem>,
    /// What is covered becomes stale and is validated at the next request, in place of forgotten.
    #[serde(default)]
    pub soft: bool,
    /// Seconds after its end at which this object is deleted; never unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i32>,
}

/// One thing to purge: a URL, a prefix, a tag of a site, or a whole site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.url), has(self.prefix), has(self.site)].filter(x, x).size() == 1 && \
     (!has(self.tag) || has(self.site))",
    "name one of url, prefix and site; tag goes with site"
))]
pub struct PurgeItem {
    /// The response to that URL, as clients ask for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^https?://"), length(max = 8_192))]
    pub url: Option<String>,
    /// Everything under that path.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^https?://"), length(max = 8_192))]
    pub prefix: Option<String>,
    /// Everything of that site, or what bears the tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub site: Option<String>,
    /// Everything of the site whose response named this tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub tag: Option<String>,
}

/// What came of a purge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PurgeStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The last fence's position in the index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<i64>,
    /// Fewest nodes that acknowledged one of the purges.
    #[serde(default)]
    pub nodes_acknowledged: i32,
    /// Purges done.
    #[serde(default)]
    pub done: i32,
    /// Purges that failed.
    #[serde(default)]
    pub failed: i32,
    /// When it ended, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<i64>,
    /// Complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::common::conditions")]
    pub conditions: Vec<Condition>,
}

/// A prefetch: URLs that the cluster fetches before anybody asks. It runs once.
#[derive(Clone, Debug, PartialEq, Eq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "shoal.dev",
    version = "v1alpha1",
    kind = "CachePrefetch",
    plural = "cacheprefetches",
    namespaced,
    status = "PrefetchStatus",
    shortname = "cprefetch",
    category = "shoal",
    derive = "PartialEq",
    doc = "URLs that a Shoal cluster fetches before anybody asks. It runs once.",
    selectable = ".spec.clusterRef.name",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(
        name = "Complete",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Complete\")].status"
    ),
    printcolumn(name = "Total", type_ = "integer", json_path = ".status.total"),
    printcolumn(name = "Done", type_ = "integer", json_path = ".status.done"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failed"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self == oldSelf",
    "a prefetch runs once and cannot change; make a new CachePrefetch"
))]
pub struct CachePrefetchSpec {
    /// The cluster.
    pub cluster_ref: LocalRef,
    /// What is fetched, as clients ask for it.
    #[schemars(length(min = 1, max = 1_000), inner(length(min = 8, max = 2_048)))]
    #[x_kube(validation = (
        "self.all(u, u.startsWith('http://') || u.startsWith('https://'))",
        "urls begin with http:// or https://, as clients ask for them"
    ))]
    pub urls: Vec<String>,
    /// Seconds after its end at which this object is deleted; never unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i32>,
}

/// How far a prefetch is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrefetchStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The cluster's name for the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The node that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// Objects to be had: URLs times nodes.
    #[serde(default)]
    pub total: i64,
    /// Objects had.
    #[serde(default)]
    pub done: i64,
    /// Objects that could not be had.
    #[serde(default)]
    pub failed: i64,
    /// Bytes fetched.
    #[serde(default)]
    pub bytes: i64,
    /// The first failures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
    /// When it ended, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<i64>,
    /// Complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::common::conditions")]
    pub conditions: Vec<Condition>,
}
