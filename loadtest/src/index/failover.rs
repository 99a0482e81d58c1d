//! The leader is killed, again and again: how long until a write that began afterwards is
//! acknowledged?
//!
//! New writes begin every few milliseconds at every super-node that is left, and the first
//! acknowledgement counts: the time is the tier's, not that of a client that waits for the wrong
//! one.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::{Bench, ms, results::Failovers, say};
use crate::{
    clock::Clock,
    sample::{Latency, Times},
    tasks::Group,
    tier::{
        TierError,
        member::Member,
        wire::{self, Holding, Object},
    },
};

/// Between two writes to one super-node, in milliseconds.
const WRITE_EVERY_MS: u64 = 5;
/// Writes on their way at once.
const WRITES_MAX: usize = 4_096;
/// After so long without an acknowledgement a kill has failed.
const ACK_DEADLINE: Duration = Duration::from_secs(30);
/// Between the tier's recovery and the next kill.
const CALM: Duration = Duration::from_secs(2);
/// For the sessions of a killed one to open elsewhere.
const SESSIONS_DEADLINE: Duration = Duration::from_secs(60);

impl Bench<'_> {
    pub(super) async fn failovers(&mut self) -> Result<Failovers, TierError> {
        let (mut acknowledged, mut back) = (Latency::default(), Latency::default());
        let mut found = Failovers {
            records: self.records(),
            times: Times::from(&acknowledged),
            each_ms: Vec::new(),
            back_times: Times::from(&back),
            failures: 0,
            failure: None,
        };
        if self.tier.super_nodes.len() < 3 {
            return Err(self.unhealthy(0, "without two more super-nodes nobody takes over"));
        }
        say(&format!("killing the leader {} times", self.scenario.kills));
        for _ in 0..self.scenario.kills {
            if self.stop.is_cancelled() {
                break;
            }
            let leader = self.wait_leader().await?;
            match self.kill(leader).await? {
                Some(time) => {
                    acknowledged.record(time);
                    found.each_ms.push(ms(time));
                    say(&format!("acknowledged again after {} ms", ms(time)));
                }
                None => {
                    found.failures += 1;
                    found.failure = Some(format!("nothing acknowledged for {ACK_DEADLINE:?}"));
                }
            }
            self.tier.stop_one(leader).await?;
            self.tier.start_one(leader)?;
            back.record(self.wait_back(leader).await?);
            self.members.wait_open(SESSIONS_DEADLINE).await?;
            tokio::time::sleep(CALM).await;
        }
        found.times = Times::from(&acknowledged);
        found.back_times = Times::from(&back);
        Ok(found)
    }

    /// Kills super-node number `leader`; the time to the next acknowledged write.
    async fn kill(&mut self, leader: usize) -> Result<Option<Duration>, TierError> {
        let count = self.tier.super_nodes.len();
        let others: Vec<usize> = (0..count).filter(|at| *at != leader).collect();
        let member = Arc::clone(self.members.get(1));
        let object = self.holdings.object(0);
        // Connections are there before they are needed.
        for &at in &others {
            wire::announce(member.channel_to(at), member.id, &[object], Holding::Complete).await?;
        }
        let writes = Group::new();
        let (acknowledged, mut first) = mpsc::channel(1);
        let clock = Clock::start();
        self.tier.kill_now(leader)?;
        let begun = clock.now();
        for at in others {
            let writer = Writer {
                member: Arc::clone(&member),
                at,
                object,
                acknowledged: acknowledged.clone(),
            };
            writes.spawn(writer.begin_writes(writes.clone()));
        }
        let heard = tokio::time::timeout(ACK_DEADLINE, first.recv()).await;
        let time = clock.now() - begun;
        writes.abort();
        Ok(matches!(heard, Ok(Some(()))).then_some(time))
    }
}

/// Begins writes at one super-node.
struct Writer {
    member: Arc<Member>,
    at: usize,
    object: Object,
    acknowledged: mpsc::Sender<()>,
}

impl Writer {
    async fn begin_writes(self, writes: Group) {
        loop {
            if writes.len() < WRITES_MAX {
                let (member, at, object) = (Arc::clone(&self.member), self.at, self.object);
                let acknowledged = self.acknowledged.clone();
                writes.spawn(async move {
                    let channel = member.channel_to(at);
                    let wrote =
                        wire::announce(channel, member.id, &[object], Holding::Complete).await;
                    if wrote.is_ok() {
                        // The first one has been heard.
                        let _ = acknowledged.try_send(());
                    }
                });
            }
            tokio::time::sleep(Duration::from_millis(WRITE_EVERY_MS)).await;
        }
    }
}
