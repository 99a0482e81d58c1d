//! A swarm in virtual time: every node runs the session that nodes run, over lines of a given rate.
//!
//! Uploads of a node wait in one queue, and a few leave at a time. What leaves shares the sender's
//! line and the receiver's with whatever else is on them (`lines`): a sender whose chunks go where
//! much arrives is held up by that, as it is by TCP. The filler gets the object in order at its own
//! line's rate.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

use shoal_proto::NodeId;

use super::lines::{Flow, Lines};
use super::{Action, Ending, Event, Facts, Swarm, TICK_MS};

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) nodes: usize,
    pub(super) zones: usize,
    pub(super) chunks: u32,
    pub(super) chunk_bytes: u32,
    /// Bytes a second, each way, of every line.
    pub(super) rate: u64,
    /// Other nodes that a node knows, the filler aside.
    pub(super) mates_max: usize,
    /// So many nodes go half way through.
    pub(super) killed: usize,
    /// All start with the whole object at the filler.
    pub(super) filled: bool,
    /// From one node to another, one way, in microseconds.
    pub(super) latency_us: u64,
    /// Chunks that leave a node at a time.
    pub(super) slots: usize,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Time over the ideal of each node that got everything, in order.
    pub(super) times: Vec<f64>,
    /// Bytes that the filler sent, over the object's.
    pub(super) filler_sent: f64,
    /// Bytes that entered the worst zone other than the filler's, over the object's.
    pub(super) zone_entered: f64,
    /// Nodes that gave up.
    pub(super) stuck: usize,
}

const HAS_BATCH_US: u64 = 10_000;
/// Beyond it a simulation is lost.
const TIMES_IDEAL_MAX: u64 = 50;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Fill(u32),
    Known(usize, u32, bool),
    Has(usize, usize, u32),
    Asked(usize, usize, u64, Vec<u32>),
    /// A chunk has arrived, unless lines were shared out anew since.
    Lines(u64),
    Arrived(usize, usize, u64, u32),
    Over(usize, u64),
    Tick(usize),
    Kill(usize),
}

struct Host {
    swarm: Swarm,
    has: Vec<bool>,
    queue: VecDeque<(usize, u64, u32)>,
    uploads: usize,
    alive: bool,
    done_us: Option<u64>,
    mates: Vec<usize>,
    expected: BTreeSet<(u64, u32)>,
}

pub(super) struct Simulator {
    setup: Setup,
    hosts: Vec<Host>,
    events: BinaryHeap<Reverse<(u64, u64, What)>>,
    turn: u64,
    now_us: u64,
    lines: Lines,
    sent: Vec<u64>,
    entered: Vec<u64>,
    stuck: usize,
}

impl Simulator {
    pub(super) fn new(setup: Setup) -> Self {
        let Setup { nodes, chunks, chunk_bytes, .. } = setup;
        let hosts = (0..nodes).map(|host| Host {
            swarm: Swarm::new(
                0,
                (NodeId(host as u64), (host % setup.zones) as u32),
                7,
                chunk_bytes,
            ),
            has: vec![false; chunks as usize],
            queue: VecDeque::new(),
            uploads: 0,
            alive: true,
            done_us: None,
            mates: mates(setup, host),
            expected: BTreeSet::new(),
        });
        let mut sim = Self {
            hosts: hosts.collect(),
            events: BinaryHeap::new(),
            turn: 0,
            now_us: 0,
            lines: Lines::new(nodes, setup.rate),
            sent: vec![0; nodes],
            entered: vec![0; setup.zones],
            stuck: 0,
            setup,
        };
        for host in 1..nodes {
            sim.tell(host, Event::Met(Facts { id: NodeId(0), zone: 0, mate: false }));
            for mate in 1..nodes {
                let (id, zone) = (NodeId(mate as u64), sim.zone(mate) as u32);
                sim.tell(host, Event::Pulls { id, zone });
            }
            for mate in sim.hosts[host].mates.clone() {
                let (id, zone) = (NodeId(mate as u64), sim.zone(mate) as u32);
                sim.tell(host, Event::Met(Facts { id, zone, mate: true }));
            }
            sim.at(TICK_MS * 1_000 + host as u64, What::Tick(host));
        }
        for chunk in 0..chunks {
            let at = if setup.filled { 0 } else { sim.chunk_us() * (u64::from(chunk) + 1) };
            sim.at(at, What::Fill(chunk));
        }
        for victim in 1..=setup.killed {
            sim.at(sim.ideal_us() / 2, What::Kill(victim));
        }
        sim
    }

