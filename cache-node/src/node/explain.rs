//! The control call that explains a URL: its site and key, what this node has of it and for how
//! long, and who holds it as the index knows it. It changes nothing and asks no origin.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use shoal_proto::{ObjectHead, ObjectKey};

use crate::admin::tokens::{Target, Verb};
use crate::admin::{Call, Control, ControlError};
use crate::clock;
use crate::config::ClusterSecret;
use crate::current::Current;
use crate::directory::{Directory, Verdict};
use crate::policy::named::Named;
use crate::policy::site::Sites;
use crate::policy::{explain, hop, vary};
use crate::store::{Store, StoredObject};

/// Most request headers of a question.
const HEADERS_MAX: usize = 64;

/// What explaining needs.
#[derive(Clone)]
pub(super) struct Explainer {
    pub(super) directory: Arc<Directory>,
    pub(super) sites: Arc<Current<Sites>>,
    pub(super) secret: ClusterSecret,
    pub(super) store: Arc<Store>,
}

/// The body of `POST /v1/explain`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    /// As clients ask for it.
    url: String,
    /// What a client would send beside it, name and value.
    #[serde(default)]
    headers: Vec<(String, String)>,
}

impl Explainer {
    /// `control` with the call.
    pub(super) fn add_to(self, control: Control) -> Control {
        control.with((Method::POST, "/v1/explain"), Verb::Read, move |call| {
            let explainer = self.clone();
            async move { explainer.explain(call).await }
        })
    }

    async fn explain(self, call: Call) -> Result<Value, ControlError> {
        let Question { url, headers } = call.read()?;
        call.allow(Target::Everything)?;
        let headers = read_headers(&headers)?;
        let named = Named::read(&self.sites.get(), &url)
            .map_err(|error| ControlError::invalid(error.problem, error.remedy))?;
        let secret = self.secret.as_bytes();
        let secure = url.starts_with("https:");
        let asked = named.site.key.key(secret, named.key(secret), &headers, secure);
        let (key, stored) = self.find(asked, &headers).await;
        let here = stored.as_ref().map(|stored| self.here(stored, &named));
        let holders = match &stored {
            Some(stored) => self.holders(&key, stored).await,
            None => Value::Null,
        };
        Ok(json!({
            "site": named.site.name(),
            "origin": named.site.origin(),
            "target": named.site.key.target(&named.target),
            "bypass": named.site.bypass,
            "key": key.to_string(),
            "variant": key != asked,
            "node": self.directory.view().member(self.directory.node_id()).map(|m| m.name.clone()),
            "here": here,
            "holders": holders,
        }))
    }

    /// What is stored for a request with these headers, and under which key.
    async fn find(
        &self,
        asked: ObjectKey,
        headers: &HeaderMap,
    ) -> (ObjectKey, Option<Arc<StoredObject>>) {
        let Some(found) = self.store.get(&asked).await else { return (asked, None) };
        let secret = self.secret.as_bytes();
        let head = found.manifest().head();
        let sent = hop::fill_headers(headers);
        if vary::selects(head, secret, &sent) {
            return (asked, Some(found));
        }
        let Some(key) = vary::key(secret, &asked, head, &sent) else { return (asked, None) };
        let variant = self.store.get(&key).await;
        let selected =
            |variant: &Arc<StoredObject>| vary::selects(variant.manifest().head(), secret, &sent);
        (key, variant.filter(selected))
    }

    fn here(&self, stored: &StoredObject, named: &Named) -> Value {
        let head = stored.manifest().head();
        let (fresh, now_ms) = (&head.freshness, clock::unix_ms());
        let status = StatusCode::from_u16(head.status).unwrap_or(StatusCode::OK);
        let headers = hop::from_stored(&head.headers);
        let (made_by, value) = explain::lifetime(&headers, status, &named.site.rules);
        let purged = match self.directory.verdict(head) {
            Verdict::Clear => "no",
            Verdict::Stale => "softly",
            Verdict::Gone => "yes",
        };
        let chunks: u32 = stored.held().iter().map(|run| run.end - run.start).sum();
        json!({
            "tier": stored.tier().name(),
            "status": head.status,
            "length": head.length,
            "chunks_here": chunks,
            "chunks": stored.manifest().chunk_count(),
            "manifest": stored.manifest_id().to_string(),
            "age_ms": fresh.age_ms(now_ms),
            "lifetime_ms": fresh.lifetime_ms,
            "lifetime_from": made_by,
            "lifetime_value": value,
            "fresh": fresh.is_fresh(now_ms) && purged == "no",
            "never_stale": fresh.never_stale,
            "stale_while_revalidate_ms": fresh.stale_while_revalidate_ms,
            "stale_if_error_ms": fresh.stale_if_error_ms,
            "vary": text(head, "vary"),
            "etag": text(head, "etag"),
            "purged": purged,
        })
    }

    /// This node among them.
    async fn holders(&self, key: &ObjectKey, stored: &StoredObject) -> Value {
        let count = stored.manifest().chunk_count();
        let others = self.directory.holders(key, &stored.object_id()).await;
        let others = others.into_iter().map(|holder| {
            let chunks = (0..count).filter(|chunk| holder.has(*chunk)).count();
            json!({ "node": holder.member.name, "zone": holder.member.zone, "chunks": chunks })
        });
        others.collect()
    }
}

fn text(head: &ObjectHead, name: &str) -> Option<String> {
    head.header(name).map(|value| String::from_utf8_lossy(value).into_owned())
}

fn read_headers(headers: &[(String, String)]) -> Result<HeaderMap, ControlError> {
    if headers.len() > HEADERS_MAX {
        let message = format!("{} headers", headers.len());
        return Err(ControlError::invalid(message, format!("send at most {HEADERS_MAX}")));
    }
    let mut read = HeaderMap::new();
    for (name, value) in headers {
        let wrong =
            || ControlError::invalid(format!("header {name:?}"), "write a name and a value");
        let name: HeaderName = name.to_ascii_lowercase().parse().map_err(|_| wrong())?;
        read.append(name, HeaderValue::from_str(value).map_err(|_| wrong())?);
    }
    Ok(read)
}
