//! On the leader: gathers what is known of every node that could be a super-node, has `selection`
//! decide, and carries it out until reality matches: a chosen node is told to start its super-node
//! before it is taken in, one that lost its place is told to retire its own.
//!
//! Nothing here is remembered over a change of leader: what is to be follows from the membership,
//! the members and their reports.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use shoal_proto::limits::{RPC_DEADLINE_MS, WRITE_DEADLINE_MS};
use shoal_proto::wire::v1;
use shoal_proto::wire::v1::standby_client::StandbyClient;
use shoal_proto::{ErrorKind, NodeId, RpcError};

use super::raft::TierState;
use super::selection::flaps::Flaps;
use super::selection::{
    Action, Candidate, Capability, Selection, Situation, Stability, Wanted, Why, score,
};
use super::standbys::{self, Report};
use super::tier::{Tier, ms};
use crate::clock;
use crate::membership::{Member, Role};
use crate::rpc::with_deadline;

/// Between two looks, in milliseconds.
const LOOK_EVERY_MS: u64 = 500;
/// For a node to hear a reminder: it need not say that it is done, in milliseconds.
const REMIND_DEADLINE_MS: u64 = 300;
/// For a chosen node to start its super-node: the leader asks again until then, in milliseconds.
const START_DEADLINE_MS: u64 = 8_000;

/// What the leader chooses by, and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Selected {
    /// Voters wanted.
    pub wanted: usize,
    /// Voters there are.
    pub voters: usize,
    /// Why nothing is done now, or something is.
    pub why: &'static str,
    /// The score of every node that could be chosen, in thousandths of a point.
    pub scores: BTreeMap<NodeId, i64>,
    /// The last change that this leader made.
    pub last_change: Option<LastChange>,
}

/// A change of the tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastChange {
    /// `promote`, `replace` or `demote`.
    pub kind: &'static str,
    /// Who got a vote.
    pub into: Option<NodeId>,
    /// Who lost it.
    pub out: Option<NodeId>,
    /// Why.
    pub why: &'static str,
    /// When, in Unix milliseconds.
    pub unix_ms: u64,
}

/// What is remembered while this super-node leads.
struct Leading {
    selection: Selection,
    uptimes: HashMap<NodeId, u64>,
    last_change: Option<LastChange>,
}

/// Looks again and again, for as long as it is polled.
pub(super) async fn run(tier: Arc<Tier>, wanted: Wanted) {
    let mut flaps = Flaps::default();
    let mut leading: Option<Leading> = None;
    loop {
        tokio::time::sleep(ms(LOOK_EVERY_MS)).await;
        let (members, _) = tier.index.members();
        flaps.update(tier.now_ms(), members.iter().map(|member| (member.id, member.up)));
        let chooses = members.iter().any(|member| member.auto);
        if !tier.raft.is_leader() || !chooses {
            leading = None;
            show(&tier, None);
            continue;
        }
        let leading = leading.get_or_insert_with(|| Leading {
            selection: Selection::new(wanted),
            uptimes: HashMap::new(),
            last_change: None,
        });
        look(&tier, wanted, leading, (&members, &mut flaps)).await;
    }
}

async fn look(
    tier: &Tier,
    wanted: Wanted,
    leading: &mut Leading,
    (members, flaps): (&[Member], &mut Flaps),
) {
    let state = tier.raft.state();
    let in_tier = |id: NodeId| state.voters.contains(&id) || state.learners.contains(&id);
    let others = members.iter().filter(|m| m.role == Role::Super && m.up && m.id != tier.me());
    let others: Vec<Member> = others.filter(|member| in_tier(member.id)).cloned().collect();
    let reports = standbys::gather(tier, &others).await;
    for (id, report) in &reports {
        let uptime_ms = report.capability.uptime_ms;
        if leading.uptimes.insert(*id, uptime_ms).is_some_and(|before| uptime_ms < before) {
            flaps.restarted(tier.now_ms(), *id);
        }
    }
    leading.uptimes.retain(|id, _| reports.contains_key(id));
    let sight = Sight { tier, state: &state, reports: &reports, flaps };
    let candidates = sight.candidates(members);
    let now_ms = tier.now_ms();
    let quorum = sight.has_quorum();
    let seen = Situation { now_ms, me: tier.me(), quorum, candidates: &candidates };
    let action = leading.selection.decide(&seen);
    if quorum {
        remind(tier, members, &state, &reports).await;
        carry_out(tier, leading, members, action).await;
        tidy(tier, members, &state, action).await;
    }
    let rate = |c: &Candidate| (c.id, score(&c.capability, &c.stability));
    show(
        tier,
        Some(Selected {
            wanted: wanted.voters,
            voters: tier.raft.state().voters.len(),
            why: action.why().text(),
            scores: candidates.iter().filter(|c| !c.pinned).map(rate).collect(),
            last_change: leading.last_change.clone(),
        }),
    );
}

