//! CacheMember: the plan of its cluster does everything, but one: when the cluster goes, or is gone,
//! nobody plans any more, and its super-nodes are let go at once. So no finalizer can get stuck.

use std::sync::Arc;

use kube::ResourceExt;
use kube::runtime::controller::Action;

use super::{cluster_of, steps};
use crate::context::{Context, Error};
use crate::crd::CacheMember;
use crate::observe;

/// One look.
///
/// # Errors
/// When it is to be repeated.
pub async fn reconcile(member: Arc<CacheMember>, context: Arc<Context>) -> Result<Action, Error> {
    if member.metadata.deletion_timestamp.is_none() {
        return Ok(Action::await_change());
    }
    let namespace = member.namespace().unwrap_or_default();
    let cluster = cluster_of(&context, &namespace, &member.spec.cluster_ref.name).await?;
    if !cluster.is_some_and(|cluster| observe::owns(&cluster, &member)) {
        tracing::info!(member = member.name_any(), "its cluster goes: it is let go");
        steps::release(&context, &member).await?;
    }
    Ok(Action::await_change())
}
