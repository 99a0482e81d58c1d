//! Home nodes by script, without sockets.

use std::sync::RwLock;

use super::*;
use crate::clock;
use crate::fences::table::FenceTable;
use crate::membership::ClusterView;
use crate::metrics::{DirectoryMetrics, Metrics};
use crate::rpc::Channels;
use crate::tls::Security;
use tokio::sync::watch;
use v1::acquire_reply::Answer;

const ME: NodeId = NodeId(1);
const A: NodeId = NodeId(2);
const B: NodeId = NodeId(3);
const KEY: ObjectKey = ObjectKey::new([9; 32]);
const OBJECT: ObjectId = ObjectId::new([1; 32]);
const NEWER: ObjectId = ObjectId::new([2; 32]);

fn member(id: NodeId) -> Member {
    Member {
        // Nobody listens there: a filler that is suspected does not answer.
        cluster_address: "127.0.0.1:1".into(),
        ..Member::node(id, format!("node-{id}"))
    }
}

/// A home node whose own store holds `here` of [`KEY`].
fn home(here: Option<ObjectId>) -> HomeNode {
    let members = [ME, A, B].map(member).to_vec().into();
    let view = ClusterView { members, ..ClusterView::default() };
    let shared = Shared {
        view: watch::channel(view).0,
        fences: RwLock::new(FenceTable::after_pass(0)),
        fenced: watch::Sender::new(0),
        lease_until: RwLock::new(clock::monotonic()),
        welcomed: watch::channel(true).0,
        inventories: watch::Sender::new(1),
        sites_revision: 0.into(),
        metrics: DirectoryMetrics::new(&Metrics::new().unwrap()).unwrap(),
    };
    let held = Arc::new(move |key: &ObjectKey| here.filter(|_| *key == KEY));
    HomeNode::new(ME, Channels::new(Security::Insecure), Arc::new(shared), held)
}

fn ask(node: NodeId) -> Ask {
    Ask { key: KEY, node, stale: None, suspect: None, failed: Vec::new(), since: 0 }
}

async fn answer(home: &HomeNode, ask: Ask) -> Answer {
    home.acquire(ask).await.unwrap().answer.unwrap()
}

fn holders(answer: Answer) -> (ObjectId, Vec<u64>) {
    let Answer::Have(have) = answer else { panic!("{answer:?}") };
    let object = ObjectId::try_from(have.head.unwrap().object_id.as_ref()).unwrap();
    let ids = have.holders.into_iter().map(|holder| holder.node.unwrap().node_id);
    (object, ids.collect())
}

#[tokio::test]
async fn one_fills_the_others_follow_and_then_have() {
    let home = home(None);
    let Answer::Fill(fill) = answer(&home, ask(A)).await else { panic!("nobody has it") };
    let Answer::Follow(follow) = answer(&home, ask(B)).await else { panic!("A fills it") };
    assert_eq!((follow.lease_id, follow.filler.unwrap().node_id), (fill.lease_id, A.0));
    home.publish((KEY, LeaseId(fill.lease_id)), OBJECT, A);
    assert_eq!(holders(answer(&home, ask(B)).await), (OBJECT, vec![A.0]));
    // The only holder asks because what it has is outdated: it is to fetch the newer one.
    assert!(matches!(answer(&home, ask(A)).await, Answer::Fill(_)));
}

#[tokio::test]
async fn what_is_here_is_named_first_and_a_newer_fill_before_it() {
    let home = home(Some(OBJECT));
    assert_eq!(holders(answer(&home, ask(A)).await), (OBJECT, vec![ME.0]));
    home.announce((KEY, OBJECT), B, true);
    assert_eq!(holders(answer(&home, ask(A)).await), (OBJECT, vec![ME.0, B.0]));
    home.publish((KEY, LeaseId(0)), NEWER, B);
    assert_eq!(holders(answer(&home, ask(A)).await), (NEWER, vec![B.0]));
    home.announce((KEY, NEWER), B, false);
    assert_eq!(holders(answer(&home, ask(A)).await), (OBJECT, vec![ME.0]));
    let failed = Ask { failed: vec![ME], ..ask(A) };
    assert!(matches!(answer(&home, failed).await, Answer::Fill(_)));
}

