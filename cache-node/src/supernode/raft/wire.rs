//! The consensus library's types, and the only conversions between them and our messages. On disk
//! and on the wire everything is ours, so that the library can change without touching data.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use openraft::alias::{EntryOf, LogIdOf, SnapshotMetaOf, StoredMembershipOf, VoteOf};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use openraft::vote::leader_id_std::CommittedLeaderId;
use openraft::{EntryPayload, Membership};
use shoal_proto::wire::{WireError, v1};

openraft::declare_raft_types!(
    pub(super) Types:
        D = Batch,
        R = Vec<v1::CommandReply>,
        Node = v1::RaftNode,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
);

pub(super) type LogId = LogIdOf<Types>;
pub(super) type Vote = VoteOf<Types>;
pub(super) type Entry = EntryOf<Types>;
pub(super) type Members = Membership<u64, v1::RaftNode>;
pub(super) type StoredMembers = StoredMembershipOf<Types>;
pub(super) type Meta = SnapshotMetaOf<Types>;

/// One entry's commands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Batch(pub(super) v1::CommandBatch);

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands", self.0.commands.len())
    }
}

pub(super) fn log_id_to(id: LogId) -> v1::LogId {
    v1::LogId { term: id.leader_id.term, index: id.index }
}

pub(super) fn log_id_from(id: v1::LogId) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(id.term), index: id.index }
}

