//! A look that failed is told in the condition Degraded, where the kind has it: such as an operator
//! with too few rights. The next look that does not fail writes the condition anew.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::apply::Writable;
use crate::clock;
use crate::context::{Context, Error};
use crate::resources::names::MANAGER;
use crate::status::{self, Says, says};

/// The kinds whose status has the condition.
const KINDS: [&str; 2] = ["CacheCluster", "CachePool"];

/// What is told of an error: PURE. Nothing of one that passes by itself.
fn told(error: &Error) -> Option<Says> {
    let Error::Kube { doing, source } = error else {
        return Some(says("Degraded", true, "Failed", error.to_string()));
    };
    let kube::Error::Api(status) = &**source else { return None };
    match status.code {
        403 => Some(says(
            "Degraded",
            true,
            "Forbidden",
            format!(
                "{doing}: {}; give the operator the roles of its chart, deploy/helm/shoal",
                status.message
            ),
        )),
        400 | 422 => {
            let message = format!("{doing}: {}; change the spec", status.message);
            Some(says("Degraded", true, "Refused", message))
        }
        _ => None,
    }
}

/// Tells of it, once.
pub async fn tell<K: Writable>(context: &Context, object: &K, error: &Error) {
    let Some(told) = told(error).filter(|_| KINDS.contains(&&*K::kind(&()))) else { return };
    let whole = serde_json::to_value(object).unwrap_or_default();
    let before = serde_json::from_value::<Vec<Condition>>(whole["status"]["conditions"].clone());
    let before = before.unwrap_or_default();
    let generation = object.meta().generation;
    let new = status::conditions(&before, clock::unix_s(), generation, vec![told]);
    if new.iter().all(|new| before.contains(new)) {
        return;
    }
    let others = before.into_iter().filter(|condition| condition.type_ != "Degraded");
    let all: Vec<Condition> = others.chain(new).collect();
    let patch = Patch::Merge(json!({ "status": { "conditions": all } }));
    let by = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let api = context.api::<K>(&object.namespace().unwrap_or_default());
    context.metrics.writes.inc();
    if let Err(error) = api.patch_status(&object.name_any(), &by, &patch).await {
        tracing::debug!(%error, "trouble could not be told");
    }
}