fn show(tier: &Tier, selected: Option<Selected>) {
    let gauge = |count: Option<usize>| i64::try_from(count.unwrap_or_default()).unwrap_or(i64::MAX);
    let metrics = &tier.metrics;
    metrics.selection_wanted.set(gauge(selected.as_ref().map(|selected| selected.wanted)));
    metrics.selection_voters.set(gauge(selected.as_ref().map(|selected| selected.voters)));
    tier.selected.send_if_modified(|before| {
        let differs = *before != selected;
        *before = selected;
        differs
    });
}

/// What the leader sees at one moment.
struct Sight<'a> {
    tier: &'a Tier,
    state: &'a TierState,
    reports: &'a HashMap<NodeId, Report>,
    flaps: &'a Flaps,
}

impl Sight<'_> {
    fn has_quorum(&self) -> bool {
        let since = self.state.since_quorum(clock::monotonic());
        since.is_some_and(|since| since < ms(self.tier.timing.touch_ms()))
    }

    /// All who vote and all who could. A voter that the index has forgotten counts too.
    fn candidates(&self, members: &[Member]) -> Vec<Candidate> {
        let known =
            members.iter().filter(|member| member.auto || self.state.voters.contains(&member.id));
        let mut all: Vec<_> = known.map(|member| self.candidate(member)).collect();
        for id in &self.state.voters {
            if !all.iter().any(|candidate| candidate.id == *id) {
                all.push(self.stranger(*id));
            }
        }
        all
    }

    fn candidate(&self, member: &Member) -> Candidate {
        let id = member.id;
        let report = self.reports.get(&id);
        let voter = self.state.voters.contains(&id);
        let lease_ms = self.tier.timing.lease_ms();
        let reports = report.is_some_and(|report| report.silent_ms < lease_ms / 2);
        let stays = member.auto && !member.draining;
        let eligible = stays && reports && !self.state.held_back.contains(&id);
        Candidate {
            zone: member.zone.clone(),
            capability: report.map(capability).unwrap_or_default(),
            stability: self.stability(id, report),
            up: if voter { self.is_heard(id) } else { member.up && reports },
            caught_up: self.state.learners.contains(&id) && self.is_heard(id),
            eligible,
            pinned: !member.auto,
            voter,
            id,
        }
    }

    fn stranger(&self, id: NodeId) -> Candidate {
        Candidate {
            id,
            zone: String::new(),
            capability: Capability::default(),
            stability: Stability::default(),
            up: self.is_heard(id),
            caught_up: false,
            voter: true,
            eligible: false,
            pinned: false,
        }
    }

    fn stability(&self, id: NodeId, report: Option<&Report>) -> Stability {
        let beat_ms = u64::from(self.tier.timing.heartbeat_ms).max(1);
        let missed = report.map_or(0, |report| (report.silent_ms / beat_ms).saturating_sub(1));
        Stability {
            uptime_ms: report.map_or(0, |report| report.capability.uptime_ms),
            flaps: self.flaps.count(id),
            missed_heartbeats: u32::try_from(missed).unwrap_or(u32::MAX),
        }
    }

    /// Whether the consensus of a super-node answered lately.
    fn is_heard(&self, id: NodeId) -> bool {
        let lately = ms(self.tier.timing.touch_ms());
        id == self.tier.me() || self.state.silence(id, clock::monotonic()) < lately
    }
}

fn capability(report: &Report) -> Capability {
    let v1::Capability { cores, memory_bytes, disk_free_bytes, bandwidth_bytes_s, .. } =
        report.capability;
    Capability { cores, memory_bytes, disk_free_bytes, bandwidth_bytes_s }
}

