//! A simulated member: a session with one super-node, kept alive, fences acknowledged as they come;
//! when it breaks, the next super-node is asked.
//!
//! It caches nothing, so that a fence is acknowledged as soon as it is heard: what is measured is
//! the tier's part of a purge.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use shoal_proto::wire::v1::{
    self, index_client::IndexClient, session_down::Event as Down, session_up::Event as Up,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, transport::Channel};

use super::{Tier, TierError, wire};
use crate::{clock::Clock, tasks::Group};

/// Messages waiting to go up one session.
const UP_QUEUE_MAX: usize = 16;
/// Before the next super-node is asked, in milliseconds.
const RETRY_PAUSE_MS: u64 = 100;
/// For all sessions to open.
const OPEN_DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at how many are open, in milliseconds.
const LOOK_EVERY_MS: u64 = 20;
/// An address that nobody asks: these members hold nothing that could be fetched.
const NOWHERE: &str = "127.0.0.1:9";

/// One member.
#[derive(Debug)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Connections to all super-nodes, in their order.
    pub channels: Vec<Channel>,
    name: String,
    cluster_id: String,
    /// The super-node that it has, or wants, a session with.
    at: AtomicUsize,
    /// What it heard last of a session that broke; `None` while one is open.
    broken: Mutex<Option<String>>,
}

impl Member {
    /// The connection to the super-node that the session is with.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.channels[self.at.load(Relaxed) % self.channels.len()]
    }

    /// The connection to super-node number `at`, counted around.
    #[must_use]
    pub fn channel_to(&self, at: usize) -> &Channel {
        &self.channels[at % self.channels.len()]
    }

    fn broken(&self) -> Option<String> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_broken(&self, why: Option<String>) {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    fn info(&self) -> v1::NodeInfo {
        v1::NodeInfo {
            node_id: self.id,
            name: self.name.clone(),
            role: v1::Role::Node.into(),
            cluster_address: NOWHERE.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        }
    }

    /// Keeps a session for as long as it is polled.
    async fn keep(self: Arc<Self>) {
        loop {
            let ended = match self.session().await {
                Ok(()) => "the super-node ended it".to_owned(),
                Err(status) => status.message().to_owned(),
            };
            self.set_broken(Some(ended));
            self.at.fetch_add(1, Relaxed);
            tokio::time::sleep(Duration::from_millis(RETRY_PAUSE_MS)).await;
        }
    }

    async fn session(&self) -> Result<(), Status> {
        let (up, events) = mpsc::channel(UP_QUEUE_MAX);
        let say = |event| v1::SessionUp { event: Some(event) };
        let hello = v1::Hello {
            cluster_id: self.cluster_id.clone(),
            node: Some(self.info()),
            fence_position: 0,
            sites_revision: 0,
        };
        // The queue has room: nothing was sent yet.
        let _ = up.try_send(say(Up::Hello(hello)));
        let mut client = IndexClient::new(self.channel().clone());
        let mut down = client.session(ReceiverStream::new(events)).await?.into_inner();
        let mut beat = tokio::time::interval(heartbeat());
        // The first tick is at once.
        beat.tick().await;
        let mut sequence = 0;
        loop {
            let event = tokio::select! {
                message = down.message() => match message? {
                    Some(message) => message.event,
                    None => return Ok(()),
                },
                _ = beat.tick() => {
                    // One beat more or less does not matter while the queue is full.
                    let _ = up.try_send(say(heartbeat_event(&mut sequence)));
                    continue;
                }
            };
            let answer = match event {
                // A heartbeat says that the welcome was taken in.
                Some(Down::Welcome(_)) => {
                    self.set_broken(None);
                    heartbeat_event(&mut sequence)
                }
                Some(Down::Fences(batch)) => {
                    Up::FenceAck(v1::FenceAck { position: batch.position })
                }
                _ => continue,
            };
            let closed = |_| Status::unavailable("the session's way up is closed");
            up.send(say(answer)).await.map_err(closed)?;
        }
    }
}

fn heartbeat() -> Duration {
    Duration::from_millis(u64::from(shoal_proto::limits::HEARTBEAT_MS))
}

fn heartbeat_event(sequence: &mut u64) -> Up {
    *sequence += 1;
    Up::Heartbeat(v1::Heartbeat { sequence: *sequence, stats: None })
}

/// All members of a benchmark.
#[derive(Clone, Debug)]
pub struct Members {
    all: Arc<[Arc<Member>]>,
}

impl Members {
    /// Makes members with these ids and opens a session for each, spread over the super-nodes.
    /// Their tasks go into `group`.
    ///
    /// # Errors
    /// When a certificate cannot be made or a session does not open.
    pub async fn open(tier: &Tier, ids: &[u64], group: &Group) -> Result<Self, TierError> {
        let mut all = Vec::with_capacity(ids.len());
        for (at, &id) in ids.iter().enumerate() {
            let name = format!("bench-{at}");
            let identity = tier.issue(&name)?;
            let member = Arc::new(Member {
                id,
                channels: tier.channels(identity.as_ref())?,
                name,
                cluster_id: tier.cluster_id.clone(),
                at: AtomicUsize::new(at % tier.super_nodes.len()),
                broken: Mutex::new(Some("nothing yet".to_owned())),
            });
            group.spawn(Arc::clone(&member).keep());
            all.push(member);
        }
        let members = Self { all: all.into() };
        members.wait_open(OPEN_DEADLINE).await?;
        members.connect().await?;
        Ok(members)
    }

    /// Connects every member with every super-node, so that no call that counts has to.
    async fn connect(&self) -> Result<(), TierError> {
        for member in self.all.iter() {
            for channel in &member.channels {
                wire::whois(channel).await?;
            }
        }
        Ok(())
    }

    /// Waits until every member has a session.
    ///
    /// # Errors
    /// When one still has none after `within`.
    pub async fn wait_open(&self, within: Duration) -> Result<(), TierError> {
        let clock = Clock::start();
        loop {
            let broken: Vec<String> = self.all.iter().filter_map(|m| m.broken()).collect();
            let Some(said) = broken.last() else { return Ok(()) };
            if clock.now() >= within {
                let (missing, members) = (broken.len(), self.all.len());
                let said = said.clone();
                return Err(TierError::Sessions { missing, members, after: within, said });
            }
            tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Member number `at`, counted around.
    #[must_use]
    pub fn get(&self, at: usize) -> &Arc<Member> {
        &self.all[at % self.all.len()]
    }
}
