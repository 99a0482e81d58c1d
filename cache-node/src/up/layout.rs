//! The data directory of a local cluster: what is in it, and whether it is ours at all.
//!
//! ```text
//! cluster.json   the cluster's id, first port and counts
//! site.json      the site's definition as it was given last
//! lock           held while the cluster is up
//! ca/  secret    the throw-away certificate authority, the cluster's secret
//! admin-token    the token for control calls
//! logs/          one file a process
//! node-0/        config.toml (written anew at each start), tls/, data/
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::UpError;
use super::plan::{MemberPlan, Plan};
use crate::admin::tokens::Scope;
use crate::ca::{Authority, CaError, ensure_secret};
use crate::clock;
use crate::files::{self, FolderLock};
use crate::tls::TlsFiles;

const RECORD_FILE: &str = "cluster.json";
const TOKEN_FILE: &str = "admin-token";
/// The token's name in the members' logs.
const TOKEN_NAME: &str = "up";
/// The layout described above.
const FORMAT: u32 = 1;

/// What is kept about a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    format: u32,
    pub(super) cluster_id: String,
    pub(super) base_port: u16,
    /// 0 where the nodes choose the super-nodes among themselves.
    pub(super) super_nodes: u16,
    pub(super) nodes: u16,
}

impl Record {
    pub(super) fn new(cluster_id: String, base_port: u16, super_nodes: u16, nodes: u16) -> Self {
        Self { format: FORMAT, cluster_id, base_port, super_nodes, nodes }
    }
}

/// The cluster that `folder` holds; `None` when it is empty or not there.
///
/// # Errors
/// When it holds anything else. Nothing is changed.
pub(super) fn inspect(folder: &Path) -> Result<Option<Record>, UpError> {
    let path = folder.join(RECORD_FILE);
    let Some(text) = files::read_small(&path)? else {
        return only_leftovers(folder).map(|()| None);
    };
    let strange = |why: String| {
        UpError::Usage(format!(
            "{}: {why}; use another --data-dir, or move this one away to start anew",
            path.display()
        ))
    };
    let record: Record =
        serde_json::from_str(&text).map_err(|error| strange(format!("not a cluster: {error}")))?;
    match record.format {
        FORMAT => Ok(Some(record)),
        other => Err(strange(format!("written by another version of Shoal (format {other})"))),
    }
}

/// A start that was broken off leaves a lock and perhaps half a record; anything else is not ours.
fn only_leftovers(folder: &Path) -> Result<(), UpError> {
    let temporary = files::temporary_path(Path::new(RECORD_FILE));
    let ours = [Path::new(files::LOCK_FILE), &temporary];
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let name = PathBuf::from(entry.file_name());
        if !ours.contains(&name.as_path()) {
            return Err(UpError::Usage(format!(
                "{} holds {}, and no cluster of `shoal up`; use an empty or a new --data-dir",
                folder.display(),
                name.display()
            )));
        }
    }
    Ok(())
}

/// A data directory that is ours alone.
#[derive(Debug)]
pub(super) struct Layout {
    folder: PathBuf,
    cluster_id: String,
    /// The demo origin's program, where one is wanted.
    pub(super) demo_origin: Option<PathBuf>,
    _lock: FolderLock,
}

impl Layout {
    /// Takes a directory with a cluster in it.
    pub(super) fn open(folder: &Path, record: Record) -> Result<Self, UpError> {
        let folder = absolute(folder)?;
        let lock = FolderLock::take(&folder)?;
        Ok(Self { folder, cluster_id: record.cluster_id, demo_origin: None, _lock: lock })
    }

    /// Makes one.
    pub(super) fn create(folder: &Path, plan: &Plan) -> Result<Self, UpError> {
        let folder = absolute(folder)?;
        files::make_folder(&folder)?;
        let lock = FolderLock::take(&folder)?;
        let random = clock::random_u64().map_err(CaError::Random)?;
        let layout = Self {
            cluster_id: format!("up-{random:016x}"),
            folder,
            demo_origin: None,
            _lock: lock,
        };
        layout.write_record(plan)?;
        Ok(layout)
    }

