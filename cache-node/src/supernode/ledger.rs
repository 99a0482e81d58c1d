//! PURE. The sessions of the members that this super-node vouches for: which fences they know, and
//! until when they may trust what they have.
//!
//! Invariants: a member's trust never outlives what the ledger says; a session that ended stays on
//! the books until nobody can trust in it any more, so that no purge returns before; a member that
//! does not acknowledge a fence in time is not vouched for any more. Must not know the index.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};

use shoal_proto::NodeId;
use shoal_proto::limits::MEMBERS_MAX;

use super::timing::Timing;

/// Most sessions on the books, ended ones included.
const SESSIONS_MAX: usize = 4 * MEMBERS_MAX;

/// Unacknowledged fences of a session that are told apart; more count as sent with the last.
const OWED_MAX: usize = 64;

/// Who begins a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) session_id: u64,
    pub(super) node: NodeId,
    /// A super-node: it looks after its own membership.
    pub(super) keeps_itself: bool,
    /// The newest fence that it says it knows.
    pub(super) fence_position: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// It closed in order, at that time.
    Left(u64),
    Broken,
}

#[derive(Clone, Debug)]
struct Session {
    node: NodeId,
    keeps_itself: bool,
    stage: Stage,
    /// The newest fence that it acknowledged, and the newest that was sent.
    acked: u64,
    offered: u64,
    /// The newest fence of the welcome, until the first heartbeat acknowledges it.
    welcome: Option<u64>,
    /// Fences sent and not yet acknowledged, each with the time at which it was sent.
    owes: VecDeque<(u64, u64)>,
    heard_ms: u64,
    /// 0 before it is welcomed.
    trusted_until_ms: u64,
    /// The index knows that this session vouches for nobody.
    settled: bool,
}

/// How a member stands to a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Debt {
    Acked,
    /// Until the given time it may trust what the fence covers.
    Owes(u64),
    Expired,
}

/// All sessions with this super-node. Times are monotonic milliseconds.
#[derive(Debug)]
pub(super) struct Ledger {
    timing: Timing,
    sessions: HashMap<u64, Session>,
    former_until_ms: u64,
}

impl Ledger {
    /// No sessions. Until `former_until_ms` there may be members that trust an earlier life of this
    /// super-node.
    pub(super) fn new(timing: Timing, former_until_ms: u64) -> Self {
        Self { timing, sessions: HashMap::new(), former_until_ms }
    }

    /// Whether one more session fits.
    pub(super) fn has_room(&self) -> bool {
        self.sessions.len() < SESSIONS_MAX
    }

    /// A session begins, before anything is sent on it: the member's older ones end.
    pub(super) fn open(&mut self, now_ms: u64, opened: Opened) -> Vec<u64> {
        let mut superseded = Vec::new();
        for (id, session) in &mut self.sessions {
            if session.node == opened.node && session.stage == Stage::Open {
                session.stage = Stage::Broken;
                superseded.push(*id);
            }
        }
        let session = Session {
            node: opened.node,
            keeps_itself: opened.keeps_itself,
            stage: Stage::Open,
            acked: opened.fence_position,
            offered: opened.fence_position,
            welcome: None,
            owes: VecDeque::new(),
            heard_ms: now_ms,
            trusted_until_ms: 0,
            settled: false,
        };
        self.sessions.insert(opened.session_id, session);
        superseded
    }

