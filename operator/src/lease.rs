//! One operator acts at a time: it holds a Lease of Kubernetes', and ends itself when it cannot
//! renew it in time. What a lease cannot do, keep out one that slept, the marks of memberships do.
//!
//! [`decide`] is PURE; [`Election`] does what it says.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use crate::clock;

/// How long a lease holds after it was renewed, in seconds. Long, so that a slow API server in the
/// middle of an upgrade does not end its operator.
const HOLDS_S: i32 = 30;
/// Between two looks at it.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);
/// One that could not renew for so long acts no more: well before another may.
const GIVE_UP_AFTER: Duration = Duration::from_secs(20);
/// For one call.
const CALL_DEADLINE: Duration = Duration::from_secs(8);

/// What is known of the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Who has it; nobody when it was let go.
    pub holder: Option<String>,
    /// For how long it has been seen unchanged.
    pub unchanged_for: Duration,
}

/// What to do about the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Make it: nobody ever had it.
    Make,
    /// Take it: nobody has it now, or who has it does not renew it.
    Take,
    /// Renew it.
    Renew,
    /// Another has it.
    Wait,
}

/// What to do: PURE.
#[must_use]
pub fn decide(known: Option<&Known>, me: &str) -> Turn {
    let Some(known) = known else { return Turn::Make };
    let over = Duration::from_secs(HOLDS_S.unsigned_abs().into());
    match known.holder.as_deref() {
        Some(holder) if holder == me => Turn::Renew,
        Some(holder) if !holder.is_empty() && known.unchanged_for < over => Turn::Wait,
        _ => Turn::Take,
    }
}

/// Takes part in the election.
pub struct Election {
    api: Api<Lease>,
    name: String,
    me: String,
    seen: Option<(LeaseSpec, Instant)>,
    renewed: Option<Instant>,
}

impl std::fmt::Debug for Election {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Election").field("name", &self.name).field("me", &self.me).finish()
    }
}

impl Election {
    /// As `me`, for the lease `name` in `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, me: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            me: me.to_owned(),
            seen: None,
            renewed: None,
        }
    }

    /// One turn: whether this process may act now.
    pub async fn turn(&mut self) -> bool {
        match tokio::time::timeout(CALL_DEADLINE, self.call()).await {
            Ok(Ok(true)) => self.renewed = Some(clock::monotonic()),
            Ok(Ok(false)) => self.renewed = None,
            Ok(Err(error)) => {
                tracing::warn!(%error, lease = self.name, "the lease was not renewed")
            }
            Err(_) => tracing::warn!(lease = self.name, "the lease was not renewed in time"),
        }
        self.renewed.is_some_and(|at| clock::since(at) < GIVE_UP_AFTER)
    }

    async fn call(&mut self) -> Result<bool, kube::Error> {
        let lease = self.api.get_opt(&self.name).await?;
        let known = lease.as_ref().map(|lease| self.known(lease));
        let turn = decide(known.as_ref(), &self.me);
        let done = match (turn, lease) {
            (Turn::Wait, _) => return Ok(false),
            (_, None) => {
                let metadata =
                    ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(self.spec(None, turn)) };
                self.api.create(&PostParams::default(), &lease).await
            }
            (_, Some(mut lease)) => {
                // Only over the one that was seen: its version goes with it.
                lease.spec = Some(self.spec(lease.spec.as_ref(), turn));
                self.api.replace(&self.name, &PostParams::default(), &lease).await
            }
        };
        match done {
            // Somebody else was quicker.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            other => other.map(|_| true),
        }
    }

    fn known(&mut self, lease: &Lease) -> Known {
        let spec = lease.spec.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == spec => *since,
            _ => clock::monotonic(),
        };
        self.seen = Some((spec.clone(), since));
        Known { holder: spec.holder_identity, unchanged_for: clock::since(since) }
    }

    fn spec(&self, before: Option<&LeaseSpec>, turn: Turn) -> LeaseSpec {
        let now = Timestamp::from_second(clock::unix_s()).unwrap_or_default();
        let before = before.cloned().unwrap_or_default();
        let taken = turn != Turn::Renew;
        let transitions = before.lease_transitions.unwrap_or_default() + i32::from(taken);
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: Some(HOLDS_S),
            acquire_time: if taken { Some(MicroTime(now)) } else { before.acquire_time },
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    /// Lets the lease go, so that the next one need not wait.
    pub async fn let_go(&mut self) {
        let Ok(Ok(Some(mut lease))) =
            tokio::time::timeout(CALL_DEADLINE, self.api.get_opt(&self.name)).await
        else {
            return;
        };
        let mine = |spec: &&mut LeaseSpec| spec.holder_identity.as_deref() == Some(&self.me);
        let Some(spec) = lease.spec.as_mut().filter(mine) else { return };
        spec.holder_identity = Some(String::new());
        let post = PostParams::default();
        let replaced = self.api.replace(&self.name, &post, &lease);
        if let Ok(Err(error)) = tokio::time::timeout(CALL_DEADLINE, replaced).await {
            tracing::debug!(%error, "the lease was not let go");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_only_from_nobody_or_from_one_that_is_silent() {
        let known = |holder: &str, seconds| Known {
            holder: Some(holder.to_owned()),
            unchanged_for: Duration::from_secs(seconds),
        };
        assert_eq!(decide(None, "a"), Turn::Make);
        assert_eq!(decide(Some(&known("a", 99)), "a"), Turn::Renew);
        assert_eq!(decide(Some(&known("b", 29)), "a"), Turn::Wait);
        assert_eq!(decide(Some(&known("b", 30)), "a"), Turn::Take);
        assert_eq!(decide(Some(&known("", 0)), "a"), Turn::Take);
    }

    #[test]
    fn one_that_cannot_renew_ends_before_another_may_begin() {
        let holds = Duration::from_secs(HOLDS_S.unsigned_abs().into());
        assert!(GIVE_UP_AFTER + LOOK_EVERY < holds);
    }
}
