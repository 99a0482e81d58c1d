//! Three super-nodes.

use std::sync::atomic::Ordering;

use shoal_proto::NodeId;
use shoal_proto::wire::v1;
use shoal_proto::wire::v1::acquire_reply::Answer;
use shoal_proto::wire::v1::change_membership_reply::Outcome;
use shoal_proto::wire::v1::change_membership_request::Change;
use tempfile::TempDir;

use super::super::raft::Ended;
use super::PATIENCE;
use super::purges::purge_site;
use super::rig::{Rig, Super, eventually, head, key};

pub(super) async fn three(rig: &Rig) -> [Super; 3] {
    let one = rig.start("s1", 1, TempDir::new().unwrap(), &[]).await;
    let two = rig.start("s2", 2, TempDir::new().unwrap(), &[&one]).await;
    let three = rig.start("s3", 3, TempDir::new().unwrap(), &[&one, &two]).await;
    let all = [one, two, three];
    for each in &all {
        complete(each).await;
    }
    all
}

/// Waits until all three are up, with a vote and in touch, as `of` sees it.
pub(super) async fn complete(of: &Super) {
    eventually("a tier of three", || {
        let view = of.node.view().borrow().clone();
        let voting = view.voters().filter(|member| member.up).count() == 3;
        voting && view.leader.is_some() && of.node.status().in_touch
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_super_node_serves_and_purges_reach_all() {
    let rig = Rig::new();
    let [one, two, three] = three(&rig).await;
    let mut a = rig.member("a", 11, &one).await;
    let mut b = rig.member("b", 12, &two).await;
    a.sees("b", |view| view.member(NodeId(12)).is_some_and(|member| member.up)).await;
    let Answer::Fill(lease) = a.acquire(key(1), |_| {}).await else { panic!("no lease") };
    assert!(a.publish(lease.lease_id, head(key(1), 9, lease.fence_position)).await.current);
    eventually("the head at two", || two.node.tier.index.head(&key(1)).unwrap().is_some()).await;
    assert!(matches!(b.acquire(key(1), |_| {}).await, Answer::Have(_)));

    let purging = purge_site(rig.client("a", &three), 11, "docs");
    let reply = tokio::time::timeout(PATIENCE, purging).await.unwrap();
    assert_eq!((reply.nodes_acknowledged, reply.nodes_expired), (2, 0));
    assert!(*a.told.fences.borrow() >= reply.position);
    assert!(*b.told.fences.borrow() >= reply.position);
    assert!(matches!(b.acquire(key(1), |_| {}).await, Answer::Fill(_)));
    for node in [one, two, three] {
        node.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_super_node_is_missed_and_comes_back() {
    let rig = Rig::new();
    let [one, two, three] = three(&rig).await;
    let lonely = rig.member("lonely", 13, &one).await;
    let b = rig.member("b", 12, &two).await;

    // The leader is lost, and whom only it vouched for.
    let data = one.kill().await;
    lonely.die().await;
    b.sees("the loss", |view| {
        let down = |id| view.member(NodeId(id)).is_some_and(|member| !member.up);
        down(1) && down(13) && view.leader.is_some_and(|id| id.0 != 1)
    })
    .await;
    assert!(!b.told.over.load(Ordering::Relaxed), "its own session goes on");

    // Nobody is left who could trust in the lost one: a purge ends without it.
    let purging = purge_site(rig.client("b", &three), 12, "docs");
    let reply = tokio::time::timeout(PATIENCE, purging).await.unwrap();
    assert_eq!(reply.nodes_acknowledged, 1);

    // It is back, at another address.
    let one = rig.start("s1", 1, data, &[&two, &three]).await;
    for each in [&one, &two, &three] {
        complete(each).await;
    }
    assert!(one.node.status().fence_position >= reply.position);

    // One that stops in order says so, and sends its members elsewhere at once.
    let other = rig.member("c", 14, &three).await;
    three.stop().await;
    assert!(other.told.over.load(Ordering::Relaxed));
    b.sees("the farewell", |view| view.member(NodeId(3)).is_some_and(|member| !member.up)).await;
    one.kill().await;
    two.kill().await;
}

async fn change(at: &Super, change: Change) {
    let raft = &at.node.tier.raft;
    loop {
        let seen = raft.members(PATIENCE).await.unwrap();
        let request = v1::ChangeMembershipRequest {
            node_id: 0,
            expected_position: seen.position,
            expected_hash: seen.hash,
            change: Some(change.clone()),
        };
        let reply = raft.change_membership(request, PATIENCE).await.unwrap();
        match reply.outcome.unwrap() {
            Outcome::Position(_) => return,
            Outcome::Refused(refusal) => assert!(refusal.for_now, "{refusal:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_super_node_stops_and_stays_out() {
    let rig = Rig::new();
    let [one, two, three] = three(&rig).await;
    let member = rig.member("a", 11, &two).await;
    change(&one, Change::Remove(2)).await;
    eventually("it knows", || two.node.status().ended == Some(Ended::Removed)).await;
    eventually("its members know", || member.told.over.load(Ordering::Relaxed)).await;
    assert!(!two.node.status().in_touch);
    let data = two.kill().await;
    let refused = rig.try_start("s2", 2, data, &[&one, &three]).await.err().unwrap();
    let text = refused.to_string();
    assert!(text.contains("removed from the tier; empty the data directory"), "{text}");
    // With an empty one it is somebody new.
    let two = rig.start("s2", 22, TempDir::new().unwrap(), &[&one, &three]).await;
    complete(&two).await;
    for node in [one, two, three] {
        node.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_super_node_follows_and_asks_for_no_vote() {
    let rig = Rig::new();
    let [one, two, three] = three(&rig).await;
    change(&one, Change::Demote(3)).await;
    eventually("it knows", || three.node.status().held_back).await;
    let data = three.kill().await;
    // Not even after a restart.
    let three = rig.start("s3", 3, data, &[&one, &two]).await;
    eventually("it is in touch", || three.node.status().in_touch).await;
    let member = rig.member("a", 11, &three).await;
    assert!(!three.node.status().voter && three.node.status().held_back);
    assert_eq!(one.node.status().ended, None);
    change(&three, Change::Promote(3)).await;
    for each in [&one, &two, &three] {
        complete(each).await;
    }
    drop(member);
    for node in [one, two, three] {
        node.kill().await;
    }
}
