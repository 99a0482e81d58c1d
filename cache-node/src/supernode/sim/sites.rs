//! The sites of a simulated cluster: who changes them, each time for the table that was just read,
//! and what nodes take in.
//!
//! Judged: the table is linearizable; what one revision says is the same everywhere; a node never
//! goes back to older sites; once all is well everybody has the newest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_proto::limits::WRITE_DEADLINE_MS;
use shoal_proto::wire::v1::{self, SiteSource, command::Command};

use super::super::raft::simulated::{now_us, sleep_ms};
use super::clients;
use super::history::SitesOp;
use super::linear::Called;
use super::node::SuperNode;
use super::world::World;

/// Who changes sites.
const EDITORS: u64 = 290;
pub(super) const EDITORS_COUNT: u64 = 2;
/// Between two changes of one of them, at most, in milliseconds.
const CHANGE_EVERY_MS: u64 = 800;
/// Longer than any super-node tries.
const PATIENCE_MS: u64 = WRITE_DEADLINE_MS + 500;

/// What was seen of sites.
#[derive(Default)]
pub(super) struct Seen(Mutex<BTreeMap<u64, v1::SiteTable>>);

impl Seen {
    fn tables(&self) -> MutexGuard<'_, BTreeMap<u64, v1::SiteTable>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node takes a table in, and had another before.
    pub(super) fn taken(&self, world: &World, node: u64, before: u64, table: &v1::SiteTable) {
        if table.revision < before {
            let what = format!("{node} had {before} and is told {}", table.revision);
            world.check.violated("sites never go back", what);
        }
        let mut tables = self.tables();
        let known = tables.entry(table.revision).or_insert_with(|| table.clone());
        if known != table {
            let what = format!("{}: {known:?}, and to {node} {table:?}", table.revision);
            world.check.violated("a revision is one table", what);
        }
    }
}

/// The number that an editor wrote last; every change writes another.
fn value(table: &v1::SiteTable) -> u64 {
    let newest = table.sites.iter().max_by_key(|site| site.position);
    let newest = newest.filter(|site| site.position == table.revision);
    let number = newest.and_then(|site| std::str::from_utf8(&site.definition).ok()?.parse().ok());
    number.unwrap_or_default()
}

/// Changes sites, one operation after the other.
pub(super) async fn edit(world: Arc<World>, number: u64) {
    let me = EDITORS + number;
    let mut rng = world.rng.fork("editor", number);
    for count in 1.. {
        sleep_ms(rng.below(CHANGE_EVERY_MS) + 1).await;
        if world.histories.is_over() {
            return;
        }
        let Some(way) = clients::any(&world, me, &mut rng) else { continue };
        let called = now_us();
        let read = |node: Arc<SuperNode>| node.read_sites();
        let Some(table) = world.ask(way, PATIENCE_MS, read).await else { continue };
        let from = value(&table);
        world.histories.sites(Called { op: SitesOp::Read(from), called, returned: Some(now_us()) });
        let to = count * EDITORS_COUNT + number;
        let change = change(&table, (rng.below(3), to));
        let op = SitesOp::Change { from, to };
        // On the record before it is called: the world may end meanwhile.
        let at = world.histories.sites(Called { op, called: now_us(), returned: None });
        let Some(way) = clients::any(&world, me, &mut rng) else { continue };
        let ask = move |node: Arc<SuperNode>| {
            let command = Command::ChangeSites(change.clone());
            async move { node.submit(command).await }
        };
        let done = world.ask(way, PATIENCE_MS, ask).await;
        world.note(format_args!("{me} changes sites from {from} to {to}: {done:?}"));
        // One that is refused may be the second try of one that was not.
        if done.is_some_and(|(_, reply)| !reply.refused) {
            world.histories.sites_returned(at, now_us());
        }
    }
}

/// Puts one of some sites, and removes another at times.
fn change(table: &v1::SiteTable, (of, to): (u64, u64)) -> v1::ChangeSites {
    let name = |number: u64| format!("site-{number}");
    let put = v1::SiteDefinition {
        name: name(of),
        definition: to.to_string().into_bytes().into(),
        source: SiteSource::Call.into(),
        position: 0,
    };
    let other = name((of + 1) % 3);
    let there = to.is_multiple_of(3) && table.sites.iter().any(|site| site.name == other);
    let drop = if there { vec![other] } else { Vec::new() };
    v1::ChangeSites { base: table.revision, put: vec![put], drop }
}
