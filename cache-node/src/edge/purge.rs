//! The method `PURGE`, as other caches have it: a URL is forgotten by asking for it so, where its
//! site allows that.
//!
//! Invariants: off unless a site says who may; the client is who its connection comes from, whatever
//! headers say; the answer comes when nobody serves the URL's object any more, or a variant of it.
//! No log names who asked, but for the name of his token. `PURGE` never reaches an origin, unless a site names it among its methods and purges by it not.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::json;

use super::request::Asked;
use super::respond::Reply;
use super::{Edge, ReadPath};
use crate::fetch::Purged;
use crate::policy::site::Site;
use crate::refusals::Refusals;

const PURGE: &str = "PURGE";
/// `hard`, which is the default, or `soft`: stale and not gone.
const KIND: HeaderName = HeaderName::from_static("shoal-purge");
/// Who purges by his address, in logs, which name no client.
const BY_ADDRESS: &str = "(an address)";
/// The scheme of control tokens.
const BEARER: &str = "bearer ";

/// Says whose token a secret is, if it may purge a path of a site.
type Judge = dyn Fn(&[u8], &str, &str) -> Option<String> + Send + Sync;

/// Who may purge by a token.
#[derive(Clone)]
pub struct TokenPurges(Arc<Judge>);

impl TokenPurges {
    /// `judge` gets a secret, a site's name and a path, and gives the name of the token.
    pub fn new(
        judge: impl Fn(&[u8], &str, &str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(judge))
    }
}

impl Default for TokenPurges {
    fn default() -> Self {
        Self::new(|_, _, _| None)
    }
}

impl fmt::Debug for TokenPurges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenPurges(..)")
    }
}

/// What the edge keeps for it.
#[derive(Debug, Default)]
pub(super) struct Purges {
    pub(super) tokens: TokenPurges,
    told: Refusals<IpAddr, String>,
}

/// Whether the request is a purge for the edge itself to answer.
pub(super) fn is_meant(asked: &Asked) -> bool {
    let site: &Site = &asked.site;
    let named = || site.methods().iter().any(|method| method.as_str() == PURGE);
    asked.method.as_str() == PURGE && (site.purge.is_on() || !named())
}

/// Purges, or says why not.
pub(super) async fn answer<R: ReadPath>(edge: &Edge<R>, asked: &Asked) -> Reply {
    let site = asked.site.name();
    if !asked.site.purge.is_on() {
        return match asked.site.methods() {
            [] => Reply::refused(StatusCode::METHOD_NOT_ALLOWED, "purge is off"),
            methods => Reply::not_allowed(methods),
        };
    }
    let Some(caller) = caller(edge, asked) else {
        if let Some(client) = asked.client
            && edge.purges.told.first(client, site.to_owned())
        {
            tracing::warn!(site, "a purge by PURGE was refused");
        }
        return Reply::refused(StatusCode::FORBIDDEN, "not allowed to purge");
    };
    let soft = match asked.headers.get(KIND).map(HeaderValue::as_bytes) {
        None => false,
        Some(kind) if kind.eq_ignore_ascii_case(b"hard") => false,
        Some(kind) if kind.eq_ignore_ascii_case(b"soft") => true,
        Some(_) => return Reply::refused(StatusCode::BAD_REQUEST, "shoal-purge: hard or soft"),
    };
    let key = asked.url(edge, &asked.target);
    match edge.read_path.purge(&asked.site, key, soft).await {
        Ok(purged) => {
            let (position, nodes) = (purged.position, purged.nodes_acknowledged);
            let found = purged.found;
            tracing::info!(caller, site, soft, found, position, nodes, "purged by PURGE");
            told(&purged)
        }
        Err(error) => {
            tracing::warn!(caller, site, soft, %error, "a purge by PURGE failed");
            Reply::refused(StatusCode::SERVICE_UNAVAILABLE, "not purged everywhere")
        }
    }
}

/// Who asks, in words for the log, if he may.
fn caller<R>(edge: &Edge<R>, asked: &Asked) -> Option<String> {
    let rules = &asked.site.purge;
    if asked.client.is_some_and(|client| rules.allows(client)) {
        return Some(BY_ADDRESS.to_owned());
    }
    let secret = asked.headers.get(AUTHORIZATION).filter(|_| rules.token)?.as_bytes();
    let (scheme, secret) = secret.split_at_checked(BEARER.len())?;
    let path = asked.target.split('?').next().unwrap_or(&asked.target);
    let bearer = scheme.eq_ignore_ascii_case(BEARER.as_bytes());
    (edge.purges.tokens.0)(secret.trim_ascii(), asked.site.name(), path).filter(|_| bearer)
}

/// `200`, or `404` where nobody had anything: with the same effect.
fn told(purged: &Purged) -> Reply {
    let Purged { found, position, nodes_acknowledged, nodes_expired } = purged;
    let body = json!({
        "purged": found,
        "position": position,
        "nodes_acknowledged": nodes_acknowledged,
        "nodes_expired": nodes_expired,
    });
    let status = if *found { StatusCode::OK } else { StatusCode::NOT_FOUND };
    Reply::document(status, &body)
}
