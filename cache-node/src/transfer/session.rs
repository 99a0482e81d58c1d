//! PURE. Pulling one object's chunks from several holders: which runs of chunks are asked of whom,
//! and what happens when a holder is slow, wrong or gone.
//!
//! `on(event) -> actions`: no clock, no socket, no task. Runs are handed out in order, so that a
//! client that reads along waits least; a run that was not delivered whole goes back in front.
//!
//! Invariants: a chunk is asked of one holder at a time; a holder that sent one bad chunk is asked
//! nothing more; every chunk ends up done, or the session ends in [`Action::Stuck`].
//!
//! Not here yet: rarest-first, hedging and rates, which the swarm of many followers needs.

use std::collections::{BTreeSet, HashMap};

use shoal_proto::NodeId;

/// Chunks asked for in one request.
const RUN_CHUNKS_MAX: u32 = 8;
/// Requests under way at one holder.
const REQUESTS_PER_HOLDER_MAX: u32 = 2;
/// Requests under way in all.
const REQUESTS_MAX: usize = 4;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The session begins.
    Start,
    /// A chunk arrived and matched its hash.
    Good {
        /// The chunk.
        chunk: u32,
    },
    /// A chunk arrived and did not match its hash.
    Bad {
        /// The request that it came by.
        request: u64,
    },
    /// A request has ended, whether or not all its chunks arrived.
    Ended {
        /// The request.
        request: u64,
        /// Its holder failed: lost, refused, silent.
        failed: bool,
    },
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask `holder` for `count` chunks from `first` on.
    Request {
        /// The request's number.
        request: u64,
        /// Whom to ask.
        holder: NodeId,
        /// First chunk.
        first: u32,
        /// How many.
        count: u32,
    },
    /// Break off a request: what it brings is no longer wanted.
    Cancel {
        /// The request.
        request: u64,
    },
    /// Every chunk is here.
    Done,
    /// No holder is left, and chunks are missing.
    Stuck,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    holder: NodeId,
    first: u32,
    count: u32,
}

/// One object's pull.
#[derive(Debug)]
pub struct Session {
    missing: BTreeSet<u32>,
    asked: BTreeSet<u32>,
    holders: Vec<NodeId>,
    requests: HashMap<u64, Request>,
    next_request: u64,
    ended: bool,
}

impl Session {
    /// A session for the given chunks, from holders in the order of preference.
    pub fn new(missing: impl IntoIterator<Item = u32>, holders: Vec<NodeId>) -> Self {
        Self {
            missing: missing.into_iter().collect(),
            asked: BTreeSet::new(),
            holders,
            requests: HashMap::new(),
            next_request: 0,
            ended: false,
        }
    }