    fn zone(&self, host: usize) -> usize {
        host % self.setup.zones
    }

    fn near(&self, a: usize, b: usize) -> bool {
        self.zone(a) == self.zone(b)
    }

    fn chunk_us(&self) -> u64 {
        u64::from(self.setup.chunk_bytes) * 1_000_000 / self.setup.rate
    }

    fn ideal_us(&self) -> u64 {
        self.chunk_us() * u64::from(self.setup.chunks)
    }

    fn at(&mut self, at_us: u64, what: What) {
        self.turn += 1;
        self.events.push(Reverse((at_us, self.turn, what)));
    }

    pub(super) fn run(mut self) -> Outcome {
        let end_us = self.ideal_us() * TIMES_IDEAL_MAX;
        while let Some(Reverse((at_us, _, what))) = self.events.pop() {
            self.now_us = at_us;
            let waiting = |host: &Host| host.alive && host.done_us.is_none();
            if at_us > end_us || !self.hosts[1..].iter().any(waiting) {
                break;
            }
            self.happens(what);
        }
        let ideal = self.ideal_us() as f64;
        let mut times: Vec<f64> =
            self.hosts.iter().filter_map(|h| h.done_us).map(|us| us as f64 / ideal).collect();
        times.sort_by(f64::total_cmp);
        let chunks = f64::from(self.setup.chunks);
        let entered = self.entered.iter().skip(1).max().copied().unwrap_or_default();
        Outcome {
            times,
            filler_sent: self.sent[0] as f64 / chunks,
            zone_entered: entered as f64 / chunks,
            stuck: self.stuck,
        }
    }

    fn happens(&mut self, what: What) {
        match what {
            What::Fill(chunk) => {
                self.hosts[0].has[chunk as usize] = true;
                let all = chunk + 1 == self.setup.chunks;
                for host in 1..self.hosts.len() {
                    self.at(self.now_us + self.setup.latency_us, What::Known(host, chunk + 1, all));
                }
            }
            What::Known(host, count, all) => {
                self.tell(host, Event::Has { peer: NodeId(0), first: 0, count });
                self.tell(host, Event::Known { count, all });
            }
            What::Has(host, peer, first) => {
                self.tell(host, Event::Has { peer: NodeId(peer as u64), first, count: 1 });
            }
            What::Asked(host, from, request, chunks) if self.hosts[host].alive => {
                let queue = &mut self.hosts[host].queue;
                queue.extend(chunks.into_iter().map(|chunk| (from, request, chunk)));
                self.upload(host);
            }
            What::Asked(_, from, request, _) => {
                self.end(from, request, Ending::Failed);
            }
            What::Lines(shared) => self.lines_moved(shared),
            What::Arrived(host, from, request, chunk) => self.arrived(host, from, request, chunk),
            What::Over(host, request) => self.end(host, request, Ending::Served),
            What::Tick(host) => {
                self.tell(host, Event::Tick);
                if self.hosts[host].alive && self.hosts[host].done_us.is_none() {
                    self.at(self.now_us + TICK_MS * 1_000, What::Tick(host));
                }
            }
            What::Kill(victim) => {
                self.hosts[victim].alive = false;
                self.hosts[victim].queue.clear();
                self.lines.cut(self.now_us, victim).into_iter().for_each(|flow| {
                    self.hosts[flow.from].uploads -= 1;
                });
                self.share_lines();
                (0..self.hosts.len()).for_each(|host| self.upload(host));
                for host in 1..self.hosts.len() {
                    self.tell(host, Event::Lost(NodeId(victim as u64)));
                }
            }
        }
    }

    fn end(&mut self, host: usize, request: u64, ending: Ending) {
        self.tell(host, Event::Ended { request, ending });
    }

