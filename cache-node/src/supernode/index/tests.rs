//! The index over a real RocksDB.

use std::path::Path;

use proptest::prelude::*;
use rocksdb::{IteratorMode, Options};
use shoal_proto::limits::CHUNKS_MAX;
use shoal_proto::wire::v1::{command::Command, fence_matcher::Matcher, holder_change::Change};

use super::*;

fn open(dir: &Path) -> Index {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    Index::open(Arc::new(DB::open_cf(&options, dir, COLUMN_FAMILIES).unwrap())).unwrap()
}

fn run(index: &Index, group: &[(u64, v1::CommandBatch)]) -> Vec<Vec<v1::CommandReply>> {
    let mut batch = WriteBatch::default();
    let replies = index.apply(group, &mut batch).unwrap();
    index.db().write(batch).unwrap();
    index.committed();
    replies
}

fn at(position: u64, commands: impl IntoIterator<Item = Command>) -> (u64, v1::CommandBatch) {
    let commands = commands.into_iter().map(|c| v1::Command { command: Some(c) }).collect();
    (position, v1::CommandBatch { commands })
}

fn key(n: u8) -> ObjectKey {
    ObjectKey::new([n; 32])
}

fn object(n: u8) -> ObjectId {
    ObjectId::new([n; 32])
}

fn join(id: u64) -> Command {
    let node = v1::NodeInfo {
        node_id: id,
        name: format!("n{id}"),
        role: v1::Role::Node.into(),
        ..Default::default()
    };
    Command::PutMember(v1::PutMember { node: Some(node), session_id: id, super_node_id: 1 })
}

fn head(k: u8, o: u8, fence_position: u64, publisher: u64) -> Command {
    Command::PutHead(v1::IndexHead {
        key: key(k).to_wire(),
        object_id: object(o).to_wire(),
        manifest_id: object(o).to_wire(),
        site: if k.is_multiple_of(2) { "docs".into() } else { "apt".into() },
        length: 10,
        chunk_count: 1,
        fresh_until_ms: 1_000,
        fence_position,
        publisher_node_id: publisher,
    })
}

fn change(node_id: u64, k: u8, o: u8, change: Change) -> Command {
    let change = v1::HolderChange {
        object_id: object(o).to_wire(),
        key: key(k).to_wire(),
        change: Some(change),
    };
    Command::Holders(v1::NodeHolders { node_id, changes: vec![change] })
}

fn fence_key(k: u8) -> Command {
    Command::Fence(v1::FenceMatcher { matcher: Some(Matcher::Key(key(k).to_wire())) })
}

fn fence_site(site: &str) -> Command {
    Command::Fence(v1::FenceMatcher { matcher: Some(Matcher::Site(site.into())) })
}

#[test]
fn a_publisher_is_a_holder() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let replies = run(&index, &[at(1, [join(5), head(2, 9, 0, 5)])]);
    assert!(replies[0][0].created && !replies[0][1].refused);
    assert_eq!(index.head(&key(2)).unwrap().unwrap().publisher_node_id, 5);
    assert_eq!(index.holders(&object(9)).unwrap(), [(NodeId(5), Holding::Complete)]);
    assert!(run(&index, &[at(2, [head(2, 9, 0, 6)])])[0][0].refused, "6 is not a member");
}

#[test]
fn nothing_is_visible_before_it_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let mut changed = index.changed();
    changed.mark_unchanged();
    let mut batch = WriteBatch::default();
    index.apply(&[at(1, [join(5), fence_key(2)])], &mut batch).unwrap();
    assert_eq!((index.members().1, index.fence_position()), (0, 0));
    assert!(!changed.has_changed().unwrap());
    index.db().write(batch).unwrap();
    index.committed();
    assert!(changed.has_changed().unwrap());
    let seen = *changed.borrow_and_update();
    assert_eq!(seen, Changes { members_epoch: 1, fence_position: 1 });
}

