//! What is gone, what may come in, and that forgetting never makes an object current again.

use proptest::prelude::*;

use super::*;

fn key(n: u64) -> ObjectKey {
    ObjectKey::new(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn fence(position: u64, matcher: Matcher, soft: bool) -> v1::Fence {
    v1::Fence { position, matcher: Some((&Fenced { matcher, soft }).into()) }
}

fn subject(key: &ObjectKey, fence_position: u64) -> Subject<'_> {
    Subject { key, site: "docs", labels: &[1], every_tag: false, fence_position }
}

fn pass(table: &mut FenceTable) -> u64 {
    let pass = table.begin_pass().unwrap();
    table.end_pass(pass)
}

#[test]
fn an_unreadable_fence_covers_everything_before_it_until_that_is_gone() {
    let mut table = FenceTable::after_pass(0);
    let unreadable = v1::fence_matcher::Matcher::Key(vec![1; 4].into());
    let matcher = Some(v1::FenceMatcher { matcher: Some(unreadable), soft: false });
    table.add(&v1::Fence { position: 3, matcher });
    let k = key(1);
    assert_eq!(table.verdict(&subject(&k, 2)), Verdict::Gone);
    assert_eq!(table.covering(&subject(&k, 2)), Some(3));
    assert!(table.wants_pass(3) && !table.admits(&subject(&k, 2), 3));
    assert_eq!(pass(&mut table), 3);
    assert!(!table.admits(&subject(&k, 2), 0), "not without the index's word");
    assert!(table.admits(&subject(&k, 2), 3));
    assert!(table.admits(&subject(&k, 3), 0));
}

#[test]
fn fences_of_keys_do_not_cost_the_rest_of_the_cache() {
    let mut table = FenceTable::after_pass(0);
    let stored = key(0);
    for position in 1..=3 * FENCES_MAX as u64 {
        table.add(&fence(position, Matcher::Key(key(position)), false));
        if table.wants_pass(0) {
            pass(&mut table);
        }
        assert!(table.kept.len() <= KEPT_MAX);
        assert_eq!(table.verdict(&subject(&stored, 0)), Verdict::Clear);
    }
    assert!(!table.admits(&subject(&key(1), 0), 0), "what is forgotten still stands at the door");
    assert!(!table.admits(&subject(&stored, 0), 0));
    assert!(table.admits(&subject(&stored, 0), table.position()));
}

#[test]
fn a_flood_of_fences_is_bounded_and_safe() {
    let mut table = FenceTable::after_pass(0);
    for position in 1..=2 * TABLE_MAX as u64 {
        table.add(&fence(position, Matcher::Key(key(position)), false));
        assert!(table.kept.len() <= TABLE_MAX);
    }
    assert_eq!(table.verdict(&subject(&key(1), 0)), Verdict::Gone);
    assert_eq!(
        table.verdict(&subject(&key(0), 0)),
        Verdict::Gone,
        "rather too much than too little"
    );
    pass(&mut table);
    assert_eq!(table.verdict(&subject(&key(0), 0)), Verdict::Clear);
}

#[test]
fn soft_fences_outlive_passes_and_restarts() {
    let mut table = FenceTable::after_pass(0);
    let k = key(1);
    table.add(&fence(5, Matcher::Site("docs".into()), true));
    assert!(!table.wants_pass(0), "there is nothing to remove");
    table.add(&fence(7, Matcher::Key(key(2)), false));
    assert_eq!(pass(&mut table), 4, "a new process must hear of the soft fence again");
    assert_eq!(table.verdict(&subject(&k, 4)), Verdict::Stale);
    assert!(!table.doomed(&subject(&k, 4)) && table.admits(&subject(&k, 4), 0));
}

/// What happens to a node, one step at a time.
#[derive(Clone, Debug)]
enum Step {
    Fence(Option<Matcher>, bool),
    /// An object of a key comes in, filled so many positions ago; the index vouches or not.
    Arrive(u64, u64, bool),
    Pass,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let matcher = prop_oneof![
        4 => (0..6u64).prop_map(|n| Some(Matcher::Key(key(n)))),
        1 => Just(Some(Matcher::Site("docs".into()))),
        1 => (0..4u64).prop_map(|label| Some(Matcher::Tag("docs".into(), label))),
        1 => Just(None),
    ];
    prop_oneof![
        4 => (matcher, any::<bool>()).prop_map(|(matcher, soft)| Step::Fence(matcher, soft)),
        4 => (0..6u64, 0..9u64, any::<bool>()).prop_map(|(k, ago, vouched)| Step::Arrive(k, ago, vouched)),
        1 => Just(Step::Pass),
        1 => Just(Step::Restart),
    ]
}

struct Node {
    table: FenceTable,
    /// All fences there ever were, as a plain list.
    log: Vec<v1::Fence>,
    position: u64,
    /// Stored objects: key, and the position of their fill.
    stored: Vec<(u64, u64)>,
    mark: u64,
}

/// A key's label, so that tags match some.
fn label(k: u64) -> [u64; 1] {
    [k % 4]
}

impl Node {
    /// What the whole history says of an object that was filled at a position.
    fn truth(&self, k: u64, filled: u64) -> Verdict {
        let (key, label) = (key(k), label(k));
        let subject = Subject { labels: &label, ..subject(&key, filled) };
        let mut all = Fences::default();
        for fence in self.log.iter().filter(|fence| fence.position > filled) {
            match &fence.matcher {
                Some(matcher) => all.add(fence.position, Fenced::try_from(matcher).unwrap()),
                None => return Verdict::Gone,
            }
        }
        all.verdict(&subject)
    }

    fn says(&self, k: u64, filled: u64) -> Verdict {
        let (key, label) = (key(k), label(k));
        self.table.verdict(&Subject { labels: &label, ..subject(&key, filled) })
    }

    /// One that keeps few fences, so that it forgets many.
    fn table(mark: u64) -> FenceTable {
        FenceTable { kept_max: 3, ..FenceTable::after_pass(mark) }
    }

    fn new() -> Self {
        let (log, stored) = (Vec::new(), Vec::new());
        Self { table: Self::table(0), log, position: 0, stored, mark: 0 }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Fence(matcher, soft) => {
                self.position += 1;
                let matcher = matcher.map(|matcher| (&Fenced { matcher, soft }).into());
                let fence = v1::Fence { position: self.position, matcher };
                self.table.add(&fence);
                self.log.push(fence);
            }
            Step::Arrive(k, ago, vouched) => {
                let filled = self.position.saturating_sub(ago);
                // The index vouches only for what it has as current.
                let vouched = vouched && self.truth(k, filled) == Verdict::Clear;
                let right_at = if vouched { self.position } else { 0 };
                let (id, label_of) = (key(k), label(k));
                let subject = Subject { labels: &label_of, ..subject(&id, filled) };
                if self.table.admits(&subject, right_at) {
                    self.stored.retain(|(other, _)| *other != k);
                    self.stored.push((k, filled));
                }
            }
            Step::Pass => {
                let Some(pass) = self.table.begin_pass() else { return };
                let table = &self.table;
                self.stored.retain(|(k, filled)| {
                    let (key, label) = (key(*k), label(*k));
                    !table.doomed(&Subject { labels: &label, ..subject(&key, *filled) })
                });
                self.mark = self.table.end_pass(pass);
            }
            Step::Restart => {
                self.table = Self::table(self.mark);
                let missed = self.log.iter().filter(|fence| fence.position > self.mark);
                missed.for_each(|fence| self.table.add(fence));
                self.table.advance(self.position);
            }
        }
    }
}

