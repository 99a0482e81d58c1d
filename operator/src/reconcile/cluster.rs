//! CacheCluster: what its members share is there, the next steps are done, and status says what was
//! found.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use serde_json::json;

use super::{certificates, steps};
use crate::certs;
use crate::clock;
use crate::context::{Context, Doing, Error};
use crate::crd::cluster::{ClusterStatus, Issuer, RecoveryStatus};
use crate::crd::member::{MemberRole, MemberStatus};
use crate::crd::{CacheCluster, CacheMember};
use crate::observe::{self, Seen};
use crate::plan::facts::Observed;
use crate::plan::{Gate, Plan, supers};
use crate::resources::config::{self, SECRET_KEY, TOKEN_KEY};
use crate::resources::{names, shared};
use crate::status::{self, says};

/// Between two looks while something goes on, and while nothing does.
const BUSY_WAIT: Duration = Duration::from_secs(5);
const IDLE_WAIT: Duration = Duration::from_secs(30);
/// Bytes of the cluster's secret and of the operator's token.
const SECRET_BYTES: usize = 32;
/// A lag that is no more than a moment's is not told.
const LAG_TOLD_MIN: u64 = 1_024;

/// One look.
///
/// # Errors
/// When it is to be repeated.
pub async fn reconcile(cluster: Arc<CacheCluster>, context: Arc<Context>) -> Result<Action, Error> {
    if cluster.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let seen = observe::cluster(&context, &cluster).await?;
    let facts = seen.facts(&cluster);
    let plan = supers::plan(&facts, &observe::wanted(&cluster));
    // Founding is written down before anybody could found a second time.
    if !cluster.spec.paused {
        objects(&context, &cluster, &seen).await?;
    }
    tell(&context, &cluster, &seen, (&facts, &plan)).await?;
    for step in plan.ready() {
        steps::execute(&context, &cluster, &seen, step).await?;
        context.metrics.steps.with_label_values(&[step.op.name()]).inc();
        context.event(&*cluster, false, (step.op.name(), &step.why)).await;
    }
    let waiting = plan.steps.len() - plan.ready().count();
    let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
    context.metrics.waiting.with_label_values(&["CacheCluster"]).set(waiting);
    Ok(Action::requeue(if plan.is_done() { IDLE_WAIT } else { BUSY_WAIT }))
}

