//! CacheSite: one origin with its host names and cache policy.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::common::LocalRef;

/// One origin with its host names and cache policy. The site's name is the object's.
#[derive(Clone, Debug, PartialEq, Eq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "shoal.dev",
    version = "v1alpha1",
    kind = "CacheSite",
    namespaced,
    status = "SiteStatus",
    shortname = "csite",
    category = "shoal",
    derive = "PartialEq",
    doc = "One origin of a Shoal cluster, with its host names and cache policy.",
    selectable = ".spec.clusterRef.name",
    validation = (
        "self.metadata.name.size() <= 63",
        "a site's name has at most 63 characters; choose a shorter one"
    ),
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Origin", type_ = "string", json_path = ".spec.origin"),
    printcolumn(name = "Hosts", type_ = "string", json_path = ".spec.hosts", priority = 1),
    printcolumn(name = "Ready", type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Revision", type_ = "integer", json_path = ".status.revision",
        priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.clusterRef.name == oldSelf.clusterRef.name",
    "clusterRef cannot change; make a new CacheSite for the other cluster"
))]
pub struct CacheSiteSpec {
    /// The cluster. It cannot change.
    pub cluster_ref: LocalRef,
    /// Host names that it serves: exact, `*.example.com` for everything below, or `*`.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253)))]
    #[x_kube(validation = (
        "self.all(h, h.matches('^(\\\\*|(\\\\*\\\\.)?[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?)$'))",
        "hosts are names without scheme, port and path: example.com, *.example.com, or *"
    ))]
    pub hosts: Vec<String>,
    /// Base URL of its origin, `http://` or `https://`, without a path.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = (
        "self.matches('^https?://[^/?#@]+/?$')",
        "origin is http:// or https:// with host and port, without user, path and query, as in \
         https://origin.example.com"
    ))]
    pub origin: String,
    /// Further origins with the same content, tried in this order while those before are away.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 7), inner(length(min = 1, max = 512)))]
    #[x_kube(validation = (
        "self.all(o, o.matches('^https?://[^/?#@]+/?$'))",
        "moreOrigins are http:// or https:// with host and port, without user, path and query"
    ))]
    pub more_origins: Option<Vec<String>>,
    /// What the origin sees as `Host`: its own name, or what the client asked for.
    #[serde(default)]
    pub host_header: HostHeader,
    /// Longest wait for a connection to the origin, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 600_000))]
    pub connect_timeout_ms: Option<i64>,
    /// Longest wait for its response head, in milliseconds; after that clients get a 504.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 600_000))]
    pub first_byte_timeout_ms: Option<i64>,
    /// Longest silence within its response body, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 600_000))]
    pub between_bytes_timeout_ms: Option<i64>,
    /// Longest body that is cached, in bytes; longer ones pass through.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_object_bytes: Option<i64>,
    /// Response fields that speak to this cache in the place of `Cache-Control`; the first that is
    /// there and well-formed counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 64)))]
    pub targeted: Option<Vec<String>>,
    /// What an `Age` means that is no single number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unclear_age: Option<UnclearAge>,
    /// Which cache directives of clients count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_directives: Option<ClientDirectives>,
    /// Which large objects are kept in parts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parts: Option<Parts>,
    /// Methods that are let through; all but `CONNECT` and `TRACE` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 32)))]
    pub methods: Option<Vec<String>>,
    /// Whether nothing is cached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bypass: Option<bool>,
    /// What becomes of responses with `Set-Cookie`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_cookie: Option<SetCookie>,
    /// Response headers that carry tags to purge by.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 64)))]
    pub tags: Option<Vec<String>>,
    /// What else than the path makes two requests ask for different objects. The keys of this and of
    /// the following tables are those of the site's document (docs/configuration.md#rules), as in
    /// `ignore: ["utm_*"]`; members check them, and the condition Ready says what is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::common::table")]
    pub key: Option<Map<String, Value>>,
    /// How long responses are fresh, and of use after that, as in `default_s: 300`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::common::table")]
    pub ttl: Option<Map<String, Value>>,
    /// Headers that are set and removed towards origins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::common::table")]
    pub request_headers: Option<Map<String, Value>>,
    /// Headers that are set and removed towards clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::common::table")]
    pub response_headers: Option<Map<String, Value>>,
    /// When an origin counts as away, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::common::table")]
    pub health: Option<Map<String, Value>>,
    /// What differs for some paths; the first rule that fits counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::common::tables")]
    pub path: Option<Vec<Map<String, Value>>>,
}

/// Which large objects are kept in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Parts {
    /// None: a range brings all of an object.
    Off,
    /// Those that are asked for in part first.
    Ranges,
    /// All: nodes that are asked for one at once fill it together.
    All,
}

/// What becomes of responses with `Set-Cookie`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SetCookie {
    /// They are not shared.
    Pass,
    /// They are shared without their cookies.
    Strip,
    /// Everybody gets the same cookies.
    Store,
}

/// What the origin sees as `Host`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HostHeader {
    /// Its own name.
    #[default]
    Origin,
    /// What the client asked for.
    Client,
}

/// What an `Age` means that is no single number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnclearAge {
    /// Of a list the first member counts, and nonsense does not.
    Ignore,
    /// The response is stale.
    Stale,
}

/// Which cache directives of clients count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientDirectives {
    /// None.
    Ignore,
    /// Those that cost the origin nothing.
    Safe,
    /// All.
    All,
}

/// Whether the site is served.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The site's revision in the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// Members that serve this revision.
    #[serde(default)]
    pub applied_on: i32,
    /// Members that do not yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_for: Vec<String>,
    /// Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::common::conditions")]
    pub conditions: Vec<Condition>,
}
