//! One look at an object: observe, plan, apply, status. Each kind has its own; none may stop the
//! others, and what one look leaves undone the next one finds.
//!
//! | file | purpose |
//! |---|---|
//! | `cluster` | CacheCluster: the shared objects, the super-nodes' plan, status |
//! | `steps` | does the steps of that plan |
//! | `certificates` | issues and renews members' certificates |
//! | `member` | CacheMember: lets go of those whose cluster goes |
//! | `pool` | CachePool |
//! | `load` | a pool's figures, for autoscaling |
//! | `site` | CacheSite |
//! | `run` | CachePurge and CachePrefetch |
//! | `trouble` | tells of a look that failed |

mod certificates;
pub mod cluster;
mod load;
pub mod member;
pub mod pool;
pub mod run;
pub mod site;
mod steps;
pub mod trouble;

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;

use crate::context::{Context, Doing, Error};
use crate::crd::CacheCluster;
use crate::observe;
use crate::resources::names;

/// A cluster that others refer to; nothing when it is not there or goes.
async fn cluster_of(
    context: &Context,
    namespace: &str,
    name: &str,
) -> Result<Option<CacheCluster>, Error> {
    let found = context.api::<CacheCluster>(namespace).get_opt(name).await;
    let found = found.doing("read the CacheCluster")?;
    Ok(found.filter(|cluster| cluster.metadata.deletion_timestamp.is_none()))
}

/// Where a cluster's nodes can be asked, those that are ready first.
async fn nodes_of(context: &Context, cluster: &CacheCluster) -> Result<Vec<IpAddr>, Error> {
    let namespace = cluster.namespace().unwrap_or_default();
    let role = (names::ROLE, names::NODE);
    let labels = format!("{}={},{}={}", names::CLUSTER, cluster.name_any(), role.0, role.1);
    let nodes = context.api::<Pod>(&namespace).list(&ListParams::default().labels(&labels)).await;
    let mut nodes = nodes.doing("list nodes")?.items;
    nodes.sort_by_key(|node| (observe::pod(node, "").ready_since_s.is_none(), node.name_any()));
    Ok(nodes.iter().filter_map(observe::address).collect())
}
