//! The control call that shows a swarm: which node has which chunks of an object, and whom it got
//! them from.

use std::sync::Arc;

use futures::StreamExt;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use shoal_proto::NodeId;
use shoal_proto::wire::v1;

use crate::admin::tokens::{Target, Verb};
use crate::admin::{Call, Control, ControlError};
use crate::config::ClusterSecret;
use crate::current::Current;
use crate::directory::Directory;
use crate::membership::{ClusterView, Member};
use crate::policy::named::Named;
use crate::policy::site::Sites;
use crate::transfer::Peers;

/// Nodes asked at a time.
const ASKED_AT_ONCE_MAX: usize = 32;
/// Nodes asked at all; more are left out.
const ASKED_MAX: usize = 1_024;

/// What looking needs.
#[derive(Clone)]
pub(super) struct Surveyor {
    pub(super) directory: Arc<Directory>,
    pub(super) sites: Arc<Current<Sites>>,
    pub(super) secret: ClusterSecret,
    pub(super) peers: Peers,
}

/// The body of `POST /v1/swarm`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    url: String,
}

impl Surveyor {
    /// `control` with the call.
    pub(super) fn add_to(self, control: Control) -> Control {
        control.with((Method::POST, "/v1/swarm"), Verb::Read, move |call| {
            let surveyor = self.clone();
            async move { surveyor.look(&call).await }
        })
    }

    async fn look(&self, call: &Call) -> Result<Value, ControlError> {
        let Wish { url } = call.read()?;
        let named = Named::read(&self.sites.get(), &url)
            .map_err(|error| ControlError::invalid(error.problem, error.remedy))?;
        call.allow(Target::Path(named.site.name(), named.path()))?;
        let key = named.key(self.secret.as_bytes());
        let view = self.directory.view();
        let nodes: Vec<Member> = view.nodes_up().take(ASKED_MAX).cloned().collect();
        let asked = futures::stream::iter(nodes).map(|node| async move {
            let told = self.peers.survey(&node, key).await.ok();
            (node, told)
        });
        let told: Vec<_> = asked.buffered(ASKED_AT_ONCE_MAX).collect().await;
        let chunks = told.iter().filter_map(|(_, told)| Some(told.as_ref()?.chunk_count)).max();
        let members: Vec<Value> =
            told.iter().map(|(node, told)| member(&view, node, told.as_ref())).collect();
        Ok(json!({ "chunks": chunks.filter(|count| *count > 0), "members": members }))
    }
}

fn member(view: &ClusterView, node: &Member, told: Option<&v1::SurveyReply>) -> Value {
    let Some(v1::SurveyReply { growing, has, from, from_origin, .. }) = told else {
        return json!({ "name": node.name, "answered": false, "growing": false, "has": [], "from": [] });
    };
    let has: Vec<Value> =
        has.iter().map(|run| json!({ "first": run.first, "count": run.count })).collect();
    let name = |id: u64| {
        let known = view.member(NodeId(id));
        known.map_or_else(|| NodeId(id).to_string(), |member| member.name.clone())
    };
    let mut sources: Vec<Value> =
        from.iter().map(|of| json!({ "name": name(of.node_id), "chunks": of.chunks })).collect();
    if *from_origin > 0 {
        sources.push(json!({ "name": "origin", "chunks": from_origin }));
    }
    json!({
        "name": node.name,
        "answered": true,
        "growing": growing,
        "has": has,
        "from": sources,
    })
}
