//! What the nodes with a session here that could be super-nodes have: kept as their heartbeats
//! bring it, told to the leader when it asks.
//!
//! Soft: a report is forgotten when its node has been silent for some leases.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use futures::future::join_all;
use shoal_proto::limits::{MEMBERS_MAX, RPC_DEADLINE_MS};
use shoal_proto::wire::v1;
use shoal_proto::wire::v1::index_client::IndexClient;
use shoal_proto::{NodeId, RpcError};

use super::checks;
use super::tier::{Tier, ms};
use crate::membership::Member;
use crate::rpc::with_deadline;

/// A node that has been silent for so many leases is forgotten.
const FORGET_LEASES: u64 = 4;
/// For one super-node to answer, in milliseconds.
const ASK_DEADLINE_MS: u64 = RPC_DEADLINE_MS / 2;

/// What a node said of itself, and how long ago.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Report {
    pub(super) capability: v1::Capability,
    pub(super) silent_ms: u64,
}

/// The reports of the nodes with a session here.
#[derive(Debug, Default)]
pub(super) struct Reports {
    heard: Mutex<HashMap<NodeId, (v1::Capability, u64)>>,
}

impl Reports {
    /// A node's heartbeat brought this.
    pub(super) fn heard(&self, now_ms: u64, id: NodeId, capability: v1::Capability) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.len() < MEMBERS_MAX || heard.contains_key(&id) {
            heard.insert(id, (capability, now_ms));
        }
    }

    fn told(&self, now_ms: u64, forget_ms: u64) -> Vec<v1::StandbyReport> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.retain(|_, (_, at)| now_ms.saturating_sub(*at) < forget_ms);
        let report = |(id, (capability, at)): (&NodeId, &(v1::Capability, u64))| {
            let silent_ms = now_ms.saturating_sub(*at);
            v1::StandbyReport { node_id: id.0, capability: Some(*capability), silent_ms }
        };
        heard.iter().map(report).collect()
    }
}

/// What this super-node tells the leader.
pub(super) fn told(tier: &Tier) -> Vec<v1::StandbyReport> {
    tier.reports.told(tier.now_ms(), FORGET_LEASES * tier.timing.lease_ms())
}

/// Everybody's reports, the newest where a node has moved from one super-node to another.
pub(super) async fn gather(tier: &Tier, members: &[Member]) -> HashMap<NodeId, Report> {
    let asked = members.iter().map(|member| ask(tier, member));
    let mut all: HashMap<NodeId, Report> = HashMap::new();
    for answer in join_all(asked).await.into_iter().chain([Ok(told(tier))]) {
        let reports = match answer {
            Ok(reports) => reports,
            Err(error) => {
                tracing::debug!(%error, "a super-node does not tell of its standbys");
                continue;
            }
        };
        for v1::StandbyReport { node_id, capability, silent_ms } in reports {
            let Some(capability) = capability else { continue };
            let report = Report { capability, silent_ms };
            let newest = all.entry(NodeId(node_id)).or_insert_with(|| report.clone());
            if report.silent_ms < newest.silent_ms {
                *newest = report;
            }
        }
    }
    all
}

async fn ask(tier: &Tier, member: &Member) -> Result<Vec<v1::StandbyReport>, RpcError> {
    let channel = tier.channels.to(&member.cluster_address, &member.name)?;
    let request = v1::StandbysRequest { node_id: tier.info.node_id };
    let mut client = IndexClient::new(channel);
    let reply = with_deadline(ms(ASK_DEADLINE_MS), client.standbys(request)).await?;
    Ok(checks::standbys(reply)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_report_counts_until_it_is_old() {
        let reports = Reports::default();
        let with = |cores| v1::Capability { cores, ..Default::default() };
        reports.heard(10, NodeId(1), with(2));
        reports.heard(20, NodeId(1), with(4));
        let told = reports.told(50, 100);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].silent_ms, told[0].capability.map(|c| c.cores)), (30, Some(4)));
        assert!(reports.told(120, 100).is_empty());
    }
}
