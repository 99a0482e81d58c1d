//! Sessions with members: hello and welcome, heartbeats and their answers; views, fences and sites as
//! they come. The ledger decides what is answered; this file carries it out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_proto::limits::RPC_DEADLINE_MS;
use shoal_proto::wire::v1::command::Command;
use shoal_proto::wire::v1::{self, session_down::Event as Down, session_up::Event as Up};
use shoal_proto::{ErrorKind, NodeId, RpcError};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};

use super::checks;
use super::ledger::{Ledger, Opened};
use super::sites::Applied;
use super::tier::{Tier, bug, ms};
use crate::membership::Role;
use crate::{clock, rpc};

/// For the tier to agree that a member drains, or does not; the next heartbeat tries again.
const STANDING_DEADLINE: Duration = Duration::from_millis(500);
/// Messages waiting to go down one session.
pub(super) const DOWN_QUEUE_MAX: usize = 16;

type Outbox = mpsc::Sender<Result<v1::SessionDown, Status>>;

/// All sessions, and a way to wait for what their members acknowledge.
pub(super) struct Sessions {
    ledger: Mutex<Ledger>,
    sites: Mutex<Applied>,
    ends: Mutex<HashMap<u64, CancellationToken>>,
    acks: watch::Sender<()>,
}

impl Sessions {
    pub(super) fn new(ledger: Ledger) -> Self {
        let acks = watch::channel(()).0;
        let (sites, ends) = Default::default();
        Self { ledger: Mutex::new(ledger), sites, ends, acks }
    }

