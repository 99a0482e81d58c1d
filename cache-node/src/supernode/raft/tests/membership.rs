//! Changes of the membership on three super-nodes and more, under load.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shoal_proto::wire::v1::change_membership_reply::Outcome;
use shoal_proto::wire::v1::change_membership_request::Change;
use shoal_proto::wire::v1::{self, ChangeRefusal};
use shoal_proto::{ErrorKind, NodeId};

use super::cluster::{Cluster, SuperNode};
use super::{ABSENCE, Compaction, PATIENCE, holds, propose};
use crate::clock;

async fn members(at: &SuperNode) -> v1::MembersReply {
    at.raft.members(PATIENCE).await.unwrap()
}

fn voters(members: &v1::MembersReply) -> Vec<u64> {
    members.members.iter().filter(|member| member.voter).map(|member| member.node_id).collect()
}

fn record(members: &v1::MembersReply, id: u64) -> v1::RaftNode {
    let found = members.members.iter().find(|member| member.node_id == id);
    found.and_then(|member| member.node.clone()).unwrap()
}

/// Asks once for `change` of the membership `seen`.
async fn ask(
    at: &SuperNode,
    seen: &v1::MembersReply,
    change: Change,
) -> Result<u64, ChangeRefusal> {
    let request = v1::ChangeMembershipRequest {
        node_id: 0,
        expected_position: seen.position,
        expected_hash: seen.hash,
        change: Some(change),
    };
    match at.raft.change_membership(request, PATIENCE).await.unwrap().outcome.unwrap() {
        Outcome::Position(position) => Ok(position),
        Outcome::Refused(refusal) => Err(refusal),
    }
}

