//! Writes to the API server: whole objects by server-side apply, and only where what is there
//! differs. A cluster that is as wanted causes no write.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::metrics::Metrics;
use crate::resources::names::MANAGER;

/// What can be written in a namespace.
pub trait Writable:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
{
}

impl<K> Writable for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
{
}

/// Writes, and counts.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    metrics: Metrics,
}

impl Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    /// Writes through `client`.
    #[must_use]
    pub fn new(client: Client, metrics: Metrics) -> Self {
        Self { client, metrics }
    }

    fn api<K: Writable>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn count<K: Writable>(&self, verb: &'static str, name: &str) {
        self.metrics.writes.inc();
        tracing::debug!(verb, kind = %K::kind(&()), name, "writes");
    }

    /// Brings `wanted` about, whole, where what is there lacks any of it.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn ensure<K: Writable>(&self, wanted: &K) -> Result<(), kube::Error> {
        let (name, namespace) = (wanted.name_any(), wanted.namespace().unwrap_or_default());
        let api = self.api::<K>(&namespace);
        let mut body = serde_json::to_value(wanted).map_err(kube::Error::SerdeError)?;
        if let Some(there) = api.get_opt(&name).await? {
            let there = serde_json::to_value(&there).map_err(kube::Error::SerdeError)?;
            if covers(&body, &there) {
                return Ok(());
            }
        }
        body["apiVersion"] = json!(K::api_version(&()));
        body["kind"] = json!(K::kind(&()));
        self.count::<K>("apply", &name);
        let by = PatchParams::apply(MANAGER).force();
        api.patch(&name, &by, &Patch::Apply(&body)).await.map(|_| ())
    }

    /// Makes `wanted`; one of that name that is there already is left as it is.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn create<K: Writable>(&self, wanted: &K) -> Result<K, kube::Error> {
        let (name, namespace) = (wanted.name_any(), wanted.namespace().unwrap_or_default());
        let api = self.api::<K>(&namespace);
        self.count::<K>("create", &name);
        match api.create(&PostParams::default(), wanted).await {
            Err(kube::Error::Api(status)) if status.code == 409 => api.get(&name).await,
            made => made,
        }
    }

    /// Changes some fields.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn merge<K: Writable>(&self, of: &K, patch: Value) -> Result<(), kube::Error> {
        let (name, namespace) = (of.name_any(), of.namespace().unwrap_or_default());
        self.count::<K>("merge", &name);
        let by = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        self.api::<K>(&namespace).patch(&name, &by, &Patch::Merge(patch)).await.map(|_| ())
    }

    /// Deletes exactly this object, and no later one of its name; that it is gone is as good.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn delete<K: Writable>(&self, object: &K) -> Result<(), kube::Error> {
        let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
        let uid = object.uid();
        let this = Preconditions { resource_version: None, uid };
        let how = DeleteParams::background().preconditions(this);
        self.count::<K>("delete", &name);
        match self.api::<K>(&namespace).delete(&name, &how).await {
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Brings the status about, where it is another.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn status<K: Writable, S: Serialize>(
        &self,
        of: &K,
        before: Option<&S>,
        status: &S,
    ) -> Result<(), kube::Error> {
        let value = serde_json::to_value(status).map_err(kube::Error::SerdeError)?;
        let before = serde_json::to_value(before).map_err(kube::Error::SerdeError)?;
        if value == before {
            return Ok(());
        }
        let (name, namespace) = (of.name_any(), of.namespace().unwrap_or_default());
        let body = json!({
            "apiVersion": K::api_version(&()), "kind": K::kind(&()),
            "metadata": { "name": name }, "status": value,
        });
        self.count::<K>("status", &name);
        let by = PatchParams::apply(MANAGER).force();
        let api = self.api::<K>(&namespace);
        match api.patch_status(&name, &by, &Patch::Apply(&body)).await {
            // It was deleted meanwhile: there is nobody to tell.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

/// Whether `there` has all of `wanted`: maps may have more, lists are as long and in that order.
fn covers(wanted: &Value, there: &Value) -> bool {
    match (wanted, there) {
        (Value::Object(wanted), Value::Object(there)) => wanted
            .iter()
            .all(|(key, value)| there.get(key).is_some_and(|there| covers(value, there))),
        (Value::Array(wanted), Value::Array(there)) => {
            wanted.len() == there.len() && wanted.iter().zip(there).all(|(w, t)| covers(w, t))
        }
        _ => wanted == there,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_adds_is_no_difference() {
        let wanted = json!({ "spec": { "ports": [{ "port": 80 }] } });
        let there = json!({ "spec": { "ports": [{ "port": 80, "protocol": "TCP" }], "ip": "x" } });
        assert!(covers(&wanted, &there));
        for other in [
            json!({ "spec": { "ports": [{ "port": 81 }] } }),
            json!({ "spec": { "ports": [{ "port": 80 }, { "port": 81 }] } }),
            json!({ "spec": {} }),
        ] {
            assert!(!covers(&wanted, &other), "{other}");
        }
    }
}
