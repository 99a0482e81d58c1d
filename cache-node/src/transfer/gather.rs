//! Executes a [`Swarm`]: gathers an object's chunks from holders, a filler and mates into a growing
//! object. What to ask of whom is the session's business; what may be believed is decided here: a
//! chunk counts when it matches its hash, and hashes come from the manifest or from the filler.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{AbortHandle, Abortable, BoxFuture};
use futures::stream::{FuturesUnordered, StreamExt};
use shoal_proto::wire::v1::{self, follow_failed::Reason};
use shoal_proto::{ChunkHash, ErrorKind, Manifest, NodeId, RpcError};
use tokio::sync::{mpsc, watch};

use super::client::{Followed, Peers, Wanted};
use super::live::Live;
use super::swarm::{Action, Ending, Event, Facts, Swarm, TICK_MS};
use crate::clock;
use crate::membership::{ClusterView, Member};
use crate::store::StoreError;

/// Messages of requests that wait to be taken in.
const RECEIVED_MAX: usize = 4;
/// Without a chunk from a mate for so long, what they do not have is asked of the origin.
const MEND_STUCK_MS: u64 = 1_500;
/// Mates that chunks are exchanged with.
const MATES_MAX: usize = 32;
/// A mate is told of before it has a place for the object: it is asked again after a pause, doubled
/// each time.
const LISTEN_PAUSE_MS: u64 = 10;
/// The same, so many times; after 10 s it is lost.
const LISTEN_TRIES_MAX: u32 = 10;

/// Who gathers, and whom it may meet.
#[derive(Clone)]
pub struct Gatherer {
    /// Asks peers.
    pub peers: Peers,
    /// This node.
    pub me: NodeId,
    /// The cluster.
    pub view: watch::Receiver<ClusterView>,
}

/// Why a gathering came to nothing. What was gathered stays in the growing object.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// Nobody could give the missing chunks in time.
    #[error("nobody gave the missing chunks: {last}")]
    Stuck {
        /// The last peer's error.
        last: RpcError,
    },
    /// The filler was lost before all was known.
    #[error("the filler was lost: {0}")]
    FillerLost(RpcError),
    /// The fill came to nothing.
    #[error("the fill failed: {1}")]
    FillFailed(Reason, String),
    /// The object has another version than what is here.
    #[error("the object has another version now")]
    OtherVersion,
    /// The store did not take a chunk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What tasks bring, in order: a request's end comes after its last chunk.
enum Received {
    Chunk { request: u64, index: u32, data: Bytes },
    Ended { request: u64, ended: Result<(), RpcError> },
    Has { peer: NodeId, ranges: Vec<v1::ChunkRange>, all: bool },
    Gone { peer: NodeId },
}

/// A control stream's items.
pub type Control<'a> = futures::stream::BoxStream<'a, Result<Followed, RpcError>>;

impl Gatherer {
    /// This node's zone; empty for none.
    pub fn zone(&self) -> String {
        self.view.borrow().member(self.me).map_or_else(String::new, |me| me.zone.clone())
    }

    /// Gathers every chunk of an object whose manifest is known, from `holders`, together with who
    /// else does. The holder named first tells them of one another.
    ///
    /// # Errors
    /// When chunks are missing in the end.
    pub async fn pull(
        &self,
        manifest: &Manifest,
        holders: &[Member],
        live: &Live,
    ) -> Result<(), GatherError> {
        let (key, object) = (manifest.head().key, manifest.object_id());
        let wanted = Wanted { key, object: Some(object), growth: 0 };
        let mut run = Run::new(self, live, wanted, manifest.head().chunk_size);
        for (index, hash) in
            (0..manifest.chunk_count()).filter_map(|i| Some((i, manifest.hash(i)?)))
        {
            run.hashes.insert(index, hash);
        }
        holders.iter().for_each(|holder| run.meet(holder, false));
        run.know(manifest.chunk_count(), true);
        let control = match holders.first().filter(|_| manifest.chunk_count() > 1) {
            Some(first) => match self.peers.members(first, (key, object), self.me).await {
                Ok(members) => members.boxed(),
                Err(_) => futures::stream::pending().boxed(),
            },
            None => futures::stream::pending().boxed(),
        };
        run.run(control).await.map(drop)
    }

