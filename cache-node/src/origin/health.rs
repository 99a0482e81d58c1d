//! Which origins of a site are away: where there are several, requests go to the first that is not.
//!
//! Invariants: an origin that failed often enough in a row is tried last for a while, and never left
//! out; one that answers is back at once. A site with one origin has nothing here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use http::{HeaderMap, Method};
use shoal_proto::limits::SITES_MAX;

use super::{Failure, OriginClient, OriginRequest, head};
use crate::clock;
use crate::current::Current;
use crate::policy::choices::HealthConfig;
use crate::policy::site::{OriginUrl, Site, Sites};

/// Between two looks at whom to check, in milliseconds.
const LOOK_EVERY_MS: u64 = 500;
/// Origins that are remembered; beyond it all are forgotten, and learnt again.
const ORIGINS_MAX: usize = 16 * SITES_MAX;

/// PURE. What is known of origins. Times are monotonic milliseconds.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<(String, String), State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    away_until_ms: u64,
    checked_ms: Option<u64>,
}

impl Known {
    fn state(&mut self, site: &Site, origin: &OriginUrl) -> &mut State {
        if self.0.len() >= ORIGINS_MAX {
            self.0.clear();
        }
        self.0.entry((site.name().to_owned(), origin.to_string())).or_default()
    }

    /// In which order a site's origins are to be tried.
    fn order(&mut self, now_ms: u64, site: &Site) -> Vec<OriginUrl> {
        let mut all: Vec<OriginUrl> = site.origins().cloned().collect();
        if all.len() > 1 {
            all.sort_by_key(|origin| self.state(site, origin).away_until_ms > now_ms);
        }
        all
    }

    /// It answered; whether it was away.
    fn answered(&mut self, now_ms: u64, site: &Site, origin: &OriginUrl) -> bool {
        let state = self.state(site, origin);
        let was_away = state.away_until_ms > now_ms;
        (state.failures, state.away_until_ms) = (0, 0);
        was_away
    }

    /// It did not, so many times; whether it counts as away from now on.
    fn failed(&mut self, now_ms: u64, site: &Site, (origin, times): (&OriginUrl, u32)) -> bool {
        let HealthConfig { failures, retry_ms, .. } = site.health;
        let state = self.state(site, origin);
        let was_away = state.away_until_ms > now_ms;
        state.failures = state.failures.saturating_add(times);
        if state.failures < failures {
            return false;
        }
        state.away_until_ms = now_ms + retry_ms;
        !was_away
    }

    /// Whether it is to be checked now.
    fn is_due(&mut self, now_ms: u64, site: &Site, origin: &OriginUrl) -> bool {
        let every_ms = site.health.every_ms;
        let state = self.state(site, origin);
        let due = state.checked_ms.is_none_or(|at| now_ms >= at + every_ms);
        if due {
            state.checked_ms = Some(now_ms);
        }
        due
    }
}

/// What all requests share of it.
#[derive(Clone, Debug)]
pub(super) struct Health {
    known: Arc<Mutex<Known>>,
    started: std::time::Instant,
}

impl Health {
    pub(super) fn new() -> Self {
        Self { known: Arc::default(), started: clock::monotonic() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(clock::since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn order(&self, site: &Site) -> Vec<OriginUrl> {
        self.known().order(self.now_ms(), site)
    }

    pub(super) fn answered(&self, site: &Site, origin: &OriginUrl) {
        if site.origins().count() > 1 && self.known().answered(self.now_ms(), site, origin) {
            tracing::info!(site = site.name(), %origin, "an origin is back");
        }
    }

    pub(super) fn failed(&self, site: &Site, origin: &OriginUrl, times: u32) {
        let now_ms = self.now_ms();
        if site.origins().count() > 1 && self.known().failed(now_ms, site, (origin, times)) {
            tracing::warn!(site = site.name(), %origin, "an origin is away: others go first");
        }
    }
}

impl OriginClient {
    /// Asks the origins of sites that want it how they are, for as long as it is polled.
    pub async fn check_health(self, sites: Arc<Current<Sites>>) {
        loop {
            tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
            let sites = sites.get();
            let mut due = Vec::new();
            for site in sites.iter().filter(|site| site.origins().count() > 1) {
                let Some(path) = &site.health.path else { continue };
                let now_ms = self.health.now_ms();
                let is_due = |origin: &&OriginUrl| self.health.known().is_due(now_ms, site, origin);
                due.extend(site.origins().filter(is_due).map(|origin| (site, origin, path)));
            }
            join_all(due.into_iter().map(|(site, origin, path)| self.check(site, origin, path)))
                .await;
        }
    }

    async fn check(&self, site: &Site, origin: &OriginUrl, path: &str) {
        let request = OriginRequest {
            method: Method::GET,
            target: path.to_owned(),
            client_authority: origin.authority.to_string(),
            headers: HeaderMap::new(),
            body: None,
            interims: None,
        };
        let Ok(head) = head((site, origin), &request, None) else { return };
        let answer: Result<_, Failure> = self.attempt(&self.fresh, site, head, None).await;
        match answer {
            Ok(response) if !response.status().is_server_error() => {
                self.health.answered(site, origin);
            }
            _ => self.health.failed(site, origin, site.health.failures),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Arc<Site> {
        let text = "name = \"a\"\nhosts = [\"a\"]\norigin = \"http://one\"\n\
                    more_origins = [\"http://two\", \"http://three\"]\n\
                    health = { failures = 2, retry_ms = 1000 }\n";
        Sites::new(vec![toml::from_str(text).unwrap()]).unwrap().get("a").unwrap()
    }

    #[test]
    fn who_failed_in_a_row_is_tried_last_for_a_while() {
        let (site, mut known) = (site(), Known::default());
        let all: Vec<_> = site.origins().cloned().collect();
        let order = |known: &mut Known, now_ms| {
            let order = known.order(now_ms, &site);
            order.iter().map(|of| of.authority.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(order(&mut known, 0), ["one", "two", "three"]);
        assert!(!known.failed(0, &site, (&all[0], 1)));
        assert!(!known.answered(5, &site, &all[0]), "it was never away");
        assert!(!known.failed(10, &site, (&all[0], 1)));
        assert!(known.failed(20, &site, (&all[0], 1)));
        assert!(!known.failed(30, &site, (&all[0], 1)), "told once");
        assert_eq!(order(&mut known, 40), ["two", "three", "one"]);
        assert_eq!(order(&mut known, 1_030), ["one", "two", "three"], "it is tried again");
        assert!(known.failed(1_031, &site, (&all[0], 1)), "and away again at its first failure");
        assert!(known.answered(1_050, &site, &all[0]));
        assert_eq!(order(&mut known, 1_051), ["one", "two", "three"]);
    }

    #[test]
    fn checks_are_due_now_and_then() {
        let (site, mut known) = (site(), Known::default());
        let origin = site.origins().next().unwrap();
        assert!(known.is_due(7, &site, origin));
        assert!(!known.is_due(5_006, &site, origin));
        assert!(known.is_due(5_007, &site, origin));
    }
}
