//! The index over a real RocksDB.

use std::path::Path;

use proptest::prelude::*;
use rocksdb::{IteratorMode, Options};
use shoal_proto::limits::{ANNOUNCE_CHANGES_MAX, CHUNKS_MAX};
use shoal_proto::wire::v1::{command::Command, fence_matcher::Matcher};

use super::*;

fn open(dir: &Path) -> Index {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    let descriptors = descriptors(&options);
    Index::open(Arc::new(DB::open_cf_descriptors(&options, dir, descriptors).unwrap())).unwrap()
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
        labels: None,
        publisher_node_id: publisher,
    })
}

fn refs(objects: impl IntoIterator<Item = u8>) -> bytes::Bytes {
    objects.into_iter().flat_map(|o| ObjectRef::from(&object(o)).0).collect::<Vec<_>>().into()
}

fn has(node_id: u64, objects: impl IntoIterator<Item = u8>) -> Command {
    Command::Holders(v1::NodeHolders { node_id, complete: refs(objects), ..Default::default() })
}

fn lacks(node_id: u64, objects: impl IntoIterator<Item = u8>) -> Command {
    Command::Holders(v1::NodeHolders { node_id, gone: refs(objects), ..Default::default() })
}

fn has_some(node_id: u64, o: u8, chunks: Vec<u8>) -> Command {
    let partial = vec![v1::PartialHolding { object_ref: refs([o]), chunks: chunks.into() }];
    Command::Holders(v1::NodeHolders { node_id, partial, ..Default::default() })
}

/// What the leader would propose after a look through everything.
fn clearing(index: &Index) -> Vec<Command> {
    let voids = index.void_slots();
    let slots: Vec<_> = voids.iter().map(|void| void.slot).collect();
    let complete = index.complete_of(&slots, &[], usize::MAX).unwrap().found;
    let partial = index.partial_of(&slots, &[], usize::MAX).unwrap().found;
    let of = |refs: &Refs, slot| refs.get(&slot).cloned().unwrap_or_default().into();
    let holdings = voids.iter().map(|void| v1::VoidHoldings {
        slot: Some((*void).into()),
        complete: of(&complete, void.slot),
        partial: of(&partial, void.slot),
    });
    let heads = index.useless_heads(&[], usize::MAX).unwrap().found;
    let heads: Vec<_> = heads.iter().flat_map(ObjectKey::as_bytes).copied().collect();
    let clear =
        v1::Clear { holdings: holdings.collect(), heads: heads.into(), ..Default::default() };
    let slots = voids.into_iter().map(v1::VoidSlot::from).collect();
    let free = v1::Clear { slots, ..Default::default() };
    vec![Command::Clear(clear), Command::Clear(free)]
}

fn fence_key(k: u8) -> Command {
    Command::Fence(v1::FenceMatcher { matcher: Some(Matcher::Key(key(k).to_wire())), soft: false })
}

fn fence_site(site: &str) -> Command {
    Command::Fence(v1::FenceMatcher { matcher: Some(Matcher::Site(site.into())), soft: false })
}

fn change_sites(base: u64, put: &[&str], drop: &[&str]) -> Command {
    let definition = |name: &&str| v1::SiteDefinition {
        name: (*name).to_owned(),
        definition: format!("{{\"made for\": {base}}}").into_bytes().into(),
        source: v1::SiteSource::Call.into(),
        position: 0,
    };
    let drop = drop.iter().map(|name| (*name).to_owned()).collect();
    let put = put.iter().map(definition).collect();
    Command::ChangeSites(v1::ChangeSites { base, put, drop })
}