/// Tells nodes that run a super-node without a place in the tier, and those that have one without
/// running it, until it is right.
async fn remind(
    tier: &Tier,
    members: &[Member],
    state: &TierState,
    reports: &HashMap<NodeId, Report>,
) {
    let reminded = members.iter().filter(|member| member.auto).filter_map(|member| {
        let placed = state.voters.contains(&member.id) || state.learners.contains(&member.id);
        let runs = reports.get(&member.id)?.capability.super_runs;
        (placed != runs).then(|| tell(tier, member, placed, REMIND_DEADLINE_MS))
    });
    for told in futures::future::join_all(reminded).await {
        if let Err(error) = told {
            tracing::debug!(%error, "a node could not be told what it is to be");
        }
    }
}

/// Tells a node whether it is to run a super-node; whether it does.
async fn tell(
    tier: &Tier,
    member: &Member,
    super_node: bool,
    deadline_ms: u64,
) -> Result<bool, RpcError> {
    let channel = tier.channels.to(&member.cluster_address, &member.name)?;
    let term = tier.raft.state().term;
    let request = v1::BecomeRequest { node_id: tier.info.node_id, term, super_node };
    let mut client = StandbyClient::new(channel);
    Ok(with_deadline(ms(deadline_ms), client.r#become(request)).await?.runs)
}

async fn carry_out(tier: &Tier, leading: &mut Leading, members: &[Member], action: Action) {
    let (kind, into, out, why) = match action {
        Action::Promote(id, why) => ("promote", Some(id), None, why),
        Action::Replace { out, into, why } => ("replace", Some(into), Some(out), why),
        Action::Demote(id, why) => ("demote", None, Some(id), why),
        Action::Wait(_) => return,
    };
    let name = |id: Option<NodeId>| {
        let member = id.and_then(|id| members.iter().find(|member| member.id == id));
        member.map_or_else(String::new, |member| member.name.clone())
    };
    tracing::info!(kind, into = name(into), out = name(out), why = why.text(), "choosing voters");
    let done = match (into, out) {
        (Some(into), out) => take_in(tier, members, into, out).await,
        (None, Some(out)) => tier.raft.dismiss(out, ms(WRITE_DEADLINE_MS)).await,
        (None, None) => return,
    };
    let now_ms = tier.now_ms();
    match done {
        Ok(_) => {
            leading.selection.changed(now_ms);
            tier.metrics.selection_changes.with_label_values(&[kind]).inc();
            let (why, unix_ms) = (why.text(), clock::unix_ms());
            leading.last_change = Some(LastChange { kind, into, out, why, unix_ms });
        }
        Err(error) => {
            tracing::warn!(kind, %error, "the tier was not changed");
            if let Some(into) = into {
                leading.selection.failed(now_ms, into);
            }
        }
    }
}

/// A chosen node starts its super-node, catches up, and gets its vote.
async fn take_in(
    tier: &Tier,
    members: &[Member],
    into: NodeId,
    out: Option<NodeId>,
) -> Result<u64, RpcError> {
    let unknown = || RpcError::new(ErrorKind::Retry, "the chosen node is no member any more");
    let member = members.iter().find(|member| member.id == into).ok_or_else(unknown)?;
    let starts = async {
        while !tell(tier, member, true, RPC_DEADLINE_MS).await? {}
        Ok::<_, RpcError>(())
    };
    let late = |_| RpcError::new(ErrorKind::Retry, "the chosen node did not start in time");
    tokio::time::timeout(ms(START_DEADLINE_MS), starts).await.map_err(late)??;
    let info = v1::NodeInfo { role: v1::Role::Super.into(), ..member.into() };
    tier.raft.choose(&info, out, ms(WRITE_DEADLINE_MS)).await
}

/// A learner that was not made a voter in the end gives its place back.
async fn tidy(tier: &Tier, members: &[Member], state: &TierState, action: Action) {
    let left_over = members.iter().find(|member| {
        let learner = state.learners.contains(&member.id);
        member.auto && learner && !state.held_back.contains(&member.id)
    });
    if action == Action::Wait(Why::Settled)
        && let Some(member) = left_over
        && let Err(error) = tier.raft.dismiss(member.id, ms(WRITE_DEADLINE_MS)).await
    {
        tracing::debug!(%error, name = member.name, "a learner could not be let go");
    }
}
