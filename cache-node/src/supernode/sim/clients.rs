//! Who writes to the index and reads it back, and who purges. What they called and what came of it
//! goes into the histories.

use std::sync::Arc;

use shoal_proto::id::OBJECT_REF_BYTES;
use shoal_proto::limits::WRITE_DEADLINE_MS;
use shoal_proto::wire::v1::{self, command::Command, fence_matcher::Matcher};
use shoal_proto::{NodeId, ObjectId};

use super::super::index::Holding;
use super::super::raft::simulated::{now_us, sleep_ms};
use super::history::{HoldingOp, KeyOp};
use super::linear::Called;
use super::node::{SuperNode, info};
use super::rng::Rng;
use super::world::{World, object_key, path, site, tag};

/// Ids of those who announce begin here.
const WRITERS: u64 = 200;
/// How many of them there are, how many objects each has, and how many read.
pub(super) const WRITERS_COUNT: u64 = 2;
const OBJECTS: u64 = 2;
pub(super) const READERS_COUNT: u64 = 2;
/// Between two operations of one client, at most, in milliseconds.
const OP_EVERY_MS: u64 = 300;
/// Longer than any super-node tries: a try of an operation that was given up could be applied after
/// the next operation.
const PATIENCE_MS: u64 = WRITE_DEADLINE_MS + 500;
/// A purge is waited for so long, in milliseconds.
const PURGE_PATIENCE_MS: u64 = 20_000;

fn object(writer: u64, number: u64) -> ObjectId {
    let name = [writer.to_le_bytes(), number.to_le_bytes()].concat();
    ObjectId::new(*blake3::hash(&name).as_bytes())
}

/// A super-node at random, and the way to it.
pub(super) fn any(world: &World, me: u64, rng: &mut Rng) -> Option<(u64, u64)> {
    let all: Vec<u64> = world.super_nodes().iter().map(|node| node.id).collect();
    (!all.is_empty()).then(|| (me, rng.pick(&all)))
}

/// Announces, one operation after the other.
pub(super) async fn write(world: Arc<World>, number: u64) {
    let me = WRITERS + number;
    let mut rng = world.rng.fork("writer", number);
    let put =
        v1::PutMember { node: Some(info(me, v1::Role::Node)), session_id: me, super_node_id: 1 };
    while submit(&world, me, &mut rng, Command::PutMember(put.clone())).await.is_none() {
        sleep_ms(OP_EVERY_MS).await;
    }
    for value in 1.. {
        sleep_ms(rng.below(OP_EVERY_MS) + 1).await;
        if world.histories.is_over() {
            return;
        }
        let of = rng.below(OBJECTS);
        let value = if rng.one_in(5) { 0 } else { value };
        let object = object(me, of);
        let named = &object.as_bytes()[..OBJECT_REF_BYTES];
        let mut holders = v1::NodeHolders { node_id: me, ..Default::default() };
        match value {
            0 => holders.gone = named.to_vec().into(),
            value => holders.partial.push(v1::PartialHolding {
                object_ref: named.to_vec().into(),
                chunks: (value as u32).to_le_bytes().to_vec().into(),
            }),
        }
        let command = Command::Holders(holders);
        // On the record before it is called: the world may end meanwhile.
        let called = Called { op: HoldingOp::Say(value), called: now_us(), returned: None };
        world.histories.holding((me, of), called);
        let done = submit(&world, me, &mut rng, command).await;
        world.note(format_args!("{me} says {value} of {of}: {done:?}"));
        if done.is_some() {
            world.histories.returned((me, of), now_us());
        }
    }
}

async fn submit(world: &Arc<World>, me: u64, rng: &mut Rng, command: Command) -> Option<()> {
    let way = any(world, me, rng)?;
    let ask = move |node: Arc<SuperNode>| {
        let command = command.clone();
        async move { node.submit(command).await }
    };
    let (_, reply) = world.ask(way, PATIENCE_MS, ask).await?;
    if reply.refused {
        world.check.violated("a member may announce", format!("{me} is refused"));
    }
    Some(())
}

