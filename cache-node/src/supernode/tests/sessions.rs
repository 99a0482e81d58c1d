//! Sessions: welcome, views, leases, identities.

use std::sync::atomic::Ordering;
use std::time::Duration;

use shoal_proto::wire::v1;
use shoal_proto::{ErrorKind, NodeId, RpcError};
use tonic::Code;

use super::rig::{Rig, TIMING, eventually, info, key};
use crate::clock;
use crate::membership::ClusterView;

fn is_up(view: &ClusterView, id: u64) -> bool {
    view.member(NodeId(id)).is_some_and(|member| member.up)
}

fn is_down(view: &ClusterView, id: u64) -> bool {
    view.member(NodeId(id)).is_some_and(|member| !member.up)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_welcomed_and_told_of_one_another() {
    let rig = Rig::new();
    let tier = rig.single().await;
    let a = rig.member("a", 11, &tier).await;
    assert_eq!(a.welcome.lease_ms, TIMING.session_lease_ms);
    assert!(a.welcome.announce_all, "nobody knows what it holds");
    let view = ClusterView::try_from(a.welcome.view.clone().unwrap()).unwrap();
    assert!(is_up(&view, 11) && is_up(&view, 1));
    assert_eq!(view.voters().map(|m| m.id.0).collect::<Vec<_>>(), [1]);
    assert_eq!(view.leader, Some(NodeId(1)));

    let b = rig.member("b", 12, &tier).await;
    a.sees("b", |view| is_up(view, 12)).await;
    assert_eq!(tier.node.status().sessions, 2);

    // b's process dies, and is missed; that this takes its lease is held by the ledger's tests.
    b.die().await;
    a.sees("b's end", |view| is_down(view, 12)).await;

    // Back again: the same member, a new session. What it holds is still known.
    let b = rig.member("b", 12, &tier).await;
    assert!(!b.welcome.announce_all);
    a.sees("b again", |view| is_up(view, 12)).await;
    eventually("answers", || a.told.answered.load(Ordering::Relaxed) > 10).await;
    tier.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_leaves_is_down_before_its_lease_is_over() {
    let rig = Rig::new();
    let tier = rig.single().await;
    let a = rig.member("a", 11, &tier).await;
    let b = rig.member("b", 12, &tier).await;
    a.sees("b", |view| is_up(view, 12)).await;
    let left = clock::monotonic();
    b.leave().await;
    a.sees("b's end", |view| is_down(view, 12)).await;
    assert!(clock::since(left) < Duration::from_millis(TIMING.lease_ms()));
    tier.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_session_ends_the_older() {
    let rig = Rig::new();
    let tier = rig.single().await;
    let first = rig.member("a", 11, &tier).await;
    let second = rig.member("a", 11, &tier).await;
    assert_ne!(first.welcome.session_id, second.welcome.session_id);
    eventually("the first's end", || first.told.over.load(Ordering::Relaxed)).await;
    first.die().await;
    tokio::time::sleep(Duration::from_millis(TIMING.lease_ms() * 3 / 2)).await;
    assert!(is_up(&tier.node.view().borrow(), 11), "the second vouches for it");
    assert!(!second.told.over.load(Ordering::Relaxed));
    tier.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_speaks_for_another() {
    let rig = Rig::new();
    let tier = rig.single().await;
    let _a = rig.member("a", 11, &tier).await;

    // Another's name, another's id, another cluster.
    let mut b = rig.client("b", &tier);
    let acquire =
        |node_id| v1::AcquireRequest { key: key(1).to_wire(), node_id, ..Default::default() };
    let refused = b.acquire(acquire(11)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    let unknown = RpcError::from(b.acquire(acquire(12)).await.unwrap_err());
    assert_eq!(unknown.kind, ErrorKind::Retry, "{unknown}");
    let stolen = info("b", 11, v1::Role::Node, "127.0.0.1:1");
    let refused = rig.member_at(stolen, &tier, 0).await.err().unwrap();
    assert_eq!(refused.kind, ErrorKind::Denied, "{refused}");
    let join = v1::JoinRequest {
        cluster_id: "other".into(),
        node: Some(info("b", 12, v1::Role::Super, "127.0.0.1:1")),
        generation: 0,
    };
    assert_eq!(b.join(join).await.unwrap_err().code(), Code::PermissionDenied);

    // Nobody under another authority gets as far as asking.
    let mut foreign = Rig::new().client("a", &tier);
    assert!(foreign.acquire(acquire(11)).await.is_err());
    let short = v1::AcquireRequest { key: vec![1].into(), node_id: 11, ..Default::default() };
    let mut a = rig.client("a", &tier);
    assert_eq!(a.acquire(short).await.unwrap_err().code(), Code::InvalidArgument);
    tier.kill().await;
}
