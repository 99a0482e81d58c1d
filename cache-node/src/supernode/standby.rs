//! The side of a node whose role the tier chooses: hears from the leader whether it is to run a
//! super-node. Starting and ending one is the process's affair; this is the line to it.
//!
//! Invariants: only a super-node of the last known view is heard, and none of a term that is over;
//! what is wanted is a state, not an event, so that it can be told again at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shoal_proto::limits::RPC_DEADLINE_MS;
use shoal_proto::wire::v1;
use shoal_proto::wire::v1::index_client::IndexClient;
use shoal_proto::wire::v1::standby_server::StandbyServer;
use shoal_proto::{ClusterId, ErrorKind, NodeId, RpcError};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::checks;
use super::tier::ms;
use crate::membership::{ClusterView, Role};
use crate::rpc::{self, Channels, with_deadline};
use crate::tls::Security;

/// How long an answer waits for what is wanted, in milliseconds: the leader's own deadline is longer.
const ANSWER_MS: u64 = RPC_DEADLINE_MS * 3 / 4;
/// For a super-node to say who is in the tier, in milliseconds.
const PLACE_DEADLINE_MS: u64 = RPC_DEADLINE_MS / 2;

/// Whether the tier counts a node in, as far as anybody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is a voter or a learner.
    Within,
    /// A tier with a leader goes on without it.
    Without,
    /// Nobody answers who knows.
    Unknown,
}

/// Asks the super-nodes at these addresses, all at once, whether `me` is in their tier.
pub async fn place_of(
    channels: &Channels,
    cluster: &ClusterId,
    addresses: &[String],
    me: NodeId,
) -> Place {
    let asked = addresses.iter().map(|address| async move {
        let mut client = IndexClient::new(channels.to(address, "")?);
        let request = v1::WhoisRequest { node: None, ..Default::default() };
        let reply = with_deadline(ms(PLACE_DEADLINE_MS), client.whois(request)).await?;
        checks::cluster(cluster, &reply.cluster_id)?;
        Ok::<_, RpcError>(reply)
    });
    let answers = futures::future::join_all(asked).await;
    let told: Vec<_> = answers.into_iter().flatten().collect();
    if told.iter().any(|reply| reply.tier_node_ids.contains(&me.0)) {
        return Place::Within;
    }
    match told.iter().any(|reply| reply.leader_node_id != 0) {
        true => Place::Without,
        false => Place::Unknown,
    }
}

/// The line between the leader and the process.
#[derive(Clone, Debug)]
pub struct Standby {
    /// Whether a super-node is to run here.
    pub wanted: watch::Sender<bool>,
    /// Whether one runs here.
    pub runs: watch::Sender<bool>,
}

impl Standby {
    /// A super-node is wanted, or not, from the start; none runs yet.
    pub fn new(wanted: bool) -> Self {
        Self { wanted: watch::channel(wanted).0, runs: watch::channel(false).0 }
    }

    /// The service; to be added to the cluster listener.
    pub fn service(
        &self,
        security: Security,
        view: watch::Receiver<ClusterView>,
    ) -> StandbyServer<StandbyService> {
        let term = Arc::default();
        StandbyServer::new(StandbyService { line: self.clone(), security, view, term })
    }
}

/// Answers the leader.
pub struct StandbyService {
    line: Standby,
    security: Security,
    view: watch::Receiver<ClusterView>,
    /// The newest term heard of.
    term: Arc<AtomicU64>,
}

impl StandbyService {
    fn check(&self, request: &Request<v1::BecomeRequest>) -> Result<(), RpcError> {
        let v1::BecomeRequest { node_id, term, .. } = *request.get_ref();
        let view = self.view.borrow().clone();
        let caller = view.member(NodeId(node_id)).filter(|member| member.role == Role::Super);
        let Some(caller) = caller else {
            let message = format!("{} is no super-node that is known here yet", NodeId(node_id));
            return Err(RpcError::new(ErrorKind::Retry, message));
        };
        rpc::check_caller(&self.security, request, &caller.name)?;
        let newest = self.term.fetch_max(term, Ordering::Relaxed).max(view.term);
        if term < newest {
            let message = format!("term {term} is over, {newest} has begun");
            return Err(RpcError::new(ErrorKind::Denied, message));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl v1::standby_server::Standby for StandbyService {
    async fn r#become(
        &self,
        request: Request<v1::BecomeRequest>,
    ) -> Result<Response<v1::BecomeReply>, Status> {
        self.check(&request)?;
        let wanted = request.get_ref().super_node;
        self.line.wanted.send_if_modified(|now| std::mem::replace(now, wanted) != wanted);
        let mut runs = self.line.runs.subscribe();
        // Late or not: the answer says how it is.
        let _ = tokio::time::timeout(ms(ANSWER_MS), runs.wait_for(|runs| *runs == wanted)).await;
        let runs = *runs.borrow();
        Ok(Response::new(v1::BecomeReply { runs }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Member;
    use shoal_proto::wire::v1::standby_server::Standby as _;

    fn service() -> (Standby, StandbyService) {
        let member = |id, role: v1::Role| {
            let info = v1::NodeInfo {
                node_id: id,
                name: format!("n{id}"),
                role: role.into(),
                ..Default::default()
            };
            let up = v1::MemberState::Up.into();
            Member::try_from(v1::Member { info: Some(info), state: up, voter: true }).unwrap()
        };
        let members = [member(1, v1::Role::Super), member(2, v1::Role::Node)];
        let view = ClusterView { members: members.into(), term: 3, ..Default::default() };
        let line = Standby::new(false);
        let (view, security) = (watch::channel(view).1, Security::Insecure);
        let service = StandbyService { line: line.clone(), security, view, term: Arc::default() };
        (line, service)
    }

    async fn told(service: &StandbyService, node_id: u64, term: u64) -> Result<bool, ErrorKind> {
        let request = v1::BecomeRequest { node_id, term, super_node: true };
        let answer = service.r#become(Request::new(request)).await;
        answer.map(|reply| reply.into_inner().runs).map_err(|status| RpcError::from(status).kind)
    }

    #[tokio::test]
    async fn only_the_leader_of_now_is_heard() {
        let (line, service) = service();
        assert_eq!(told(&service, 2, 9).await, Err(ErrorKind::Retry), "no super-node");
        assert_eq!(told(&service, 7, 9).await, Err(ErrorKind::Retry), "nobody");
        assert_eq!(told(&service, 1, 2).await, Err(ErrorKind::Denied), "the view knows term 3");
        assert!(!*line.wanted.borrow());
        assert_eq!(told(&service, 1, 5).await, Ok(false), "not started in time");
        assert!(*line.wanted.borrow());
        assert_eq!(told(&service, 1, 4).await, Err(ErrorKind::Denied), "5 was heard of");
        line.runs.send_replace(true);
        assert_eq!(told(&service, 1, 5).await, Ok(true));
    }
}
