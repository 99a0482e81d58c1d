//! The index service. Every request is checked against the limits, and whoever speaks for a node
//! must be that node; what is then done stands in the modules.

use std::sync::Arc;

use shoal_proto::limits::{HOLDERS_ANSWERED_MAX, RPC_DEADLINE_MS, WRITE_DEADLINE_MS};
use shoal_proto::wire::v1::command::Command;
use shoal_proto::wire::{id_from, v1};
use shoal_proto::{ErrorKind, LeaseId, NodeId, ObjectId, ObjectKey, RpcError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::tier::{Tier, bug, ms};
use super::{acquire, checks, purge, session, sites, standbys, verify};
use crate::membership::{ClusterView, Role};
use crate::rpc;

/// Answers nodes and other super-nodes.
#[derive(Clone)]
pub struct IndexService {
    tier: Arc<Tier>,
}

type Answer<T> = Result<Response<T>, Status>;

impl IndexService {
    pub(super) fn new(tier: Arc<Tier>) -> Self {
        Self { tier }
    }

    /// Learns the address of a super-node that introduces itself, unless its id is another's or its
    /// data is of a tier that is no more; whether it was removed from the tier.
    async fn learn(&self, request: &v1::WhoisRequest) -> Result<bool, RpcError> {
        let Some(info) = request.node.clone() else { return Ok(false) };
        let info = checks::member(Some(info))?;
        if info.role() != v1::Role::Super || info.node_id == self.tier.info.node_id {
            return Ok(false);
        }
        checks::cluster(&self.tier.cluster_id, &request.cluster_id)?;
        let raft = &self.tier.raft;
        if request.generation < raft.generation() {
            // The answer tells it.
            return Ok(false);
        }
        raft.meet(request.generation).await?;
        let known = self.tier.index.member(NodeId(info.node_id));
        let another = known.is_some_and(|m| m.name != info.name || m.role != Role::Super);
        let removed = self.tier.index.is_retired(NodeId(info.node_id));
        if !another && !removed {
            raft.learn_address(&info);
        }
        Ok(removed)
    }
}

impl IndexService {
    /// Whether another version of the key is fresh for longer: what was filled without a lease,
    /// and so without knowing of it, does not replace it.
    async fn is_outdated(&self, key: ObjectKey, new: &v1::IndexHead) -> Result<bool, RpcError> {
        let known = self.tier.read(move |tier| tier.index.head(&key).map_err(bug)).await?;
        Ok(known.is_some_and(|known| is_outdated(&known, new)))
    }
}

/// Whether what was filled without a lease is older than what is known.
pub(super) fn is_outdated(known: &v1::IndexHead, new: &v1::IndexHead) -> bool {
    known.object_id != new.object_id && known.fresh_until_ms > new.fresh_until_ms
}

#[tonic::async_trait]
impl v1::index_server::Index for IndexService {
    type SessionStream = ReceiverStream<Result<v1::SessionDown, Status>>;

    async fn whois(&self, request: Request<v1::WhoisRequest>) -> Answer<v1::WhoisReply> {
        if let Some(info) = &request.get_ref().node {
            rpc::check_caller(self.tier.channels.security(), &request, &info.name)?;
        }
        let removed = self.learn(request.get_ref()).await?;
        let view: ClusterView = self.tier.build_view();
        let state = self.tier.raft.state();
        let supers = view.members.iter().filter(|member| member.role == Role::Super);
        Ok(Response::new(v1::WhoisReply {
            cluster_id: self.tier.cluster_id.to_string(),
            node: Some(self.tier.info.clone()),
            leader_node_id: view.leader.map_or(0, |id| id.0),
            super_nodes: supers.map(v1::NodeInfo::from).collect(),
            generation: self.tier.raft.generation(),
            removed,
            tier_node_ids: state.voters.union(&state.learners).map(|id| id.0).collect(),
        }))
    }

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionUp>>,
    ) -> Answer<Self::SessionStream> {
        let (metadata, extensions, up) = request.into_parts();
        let caller = Request::from_parts(metadata, extensions, ());
        let (down, stream) = mpsc::channel(session::DOWN_QUEUE_MAX);
        let session = session::run(Arc::clone(&self.tier), caller, up, down);
        self.tier.tasks.spawn_until_stopped("session", session);
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn acquire(&self, request: Request<v1::AcquireRequest>) -> Answer<v1::AcquireReply> {
        let asker = self.tier.caller(&request, request.get_ref().node_id).await?;
        // The answer is to reflect every fence that the asker knows.
        let known = request.get_ref().fence_position;
        self.tier.raft.wait_applied(known, ms(RPC_DEADLINE_MS / 2)).await?;
        let ask = checks::ask(request.into_inner())?;
        Ok(Response::new(acquire::acquire(&self.tier, ask, &asker).await?))
    }

    async fn shadow(&self, request: Request<v1::ShadowRequest>) -> Answer<v1::ShadowReply> {
        let node = self.tier.caller(&request, request.get_ref().node_id).await?.id;
        let request = request.into_inner();
        let key = checks::key(&request.key)?;
        let id = checks::lease(request.lease_id, request.lease_ms)?;
        let began = Some(request.fence_position).filter(|position| *position > 0);
        let now_ms = self.tier.now_ms();
        self.tier.home(|home| match request.ended {
            true => home.end(&key, id, node),
            false => home.shadow(now_ms, key, (id, began), node),
        });
        Ok(Response::new(v1::ShadowReply {}))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Answer<v1::RenewReply> {
        let node = self.tier.caller(&request, request.get_ref().node_id).await?.id;
        let leases = checks::leases(request.get_ref())?;
        let now_ms = self.tier.now_ms();
        let mut lost = leases;
        self.tier.home(|home| lost.retain(|(key, id)| !home.renew(now_ms, key, *id, node)));
        let to_wire =
            |(key, id): (ObjectKey, LeaseId)| v1::LeaseRef { key: key.to_wire(), lease_id: id.0 };
        let lost = lost.into_iter().map(to_wire).collect();
        Ok(Response::new(v1::RenewReply { lost }))
    }

    async fn publish(&self, request: Request<v1::PublishRequest>) -> Answer<v1::PublishReply> {
        let node = self.tier.caller(&request, request.get_ref().node_id).await?.id;
        let request = request.into_inner();
        let (key, head) = checks::head(request.head, request.node_id)?;
        let lease = (key, LeaseId(request.lease_id));
        let tier = &self.tier;
        if request.lease_id == 0 && self.is_outdated(key, &head).await? {
            let position = tier.raft.state().applied;
            return Ok(Response::new(v1::PublishReply { position, current: false }));
        }
        let begun_ms = tier.now_ms();
        tier.home(|home| home.publish_begun(begun_ms, lease, node, WRITE_DEADLINE_MS));
        let published = async {
            let outcome = tier.submit(Command::PutHead(head)).await?;
            tier.raft.wait_applied(outcome.position, ms(WRITE_DEADLINE_MS)).await?;
            Ok::<_, RpcError>(outcome)
        };
        let published = published.await;
        let ended_ms = tier.now_ms();
        tier.home(|home| home.publish_ended(ended_ms, lease, node, published.is_ok()));
        let outcome = published?;
        let current = !outcome.reply.refused;
        Ok(Response::new(v1::PublishReply { position: outcome.position, current }))
    }

    async fn release(&self, request: Request<v1::ReleaseRequest>) -> Answer<v1::ReleaseReply> {
        let node = self.tier.caller(&request, request.get_ref().node_id).await?.id;
        let request = request.into_inner();
        let lease = (checks::key(&request.key)?, LeaseId(request.lease_id));
        let now_ms = self.tier.now_ms();
        self.tier.home(|home| home.release(now_ms, lease, node, request.pass_ms));
        Ok(Response::new(v1::ReleaseReply {}))
    }

    async fn announce(&self, request: Request<v1::AnnounceRequest>) -> Answer<v1::AnnounceReply> {
        self.tier.caller(&request, request.get_ref().node_id).await?;
        let commands = checks::holders(request.into_inner())?;
        let submitted = commands.into_iter().map(|c| self.tier.submit(Command::Holders(c)));
        let outcomes = futures::future::try_join_all(submitted).await?;
        if outcomes.iter().any(|outcome| outcome.reply.refused) {
            let message = "a change was refused: the node is not a member any more";
            return Err(RpcError::new(ErrorKind::Retry, message).into());
        }
        let position = outcomes.iter().map(|outcome| outcome.position).max().unwrap_or_default();
        Ok(Response::new(v1::AnnounceReply { position }))
    }

    async fn locate(&self, request: Request<v1::LocateRequest>) -> Answer<v1::LocateReply> {
        self.tier.agrees()?;
        let request = request.into_inner();
        if !request.object_refs.is_empty() {
            let objects = checks::objects(&request.object_refs)?;
            let located = self.tier.read(move |tier| acquire::locate(tier, &objects)).await?;
            return Ok(Response::new(v1::LocateReply { holders: Vec::new(), located }));
        }
        let object = id_from::<ObjectId>("object_id", &request.object_id)?;
        let live = self.tier.read(move |tier| acquire::live_holders(tier, &object, |_| true));
        let mut holders = live.await?;
        holders.truncate(HOLDERS_ANSWERED_MAX);
        let holders = holders.into_iter().map(v1::Holder::from).collect();
        Ok(Response::new(v1::LocateReply { holders, located: Vec::new() }))
    }

    async fn join(&self, request: Request<v1::JoinRequest>) -> Answer<v1::JoinReply> {
        checks::cluster(&self.tier.cluster_id, &request.get_ref().cluster_id)?;
        let info = checks::member(request.get_ref().node.clone())?;
        rpc::check_caller(self.tier.channels.security(), &request, &info.name)?;
        self.tier.raft.expect_generation(request.get_ref().generation)?;
        let absence = ms(self.tier.timing.lease_ms());
        let position = self.tier.raft.join(info, absence, ms(WRITE_DEADLINE_MS)).await?;
        Ok(Response::new(v1::JoinReply { position }))
    }

    async fn purge(&self, request: Request<v1::PurgeRequest>) -> Answer<v1::PurgeReply> {
        let caller = self.tier.caller(&request, request.get_ref().node_id).await?;
        let fenced = checks::fenced(request.get_ref())?;
        Ok(Response::new(purge::purge(&self.tier, &caller, &fenced).await?))
    }

    async fn sites(&self, request: Request<v1::SitesRequest>) -> Answer<v1::SiteTable> {
        self.tier.caller(&request, request.get_ref().node_id).await?;
        Ok(Response::new(sites::read(&self.tier).await?))
    }

    async fn change_sites(
        &self,
        request: Request<v1::ChangeSitesRequest>,
    ) -> Answer<v1::ChangeSitesReply> {
        self.tier.caller(&request, request.get_ref().node_id).await?;
        let change = request.into_inner().change.unwrap_or_default();
        Ok(Response::new(sites::change(&self.tier, change).await?))
    }

    async fn sites_applied(
        &self,
        request: Request<v1::SitesAppliedRequest>,
    ) -> Answer<v1::SitesAppliedReply> {
        Ok(Response::new(sites::answer(&self.tier, request.into_inner()).await?))
    }

    async fn standbys(&self, request: Request<v1::StandbysRequest>) -> Answer<v1::StandbysReply> {
        let asker = self.tier.caller(&request, request.get_ref().node_id).await?;
        if asker.role != Role::Super {
            let message = format!("{} is no super-node: only the leader asks this", asker.name);
            return Err(RpcError::new(ErrorKind::Denied, message).into());
        }
        Ok(Response::new(v1::StandbysReply { standbys: standbys::told(&self.tier) }))
    }

    async fn verify(&self, request: Request<v1::VerifyRequest>) -> Answer<v1::VerifyReply> {
        self.tier.caller(&request, request.get_ref().node_id).await?;
        Ok(Response::new(verify::verify(&self.tier).await?))
    }

    async fn fences_acked(
        &self,
        request: Request<v1::FencesAckedRequest>,
    ) -> Answer<v1::FencesAckedReply> {
        let position = request.get_ref().position;
        Ok(Response::new(purge::answer(&self.tier, position).await?))
    }
}
