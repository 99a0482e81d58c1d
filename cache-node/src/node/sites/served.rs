//! PURE. What a node serves of the index's table and of its own file, and what is to be said of it.

use std::collections::{BTreeSet, HashSet};

use shoal_proto::wire::v1;

use crate::config::definition;
use crate::policy::site::{SiteConfig, Sites};

/// What is served.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) sites: Sites,
    /// The same, as configured.
    pub(super) configs: Vec<SiteConfig>,
    /// Of the file, and never known to the index: to be told to it.
    pub(super) pending: Vec<SiteConfig>,
    /// Every site of the table is served as it stands there.
    pub(super) is_whole: bool,
    pub(super) notices: BTreeSet<Notice>,
}

/// Something that whoever runs this node should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Notice {
    /// The file says something else of a site, which does not count.
    Differs { site: String, position: u64 },
    /// The file has a site that was deleted from the index.
    Deleted { site: String, position: u64 },
    /// A host of the file's site is another site's in the index.
    Clashes { site: String, host: String },
    /// A site of the index cannot be read here.
    Unreadable { site: String, why: String },
}

impl Notice {
    /// Tells it in the log.
    pub(super) fn tell(&self) {
        match self {
            Self::Differs { site, position } => tracing::warn!(
                site,
                position,
                "the file's site differs from the index's, which counts: change it with \
                 `shoal site set`"
            ),
            Self::Deleted { site, position } => tracing::warn!(
                site,
                position,
                "the file's site was deleted from the index, and the file does not bring it back: \
                 `shoal site set` does"
            ),
            Self::Clashes { site, host } => tracing::error!(
                site,
                host,
                "a host of the file's site is another site's in the index: the file's is not served"
            ),
            Self::Unreadable { site, why } => tracing::error!(
                site,
                why,
                "a site of the index cannot be read by this version: its last definition stands"
            ),
        }
    }
}

/// What is served of `table` and `file`; `before` was served until now.
pub(super) fn of(table: &v1::SiteTable, file: &[SiteConfig], before: &[SiteConfig]) -> Served {
    let mut notices = BTreeSet::new();
    let mut is_whole = true;
    let mut configs = Vec::with_capacity(table.sites.len() + file.len());
    for site in &table.sites {
        match definition::read_kept(&site.name, &site.definition) {
            Ok(config) => configs.push(config),
            Err(faults) => {
                is_whole = false;
                let told = faults.iter().map(|f| format!("{}: {}", f.field, f.remedy));
                let why = told.collect::<Vec<_>>().join("; ");
                notices.insert(Notice::Unreadable { site: site.name.clone(), why });
                configs.extend(before.iter().find(|old| old.name == site.name).cloned());
            }
        }
    }
    let mut pending = Vec::new();
    let mut hosts: HashSet<String> = configs.iter().flat_map(hosts_of).collect();
    for site in file {
        match standing(table, &configs, site) {
            Some(notice) => {
                notices.extend(notice);
                continue;
            }
            None => match hosts_of(site).find(|host| hosts.contains(host)) {
                Some(host) => {
                    notices.insert(Notice::Clashes { site: site.name.clone(), host });
                }
                None => pending.push(site.clone()),
            },
        }
    }
    for site in &pending {
        hosts.extend(hosts_of(site));
    }
    configs.extend(pending.iter().cloned());
    let sites = match Sites::new(configs.clone()) {
        Ok(sites) => sites,
        Err(_) => {
            is_whole = false;
            configs = fitting(configs, &mut notices);
            Sites::new(configs.clone()).unwrap_or_default()
        }
    };
    Served { sites, configs, pending, is_whole, notices }
}

/// Where the index stands to a site of the file: `None` when it has never known the name.
fn standing(
    table: &v1::SiteTable,
    configs: &[SiteConfig],
    site: &SiteConfig,
) -> Option<Option<Notice>> {
    let name = || site.name.clone();
    if let Some(known) = table.sites.iter().find(|known| known.name == site.name) {
        let position = known.position;
        let same = configs.contains(site);
        return Some((!same).then(|| Notice::Differs { site: name(), position }));
    }
    let removed = table.removed.iter().find(|removed| removed.name == site.name)?;
    Some(Some(Notice::Deleted { site: name(), position: removed.position }))
}

fn hosts_of(site: &SiteConfig) -> impl Iterator<Item = String> {
    site.hosts.iter().map(|host| host.to_ascii_lowercase())
}

/// The sites that can stand beside those before them: others wrote what should never be there.
fn fitting(configs: Vec<SiteConfig>, notices: &mut BTreeSet<Notice>) -> Vec<SiteConfig> {
    let mut fitting: Vec<SiteConfig> = Vec::with_capacity(configs.len());
    for config in configs {
        fitting.push(config);
        if let Err(errors) = Sites::new(fitting.clone()) {
            let why = errors.first().map(ToString::to_string).unwrap_or_default();
            let site = fitting.pop().map(|site| site.name).unwrap_or_default();
            notices.insert(Notice::Unreadable { site, why });
        }
    }
    fitting
}
