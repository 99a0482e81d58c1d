//! PURE. Whether a history of overlapping operations is linearizable: whether each can be given a
//! point between its call and its return so that, one after the other, they do what the model says.
//!
//! Wing and Gong's search (1993) with Lowe's memory of what was tried (2017). An operation whose
//! outcome is unknown never returns, and may never have happened.

use std::collections::HashSet;
use std::hash::Hash;

/// Steps of a search before it is given up.
const STEPS_MAX: usize = 300_000;

/// An operation that somebody called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Called<O> {
    pub(super) op: O,
    pub(super) called: u64,
    /// `None`: the outcome is unknown.
    pub(super) returned: Option<u64>,
}

/// What an object does, one operation at a time.
pub(super) trait Model {
    type Op;
    type State: Clone + Eq + Hash;

    fn start(&self) -> Self::State;

    /// Whether the operation never changes the state.
    fn is_read(&self, op: &Self::Op) -> bool;

    /// The state after the operation with its outcome; `None` when that outcome is impossible here.
    fn step(&self, state: &Self::State, op: &Self::Op) -> Option<Self::State>;
}

/// What a search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Linearizable,
    /// It is not; so many operations could be put in order at most.
    Broken(usize),
    Undecided,
}

/// Judges a history.
pub(super) fn check<M: Model>(model: &M, history: &[Called<M::Op>]) -> Verdict {
    let mut order: Vec<&Called<M::Op>> = history.iter().collect();
    order.sort_by_key(|called| called.called);
    let required = order.iter().filter(|called| called.returned.is_some()).count();
    let mut search = Search {
        model,
        order: &order,
        tried: HashSet::new(),
        done: vec![0; order.len().div_ceil(64)],
        steps: 0,
        best: 0,
    };
    match search.go(model.start(), required, 0) {
        Some(true) => Verdict::Linearizable,
        Some(false) => Verdict::Broken(search.best),
        None => Verdict::Undecided,
    }
}

struct Search<'a, M: Model> {
    model: &'a M,
    order: &'a [&'a Called<M::Op>],
    tried: HashSet<(Vec<u64>, M::State)>,
    done: Vec<u64>,
    steps: usize,
    best: usize,
}