#[test]
fn sites_change_for_one_revision_and_a_removed_one_is_purged() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    run(&index, &[at(1, [join(5), head(2, 9, 0, 5), head(3, 8, 0, 5)])]);
    let both = [change_sites(0, &["apt", "docs"], &[]), change_sites(0, &["late"], &[])];
    let replies = run(&index, &[at(2, both)]);
    assert_eq!([replies[0][0].refused, replies[0][1].refused], [false, true]);
    assert_eq!(index.changed().borrow().sites_revision, 2);
    assert!(index.head(&key(2)).unwrap().is_some());
    let replies = run(&index, &[at(3, [change_sites(2, &[], &["docs"]), head(2, 9, 2, 5)])]);
    assert_eq!([replies[0][0].refused, replies[0][1].refused], [false, true]);
    assert!(index.head(&key(2)).unwrap().is_none(), "all of the site is purged");
    assert!(index.head(&key(3)).unwrap().is_some());
    run(&index, &[at(4, [change_sites(3, &["docs"], &[])])]);
    assert!(index.head(&key(2)).unwrap().is_none(), "also once it is made again");
    let before = index.sites();
    assert_eq!((before.revision, before.sites.len(), before.removed.len()), (4, 2, 0));
    drop(index);
    assert_eq!(open(dir.path()).sites(), before, "after a restart");
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
    assert_eq!(seen, Changes { members_epoch: 1, fence_position: 1, sites_revision: 0 });
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
fn a_head_is_cleared_when_nobody_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    run(&index, &[at(1, [join(5), join(6), head(2, 9, 0, 5), head(3, 8, 0, 5)])]);
    run(&index, &[at(2, [has(6, [9]), lacks(5, [9])])]);
    assert_eq!(index.holders(&object(9)).unwrap(), [(NodeId(6), Holding::Complete)]);
    assert!(index.useless_heads(&[], 10).unwrap().found.is_empty());
    run(&index, &[at(3, [lacks(6, [9])])]);
    assert!(index.holders(&object(9)).unwrap().is_empty());
    assert_eq!(index.useless_heads(&[], 10).unwrap().found, [key(2)]);
    // A node comes by the object between the leader's look and its proposal.
    let clear = clearing(&index);
    run(&index, &[at(4, [has_some(5, 9, vec![1])]), at(5, clear.clone())]);
    assert!(index.head(&key(2)).unwrap().is_some());
    run(&index, &[at(6, [lacks(5, [9])]), at(7, clear)]);
    assert!(index.head(&key(2)).unwrap().is_none());
    assert!(index.head(&key(3)).unwrap().is_some());
}

#[test]
fn heads_that_a_fence_covers_are_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    run(&index, &[at(1, [join(5), head(2, 9, 0, 5), head(3, 8, 0, 5), fence_site("docs")])]);
    assert_eq!(index.useless_heads(&[], 10).unwrap().found, [key(2)]);
    run(&index, &[at(2, clearing(&index))]);
    assert!(storage::read_head(&index.db(), &key(2)).unwrap().is_none());
    assert!(index.head(&key(3)).unwrap().is_some());
}

#[test]
fn holders_announce_all_or_some_chunks_within_limits() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let found = |o| index.holders(&object(o)).unwrap();
    run(&index, &[at(1, [join(5), has_some(5, 9, vec![0b101])])]);
    assert_eq!(found(9), [(NodeId(5), Holding::Bitmap(vec![0b101]))]);
    run(&index, &[at(2, [has(5, [9])])]);
    assert_eq!(found(9), [(NodeId(5), Holding::Complete)]);
    run(&index, &[at(3, [has_some(5, 9, vec![0b10])]), at(4, [has_some(5, 7, vec![1])])]);
    assert_eq!(found(9), [(NodeId(5), Holding::Bitmap(vec![0b10]))], "it lost some");
    run(&index, &[at(5, [lacks(5, [9])])]);
    assert!(found(9).is_empty());
    let many = vec![ObjectRef::from(&object(8)).0; ANNOUNCE_CHANGES_MAX + 1].concat();
    let torn = v1::NodeHolders { node_id: 5, complete: vec![8; 13].into(), ..Default::default() };
    let refused = [
        has_some(5, 8, vec![0xff; CHUNKS_MAX as usize / 8 + 1]),
        has_some(5, 8, Vec::new()),
        has(7, [8]),
        Command::Holders(torn.clone()),
        Command::Holders(v1::NodeHolders { complete: many.into(), ..torn }),
    ];
    let replies = run(&index, &[at(6, refused)]);
    assert!(replies[0].iter().all(|reply| reply.refused), "{replies:?}");
    assert!(found(8).is_empty());
    let located = index.locate(&[object(7), object(8)].map(|o| ObjectRef::from(&o))).unwrap();
    assert_eq!(located[0], Holders { complete: vec![], partial: vec![NodeId(5)] });
    assert_eq!(located[1], Holders::default());
}

