//! The control calls about the tier's membership, answered by super-nodes: who is in it, and one
//! change of it.

use std::cmp::Reverse;

use http::Method;
use serde_json::Value;
use shoal_proto::wire::v1;
use shoal_proto::wire::v1::change_membership_reply::Outcome;
use shoal_proto::wire::v1::change_membership_request::Change as Asked;
use shoal_proto::{ClusterId, NodeId};
use tokio::sync::watch;

use crate::admin::tokens::Verb;
use crate::admin::{Call, Change, ChangeOrder, Changed, Control, ControlError};
use crate::admin::{MembersDocument, TierMember};
use crate::membership::{ClusterView, Role};
use crate::supernode::SuperNode;
use crate::supernode::raft::Mark;

/// What the calls need.
#[derive(Clone)]
pub(super) struct Members {
    pub(super) cluster_id: ClusterId,
    /// The super-node of this process, while it runs one.
    pub(super) node: watch::Receiver<Option<SuperNode>>,
    pub(super) view: watch::Receiver<ClusterView>,
}

impl Members {
    /// `control` with the calls.
    pub(super) fn add_to(self, control: Control) -> Control {
        let path = "/v1/members";
        let reading = self.clone();
        let control = control.with((Method::GET, path), Verb::Read, move |_: Call| {
            let members = reading.clone();
            async move { members.list().await }
        });
        control.with((Method::POST, path), Verb::Members, move |call| {
            let members = self.clone();
            async move { members.change(call).await }
        })
    }

    fn node(&self) -> Result<SuperNode, ControlError> {
        self.node.borrow().clone().ok_or_else(|| {
            ControlError::unavailable("this node is no super-node now", "ask a super-node")
        })
    }

    async fn list(&self) -> Result<Value, ControlError> {
        let node = self.node()?;
        let tier = node.members().await?;
        let generation = node.generation();
        let document = document(&self.cluster_id, &tier, &self.view.borrow(), generation);
        json(document)
    }

    async fn change(&self, call: Call) -> Result<Value, ControlError> {
        let ChangeOrder { expect, change } = call.read()?;
        let expected = expect.parse::<Mark>().map_err(|error| {
            ControlError::invalid(format!("expect: {error}"), "GET /v1/members says what it is")
        })?;
        let (change, node_id) = self.read(change).await?;
        tracing::info!(caller = call.caller(), ?change, "a change of the membership is asked for");
        let reply = self.node()?.change_membership(change, expected).await?;
        match reply.outcome {
            Some(Outcome::Position(position)) => {
                json(Changed { position, node_id: node_id.to_string() })
            }
            Some(Outcome::Refused(refusal)) => Err(refused(&refusal)),
            None => Err(ControlError::unavailable("no outcome", "look at `shoal members`")),
        }
    }

    /// The change in the tier's own words, and whom it is about.
    async fn read(&self, change: Change) -> Result<(Asked, NodeId), ControlError> {
        let whole =
            |make: fn(u64) -> Asked, text: &str| id(text).map(|node_id| (make(node_id.0), node_id));
        match change {
            Change::Add(address) => {
                let info = self.node()?.whois(&address).await?;
                let node_id = NodeId(info.node_id);
                if info.role() != v1::Role::Super {
                    let message = format!("{:?} at {address} is a node", info.name);
                    return Err(ControlError::conflict(message, "name a super-node's address"));
                }
                Ok((Asked::Add(info), node_id))
            }
            Change::Promote(text) => whole(Asked::Promote, &text),
            Change::Demote(text) => whole(Asked::Demote, &text),
            Change::Remove(text) => whole(Asked::Remove, &text),
            Change::Transfer(text) => whole(Asked::Transfer, &text),
            Change::Replace { old, new } => {
                let (old, new) = (id(&old)?, id(&new)?);
                let replace = v1::ReplaceVoter { old_node_id: old.0, new_node_id: new.0 };
                Ok((Asked::Replace(replace), new))
            }
        }
    }
}

fn json(document: impl serde::Serialize) -> Result<Value, ControlError> {
    serde_json::to_value(document)
        .map_err(|error| ControlError::unavailable(error.to_string(), "try again"))
}

fn id(text: &str) -> Result<NodeId, ControlError> {
    u64::from_str_radix(text, 16).map(NodeId).map_err(|_| {
        let message = format!("{text:?} is no id");
        ControlError::invalid(message, "send 16 hexadecimal digits, as GET /v1/members has them")
    })
}

