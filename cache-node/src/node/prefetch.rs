//! The control calls that prefetch: objects are got by some nodes or all of them, in the background,
//! and each byte leaves the origin once.
//!
//! Invariants: all of a call is checked before any of it is begun; what is kept of prefetches is
//! bounded and forgotten after a while; no URL stands in any log or message between nodes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::admin::tokens::{Target, Verb};
use crate::admin::{Call, Control, ControlError};
use crate::clock;
use crate::config::ClusterSecret;
use crate::current::Current;
use crate::directory::Directory;
use crate::fetch::Fetcher;
use crate::membership::Member;
use crate::policy::named::Named;
use crate::policy::site::Sites;
use crate::tasks::Tasks;
use crate::transfer::{Peers, Source};

/// Most URLs of one call.
const URLS_MAX: usize = 10_000;
/// Prefetches that are remembered, running ones among them.
const JOBS_MAX: usize = 32;
/// Prefetches that run at a time; more wait.
const JOBS_AT_ONCE_MAX: usize = 4;
/// Objects under way at a time, of one prefetch.
const AT_ONCE_MAX: usize = 16;
/// Failures that are told of one prefetch; more are counted.
const FAILURES_MAX: usize = 100;
/// A prefetch that is over is remembered for so long, in milliseconds.
const REMEMBERED_MS: u64 = 3_600_000;
/// For a node to get one object.
const OBJECT_DEADLINE: Duration = Duration::from_secs(3_600);

/// What prefetching needs.
#[derive(Clone)]
pub(super) struct Prefetcher {
    pub(super) directory: Arc<Directory>,
    pub(super) sites: Arc<Current<Sites>>,
    pub(super) secret: ClusterSecret,
    pub(super) fetcher: Fetcher,
    pub(super) peers: Peers,
    pub(super) tasks: Tasks,
    pub(super) jobs: Arc<Jobs>,
}

/// The body of `POST /v1/prefetch`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    urls: Vec<String>,
    #[serde(default)]
    to: Whom,
}

/// Which nodes: all of them, or those of a zone, or some by name.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whom {
    zone: Option<String>,
    #[serde(default)]
    nodes: Vec<String>,
}

/// What came of a prefetch so far.
#[derive(Clone, Debug, Default)]
struct Progress {
    total: u64,
    done: u64,
    failed: u64,
    bytes: u64,
    failures: Vec<Value>,
    ended_ms: Option<u64>,
}

/// Prefetches that run or ended a while ago.
pub(super) struct Jobs {
    all: Mutex<BTreeMap<String, Progress>>,
    running: Arc<Semaphore>,
}

impl Default for Jobs {
    fn default() -> Self {
        Self { all: Mutex::default(), running: Arc::new(Semaphore::new(JOBS_AT_ONCE_MAX)) }
    }
}

impl Jobs {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Progress>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a prefetch, where there is room once the oldest that ended is forgotten.
    fn begin(&self, now_ms: u64, id: &str, total: u64) -> bool {
        let mut all = self.all();
        let over = |job: &Progress| job.ended_ms.is_some_and(|at| now_ms >= at + REMEMBERED_MS);
        all.retain(|_, job| !over(job));
        if all.len() >= JOBS_MAX {
            let ended = all.iter().filter_map(|(id, job)| Some((job.ended_ms?, id.clone())));
            let Some((_, oldest)) = ended.min() else { return false };
            all.remove(&oldest);
        }
        all.insert(id.to_owned(), Progress { total, ..Progress::default() });
        true
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Progress)) {
        if let Some(job) = self.all().get_mut(id) {
            change(job);
        }
    }

    fn get(&self, id: &str) -> Option<Progress> {
        self.all().get(id).cloned()
    }
}

impl Progress {
    fn record(&mut self, outcome: Result<u64, Value>) {
        match outcome {
            Ok(bytes) => {
                self.done += 1;
                self.bytes += bytes;
            }
            Err(failure) => {
                self.failed += 1;
                if self.failures.len() < FAILURES_MAX {
                    self.failures.push(failure);
                }
            }
        }
    }

    fn answer(self) -> Value {
        let Self { total, done, failed, bytes, failures, ended_ms } = self;
        json!({
            "total": total,
            "done": done,
            "failed": failed,
            "bytes": bytes,
            "failures": failures,
            "finished": ended_ms.is_some(),
        })
    }
}

impl Prefetcher {
    /// `control` with the calls.
    pub(super) fn add_to(self, control: Control) -> Control {
        let asking = self.clone();
        let control = control.with((Method::POST, "/v1/prefetch"), Verb::Prefetch, move |call| {
            let prefetcher = self.clone();
            async move { prefetcher.begin(&call) }
        });
        control.with((Method::GET, "/v1/prefetch/{id}"), Verb::Prefetch, move |call: Call| {
            let found = asking.jobs.get(call.name());
            async move {
                let missing = || {
                    let remedy = "ask the member that began it; it forgets after an hour";
                    ControlError::not_found(format!("there is no prefetch {}", call.name()), remedy)
                };
                found.map(Progress::answer).ok_or_else(missing)
            }
        })
    }

