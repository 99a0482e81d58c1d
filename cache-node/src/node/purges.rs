//! The control call that purges: reads what is named, checks that the caller may, and waits until
//! the tier says that nobody serves it any more.
//!
//! Invariants: all of a call is checked before any of it is done; what is named stands in no log.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use shoal_proto::ObjectKey;

use crate::admin::tokens::{Target, Verb};
use crate::admin::{Call, Control, ControlError};
use crate::clock;
use crate::config::ClusterSecret;
use crate::directory::{Directory, Purge};
use crate::policy::named::{self, Named, NamedError};
use crate::policy::site::Sites;

/// Most purges of one call.
const PURGES_MAX: usize = 1_000;
/// Purges under way at a time.
const AT_ONCE_MAX: usize = 32;

/// What purging needs.
#[derive(Clone)]
pub(super) struct Purger {
    pub(super) directory: Arc<Directory>,
    pub(super) sites: Arc<Sites>,
    pub(super) secret: ClusterSecret,
}

/// The body of `POST /v1/purge`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wishes {
    purges: Vec<Wish>,
}

/// One purge: by `url`, or of the whole of `site`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    url: Option<String>,
    site: Option<String>,
}

/// What a wish comes to.
struct Planned {
    site: String,
    purge: Purge,
}

impl Purger {
    /// `control` with the call.
    pub(super) fn add_to(self, control: Control) -> Control {
        control.with((Method::POST, "/v1/purge"), Verb::Purge, move |call| {
            let purger = self.clone();
            async move { purger.purge(call).await }
        })
    }

    async fn purge(self, call: Call) -> Result<Value, ControlError> {
        let Wishes { purges } = call.read()?;
        if !(1..=PURGES_MAX).contains(&purges.len()) {
            let message = format!("{} purges in one call", purges.len());
            return Err(ControlError::invalid(message, format!("send 1 to {PURGES_MAX}")));
        }
        let planned = purges.into_iter().map(|wish| self.plan(wish, &call));
        let planned: Vec<Planned> = planned.collect::<Result<_, _>>()?;
        let begun = clock::monotonic();
        let done: Vec<Value> = futures::stream::iter(planned)
            .map(|one| self.one(one, call.caller()))
            .buffered(AT_ONCE_MAX)
            .collect()
            .await;
        let failed = done.iter().filter(|one| one.get("error").is_some()).count();
        Ok(json!({
            "purges": done,
            "failed": failed,
            "took_ms": millis(clock::since(begun)),
        }))
    }

    fn plan(&self, wish: Wish, call: &Call) -> Result<Planned, ControlError> {
        let Self { sites, secret, .. } = self;
        match wish {
            Wish { url: Some(url), site: None } => {
                let named = Named::read(sites, &url).map_err(wrong)?;
                let site = named.site.name().to_owned();
                call.allow(Target::Path(&site, named.path()))?;
                Ok(Planned { site, purge: Purge::Key(named.key(secret.as_bytes())) })
            }
            Wish { url: None, site: Some(site) } => {
                named::site(sites, &site).map_err(wrong)?;
                call.allow(Target::Site(&site))?;
                Ok(Planned { purge: Purge::Site(site.clone()), site })
            }
            Wish { .. } => {
                let remedy = "give each purge a url, or a site";
                Err(ControlError::invalid("a purge names nothing, or too much", remedy))
            }
        }
    }

    async fn one(&self, planned: Planned, caller: &str) -> Value {
        let Planned { site, purge } = planned;
        let (matcher, shown) = shown(&purge);
        let begun = clock::monotonic();
        let outcome = self.directory.purge(purge).await;
        let took_ms = millis(clock::since(begun));
        match outcome {
            Ok(reply) => {
                tracing::info!(
                    caller,
                    site,
                    matcher,
                    shown,
                    took_ms,
                    position = reply.position,
                    nodes = reply.nodes_acknowledged,
                    expired = reply.nodes_expired,
                    "purged"
                );
                json!({
                    "matcher": matcher,
                    "site": site,
                    "position": reply.position,
                    "nodes_acknowledged": reply.nodes_acknowledged,
                    "nodes_expired": reply.nodes_expired,
                    "took_ms": took_ms,
                })
            }
            Err(error) => {
                tracing::warn!(caller, site, matcher, shown, took_ms, %error, "a purge failed");
                let error = ControlError::from(error);
                json!({ "matcher": matcher, "site": site, "took_ms": took_ms, "error": error })
            }
        }
    }
}

fn wrong(error: NamedError) -> ControlError {
    ControlError::invalid(error.problem, error.remedy)
}

fn millis(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}

/// What a log may say of a purge: its kind, and enough of a hash to tell two apart.
fn shown(purge: &Purge) -> (&'static str, String) {
    let short = |key: &ObjectKey| key.to_string().chars().take(8).collect();
    match purge {
        Purge::Key(key) => ("url", short(key)),
        Purge::Site(_) => ("site", String::new()),
    }
}
