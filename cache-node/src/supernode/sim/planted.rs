//! Bugs that the simulation must find: each is one that a super-node, a node or a rule between them
//! could really have. A run plants at most one.
//!
//! Not here: bugs that another rule makes up for, or that take more than the seeds of a test to show.
//! A head that is published past a fence serves nobody (nodes hold fences against manifests too), nor
//! does a home that answers out of touch (its word counts under a session lease alone); a lease that
//! is counted from its receipt, or vouched for a little too long, ends within what a purge waits for
//! in nearly every history.

/// All of them, each with the invariants that may catch it.
pub(super) const ALL: [(Planted, &[&str]); 15] = [
    (Planted::AppendNotSynced, &[DURABLE, "leader completeness", MACHINE, INDEX, IMMUTABLE]),
    (
        Planted::VoteNotSynced,
        &[
            "a vote is durable before it is given",
            "one vote a term",
            "election safety",
            "terms only grow",
        ],
    ),
    (Planted::LeaderRestored, &["log matching", MACHINE, IMMUTABLE, INDEX]),
    (Planted::ApplyTorn, &[MACHINE, INDEX, PURGE, SITES, "a member may announce"]),
    (Planted::SnapshotWithoutFences, &[MACHINE, PURGE]),
    (Planted::StaleRead, &[INDEX, PURGE, SITES]),
    (Planted::AckBeforeCommit, &[INDEX, PURGE, SITES]),
    (Planted::PurgeForgetsOne, &[PURGE]),
    (Planted::PurgeForgetsFormer, &[PURGE]),
    (Planted::PurgeWithoutOthers, &[PURGE]),
    (Planted::ShadowForgotten, &["one lease a key at a home", "at most one fill"]),
    (Planted::TrustWithoutLease, &[PURGE]),
    (Planted::AckWithoutFences, &[PURGE]),
    (Planted::ReusedNodeId, &[DURABLE, "one vote a term", "no panic", "election safety", INDEX]),
    (Planted::LeaveUnguarded, &["a change of members leaves a quorum"]),
];

const DURABLE: &str = "committed is durable on a quorum";
const IMMUTABLE: &str = "committed is immutable";
const MACHINE: &str = "state machine safety";
const INDEX: &str = "index is linearizable";
const SITES: &str = "sites are linearizable";
const PURGE: &str = "purge is linearizable";

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::supernode) enum Planted {
    /// Entries are reported durable before they are.
    AppendNotSynced,
    /// A vote is given before it is durable.
    VoteNotSynced,
    /// A leader that lost its power leads on in the same term.
    LeaderRestored,
    /// The position applied is durable without what was applied.
    ApplyTorn,
    /// An installed snapshot has everything but the fences.
    SnapshotWithoutFences,
    /// A read is served from what is applied here, whatever was committed.
    StaleRead,
    /// A batch that was proposed is taken for committed.
    AckBeforeCommit,
    /// A purge does not wait for the last of its sessions.
    PurgeForgetsOne,
    /// A purge does not wait for members that may trust an earlier life of a super-node.
    PurgeForgetsFormer,
    /// A purge does not ask the other super-nodes.
    PurgeWithoutOthers,
    /// The second home forgets a lease that it was told of.
    ShadowForgotten,
    /// A node trusts what it has after its session lease has run out.
    TrustWithoutLease,
    /// A node acknowledges fences that it did not take in.
    AckWithoutFences,
    /// A super-node that lost its disk comes back under its old id.
    ReusedNodeId,
    /// A voter is taken out though those who are left are no quorum.
    LeaveUnguarded,
}
