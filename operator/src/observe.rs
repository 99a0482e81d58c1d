//! All reads about a cluster, and what they mean: objects straight from the API server, never from a
//! cache that may be behind, and the tier's own word through the control API.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use kube::ResourceExt;
use kube::api::ListParams;

use crate::clock;
use crate::context::{Context, Doing, Error};
use crate::control::Caller;
use crate::control::documents::{Members, Status};
use crate::crd::cluster::{Mode, Strategy};
use crate::crd::{CacheCluster, CacheMember};
use crate::plan::facts::{InTier, Member, Observed, Pod as PodFacts, Tier, Wanted};
use crate::resources::config::TOKEN_KEY;
use crate::resources::{names, pods as templates};

/// What was seen of a cluster.
#[derive(Debug)]
pub struct Seen {
    /// When, in Unix seconds.
    pub now_s: i64,
    /// Its super-nodes.
    pub members: Vec<CacheMember>,
    /// Their pods, by name.
    pub pods: BTreeMap<String, Pod>,
    /// Their volumes, by name.
    pub volumes: BTreeMap<String, PersistentVolumeClaim>,
    /// What the tier says, and who said it.
    pub tier: Option<(IpAddr, Members)>,
    /// Versions by name.
    pub versions: BTreeMap<String, String>,
    /// Asks members.
    pub caller: Caller,
}