/// What all members share.
async fn objects(context: &Context, cluster: &CacheCluster, seen: &Seen) -> Result<(), Error> {
    let (name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
    let writer = &context.writer;
    secrets(context, cluster, (&name, &namespace)).await?;
    writer.ensure(&shared::account(cluster)).await.doing("apply the account")?;
    writer.ensure(&shared::tier_service(cluster)).await.doing("apply the tier's service")?;
    writer.ensure(&shared::client_service(cluster)).await.doing("apply the service")?;
    let members: Vec<String> = seen.members.iter().map(ResourceExt::name_any).collect();
    let text = config::render(cluster, (&name, &namespace), &members)?;
    writer.ensure(&shared::config_map(cluster, text)).await.doing("apply the configuration")?;
    let voters = seen
        .tier
        .as_ref()
        .map_or(0, |(_, tier)| tier.members.iter().filter(|member| member.role == "voter").count());
    match shared::tier_budget(cluster, voters) {
        Some(budget) => writer.ensure(&budget).await.doing("apply the tier's budget")?,
        None => {
            let budgets = context.api::<PodDisruptionBudget>(&namespace);
            let there = budgets.get_opt(&names::tier_service(&name)).await;
            if let Some(budget) = there.doing("read the tier's budget")? {
                writer.delete(&budget).await.doing("delete the tier's budget")?;
            }
        }
    }
    for member in &seen.members {
        certificates::of_member(context, cluster, member).await?;
        if seen.volume_missing_since(member).is_none() && !member.spec.leaving {
            let volume = shared::super_volume(cluster, member);
            if let Err(error) = writer.ensure(&volume).await {
                // Such as a class that cannot grow: no reason to leave all else undone.
                let note = format!("volume of {}: {error}", member.name_any());
                context.event(cluster, true, ("VolumeRefused", &note)).await;
            }
        }
    }
    for pod in seen.pods.values() {
        label(context, seen, pod).await?;
    }
    Ok(())
}

/// Secrets are drawn once and stay.
async fn secrets(
    context: &Context,
    cluster: &CacheCluster,
    (name, namespace): (&str, &str),
) -> Result<(), Error> {
    let api = context.api::<Secret>(namespace);
    let own = names::shared_secret(name);
    if api.get_opt(&own).await.doing("read the shared secret")?.is_none() {
        let secret = format!("{}\n", clock::random_hex(SECRET_BYTES)?);
        let token = clock::random_hex(SECRET_BYTES)?;
        let data = [(SECRET_KEY, secret.as_str()), (TOKEN_KEY, token.as_str())];
        let secret = shared::secret(cluster, name, own, &data);
        context.writer.create(&secret).await.doing("make the shared secret")?;
    }
    let own = names::authority_secret(name);
    let needs = cluster.spec.tls.issuer == Issuer::Operator;
    if needs && api.get_opt(&own).await.doing("read the authority")?.is_none() {
        let authority = certs::authority(clock::unix_s(), &names::cluster_id(cluster))?;
        let data = [("ca.crt", authority.cert.as_str()), ("ca.key", authority.key.as_str())];
        let secret = shared::secret(cluster, name, own, &data);
        context.writer.create(&secret).await.doing("make the authority")?;
    }
    Ok(())
}

/// Budgets count voters alone.
async fn label(context: &Context, seen: &Seen, pod: &Pod) -> Result<(), Error> {
    let Some((_, tier)) = &seen.tier else { return Ok(()) };
    let name = pod.name_any();
    let votes = tier.members.iter().any(|it| it.name == name && it.role == "voter");
    let labelled = pod.labels().contains_key(names::VOTER);
    if votes == labelled || pod.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let value = if votes { json!("true") } else { json!(null) };
    let patch = json!({ "metadata": { "labels": { names::VOTER: value } } });
    context.writer.merge(pod, patch).await.doing("label a voter")
}

async fn tell(
    context: &Context,
    cluster: &CacheCluster,
    seen: &Seen,
    (facts, plan): (&Observed, &Plan),
) -> Result<(), Error> {
    for member in &seen.members {
        let before = member.status.as_ref();
        let told = member_status(member, seen, facts);
        context.writer.status(member, before, &told).await.doing("tell of a super-node")?;
    }
    let told = cluster_status(cluster, seen, facts, plan);
    let before = cluster.status.as_ref();
    context.writer.status(cluster, before, &told).await.doing("tell of the cluster")
}

fn count(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// The cluster's status: PURE.
fn cluster_status(
    cluster: &CacheCluster,
    seen: &Seen,
    facts: &Observed,
    plan: &Plan,
) -> ClusterStatus {
    let before = cluster.status.clone().unwrap_or_default();
    let generation = cluster.metadata.generation;
    let tier = facts.tier.as_ref();
    let voters = tier.map_or(0, |tier| tier.voters().count());
    let up = tier.map_or(0, |tier| tier.voters().filter(|it| it.up).count());
    let nodes = seen
        .tier
        .as_ref()
        .map_or(0, |(_, tier)| tier.members.iter().filter(|member| member.role == "node").count());
    let lost = facts.members.iter().filter(|m| m.volume_missing_since_s.is_some()).count();
    let recovery = (tier.is_none() && lost > 0 && lost * 2 >= facts.members.len()).then(|| {
        let there = facts.members.iter().filter(|m| m.volume_missing_since_s.is_none());
        RecoveryStatus {
            survivors: there.map(|member| member.name.clone()).collect(),
            remedy:
                "set spec.paused, run `shoal recover` on the volume of one survivor, and unset \
                     it again; docs/recover-json.md"
                    .to_owned(),
        }
    });
    let says_all = cluster_says(cluster, facts, plan, (up, voters, recovery.is_some()));
    ClusterStatus {
        observed_generation: generation,
        cluster_id: facts.founded.then(|| names::cluster_id(cluster)),
        founded: facts.founded,
        quorum: tier.map(|_| format!("{up}/{voters}")).or(before.quorum),
        voters: count(voters),
        learners: count(tier.map_or(0, |tier| tier.members.len() - voters)),
        nodes: count(nodes),
        leader: seen.leader().map(str::to_owned),
        leader_since: seen.leader_since(cluster),
        membership: tier.map(|tier| tier.mark.clone()),
        version: seen.versions.values().min().cloned(),
        plan: status::planned(plan),
        recovery,
        conditions: status::conditions(&before.conditions, facts.now_s, generation, says_all),
    }
}

fn cluster_says(
    cluster: &CacheCluster,
    facts: &Observed,
    plan: &Plan,
    (up, voters, lost): (usize, usize, bool),
) -> Vec<status::Says> {
    let wanted = usize::try_from(cluster.spec.super_nodes.replicas).unwrap_or_default();
    let quorum = voters > 0 && up > voters / 2;
    let whole = plan.is_done() && quorum && up == wanted;
    let figures = format!("{up} of {voters} voters are up, {wanted} are wanted");
    let stuck = stuck(cluster, facts);
    let shut = plan.steps.iter().filter_map(|step| step.blocked.as_ref());
    let serious = |by: Gate| matches!(by, Gate::ClusterId | Gate::UnknownVoter | Gate::Recovery);
    let serious = shut.into_iter().find(|blocked| serious(blocked.by));
    let degraded = serious.map(|b| b.detail.clone()).or(stuck);
    vec![
        says("Ready", whole, if whole { "AsWanted" } else { "NotYet" }, figures.clone()),
        says("Available", quorum, if quorum { "Quorum" } else { "NoQuorum" }, figures.clone()),
        status::progress(plan),
        match degraded {
            Some(why) => says("Degraded", true, "SeeMessage", why),
            None => says("Degraded", false, "Sound", "nothing stands against the plan"),
        },
        says(
            "QuorumAtRisk",
            facts.tier.is_some() && voters > 1 && up <= voters / 2 + 1 && up < voters,
            "Voters",
            figures,
        ),
        says("Paused", cluster.spec.paused, "Spec", "as spec.paused says"),
        says("RecoveryRequired", lost, "Volumes", "most super-nodes' volumes are gone, or not"),
    ]
}

/// A pod that has not started for longer than the progress deadline.
fn stuck(cluster: &CacheCluster, facts: &Observed) -> Option<String> {
    let deadline_s = i64::from(cluster.spec.upgrade.progress_deadline_seconds);
    facts.members.iter().find_map(|member| {
        let pod = member.pod.as_ref()?;
        let late = facts.now_s.saturating_sub(pod.created_s) > deadline_s;
        (late && pod.ready_since_s.is_none()).then(|| {
            format!(
                "{} is not ready after spec.upgrade.progressDeadlineSeconds ({deadline_s} s): see \
                 `kubectl describe pod {}`; an image, a volume or a place may be missing",
                member.name, member.name
            )
        })
    })
}

/// A super-node's status: PURE.
fn member_status(member: &CacheMember, seen: &Seen, facts: &Observed) -> MemberStatus {
    let before = member.status.clone().unwrap_or_default();
    let name = member.name_any();
    let tier = facts.tier.as_ref();
    let entry = tier.and_then(|tier| tier.members.iter().find(|it| it.name == name));
    let fact = facts.members.iter().find(|fact| fact.name == name);
    let pod = seen.pods.get(&name);
    let ready = fact.and_then(|it| it.pod.as_ref()).is_some_and(|it| it.ready_since_s.is_some());
    let current = fact.and_then(|it| it.pod.as_ref()).is_none_or(|it| it.current);
    let id = fact.and_then(|fact| fact.id.clone());
    let removed = tier.zip(id.as_ref()).is_some_and(|(tier, id)| tier.removed.contains(id));
    let role = match (tier, entry) {
        (None, _) => before.role.or(Some(MemberRole::Joining)),
        (Some(_), None) if removed => Some(MemberRole::Removed),
        (Some(_), None) => Some(MemberRole::Joining),
        (Some(_), Some(_)) if member.spec.leaving => Some(MemberRole::Leaving),
        (Some(_), Some(entry)) if entry.voter => Some(MemberRole::Voter),
        (Some(_), Some(_)) => Some(MemberRole::Learner),
    };
    let joined = tier.map(|_| entry.is_some());
    let volume = seen.volumes.get(&names::volume(&name)).and_then(ResourceExt::uid);
    let all = vec![
        says("Joined", joined, "Tier", "whether the tier has it"),
        says("Ready", ready, "Pod", "whether its pod is ready"),
        says("VersionDrifted", !current, "Template", "whether its pod is to be restarted"),
    ];
    MemberStatus {
        member_id: id,
        role,
        leader: entry.is_some_and(|it| it.leader),
        lag: entry.and_then(|it| it.lag).filter(|lag| *lag > LAG_TOLD_MIN).map(told_lag),
        pod_uid: pod.and_then(ResourceExt::uid),
        volume_uid: before.volume_uid.or(volume),
        volume_missing_since: seen.volume_missing_since(member),
        silent_since: seen.silent_since(member),
        version: seen.versions.get(&name).cloned().or(before.version),
        conditions: status::conditions(
            &before.conditions,
            facts.now_s,
            member.metadata.generation,
            all,
        ),
    }
}

/// A lag in powers of two: it moves all the time.
fn told_lag(lag: u64) -> i64 {
    i64::try_from(lag.next_power_of_two()).unwrap_or(i64::MAX)
}