/// Asks for `change` until it is made; any refusal that is not for now fails the test.
async fn change(at: &SuperNode, change: Change) -> u64 {
    let started = clock::monotonic();
    loop {
        match ask(at, &members(at).await, change.clone()).await {
            Ok(position) => return position,
            Err(refusal) => assert!(refusal.for_now || refusal.rule == "stale", "{refusal:?}"),
        }
        assert!(clock::since(started) < PATIENCE, "{change:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn leads(at: &SuperNode, id: u64) {
    let mut tier = at.raft.watch();
    let leads = tier.wait_for(|state| state.leader == Some(NodeId(id)));
    tokio::time::timeout(PATIENCE, leads).await.unwrap().unwrap();
}

/// Proposes at `at` one batch after the other until `stop`; how many, and the last position.
async fn load(at: &SuperNode, stop: &AtomicBool) -> (u64, u64) {
    let (mut count, mut position) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        position = propose(at, count).await;
        count += 1;
    }
    (count, position)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_is_made_under_load_and_nothing_is_lost() {
    let cluster = Cluster::new(Compaction::default());
    let [one, two, three] = cluster.three().await;
    let four = cluster.start("four", 4, cluster.directory(), false).await;
    four.raft.learn_address(&one.info);
    let stop = AtomicBool::new(false);
    let changes = async {
        let seen = members(&two).await;
        assert_eq!((voters(&seen), seen.leader_node_id, seen.joint), (vec![1, 2, 3], 1, false));
        change(&two, Change::Add(four.info.clone())).await;
        // What was seen before is stale now, and says what is.
        let stale = ask(&two, &seen, Change::Remove(2)).await.unwrap_err();
        let now = members(&two).await;
        let mark = format!("{}/{:08x}", now.position, now.hash);
        assert!(stale.rule == "stale" && stale.message.contains(&mark), "{stale:?}, now {mark}");
        assert_eq!(voters(&now), [1, 2, 3]);

        change(&two, Change::Promote(4)).await;
        assert_eq!(voters(&members(&three).await), [1, 2, 3, 4]);
        change(&four, Change::Demote(4)).await;
        let now = members(&three).await;
        assert_eq!((voters(&now), record(&now, 4).held_back), (vec![1, 2, 3], true));
        // Who is held back is not promoted by asking to be taken in.
        one.raft.join(four.info.clone(), ABSENCE, PATIENCE).await.unwrap();
        assert_eq!(voters(&members(&three).await), [1, 2, 3]);
        change(&two, Change::Replace(v1::ReplaceVoter { old_node_id: 2, new_node_id: 4 })).await;
        let now = members(&three).await;
        assert_eq!((voters(&now), &now.retired_node_ids[..]), (vec![1, 3, 4], &[2][..]));
        assert!(!record(&now, 4).held_back);

        change(&three, Change::Transfer(3)).await;
        leads(&four, 3).await;
        change(&four, Change::Transfer(1)).await;
        leads(&four, 1).await;
        // The leader hands that on before it leaves.
        change(&four, Change::Remove(1)).await;
        let now = members(&four).await;
        assert_eq!((voters(&now), &now.retired_node_ids[..]), (vec![3, 4], &[1, 2][..]));
        stop.store(true, Ordering::Relaxed);
    };
    let ((count, position), ()) = tokio::join!(load(&three, &stop), changes);
    assert!(count > 10, "{count} proposals only");
    for tag in 0..count {
        holds(&three, position, tag).await;
        holds(&four, position, tag).await;
    }
    // An id that was removed is refused wherever it asks.
    let refused = four.raft.join(two.info.clone(), ABSENCE, PATIENCE).await;
    let refused = match refused {
        Err(error) if error.kind == ErrorKind::Redirect => {
            three.raft.join(two.info.clone(), ABSENCE, PATIENCE).await.unwrap_err()
        }
        other => other.unwrap_err(),
    };
    assert!(refused.kind == ErrorKind::Denied && refused.message.contains("never taken back"));
    let mut ghost = cluster.client(&three, "two");
    let read = ghost.read_position(v1::ReadPositionRequest { node_id: 2 }).await.unwrap_err();
    assert_eq!(read.code(), tonic::Code::PermissionDenied, "{read:?}");
    for node in [one, two, three, four] {
        node.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_super_node_takes_its_former_place() {
    let cluster = Cluster::new(Compaction::default());
    let [one, two, three] = cluster.three().await;
    propose(&one, 1).await;
    let old = three.kill().await;
    let three = cluster.start("three", 33, cluster.directory(), false).await;
    three.raft.learn_address(&one.info);
    let early = one.raft.join(three.info.clone(), PATIENCE, PATIENCE).await.unwrap_err();
    assert!(early.kind == ErrorKind::Denied && early.message.contains("stop that one"), "{early}");
    assert_eq!(voters(&members(&one).await), [1, 2, 3]);

    tokio::time::sleep(ABSENCE).await;
    let stop = AtomicBool::new(false);
    let joining = async {
        one.raft.join(three.info.clone(), ABSENCE, PATIENCE).await.unwrap();
        stop.store(true, Ordering::Relaxed);
    };
    let ((count, position), ()) = tokio::join!(load(&two, &stop), joining);
    let now = members(&two).await;
    assert_eq!((voters(&now), &now.retired_node_ids[..]), (vec![1, 2, 33], &[3][..]));
    holds(&three, position, count - 1).await;
    // Its former self, back from the dead, moves nothing.
    let term = now.term;
    let ghost = cluster.start("three", 3, old, false).await;
    ghost.raft.learn_address(&one.info);
    ghost.raft.learn_address(&two.info);
    let refused = ghost.raft.read_barrier(ABSENCE).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Denied, "{refused}");
    holds(&three, propose(&three, 99).await, 99).await;
    assert_eq!(members(&two).await.term, term);
    for node in [one, two, three, ghost] {
        node.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_membership_follows_a_super_node_that_moved() {
    let cluster = Cluster::new(Compaction::default());
    let [one, two, three] = cluster.three().await;
    let before = record(&members(&one).await, 2);
    let data = two.kill().await;
    let two = cluster.start("two", 2, data, false).await;
    assert_ne!(two.info.cluster_address, before.cluster_address);
    one.raft.learn_address(&two.info);
    two.raft.learn_address(&one.info);
    let moved = async {
        while record(&members(&one).await, 2).cluster_address != two.info.cluster_address {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, moved).await.unwrap();
    holds(&two, propose(&three, 7).await, 7).await;
    for node in [one, two, three] {
        node.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_quorum_of_the_living_is_not_given_away() {
    let cluster = Cluster::new(Compaction::default());
    let [one, two, three] = cluster.three().await;
    three.kill().await;
    tokio::time::sleep(Duration::from_millis(super::super::members::HEARD_MS)).await;
    let seen = members(&one).await;
    let up: BTreeSet<u64> =
        seen.members.iter().filter(|member| member.up).map(|member| member.node_id).collect();
    assert_eq!(up, [1, 2].into());
    let refused = ask(&one, &seen, Change::Remove(2)).await.unwrap_err();
    assert_eq!((refused.rule.as_str(), refused.for_now), ("quorum", false), "{refused:?}");
    let refused = ask(&one, &seen, Change::Transfer(3)).await.unwrap_err();
    assert_eq!(refused.rule, "down", "{refused:?}");
    assert_eq!(members(&one).await.position, seen.position);
    change(&one, Change::Remove(3)).await;
    assert_eq!(voters(&members(&two).await), [1, 2]);
    for node in [one, two] {
        node.kill().await;
    }
}