    /// Takes in an event; returns what is to be done because of it.
    pub fn on(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Start => {}
            Event::Good { chunk } => {
                self.missing.remove(&chunk);
                self.asked.remove(&chunk);
            }
            Event::Bad { request } => {
                if let Some(bad) = self.requests.get(&request).copied() {
                    self.drop_holder(bad.holder, &mut actions);
                }
            }
            Event::Ended { request, failed } => self.ended(request, failed, &mut actions),
        }
        self.hand_out(&mut actions);
        actions
    }

    /// The holder that was asked in that request.
    pub fn holder(&self, request: u64) -> Option<NodeId> {
        self.requests.get(&request).map(|request| request.holder)
    }

    fn ended(&mut self, request: u64, failed: bool, actions: &mut Vec<Action>) {
        let Some(ended) = self.requests.remove(&request) else { return };
        let run = ended.first..ended.first.saturating_add(ended.count);
        let short = run.clone().any(|chunk| self.missing.contains(&chunk));
        run.for_each(|chunk| {
            self.asked.remove(&chunk);
        });
        // A holder that ends a request short without an error would be asked for ever.
        if failed || short {
            self.drop_holder(ended.holder, actions);
        }
    }

    fn drop_holder(&mut self, holder: NodeId, actions: &mut Vec<Action>) {
        self.holders.retain(|other| *other != holder);
        let mut lost: Vec<u64> = self
            .requests
            .iter()
            .filter(|(_, request)| request.holder == holder)
            .map(|(number, _)| *number)
            .collect();
        lost.sort_unstable();
        for number in lost {
            if let Some(request) = self.requests.remove(&number) {
                for chunk in request.first..request.first + request.count {
                    self.asked.remove(&chunk);
                }
            }
            actions.push(Action::Cancel { request: number });
        }
    }

    fn hand_out(&mut self, actions: &mut Vec<Action>) {
        if self.ended {
            return;
        }
        if self.missing.is_empty() {
            self.ended = true;
            actions.push(Action::Done);
            return;
        }
        if self.holders.is_empty() {
            self.ended = true;
            actions.push(Action::Stuck);
            return;
        }
        while self.requests.len() < REQUESTS_MAX {
            let Some(holder) = self.freest_holder() else { return };
            let Some((first, count)) = self.next_run() else { return };
            let number = self.next_request;
            self.next_request += 1;
            self.asked.extend(first..first + count);
            self.requests.insert(number, Request { holder, first, count });
            actions.push(Action::Request { request: number, holder, first, count });
        }
    }

    fn freest_holder(&self) -> Option<NodeId> {
        let load = |holder: &NodeId| {
            self.requests.values().filter(|request| request.holder == *holder).count() as u32
        };
        self.holders
            .iter()
            .map(|holder| (load(holder), *holder))
            .filter(|(load, _)| *load < REQUESTS_PER_HOLDER_MAX)
            .min_by_key(|(load, _)| *load)
            .map(|(_, holder)| holder)
    }

    fn next_run(&self) -> Option<(u32, u32)> {
        let first = *self.missing.iter().find(|chunk| !self.asked.contains(chunk))?;
        let wanted = |chunk: &u32| self.missing.contains(chunk) && !self.asked.contains(chunk);
        let count = (first..).take(RUN_CHUNKS_MAX as usize).take_while(wanted).count() as u32;
        Some((first, count))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn requests(actions: &[Action]) -> Vec<(u64, NodeId, u32, u32)> {
        actions
            .iter()
            .filter_map(|action| match action {
                Action::Request { request, holder, first, count } => {
                    Some((*request, *holder, *first, *count))
                }
                _ => None,
            })
            .collect()
    }

    #[test]
    fn runs_go_to_all_holders_in_order() {
        let mut session = Session::new(0..20, vec![A, B]);
        let first = requests(&session.on(Event::Start));
        assert_eq!(first, [(0, A, 0, 8), (1, B, 8, 8), (2, A, 16, 4)]);
    }

    #[test]
    fn a_bad_chunk_drops_its_holder_and_asks_another() {
        let mut session = Session::new(0..3, vec![A, B]);
        assert_eq!(requests(&session.on(Event::Start)), [(0, A, 0, 3)]);
        session.on(Event::Good { chunk: 0 });
        let after = session.on(Event::Bad { request: 0 });
        assert_eq!(after[0], Action::Cancel { request: 0 });
        assert_eq!(requests(&after), [(1, B, 1, 2)]);
    }

    #[test]
    fn a_short_answer_counts_as_a_failure() {
        let mut session = Session::new(0..2, vec![A]);
        session.on(Event::Start);
        session.on(Event::Good { chunk: 0 });
        assert_eq!(session.on(Event::Ended { request: 0, failed: false }), [Action::Stuck]);
    }

    #[test]
    fn nothing_missing_is_done_at_once() {
        assert_eq!(Session::new([], vec![A]).on(Event::Start), [Action::Done]);
    }

    proptest! {
        /// Whatever holders do, as long as one is honest every chunk arrives.
        #[test]
        fn one_honest_holder_is_enough(
            count in 1u32..60,
            lies in proptest::collection::vec(any::<u8>(), 1..200),
        ) {
            let honest = NodeId(9);
            let mut session = Session::new(0..count, vec![A, B, honest]);
            let mut open = requests(&session.on(Event::Start));
            let mut got = BTreeSet::new();
            let mut lies = lies.into_iter().cycle();
            let mut done = false;
            let mut steps = 0;
            while !done {
                steps += 1;
                prop_assert!(steps < 10_000, "no end");
                prop_assert!(!open.is_empty(), "nothing under way");
                let (request, holder, first, run) = open.remove(0);
                let mut events = Vec::new();
                let lie = if holder == honest { 0 } else { lies.next().unwrap_or(0) % 4 };
                match lie {
                    0 => events.extend((first..first + run).map(|chunk| Event::Good { chunk })),
                    1 => events.push(Event::Bad { request }),
                    2 => events.push(Event::Good { chunk: first }),
                    _ => {}
                }
                events.push(Event::Ended { request, failed: lie == 3 });
                for event in events {
                    if let Event::Good { chunk } = event {
                        got.insert(chunk);
                    }
                    for action in session.on(event) {
                        match action {
                            Action::Request { request, holder, first, count } => {
                                open.push((request, holder, first, count));
                            }
                            Action::Cancel { request } => open.retain(|o| o.0 != request),
                            Action::Done => done = true,
                            Action::Stuck => prop_assert!(false, "stuck"),
                        }
                    }
                }
            }
            prop_assert_eq!(got.len() as u32, count);
        }
    }
}
