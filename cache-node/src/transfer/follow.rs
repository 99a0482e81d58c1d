//! What a follower is told: the head, every chunk's hash as it becomes known, the manifest at the
//! end, and all the while who else follows. Objects of few chunks come with their bytes; the chunks
//! of others are asked for one by one, of whoever has them.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream};
use shoal_proto::limits::STREAM_IDLE_MS;
use shoal_proto::wire::v1::{self, follow_event::Event, follow_failed::Reason};
use shoal_proto::{LeaseId, ObjectKey};
use tokio::sync::watch;
use tonic::Status;

use super::live::{End, Live, Progress};
use super::members::Membership;
use super::registry::Fills;
use super::server::store_error;
use crate::metrics::TransferMetrics;
use crate::store::{Store, StoredObject};

/// Objects of up to so many chunks come with their bytes.
pub const FOLLOWED_WHOLE_CHUNKS: u64 = 4;
/// Hashes told at once before others get a turn.
const STEP_MAX: usize = 256;

type Events = Pin<Box<dyn Stream<Item = Result<v1::FollowEvent, Status>> + Send>>;
/// The store, the fills, and where bytes are counted.
pub(super) type Parts = (Arc<Store>, Arc<Fills>, TransferMetrics);

/// What is followed.
pub(super) enum Find {
    /// A running fill, or what became of it.
    Fill(ObjectKey, LeaseId),
    /// An object that is held here: only members are told.
    Held,
}

enum Source {
    Growing(watch::Receiver<Progress>, Arc<Live>),
    Stored(Arc<StoredObject>),
    /// All is told but who comes and goes.
    Told,
}

struct Follower {
    find: Option<Find>,
    source: Source,
    next: u32,
    whole: bool,
    growth: u64,
    queue: VecDeque<Event>,
    last: bool,
    membership: Membership,
    parts: Parts,
}

/// The events of one follower.
pub(super) fn stream(find: Find, membership: Membership, parts: Parts) -> Events {
    let follower = Follower {
        find: Some(find),
        source: Source::Told,
        next: 0,
        whole: false,
        growth: 0,
        queue: VecDeque::new(),
        last: false,
        membership,
        parts,
    };
    Box::pin(stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        match follower.next().await {
            Ok(Some(event)) => Some((Ok(v1::FollowEvent { event: Some(event) }), Some(follower))),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    }))
}

impl Follower {
    async fn next(&mut self) -> Result<Option<Event>, Status> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Ok(Some(event));
            }
            if self.last {
                return Ok(None);
            }
            match self.find.take() {
                Some(find) => self.begin(find).await,
                None => self.go_on().await?,
            }
        }
    }

    async fn begin(&mut self, find: Find) {
        match find {
            Find::Held => self.tell_members(),
            Find::Fill(key, lease) => match self.find_fill(key, lease).await {
                Ok(head) => {
                    let chunks = head.length.map(|l| l.div_ceil(u64::from(head.chunk_size)));
                    self.whole = chunks.is_some_and(|chunks| chunks <= FOLLOWED_WHOLE_CHUNKS);
                    self.queue.push_back(Event::Head(head));
                    self.tell_members();
                }
                Err((reason, message)) => self.fail(reason, message),
            },
        }
    }

    /// Waits for the fill's head. It may have ended between the lease's answer and this call.
    async fn find_fill(
        &mut self,
        key: ObjectKey,
        lease: LeaseId,
    ) -> Result<v1::ObjectHead, (Reason, String)> {
        let (store, fills, _) = &self.parts;
        let idle = Duration::from_millis(STREAM_IDLE_MS);
        let silent = Err((Reason::Gone, "the fill has no head yet".to_owned()));
        match tokio::time::timeout(idle, fills.follow(&key, lease)).await.unwrap_or(silent) {
            Ok(live) => {
                live.add_follower();
                self.growth = live.growth();
                let head = live.head().as_ref().into();
                self.source = Source::Growing(live.watch(), live);
                Ok(head)
            }
            Err((Reason::Gone, message)) => match store.get(&key).await {
                Some(stored) if stored.is_whole() => {
                    self.growth = lease.0;
                    fills.grown(key, lease.0, stored.object_id());
                    let head = stored.manifest().head().into();
                    self.source = Source::Stored(stored);
                    Ok(head)
                }
                _ => Err((Reason::Gone, message)),
            },
            Err(other) => Err(other),
        }
    }

    fn tell_members(&mut self) {
        let node_ids = self.membership.others().into_iter().map(|id| id.0).collect();
        let members = v1::FollowMembers { node_ids, growth: self.growth };
        self.queue.push_back(Event::Members(members));
    }

    fn fail(&mut self, reason: Reason, message: String) {
        self.queue.push_back(Event::Failed(v1::FollowFailed { reason: reason.into(), message }));
        self.last = true;
    }

    fn done(&mut self, stored: &StoredObject) {
        let manifest = Some(stored.manifest().as_ref().into());
        self.queue.push_back(Event::Done(v1::FollowDone { manifest }));
        self.source = Source::Told;
        self.last = self.whole;
    }

    /// Tells what is known by now, or waits for more.
    async fn go_on(&mut self) -> Result<(), Status> {
        match &self.source {
            Source::Told => {
                self.membership.changed().await;
                self.tell_members();
            }
            Source::Stored(stored) => {
                let stored = stored.clone();
                if self.whole {
                    for index in 0..stored.manifest().chunk_count() {
                        let data = stored.read_chunk(index).await.map_err(store_error)?.0;
                        if let Some(hash) = stored.manifest().hash(index) {
                            self.tell(index, hash.to_wire(), data);
                        }
                    }
                }
                self.done(&stored);
            }
            Source::Growing(progress, live) => {
                let (progress, live) = (progress.clone(), live.clone());
                self.grow(progress, &live).await?;
            }
        }
        Ok(())
    }

    async fn grow(
        &mut self,
        mut progress: watch::Receiver<Progress>,
        live: &Arc<Live>,
    ) -> Result<(), Status> {
        // The end is read first: what it finished is then seen by the check below it.
        let end = progress.borrow_and_update().end.clone();
        for _ in 0..STEP_MAX {
            let hash = if self.whole { live.hash(self.next) } else { live.known_hash(self.next) };
            let Some(hash) = hash else { break };
            let data = match self.whole {
                true => live.read_chunk(self.next).await.map_err(store_error)?,
                false => Bytes::new(),
            };
            self.tell(self.next, hash.to_wire(), data);
            self.next += 1;
        }
        if !self.queue.is_empty() {
            return Ok(());
        }
        match end {
            Some(End::Done(stored)) => self.done(&stored),
            Some(End::Failed(message)) => self.fail(Reason::Origin, message),
            None => tokio::select! {
                biased;
                () = self.membership.changed() => self.tell_members(),
                changed = progress.changed() => {
                    if changed.is_err() {
                        self.fail(Reason::Gone, "the fill was abandoned".to_owned());
                    }
                }
            },
        }
        Ok(())
    }

    fn tell(&mut self, index: u32, hash: Bytes, data: Bytes) {
        self.parts.2.bytes_out.inc_by(data.len() as u64);
        self.queue.push_back(Event::Chunk(v1::FollowChunk { index, hash, data }));
    }
}