#[test]
fn a_batch_that_was_not_written_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    index.apply(&[at(1, [join(5)])], &mut WriteBatch::default()).unwrap();
    run(&index, &[at(1, [join(6)])]);
    assert!(index.member(NodeId(5)).is_none());
    assert!(index.member(NodeId(6)).is_some());
}

#[test]
fn a_fence_refuses_older_fills_and_hides_older_heads() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    run(&index, &[at(1, [join(5), head(2, 9, 0, 5), head(3, 8, 0, 5), head(4, 7, 0, 5)])]);
    let replies = run(
        &index,
        &[at(2, [fence_key(3), head(3, 8, 1, 5)]), at(3, [fence_site("docs"), head(2, 9, 2, 5)])],
    );
    assert!(replies[0][1].refused && replies[1][1].refused);
    assert!(index.head(&key(3)).unwrap().is_none(), "fenced by its key");
    assert!(index.head(&key(4)).unwrap().is_none(), "fenced by its site");
    let replies = run(&index, &[at(4, [head(3, 8, 2, 5), head(2, 9, 3, 5)])]);
    assert!(!replies[0][0].refused && !replies[0][1].refused, "fills begun after the fence");
    assert!(index.head(&key(2)).unwrap().is_some());
    let positions: Vec<_> = index.fences_after(0).iter().map(|fence| fence.position).collect();
    assert_eq!(positions, [2, 3]);
}

#[test]
fn a_head_goes_with_its_last_holder() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    run(&index, &[at(1, [join(5), join(6), head(2, 9, 0, 5)])]);
    run(&index, &[at(2, [change(6, 2, 9, Change::Complete(true))])]);
    run(&index, &[at(3, [change(5, 2, 9, Change::Gone(true))])]);
    assert!(index.head(&key(2)).unwrap().is_some());
    run(&index, &[at(4, [change(6, 2, 9, Change::Gone(true))])]);
    assert!(index.head(&key(2)).unwrap().is_none());
    assert!(index.holders(&object(9)).unwrap().is_empty());
}

#[test]
fn holders_announce_all_or_some_chunks_within_limits() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    run(&index, &[at(1, [join(5), change(5, 2, 9, Change::Chunks(vec![0b101].into()))])]);
    assert_eq!(index.holders(&object(9)).unwrap(), [(NodeId(5), Holding::Bitmap(vec![0b101]))]);
    let long = vec![0xff; CHUNKS_MAX as usize / 8 + 1];
    let refused = [
        change(5, 2, 8, Change::Chunks(long.into())),
        change(5, 2, 8, Change::Chunks(Vec::new().into())),
        change(5, 2, 8, Change::Complete(false)),
        change(7, 2, 8, Change::Complete(true)),
    ];
    let replies = run(&index, &[at(2, refused)]);
    assert!(replies[0].iter().all(|reply| reply.refused), "{replies:?}");
    assert!(index.holders(&object(8)).unwrap().is_empty());
}

#[test]
fn a_replaced_node_holds_nothing_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let holdings = (0..100).map(|o| change(5, 2, o, Change::Complete(true)));
    run(&index, &[at(1, [join(5), head(2, 9, 0, 5)]), at(2, holdings)]);
    let Command::PutMember(mut put) = join(6) else { unreachable!() };
    put.node.as_mut().unwrap().name = "n5".into();
    run(&index, &[at(3, [Command::PutMember(put)])]);
    assert!(index.member(NodeId(5)).is_none());
    let left = |index: &Index| (0..100).any(|o| !index.holders(&object(o)).unwrap().is_empty());
    assert!(left(&index), "it takes more than one position");
    run(&index, &[at(4, [])]);
    assert!(!left(&index));
    assert!(index.head(&key(2)).unwrap().is_none(), "nobody can serve it");
}