#[test]
fn a_replaced_node_holds_nothing_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let some = has_some(5, 200, vec![1]);
    run(&index, &[at(1, [join(5), join(4), head(2, 9, 0, 5), has(5, 0..100), has(4, [3]), some])]);
    let Command::PutMember(mut put) = join(6) else { unreachable!() };
    put.node.as_mut().unwrap().name = "n5".into();
    assert!(run(&index, &[at(3, [Command::PutMember(put)])])[0][0].created);
    assert!(index.member(NodeId(5)).is_none());
    assert!(index.holders(&object(9)).unwrap().is_empty(), "at once");
    assert_eq!(index.holders(&object(3)).unwrap(), [(NodeId(4), Holding::Complete)]);
    assert_eq!(index.void_slots(), [VoidSlot { slot: 1, since: 3, partials: true }]);
    // Its slot is nobody's before its records are gone.
    let late = run(&index, &[at(4, [has(5, [101]), join(7), has(7, [77])])]);
    assert!(late[0][0].refused);
    assert_eq!(index.holders(&object(77)).unwrap(), [(NodeId(7), Holding::Complete)]);
    let clear = clearing(&index);
    run(&index, &[at(5, clear.clone())]);
    assert!(index.void_slots().is_empty());
    assert_eq!(index.complete_of(&[1], &[], usize::MAX).unwrap().found, Refs::new());
    assert_eq!(index.partial_of(&[1], &[], usize::MAX).unwrap().found, Refs::new());
    assert!(index.head(&key(2)).unwrap().is_none(), "nobody can serve it");
    // The slot is another's now: what was proposed against its former node does nothing.
    run(&index, &[at(6, [join(8), has(8, [9])]), at(7, clear)]);
    assert_eq!(index.holders(&object(9)).unwrap(), [(NodeId(8), Holding::Complete)]);
    assert_eq!(index.complete_of(&[1], &[], usize::MAX).unwrap().found.len(), 1);
}

#[test]
fn a_member_long_down_is_to_announce_everything_again() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let down = |session_id| v1::MemberDown { node_id: 5, session_id };
    let expire = |session_id| {
        let expired = vec![down(session_id)];
        Command::Clear(v1::Clear { expired, ..Default::default() })
    };
    run(&index, &[at(1, [join(5), has(5, [9])]), at(2, [expire(5)])]);
    assert!(index.has_slot(NodeId(5)), "it is up");
    run(&index, &[at(3, [Command::MemberDown(down(5))]), at(4, [expire(4)])]);
    assert_eq!(index.holders(&object(9)).unwrap().len(), 1, "it may be back");
    assert!(!run(&index, &[at(5, [join(5)])])[0][0].created);
    run(&index, &[at(6, [Command::MemberDown(down(5)), expire(5)])]);
    assert!(index.holders(&object(9)).unwrap().is_empty());
    assert!(index.member(NodeId(5)).is_some() && !index.has_slot(NodeId(5)));
    assert!(run(&index, &[at(7, [join(5)])])[0][0].created);
    assert!(index.holders(&object(9)).unwrap().is_empty());
}