impl<M: Model> Search<'_, M> {
    fn is_done(&self, at: usize) -> bool {
        self.done[at / 64] & (1 << (at % 64)) != 0
    }

    /// Operations that may come next: with a known outcome, without; and the first that is left.
    fn candidates(&self, from: usize) -> (Vec<usize>, Vec<usize>, usize) {
        let (mut known, mut unknown, mut first) = (Vec::new(), Vec::new(), None);
        // Nothing may come before an operation that returned before it was called.
        let mut limit = u64::MAX;
        for at in (from..self.order.len()).filter(|at| !self.is_done(*at)) {
            let called = self.order[at];
            first.get_or_insert(at);
            if called.called > limit {
                break;
            }
            limit = limit.min(called.returned.unwrap_or(u64::MAX));
            match called.returned {
                Some(_) => known.push(at),
                None => unknown.push(at),
            }
        }
        (known, unknown, first.unwrap_or(from))
    }

    fn mark(&mut self, at: usize, done: bool) {
        match done {
            true => self.done[at / 64] |= 1 << (at % 64),
            false => self.done[at / 64] &= !(1 << (at % 64)),
        }
    }

    /// Takes every read that may come next and fits: an order that is right without it here is
    /// right with it. Those that were taken.
    fn take_reads(&mut self, state: &M::State, from: usize) -> Vec<usize> {
        let mut taken = Vec::new();
        loop {
            let (known, _, _) = self.candidates(from);
            let fits = |at: &usize| {
                let op = &self.order[*at].op;
                self.model.is_read(op) && self.model.step(state, op).is_some()
            };
            let reads: Vec<usize> = known.into_iter().filter(fits).collect();
            if reads.is_empty() {
                return taken;
            }
            reads.iter().for_each(|at| self.mark(*at, true));
            taken.extend(reads);
        }
    }

    /// Whether the `left` operations that returned can be put in order from here; all before `from`
    /// are done. `None` when that takes too long.
    fn go(&mut self, state: M::State, left: usize, from: usize) -> Option<bool> {
        let reads = self.take_reads(&state, from);
        let left = left - reads.len();
        let found = self.branch(&state, left, from);
        if found == Some(false) {
            reads.into_iter().for_each(|at| self.mark(at, false));
        }
        found
    }

    fn branch(&mut self, state: &M::State, left: usize, from: usize) -> Option<bool> {
        self.best = self.best.max(self.done.iter().map(|d| d.count_ones() as usize).sum());
        if left == 0 {
            return Some(true);
        }
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return None;
        }
        let (known, unknown, first) = self.candidates(from);
        // What is known to have happened goes first: what may not have is rarely needed.
        for at in known.into_iter().chain(unknown) {
            let called = self.order[at];
            let Some(next) = self.model.step(state, &called.op) else { continue };
            self.mark(at, true);
            if self.tried.insert((self.done.clone(), next.clone())) {
                let left = left - usize::from(called.returned.is_some());
                match self.go(next, left, first) {
                    Some(false) => {}
                    decided => return decided,
                }
            }
            self.mark(at, false);
        }
        Some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register: writes always succeed, reads see the last write.
    struct Register;

    #[derive(Clone, Copy)]
    enum Op {
        Write(u64),
        Read(u64),
    }

    impl Model for Register {
        type Op = Op;
        type State = u64;

        fn start(&self) -> u64 {
            0
        }

        fn is_read(&self, op: &Op) -> bool {
            matches!(op, Op::Read(_))
        }

        fn step(&self, state: &u64, op: &Op) -> Option<u64> {
            match op {
                Op::Write(value) => Some(*value),
                Op::Read(value) => (value == state).then_some(*state),
            }
        }
    }

    fn of(history: &[(Op, u64, Option<u64>)]) -> Verdict {
        let called = |(op, called, returned): &(Op, u64, Option<u64>)| Called {
            op: *op,
            called: *called,
            returned: *returned,
        };
        check(&Register, &history.iter().map(called).collect::<Vec<_>>())
    }

    #[test]
    fn overlapping_operations_may_take_either_order() {
        let (w, r) = (Op::Write, Op::Read);
        assert_eq!(of(&[]), Verdict::Linearizable);
        assert_eq!(of(&[(w(1), 0, Some(9)), (r(0), 1, Some(2))]), Verdict::Linearizable);
        assert_eq!(of(&[(w(1), 0, Some(9)), (r(1), 1, Some(2))]), Verdict::Linearizable);
        let both = [(w(1), 0, Some(9)), (w(2), 0, Some(9)), (r(2), 10, Some(11))];
        assert_eq!(of(&both), Verdict::Linearizable);
        assert_eq!(of(&[both[0], both[1], (r(1), 10, Some(11))]), Verdict::Linearizable);
    }

    #[test]
    fn stale_and_lost_values_are_found() {
        let (w, r) = (Op::Write, Op::Read);
        assert_eq!(of(&[(w(1), 0, Some(1)), (r(0), 2, Some(3))]), Verdict::Broken(1));
        // Two reads, one after the other, cannot see a value come and go back.
        let back =
            [(w(1), 0, Some(9)), (r(1), 1, Some(2)), (r(0), 3, Some(4)), (w(2), 20, Some(21))];
        assert!(matches!(of(&back), Verdict::Broken(_)));
        let lost = [(w(1), 0, Some(1)), (w(2), 2, Some(3)), (r(1), 4, Some(5))];
        assert!(matches!(of(&lost), Verdict::Broken(_)));
    }

    #[test]
    fn an_unknown_outcome_may_happen_late_or_never() {
        let (w, r) = (Op::Write, Op::Read);
        let unknown = (w(1), 0, None);
        assert_eq!(of(&[unknown, (r(0), 2, Some(3))]), Verdict::Linearizable);
        assert_eq!(of(&[unknown, (r(0), 2, Some(3)), (r(1), 4, Some(5))]), Verdict::Linearizable);
        let twice = [unknown, (r(1), 2, Some(3)), (w(2), 4, Some(5)), (r(1), 6, Some(7))];
        assert!(matches!(of(&twice), Verdict::Broken(_)), "it happens once");
        assert!(matches!(of(&[(w(1), 5, None), (r(1), 2, Some(3))]), Verdict::Broken(_)));
    }

    #[test]
    fn long_histories_are_judged() {
        let mut history = Vec::new();
        for n in 1..=400u64 {
            history.push((Op::Write(n), n * 10, Some(n * 10 + 12)));
            history.push((Op::Read(n), n * 10 + 11, Some(n * 10 + 15)));
        }
        assert_eq!(of(&history), Verdict::Linearizable);
        history.push((Op::Read(7), 9_000, Some(9_001)));
        assert!(matches!(of(&history), Verdict::Broken(_)));
    }
}
