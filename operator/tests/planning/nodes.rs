//! A small model of a pool: nodes, the objects that only they have, and drains that hand them off.

use std::collections::BTreeMap;

use crate::world::ROUND_S;
use shoal_operator::plan::pool::{Drain, DrainState, Node, Observed};
use shoal_operator::plan::{Op, Step};

#[derive(Clone, Debug)]
struct Real {
    version: u32,
    leaving: bool,
    draining: bool,
    broken: bool,
    since: i64,
    /// Objects that nobody else has.
    alone: u64,
    stuck: bool,
}

/// The pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nodes {
    pub(crate) now: i64,
    pub(crate) version: u32,
    pub(crate) broken_version: Option<u32>,
    nodes: BTreeMap<String, Real>,
    drawn: u32,
}

impl Nodes {
    pub(crate) fn new() -> Self {
        Self { now: 1_000_000, version: 1, ..Self::default() }
    }

    pub(crate) fn observe(&self) -> Observed {
        let node = |(name, real): (&String, &Real)| Node {
            name: name.clone(),
            leaving: real.leaving,
            pod: true,
            running: !real.broken,
            ready_since_s: (!real.broken && real.since <= self.now).then_some(real.since),
            current: real.version == self.version,
            drain: (!real.broken).then_some(Drain {
                state: match (real.draining, real.alone) {
                    (false, _) => DrainState::Serving,
                    (true, 0) => DrainState::Drained,
                    (true, _) => DrainState::Draining,
                },
                objects_left: real.alone,
                stalled: real.stuck,
            }),
            ..Node::default()
        };
        Observed { now_s: self.now, nodes: self.nodes.iter().map(node).collect() }
    }

    pub(crate) fn pass(&mut self) {
        self.now += ROUND_S;
        let others = self.nodes.values().filter(|node| !node.draining && !node.broken).count();
        for node in self.nodes.values_mut().filter(|node| !node.broken) {
            if node.draining && !node.stuck && others > 0 {
                node.alone /= 3;
            } else if !node.draining {
                node.alone += 2;
            }
        }
    }

    /// Nodes that clients can use.
    pub(crate) fn serving(&self, min_ready_s: i64) -> usize {
        let serves = |node: &&Real| {
            !node.broken && !node.leaving && self.now.saturating_sub(node.since) >= min_ready_s
        };
        self.nodes.values().filter(serves).count()
    }

    pub(crate) fn apply(&mut self, step: &Step, force: bool) -> Result<(), String> {
        match &step.op {
            Op::CreateNode => {
                self.drawn += 1;
                let broken = self.broken_version == Some(self.version);
                let since = self.now + ROUND_S;
                let real = Real {
                    version: self.version,
                    leaving: false,
                    draining: false,
                    broken,
                    since,
                    alone: 0,
                    stuck: false,
                };
                self.nodes.insert(format!("node-{:03}", self.drawn), real);
            }
            Op::DrainNode { node } => {
                let node = self.node(node)?;
                node.leaving = true;
                node.draining = !node.broken;
            }
            Op::KeepNode { node } => {
                let node = self.node(node)?;
                node.leaving = false;
                node.draining = false;
            }
            Op::DeleteNode { node } => {
                let real = self.node(node)?.clone();
                if !real.broken && real.alone > 0 && !(force && real.stuck) {
                    return Err(format!("{node} had {} objects that nobody else has", real.alone));
                }
                self.nodes.remove(node);
            }
            other => return Err(format!("{other:?} is no step for nodes")),
        }
        Ok(())
    }

    fn node(&mut self, name: &str) -> Result<&mut Real, String> {
        self.nodes.get_mut(name).ok_or_else(|| format!("no node {name:?}"))
    }

    pub(crate) fn strike(&mut self, event: u8, which: u8) {
        let count = self.nodes.len().max(1);
        let Some(name) = self.nodes.keys().nth(usize::from(which) % count).cloned() else { return };
        match event {
            0 => {
                // Its machine is gone, and what it had.
                self.nodes.remove(&name);
            }
            1 => {
                if let Some(node) = self.nodes.get_mut(&name) {
                    node.stuck = !node.stuck;
                }
            }
            _ => {}
        }
    }

    pub(crate) fn unstick(&mut self) {
        for node in self.nodes.values_mut() {
            node.stuck = false;
        }
    }

    pub(crate) fn is_as_wanted(&self, size: usize) -> bool {
        let good = |node: &Real| node.version == self.version && !node.leaving && !node.broken;
        self.nodes.len() == size && self.nodes.values().all(good)
    }
}
