//! Purges: after one has returned, nobody serves what it purged.

use std::sync::atomic::Ordering;
use std::time::Duration;

use shoal_proto::wire::v1::acquire_reply::Answer;
use shoal_proto::wire::v1::fence_matcher::Matcher;
use shoal_proto::wire::v1::index_client::IndexClient;
use shoal_proto::wire::v1::{self, FenceMatcher};
use tonic::transport::Channel;

use super::PATIENCE;
use super::rig::{Member, Rig, TIMING, eventually, head, info, key};
use crate::clock;

pub(super) async fn purge_site(
    mut client: IndexClient<Channel>,
    node_id: u64,
    site: &str,
) -> v1::PurgeReply {
    let matcher = Some(FenceMatcher { matcher: Some(Matcher::Site(site.into())), soft: false });
    client.purge(v1::PurgeRequest { matcher, node_id }).await.unwrap().into_inner()
}

async fn hears_of_a_fence(member: &Member) -> u64 {
    let mut fences = member.told.fences.subscribe();
    *tokio::time::timeout(PATIENCE, fences.wait_for(|at| *at > 0)).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_returns_once_all_have_acknowledged() {
    let rig = Rig::new();
    let tier = rig.single().await;
    let mut a = rig.member("a", 11, &tier).await;
    let b = rig.member("b", 12, &tier).await;
    a.publish(0, head(key(1), 9, 0)).await;
    let Answer::Fill(running) = a.acquire(key(2), |_| {}).await else { panic!("no lease") };

    // b takes its time, within what it has.
    b.told.sulks.store(true, Ordering::Relaxed);
    let purging = purge_site(a.client.clone(), 11, "docs");
    tokio::pin!(purging);
    let position = tokio::select! {
        position = hears_of_a_fence(&b) => position,
        reply = &mut purging => panic!("purged without b: {reply:?}"),
    };
    let early = tokio::time::timeout(Duration::from_millis(100), &mut purging).await;
    assert!(early.is_err(), "purged without b: {early:?}");
    b.acknowledge(position).await;
    let reply = tokio::time::timeout(PATIENCE, purging).await.unwrap();
    assert_eq!(reply, v1::PurgeReply { position, nodes_acknowledged: 2, nodes_expired: 0 });

    // What was there is gone, what was on the way is not published, what comes after is.
    assert!(matches!(a.acquire(key(1), |_| {}).await, Answer::Fill(_)));
    let late = a.publish(running.lease_id, head(key(2), 8, running.fence_position)).await;
    assert!(!late.current);
    let Answer::Fill(again) = a.acquire(key(2), |_| {}).await else { panic!("no lease") };
    assert_eq!(again.fence_position, position);
    assert!(a.publish(again.lease_id, head(key(2), 8, again.fence_position)).await.current);

    // Who comes later is told in the welcome.
    let c = info("c", 13, v1::Role::Node, "127.0.0.1:1");
    let c = rig.member_at(c, &tier, 0).await.unwrap();
    let fences = c.welcome.fences.clone().unwrap();
    assert_eq!((fences.position, fences.fences.len()), (position, 1));
    tier.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_outwaits_who_does_not_acknowledge() {
    let rig = Rig::new();
    let tier = rig.single().await;
    let a = rig.member("a", 11, &tier).await;
    let b = rig.member("b", 12, &tier).await;
    let c = rig.member("c", 13, &tier).await;
    eventually("answers", || b.told.answered.load(Ordering::Relaxed) > 1).await;
    b.told.sulks.store(true, Ordering::Relaxed);
    c.die().await;
    let begun = clock::monotonic();
    let reply =
        tokio::time::timeout(PATIENCE, purge_site(a.client.clone(), 11, "docs")).await.unwrap();
    assert_eq!((reply.nodes_acknowledged, reply.nodes_expired), (1, 2));
    let answered = b.told.answered.load(Ordering::Relaxed);
    let waited = clock::since(begun);
    let lease = Duration::from_millis(TIMING.lease_ms());
    assert!(waited >= lease, "b trusted what it had for longer than {waited:?}");
    tokio::time::sleep(Duration::from_millis(TIMING.heartbeat_ms.into()) * 4).await;
    assert_eq!(b.told.answered.load(Ordering::Relaxed), answered, "nobody vouches for b");
    b.acknowledge(reply.position).await;
    eventually("answers", || b.told.answered.load(Ordering::Relaxed) > answered).await;
    tier.kill().await;
}
