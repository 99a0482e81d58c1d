//! A lost leader is found by its closed door. When a leader is silent for longer than a heartbeat
//! and its address refuses connections, its process has ended: to wait until its lease runs out
//! would prove nothing more.
//!
//! Every super-node judges for itself and gives up nothing but its own regard for the leader's
//! lease; an election then begins with a pre-vote, which the others grant once they have found the
//! same. One that is deceived, say by a firewall that refuses in its neighbour's name, changes
//! nothing. A leader that is paused, cut off or on a lost machine refuses nothing: its lease runs
//! out as ever.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use shoal_proto::{NodeId, RpcError};

use super::wire::Vote;
use super::{HEARTBEAT_MS, Raft, closed};
use crate::{clock, rpc};

/// Between two looks, in milliseconds.
const LOOK_EVERY_MS: u64 = 25;
/// A leader that is silent for longer is knocked at, in milliseconds.
const SILENCE_MS: u64 = HEARTBEAT_MS + HEARTBEAT_MS / 4;
/// For an answer to a knock, in milliseconds.
const KNOCK_DEADLINE_MS: u64 = 100;
/// Refusals in a row that prove a lost leader: one may be a process that is just starting to listen.
const REFUSALS: u32 = 2;
/// Looks between two super-nodes' turns to begin an election. The first has begun its own, whenever
/// it noticed, before the second does: a heartbeat and an election fit in between. Two candidates at
/// once would split the votes, and wait for another election as if nothing had been found.
const LOOKS_PER_TURN: u32 = 12;

const _: () = assert!(LOOKS_PER_TURN as u64 * LOOK_EVERY_MS > HEARTBEAT_MS);

/// When the leader was last heard of.
#[derive(Debug, Default)]
pub(super) struct Heard(Mutex<Option<Instant>>);

impl Heard {
    /// It was heard of now.
    pub(super) fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock::monotonic());
    }

    /// Whether it is silent; never heard of is not silence: there may be nothing to hear yet.
    fn is_silent(&self) -> bool {
        let heard = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.is_some_and(|at| clock::since(at) > Duration::from_millis(SILENCE_MS))
    }
}

/// A leader that may be lost, as its follower knows it.
#[derive(Clone, Debug, PartialEq)]
struct Suspect {
    vote: Vote,
    leader: NodeId,
    /// This super-node's place among the voters that are left, and their number; none without a
    /// vote.
    turn: Option<(u32, u32)>,
}

/// What to do after a knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is not proved to be lost.
    Wait,
    /// It is: its lease counts no more.
    GiveUp { elect: bool },
}

/// PURE. What the knocks at one leader have come to.
#[derive(Debug, Default)]
struct Doubt {
    refusals: u32,
}

impl Doubt {
    /// Takes in one knock.
    fn knocked(&mut self, refused: bool, turn: Option<(u32, u32)>) -> Step {
        if !refused {
            self.refusals = 0;
            return Step::Wait;
        }
        self.refusals = self.refusals.saturating_add(1);
        let Some(looks) = self.refusals.checked_sub(REFUSALS) else { return Step::Wait };
        let mine = |(place, of): (u32, u32)| {
            looks % (LOOKS_PER_TURN * of.max(1)) == place * LOOKS_PER_TURN
        };
        Step::GiveUp { elect: turn.is_some_and(mine) }
    }
}

impl Raft {
    /// Watches the leader for as long as it is polled.
    pub(super) async fn watch_leader(self) {
        let mut doubt = Doubt::default();
        let mut given_up = None;
        loop {
            tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
            let Some(suspect) = self.suspect() else {
                doubt = Doubt::default();
                continue;
            };
            let refused = self.knock(suspect.leader).await;
            let Step::GiveUp { elect } = doubt.knocked(refused, suspect.turn) else { continue };
            if given_up != Some(suspect.vote) {
                given_up = Some(suspect.vote);
                self.inner.metrics.lost_leaders.inc();
                tracing::warn!(leader = %suspect.leader, "the leader's process has ended");
            }
            if let Err(error) = self.give_up(&suspect, elect).await {
                tracing::debug!(%error, "no election could be asked for");
            }
        }
    }

    /// The leader, when this super-node follows it and has not heard of it for a while.
    fn suspect(&self) -> Option<Suspect> {
        if !self.inner.heard.is_silent() {
            return None;
        }
        let metrics = self.inner.core.metrics().borrow_watched().clone();
        let follows = matches!(metrics.state, ServerState::Follower | ServerState::Learner);
        let leader = metrics.current_leader.filter(|id| follows && *id != self.inner.me)?;
        let mut left: Vec<u64> =
            metrics.membership_config.voter_ids().filter(|id| *id != leader).collect();
        left.sort_unstable();
        let place = left.iter().position(|id| *id == self.inner.me);
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let turn = place.map(|place| (small(place), small(left.len())));
        Some(Suspect { vote: metrics.vote, leader: NodeId(leader), turn })
    }

    /// Whether `leader`'s address refuses connections.
    async fn knock(&self, leader: NodeId) -> bool {
        let Some(address) = self.address_of(leader) else { return false };
        rpc::refuses(&address, Duration::from_millis(KNOCK_DEADLINE_MS)).await
    }

    async fn give_up(&self, suspect: &Suspect, elect: bool) -> Result<(), RpcError> {
        let core = &self.inner.core;
        // A transfer to somebody else is how the library is told to disregard a lease.
        let request = TransferLeaderRequest::new(suspect.vote, suspect.leader.0, None);
        // It has nothing to refuse: what it answers is only for the one who is to lead.
        let _ = core.handle_transfer_leader(request).await.map_err(closed)?;
        if elect {
            core.trigger().elect(true).await.map_err(closed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVE_UP: Step = Step::GiveUp { elect: false };
    const ELECT: Step = Step::GiveUp { elect: true };

    #[test]
    fn one_refusal_proves_nothing_and_an_answer_ends_all_doubt() {
        let mut doubt = Doubt::default();
        let turn = Some((0, 2));
        assert_eq!(doubt.knocked(true, turn), Step::Wait);
        assert_eq!(doubt.knocked(false, turn), Step::Wait);
        assert_eq!(doubt.knocked(true, turn), Step::Wait);
        assert_eq!(doubt.knocked(true, turn), ELECT);
    }

    #[test]
    fn each_has_its_turn_again_and_again() {
        let elections = |turn| {
            let mut doubt = Doubt::default();
            (0..40).map(|_| doubt.knocked(true, turn) == ELECT).collect::<Vec<_>>()
        };
        let (first, second) = (elections(Some((0, 2))), elections(Some((1, 2))));
        let at = |all: &[bool]| (0..40).filter(|at| all[*at]).collect::<Vec<_>>();
        assert_eq!((at(&first), at(&second)), (vec![1, 25], vec![13, 37]));
    }

    #[test]
    fn without_a_vote_the_lease_is_given_up_and_nobody_is_disturbed() {
        let mut doubt = Doubt::default();
        assert_eq!(doubt.knocked(true, None), Step::Wait);
        assert!((0..20).all(|_| doubt.knocked(true, None) == GIVE_UP));
    }

    #[test]
    fn silence_begins_with_the_first_word() {
        let heard = Heard::default();
        assert!(!heard.is_silent());
        heard.now();
        assert!(!heard.is_silent());
    }
}