    /// Runs `use_ledger` on the books.
    pub(super) fn ledger<T>(&self, use_ledger: impl FnOnce(&mut Ledger) -> T) -> T {
        use_ledger(&mut self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs `use_sites` on who has applied which sites.
    pub(super) fn sites<T>(&self, use_sites: impl FnOnce(&mut Applied) -> T) -> T {
        use_sites(&mut self.sites.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells of acknowledgements.
    pub(super) fn acks(&self) -> watch::Receiver<()> {
        self.acks.subscribe()
    }

    /// Ends every session: their members are to go elsewhere.
    pub(super) fn end_all(&self) {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.values().for_each(CancellationToken::cancel);
    }

    fn open(&self, now_ms: u64, opened: Opened) -> CancellationToken {
        let superseded = self.ledger(|ledger| ledger.open(now_ms, opened));
        self.sites(|sites| sites.open(opened.session_id, opened.node));
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        for end in superseded.iter().filter_map(|id| ends.get(id)) {
            end.cancel();
        }
        ends.entry(opened.session_id).or_default().clone()
    }

    fn closed(&self, now_ms: u64, id: u64, in_order: bool) {
        self.ledger(|ledger| ledger.closed(now_ms, id, in_order));
        self.sites(|sites| sites.closed(id));
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    fn acked(&self, id: u64, position: u64) {
        self.ledger(|ledger| ledger.acked(id, position));
        self.acks.send_replace(());
    }

    fn sites_acked(&self, id: u64, revision: u64) {
        self.sites(|sites| sites.acked(id, revision));
        self.acks.send_replace(());
    }
}

/// One session from hello to end. `caller` carries the certificate of whoever speaks.
pub(super) async fn run(
    tier: Arc<Tier>,
    caller: Request<()>,
    mut up: Streaming<v1::SessionUp>,
    down: Outbox,
) {
    let ended = match greet(&tier, &caller, &mut up).await {
        Ok((greeted, info)) => serve(&tier, greeted, info, (&mut up, &down)).await,
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        tracing::info!(%error, "session ended");
        // A caller that is gone, or does not listen, needs no reason.
        let _ = down.try_send(Err(error.into()));
    }
}

async fn next(up: &mut Streaming<v1::SessionUp>) -> Result<Option<Up>, RpcError> {
    let Some(message) = up.message().await? else { return Ok(None) };
    let empty = || RpcError::new(ErrorKind::Invalid, "an empty message on the session");
    message.event.ok_or_else(empty).map(Some)
}

/// Who begins a session, and the revision of the sites that it has.
#[derive(Clone, Copy)]
struct Greeted {
    opened: Opened,
    sites_revision: u64,
}

/// Hears the hello and checks it.
async fn greet(
    tier: &Tier,
    caller: &Request<()>,
    up: &mut Streaming<v1::SessionUp>,
) -> Result<(Greeted, v1::NodeInfo), RpcError> {
    let silent = |_| RpcError::new(ErrorKind::Retry, "no hello in time");
    let first = tokio::time::timeout(ms(RPC_DEADLINE_MS), next(up)).await.map_err(silent)??;
    let Some(Up::Hello(hello)) = first else {
        return Err(RpcError::new(ErrorKind::Invalid, "a session begins with a hello"));
    };
    checks::cluster(&tier.cluster_id, &hello.cluster_id)?;
    let info = checks::member(hello.node)?;
    rpc::check_caller(tier.channels.security(), caller, &info.name)?;
    let node = NodeId(info.node_id);
    let holder_of_id = tier.index.member(node);
    if holder_of_id.is_some_and(|member| member.up && member.name != info.name) {
        return Err(refused(&info));
    }
    tier.until_in_touch().await?;
    if !tier.sessions.ledger(|ledger| ledger.has_room()) {
        return Err(RpcError::new(ErrorKind::Retry, "too many sessions with this super-node"));
    }
    let opened = Opened {
        session_id: clock::random_u64().map_err(bug)?,
        node,
        keeps_itself: info.role() == v1::Role::Super,
        fence_position: hello.fence_position,
    };
    Ok((Greeted { opened, sites_revision: hello.sites_revision }, info))
}

fn refused(info: &v1::NodeInfo) -> RpcError {
    let v1::NodeInfo { node_id, name, .. } = info;
    let message = format!(
        "node {} ({name}) is refused: its id is a live member's of another name, or the cluster is \
         full",
        NodeId(*node_id)
    );
    RpcError::new(ErrorKind::Denied, message)
}

/// Serves a session until it ends: `Ok` when the member closed it in order.
async fn serve(
    tier: &Tier,
    Greeted { opened, sites_revision }: Greeted,
    info: v1::NodeInfo,
    (up, down): (&mut Streaming<v1::SessionUp>, &Outbox),
) -> Result<(), RpcError> {
    // On the books before anything is agreed on or read: what the index says of a session here is
    // always known here, a fence applied before is in the welcome, and a purge that asks later finds
    // this session.
    let end = tier.sessions.open(tier.now_ms(), opened);
    count(tier);
    let id = opened.session_id;
    let mut line = Line { tier, opened, id, info, down, offered: 0, sites: sites_revision };
    let served = async {
        let announce_all = match opened.keeps_itself {
            true => super_member(tier, opened.node, &line.info.name, sites_revision).await?,
            false => enlist(tier, line.info.clone(), opened.session_id).await?,
        };
        line.welcome(opened.fence_position, announce_all).await?;
        line.keep(up, end).await
    };
    let ended = served.await;
    tier.sessions.closed(tier.now_ms(), opened.session_id, ended.is_ok());
    count(tier);
    ended
}

fn count(tier: &Tier) {
    let open = tier.sessions.ledger(|ledger| ledger.open_count());
    tier.metrics.sessions.set(i64::try_from(open).unwrap_or(i64::MAX));
}

/// A super-node that caches has a session like everybody, but its membership is its own affair.
/// Whether it is to announce everything: it never is. Others' membership is agreed on, and so
/// everything known that was committed before; here sites could go back to older ones.
async fn super_member(
    tier: &Tier,
    id: NodeId,
    name: &str,
    sites_revision: u64,
) -> Result<bool, RpcError> {
    if tier.index.sites_revision() < sites_revision {
        tier.raft.read_barrier(ms(RPC_DEADLINE_MS)).await?;
    }
    let known = tier.index.member(id);
    match known.filter(|member| member.name == name && member.role == Role::Super) {
        Some(_) => Ok(false),
        None => Err(RpcError::new(ErrorKind::Retry, "this super-node is not registered yet")),
    }
}

/// Has the tier agree that this super-node vouches for the member; whether the index knows nothing
/// of what it holds.
async fn enlist(tier: &Tier, info: v1::NodeInfo, session_id: u64) -> Result<bool, RpcError> {
    let put =
        v1::PutMember { node: Some(info.clone()), session_id, super_node_id: tier.info.node_id };
    let outcome = tier.submit(Command::PutMember(put)).await?;
    if outcome.reply.refused {
        return Err(refused(&info));
    }
    tier.raft.wait_applied(outcome.position, ms(RPC_DEADLINE_MS)).await?;
    Ok(outcome.reply.created)
}

/// One session's line down.
struct Line<'a> {
    tier: &'a Tier,
    opened: Opened,
    id: u64,
    info: v1::NodeInfo,
    down: &'a Outbox,
    offered: u64,
    /// The revision of the sites that it has or was sent last.
    sites: u64,
}

impl Line<'_> {
    async fn welcome(&mut self, known: u64, announce_all: bool) -> Result<(), RpcError> {
        let tier = self.tier;
        let position = tier.index.fence_position();
        let fences = tier.index.fences_after(known);
        tier.sessions.ledger(|ledger| ledger.welcomed(tier.now_ms(), self.id, position));
        self.offered = position;
        let sites_revision = tier.index.sites_revision();
        if sites_revision == self.sites {
            tier.sessions.sites_acked(self.id, sites_revision);
        }
        let welcome = v1::Welcome {
            session_id: self.id,
            lease_ms: tier.timing.session_lease_ms,
            heartbeat_ms: tier.timing.heartbeat_ms,
            view: Some((&tier.build_view()).into()),
            fences: Some(v1::FenceBatch { fences, position }),
            super_node: Some(tier.info.clone()),
            announce_all,
            sites_revision,
        };
        self.send(Down::Welcome(welcome)).await
    }

    async fn keep(
        &mut self,
        up: &mut Streaming<v1::SessionUp>,
        end: CancellationToken,
    ) -> Result<(), RpcError> {
        let tier = self.tier;
        let mut views = tier.view.subscribe();
        let mut index = tier.index.changed();
        let idle = ms(tier.timing.lease_ms());
        let mut heard = clock::monotonic();
        self.offer().await?;
        self.offer_sites().await?;
        loop {
            let silence = tokio::time::sleep(idle.saturating_sub(clock::since(heard)));
            tokio::select! {
                event = next(up) => match event? {
                    None => return Ok(()),
                    Some(event) => {
                        heard = clock::monotonic();
                        self.event(event).await?;
                    }
                },
                () = silence => {
                    return Err(RpcError::new(ErrorKind::Retry, "no heartbeat in a lease's time"));
                }
                Ok(()) = views.changed() => {
                    let view = v1::View::from(&*views.borrow_and_update());
                    self.send(Down::View(view)).await?;
                }
                Ok(()) = index.changed() => {
                    self.still_stands()?;
                    self.offer().await?;
                    self.offer_sites().await?;
                }
                () = end.cancelled() => {
                    let why = "a newer session has begun, or this super-node is shutting down";
                    return Err(RpcError::new(ErrorKind::Closed, why));
                }
            }
        }
    }

    /// Whether the index still says that this session vouches for its member. It may not: the tier
    /// gave up this super-node for a while, or the member has a newer session elsewhere.
    fn still_stands(&self) -> Result<(), RpcError> {
        let Opened { node, session_id, keeps_itself, .. } = self.opened;
        let record = self.tier.index.record(node);
        let ours = record.is_some_and(|r| r.member.up && r.session_id == session_id);
        if ours || keeps_itself {
            return Ok(());
        }
        Err(RpcError::new(ErrorKind::Closed, "this session counts no more: begin another"))
    }

    async fn event(&mut self, event: Up) -> Result<(), RpcError> {
        let tier = self.tier;
        match event {
            Up::Hello(_) => Err(RpcError::new(ErrorKind::Invalid, "a second hello")),
            Up::FenceAck(ack) => {
                tier.sessions.acked(self.id, ack.position);
                Ok(())
            }
            Up::SitesAck(ack) => {
                tier.sessions.sites_acked(self.id, ack.revision);
                Ok(())
            }
            Up::Heartbeat(beat) => {
                if let Some(stats) = beat.stats {
                    self.report(stats).await;
                }
                let (now_ms, in_touch) = (tier.now_ms(), tier.in_touch());
                if tier.sessions.ledger(|ledger| ledger.heard(now_ms, self.id, in_touch)) {
                    let ack = v1::HeartbeatAck { sequence: beat.sequence };
                    self.send(Down::HeartbeatAck(ack)).await?;
                }
                Ok(())
            }
        }
    }

    /// What a node that could be a super-node has, and whether the member is about to leave.
    async fn report(&mut self, stats: v1::NodeStats) {
        let Opened { node, session_id, keeps_itself, .. } = self.opened;
        if let Some(capability) = stats.capability {
            self.tier.reports.heard(self.tier.now_ms(), node, capability);
        }
        if keeps_itself || stats.draining == self.info.draining {
            return;
        }
        let info = v1::NodeInfo { draining: stats.draining, ..self.info.clone() };
        let enlisted = enlist(self.tier, info.clone(), session_id);
        match tokio::time::timeout(STANDING_DEADLINE, enlisted).await {
            Ok(Ok(_)) => self.info = info,
            Ok(Err(error)) => tracing::debug!(%error, "a member's draining is not agreed on yet"),
            Err(_) => tracing::debug!("a member's draining is not agreed on yet"),
        }
    }

    /// Sends the fences that came since the last ones.
    async fn offer(&mut self) -> Result<(), RpcError> {
        let position = self.tier.index.fence_position();
        if position <= self.offered {
            return Ok(());
        }
        let fences = self.tier.index.fences_after(self.offered);
        let now_ms = self.tier.now_ms();
        self.tier.sessions.ledger(|ledger| ledger.offered(now_ms, self.id, position));
        self.offered = position;
        self.send(Down::Fences(v1::FenceBatch { fences, position })).await
    }

    /// Sends all sites when they are others than the member has.
    async fn offer_sites(&mut self) -> Result<(), RpcError> {
        if self.tier.index.sites_revision() == self.sites {
            return Ok(());
        }
        let table = self.tier.index.sites();
        self.sites = table.revision;
        self.send(Down::Sites(table)).await
    }

    async fn send(&self, event: Down) -> Result<(), RpcError> {
        let message = Ok(v1::SessionDown { event: Some(event) });
        let lease = ms(self.tier.timing.lease_ms());
        match self.down.send_timeout(message, lease).await {
            Ok(()) => Ok(()),
            Err(_) => Err(RpcError::new(ErrorKind::Retry, "the member does not listen")),
        }
    }
}
