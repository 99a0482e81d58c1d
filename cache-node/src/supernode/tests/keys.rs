//! Keys: who fills, who follows, who has.

use std::sync::atomic::Ordering;

use shoal_proto::wire::v1::{self, acquire_reply::Answer};
use shoal_proto::{ErrorKind, RpcError};
use tempfile::TempDir;

use super::PATIENCE;
use super::rig::{Rig, eventually, filler, head, info, key};
use crate::tasks::Tasks;

fn fill(answer: Answer) -> v1::FillLease {
    match answer {
        Answer::Fill(fill) => fill,
        other => panic!("expected a lease, got {other:?}"),
    }
}

fn follow(answer: Answer) -> v1::FollowFill {
    match answer {
        Answer::Follow(follow) => follow,
        other => panic!("expected to follow, got {other:?}"),
    }
}

fn have(answer: Answer) -> v1::Have {
    match answer {
        Answer::Have(have) => have,
        other => panic!("expected holders, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_filled_without_a_lease_replaces_nothing_newer() {
    let rig = Rig::new();
    let tier = rig.single().await;
    let mut a = rig.member("a", 11, &tier).await;
    let lease = fill(a.acquire(key(1), |_| {}).await);
    let version = |n, fresh_until_ms| {
        let position = lease.fence_position;
        v1::IndexHead { fresh_until_ms, ..head(key(1), n, position) }
    };
    let end_of_time = u64::MAX / 2;
    assert!(a.publish(lease.lease_id, version(1, end_of_time)).await.current);
    assert!(!a.publish(0, version(2, end_of_time - 1)).await.current, "older, and yet taken");
    assert!(a.publish(0, version(1, end_of_time - 1)).await.current, "the same bytes");
    assert!(a.publish(0, version(3, end_of_time + 1)).await.current, "newer, and refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_fills_and_all_have() {
    let rig = Rig::new();
    let tier = rig.single().await;
    let mut a = rig.member("a", 11, &tier).await;
    let mut b = rig.member("b", 12, &tier).await;

    let lease = fill(a.acquire(key(1), |_| {}).await);
    let following = follow(b.acquire(key(1), |_| {}).await);
    assert_eq!(following.lease_id, lease.lease_id);
    assert_eq!(following.filler.unwrap().node_id, 11);
    assert_eq!(fill(a.acquire(key(1), |_| {}).await).lease_id, lease.lease_id);
    assert_eq!(tier.node.status().leases, 1);

    let published = a.publish(lease.lease_id, head(key(1), 9, lease.fence_position)).await;
    assert!(published.current);
    assert_eq!(tier.node.status().leases, 0);
    let found = have(b.acquire(key(1), |_| {}).await);
    assert_eq!(found.head.unwrap().publisher_node_id, 11);
    let holders: Vec<_> = found.holders.iter().map(|h| h.node.as_ref().unwrap().node_id).collect();
    assert_eq!(holders, [11]);

    // It does not help whom it does not help; a stale object is worth revalidating.
    let stale = |request: &mut v1::AcquireRequest| request.stale_manifest_id = vec![9; 32].into();
    let lease = fill(b.acquire(key(1), stale).await);
    assert_eq!(lease.head.unwrap().manifest_id, vec![9; 32]);
    let ended = v1::ReleaseRequest {
        key: key(1).to_wire(),
        node_id: 12,
        lease_id: lease.lease_id,
        pass_ms: 0,
    };
    b.client.release(ended).await.unwrap();
    let lease = fill(b.acquire(key(1), |request| request.failed_holders = vec![11]).await);
    assert_eq!(lease.head, None);

    // What cannot be stored is passed.
    let lease_id = fill(a.acquire(key(2), |_| {}).await).lease_id;
    let pass = v1::ReleaseRequest { key: key(2).to_wire(), node_id: 11, lease_id, pass_ms: 60_000 };
    a.client.release(pass).await.unwrap();
    assert!(matches!(b.acquire(key(2), |_| {}).await, Answer::Pass(_)));
    tier.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_while_another_publishes_fills_nothing_again() {
    let rig = Rig::new();
    let tier = rig.single().await;
    let mut a = rig.member("a", 11, &tier).await;
    let mut askers = Vec::new();
    for id in 12..20 {
        askers.push(rig.member(&format!("m{id}"), id, &tier).await);
    }
    for n in 0..60 {
        let lease = fill(a.acquire(key(n), |_| {}).await);
        let publish = a.publish(lease.lease_id, head(key(n), 9, lease.fence_position));
        let asking = askers.iter_mut().map(|asker| async move {
            // Until it has what was published.
            loop {
                match asker.acquire(key(n), |_| {}).await {
                    Answer::Have(_) => return,
                    Answer::Follow(_) => {}
                    other => panic!("key {n}: {other:?}"),
                }
            }
        });
        tokio::join!(publish, futures::future::join_all(asking));
    }
    assert_eq!(tier.node.status().leases, 0);
    tier.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filler_that_is_gone_is_replaced_by_who_noticed() {
    let rig = Rig::new();
    let tier = rig.single().await;
    let serving = Tasks::new();
    let (address, fills) = filler(&rig, "a", 11, &serving).await;
    let a = info("a", 11, v1::Role::Node, &address);
    let mut a = rig.member_at(a, &tier, 0).await.unwrap();
    let mut b = rig.member("b", 12, &tier).await;
    let mut c = rig.member("c", 13, &tier).await;

    let lease = fill(a.acquire(key(1), |_| {}).await);
    let suspect = |request: &mut v1::AcquireRequest| {
        request.suspect_node_id = 11;
        request.suspect_lease_id = lease.lease_id;
    };
    assert_eq!(follow(b.acquire(key(1), suspect).await).lease_id, lease.lease_id, "it answers");
    fills.store(false, Ordering::Relaxed);
    let taken = fill(b.acquire(key(1), suspect).await);
    assert_ne!(taken.lease_id, lease.lease_id);
    assert_eq!(follow(c.acquire(key(1), suspect).await).lease_id, taken.lease_id);

    // The first filler learns that its lease is gone, and its shadow is refused.
    let leases = [(key(1), lease.lease_id), (key(1), taken.lease_id)];
    let leases = leases.map(|(key, lease_id)| v1::LeaseRef { key: key.to_wire(), lease_id });
    let renew = v1::RenewRequest { node_id: 11, leases: leases.to_vec() };
    assert_eq!(a.client.renew(renew).await.unwrap().into_inner().lost.len(), 2);

    // A filler whose process is gone altogether does not answer.
    let lease = fill(a.acquire(key(2), |_| {}).await);
    assert!(serving.shutdown(PATIENCE).await);
    let suspect = |request: &mut v1::AcquireRequest| {
        request.suspect_node_id = 11;
        request.suspect_lease_id = lease.lease_id;
    };
    fill(b.acquire(key(2), suspect).await);
    tier.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holders_out_of_touch_are_a_last_resort() {
    let rig = Rig::new();
    let tier = rig.single().await;
    let mut a = rig.member("a", 11, &tier).await;
    let mut b = rig.member("b", 12, &tier).await;
    let mut c = rig.member("c", 13, &tier).await;
    a.publish(0, v1::IndexHead { chunk_count: 8, ..head(key(1), 9, 0) }).await;
    let object_ref = bytes::Bytes::from_static(&[9; 12]);
    let half = v1::PartialHolding { object_ref: object_ref.clone(), chunks: vec![0b1111].into() };
    let some = v1::AnnounceRequest { node_id: 12, partial: vec![half], ..Default::default() };
    b.client.announce(some).await.unwrap();
    let found = have(c.acquire(key(1), |_| {}).await);
    assert_eq!(found.holders.iter().filter(|holder| holder.complete).count(), 1);
    assert_eq!(found.holders.len(), 2);
    let located = v1::LocateRequest { object_id: vec![9; 32].into(), ..Default::default() };
    assert_eq!(c.client.locate(located).await.unwrap().into_inner().holders.len(), 2);
    let both = [&object_ref[..], &[8; 12]].concat();
    let located = v1::LocateRequest { object_refs: both.into(), ..Default::default() };
    let located = c.client.locate(located).await.unwrap().into_inner().located;
    let known = v1::Located { complete: vec![11], partial: vec![12] };
    assert_eq!(located, [known, v1::Located::default()]);

    // The publisher's session breaks: half an object is none, so it is named as a last resort, and
    // once it has been asked in vain there is nobody left.
    a.die().await;
    eventually("a's broken session", || tier.node.status().sessions == 2).await;
    let found = have(c.acquire(key(1), |_| {}).await);
    assert!(found.holders.iter().any(|holder| holder.complete));
    let lease = fill(c.acquire(key(1), |ask| ask.failed_holders = vec![11]).await);
    assert_eq!(lease.head, None);

    // The last holders give it up: the head goes too.
    let mut a = rig.member("a", 11, &tier).await;
    have(b.acquire(key(1), |_| {}).await);
    for (member, id) in [(&mut a, 11), (&mut b, 12)] {
        let gone = object_ref.clone();
        let gone = v1::AnnounceRequest { node_id: id, gone, ..Default::default() };
        member.client.announce(gone).await.unwrap();
    }
    eventually("the head to go", || tier.node.tier.index.head(&key(1)).unwrap().is_none()).await;
    let stranger = v1::AnnounceRequest { node_id: 99, ..Default::default() };
    let refused = RpcError::from(a.client.announce(stranger).await.unwrap_err());
    assert_eq!(refused.kind, ErrorKind::Retry);
    tier.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_index_survives_a_restart_and_leases_do_not() {
    let rig = Rig::new();
    let tier = rig.single().await;
    let mut a = rig.member("a", 11, &tier).await;
    a.publish(0, head(key(1), 9, 0)).await;
    fill(a.acquire(key(2), |_| {}).await);
    let data: TempDir = tier.kill().await;
    a.die().await;
    let tier = rig.start("s1", 1, data, &[]).await;
    eventually("the tier", || tier.node.status().in_touch).await;
    let mut b = rig.member("b", 12, &tier).await;
    let _a = rig.member("a", 11, &tier).await;
    have(b.acquire(key(1), |_| {}).await);
    fill(b.acquire(key(2), |_| {}).await);
    tier.kill().await;
}
