//! PURE. Which of the three shapes of peer-to-peer a member works in, and since when.
//!
//! | mode | when |
//! |---|---|
//! | pure | no super-node answers this member |
//! | hybrid | one does, and the tier has one voter: an index server |
//! | super-node | the tier has two voters or more; with two, losing one stops its writes |
//!
//! Invariants: the first sight stands at once, and so does the loss of the tier, whose session lease
//! was patience enough; everything else must hold for a moment before it shows, so that an election
//! or a membership change in two steps shows no mode that nobody was in. What a member may do follows
//! from its lease, never from the mode shown.

/// How long a change for the better must hold before it shows, in milliseconds.
const SETTLE_MS: u64 = 1_000;

/// A shape of peer-to-peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// No super-node answers: nodes find one another by rendezvous hashing.
    Pure,
    /// One super-node keeps the index.
    Hybrid,
    /// Several super-nodes agree on the index.
    SuperNode,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::Pure, Self::Hybrid, Self::SuperNode];

    /// Its name in labels, JSON and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pure => "pure",
            Self::Hybrid => "hybrid",
            Self::SuperNode => "super-node",
        }
    }
}

/// What a member sees of the tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// A super-node answers: the session lease holds; for a super-node, it knows what is committed.
    pub tier: bool,
    /// Voters in the view.
    pub voters: usize,
}

impl Sight {
    fn mode(self) -> Mode {
        match (self.tier, self.voters) {
            (false, _) => Mode::Pure,
            (true, 0 | 1) => Mode::Hybrid,
            (true, _) => Mode::SuperNode,
        }
    }

    fn why(self) -> String {
        match (self.tier, self.voters) {
            (false, _) => "no super-node answers".to_owned(),
            (true, 0 | 1) => "one super-node keeps the index".to_owned(),
            (true, 2) => "2 voters: the loss of one stops writes".to_owned(),
            (true, voters) => format!("{voters} voters keep the index"),
        }
    }
}

/// The mode shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The mode.
    pub mode: Mode,
    /// Unix milliseconds of the last change of mode.
    pub since_ms: u64,
    /// What it follows from.
    pub why: String,
}

/// The mode of one member over time.
#[derive(Debug)]
pub struct Modes {
    shown: Shown,
    settled: bool,
    /// What is seen instead of the mode shown, and since when.
    other: Option<(Mode, u64)>,
}

impl Modes {
    /// Pure until the tier is seen.
    pub fn new(unix_ms: u64) -> Self {
        let sight = Sight { tier: false, voters: 0 };
        let shown = Shown { mode: sight.mode(), since_ms: unix_ms, why: sight.why() };
        Self { shown, settled: false, other: None }
    }

    /// Takes in what is seen at `now_ms` (monotonic); true when the mode has changed.
    pub fn on(&mut self, now_ms: u64, unix_ms: u64, sight: Sight) -> bool {
        let mode = sight.mode();
        if mode == self.shown.mode {
            self.other = None;
            self.shown.why = sight.why();
            return false;
        }
        let since = match self.other {
            Some((other, since)) if other == mode => since,
            _ => now_ms,
        };
        self.other = Some((mode, since));
        let at_once = !self.settled || mode == Mode::Pure;
        if !at_once && now_ms < since + SETTLE_MS {
            return false;
        }
        self.settled = true;
        self.other = None;
        self.shown = Shown { mode, since_ms: unix_ms, why: sight.why() };
        true
    }

    /// The mode of now.
    pub fn shown(&self) -> &Shown {
        &self.shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sees(tier: bool, voters: usize) -> Sight {
        Sight { tier, voters }
    }

    /// Feeds sights, 100 ms apart, and tells the modes gone through.
    fn through(sights: impl IntoIterator<Item = Sight>) -> Vec<(u64, Mode)> {
        let mut modes = Modes::new(0);
        let at = sights.into_iter().enumerate().map(|(i, sight)| (i as u64 * 100, sight));
        let mut changes = Vec::new();
        for (now, sight) in at {
            if modes.on(now, now, sight) {
                changes.push((modes.shown().since_ms, modes.shown().mode));
            }
        }
        changes
    }

    #[test]
    fn the_first_sight_and_the_loss_show_at_once() {
        let sights = [sees(true, 3), sees(true, 3), sees(false, 3), sees(false, 3)];
        assert_eq!(through(sights), [(0, Mode::SuperNode), (200, Mode::Pure)]);
        assert_eq!(through([sees(true, 1)]), [(0, Mode::Hybrid)]);
    }

    #[test]
    fn a_return_must_hold_before_it_shows() {
        let mut sights = vec![sees(true, 3), sees(false, 3)];
        // Nine looks are not yet a second; a break begins the count anew.
        sights.extend([sees(true, 3); 9]);
        sights.push(sees(false, 3));
        sights.extend([sees(true, 3); 11]);
        let expected = [(0, Mode::SuperNode), (100, Mode::Pure), (2_200, Mode::SuperNode)];
        assert_eq!(through(sights), expected);
    }

    #[test]
    fn a_change_in_two_steps_shows_the_last_one() {
        let mut sights = vec![sees(true, 1)];
        sights.extend([sees(true, 2); 4]);
        sights.extend([sees(true, 3); 11]);
        assert_eq!(through(sights), [(0, Mode::Hybrid), (1_100, Mode::SuperNode)]);
    }

    #[test]
    fn flapping_shows_the_loss_alone() {
        let flaps = (0..200).map(|i| sees(i % 5 != 4, 3));
        assert_eq!(through(flaps), [(0, Mode::SuperNode), (400, Mode::Pure)]);
    }

    #[test]
    fn the_reason_follows_the_sight() {
        let mut modes = Modes::new(0);
        modes.on(0, 7, sees(true, 3));
        modes.on(10, 8, sees(true, 2));
        assert_eq!((modes.shown().mode, modes.shown().since_ms), (Mode::SuperNode, 7));
        assert!(modes.shown().why.contains("2 voters"), "{:?}", modes.shown());
    }
}
