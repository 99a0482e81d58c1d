//! What all reconcilers share: the client, the writer, figures, events, and what was seen last.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource};

use crate::apply::{Writable, Writer};
use crate::autoscale::Memory;
use crate::control::CallError;
use crate::metrics::Metrics;
use crate::resources::names::MANAGER;

/// First wait after a failure, in milliseconds.
const BACKOFF_MS_MIN: u64 = 500;
/// Longest wait after failures, in milliseconds.
const BACKOFF_MS_MAX: u64 = 120_000;
/// Most objects whose failures and figures are remembered.
const REMEMBERED_MAX: usize = 16_384;
/// Longest note of an event, in characters.
const NOTE_CHARS_MAX: usize = 1_000;

/// Why a look at an object failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or was away.
    #[error("{doing}: {source}")]
    Kube {
        /// What was being done.
        doing: &'static str,
        /// What went wrong.
        source: Box<kube::Error>,
    },
    /// A member refused or was away.
    #[error(transparent)]
    Call(#[from] CallError),
    /// No certificate could be made.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// No randomness.
    #[error("no randomness: {0}")]
    Random(#[from] std::io::Error),
    /// The members' configuration cannot be written.
    #[error("configuration: {0}")]
    Configuration(#[from] toml::ser::Error),
}

/// Says what was being done when the API server refused.
pub trait Doing<T> {
    /// The same, with what was being done.
    ///
    /// # Errors
    /// The same.
    fn doing(self, doing: &'static str) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, kube::Error> {
    fn doing(self, doing: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::Kube { doing, source: Box::new(source) })
    }
}

/// What a pool's counters said last, and what autoscaling remembers.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Unix seconds.
    pub at_s: i64,
    /// Sums by node and figure.
    pub counters: HashMap<String, [f64; 5]>,
    /// Patience so far.
    pub memory: Memory,
}

/// What all reconcilers share.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Writes to it.
    pub writer: Writer,
    /// Figures.
    pub metrics: Metrics,
    /// Where members listen for control calls.
    pub admin_port: u16,
    recorder: Recorder,
    failures: Mutex<HashMap<String, u32>>,
    samples: Mutex<HashMap<String, Sample>>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl Context {
    /// Shared by all that work with `client`.
    #[must_use]
    pub fn new(client: Client, metrics: Metrics, admin_port: u16, instance: String) -> Self {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(instance) };
        Self {
            writer: Writer::new(client.clone(), metrics.clone()),
            recorder: Recorder::new(client.clone(), reporter),
            client,
            metrics,
            admin_port,
            failures: Mutex::default(),
            samples: Mutex::default(),
        }
    }

    /// The objects of a kind in a namespace.
    #[must_use]
    pub fn api<K: Writable>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Tells of something that was done, or went wrong, about `object`.
    pub async fn event<K>(&self, object: &K, warning: bool, (reason, note): (&str, &str))
    where
        K: Resource<DynamicType = ()>,
    {
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(note.chars().take(NOTE_CHARS_MAX).collect()),
            action: reason.to_owned(),
            secondary: None,
        };
        let about = object.object_ref(&());
        if let Err(error) = self.recorder.publish(&event, &about).await {
            tracing::debug!(%error, reason, "an event was not taken");
        }
    }

    /// How long to wait after another failure of the object `key`.
    pub fn failed(&self, key: &str) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= REMEMBERED_MAX {
            failures.clear();
        }
        let count = failures.entry(key.to_owned()).or_default();
        let wait = BACKOFF_MS_MIN.saturating_mul(1 << (*count).min(16)).min(BACKOFF_MS_MAX);
        *count = count.saturating_add(1);
        Duration::from_millis(wait)
    }

    /// The object `key` did not fail.
    pub fn succeeded(&self, key: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// What was remembered of a pool.
    pub fn sample(&self, key: &str) -> Option<Sample> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Remembers it.
    pub fn remember(&self, key: &str, sample: Sample) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() >= REMEMBERED_MAX {
            samples.clear();
        }
        samples.insert(key.to_owned(), sample);
    }
}
