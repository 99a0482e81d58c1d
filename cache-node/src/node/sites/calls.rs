//! The control calls that read and change sites. A node passes them on to the tier, a super-node does
//! them itself.
//!
//! Invariants: a definition is checked, by itself and beside all others, before anything is proposed;
//! what is proposed is for the very table that it was checked beside.

use std::future::Future;
use std::sync::Arc;

use http::Method;
use serde_json::{Map, Value, json};
use shoal_proto::RpcError;
use shoal_proto::limits::{SITE_BYTES_MAX, SITES_BYTES_MAX, SITES_MAX};
use shoal_proto::wire::v1::{self, SiteSource};

use crate::admin::tokens::{Target, Verb};
use crate::admin::{Call, Control, ControlError};
use crate::config::definition::{self, Fault};
use crate::directory::Directory;
use crate::policy::site::{SiteConfig, Sites};
use crate::supernode::SuperNode;

/// Tries of a change while others change the table.
const TRIES_MAX: usize = 8;

/// Whoever can read and change the index's sites.
pub(in crate::node) trait SiteTier: Clone + Send + Sync + 'static {
    /// All sites, read linearizably.
    fn sites(&self) -> impl Future<Output = Result<v1::SiteTable, RpcError>> + Send;

    /// Makes a change.
    fn change_sites(
        &self,
        change: v1::ChangeSites,
    ) -> impl Future<Output = Result<v1::ChangeSitesReply, RpcError>> + Send;
}

impl SiteTier for Arc<Directory> {
    async fn sites(&self) -> Result<v1::SiteTable, RpcError> {
        Directory::sites(self).await
    }

    async fn change_sites(
        &self,
        change: v1::ChangeSites,
    ) -> Result<v1::ChangeSitesReply, RpcError> {
        Directory::change_sites(self, change).await
    }
}

impl SiteTier for SuperNode {
    async fn sites(&self) -> Result<v1::SiteTable, RpcError> {
        Self::sites(self).await
    }

    async fn change_sites(
        &self,
        change: v1::ChangeSites,
    ) -> Result<v1::ChangeSitesReply, RpcError> {
        Self::change_sites(self, change).await
    }
}

/// `control` with the calls.
pub(in crate::node) fn add_to<T: SiteTier>(control: Control, tier: T) -> Control {
    const ONE: &str = "/v1/sites/{name}";
    let (list, get, put, delete) = (tier.clone(), tier.clone(), tier.clone(), tier);
    control
        .with((Method::GET, "/v1/sites"), Verb::Read, move |_: Call| {
            let tier = list.clone();
            async move { Ok(all(&tier.sites().await?)) }
        })
        .with((Method::GET, ONE), Verb::Read, move |call| {
            let tier = get.clone();
            async move {
                let table = tier.sites().await?;
                find(&table, call.name()).map(one).ok_or_else(|| unknown(call.name()))
            }
        })
        .with((Method::PUT, ONE), Verb::Sites, move |call| {
            let tier = put.clone();
            async move { set(&tier, &call).await }
        })
        .with((Method::DELETE, ONE), Verb::Sites, move |call| {
            let tier = delete.clone();
            async move { remove(&tier, &call).await }
        })
}

fn find<'a>(table: &'a v1::SiteTable, name: &str) -> Option<&'a v1::SiteDefinition> {
    table.sites.iter().find(|site| site.name == name)
}

fn all(table: &v1::SiteTable) -> Value {
    let sites: Vec<_> = table.sites.iter().map(one).collect();
    json!({ "revision": table.revision.to_string(), "sites": sites })
}

fn one(site: &v1::SiteDefinition) -> Value {
    let source = match site.source() {
        SiteSource::File => "file",
        SiteSource::Call | SiteSource::Unspecified => "index",
    };
    let mut keys = match definition::read_kept(&site.name, &site.definition) {
        Ok(config) => definition::whole(&config),
        // Of another version: as it stands there.
        Err(_) => serde_json::from_slice::<Map<_, _>>(&site.definition).unwrap_or_default(),
    };
    keys.insert("name".to_owned(), site.name.clone().into());
    keys.insert("revision".to_owned(), site.position.to_string().into());
    keys.insert("source".to_owned(), source.into());
    Value::Object(keys)
}

async fn set<T: SiteTier>(tier: &T, call: &Call) -> Result<Value, ControlError> {
    let name = call.name();
    call.allow(Target::Site(name))?;
    let expected = expected(call)?;
    let site = definition::read(name, &call.body).map_err(|faults| invalid(name, &faults))?;
    let kept = definition::kept(&site);
    if kept.len() > SITE_BYTES_MAX {
        let message = format!("site {name:?} takes {} bytes", kept.len());
        let remedy = format!("write a definition of at most {SITE_BYTES_MAX} bytes");
        return Err(ControlError::invalid(message, remedy));
    }
    for _ in 0..TRIES_MAX {
        let table = tier.sites().await?;
        let known = find(&table, name);
        meets(name, known, expected)?;
        let put = v1::SiteDefinition {
            name: name.to_owned(),
            definition: kept.clone().into(),
            source: SiteSource::Call.into(),
            position: 0,
        };
        let same = known.is_some_and(|known| known.definition == put.definition);
        if !same {
            beside(&table, &site)?;
        }
        let put = if same { Vec::new() } else { vec![put] };
        let change = v1::ChangeSites { base: table.revision, put, drop: Vec::new() };
        let reply = tier.change_sites(change).await?;
        if !reply.refused {
            let created = known.is_none();
            let revision = known.filter(|_| same).map_or(reply.revision, |known| known.position);
            tracing::info!(caller = call.caller(), site = name, revision, created, "site set");
            let mut answer = applied(revision, reply.applied);
            answer["created"] = created.into();
            return Ok(answer);
        }
        full(table.revision, reply.revision)?;
    }
    Err(contended())
}

