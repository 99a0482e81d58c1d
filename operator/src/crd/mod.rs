//! Shoal's custom resources, group `shoal.dev`, version `v1alpha1`: what people write and what the
//! operator answers in status. The definitions in `deploy/crds/` are generated from these types, and
//! their comments are what `kubectl explain` says.
//!
//! Invariants: every field has a default or a rule that says the remedy; no definition carries a
//! whole pod template. It must not decide anything: no logic beyond defaults.
//!
//! | file | purpose |
//! |---|---|
//! | `cluster` | CacheCluster |
//! | `pool` | CachePool |
//! | `member` | CacheMember, written by the operator alone |
//! | `site` | CacheSite |
//! | `run` | CachePurge and CachePrefetch, which run once |
//! | `common` | what several of them share |

#![expect(unreachable_pub, reason = "the derive KubeSchema copies the types into functions")]
#![expect(clippy::duplicated_attributes, reason = "columns of several kinds are alike")]

pub mod cluster;
pub mod common;
pub mod member;
pub mod pool;
pub mod run;
pub mod site;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub use cluster::CacheCluster;
pub use member::CacheMember;
pub use pool::CachePool;
pub use run::{CachePrefetch, CachePurge};
pub use site::CacheSite;

/// The API group of all kinds.
pub const GROUP: &str = "shoal.dev";

/// All definitions, in the order in which they are written.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        CacheCluster::crd(),
        CachePool::crd(),
        CacheMember::crd(),
        CacheSite::crd(),
        CachePurge::crd(),
        CachePrefetch::crd(),
    ]
}

/// A definition as YAML.
///
/// # Errors
/// When it cannot be written as YAML, which is a fault of Shoal's.
pub fn yaml(definition: &CustomResourceDefinition) -> Result<String, serde_saphyr::ser::Error> {
    serde_saphyr::to_string(definition)
}