fn refused(refusal: &v1::ChangeRefusal) -> ControlError {
    let whole = (refusal.message.as_str(), "look at `shoal members`");
    let (message, remedy) = refusal.message.split_once("; ").unwrap_or(whole);
    match refusal.rule.as_str() {
        _ if refusal.for_now => ControlError::unavailable(message, remedy),
        "unknown" => ControlError::not_found(message, remedy),
        _ => ControlError::conflict(message, remedy),
    }
}

/// The document: PURE.
fn document(
    cluster_id: &ClusterId,
    tier: &v1::MembersReply,
    view: &ClusterView,
    generation: u64,
) -> MembersDocument {
    let super_node = |member: &v1::TierMember| {
        let node = member.node.clone().unwrap_or_default();
        let known = member.matched_position > 0;
        TierMember {
            name: node.name,
            node_id: NodeId(member.node_id).to_string(),
            role: if member.voter { "voter" } else { "learner" }.to_owned(),
            held_back: node.held_back && !member.voter,
            state: state(member.up),
            leader: member.node_id == tier.leader_node_id,
            lag: known.then(|| tier.last_position.saturating_sub(member.matched_position)),
            silent_ms: member.silent_ms,
            cluster_address: node.cluster_address,
        }
    };
    let node = |member: &crate::membership::Member| TierMember {
        name: member.name.clone(),
        node_id: member.id.to_string(),
        role: "node".to_owned(),
        state: state(member.up),
        cluster_address: member.cluster_address.clone(),
        ..TierMember::default()
    };
    let nodes = view.members.iter().filter(|member| member.role == Role::Node);
    let mut members: Vec<_> = tier.members.iter().map(super_node).chain(nodes.map(node)).collect();
    members.sort_by_key(|m| (m.role == "node", m.name.clone(), Reverse(m.role.clone())));
    let leader = members.iter().find(|member| member.leader);
    MembersDocument {
        cluster_id: cluster_id.to_string(),
        membership: Mark::from(tier).to_string(),
        joint: tier.joint,
        leader: leader.map(|member| member.name.clone()).unwrap_or_default(),
        term: tier.term,
        last_position: tier.last_position,
        generation,
        members,
        removed: tier.retired_node_ids.iter().map(|id| NodeId(*id).to_string()).collect(),
    }
}

fn state(up: bool) -> String {
    if up { "up" } else { "down" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_says_who_is_what() {
        let member = |id, name: &str, voter: bool, matched| v1::TierMember {
            node_id: id,
            node: Some(v1::RaftNode {
                name: name.to_owned(),
                cluster_address: format!("{name}:7400"),
                held_back: !voter,
                auto: false,
            }),
            voter,
            up: matched > 0,
            matched_position: matched,
            silent_ms: (matched > 0).then_some(12),
        };
        let tier = v1::MembersReply {
            position: 412,
            hash: 0x9f3a_01bc,
            leader_node_id: 2,
            term: 4,
            last_position: 500,
            joint: false,
            members: vec![member(1, "s1", false, 0), member(2, "s0", true, 500)],
            retired_node_ids: vec![0xab],
        };
        let document = document(&"demo".parse().unwrap(), &tier, &ClusterView::default(), 1);
        assert_eq!((&document.membership[..], &document.leader[..]), ("412/9f3a01bc", "s0"));
        assert_eq!(document.removed, ["00000000000000ab"]);
        let [s0, s1] = &document.members[..] else { panic!("{document:?}") };
        assert!(s0.leader && s0.role == "voter" && s0.lag == Some(0) && !s0.held_back);
        assert!(s1.role == "learner" && s1.held_back && s1.state == "down" && s1.lag.is_none());
    }

    #[test]
    fn refusals_keep_their_remedy() {
        let refusal = |rule: &str, for_now| v1::ChangeRefusal {
            rule: rule.to_owned(),
            message: "a; b".to_owned(),
            for_now,
        };
        let cases = [("stale", false, 409), ("behind", true, 503), ("unknown", false, 404)];
        for (rule, for_now, status) in cases {
            let error = refused(&refusal(rule, for_now));
            assert_eq!(
                (error.status().as_u16(), &error.message[..], &error.remedy[..]),
                (status, "a", "b")
            );
        }
    }
}