    /// The welcome is about to be sent, with all fences up to `position`.
    pub(super) fn welcomed(&mut self, now_ms: u64, id: u64, position: u64) {
        self.offered(now_ms, id, position);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.welcome = Some(position);
            session.trusted_until_ms = now_ms + self.timing.trust_ms();
        }
    }

    /// Fences up to `position` are about to be sent.
    pub(super) fn offered(&mut self, now_ms: u64, id: u64, position: u64) {
        if let Some(session) = self.sessions.get_mut(&id)
            && position > session.acked
        {
            let at_most = session.owes.len() >= OWED_MAX;
            session.offered = session.offered.max(position);
            match session.owes.back_mut().filter(|_| at_most) {
                Some((last, _)) => *last = position,
                None => session.owes.push_back((position, now_ms)),
            }
        }
    }

    /// The member acknowledged fences up to `position`.
    pub(super) fn acked(&mut self, id: u64, position: u64) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.acked = session.acked.max(position.min(session.offered));
            while session.owes.front().is_some_and(|(owed, _)| *owed <= session.acked) {
                session.owes.pop_front();
            }
        }
    }

    /// A heartbeat came in; whether it is to be answered. `in_touch` says that this super-node knows
    /// all that was committed until a moment ago.
    pub(super) fn heard(&mut self, now_ms: u64, id: u64, in_touch: bool) -> bool {
        let welcome = self.sessions.get_mut(&id).and_then(|session| session.welcome.take());
        if let Some(position) = welcome {
            self.acked(id, position);
        }
        let timing = self.timing;
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        session.heard_ms = now_ms;
        let late = |(_, at): &(u64, u64)| now_ms >= at + timing.fence_ack_ms();
        let owes = session.owes.front().is_some_and(late);
        let answered = in_touch && !owes && session.stage == Stage::Open;
        if answered {
            session.trusted_until_ms = now_ms + timing.trust_ms();
        }
        answered
    }

    /// A session has ended.
    pub(super) fn closed(&mut self, now_ms: u64, id: u64, in_order: bool) {
        if let Some(session) = self.sessions.get_mut(&id)
            && session.stage == Stage::Open
        {
            session.stage = if in_order { Stage::Left(now_ms) } else { Stage::Broken };
        }
    }

    /// Whether a session of that id has ended here.
    pub(super) fn has_ended(&self, id: u64) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.stage != Stage::Open)
    }

    /// Whether a session of that id is on the books.
    pub(super) fn knows(&self, id: u64) -> bool {
        self.sessions.contains_key(&id)
    }

    /// Members to be declared down, if these sessions still vouch for them.
    pub(super) fn lost(&self, now_ms: u64) -> Vec<(NodeId, u64)> {
        let timing = self.timing;
        let over = |session: &Session| match session.stage {
            Stage::Left(at) => now_ms >= at + timing.leave_ms(),
            Stage::Broken => now_ms >= session.heard_ms + timing.lease_ms(),
            // Who keeps the line ends it when nothing is heard.
            Stage::Open => false,
        };
        let unsettled = self.sessions.iter().filter(|(_, s)| !s.settled && !s.keeps_itself);
        unsettled.filter(|(_, s)| over(s)).map(|(id, s)| (s.node, *id)).collect()
    }

    /// The index knows that this session vouches for nobody any more.
    pub(super) fn settled(&mut self, id: u64) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.settled = true;
        }
    }

    /// Drops what can matter to nobody any more.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        self.sessions.retain(|_, session| {
            let over = session.settled || session.keeps_itself;
            session.stage == Stage::Open || !over || now_ms < session.trusted_until_ms
        });
    }

    /// How each member stands to a fence. What one session of a member acknowledged, the member
    /// knows.
    pub(super) fn debts(&self, now_ms: u64, position: u64) -> BTreeMap<NodeId, Debt> {
        let mut members: BTreeMap<NodeId, (u64, u64)> = BTreeMap::new();
        for session in self.sessions.values().filter(|session| session.trusted_until_ms > 0) {
            let (acked, until) = members.entry(session.node).or_default();
            *acked = session.acked.max(*acked);
            *until = session.trusted_until_ms.max(*until);
        }
        let debt = |(acked, until): (u64, u64)| match () {
            () if acked >= position => Debt::Acked,
            () if now_ms < until => Debt::Owes(until),
            () => Debt::Expired,
        };
        members.into_iter().map(|(node, facts)| (node, debt(facts))).collect()
    }

    /// When nobody can trust this super-node, in this life or an earlier one, any more.
    pub(super) fn trusted_until_ms(&self) -> u64 {
        let trusted = self.sessions.values().map(|session| session.trusted_until_ms);
        trusted.fold(self.former_until_ms, u64::max)
    }

    /// Until when members may trust an earlier life of this super-node.
    pub(super) fn former_until_ms(&self) -> u64 {
        self.former_until_ms
    }

    /// How many sessions are open.
    pub(super) fn open_count(&self) -> usize {
        self.sessions.values().filter(|session| session.stage == Stage::Open).count()
    }
}
