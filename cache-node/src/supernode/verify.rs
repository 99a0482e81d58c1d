//! An audit of the whole tier: one command in the log, at whose position every super-node hashes its
//! index, and the comparison of what they find.

use std::collections::BTreeMap;

use futures::future::join_all;
use shoal_proto::limits::VERIFY_DEADLINE_MS;
use shoal_proto::wire::v1::{self, Verdict, command::Command};
use shoal_proto::{NodeId, RpcError};

use super::index::{AuditState, Audited};
use super::tier::{Tier, bug, ms};
use crate::clock;

/// Between two questions whether one is through, in milliseconds.
const POLL_MS: u64 = 100;

/// Audits every super-node and compares.
///
/// # Errors
/// `Retry` when the audit could not be committed in time.
pub(super) async fn verify(tier: &Tier) -> Result<v1::VerifyReply, RpcError> {
    let id = clock::random_u64().map_err(bug)?;
    let outcome = tier.submit(Command::Audit(v1::Audit { id })).await?;
    let until_ms = tier.now_ms() + VERIFY_DEADLINE_MS;
    let state = tier.raft.state();
    let all = state.voters.iter().chain(&state.learners);
    let asked = all.map(|node| async move { (*node, result(tier, *node, id, until_ms).await) });
    let found = join_all(asked).await;
    let name = |node| tier.index.member(node).map(|member| member.name).unwrap_or_default();
    let mut super_nodes = compare(found);
    super_nodes.iter_mut().for_each(|one| one.name = name(NodeId(one.node_id)));
    Ok(v1::VerifyReply { position: outcome.position, super_nodes })
}

async fn result(tier: &Tier, node: NodeId, id: u64, until_ms: u64) -> Result<Audited, String> {
    loop {
        let why = match tier.raft.audit_of(node, id).await {
            Ok(AuditState::Done(found)) => return Ok(found),
            Ok(AuditState::Failed(why)) => return Err(why),
            Ok(AuditState::Running) => "it is not through yet".to_owned(),
            Err(error) => error.message,
        };
        if tier.now_ms() >= until_ms {
            return Err(why);
        }
        tokio::time::sleep(ms(POLL_MS)).await;
    }
}

/// Says of each whether it has what most have: PURE. Where no more than half agree, nobody is right.
fn compare(found: Vec<(NodeId, Result<Audited, String>)>) -> Vec<v1::Verified> {
    let mut alike: BTreeMap<_, usize> = BTreeMap::new();
    let digests = |found: &Audited| (found.running, found.state);
    for found in found.iter().filter_map(|(_, found)| found.as_ref().ok()) {
        *alike.entry(digests(found)).or_default() += 1;
    }
    let answered: usize = alike.values().sum();
    let right = alike.into_iter().find(|(_, count)| 2 * count > answered);
    let right = right.map(|(digests, _)| digests);
    let verified = |(node, found): (NodeId, Result<Audited, String>)| {
        let empty = v1::Verified { node_id: node.0, ..Default::default() };
        match found {
            Err(failure) => v1::Verified { failure, verdict: Verdict::NoAnswer.into(), ..empty },
            Ok(found) => {
                let same = right == Some(digests(&found));
                let verdict = if same { Verdict::Same } else { Verdict::Different };
                v1::Verified {
                    verdict: verdict.into(),
                    running_digest: bytes::Bytes::copy_from_slice(&found.running),
                    state_digest: bytes::Bytes::copy_from_slice(&found.state),
                    records: found.records,
                    took_ms: found.took_ms,
                    ..empty
                }
            }
        }
    };
    found.into_iter().map(verified).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_odd_one_out_is_named() {
        let found = |state| {
            let (running, state) = ([1; 32], [state; 32]);
            Ok(Audited { position: 9, running, state, records: 4, took_ms: 2 })
        };
        let verdicts = |found: Vec<Result<Audited, String>>| {
            let found = (1..).map(NodeId).zip(found).collect();
            compare(found).iter().map(v1::Verified::verdict).collect::<Vec<_>>()
        };
        use Verdict::{Different, NoAnswer, Same};
        assert_eq!(verdicts(vec![found(1), found(1), found(2)]), [Same, Same, Different]);
        let silent = || Err("no answer".to_owned());
        assert_eq!(verdicts(vec![found(1), found(1), silent()]), [Same, Same, NoAnswer]);
        assert_eq!(verdicts(vec![found(1), found(2), silent()]), [Different, Different, NoAnswer]);
        assert_eq!(verdicts(vec![found(1)]), [Same]);
    }
}