#[test]
fn the_index_is_the_same_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let down = Command::MemberDown(v1::MemberDown { node_id: 6, session_id: 6 });
    run(&index, &[at(1, [join(5), join(6), fence_site("docs")]), at(7, [down, fence_key(1)])]);
    let before = (index.members(), index.records(), index.fences_after(0));
    drop(index);
    let index = open(dir.path());
    assert_eq!((index.members(), index.records(), index.fences_after(0)), before);
    assert_eq!(index.fence_position(), 7);
}

#[test]
fn another_state_takes_the_place_of_this_one_in_one_step() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (index, other) = (open(here.path()), open(there.path()));
    run(&index, &[at(1, [join(5), fence_key(1), head(2, 2, 1, 5)])]);
    run(&other, &[at(9, [join(6), join(7), head(1, 1, 9, 6)])]);
    let mut changed = index.changed();
    let old = Arc::downgrade(&index.db());

    index.replace(other.db()).unwrap();
    assert_eq!((index.records(), index.fences_after(0)), (other.records(), other.fences_after(0)));
    assert_eq!(contents(&index), contents(&other));
    assert!(changed.has_changed().unwrap());
    assert_eq!(changed.borrow_and_update().members_epoch, 9);
    assert!(old.upgrade().is_none(), "nobody has the old database open any more");
    // It goes on from there.
    run(&index, &[at(10, [fence_key(1)])]);
    assert_eq!(index.head(&key(1)).unwrap(), None);
}

fn contents(index: &Index) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let (mut all, db) = (Vec::new(), index.db());
    for name in COLUMN_FAMILIES {
        let family = db.cf_handle(name).unwrap();
        for entry in db.iterator_cf(family, IteratorMode::Start) {
            let (key, value) = entry.unwrap();
            all.push((name, key.into_vec(), value.into_vec()));
        }
    }
    all
}

fn any_command() -> impl Strategy<Value = Command> {
    let (node, small) = (1u64..5, 0u8..6);
    let what = prop_oneof![
        Just(Change::Complete(true)),
        Just(Change::Gone(true)),
        Just(Change::Chunks(vec![1].into())),
    ];
    prop_oneof![
        (1u64..5, 1u64..3).prop_map(|(id, name)| {
            let Command::PutMember(mut put) = join(id) else { unreachable!() };
            put.node.as_mut().unwrap().name = format!("n{name}");
            Command::PutMember(put)
        }),
        node.clone()
            .prop_map(|id| Command::MemberDown(v1::MemberDown { node_id: id, session_id: id })),
        (small.clone(), small.clone(), 0u64..20, node.clone())
            .prop_map(|(k, o, fence, publisher)| head(k, o, fence, publisher)),
        (node, small.clone(), small.clone(), what).prop_map(|(n, k, o, c)| change(n, k, o, c)),
        small.prop_map(fence_key),
        Just(fence_site("docs")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn grouping_does_not_matter(
        commands in prop::collection::vec(any_command(), 1..60),
        cuts in prop::collection::vec(1usize..8, 60),
    ) {
        let (one_dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (one, other) = (open(one_dir.path()), open(other_dir.path()));
        let positions: Vec<_> =
            commands.chunks(3).zip(1..).map(|(some, p)| at(p, some.iter().cloned())).collect();
        let mut one_replies = Vec::new();
        for position in &positions {
            one_replies.extend(run(&one, std::slice::from_ref(position)));
        }
        let mut other_replies = Vec::new();
        let mut rest = &positions[..];
        for cut in cuts {
            let (group, after) = rest.split_at(cut.min(rest.len()));
            other_replies.extend(run(&other, group));
            rest = after;
        }
        prop_assert_eq!(one_replies, other_replies);
        prop_assert_eq!(contents(&one), contents(&other));
        let before = (one.records(), one.fences_after(0));
        one.replace(one.db()).unwrap();
        prop_assert_eq!((one.records(), one.fences_after(0)), before);
    }
}