    /// Gathers what a fill on another node brings, together with the `others` that follow it; the
    /// manifest at its end.
    ///
    /// # Errors
    /// When the filler was lost or failed, or chunks are missing in the end.
    pub async fn follow(
        &self,
        filler: &Member,
        live: &Live,
        others: Vec<NodeId>,
        control: Control<'_>,
    ) -> Result<Manifest, GatherError> {
        let wanted = Wanted { key: live.head().key, object: None, growth: live.growth() };
        let mut run = Run::new(self, live, wanted, live.head().chunk_size);
        for index in 0..live.known_in_order() {
            run.hashes.extend(live.known_hash(index).map(|hash| (index, hash)));
        }
        run.meet(filler, false);
        run.meet_members(others.into_iter().collect());
        run.run(control).await?.ok_or(GatherError::OtherVersion)
    }
}

impl Gatherer {
    /// Gathers what is missing of the first `count` chunks, whose hashes are known, from the mates
    /// of a swarm whose filler was lost.
    ///
    /// # Errors
    /// When no mate gave them in time.
    pub async fn mend(&self, live: &Live, count: u32) -> Result<(), GatherError> {
        let wanted = Wanted { key: live.head().key, object: None, growth: live.growth() };
        let mut run = Run::new(self, live, wanted, live.head().chunk_size);
        run.swarm.give_up_after(MEND_STUCK_MS);
        for index in 0..count {
            run.hashes.extend(live.known_hash(index).map(|hash| (index, hash)));
        }
        run.meet_members(live.mates());
        run.know(count, true);
        run.run(futures::stream::pending().boxed()).await.map(drop)
    }
}

struct Run<'a> {
    gatherer: &'a Gatherer,
    live: &'a Live,
    wanted: Wanted,
    swarm: Swarm,
    started: Instant,
    hashes: HashMap<u32, ChunkHash>,
    known: u32,
    /// Peers with all chunks, those to come too.
    complete: BTreeSet<NodeId>,
    met: HashMap<NodeId, Member>,
    members: BTreeSet<NodeId>,
    sender: mpsc::Sender<Received>,
    received: mpsc::Receiver<Received>,
    tasks: FuturesUnordered<BoxFuture<'static, ()>>,
    aborts: HashMap<u64, AbortHandle>,
    actions: Vec<Action>,
    manifest: Option<Manifest>,
    last: RpcError,
}

impl<'a> Run<'a> {
    fn new(gatherer: &'a Gatherer, live: &'a Live, wanted: Wanted, chunk_bytes: u32) -> Self {
        let (sender, received) = mpsc::channel(RECEIVED_MAX);
        let zone = zone(&gatherer.zone());
        let salt = wanted.key.as_bytes().iter().take(8).fold(0, |s, b| s << 8 | u64::from(*b));
        let mut swarm = Swarm::new(0, (gatherer.me, zone), salt, chunk_bytes);
        live.arrivals_after(0).into_iter().for_each(|chunk| swarm.has(chunk));
        Self {
            gatherer,
            live,
            wanted,
            swarm,
            started: clock::monotonic(),
            hashes: HashMap::new(),
            known: 0,
            complete: BTreeSet::new(),
            met: HashMap::new(),
            members: BTreeSet::new(),
            sender,
            received,
            tasks: FuturesUnordered::new(),
            aborts: HashMap::new(),
            actions: Vec::new(),
            manifest: None,
            last: RpcError::new(ErrorKind::NotFound, "no peer is known"),
        }
    }

    fn on(&mut self, event: Event) {
        let now_ms = u64::try_from(clock::since(self.started).as_millis()).unwrap_or(u64::MAX);
        let actions = self.swarm.on(now_ms, event);
        self.actions.extend(actions);
    }

    async fn run(&mut self, mut control: Control<'_>) -> Result<Option<Manifest>, GatherError> {
        let mut tick = tokio::time::interval(Duration::from_millis(TICK_MS));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut controlled = true;
        loop {
            if self.act()? {
                return Ok(self.manifest.take());
            }
            tokio::select! {
                Some(received) = self.received.recv() => self.take(received).await?,
                event = control.next(), if controlled => match event {
                    Some(Ok(event)) => self.told(event)?,
                    Some(Err(error)) => { controlled = false; self.uncontrolled(error)?; }
                    None => {
                        controlled = false;
                        self.uncontrolled(RpcError::new(ErrorKind::Retry, "the stream ended"))?;
                    }
                },
                // The tasks move only while they are polled; what they bring comes as messages.
                Some(()) = self.tasks.next() => {}
                _ = tick.tick() => {
                    self.on(Event::Reads { chunk: self.live.reading() });
                    self.on(Event::Tick);
                }
            }
        }
    }