    pub(super) fn with_demo_origin(mut self, program: Option<PathBuf>) -> Self {
        self.demo_origin = program;
        self
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    pub(super) fn token_file(&self) -> PathBuf {
        self.folder.join(TOKEN_FILE)
    }

    pub(super) fn config_file(&self, member: &MemberPlan) -> PathBuf {
        self.member_folder(member).join("config.toml")
    }

    fn member_folder(&self, member: &MemberPlan) -> PathBuf {
        self.folder.join(&member.name)
    }

    /// Writes all that the members need.
    pub(super) fn write(&self, plan: &Plan) -> Result<(), UpError> {
        self.write_record(plan)?;
        files::make_folder(&self.logs())?;
        let secret = self.folder.join("secret");
        ensure_secret(&secret)?;
        ensure_secret(&self.token_file())?;
        let authority = match plan.insecure {
            true => None,
            false => Some(Authority::open(&self.folder.join("ca"), &self.cluster_id)?),
        };
        for member in plan.members() {
            let folder = self.member_folder(member);
            files::make_folder(&folder)?;
            let issue = |authority: &Authority| authority.issue(&folder.join("tls"), &member.name);
            let tls = authority.as_ref().map(issue).transpose()?;
            let text = self.config(plan, member, tls.as_ref(), &secret).to_string();
            let path = self.config_file(member);
            files::write_whole(&path, text.as_bytes(), files::PLAIN_MODE)?;
        }
        Ok(())
    }

    fn write_record(&self, plan: &Plan) -> Result<(), UpError> {
        let count = |members: &[MemberPlan]| u16::try_from(members.len()).unwrap_or(u16::MAX);
        let (super_nodes, nodes) = (count(&plan.super_nodes), count(&plan.nodes));
        let record = Record::new(self.cluster_id.clone(), plan.base_port, super_nodes, nodes);
        let text = serde_json::to_string_pretty(&record)
            .map_err(|error| UpError::Usage(format!("{RECORD_FILE}: {error}")))?;
        let path = self.folder.join(RECORD_FILE);
        Ok(files::write_whole(&path, format!("{text}\n").as_bytes(), files::PLAIN_MODE)?)
    }

    fn config(
        &self,
        plan: &Plan,
        member: &MemberPlan,
        tls: Option<&TlsFiles>,
        secret: &Path,
    ) -> Table {
        let data_dir = self.member_folder(member).join("data");
        let node = table([
            ("name", text(&member.name)),
            ("role", text(member.role.name())),
            ("data_dir", path_text(&data_dir)),
        ]);
        let super_nodes = plan.seeds().map(|member| text(&member.cluster.to_string()));
        let mut cluster = table([
            ("id", text(&self.cluster_id)),
            ("listen", text(&member.cluster.to_string())),
            ("super_nodes", Value::Array(super_nodes.collect())),
            ("secret_file", path_text(secret)),
        ]);
        for (key, value) in &plan.selection {
            cluster.insert((*key).to_owned(), value.clone());
        }
        if member.bootstrap {
            cluster.insert("bootstrap".into(), Value::Boolean(true));
        }
        match tls {
            None => cluster.insert("insecure".into(), Value::Boolean(true)),
            Some(TlsFiles { ca, cert, key }) => {
                let files =
                    [("ca", path_text(ca)), ("cert", path_text(cert)), ("key", path_text(key))];
                cluster.insert("tls".into(), Value::Table(table(files)))
            }
        };
        let token = table([
            ("name", text(TOKEN_NAME)),
            ("file", path_text(&self.token_file())),
            ("scopes", Value::Array(vec![text(Scope::EVERYTHING)])),
        ]);
        let admin = table([
            ("listen", text(&member.admin.to_string())),
            ("tokens", Value::Array(vec![Value::Table(token)])),
        ]);
        let mut config = table([
            ("node", Value::Table(node)),
            ("cluster", Value::Table(cluster)),
            ("admin", Value::Table(admin)),
        ]);
        if member.role.caches() {
            config.extend(of_nodes(plan, member));
        }
        config
    }
}

fn of_nodes(plan: &Plan, member: &MemberPlan) -> Table {
    let mut edge = Table::new();
    if let Some(listen) = member.edge {
        edge.insert("listen".into(), text(&listen.to_string()));
    }
    if let Some(code) = plan.unknown_host {
        edge.insert("unknown_host".into(), Value::Integer(code.into()));
    }
    let mut store = Table::new();
    for (key, size) in [("budget", &plan.store_budget), ("memory", &plan.store_memory)] {
        store.extend(size.iter().map(|size| (key.to_owned(), text(size))));
    }
    let site = Value::try_from(&plan.site).into_iter().collect();
    table([
        ("edge", Value::Table(edge)),
        ("store", Value::Table(store)),
        ("site", Value::Array(site)),
    ])
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn path_text(path: &Path) -> Value {
    Value::String(path.to_string_lossy().into_owned())
}

/// Members run with this path in their configuration, wherever they are started.
fn absolute(folder: &Path) -> Result<PathBuf, UpError> {
    let wrong = || {
        let shown = folder.display();
        UpError::Usage(format!("--data-dir is {shown:?}; expected a path in UTF-8"))
    };
    let path = std::path::absolute(folder).map_err(|_| wrong())?;
    if path.to_str().is_none() {
        return Err(wrong());
    }
    Ok(path)
}

#[cfg(test)]
mod tests;
