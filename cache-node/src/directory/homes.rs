//! Calls to a key's home, and past it to the super-nodes ranked after it while it does not answer.
//!
//! A super-node that just failed is asked last for a moment, so that a lost one costs one failed
//! connection and not one a request.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use shoal_proto::limits::RPC_MESSAGE_BYTES_MAX;
use shoal_proto::wire::v1::index_client::IndexClient;
use shoal_proto::{ErrorKind, NodeId, ObjectKey, RpcError};
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::clock;
use crate::membership::{ClusterView, Member, placement};
use crate::metrics::DirectoryMetrics;
use crate::rpc::Channels;

/// How long a super-node that failed is asked last.
const AVOID_MS: u64 = 1_000;
/// Pause before the whole list is asked again.
const ROUND_PAUSE_MS: u64 = 50;

/// Members that failed a moment ago.
#[derive(Debug, Default)]
pub(super) struct Avoided {
    until: Mutex<HashMap<NodeId, Instant>>,
}

impl Avoided {
    /// The same members, those that just failed last.
    pub(super) fn last(&self, ranked: Vec<NodeId>) -> Vec<NodeId> {
        let avoided = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::monotonic();
        let failed = |id: &NodeId| avoided.get(id).is_some_and(|until| *until > now);
        let (last, mut first): (Vec<_>, Vec<_>) = ranked.into_iter().partition(failed);
        first.extend(last);
        first
    }

    /// Notes how a call to a member of the view went.
    pub(super) fn note(&self, id: NodeId, failed: bool) {
        let mut avoided = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if failed {
            avoided.insert(id, clock::monotonic() + Duration::from_millis(AVOID_MS));
        } else {
            avoided.remove(&id);
        }
    }
}

/// The super-nodes as this node reaches them.
#[derive(Debug)]
pub(super) struct Homes {
    channels: Channels,
    view: watch::Receiver<ClusterView>,
    avoided: Avoided,
    metrics: DirectoryMetrics,
}

impl Homes {
    pub(super) fn new(
        channels: Channels,
        view: watch::Receiver<ClusterView>,
        metrics: DirectoryMetrics,
    ) -> Self {
        Self { channels, view, avoided: Avoided::default(), metrics }
    }

    pub(super) fn client(&self, member: &Member) -> Result<IndexClient<Channel>, RpcError> {
        let channel = self.channels.to(&member.cluster_address, &member.name)?;
        Ok(IndexClient::new(channel)
            .max_decoding_message_size(RPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(RPC_MESSAGE_BYTES_MAX))
    }

    /// The key's homes in order, those that just failed last.
    pub(super) fn ranked(&self, key: &ObjectKey) -> Vec<Member> {
        let view = self.view.borrow().clone();
        let ranked = placement::rank(key, view.voters().map(|member| member.id));
        let ranked = self.avoided.last(ranked).into_iter();
        ranked.filter_map(|id| view.member(id).cloned()).collect()
    }

    /// Calls the key's home, then the next, until one answers or `deadline` has passed.
    pub(super) async fn call<T, F, Fut>(
        &self,
        key: &ObjectKey,
        deadline: Duration,
        call: F,
    ) -> Result<T, RpcError>
    where
        F: Fn(IndexClient<Channel>) -> Fut,
        Fut: Future<Output = Result<T, RpcError>>,
    {
        let start = clock::monotonic();
        let mut last = RpcError::new(ErrorKind::Retry, "no super-node is known");
        while clock::since(start) < deadline {
            for member in self.ranked(key) {
                let left = deadline.saturating_sub(clock::since(start));
                match self.call_one(&member, left, &call).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) if !worth_another(&error) => return Err(error),
                    Err(error) => last = error,
                }
            }
            tokio::time::sleep(Duration::from_millis(ROUND_PAUSE_MS)).await;
        }
        Err(last)
    }

    async fn call_one<T, F, Fut>(
        &self,
        member: &Member,
        deadline: Duration,
        call: &F,
    ) -> Result<T, RpcError>
    where
        F: Fn(IndexClient<Channel>) -> Fut,
        Fut: Future<Output = Result<T, RpcError>>,
    {
        let client = self.client(member)?;
        let answer = match tokio::time::timeout(deadline, call(client)).await {
            Ok(answer) => answer,
            Err(_) => Err(RpcError::new(ErrorKind::Retry, "no answer before the deadline")),
        };
        let failed = answer.as_ref().is_err_and(worth_another);
        if failed {
            self.metrics.failures.inc();
        }
        self.avoided.note(member.id, failed);
        answer
    }
}

pub(super) fn worth_another(error: &RpcError) -> bool {
    matches!(error.kind, ErrorKind::Retry | ErrorKind::Redirect | ErrorKind::Closed)
}
