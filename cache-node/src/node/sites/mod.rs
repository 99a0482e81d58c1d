//! The sites that this node answers requests by: those of the index, as its session tells them; those
//! that it knew last, where the tier is away at the start; and those of its file that the index has
//! never known, until it does.
//!
//! | file | purpose |
//! |---|---|
//! | `mod` | [`SiteKeeper`]: takes sites in, keeps them on disk, seeds the index |
//! | `served` | PURE: what is served of a table and a file |
//! | `disk` | the file with the last known table |
//! | `calls` | the control calls |
//!
//! Invariants: requests see one table or the next, never a mixture, and a running one keeps the site
//! that it began with; where file and index differ, the index counts; a site that was deleted is not
//! brought back by a file.

mod calls;
mod disk;
mod served;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_proto::wire::v1::{self, SiteSource};
use tokio::sync::watch;

pub(super) use calls::add_to;
use served::{Notice, Served};

use crate::config::definition;
use crate::current::Current;
use crate::directory::{Directory, SitesHere};
use crate::policy::site::{SiteConfig, Sites};
use crate::tasks;

/// Between two tries to seed the index, in milliseconds.
const SEED_PAUSE_MS: u64 = 1_000;
/// The file in the data directory.
const FILE: &str = "sites.json";

/// Keeps the sites of this node up to date.
pub(super) struct SiteKeeper {
    current: Arc<Current<Sites>>,
    /// Of the configuration's file.
    file: Vec<SiteConfig>,
    path: PathBuf,
    state: Mutex<State>,
    taken: watch::Sender<u64>,
}

struct State {
    table: v1::SiteTable,
    served: Served,
    /// What was told already.
    told: BTreeSet<Notice>,
}

impl SiteKeeper {
    /// Begins with what the data directory and the file say.
    pub(super) async fn open(data_dir: PathBuf, file: Vec<SiteConfig>) -> Arc<Self> {
        let path = data_dir.join(FILE);
        let reading = path.clone();
        let table = match tasks::blocking("sites", move || disk::read(&reading)).await {
            Ok(Ok(table)) => table.unwrap_or_default(),
            Ok(Err(error)) => {
                let path = path.display();
                tracing::warn!(%path, error, "the last known sites cannot be read: begun without");
                v1::SiteTable::default()
            }
            Err(error) => {
                tracing::warn!(%error, "the last known sites were not read");
                v1::SiteTable::default()
            }
        };
        let served = served::of(&table, &file, &[]);
        let current = Arc::new(Current::new(served.sites.clone()));
        let revision = table.revision;
        let state = Mutex::new(State { table, served, told: BTreeSet::new() });
        let taken = watch::Sender::new(revision);
        let keeper = Self { current, file, path, state, taken };
        tracing::info!(revision, count = keeper.state().served.configs.len(), "sites known");
        Arc::new(keeper)
    }

    /// The sites to answer requests by, at any time.
    pub(super) fn current(&self) -> Arc<Current<Sites>> {
        Arc::clone(&self.current)
    }

    /// For the session with the tier.
    pub(super) fn here(self: &Arc<Self>) -> SitesHere {
        let keeper = Arc::clone(self);
        let revision = keeper.state().table.revision;
        SitesHere { revision, take: Arc::new(move |table| keeper.take(table)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers requests by `table` from here on; whether that is by all of it.
    fn take(&self, table: v1::SiteTable) -> bool {
        let mut state = self.state();
        let served = served::of(&table, &self.file, &state.served.configs);
        self.current.set(served.sites.clone());
        let revision = table.revision;
        tracing::info!(revision, count = served.configs.len(), "sites taken in");
        for notice in &served.notices {
            if state.told.insert(notice.clone()) {
                notice.tell();
            }
        }
        let whole = served.is_whole;
        *state = State { table, served, told: std::mem::take(&mut state.told) };
        drop(state);
        self.taken.send_replace(revision);
        whole
    }

    /// Keeps the newest table on disk, and has the tier take in what only the file knows; for as
    /// long as it is polled.
    pub(super) async fn keep(self: Arc<Self>, directory: Arc<Directory>) {
        directory.welcomed().await;
        let mut taken = self.taken.subscribe();
        loop {
            taken.borrow_and_update();
            self.write().await;
            let seeded = async {
                while !self.seed(&directory).await {
                    tokio::time::sleep(Duration::from_millis(SEED_PAUSE_MS)).await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                Ok(()) = taken.changed() => {}
                () = seeded => {}
            }
        }
    }

    async fn write(&self) {
        let (path, table) = (self.path.clone(), self.state().table.clone());
        if table.revision == 0 {
            return;
        }
        let written = tasks::blocking("sites", move || disk::write(&path, &table)).await;
        let error = match written {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(error) => error.to_string(),
        };
        let path = self.path.display();
        tracing::error!(%path, error, "the sites could not be kept: a start without the tier has older ones");
    }

    /// Has the tier take in what only the file knows; false when that is to be tried again.
    async fn seed(&self, directory: &Directory) -> bool {
        let (base, put) = {
            let state = self.state();
            (state.table.revision, state.served.pending.iter().map(seed).collect::<Vec<_>>())
        };
        if put.is_empty() {
            return true;
        }
        let names: Vec<_> = put.iter().map(|site| site.name.clone()).collect();
        let names = names.join(", ");
        match directory.change_sites(v1::ChangeSites { base, put, drop: Vec::new() }).await {
            Ok(reply) if !reply.refused => {
                tracing::info!(names, revision = reply.revision, "the index has the file's sites");
                true
            }
            // Somebody else was first: what the table is now comes with the session.
            Ok(reply) if reply.revision != base => false,
            Ok(_) => {
                tracing::error!(names, "the index takes no more sites: this node alone has these");
                true
            }
            Err(error) => {
                tracing::debug!(%error, "the index could not be told of the file's sites");
                false
            }
        }
    }
}

fn seed(site: &SiteConfig) -> v1::SiteDefinition {
    v1::SiteDefinition {
        name: site.name.clone(),
        definition: definition::kept(site).into(),
        source: SiteSource::File.into(),
        position: 0,
    }
}
