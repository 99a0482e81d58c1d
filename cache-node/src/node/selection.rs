//! PURE. How voters are chosen, put as the status document shows it.

use std::cmp::Reverse;

use shoal_proto::NodeId;

use crate::admin::{CandidateStatus, SelectionChange, SelectionStatus};
use crate::membership::ClusterView;
use crate::supernode::{LastChange, Selected, SuperNode};

/// What `node` chooses by; `None` while it does not lead.
pub(super) fn status(node: &SuperNode, view: &ClusterView) -> Option<SelectionStatus> {
    node.selected().borrow().as_ref().map(|selected| shown(selected, view))
}

fn shown(selected: &Selected, view: &ClusterView) -> SelectionStatus {
    let name =
        |id: NodeId| view.member(id).map_or_else(|| id.to_string(), |member| member.name.clone());
    let change = |change: &LastChange| SelectionChange {
        kind: change.kind.to_owned(),
        promoted: change.into.map(name),
        demoted: change.out.map(name),
        reason: change.why.to_owned(),
        at_ms: change.unix_ms,
    };
    let mut scores: Vec<_> = selected.scores.iter().map(|(id, score)| (*id, *score)).collect();
    scores.sort_by_key(|(id, score)| (Reverse(*score), *id));
    let votes = |id: NodeId| view.member(id).is_some_and(|member| member.voter);
    let candidate = |(id, score): (NodeId, i64)| CandidateStatus {
        name: name(id),
        node_id: id.to_string(),
        standing: if votes(id) { "voter" } else { "standby" }.to_owned(),
        score: score as f64 / 1_000.0,
    };
    SelectionStatus {
        wanted: selected.wanted,
        voters: selected.voters,
        state: selected.why.to_owned(),
        last_change: selected.last_change.as_ref().map(change),
        candidates: scores.into_iter().map(candidate).collect(),
    }
}