/// Looks at a cluster.
///
/// # Errors
/// When the API server does not answer.
pub async fn cluster(context: &Context, cluster: &CacheCluster) -> Result<Seen, Error> {
    let (name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
    let ours = ListParams::default().labels(&format!(
        "{}={name},{}={}",
        names::CLUSTER,
        names::ROLE,
        names::SUPER
    ));
    let of_cluster = ListParams::default().labels(&format!("{}={name}", names::CLUSTER));
    let members = context.api::<CacheMember>(&namespace).list(&of_cluster).await;
    let pods = context.api::<Pod>(&namespace).list(&ours).await;
    let volumes = context.api::<PersistentVolumeClaim>(&namespace).list(&ours).await;
    let mut members = members.doing("list CacheMembers")?.items;
    members.retain(|member| owns(cluster, member));
    let pods = named(pods.doing("list pods")?.items);
    let volumes = named(volumes.doing("list volumes")?.items);
    let caller = caller(context, &name, &namespace).await?;
    let addresses: Vec<IpAddr> = pods.values().filter_map(address).collect();
    let tier = ask_all::<Members>(&caller, &addresses, "/v1/members").await;
    let versions = match &tier {
        Some((host, _)) => versions(&caller, *host).await,
        None => BTreeMap::new(),
    };
    let now_s = clock::unix_s();
    Ok(Seen { now_s, members, pods, volumes, tier, versions, caller })
}

/// Whether a super-node is this very cluster's, and not of an earlier one of that name.
#[must_use]
pub fn owns(cluster: &CacheCluster, member: &CacheMember) -> bool {
    let uid = cluster.uid();
    member.owner_references().iter().any(|owner| Some(&owner.uid) == uid.as_ref())
}

/// Asks members of a cluster with the token that the operator gave them.
///
/// # Errors
/// When the API server does not answer.
pub async fn caller(context: &Context, name: &str, namespace: &str) -> Result<Caller, Error> {
    let secret = context.api::<Secret>(namespace).get_opt(&names::shared_secret(name)).await;
    let data = secret.doing("read the shared secret")?.and_then(|secret| secret.data);
    let token = data.and_then(|mut data| data.remove(TOKEN_KEY));
    let token = token.and_then(|token| String::from_utf8(token.0).ok());
    Ok(Caller::new(token.map(|token| token.trim().to_owned()), context.admin_port))
}

/// The first good answer of any of them.
pub async fn ask_all<T: serde::de::DeserializeOwned>(
    caller: &Caller,
    hosts: &[IpAddr],
    path: &str,
) -> Option<(IpAddr, T)> {
    let asked = hosts.iter().map(|host| async move { (*host, caller.get::<T>(*host, path).await) });
    let answers = join_all(asked).await;
    answers.into_iter().find_map(|(host, answer)| match answer {
        Ok(answer) => Some((host, answer)),
        Err(error) => {
            tracing::debug!(%error, path, "no answer");
            None
        }
    })
}

async fn versions(caller: &Caller, host: IpAddr) -> BTreeMap<String, String> {
    let status = caller.get::<Status>(host, "/status").await.unwrap_or_default();
    let told = status.members.into_iter();
    let told = told.filter(|member| member.state == "up" && !member.version.is_empty());
    told.map(|member| (member.name, member.version)).collect()
}

fn named<K: kube::Resource>(items: Vec<K>) -> BTreeMap<String, K> {
    items.into_iter().map(|item| (item.name_any(), item)).collect()
}

/// Where a pod's member can be asked.
#[must_use]
pub fn address(pod: &Pod) -> Option<IpAddr> {
    let running = pod.metadata.deletion_timestamp.is_none() && is_running(pod);
    pod.status.as_ref()?.pod_ip.as_ref().filter(|_| running)?.parse().ok()
}

fn is_running(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let state = statuses.and_then(|all| all.first()).and_then(|one| one.state.as_ref());
    state.is_some_and(|state| state.running.is_some())
}

/// What a plan needs to know of a pod.
#[must_use]
pub fn pod(pod: &Pod, template: &str) -> PodFacts {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().find(|c| c.type_ == "Ready" && c.status == "True");
    let second = |time: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Time| time.0.as_second();
    PodFacts {
        running: is_running(pod),
        ready_since_s: ready.map(|c| c.last_transition_time.as_ref().map_or(0, second)),
        created_s: pod.metadata.creation_timestamp.as_ref().map_or(0, second),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        ended: phase == "Failed" || phase == "Succeeded",
        current: pod.annotations().get(names::TEMPLATE).is_some_and(|hash| hash == template),
    }
}

/// What is wanted: PURE.
#[must_use]
pub fn wanted(cluster: &CacheCluster) -> Wanted {
    let spec = &cluster.spec;
    Wanted {
        size: usize::try_from(spec.super_nodes.replicas).unwrap_or_default(),
        cluster_id: names::cluster_id(cluster),
        paused: spec.paused,
        plan_only: spec.mode == Mode::Plan,
        on_delete: spec.upgrade.strategy == Strategy::OnDelete,
        min_ready_s: i64::from(spec.upgrade.min_ready_seconds),
        replace_after_s: i64::from(spec.super_nodes.replace_after_seconds),
        pause_before_leader: spec.upgrade.pause_before_leader,
    }
}

impl Seen {
    /// What is so: PURE.
    #[must_use]
    pub fn facts(&self, cluster: &CacheCluster) -> Observed {
        let template = templates::super_template(cluster);
        let (name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
        let members = self.members.iter().map(|member| {
            let own = member.name_any();
            let status = member.status.clone().unwrap_or_default();
            Member {
                leaving: member.spec.leaving,
                deleting: member.metadata.deletion_timestamp.is_some(),
                id: self.tier_id(&own).or(status.member_id),
                pod: self.pods.get(&own).map(|it| pod(it, &template)),
                volume_missing_since_s: self.volume_missing_since(member),
                silent_since_s: self.silent_since(member),
                address: names::address(&name, &namespace, &own),
                name: own,
            }
        });
        let status = cluster.status.clone().unwrap_or_default();
        Observed {
            now_s: self.now_s,
            founded: status.founded || self.tier.is_some(),
            members: members.collect(),
            tier: self.tier.as_ref().map(|(_, members)| tier(members)),
            leader_since_s: self.leader_since(cluster),
        }
    }

    fn tier_id(&self, name: &str) -> Option<String> {
        let (_, tier) = self.tier.as_ref()?;
        let found = tier.members.iter().find(|member| member.name == name && member.role != "node");
        found.map(|member| member.node_id.clone())
    }

    /// Since when the volume that it had is missing.
    #[must_use]
    pub fn volume_missing_since(&self, member: &CacheMember) -> Option<i64> {
        let status = member.status.clone().unwrap_or_default();
        let had = status.volume_uid?;
        let there = self.volumes.get(&names::volume(&member.name_any())).and_then(ResourceExt::uid);
        (there.as_deref() != Some(had.as_str()))
            .then(|| status.volume_missing_since.unwrap_or(self.now_s))
    }

    /// Since when the tier has not heard of it; as before while the tier says nothing.
    #[must_use]
    pub fn silent_since(&self, member: &CacheMember) -> Option<i64> {
        let before = member.status.as_ref().and_then(|status| status.silent_since);
        let Some((_, tier)) = &self.tier else { return before };
        let name = member.name_any();
        let up = tier.members.iter().any(|it| it.name == name && it.state == "up");
        if up { None } else { Some(before.unwrap_or(self.now_s)) }
    }

    /// Since when the same one leads.
    #[must_use]
    pub fn leader_since(&self, cluster: &CacheCluster) -> Option<i64> {
        let leader = self.leader()?;
        let status = cluster.status.clone().unwrap_or_default();
        let same = status.leader.as_deref() == Some(leader);
        Some(status.leader_since.filter(|_| same).unwrap_or(self.now_s))
    }

    /// Who leads.
    #[must_use]
    pub fn leader(&self) -> Option<&str> {
        let (_, tier) = self.tier.as_ref()?;
        tier.members.iter().find(|member| member.leader).map(|member| member.name.as_str())
    }
}

fn tier(members: &Members) -> Tier {
    let supers = members.members.iter().filter(|member| member.role != "node");
    let entry = |member: &crate::control::documents::TierMember| InTier {
        name: member.name.clone(),
        id: member.node_id.clone(),
        voter: member.role == "voter",
        leader: member.leader,
        up: member.state == "up",
        lag: member.lag,
    };
    Tier {
        cluster_id: members.cluster_id.clone(),
        mark: members.membership.clone(),
        joint: members.joint,
        members: supers.map(entry).collect(),
        removed: members.removed.iter().cloned().collect(),
    }
}