#[test]
fn a_survey_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    run(&index, &[at(1, [join(5), has(5, 0..10)])]);
    let (mut found, mut from, mut pieces) = (Vec::new(), Vec::new(), 0);
    loop {
        let piece = index.complete_of(&[1], &from, 4).unwrap();
        found.extend(piece.found.into_values().flatten());
        pieces += 1;
        match piece.next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!((pieces, found), (3, refs(0..10).to_vec()));
}

#[test]
fn a_head_takes_the_same_room_however_large_its_object_is() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let Command::PutHead(mut large) = head(4, 8, 0, 5) else { unreachable!() };
    (large.length, large.chunk_count) = (u64::from(CHUNKS_MAX) << 20, CHUNKS_MAX);
    run(&index, &[at(1, [join(5), head(2, 9, 0, 5), Command::PutHead(large)])]);
    let db = index.db();
    let heads = db.cf_handle("heads").unwrap();
    let bytes = |k| db.get_cf(heads, key(k).as_bytes()).unwrap();
    let (small, large) = (bytes(2).unwrap().len(), bytes(4).unwrap().len());
    assert!(large - small <= 8, "numbers alone differ: {small} and {large} bytes");
    assert!(large < 160, "{large} bytes");
    assert_eq!(index.holders(&object(8)).unwrap().len(), 1);
}

#[test]
fn the_digest_tells_what_was_applied_apart() {
    let dirs = [0, 1, 2, 3].map(|_| tempfile::tempdir().unwrap());
    let digest = |dir: &tempfile::TempDir, commands: Vec<Command>| {
        let index = open(dir.path());
        run(&index, &[at(1, [join(5), join(6)])]);
        run(&index, &[at(2, commands)]);
        let digest = index.digest();
        drop(index);
        assert_eq!(open(dir.path()).digest(), digest, "after a restart");
        assert_eq!(digest.position, 2);
        digest.digest
    };
    let first = digest(&dirs[0], vec![has(5, [1, 2]), has(6, [3])]);
    assert_ne!(first, digest(&dirs[1], vec![has(5, [1, 2]), has(5, [3])]));
    assert_ne!(first, digest(&dirs[2], vec![has(5, [1, 2]), lacks(6, [3])]));
    assert_eq!(first, digest(&dirs[3], vec![has(5, [1, 2]), has(7, [9]), has(6, [3])]), "refused");
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
    let some = prop::collection::vec(0u8..6, 0..4);
    let void = (1u32..6, 0u64..20).prop_map(|(slot, since)| v1::VoidSlot { slot, since });
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
        (node.clone(), some.clone()).prop_map(|(n, o)| has(n, o)),
        (node.clone(), some.clone()).prop_map(|(n, o)| lacks(n, o)),
        (node.clone(), small.clone()).prop_map(|(n, o)| has_some(n, o, vec![1])),
        (node, void, some).prop_map(|(n, void, some)| Command::Clear(v1::Clear {
            expired: vec![v1::MemberDown { node_id: n, session_id: n }],
            holdings: vec![v1::VoidHoldings {
                slot: Some(void),
                complete: refs(some.clone()),
                partial: refs(some.clone()),
            }],
            slots: if some.len() == 1 { vec![void] } else { vec![] },
            heads: some.iter().flat_map(|k| *key(*k).as_bytes()).collect::<Vec<_>>().into(),
        })),
        small.clone().prop_map(fence_key),
        (0u64..20, small, any::<bool>()).prop_map(|(base, n, put)| {
            let names = [["docs", "apt"][usize::from(n) % 2]];
            let (put, drop) = if put { (&names[..], &[][..]) } else { (&[][..], &names[..]) };
            change_sites(base, put, drop)
        }),
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
        prop_assert_eq!(one.digests(), other.digests());
        let before = (one.records(), one.fences_after(0), one.sites());
        one.replace(one.db()).unwrap();
        prop_assert_eq!((one.records(), one.fences_after(0), one.sites()), before);
    }
}
