//! The control call that purges, and who may purge at the edge by a token: reads what is named, checks that the caller may, and waits until
//! the tier says that nobody serves it any more.
//!
//! Invariants: all of a call is checked before any of it is done; what is named stands in no log.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use shoal_proto::wire::v1::PurgeReply;

use crate::admin::tokens::{SECRET_BYTES_MAX, Target, Tokens, Verb};
use crate::admin::{Call, Control, ControlError};
use crate::clock;
use crate::config::ClusterSecret;
use crate::current::Current;
use crate::directory::{Directory, Fenced, Matcher, Url};
use crate::edge::TokenPurges;
use crate::policy::label::{self, TAG_BYTES_MAX};
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
    pub(super) sites: Arc<Current<Sites>>,
    pub(super) secret: ClusterSecret,
}

/// The body of `POST /v1/purge`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wishes {
    purges: Vec<Wish>,
    /// What is purged becomes stale, and may be validated.
    #[serde(default)]
    soft: bool,
}

/// One purge: by `url`, by `prefix`, by `tag` of `site`, or of the whole of `site`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    url: Option<String>,
    prefix: Option<String>,
    tag: Option<String>,
    site: Option<String>,
}

/// What a wish comes to.
struct Planned {
    site: String,
    /// Its word in answers and logs.
    by: &'static str,
    matchers: Vec<Matcher>,
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
        let Wishes { purges, soft } = call.read()?;
        if !(1..=PURGES_MAX).contains(&purges.len()) {
            let message = format!("{} purges in one call", purges.len());
            return Err(ControlError::invalid(message, format!("send 1 to {PURGES_MAX}")));
        }
        let planned = purges.into_iter().map(|wish| self.plan(wish, &call));
        let planned: Vec<Planned> = planned.collect::<Result<_, _>>()?;
        let begun = clock::monotonic();
        let done: Vec<Value> = futures::stream::iter(planned)
            .map(|one| self.one(one, soft, call.caller()))
            .buffered(AT_ONCE_MAX)
            .collect()
            .await;
        let failed = done.iter().filter(|one| !one["error"].is_null()).count();
        let took_ms = millis(clock::since(begun));
        Ok(json!({ "purges": done, "failed": failed, "took_ms": took_ms }))
    }

    fn plan(&self, wish: Wish, call: &Call) -> Result<Planned, ControlError> {
        match wish {
            Wish { url: Some(url), prefix: None, tag: None, site: None } => {
                let named = Named::read(&self.sites.get(), &url).map_err(wrong)?;
                let site = named.site.name().to_owned();
                call.allow(Target::Path(&site, named.path()))?;
                let secret = self.secret.as_bytes();
                let key = named.key(secret);
                let variants = label::of_variants(secret, &site, &key);
                let url = Url { key, site: site.clone(), variants };
                Ok(Planned { site, by: "url", matchers: url.matchers().to_vec() })
            }
            Wish { url: None, prefix: Some(url), tag: None, site: None } => {
                let named = Named::read(&self.sites.get(), &url).map_err(wrong)?;
                self.plan_prefix(&named, call)
            }
            Wish { url: None, prefix: None, tag: Some(tag), site: Some(site) } => {
                self.allow_site(&site, call)?;
                let tag = tag.trim();
                if !(1..=TAG_BYTES_MAX).contains(&tag.len()) {
                    let message = format!("a tag of {} bytes", tag.len());
                    return Err(ControlError::invalid(message, "give a tag of 1 to 1024 bytes"));
                }
                let label = label::of_tag(self.secret.as_bytes(), &site, tag);
                Ok(Planned { matchers: vec![Matcher::Tag(site.clone(), label)], site, by: "tag" })
            }
            Wish { url: None, prefix: None, tag: None, site: Some(site) } => {
                self.allow_site(&site, call)?;
                Ok(Planned { matchers: vec![Matcher::Site(site.clone())], site, by: "site" })
            }
            Wish { .. } => {
                let remedy = "give each purge one of url, prefix, tag with site, or site";
                Err(ControlError::invalid("a purge names nothing, or too much", remedy))
            }
        }
    }

    /// A path without a slash at its end is meant with all its queries and with all below it.
    fn plan_prefix(&self, named: &Named, call: &Call) -> Result<Planned, ControlError> {
        let path = named.path();
        if path.len() < named.target.len() {
            let remedy = "leave the query out: a prefix covers every query";
            return Err(ControlError::invalid("a prefix with a query", remedy));
        }
        let site = named.site.name().to_owned();
        call.allow(Target::Path(&site, path))?;
        let of = |path: &str| {
            let label = label::of_path(self.secret.as_bytes(), &site, path);
            Matcher::Prefix(site.clone(), label)
        };
        let mut matchers = vec![of(path)];
        if !path.ends_with('/') {
            matchers.push(of(&format!("{path}/")));
        }
        Ok(Planned { site, by: "prefix", matchers })
    }

    fn allow_site(&self, site: &str, call: &Call) -> Result<(), ControlError> {
        named::site(&self.sites.get(), site).map_err(wrong)?;
        call.allow(Target::Site(site))
    }

    async fn one(&self, planned: Planned, soft: bool, caller: &str) -> Value {
        let Planned { site, by, matchers } = planned;
        let hash = shown(&matchers);
        let begun = clock::monotonic();
        let purges = matchers
            .into_iter()
            .map(|matcher| async move { self.directory.purge(&Fenced { matcher, soft }).await });
        let done = futures::future::try_join_all(purges).await;
        let took_ms = millis(clock::since(begun));
        let replies = match done {
            Ok(replies) => replies,
            Err(error) => {
                tracing::warn!(caller, site, by, hash, soft, took_ms, %error, "a purge failed");
                let error = ControlError::from(error);
                return json!({ "matcher": by, "site": site, "took_ms": took_ms, "error": error });
            }
        };
        let most = |of: fn(&PurgeReply) -> u64| replies.iter().map(of).max().unwrap_or_default();
        let position = most(|reply| reply.position);
        let nodes = most(|reply| reply.nodes_acknowledged.into());
        let expired = most(|reply| reply.nodes_expired.into());
        tracing::info!(caller, site, by, hash, soft, position, nodes, expired, took_ms, "purged");
        json!({
            "matcher": by,
            "site": site,
            "position": position,
            "nodes_acknowledged": nodes,
            "nodes_expired": expired,
            "took_ms": took_ms,
        })
    }
}

/// Whoever has one of the tokens may purge at the edge what he may purge by the control call.
pub(super) fn by_token(tokens: Tokens) -> TokenPurges {
    TokenPurges::new(move |secret, site, path| {
        let caller = tokens.caller(secret).filter(|_| secret.len() <= SECRET_BYTES_MAX)?;
        let may = caller.may(Verb::Purge, Target::Path(site, path));
        may.then(|| caller.name().to_owned())
    })
}

fn wrong(error: NamedError) -> ControlError {
    ControlError::invalid(error.problem, error.remedy)
}

fn millis(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}

/// What a log may say of a purge: enough of a hash to tell two apart.
fn shown(matchers: &[Matcher]) -> String {
    match matchers.first() {
        Some(Matcher::Key(key)) => key.to_string().chars().take(8).collect(),
        Some(Matcher::Prefix(_, label) | Matcher::Tag(_, label)) => format!("{:08x}", label >> 32),
        Some(Matcher::Site(_)) | None => String::new(),
    }
}
