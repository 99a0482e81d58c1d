//! A tier that lost its majority goes on from one survivor.

use tempfile::TempDir;

use shoal_proto::NodeId;
use shoal_proto::wire::v1;
use shoal_proto::wire::v1::acquire_reply::Answer;

use super::super::raft::Ended;
use super::super::raft::recovery::{Recovered, RecoveryError, Survivor, inspect, recover};
use super::PATIENCE;
use super::purges::purge_site;
use super::rig::{Rig, Super, eventually, head, key};
use super::tiers::three;

fn survivor(data: &TempDir, name: &str, id: u64) -> Survivor {
    Survivor {
        cluster_id: "test".parse().unwrap(),
        node_id: NodeId(id),
        name: name.to_owned(),
        dir: data.path().to_owned(),
    }
}

async fn publish(rig: &Rig, at: &Super) {
    let mut a = rig.member("a", 11, at).await;
    let Answer::Fill(lease) = a.acquire(key(1), |_| {}).await else { panic!("no lease") };
    assert!(a.publish(lease.lease_id, head(key(1), 9, lease.fence_position)).await.current);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_survivor_goes_on_and_the_lost_ones_stay_lost() {
    let rig = Rig::new();
    let [one, two, three] = three(&rig).await;
    publish(&rig, &two).await;
    eventually("the head is here", || one.node.tier.index.head(&key(1)).unwrap().is_some()).await;
    let old_term = one.node.status().term;
    let (data, two_data, three_data) = (one.kill().await, two.kill().await, three.kill().await);

    let one = survivor(&data, "s1", 1);
    let seen = inspect(&one).await.unwrap();
    assert_eq!(inspect(&one).await.unwrap(), seen, "looking changes nothing");
    let dropped: Vec<_> =
        seen.dropped.iter().map(|d| (d.node_id.0, &d.name[..], d.voter)).collect();
    assert_eq!(dropped, [(2, "s2", true), (3, "s3", true)]);
    assert!(seen.token.starts_with("recover-s1-") && seen.applied <= seen.last.1, "{seen:?}");
    let wrong = recover(&one, "recover-s1-00000000").await.unwrap_err();
    assert!(matches!(wrong, RecoveryError::Token { .. }), "{wrong}");
    assert_eq!(inspect(&one).await.unwrap(), seen, "neither does a wrong token");
    let Recovered { position, generation } = recover(&one, &seen.token).await.unwrap();
    assert!(generation == 1 && position > seen.last.1 + 1_000_000);
    let again = recover(&one, &seen.token).await.unwrap_err();
    assert!(matches!(again, RecoveryError::Alone(_)), "{again}");

    let one = rig.start("s1", 1, data, &[]).await;
    eventually("it leads alone", || one.node.status().in_touch).await;
    let members = one.node.tier.raft.members(PATIENCE).await.unwrap();
    assert_eq!(members.members.len(), 1);
    assert_eq!(members.retired_node_ids, [2, 3]);
    assert!(members.term > old_term + 900 && members.position >= position);
    // What was acknowledged and is here is still here; the tier writes and purges again.
    assert!(one.node.tier.index.head(&key(1)).unwrap().is_some());
    let member = rig.member("b", 12, &one).await;
    let reply = tokio::time::timeout(PATIENCE, purge_site(rig.client("b", &one), 12, "docs"));
    assert!(reply.await.unwrap().position > position);
    drop(member);

    // Those that were dropped come back with what they had: alone they are a majority of the tier
    // before, and still neither leads.
    let two = rig.start("s2", 2, two_data, &[&one]).await;
    let three = rig.start("s3", 3, three_data, &[&one, &two]).await;
    for lost in [&two, &three] {
        eventually("it knows", || lost.node.status().ended == Some(Ended::Superseded)).await;
        assert!(!lost.node.status().in_touch);
    }
    let join =
        v1::JoinRequest { cluster_id: "test".into(), node: Some(two.info.clone()), generation: 0 };
    let refused = rig.client("s2", &one).join(join).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused:?}");
    let (two_data, _) = (two.kill().await, three.kill().await);
    let refused = rig.try_start("s2", 2, two_data, &[&one]).await.err().unwrap().to_string();
    assert!(refused.contains("recovered without this super-node"), "{refused}");

    // Emptied, they are new ones of the tier that is.
    let two = rig.start("s2", 22, TempDir::new().unwrap(), &[&one]).await;
    eventually("it has a vote", || two.node.status().voter && two.node.status().in_touch).await;
    assert_eq!(two.node.tier.raft.generation(), 1);
    assert!(two.node.tier.index.is_retired(NodeId(2)), "it has the whole state");
    two.kill().await;
    one.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_voter_among_others_is_recovered() {
    let rig = Rig::new();
    let one = rig.single().await;
    let data = one.kill().await;
    let alone = inspect(&survivor(&data, "s1", 1)).await.unwrap_err();
    assert!(matches!(alone, RecoveryError::Alone(_)), "{alone}");
    // Another's directory, or another cluster's, is not touched.
    let foreign = inspect(&survivor(&data, "s2", 2)).await.unwrap_err().to_string();
    assert!(foreign.contains("belongs to super-node"), "{foreign}");
    let never = TempDir::new().unwrap();
    std::fs::create_dir(never.path().join("raft")).unwrap();
    let empty = inspect(&survivor(&never, "s3", 3)).await.unwrap_err();
    assert!(matches!(empty, RecoveryError::Nothing(_)), "{empty}");
    assert_eq!(std::fs::read_dir(never.path().join("raft")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tier_before_ends_when_the_recovered_one_is_met() {
    let rig = Rig::new();
    let [one, two, three] = three(&rig).await;
    let (data, two_data, three_data) = (one.kill().await, two.kill().await, three.kill().await);
    let one = survivor(&data, "s1", 1);
    recover(&one, &inspect(&one).await.unwrap().token).await.unwrap();

    // The two were not lost after all, and nobody could tell them.
    let two = rig.start("s2", 2, two_data, &[]).await;
    let three = rig.start("s3", 3, three_data, &[&two]).await;
    eventually("they go on", || two.node.status().in_touch && three.node.status().in_touch).await;
    let one = rig.start("s1", 1, data, &[&two, &three]).await;
    for lost in [&two, &three] {
        eventually("it knows", || lost.node.status().ended == Some(Ended::Superseded)).await;
    }
    eventually("the survivor goes on", || one.node.status().in_touch).await;
    assert_eq!(one.node.status().ended, None);
    for node in [one, two, three] {
        node.kill().await;
    }
}
