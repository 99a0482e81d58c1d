//! What records take in memory and on disk, seen from outside.
//!
//! Memory is resident memory against that of the empty tier. For the disk, one follower is ended in
//! order and started again: it brings what was in its memory to its tables, and what is left once
//! its folder stands still is what the records take. Compactions that are not due yet have not
//! happened: the figure is an upper bound.

use std::time::Duration;

use super::{Bench, ms, results::Footprint, say};
use crate::{
    clock::Clock,
    process::disk::bytes_in,
    tier::{
        TierError,
        wire::{self, Holding},
    },
};

/// For a super-node to come back.
const BACK_DEADLINE: Duration = Duration::from_secs(180);
/// Between two tries to write through it, in milliseconds.
const TRY_EVERY_MS: u64 = 20;
/// A folder that has not changed for so long stands still, in milliseconds.
const STILL_MS: u64 = 2_000;
/// Between two looks at a folder, in milliseconds.
const LOOK_EVERY_MS: u64 = 250;
/// For a folder to stand still.
const STILL_DEADLINE: Duration = Duration::from_secs(120);
/// A folder that changes by less is still, in bytes: logs of the store itself.
const STILL_BYTES: u64 = 64 * 1024;

impl Bench<'_> {
    pub(super) async fn footprint(&mut self) -> Result<Footprint, TierError> {
        let records = self.records();
        say(&format!("what {records} records take"));
        let rss_loaded = self.tier.usage().iter().map(|used| used.rss_bytes).max();
        let at = self.follower().await?;
        self.tier.stop_one(at).await?;
        self.tier.start_one(at)?;
        let restart_ms = ms(self.wait_back(at).await?);
        self.members.wait_open(BACK_DEADLINE).await?;
        let Disk { state, log, rest } = self.wait_still(at).await;
        let rss_restarted = self.tier.usage().get(at).map(|used| used.rss_bytes);
        let (rss_loaded, rss_restarted) =
            (rss_loaded.unwrap_or_default(), rss_restarted.unwrap_or_default());
        let rss_empty = self.rss_empty.iter().copied().max().unwrap_or_default();
        let per_record = |bytes: u64| bytes as f64 / records as f64;
        let found = Footprint {
            holders_per_object: self.holdings.holders,
            records,
            rss_empty_bytes: rss_empty,
            rss_loaded_bytes: rss_loaded,
            rss_restarted_bytes: rss_restarted,
            memory_bytes_per_record: per_record(rss_loaded.saturating_sub(rss_empty)),
            restarted_memory_bytes_per_record: per_record(rss_restarted.saturating_sub(rss_empty)),
            disk_state_bytes: state,
            disk_log_bytes: log,
            disk_rest_bytes: rest,
            state_bytes_per_record: per_record(state),
            disk_bytes_per_record: per_record(state + log + rest),
            restart_ms,
        };
        say(&format!(
            "{:.1} bytes of state, {:.1} with the log, {:.1} of memory a record",
            found.state_bytes_per_record,
            found.disk_bytes_per_record,
            found.memory_bytes_per_record
        ));
        Ok(found)
    }

    /// The number of the leader, as most super-nodes see it.
    pub(super) async fn leader(&self) -> Option<usize> {
        let mut ids = Vec::new();
        let mut leaders = Vec::new();
        for at in 0..self.tier.super_nodes.len() {
            let said = wire::whois(self.members.get(0).channel_to(at)).await.ok();
            ids.push(said.as_ref().map(|said| said.node_id));
            leaders.extend(said.map(|said| said.leader_node_id).filter(|id| *id != 0));
        }
        let votes = |id: &u64| leaders.iter().filter(|other| *other == id).count();
        let leader = leaders.iter().copied().max_by_key(votes)?;
        if votes(&leader) * 2 <= self.tier.super_nodes.len() {
            return None;
        }
        ids.iter().position(|id| *id == Some(leader))
    }

    /// A super-node that does not lead, if there is more than one.
    async fn follower(&self) -> Result<usize, TierError> {
        let leader = self.wait_leader().await?;
        Ok((leader + 1) % self.tier.super_nodes.len())
    }

    /// Waits until most super-nodes agree on a leader.
    pub(super) async fn wait_leader(&self) -> Result<usize, TierError> {
        let clock = Clock::start();
        loop {
            if let Some(leader) = self.leader().await {
                return Ok(leader);
            }
            if clock.now() >= BACK_DEADLINE {
                return Err(self.unhealthy(0, "no leader is known"));
            }
            tokio::time::sleep(Duration::from_millis(TRY_EVERY_MS)).await;
        }
    }

    /// Waits until a write through super-node number `at` is acknowledged; how long that took.
    pub(super) async fn wait_back(&self, at: usize) -> Result<Duration, TierError> {
        let clock = Clock::start();
        let member = self.members.get(0);
        let object = self.holdings.object(0);
        loop {
            let channel = member.channel_to(at);
            let tried = wire::announce(channel, member.id, &[object], Holding::Complete).await;
            let Err(error) = tried else { return Ok(clock.now()) };
            if clock.now() >= BACK_DEADLINE {
                return Err(self.unhealthy(at, &error.to_string()));
            }
            tokio::time::sleep(Duration::from_millis(TRY_EVERY_MS)).await;
        }
    }

    pub(super) fn unhealthy(&self, at: usize, reason: &str) -> TierError {
        let name = self.tier.super_nodes.get(at).map(|one| one.name.clone()).unwrap_or_default();
        TierError::Unhealthy { name, reason: reason.to_owned(), said: self.tier.log_tail(at) }
    }

    /// What super-node number `at` keeps on disk, once that stands still.
    async fn wait_still(&self, at: usize) -> Disk {
        let data = &self.tier.super_nodes[at].data;
        let clock = Clock::start();
        let (mut seen, mut since) = (bytes_in(data), Duration::ZERO);
        while clock.now() < STILL_DEADLINE && clock.now() < since + Duration::from_millis(STILL_MS)
        {
            tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
            let now = bytes_in(data);
            if now.abs_diff(seen) > STILL_BYTES {
                (seen, since) = (now, clock.now());
            }
        }
        let raft = data.join("raft");
        let folders = std::fs::read_dir(&raft).into_iter().flatten().flatten();
        let is_state = |name: &str| name.starts_with("state");
        let states = folders.filter(|entry| is_state(&entry.file_name().to_string_lossy()));
        let state: u64 = states.map(|entry| bytes_in(&entry.path())).sum();
        let log = bytes_in(&raft.join("log"));
        Disk { state, log, rest: bytes_in(data).saturating_sub(state + log) }
    }
}

/// Bytes on disk; snapshots that share files with the state count only for what they do not share.
struct Disk {
    state: u64,
    log: u64,
    rest: u64,
}
