//! Does the steps of a super-nodes' plan. This is the one place that asks the tier for changes of its
//! membership; each bears the membership that was seen.

use http::Method;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use serde_json::{Value, json};

use super::certificates;
use crate::clock;
use crate::context::{Context, Doing, Error};
use crate::control::CallError;
use crate::control::documents::change;
use crate::crd::common::LocalRef;
use crate::crd::member::CacheMemberSpec;
use crate::crd::{CacheCluster, CacheMember};
use crate::observe::Seen;
use crate::plan::{Op, Step};
use crate::resources::{names, pods, shared};

/// Does one step. What is done already is no fault.
pub(super) async fn execute(
    context: &Context,
    cluster: &CacheCluster,
    seen: &Seen,
    step: &Step,
) -> Result<(), Error> {
    tracing::info!(
        cluster = cluster.name_any(),
        step = step.op.name(),
        target = step.op.target(),
        why = step.why,
        "step"
    );
    let member = seen.members.iter().find(|member| member.name_any() == step.op.target());
    match (&step.op, member) {
        (Op::CreateMember { founder }, _) => create(context, cluster, seen, *founder).await,
        (Op::CreatePod { .. }, Some(member)) => start(context, cluster, seen, member).await,
        (Op::MarkLeaving { .. }, Some(member)) => {
            let patch = json!({ "spec": { "leaving": true } });
            context.writer.merge(member, patch).await.doing("mark a super-node as leaving")
        }
        (Op::DeletePod { member }, _) => match seen.pods.get(member) {
            Some(pod) => context.writer.delete(pod).await.doing("delete a pod"),
            None => Ok(()),
        },
        (Op::DeleteMember { .. }, Some(member)) => {
            context.writer.delete(member).await.doing("delete a CacheMember")?;
            release(context, member).await
        }
        (op, _) => match change_of(op) {
            Some((expect, wanted)) => ask(context, cluster, seen, (expect, wanted)).await,
            None => Ok(()),
        },
    }
}

/// Takes the finalizer away, so that the object can go.
pub(super) async fn release(context: &Context, member: &CacheMember) -> Result<(), Error> {
    if !member.finalizers().iter().any(|name| name == names::FINALIZER) {
        return Ok(());
    }
    let others = member.finalizers().iter().filter(|name| *name != names::FINALIZER);
    let others: Vec<_> = others.collect();
    let patch = json!({ "metadata": { "finalizers": others } });
    match context.writer.merge(member, patch).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.doing("let a CacheMember go"),
    }
}

async fn create(
    context: &Context,
    cluster: &CacheCluster,
    seen: &Seen,
    founder: bool,
) -> Result<(), Error> {
    let cluster_name = cluster.name_any();
    let name = format!("{cluster_name}-super-{}", clock::random_suffix()?);
    let spec =
        CacheMemberSpec { cluster_ref: LocalRef::to(&cluster_name), founder, leaving: false };
    let mut member = CacheMember::new(&name, spec);
    let meta = names::meta(cluster, &cluster_name, Some(names::SUPER), name);
    let finalizers = Some(vec![names::FINALIZER.to_owned()]);
    member.metadata = ObjectMeta { finalizers, ..meta };
    let member = context.writer.create(&member).await.doing("make a CacheMember")?;
    start(context, cluster, seen, &member).await
}

/// Volume, certificate, pod: in this order, so that a pod finds what it needs.
async fn start(
    context: &Context,
    cluster: &CacheCluster,
    seen: &Seen,
    member: &CacheMember,
) -> Result<(), Error> {
    let volume = shared::super_volume(cluster, member);
    context.writer.ensure(&volume).await.doing("make a volume")?;
    certificates::of_member(context, cluster, member).await?;
    let founded = seen.tier.is_some() || cluster.status.as_ref().is_some_and(|it| it.founded);
    let pod = pods::super_node(cluster, member, member.spec.founder && !founded);
    context.writer.create(&pod).await.doing("make a super-node's pod").map(|_| ())
}

fn change_of(op: &Op) -> Option<(&str, Value)> {
    Some(match op {
        Op::Add { address, expect, .. } => (expect, json!({ "add": address })),
        Op::Promote { id, expect, .. } => (expect, json!({ "promote": id })),
        Op::Remove { id, expect, .. } => (expect, json!({ "remove": id })),
        Op::Transfer { id, expect, .. } => (expect, json!({ "transfer": id })),
        Op::Replace { old, new, expect, .. } => {
            (expect, json!({ "replace": { "old": old, "new": new } }))
        }
        _ => return None,
    })
}

/// Asks the tier for one change. A refusal is an answer: the next look sees what is so then.
async fn ask(
    context: &Context,
    cluster: &CacheCluster,
    seen: &Seen,
    (expect, wanted): (&str, Value),
) -> Result<(), Error> {
    let Some((host, _)) = &seen.tier else { return Ok(()) };
    let body = change(expect, &wanted);
    let asked = seen.caller.send::<Value>(*host, (Method::POST, "/v1/members"), &body).await;
    match asked {
        Ok(_) => Ok(()),
        Err(refusal @ CallError::Refused { status: 404 | 409 | 503, .. }) => {
            tracing::info!(%refusal, "the tier does not change now");
            context.event(cluster, true, ("Refused", &refusal.to_string())).await;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
