//! PURE. What is told in status: conditions that keep their time while they say the same.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::crd::cluster::PlannedStep;
use crate::plan::Plan;

/// Longest message of a condition, in characters.
const MESSAGE_CHARS_MAX: usize = 1_024;
/// Steps shown at most.
const STEPS_SHOWN_MAX: usize = 16;

/// What a condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Says {
    /// Its type.
    pub kind: &'static str,
    /// Whether it is so; nothing while that is not known.
    pub holds: Option<bool>,
    /// A word for programs.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

/// A condition.
#[must_use]
pub fn says(
    kind: &'static str,
    holds: impl Into<Option<bool>>,
    reason: &'static str,
    message: impl Into<String>,
) -> Says {
    Says { kind, holds: holds.into(), reason, message: message.into() }
}

/// All conditions, in place of `before`: one that says the same as before keeps its time.
#[must_use]
pub fn conditions(
    before: &[Condition],
    now_s: i64,
    generation: Option<i64>,
    all: Vec<Says>,
) -> Vec<Condition> {
    let told = |says: Says| {
        let status = match says.holds {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let old = before.iter().find(|old| old.type_ == says.kind && old.status == status);
        let since = Timestamp::from_second(now_s).unwrap_or_default();
        Condition {
            type_: says.kind.to_owned(),
            status: status.to_owned(),
            reason: says.reason.to_owned(),
            message: says.message.chars().take(MESSAGE_CHARS_MAX).collect(),
            observed_generation: generation,
            last_transition_time: old.map_or(Time(since), |old| old.last_transition_time.clone()),
        }
    };
    all.into_iter().map(told).collect()
}

/// A plan as status shows it.
#[must_use]
pub fn planned(plan: &Plan) -> Vec<PlannedStep> {
    let shown = |step: &crate::plan::Step| PlannedStep {
        op: step.op.name().to_owned(),
        target: step.op.target().to_owned(),
        why: step.why.clone(),
        blocked_by: step.blocked.as_ref().map(|b| b.by.to_string()).unwrap_or_default(),
        detail: step.blocked.as_ref().map(|b| stable(&b.detail)).unwrap_or_default(),
    };
    plan.steps.iter().take(STEPS_SHOWN_MAX).map(shown).collect()
}

/// What is told, without numbers that change from look to look: status is not a clock.
fn stable(detail: &str) -> String {
    let word = |word: &str| {
        let number = word.chars().all(|c| c.is_ascii_digit());
        if number && word.len() > 1 { "…".to_owned() } else { word.to_owned() }
    };
    detail.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// Whether anything goes on, in one sentence.
#[must_use]
pub fn progress(plan: &Plan) -> Says {
    let Some(step) = plan.steps.first() else {
        return says("Progressing", false, "AsWanted", "all is as wanted");
    };
    let whom = step.op.target();
    let what = if whom.is_empty() {
        format!("{}: {}", step.op.name(), step.why)
    } else {
        format!("{} {whom}: {}", step.op.name(), step.why)
    };
    match &step.blocked {
        None => says("Progressing", true, step.op.name(), what),
        Some(blocked) => {
            let detail = stable(&blocked.detail);
            says(
                "Progressing",
                true,
                "Waiting",
                format!("{what}; waits for {}: {detail}", blocked.by),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_while_it_says_the_same() {
        let ready = |now_s, holds: bool| {
            let old = conditions(&[], 100, Some(1), vec![says("Ready", true, "A", "a")]);
            let new = conditions(&old, now_s, Some(2), vec![says("Ready", holds, "B", "b")]);
            (new[0].last_transition_time.0.as_second(), new[0].observed_generation)
        };
        assert_eq!(ready(200, true), (100, Some(2)));
        assert_eq!(ready(200, false), (200, Some(2)));
    }

    #[test]
    fn waiting_is_told_without_a_clock() {
        assert_eq!(stable("seen for 15 s of 30 s, 2 of 3"), "seen for … s of … s, 2 of 3");
    }
}
