//! What is asked of the directory, what it answers, and the same as messages.

use std::sync::Arc;

use shoal_proto::wire::{self, v1};
use shoal_proto::{
    ClusterId, ErrorKind, LeaseId, Manifest, ManifestId, NodeId, ObjectId, ObjectKey, RpcError,
};
use tokio::sync::watch;

use crate::membership::{Member, Role};

/// How a node finds the tier.
#[derive(Clone, Debug)]
pub struct DirectoryConfig {
    /// The cluster that both sides must belong to.
    pub cluster: ClusterId,
    /// This node, as it introduces itself.
    pub me: v1::NodeInfo,
    /// Addresses of super-nodes.
    pub seeds: Vec<String>,
    /// No fence up to here covers anything that the store holds; see
    /// [`super::Directory::end_pass`].
    pub fence_position: u64,
    /// What this node is at any time: a change begins another session.
    pub role: watch::Receiver<Role>,
}

/// What a home answers to a node that wants a key.
#[derive(Clone, Debug)]
pub enum Acquired {
    /// Somebody has it.
    Have {
        /// Its head in the index.
        head: v1::IndexHead,
        /// Who has it.
        holders: Vec<Member>,
        /// The index held all fences up to here against it; 0 where the index was not asked.
        fence_position: u64,
    },
    /// Somebody fetches it.
    Follow {
        /// The fill's lease.
        lease: LeaseId,
        /// Who.
        filler: Member,
    },
    /// This node is to fetch it.
    Fill(Lease),
    /// Its responses could not be stored lately: everybody asks the origin for himself.
    Pass,
}

/// The right and the duty to fetch a key from its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its number.
    pub id: LeaseId,
    /// Fences from here on hold against the fill.
    pub fence_position: u64,
    /// Who gave it, and is to be told of its end.
    pub giver: Giver,
}

/// Who gives leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Giver {
    /// The key's home super-node.
    Tier,
    /// The key's home node, while no super-node answers.
    Node,
}

/// What the local store holds of a key.
pub type HeldHere = Arc<dyn Fn(&ObjectKey) -> Option<ObjectId> + Send + Sync>;

/// The sites that a node answers requests by, as the tier knows them.
#[derive(Clone)]
pub struct SitesHere {
    /// The revision that the node begins with; 0 for none.
    pub revision: u64,
    /// Takes others in; whether the node answers requests by all of them from here on. Must not
    /// wait.
    pub take: Arc<dyn Fn(v1::SiteTable) -> bool + Send + Sync>,
}

/// What a directory asks of the node that it belongs to.
#[derive(Clone)]
pub struct Local {
    /// The node's figures, for the tier.
    pub stats: Arc<dyn Fn() -> v1::NodeStats + Send + Sync>,
    /// The object that the store holds of a key.
    pub held: HeldHere,
    /// Its sites.
    pub sites: SitesHere,
}

/// What the asker already knows about a key.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The manifest that it has and found stale.
    pub stale: Option<ManifestId>,
    /// The filler that it lost, and that filler's lease.
    pub suspect: Option<(NodeId, LeaseId)>,
    /// Holders that could not give it the object.
    pub failed: Vec<NodeId>,
    /// Fills that began before this position are of no use to it: a fence covers them.
    pub since: u64,
}

pub(super) fn index_head(manifest: &Manifest, publisher: NodeId) -> v1::IndexHead {
    let head = manifest.head();
    v1::IndexHead {
        key: head.key.to_wire(),
        object_id: manifest.object_id().to_wire(),
        manifest_id: manifest.id().to_wire(),
        site: head.site.clone(),
        length: manifest.length(),
        chunk_count: manifest.chunk_count(),
        fresh_until_ms: head.freshness.fresh_until_ms(),
        fence_position: head.fence_position,
        publisher_node_id: publisher.0,
        labels: wire::labels_to_wire(&head.labels),
    }
}

/// What `giver` answers, from a state that knows all fences up to a position.
pub(super) fn read_answer(
    reply: v1::AcquireReply,
    (giver, fence_position): (Giver, u64),
) -> Result<Acquired, RpcError> {
    use v1::acquire_reply::Answer;
    let missing = |what: &str| RpcError::new(ErrorKind::Bug, format!("an answer without {what}"));
    let member = |info: v1::NodeInfo| {
        let up = v1::MemberState::Up.into();
        Member::try_from(v1::Member { info: Some(info), state: up, voter: false })
    };
    match reply.answer.ok_or_else(|| missing("a kind"))? {
        Answer::Have(have) => {
            let head = have.head.ok_or_else(|| missing("a head"))?;
            let nodes = have.holders.into_iter().filter_map(|holder| holder.node);
            let holders = nodes.map(member).collect::<Result<Vec<_>, _>>()?;
            Ok(Acquired::Have { head, holders, fence_position })
        }
        Answer::Follow(follow) => {
            let filler = follow.filler.ok_or_else(|| missing("a filler"))?;
            Ok(Acquired::Follow { lease: LeaseId(follow.lease_id), filler: member(filler)? })
        }
        Answer::Fill(fill) => Ok(Acquired::Fill(Lease {
            id: LeaseId(fill.lease_id),
            fence_position: fill.fence_position,
            giver,
        })),
        Answer::Pass(_) => Ok(Acquired::Pass),
    }
}
