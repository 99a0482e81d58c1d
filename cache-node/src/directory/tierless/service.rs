//! The home service: what nodes without the tier ask of this one. Every request is checked against
//! the limits, and whoever speaks for a node must be that node.

use std::sync::Arc;

use shoal_proto::limits::ANNOUNCE_CHANGES_MAX;
use shoal_proto::wire::{WireError, id_from, v1};
use shoal_proto::{ErrorKind, LeaseId, NodeId, ObjectId, ObjectKey, RpcError};
use tonic::{Request, Response, Status};

use super::home_node::HomeNode;
use crate::home::{self, Ask};
use crate::rpc;

/// Answers other nodes.
#[derive(Clone, Debug)]
pub struct HomeService {
    home: Arc<HomeNode>,
}

type Answer<T> = Result<Response<T>, Status>;

impl HomeService {
    pub(in crate::directory) fn new(home: Arc<HomeNode>) -> Self {
        Self { home }
    }

    fn caller<T>(&self, request: &Request<T>, id: u64) -> Result<NodeId, RpcError> {
        let unknown = || {
            let message = format!("node {id} is not in this node's view");
            RpcError::new(ErrorKind::Retry, message)
        };
        let member = self.home.member(NodeId(id)).ok_or_else(unknown)?;
        rpc::check_caller(self.home.channels.security(), request, &member.name)?;
        Ok(member.id)
    }
}

#[tonic::async_trait]
impl v1::home_server::Home for HomeService {
    async fn acquire(&self, request: Request<v1::AcquireRequest>) -> Answer<v1::AcquireReply> {
        self.caller(&request, request.get_ref().node_id)?;
        let ask = Ask::try_from(request.into_inner())?;
        Ok(Response::new(self.home.acquire(ask).await?))
    }

    async fn shadow(&self, request: Request<v1::ShadowRequest>) -> Answer<v1::ShadowReply> {
        let node = self.caller(&request, request.get_ref().node_id)?;
        let request = request.into_inner();
        let id = home::lease(request.lease_id, request.lease_ms)?;
        self.home.shadow((id_from("key", &request.key)?, id), node, request.ended);
        Ok(Response::new(v1::ShadowReply {}))
    }

    async fn publish(&self, request: Request<v1::PublishRequest>) -> Answer<v1::PublishReply> {
        let node = self.caller(&request, request.get_ref().node_id)?;
        let v1::PublishRequest { lease_id, head, .. } = request.into_inner();
        let head = head.ok_or_else(|| WireError::field("head", "missing", "a head"))?;
        let key = id_from::<ObjectKey>("key", &head.key)?;
        let object = id_from::<ObjectId>("object_id", &head.object_id)?;
        self.home.publish((key, LeaseId(lease_id)), object, node);
        Ok(Response::new(v1::PublishReply { position: 0, current: true }))
    }

    async fn release(&self, request: Request<v1::ReleaseRequest>) -> Answer<v1::ReleaseReply> {
        let node = self.caller(&request, request.get_ref().node_id)?;
        let v1::ReleaseRequest { key, lease_id, pass_ms, .. } = request.into_inner();
        self.home.release((id_from("key", &key)?, LeaseId(lease_id)), node, pass_ms);
        Ok(Response::new(v1::ReleaseReply {}))
    }

    async fn tell(&self, request: Request<v1::TellRequest>) -> Answer<v1::TellReply> {
        let node = self.caller(&request, request.get_ref().node_id)?;
        for (what, held) in holdings(&request.into_inner())? {
            self.home.announce(what, node, held);
        }
        Ok(Response::new(v1::TellReply {}))
    }
}

type Whats = Vec<((ObjectKey, ObjectId), bool)>;

/// PURE. What a node says that it holds: all of an object, or nothing of it.
pub(in crate::directory) fn holdings(request: &v1::TellRequest) -> Result<Whats, WireError> {
    let count = request.holdings.len();
    if count > ANNOUNCE_CHANGES_MAX {
        let most = format!("at most {ANNOUNCE_CHANGES_MAX}");
        return Err(WireError::field("holdings", count, most));
    }
    let read = |holding: &v1::Holding| {
        let what = (id_from("key", &holding.key)?, id_from("object_id", &holding.object_id)?);
        Ok((what, !holding.gone))
    };
    request.holdings.iter().map(read).collect()
}