pub(super) fn vote_to(vote: &Vote) -> v1::Vote {
    v1::Vote {
        term: vote.leader_id.term,
        node_id: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(super) fn vote_from(vote: v1::Vote) -> Vote {
    match vote.committed {
        true => Vote::new_committed(vote.term, vote.node_id),
        false => Vote::new(vote.term, vote.node_id),
    }
}

/// A message's vote, which it must have.
pub(super) fn some_vote(vote: Option<v1::Vote>) -> Result<Vote, WireError> {
    vote.map(vote_from).ok_or_else(|| missing("vote"))
}

fn missing(field: &'static str) -> WireError {
    WireError::field(field, "missing", "a value")
}

pub(super) fn members_to(members: &Members) -> v1::Membership {
    let ids = |set: &BTreeSet<u64>| v1::NodeIds { node_ids: set.iter().copied().collect() };
    v1::Membership {
        configs: members.get_joint_config().iter().map(ids).collect(),
        nodes: members.nodes().map(|(id, node)| (*id, node.clone())).collect(),
    }
}

pub(super) fn members_from(wire: v1::Membership) -> Result<Members, WireError> {
    let configs = wire.configs.into_iter().map(|set| set.node_ids.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, v1::RaftNode> = wire.nodes;
    Members::new(configs, nodes)
        .map_err(|error| WireError::field("membership", error, "non-empty sets of known nodes"))
}

pub(super) fn entry_to(entry: Entry) -> v1::LogEntry {
    use v1::log_entry::Payload;
    let payload = match entry.payload {
        EntryPayload::Blank => Payload::Blank(v1::Blank {}),
        EntryPayload::Normal(batch) => Payload::Commands(batch.0),
        EntryPayload::Membership(members) => Payload::Membership(members_to(&members)),
    };
    v1::LogEntry { log_id: Some(log_id_to(entry.log_id)), payload: Some(payload) }
}

/// Whether bytes are an entry of the log; for probes.
pub fn is_entry(bytes: &[u8]) -> bool {
    let wire = <v1::LogEntry as prost::Message>::decode(bytes).ok();
    wire.and_then(|wire| entry_from(wire).ok()).is_some()
}

pub(super) fn entry_from(wire: v1::LogEntry) -> Result<Entry, WireError> {
    use v1::log_entry::Payload;
    let log_id = wire.log_id.map(log_id_from).ok_or_else(|| missing("log_id"))?;
    let payload = match wire.payload.ok_or_else(|| missing("payload"))? {
        Payload::Blank(_) => EntryPayload::Blank,
        Payload::Commands(batch) => EntryPayload::Normal(Batch(batch)),
        Payload::Membership(members) => EntryPayload::Membership(members_from(members)?),
    };
    Ok(Entry { log_id, payload })
}

pub(super) fn append_to(request: AppendEntriesRequest<Types>) -> v1::AppendRequest {
    v1::AppendRequest {
        vote: Some(vote_to(&request.vote)),
        previous: request.prev_log_id.map(log_id_to),
        entries: request.entries.into_iter().map(entry_to).collect(),
        committed: request.leader_commit.map(log_id_to),
    }
}

pub(super) fn append_from(
    wire: v1::AppendRequest,
) -> Result<AppendEntriesRequest<Types>, WireError> {
    Ok(AppendEntriesRequest {
        vote: some_vote(wire.vote)?,
        prev_log_id: wire.previous.map(log_id_from),
        entries: wire.entries.into_iter().map(entry_from).collect::<Result<_, _>>()?,
        leader_commit: wire.committed.map(log_id_from),
    })
}

pub(super) fn appended_to(reply: AppendEntriesResponse<Types>) -> v1::AppendReply {
    use v1::append_reply::Result;
    let result = match reply {
        AppendEntriesResponse::Success => Result::Success(v1::Blank {}),
        AppendEntriesResponse::PartialSuccess(None) => Result::PartialEmpty(v1::Blank {}),
        AppendEntriesResponse::PartialSuccess(Some(id)) => Result::PartialSuccess(log_id_to(id)),
        AppendEntriesResponse::Conflict => Result::Conflict(v1::Blank {}),
        AppendEntriesResponse::HigherVote(vote) => Result::HigherVote(vote_to(&vote)),
    };
    v1::AppendReply { result: Some(result) }
}

pub(super) fn appended_from(
    wire: v1::AppendReply,
) -> Result<AppendEntriesResponse<Types>, WireError> {
    use v1::append_reply::Result;
    Ok(match wire.result.ok_or_else(|| missing("result"))? {
        Result::Success(_) => AppendEntriesResponse::Success,
        Result::PartialEmpty(_) => AppendEntriesResponse::PartialSuccess(None),
        Result::PartialSuccess(id) => AppendEntriesResponse::PartialSuccess(Some(log_id_from(id))),
        Result::Conflict(_) => AppendEntriesResponse::Conflict,
        Result::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote_from(vote)),
    })
}

pub(super) fn vote_request_to(request: &VoteRequest<Types>) -> v1::VoteRequest {
    v1::VoteRequest {
        vote: Some(vote_to(&request.vote)),
        last_log_id: request.last_log_id.map(log_id_to),
        leader_transfer: request.leadership_transfer,
    }
}

pub(super) fn vote_request_from(wire: v1::VoteRequest) -> Result<VoteRequest<Types>, WireError> {
    let last_log_id = wire.last_log_id.map(log_id_from);
    let mut request = VoteRequest::new(some_vote(wire.vote)?, last_log_id);
    request.leadership_transfer = wire.leader_transfer;
    Ok(request)
}

pub(super) fn vote_reply_to(reply: &VoteResponse<Types>) -> v1::VoteReply {
    v1::VoteReply {
        vote: Some(vote_to(&reply.vote)),
        granted: reply.vote_granted,
        last_log_id: reply.last_log_id.map(log_id_to),
    }
}

pub(super) fn vote_reply_from(wire: v1::VoteReply) -> Result<VoteResponse<Types>, WireError> {
    let last_log_id = wire.last_log_id.map(log_id_from);
    Ok(VoteResponse::new(some_vote(wire.vote)?, last_log_id, wire.granted))
}

pub(super) fn meta_to(meta: &Meta) -> v1::AppliedState {
    v1::AppliedState {
        last_log_id: meta.last_log_id.map(log_id_to),
        membership_log_id: meta.last_membership.log_id().map(log_id_to),
        membership: Some(members_to(meta.last_membership.membership())),
    }
}

pub(super) fn meta_from(wire: v1::AppliedState) -> Result<Meta, WireError> {
    let members = members_from(wire.membership.ok_or_else(|| missing("membership"))?)?;
    let since = wire.membership_log_id.map(log_id_from);
    Ok(Meta {
        last_log_id: wire.last_log_id.map(log_id_from),
        last_membership: StoredMembers::new(since, members),
    })
}