async fn remove<T: SiteTier>(tier: &T, call: &Call) -> Result<Value, ControlError> {
    let name = call.name();
    call.allow(Target::Site(name))?;
    let expected = expected(call)?;
    for _ in 0..TRIES_MAX {
        let table = tier.sites().await?;
        let known = find(&table, name).ok_or_else(|| unknown(name))?;
        meets(name, Some(known), expected)?;
        let drop = vec![name.to_owned()];
        let change = v1::ChangeSites { base: table.revision, put: Vec::new(), drop };
        let reply = tier.change_sites(change).await?;
        if !reply.refused {
            let revision = reply.revision;
            tracing::info!(caller = call.caller(), site = name, revision, "site deleted");
            return Ok(applied(revision, reply.applied));
        }
        full(table.revision, reply.revision)?;
    }
    Err(contended())
}

fn applied(revision: u64, applied: Option<v1::SitesAppliedReply>) -> Value {
    let v1::SitesAppliedReply { applied_on, waiting_for } = applied.unwrap_or_default();
    json!({
        "revision": revision.to_string(),
        "applied_on": applied_on,
        "waiting_for": waiting_for,
    })
}

/// The revision in the call's query.
fn expected(call: &Call) -> Result<Option<u64>, ControlError> {
    let Some(text) = call.parameter("expect")? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        let remedy = "write the revision that GET /v1/sites/NAME says, or 0 for a site to be made";
        ControlError::invalid(format!("expect is {text:?}"), remedy)
    })
}

/// Whether the site is what the caller expects it to be.
fn meets(
    name: &str,
    known: Option<&v1::SiteDefinition>,
    expected: Option<u64>,
) -> Result<(), ControlError> {
    let revision = known.map_or(0, |known| known.position);
    if expected.is_none_or(|expected| expected == revision) {
        return Ok(());
    }
    let message = match revision {
        0 => format!("there is no site {name:?}"),
        revision => format!("site {name:?} is of revision {revision}"),
    };
    Err(ControlError::conflict(message, format!("look at it again: GET /v1/sites/{name}")))
}

/// Whether the site can stand beside all others.
fn beside(table: &v1::SiteTable, site: &SiteConfig) -> Result<(), ControlError> {
    let mut configs = Vec::with_capacity(table.sites.len() + 1);
    for other in table.sites.iter().filter(|other| other.name != site.name) {
        configs.push(definition::read_kept(&other.name, &other.definition).map_err(|_| {
            let message = format!("site {:?} is of a newer version than this member", other.name);
            ControlError::unavailable(message, "ask a member of the newest version")
        })?);
    }
    let taken = |host: &String| {
        let same = |other: &String| other.eq_ignore_ascii_case(host);
        let owner = configs.iter().find(|other| other.hosts.iter().any(same))?;
        let remedy = format!("it is site {:?}'s; a host belongs to one site", owner.name);
        Some(Fault { field: "hosts".to_owned(), value: host.clone(), remedy })
    };
    let faults: Vec<_> = site.hosts.iter().filter_map(taken).collect();
    if !faults.is_empty() {
        return Err(invalid(&site.name, &faults));
    }
    configs.push(site.clone());
    Sites::new(configs).map(|_| ()).map_err(|errors| {
        let faults: Vec<_> = errors.into_iter().map(Fault::from).collect();
        invalid(&site.name, &faults)
    })
}

fn invalid(name: &str, faults: &[Fault]) -> ControlError {
    let told = |tell: fn(&Fault) -> String| faults.iter().map(tell).collect::<Vec<_>>().join("; ");
    let message = told(|fault| format!("{} is {}", fault.field, fault.value));
    let remedy = told(|fault| format!("{}: {}", fault.field, fault.remedy));
    ControlError::invalid(format!("site {name:?}: {message}"), remedy)
}

fn unknown(name: &str) -> ControlError {
    ControlError::not_found(format!("there is no site {name:?}"), "`shoal site list` has them all")
}

/// A change that was refused for the table that it was made for breaks a limit.
fn full(base: u64, revision: u64) -> Result<(), ControlError> {
    if base != revision {
        return Ok(());
    }
    let remedy = format!(
        "delete one, or write less: at most {SITES_MAX} sites of {SITES_BYTES_MAX} bytes in all"
    );
    Err(ControlError::conflict("the index takes no more sites", remedy))
}

fn contended() -> ControlError {
    ControlError::unavailable("others changed sites all the time", "try again")
}