    /// Carries out what the session wants; true when every chunk is here.
    fn act(&mut self) -> Result<bool, GatherError> {
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Request { request, peer, chunks } => self.ask(request, peer, chunks),
                Action::Cancel { request } => {
                    if let Some(abort) = self.aborts.remove(&request) {
                        abort.abort();
                    }
                }
                Action::Done => return Ok(true),
                Action::Stuck => return Err(GatherError::Stuck { last: self.last.clone() }),
            }
        }
        Ok(false)
    }

    /// Without the filler nothing more becomes known; what is known can still be gathered.
    fn uncontrolled(&mut self, error: RpcError) -> Result<(), GatherError> {
        let all_known = self.wanted.object.is_some() || self.manifest.is_some();
        if all_known { Ok(()) } else { Err(GatherError::FillerLost(error)) }
    }

    fn told(&mut self, event: Followed) -> Result<(), GatherError> {
        match event {
            Followed::Head(_) => {}
            Followed::Chunk { index, hash, .. } => {
                if !self.live.announce(index, hash) {
                    return Err(GatherError::OtherVersion);
                }
                self.hashes.insert(index, hash);
                self.know(index + 1, false);
            }
            Followed::Members { nodes, .. } => self.meet_members(nodes.into_iter().collect()),
            Followed::Done(manifest) => {
                let same =
                    (0..self.known).all(|i| manifest.hash(i) == self.hashes.get(&i).copied());
                if !same {
                    return Err(GatherError::OtherVersion);
                }
                for index in self.known..manifest.chunk_count() {
                    self.hashes.extend(manifest.hash(index).map(|hash| (index, hash)));
                }
                let count = manifest.chunk_count();
                self.manifest = Some(*manifest);
                self.know(count, true);
            }
            Followed::Failed(reason, message) => {
                return Err(GatherError::FillFailed(reason, message));
            }
        }
        Ok(())
    }

    fn know(&mut self, count: u32, all: bool) {
        let before = self.known;
        self.known = before.max(count);
        self.on(Event::Known { count, all });
        for peer in self.complete.clone() {
            self.on(Event::Has { peer, first: before, count: self.known - before });
        }
    }

    fn meet_members(&mut self, members: BTreeSet<NodeId>) {
        let view = self.gatherer.view.borrow().clone();
        // Who is not in the view yet is met when it is told of again.
        let known = |id: &NodeId| view.member(*id).is_some();
        let members: BTreeSet<_> = members.into_iter().filter(known).collect();
        for gone in self.members.difference(&members).copied().collect::<Vec<_>>() {
            self.met.remove(&gone);
            self.on(Event::Lost(gone));
        }
        let new: Vec<_> = members.difference(&self.members).copied().collect();
        self.live.meet_mates(&members);
        self.members = members;
        for id in new.into_iter().filter(|id| *id != self.gatherer.me) {
            let Some(member) = view.member(id) else { continue };
            self.on(Event::Pulls { id, zone: zone(&member.zone) });
            if self.met.len() < MATES_MAX {
                self.meet(member, true);
            }
        }
    }

    /// Begins to listen to what a peer has.
    fn meet(&mut self, member: &Member, mate: bool) {
        let id = member.id;
        if id == self.gatherer.me || self.met.contains_key(&id) {
            return;
        }
        self.met.insert(id, member.clone());
        self.on(Event::Met(Facts { id, zone: zone(&member.zone), mate }));
        let listening = listen(self.gatherer.peers.clone(), (member.clone(), mate), self.wanted);
        self.tasks.push(listening(self.sender.clone()));
    }

    fn ask(&mut self, request: u64, peer: NodeId, chunks: Vec<u32>) {
        let Some(member) = self.met.get(&peer).cloned() else { return };
        let (abort, registration) = AbortHandle::new_pair();
        self.aborts.insert(request, abort);
        let (peers, wanted, sender) =
            (self.gatherer.peers.clone(), self.wanted, self.sender.clone());
        let asked = async move {
            let ended = receive(&peers, &member, wanted, (request, &chunks), &sender).await;
            // The receiver lives as long as this run.
            let _ = sender.send(Received::Ended { request, ended }).await;
        };
        self.tasks.push(Abortable::new(asked, registration).map(drop).boxed());
    }

    async fn take(&mut self, received: Received) -> Result<(), GatherError> {
        match received {
            Received::Chunk { request, index, data } => self.chunk(request, index, data).await?,
            Received::Ended { request, ended } => {
                self.aborts.remove(&request);
                let ending = match ended {
                    Ok(()) => Ending::Served,
                    Err(error) => {
                        let busy = error.kind == ErrorKind::Retry;
                        self.gatherer.peers.metrics().failures.inc();
                        self.last = error;
                        if busy { Ending::Busy } else { Ending::Failed }
                    }
                };
                self.on(Event::Ended { request, ending });
            }
            Received::Has { peer, ranges, all } => {
                for v1::ChunkRange { first, count } in ranges {
                    self.on(Event::Has { peer, first, count });
                }
                if all && self.complete.insert(peer) {
                    self.on(Event::Has { peer, first: 0, count: self.known });
                }
            }
            Received::Gone { peer } => {
                self.met.remove(&peer);
                self.on(Event::Lost(peer));
            }
        }
        Ok(())
    }

    async fn chunk(&mut self, request: u64, index: u32, data: Bytes) -> Result<(), GatherError> {
        // What a dropped peer had on its way is of no interest any more.
        let Some(peer) = self.swarm.peer_of(request) else { return Ok(()) };
        let hash = ChunkHash::of(&data);
        let metrics = self.gatherer.peers.metrics();
        if self.hashes.get(&index) != Some(&hash) {
            metrics.bad_chunks.inc();
            let name = self.met.get(&peer).map_or("", |member| member.name.as_str());
            tracing::warn!(peer = name, index, "a chunk does not match its hash, peer dropped");
            self.on(Event::Bad { request });
            return Ok(());
        }
        metrics.bytes_in.inc_by(data.len() as u64);
        self.live.put_chunk(index, data, hash).await?;
        self.live.sources().given_by(peer);
        self.on(Event::Good { request, chunk: index });
        Ok(())
    }
}