#[tokio::test]
async fn a_filler_that_does_not_answer_loses_its_lease() {
    let home = home(None);
    let Answer::Fill(fill) = answer(&home, ask(A)).await else { panic!("nobody has it") };
    let suspecting = Ask { suspect: Some((A, LeaseId(fill.lease_id))), ..ask(B) };
    let Answer::Fill(taken) = answer(&home, suspecting).await else { panic!("A is gone") };
    assert_ne!(taken.lease_id, fill.lease_id);
}

#[tokio::test]
async fn a_shadow_stands_where_no_lease_was_given() {
    let home = home(None);
    home.shadow((KEY, LeaseId(7)), A, false);
    assert!(matches!(answer(&home, ask(B)).await, Answer::Follow(f) if f.lease_id == 7));
    home.shadow((KEY, LeaseId(7)), A, true);
    assert!(matches!(answer(&home, ask(B)).await, Answer::Fill(_)));
}

#[tokio::test]
async fn a_response_that_cannot_be_stored_is_passed() {
    let home = home(None);
    let Answer::Fill(fill) = answer(&home, ask(A)).await else { panic!("nobody has it") };
    home.release((KEY, LeaseId(fill.lease_id)), A, 5_000);
    assert!(matches!(answer(&home, ask(B)).await, Answer::Pass(_)));
}

#[test]
fn the_home_is_the_first_in_rank_and_this_node_is_one_too() {
    let local = Arc::new(home(None));
    let members = [ME, A, B].map(member).to_vec().into();
    let shared = Shared {
        view: watch::channel(ClusterView { members, ..ClusterView::default() }).0,
        fences: RwLock::new(FenceTable::after_pass(0)),
        fenced: watch::Sender::new(0),
        lease_until: RwLock::new(clock::monotonic()),
        welcomed: watch::channel(true).0,
        inventories: watch::Sender::new(1),
        sites_revision: 0.into(),
        metrics: DirectoryMetrics::new(&Metrics::new().unwrap()).unwrap(),
    };
    let homes = HomeNodes::new(local, Arc::new(shared));
    let mut first = std::collections::HashSet::new();
    for n in 0..100u64 {
        let key = ObjectKey::new(*blake3::hash(&n.to_le_bytes()).as_bytes());
        let expected = placement::rank(&key, [ME, A, B]);
        let ranked = homes.ranked(&key);
        let ids: Vec<_> = ranked.iter().map(|m| m.as_ref().map_or(ME, |m| m.id)).collect();
        assert_eq!(ids, expected);
        first.insert(ids[0]);
        homes.avoided.note(ids[0], true);
        let after = homes.ranked(&key);
        assert_eq!(after[2].as_ref().map_or(ME, |m| m.id), expected[0], "who failed comes last");
        homes.avoided.note(ids[0], false);
    }
    assert_eq!(first.len(), 3);
}

#[test]
fn holdings_are_read_within_their_limits() {
    let holding = |gone| v1::Holding { key: KEY.to_wire(), object_id: OBJECT.to_wire(), gone };
    let request = |holdings| v1::TellRequest { node_id: 2, holdings };
    let read = holdings(&request(vec![holding(false), holding(true)]));
    assert_eq!(read, Ok(vec![((KEY, OBJECT), true), ((KEY, OBJECT), false)]));
    let short = v1::Holding { key: vec![1; 31].into(), ..holding(false) };
    assert_eq!(holdings(&request(vec![short])).unwrap_err().field, "key");
    let many = vec![holding(true); ANNOUNCE_CHANGES_MAX + 1];
    assert_eq!(holdings(&request(many)).unwrap_err().field, "holdings");
}
