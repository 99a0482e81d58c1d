//! Three super-nodes in one process over loopback TCP with mutual TLS.

mod catching_up;
mod cluster;
mod crash;
mod damage;
mod decoders;
mod membership;
mod snapshots;
mod storage;

use std::time::Duration;

use shoal_proto::wire::v1;
use shoal_proto::{ErrorKind, NodeId};

use self::cluster::{Cluster, SuperNode};
use super::Compaction;

const PATIENCE: Duration = Duration::from_secs(30);
/// A super-node that was silent for so long may be replaced by its namesake.
const ABSENCE: Duration = Duration::from_secs(2);

/// The name by which the effect of [`commands`] is found in the state, whatever the index makes of it.
fn mark(tag: u64) -> String {
    format!("member-{tag:04}")
}

fn commands(tag: u64) -> v1::CommandBatch {
    let node = v1::NodeInfo {
        node_id: 1_000 + tag,
        name: mark(tag),
        role: v1::Role::Node.into(),
        ..Default::default()
    };
    let put = v1::PutMember { node: Some(node), session_id: 1, super_node_id: 1 };
    let command = v1::Command { command: Some(v1::command::Command::PutMember(put)) };
    v1::CommandBatch { commands: vec![command] }
}

/// Proposes at `at` and returns the position.
async fn propose(at: &SuperNode, tag: u64) -> u64 {
    let proposed = at.raft.propose(commands(tag), PATIENCE).await.unwrap();
    assert_eq!(proposed.replies.len(), 1);
    proposed.position
}

/// Waits until `at` has applied `position`, and checks what stands there.
async fn holds(at: &SuperNode, position: u64, tag: u64) {
    at.raft.wait_applied(position, PATIENCE).await.unwrap();
    assert!(at.raft.inner.state.contains(&mark(tag)), "{} at {position}", at.info.name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tier_outlives_its_leader() {
    let cluster = Cluster::new(Compaction::default());
    let [one, mut two, mut three] = cluster.three().await;
    assert!(one.raft.is_leader());

    // Any super-node takes proposals; all apply them.
    for (tag, at) in [&one, &two, &three].into_iter().enumerate() {
        let position = propose(at, tag as u64).await;
        for each in [&one, &two, &three] {
            holds(each, position, tag as u64).await;
        }
    }
    // Joining again changes nothing; joining elsewhere names the leader.
    one.raft.join(two.info.clone(), ABSENCE, PATIENCE).await.unwrap();
    let redirect = two.raft.join(three.info.clone(), ABSENCE, PATIENCE).await.unwrap_err();
    assert_eq!(redirect.kind, ErrorKind::Redirect);
    assert_eq!(redirect.address, one.info.cluster_address);

    // The leader is lost: the others agree on a new one and go on.
    let (name, id) = (one.info.name.clone(), one.info.node_id);
    let proposals = async {
        let mut position = 0;
        for tag in 10..40 {
            position = propose(&two, tag).await;
        }
        position
    };
    let (data, position) = tokio::join!(one.kill(), proposals);
    for tag in 10..40 {
        holds(&two, position, tag).await;
        holds(&three, position, tag).await;
    }
    assert_ne!(two.raft.state().leader, Some(NodeId(id)));
    // They found its door closed, and did not wait for its lease to run out.
    let found = |at: &SuperNode| at.raft.inner.metrics.lost_leaders.get();
    assert!(found(&two) + found(&three) > 0);

    // It comes back elsewhere and catches up; what it reads is what the others wrote.
    let one = cluster.start(&name, id, data, false).await;
    for other in [&mut two, &mut three] {
        other.raft.learn_address(&one.info);
        one.raft.learn_address(&other.info);
    }
    holds(&one, position, 39).await;
    let position = propose(&one, 40).await;
    assert!(two.raft.read_barrier(PATIENCE).await.unwrap() >= position);
    holds(&two, position, 40).await;

    // A graceful stop hands the lead over.
    let nodes = [one, two, three];
    let leader = nodes.iter().find(|node| node.raft.is_leader()).unwrap();
    leader.raft.transfer_leader_away().await.unwrap();
    assert!(!leader.raft.is_leader());
    for node in nodes {
        node.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_member_starts_from_a_snapshot() {
    let cluster = Cluster::new(Compaction { every: 20, keep: 0, lag: 40, ..Default::default() });
    let one = cluster.start("one", 1, cluster.directory(), true).await;
    let mut first = None;
    for tag in 0..64 {
        let position = propose(&one, tag).await;
        first.get_or_insert(position);
    }
    let first = first.unwrap();
    // Its log no longer reaches back to the first batch.
    let wait = one.raft.inner.core.wait(Some(PATIENCE));
    wait.metrics(|m| m.purged.is_some_and(|id| id.index >= first), "purge").await.unwrap();

    let two = cluster.start("two", 2, cluster.directory(), false).await;
    two.raft.learn_address(&one.info);
    one.raft.join(two.info.clone(), ABSENCE, PATIENCE).await.unwrap();
    holds(&two, first, 0).await;
    let position = propose(&two, 100).await;
    holds(&two, position, 100).await;
    assert_eq!(two.raft.state().voters.len(), 2);

    // The installed state is there after a restart.
    let data = two.kill().await;
    let two = cluster.start("two", 2, data, false).await;
    two.raft.learn_address(&one.info);
    one.raft.learn_address(&two.info);
    holds(&two, first, 0).await;
    holds(&two, propose(&two, 101).await, 101).await;
    two.kill().await;
    one.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_refused() {
    let cluster = Cluster::new(Compaction::default());
    let one = cluster.start("one", 1, cluster.directory(), true).await;
    let position = propose(&one, 1).await;
    let ask = v1::ReadPositionRequest { node_id: 1 };

    // The member itself is answered.
    let mut own = cluster.client(&one, "one");
    assert_eq!(own.read_position(ask).await.unwrap().into_inner().position, position);
    // It does not answer for anybody else, not for who was at this address before it either.
    let meant = cluster.client_of(&one, "one", 7).read_position(ask).await.unwrap_err();
    assert_eq!(meant.code(), tonic::Code::PermissionDenied, "{meant:?}");
    // Another member of the same cluster cannot speak for it, nor one that is not in the tier.
    let mut other = cluster.client(&one, "other");
    for node_id in [1, 2] {
        let refused = other.read_position(v1::ReadPositionRequest { node_id }).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused:?}");
        let vote = Some(v1::Vote { term: 99, node_id, committed: true });
        let append = v1::AppendRequest { vote, ..Default::default() };
        let refused = other.append(append).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused:?}");
    }
    assert!(one.raft.state().term < 99);
    // Nobody under another authority gets as far as asking.
    let foreign = Cluster::new(Compaction::default());
    assert!(foreign.client(&one, "one").read_position(ask).await.is_err());
    one.kill().await;
}
