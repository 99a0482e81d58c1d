//! The last known table of sites, in the data directory: JSON, so that whoever looks can read it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shoal_proto::wire::v1::{self, SiteSource};

use crate::files::{self, PLAIN_MODE};

#[derive(Serialize, Deserialize)]
struct Table {
    revision: u64,
    sites: Vec<Site>,
    removed: Vec<Removed>,
}

#[derive(Serialize, Deserialize)]
struct Site {
    name: String,
    position: u64,
    file: bool,
    definition: Value,
}

#[derive(Serialize, Deserialize)]
struct Removed {
    name: String,
    position: u64,
}

/// Reads it; `None` where there is none.
pub(super) fn read(path: &Path) -> Result<Option<v1::SiteTable>, String> {
    let text = files::read_small(path).map_err(|error| error.to_string())?;
    let table = text.map(|text| serde_json::from_str::<Table>(&text)).transpose();
    Ok(table.map_err(|error| error.to_string())?.map(v1::SiteTable::from))
}

/// Replaces it.
pub(super) fn write(path: &Path, table: &v1::SiteTable) -> Result<(), String> {
    let text = serde_json::to_vec(&Table::from(table)).map_err(|error| error.to_string())?;
    files::write_whole(path, &text, PLAIN_MODE).map_err(|error| error.to_string())
}

impl From<&v1::SiteTable> for Table {
    fn from(table: &v1::SiteTable) -> Self {
        let site = |site: &v1::SiteDefinition| Site {
            name: site.name.clone(),
            position: site.position,
            file: site.source() == SiteSource::File,
            // What cannot be read here is kept all the same, as text.
            definition: serde_json::from_slice(&site.definition)
                .unwrap_or_else(|_| String::from_utf8_lossy(&site.definition).into_owned().into()),
        };
        let removed = |removed: &v1::RemovedSite| Removed {
            name: removed.name.clone(),
            position: removed.position,
        };
        Self {
            revision: table.revision,
            sites: table.sites.iter().map(site).collect(),
            removed: table.removed.iter().map(removed).collect(),
        }
    }
}

impl From<Table> for v1::SiteTable {
    fn from(table: Table) -> Self {
        let site = |site: Site| v1::SiteDefinition {
            name: site.name,
            definition: site.definition.to_string().into_bytes().into(),
            source: if site.file { SiteSource::File } else { SiteSource::Call }.into(),
            position: site.position,
        };
        let removed =
            |removed: Removed| v1::RemovedSite { name: removed.name, position: removed.position };
        Self {
            revision: table.revision,
            sites: table.sites.into_iter().map(site).collect(),
            removed: table.removed.into_iter().map(removed).collect(),
        }
    }
}