/// Reads linearizably, one operation after the other.
pub(super) async fn read(world: Arc<World>, number: u64) {
    let me = WRITERS + 50 + number;
    let mut rng = world.rng.fork("reader", number);
    while !world.histories.is_over() {
        sleep_ms(rng.below(OP_EVERY_MS) + 1).await;
        let of = (WRITERS + rng.below(WRITERS_COUNT), rng.below(OBJECTS));
        read_once(&world, me, of, &mut rng).await;
    }
}

async fn read_once(world: &Arc<World>, me: u64, of: (u64, u64), rng: &mut Rng) -> bool {
    let Some(way) = any(world, me, rng) else { return false };
    let id = object(of.0, of.1);
    let called = now_us();
    let ask = move |node: Arc<SuperNode>| node.read_holding(id, NodeId(of.0));
    let Some(found) = world.ask(way, PATIENCE_MS, ask).await else { return false };
    let value = match found {
        None => 0,
        Some(Holding::Complete) => u64::MAX,
        Some(Holding::Bitmap(bytes)) => {
            bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
        }
    };
    world.note(format_args!("{me} reads {value} of {of:?}"));
    let op = HoldingOp::Read(value);
    world.histories.holding(of, Called { op, called, returned: Some(now_us()) });
    true
}

/// Reads everything that was ever announced, once more, at every super-node's turn.
pub(super) async fn read_all(world: &Arc<World>) -> bool {
    let mut rng = world.rng.fork("last reads", 0);
    for writer in 0..WRITERS_COUNT {
        for number in 0..OBJECTS {
            let of = (WRITERS + writer, number);
            let mut tries = 0;
            while !read_once(world, WRITERS + 99, of, &mut rng).await {
                tries += 1;
                if tries > 5 {
                    return false;
                }
            }
        }
    }
    true
}

/// Changes the origin and purges, one after the other.
pub(super) async fn purge(world: Arc<World>, number: u64) {
    let mut rng = world.rng.fork("purger", number);
    while !world.histories.is_over() {
        sleep_ms(rng.below(world.plan.purge_every_ms) + 1).await;
        purge_once(&world, number, &mut rng).await;
    }
}

/// One change and one purge; whether it returned.
pub(super) async fn purge_once(world: &Arc<World>, number: u64, rng: &mut Rng) -> bool {
    let key = rng.below(u64::from(world.plan.keys)) as u8;
    if !rng.one_in(4) {
        let version = world.publish_at_origin(key);
        let (op, now) = (KeyOp::Update(version), now_us());
        world.note(format_args!("the origin has {key} version {version}"));
        world.histories.key(key, Called { op, called: now, returned: Some(now) });
    }
    let (matcher, matches) = matcher(key, rng);
    let soft = rng.one_in(4);
    let called = now_us();
    let Some(way) = any(world, WRITERS + 80 + number, rng) else { return false };
    let said = format!("{matcher:?}, soft {soft}");
    let ask = move |node: Arc<SuperNode>| {
        node.purge(v1::FenceMatcher { matcher: Some(matcher.clone()), soft })
    };
    let done = world.ask(way, PURGE_PATIENCE_MS, ask).await;
    let returned = done.map(|_| now_us());
    world.note(format_args!("{key} purged by {said}: {done:?}"));
    for key in (0..world.plan.keys).filter(|key| matches(*key)) {
        world.histories.key(key, Called { op: KeyOp::Purge, called, returned });
    }
    returned.is_some()
}

/// A matcher that matches at least this key, and which others.
fn matcher(of: u8, rng: &mut Rng) -> (Matcher, Box<dyn Fn(u8) -> bool + Send>) {
    let labelled = |label| v1::LabelMatcher { site: site(of).to_owned(), label };
    let same_site = move |key: u8| site(key) == site(of);
    match rng.below(6) {
        0 => (Matcher::Site(site(of).to_owned()), Box::new(same_site)),
        1 => (
            Matcher::Prefix(labelled(path(of))),
            Box::new(move |key| same_site(key) && path(key) == path(of)),
        ),
        2 => (
            Matcher::Tag(labelled(tag(of))),
            Box::new(move |key| same_site(key) && tag(key) == tag(of)),
        ),
        _ => (Matcher::Key(object_key(of).to_wire()), Box::new(move |key| key == of)),
    }
}