    /// Sends chunks that wait, as many as may leave at a time.
    fn upload(&mut self, host: usize) {
        let mut begun = false;
        while self.hosts[host].uploads < self.setup.slots
            && let Some((to, request, chunk)) = self.next_upload(host)
        {
            let wanted = self.hosts[to].expected.contains(&(request, chunk));
            if !self.hosts[host].alive || !wanted {
                continue;
            }
            assert!(self.hosts[host].has[chunk as usize], "{host} was asked for what it has not");
            self.sent[host] += 1;
            self.hosts[host].uploads += 1;
            let bytes = f64::from(self.setup.chunk_bytes);
            self.lines.add(self.now_us, Flow { from: host, to, request, chunk, bytes });
            begun = true;
        }
        if begun {
            self.share_lines();
        }
    }

    /// What waits for longest and has its lane to itself: chunks of one lane leave one by one.
    fn next_upload(&mut self, host: usize) -> Option<(usize, u64, u32)> {
        let free = |(to, ..): &(usize, u64, u32)| !self.lines.carries(host, *to);
        let at = self.hosts[host].queue.iter().position(free)?;
        self.hosts[host].queue.remove(at)
    }

    fn share_lines(&mut self) {
        if let Some((at_us, shared)) = self.lines.share(self.now_us) {
            self.at(at_us, What::Lines(shared));
        }
    }

    fn lines_moved(&mut self, shared: u64) {
        let over = self.lines.over(self.now_us, shared);
        for Flow { from, to, request, chunk, .. } in &over {
            self.hosts[*from].uploads -= 1;
            let arrived = What::Arrived(*to, *from, *request, *chunk);
            self.at(self.now_us + self.setup.latency_us, arrived);
        }
        if !over.is_empty() {
            self.share_lines();
            over.iter().for_each(|flow| self.upload(flow.from));
        }
    }

    fn arrived(&mut self, host: usize, from: usize, request: u64, chunk: u32) {
        if !self.near(host, from) {
            let zone = self.zone(host);
            self.entered[zone] += 1;
        }
        if !self.hosts[host].alive || !self.hosts[host].expected.remove(&(request, chunk)) {
            return;
        }
        let new = !std::mem::replace(&mut self.hosts[host].has[chunk as usize], true);
        self.tell(host, Event::Good { request, chunk });
        if new {
            for mate in self.hosts[host].mates.clone() {
                self.at(
                    self.now_us + HAS_BATCH_US + self.setup.latency_us,
                    What::Has(mate, host, chunk),
                );
            }
        }
        if !self.hosts[host].expected.iter().any(|(number, _)| *number == request) {
            self.at(self.now_us, What::Over(host, request));
        }
        let read = self.hosts[host].has.iter().take_while(|has| **has).count() as u32;
        self.tell(host, Event::Reads { chunk: read });
    }

    fn tell(&mut self, host: usize, event: Event) {
        if host == 0 || !self.hosts[host].alive {
            return;
        }
        for action in self.hosts[host].swarm.on(self.now_us / 1_000, event) {
            match action {
                Action::Request { request, peer, chunks } => {
                    self.hosts[host].expected.extend(chunks.iter().map(|chunk| (request, *chunk)));
                    let asked = What::Asked(peer.0 as usize, host, request, chunks);
                    self.at(self.now_us + self.setup.latency_us, asked);
                }
                Action::Cancel { request } => {
                    self.hosts[host].expected.retain(|(number, _)| *number != request);
                }
                Action::Done => self.hosts[host].done_us = Some(self.now_us),
                Action::Stuck => {
                    self.stuck += 1;
                    self.hosts[host].alive = false;
                }
            }
        }
    }
}

/// Whom a node knows: all, or as many as it may in a graph where whoever knows is known.
fn mates(setup: Setup, host: usize) -> Vec<usize> {
    let others = setup.nodes - 1;
    if host == 0 || others <= setup.mates_max + 1 {
        return (1..setup.nodes).filter(|mate| *mate != host && host != 0).collect();
    }
    // Steps around a ring, growing from one: near ones and far ones.
    let half = setup.mates_max / 2;
    let step = |i: usize| ((others / 2) as f64).powf((i + 1) as f64 / half as f64).ceil() as usize;
    let at = |offset: usize| 1 + (host - 1 + offset) % others;
    let both = (0..half).flat_map(|i| [at(step(i)), at(others - step(i))]);
    both.filter(|mate| *mate != host).collect::<BTreeSet<_>>().into_iter().collect()
}