proptest! {
    #[test]
    fn nothing_stored_is_ever_more_current_than_the_whole_history_says(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut node = Node::new();
        for step in steps {
            node.take(step);
            for (k, filled) in &node.stored {
                let (said, truth) = (node.says(*k, *filled), node.truth(*k, *filled));
                prop_assert!(said >= truth, "key {k} of {filled}: {said:?}, in truth {truth:?}");
            }
        }
    }
}

#[test]
fn what_comes_in_under_a_fence_holds_the_mark_until_a_pass_has_seen_it() {
    let mut table = FenceTable::after_pass(0);
    table.add(&fence(9, Matcher::Site("docs".to_owned()), false));
    assert_eq!(pass(&mut table), 9);
    let k = key(1);
    assert_eq!(table.verdict(&subject(&k, 4)), Verdict::Gone);
    assert!(!table.wants_pass(9));
    assert_eq!(table.let_in(&subject(&k, 4)), 4);
    assert_eq!(table.let_in(&subject(&k, 6)), 4, "the earlier one is still there");
    assert!(table.wants_pass(9));
    // One that comes in beside a pass may have been behind it.
    let running = table.begin_pass().unwrap();
    assert_eq!(table.let_in(&subject(&k, 6)), 6);
    assert_eq!(table.end_pass(running), 6);
    assert_eq!(pass(&mut table), 9);
    // What would happen otherwise: who starts from there does not know the fence.
    let later = FenceTable::after_pass(9);
    assert_eq!(later.verdict(&subject(&k, 4)), Verdict::Clear);
}
