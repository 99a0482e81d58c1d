//! PURE. What happened a second between two reports.

use std::collections::HashMap;

use crate::admin::{Hits, MemberReport, Report};

/// Points of history that are kept.
const HISTORY_MAX: usize = 240;

/// Something a second, of a member or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) requests: f64,
    pub(super) response_bytes: f64,
    pub(super) origin_bytes: f64,
    pub(super) peer_bytes_in: f64,
    pub(super) peer_bytes_out: f64,
}

impl Rates {
    /// The share of the bytes sent to clients that no origin had to send, in percent.
    pub(super) fn offload_percent(&self) -> Option<f64> {
        let sent = self.response_bytes > 0.0;
        sent.then(|| 100.0 * (1.0 - self.origin_bytes / self.response_bytes))
    }

    fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            response_bytes: self.response_bytes + other.response_bytes,
            origin_bytes: self.origin_bytes + other.origin_bytes,
            peer_bytes_in: self.peer_bytes_in + other.peer_bytes_in,
            peer_bytes_out: self.peer_bytes_out + other.peer_bytes_out,
        }
    }
}

/// Reports, one after the other.
#[derive(Debug, Default)]
pub(super) struct Watched {
    last: Option<Report>,
    members: HashMap<String, Rates>,
    history: Vec<Rates>,
}

impl Watched {
    /// Takes in the newest report.
    pub(super) fn take(&mut self, report: Report) {
        let before = self.last.take();
        if let Some(before) = before.filter(|before| before.at_ms < report.at_ms) {
            let seconds = (report.at_ms - before.at_ms) as f64 / 1000.0;
            let former: HashMap<_, _> =
                before.members.iter().map(|member| (member.node_id.as_str(), member)).collect();
            let rates = report.members.iter().filter_map(|member| {
                let then = former.get(member.node_id.as_str())?;
                Some((member.node_id.clone(), between(then, member, seconds)?))
            });
            self.members = rates.collect();
            let all = self.members.values().fold(Rates::default(), |sum, one| sum.plus(*one));
            if self.history.len() >= HISTORY_MAX {
                self.history.remove(0);
            }
            self.history.push(all);
        }
        self.last = Some(report);
    }

    /// The newest report.
    pub(super) fn report(&self) -> Option<&Report> {
        self.last.as_ref()
    }

    /// A member's rates; `None` while it has none.
    pub(super) fn of(&self, member: &MemberReport) -> Option<&Rates> {
        self.members.get(&member.node_id)
    }

    /// All members' rates together, the newest last.
    pub(super) fn history(&self) -> &[Rates] {
        &self.history
    }
}

/// `None` for a member that serves nothing, was silent, or counts from zero again.
fn between(then: &MemberReport, now: &MemberReport, seconds: f64) -> Option<Rates> {
    let grown = |then: Option<u64>, now: Option<u64>| {
        now?.checked_sub(then?).map(|grown| grown as f64 / seconds)
    };
    Some(Rates {
        requests: grown(then.hits.map(all), now.hits.map(all))?,
        response_bytes: grown(then.response_bytes, now.response_bytes)?,
        origin_bytes: grown(then.origin_bytes, now.origin_bytes)?,
        peer_bytes_in: grown(then.peer_bytes_in, now.peer_bytes_in)?,
        peer_bytes_out: grown(then.peer_bytes_out, now.peer_bytes_out)?,
    })
}

/// Requests of every tier.
pub(super) fn all(hits: Hits) -> u64 {
    hits.memory + hits.disk + hits.peer + hits.origin + hits.pass
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::report::tests::sample;

    #[test]
    fn rates_are_differences_a_second() {
        let mut watched = Watched::default();
        let mut report = sample();
        watched.take(report.clone());
        assert!(watched.history().is_empty(), "one report has no rate");
        let node = |report: &Report| {
            report.members.iter().position(|member| member.name == "node-2").unwrap()
        };
        let at = node(&report);
        report.at_ms += 2_000;
        report.members[at].hits.as_mut().unwrap().memory += 100;
        *report.members[at].response_bytes.as_mut().unwrap() += 4_000;
        *report.members[at].origin_bytes.as_mut().unwrap() += 1_000;
        watched.take(report.clone());
        let now = *watched.of(&report.members[at]).unwrap();
        assert_eq!((now.requests, now.response_bytes), (50.0, 2_000.0));
        assert_eq!(now.offload_percent(), Some(75.0));
        assert_eq!(watched.history(), [now]);

        // It started again: its counts are of another process.
        report.at_ms += 2_000;
        *report.members[at].response_bytes.as_mut().unwrap() = 3;
        watched.take(report.clone());
        assert_eq!(watched.of(&report.members[at]), None);
        assert_eq!(watched.history().len(), 2);
    }
}
