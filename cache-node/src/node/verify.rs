//! The control call that has the super-nodes' indexes compared; a node passes it on, a super-node
//! does it itself.

use std::future::Future;

use http::Method;
use serde_json::{Value, json};
use shoal_proto::wire::v1::{self, Verdict};
use shoal_proto::{NodeId, RpcError};

use crate::admin::Control;
use crate::admin::tokens::{Target, Verb};
use crate::clock;

/// `control` with the call; `verify` does it.
pub(super) fn add_to<F, Fut>(control: Control, verify: F) -> Control
where
    F: Fn() -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<v1::VerifyReply, RpcError>> + Send,
{
    control.with((Method::POST, "/v1/verify"), Verb::Verify, move |call| {
        let verify = verify.clone();
        async move {
            call.allow(Target::Everything)?;
            let begun = clock::monotonic();
            let reply = verify().await?;
            let report = report(&reply, clock::since(begun).as_secs_f64() * 1e3);
            tracing::info!(caller = call.caller(), position = reply.position, "index verified");
            Ok(report)
        }
    })
}

fn report(reply: &v1::VerifyReply, took_ms: f64) -> Value {
    let same = reply.super_nodes.iter().all(|one| one.verdict() == Verdict::Same);
    json!({
        "position": reply.position,
        "same": same && !reply.super_nodes.is_empty(),
        "super_nodes": reply.super_nodes.iter().map(one).collect::<Vec<_>>(),
        "took_ms": (took_ms * 1e3).round() / 1e3,
    })
}

fn one(of: &v1::Verified) -> Value {
    let verdict = match of.verdict() {
        Verdict::Same => "same",
        Verdict::Different => "different",
        Verdict::NoAnswer | Verdict::Unspecified => "no-answer",
    };
    let hex = |digest: &[u8]| blake3::Hash::from_slice(digest).ok().map(|hash| hash.to_string());
    let answered = verdict != "no-answer";
    json!({
        "id": NodeId(of.node_id).to_string(),
        "name": of.name,
        "verdict": verdict,
        "running_digest": hex(&of.running_digest),
        "state_digest": hex(&of.state_digest),
        "records": answered.then_some(of.records),
        "took_ms": answered.then_some(of.took_ms),
        "failure": (!answered).then_some(&of.failure),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_who_differs_and_who_is_silent() {
        let same = v1::Verified {
            name: "s1".into(),
            node_id: 1,
            verdict: Verdict::Same.into(),
            running_digest: vec![1; 32].into(),
            state_digest: vec![2; 32].into(),
            records: 7,
            took_ms: 3,
            failure: String::new(),
        };
        let silent = v1::Verified {
            node_id: 2,
            verdict: Verdict::NoAnswer.into(),
            failure: "gone".into(),
            ..Default::default()
        };
        let all = vec![same.clone(), silent];
        let one = report(&v1::VerifyReply { position: 9, super_nodes: vec![same] }, 1.0);
        assert_eq!((&one["same"], &one["position"]), (&json!(true), &json!(9)));
        assert_eq!(one["super_nodes"][0]["state_digest"], json!("02".repeat(32)));
        let both = report(&v1::VerifyReply { position: 9, super_nodes: all }, 1.0);
        assert_eq!(both["same"], json!(false));
        assert_eq!(both["super_nodes"][1]["failure"], json!("gone"));
        assert_eq!(both["super_nodes"][1]["records"], Value::Null);
        let none = report(&v1::VerifyReply::default(), 1.0);
        assert_eq!(none["same"], json!(false), "nobody was asked");
    }
}
