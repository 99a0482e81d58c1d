//! Super-nodes whose indexes differ, and how that comes to light.

use shoal_proto::wire::v1::{self, Verdict};
use shoal_proto::{ErrorKind, NodeId, ObjectId, RpcError};

use super::rig::{Member, Rig, Super, eventually};
use super::tiers::{complete, three};
use crate::supernode::verify;

/// What every super-node's digests say of the others' indexes.
async fn verdicts(of: &Super) -> Vec<(u64, Verdict)> {
    let verified = verify::verify(&of.node.tier).await.unwrap().super_nodes;
    verified.iter().map(|one| (one.node_id, one.verdict())).collect()
}

async fn announce(by: &mut Member, complete: Vec<u8>) {
    let node_id = by.info.node_id;
    let all = v1::AnnounceRequest { node_id, complete: complete.into(), ..Default::default() };
    by.client.announce(all).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_names_whose_index_was_changed_behind_its_back() {
    let rig = Rig::new();
    let [one, two, three] = three(&rig).await;
    let mut a = rig.member("a", 11, &one).await;
    announce(&mut a, vec![7; 12 * 9]).await;
    use Verdict::{Different, Same};
    assert_eq!(verdicts(&two).await, [(1, Same), (2, Same), (3, Same)]);

    // One bit of one record, as a bad disk or a stray hand may change it: no digest of what was
    // applied can tell.
    let db = three.node.tier.index.db();
    let holders = db.cf_handle("holders").unwrap();
    let mut slots = db.get_cf(holders, [7; 12]).unwrap().unwrap();
    slots[0] ^= 4;
    db.put_cf(holders, [7; 12], slots).unwrap();
    assert_eq!(verdicts(&two).await, [(1, Same), (2, Same), (3, Different)]);
    assert_eq!(three.node.status().diverged, None);
    let node_id = 11;
    let asked = a.client.verify(v1::VerifyRequest { node_id }).await.unwrap().into_inner();
    assert_eq!(asked.super_nodes[2].name, "s3");
    assert!(asked.super_nodes[2].records > 0 && asked.position > 0);
    for node in [one, two, three] {
        node.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_applies_something_else_gives_up_its_index() {
    let rig = Rig::new();
    // The leader itself, of all super-nodes.
    let [wrong, two, three] = three(&rig).await;
    assert_eq!(two.node.status().leader, Some(NodeId(1)));
    let mut a = rig.member("a", 11, &two).await;
    wrong.node.tier.index.be_faulty();
    announce(&mut a, vec![7; 12]).await;
    eventually("the difference", || wrong.node.status().diverged.is_some()).await;
    assert!(!wrong.node.status().in_touch);
    let refused = rig.client("a", &wrong).verify(v1::VerifyRequest { node_id: 11 }).await;
    assert_eq!(RpcError::from(refused.unwrap_err()).kind, ErrorKind::Retry);
    eventually("its end", || wrong.node.tier.tasks.is_stopped()).await;
    eventually("another leader", || two.node.status().leader.is_some_and(|id| id.0 != 1)).await;
    assert_eq!(two.node.status().diverged.or(three.node.status().diverged), None);

    let data = wrong.kill().await;
    let one = rig.start("s1", 1, data, &[&two, &three]).await;
    complete(&one).await;
    let object = ObjectId::new([7; 32]);
    assert_eq!(one.node.tier.index.holders(&object).unwrap().len(), 1, "taken from another");
    use Verdict::Same;
    assert_eq!(verdicts(&one).await, [(1, Same), (2, Same), (3, Same)]);
    for node in [one, two, three] {
        node.kill().await;
    }
}