    fn begin(self, call: &Call) -> Result<Value, ControlError> {
        let Wish { urls, to } = call.read()?;
        if !(1..=URLS_MAX).contains(&urls.len()) {
            let message = format!("{} URLs in one call", urls.len());
            return Err(ControlError::invalid(message, format!("send 1 to {URLS_MAX}")));
        }
        let sites = self.sites.get();
        let mut named = VecDeque::with_capacity(urls.len());
        for url in urls {
            let one = Named::read(&sites, &url)
                .map_err(|error| ControlError::invalid(error.problem, error.remedy))?;
            call.allow(Target::Path(one.site.name(), one.path()))?;
            named.push_back((url, one));
        }
        let nodes = self.nodes(&to)?;
        let total = named.len() as u64 * nodes.len() as u64;
        let number = clock::random_u64()
            .map_err(|error| ControlError::unavailable(error.to_string(), "try again"))?;
        let id = format!("{number:016x}");
        if !self.jobs.begin(clock::unix_ms(), &id, total) {
            let remedy = "wait until one of them has ended";
            return Err(ControlError::unavailable("too many prefetches are under way", remedy));
        }
        tracing::info!(caller = call.caller(), id, total, nodes = nodes.len(), "prefetching");
        let begun = json!({ "id": id, "total": total });
        let tasks = self.tasks.clone();
        tasks.spawn_until_stopped("prefetch-job", self.run(id, named, nodes));
        Ok(begun)
    }

    /// The nodes that are meant, all of them up.
    fn nodes(&self, whom: &Whom) -> Result<Arc<[Member]>, ControlError> {
        let view = self.directory.view();
        let up: Vec<Member> = view.nodes_up().cloned().collect();
        for name in &whom.nodes {
            if !up.iter().any(|node| node.name == *name) {
                let message = format!("there is no node {name:?} that is up");
                return Err(ControlError::invalid(message, "`shoal status` names them"));
            }
        }
        let wanted = |node: &Member| {
            let zone = whom.zone.as_ref().is_none_or(|zone| node.zone == *zone);
            zone && (whom.nodes.is_empty() || whom.nodes.contains(&node.name))
        };
        let nodes: Arc<[Member]> = up.into_iter().filter(wanted).collect();
        if nodes.is_empty() {
            let remedy = "`shoal status` shows nodes and zones";
            return Err(ControlError::invalid("there is no such node that is up", remedy));
        }
        Ok(nodes)
    }

    async fn run(self, id: String, named: VecDeque<(String, Named)>, nodes: Arc<[Member]>) {
        let Ok(_turn) = self.jobs.running.clone().acquire_owned().await else { return };
        let pairs = named.into_iter().flat_map(|(url, named)| {
            let nodes = Arc::clone(&nodes);
            (0..nodes.len())
                .filter_map(move |at| Some((url.clone(), named.clone(), nodes.get(at)?.clone())))
        });
        let mut under_way = futures::stream::iter(pairs)
            .map(|(url, named, node)| {
                let prefetcher = &self;
                async move {
                    let outcome = prefetcher.one(named, &node).await;
                    outcome.map_err(|why| json!({ "url": url, "node": node.name, "message": why }))
                }
            })
            .buffer_unordered(AT_ONCE_MAX);
        while let Some(outcome) = under_way.next().await {
            self.jobs.change(&id, |job| job.record(outcome));
        }
        drop(under_way);
        self.jobs.change(&id, |job| job.ended_ms = Some(clock::unix_ms()));
        if let Some(Progress { done, failed, bytes, .. }) = self.jobs.get(&id) {
            tracing::info!(id, done, failed, bytes, "prefetched");
        }
    }

    async fn one(&self, named: Named, node: &Member) -> Result<u64, String> {
        let key = named.key(self.secret.as_bytes());
        let source = Source {
            site: named.site.name().to_owned(),
            authority: named.authority,
            target: named.target,
            part: None,
        };
        if node.id == self.directory.node_id() {
            return self.fetcher.prefetch(source).await;
        }
        let asked = self.peers.prefetch(node, (key, source), OBJECT_DEADLINE).await;
        asked.unwrap_or_else(|error| Err(error.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_prefetches_is_bounded() {
        let jobs = Jobs::default();
        for number in 0..JOBS_MAX {
            assert!(jobs.begin(0, &number.to_string(), 1));
        }
        assert!(!jobs.begin(0, "more", 1), "all of them run");
        jobs.change("3", |job| job.ended_ms = Some(9));
        jobs.change("4", |job| job.ended_ms = Some(8));
        assert!(jobs.begin(10, "more", 1));
        assert!(jobs.get("4").is_none() && jobs.get("3").is_some(), "the oldest that ended goes");
        assert!(jobs.begin(9 + REMEMBERED_MS, "late", 1));
        assert!(jobs.get("3").is_none(), "and whatever ended long ago");
        for _ in 0..2 * FAILURES_MAX {
            jobs.change("more", |job| job.record(Err(Value::Null)));
        }
        jobs.change("more", |job| job.record(Ok(7)));
        let answer = jobs.get("more").unwrap().answer();
        assert_eq!(answer["failures"].as_array().unwrap().len(), FAILURES_MAX);
        assert_eq!((&answer["failed"], &answer["bytes"]), (&json!(2 * FAILURES_MAX), &json!(7)));
        assert_eq!(answer["finished"], json!(false));
    }
}