/// A zone's number; 0 for none.
fn zone(name: &str) -> u32 {
    if name.is_empty() {
        return 0;
    }
    let [a, b, c, d, ..] = *blake3::hash(name.as_bytes()).as_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn listen(
    peers: Peers,
    (member, mate): (Member, bool),
    wanted: Wanted,
) -> impl FnOnce(mpsc::Sender<Received>) -> BoxFuture<'static, ()> {
    move |sender| {
        async move {
            let peer = member.id;
            let tries = if mate { LISTEN_TRIES_MAX } else { 1 };
            let Some(mut events) = availability(&peers, &member, (wanted, tries)).await else {
                let _ = sender.send(Received::Gone { peer }).await;
                return;
            };
            // Ends with the run, which is when the receiver is gone.
            let mut all = false;
            while let Ok(Some(event)) = events.message().await {
                all |= event.all;
                let told = Received::Has { peer, ranges: event.has, all: event.all };
                if sender.send(told).await.is_err() {
                    return;
                }
            }
            if !all {
                let _ = sender.send(Received::Gone { peer }).await;
            }
        }
        .boxed()
    }
}

async fn availability(
    peers: &Peers,
    member: &Member,
    (wanted, tries): (Wanted, u32),
) -> Option<tonic::Streaming<v1::AvailabilityEvent>> {
    for tried in 0..tries {
        if tried > 0 {
            tokio::time::sleep(Duration::from_millis(LISTEN_PAUSE_MS << tried)).await;
        }
        if let Ok(events) = peers.availability(member, wanted).await {
            return Some(events);
        }
    }
    None
}

async fn receive(
    peers: &Peers,
    member: &Member,
    wanted: Wanted,
    (request, chunks): (u64, &[u32]),
    sender: &mpsc::Sender<Received>,
) -> Result<(), RpcError> {
    let pieces = peers.chunks(member, wanted, chunks).await?;
    let mut pieces = std::pin::pin!(pieces);
    let mut left = chunks.to_vec();
    while let Some(piece) = pieces.next().await {
        let (index, data) = piece?;
        // Each once: a peer that repeats itself brings nothing, and would never end.
        let Some(at) = left.iter().position(|chunk| *chunk == index) else {
            let message = format!("{} sent chunk {index}, not asked for", member.name);
            return Err(RpcError::new(ErrorKind::Corrupt, message));
        };
        left.swap_remove(at);
        let _ = sender.send(Received::Chunk { request, index, data }).await;
    }
    Ok(())
}
