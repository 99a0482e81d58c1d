//! Who may not come into the tier, or speak for others in it.

use shoal_proto::wire::v1;
use tonic::Code;

use super::PATIENCE;
use super::rig::{Rig, info};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joining_super_node_with_the_wrong_papers_is_refused_without_effect() {
    let rig = Rig::new();
    let one = rig.single().await;
    let before = one.node.tier.raft.members(PATIENCE).await.unwrap();
    let records = one.node.tier.index.records();
    let new = |name, id| info(name, id, v1::Role::Super, "127.0.0.1:1");
    let join = |cluster: &str, node: v1::NodeInfo| v1::JoinRequest {
        cluster_id: cluster.to_owned(),
        node: Some(node),
        generation: 0,
    };
    let ordinary = info("s2", 2, v1::Role::Node, "127.0.0.1:1");
    let cases = [
        ("another cluster", join("other", new("s2", 2)), Code::PermissionDenied),
        ("another's certificate", join("test", new("s3", 3)), Code::PermissionDenied),
        ("another's id", join("test", new("s2", 1)), Code::PermissionDenied),
        ("a live one's name", join("test", new("s1", 4)), Code::PermissionDenied),
        ("no id", join("test", new("s2", 0)), Code::InvalidArgument),
        ("no address", join("test", info("s2", 2, v1::Role::Super, "")), Code::InvalidArgument),
        ("no super-node", join("test", ordinary), Code::InvalidArgument),
    ];
    for (what, request, code) in cases {
        // Each comes with the certificate of "s2", but for the one that is called "s1".
        let bearer = if what == "a live one's name" { "s1" } else { "s2" };
        let refused = rig.client(bearer, &one).join(request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{what}: {refused:?}");
    }
    let after = one.node.tier.raft.members(PATIENCE).await.unwrap();
    assert_eq!((after.position, after.hash), (before.position, before.hash));
    assert_eq!(one.node.tier.index.records(), records);
    for id in [2, 3, 4] {
        assert_eq!(one.node.tier.raft.address_of(shoal_proto::NodeId(id)), None);
    }
    one.kill().await;
}
