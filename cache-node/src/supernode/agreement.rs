//! Whether this super-node's index is the tier's: running digests are compared with the other
//! voters' again and again. A replica that disagrees with most of them serves nobody any more, takes
//! one of theirs, and ends: the next start begins with what it took.
//!
//! Invariant: only a majority of the voters says what is right. Where there is none, as between two,
//! the difference is reported and nobody gives up its state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::future::join_all;
use shoal_proto::NodeId;

use super::index::DigestAt;
use super::tier::{Tier, ms};

/// Between two tries to take another's state, in milliseconds.
const ABANDON_PAUSE_MS: u64 = 500;

/// Looks again and again, for as long as it is polled.
pub(super) async fn run(tier: Arc<Tier>) {
    let mut disputed = None;
    loop {
        tokio::time::sleep(ms(tier.timing.agree_every_ms())).await;
        let voters = tier.raft.state().voters;
        let others = voters.iter().copied().filter(|id| *id != tier.me());
        let asked = others.map(|id| {
            let raft = tier.raft.clone();
            async move { raft.digests_of(id).await.ok().map(|digests| (id, digests)) }
        });
        let theirs: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        match judge(&tier.index.digests(), &theirs, voters.len()) {
            Verdict::Agrees => disputed = None,
            Verdict::Disputed { position } => {
                if disputed.is_none() {
                    tier.metrics.digest_mismatches.inc();
                    tracing::error!(
                        position,
                        "super-nodes' indexes differ, and no majority says whose is right: compare \
                         them with `shoal verify`, and replace the one that is wrong"
                    );
                }
                disputed = Some(position);
            }
            Verdict::Differs { position, right } => return give_up(&tier, position, &right).await,
        }
    }
}

/// What comparing digests came to.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nobody whose digests can be compared has others.
    Agrees,
    /// Some have others, and too few for a majority.
    Disputed {
        /// The first position known to differ.
        position: u64,
    },
    /// Most voters have others.
    Differs {
        /// The first position known to differ.
        position: u64,
        /// Those who agree with one another.
        right: Vec<NodeId>,
    },
}

/// Compares digests as of the same positions: PURE.
fn judge(mine: &[DigestAt], theirs: &[(NodeId, Vec<DigestAt>)], voters: usize) -> Verdict {
    let mut verdict = Verdict::Agrees;
    for at in mine {
        let mut by_digest: BTreeMap<_, Vec<NodeId>> = BTreeMap::new();
        for (id, digests) in theirs {
            if let Ok(found) = digests.binary_search_by_key(&at.position, |other| other.position)
                && let Some(other) = digests.get(found).filter(|other| other.digest != at.digest)
            {
                by_digest.entry(other.digest).or_default().push(*id);
            }
        }
        if let Some((_, right)) = by_digest.iter().find(|(_, ids)| 2 * ids.len() > voters) {
            return Verdict::Differs { position: at.position, right: right.clone() };
        }
        if !by_digest.is_empty() && verdict == Verdict::Agrees {
            verdict = Verdict::Disputed { position: at.position };
        }
    }
    verdict
}

async fn give_up(tier: &Arc<Tier>, position: u64, right: &[NodeId]) {
    tier.metrics.digest_mismatches.inc();
    tracing::error!(
        position,
        "this super-node's index differs from the tier's: it serves nobody, takes another's and \
         has to be started again"
    );
    tier.diverged.store(position, Ordering::Relaxed);
    tier.sessions.end_all();
    if let Err(error) = tier.raft.transfer_leader_away().await {
        tracing::warn!(%error, "leadership could not be handed on");
    }
    for from in right.iter().cycle() {
        match tier.raft.abandon_state(*from).await {
            Ok(()) => break,
            Err(error) => tracing::warn!(%from, %error, "its state could not be taken yet"),
        }
        tokio::time::sleep(ms(ABANDON_PAUSE_MS)).await;
    }
    tracing::error!("this super-node ends: its next start begins with the tier's index");
    tier.tasks.stop();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(of: &[(u64, u8)]) -> Vec<DigestAt> {
        of.iter().map(|(position, n)| DigestAt { position: *position, digest: [*n; 32] }).collect()
    }

    fn verdict(theirs: &[&[(u64, u8)]], voters: usize) -> Verdict {
        let mine = digests(&[(64, 1), (128, 2), (130, 3)]);
        let theirs: Vec<_> = (2..).map(NodeId).zip(theirs.iter().map(|of| digests(of))).collect();
        judge(&mine, &theirs, voters)
    }

    #[test]
    fn a_majority_says_what_is_right() {
        let differs = |position, ids: &[u64]| Verdict::Differs {
            position,
            right: ids.iter().copied().map(NodeId).collect(),
        };
        assert_eq!(verdict(&[&[(64, 1), (128, 9)], &[(128, 9)]], 3), differs(128, &[2, 3]));
        assert_eq!(
            verdict(&[&[(64, 1), (130, 9)], &[(128, 9), (130, 9)]], 3),
            differs(130, &[2, 3])
        );
        let five = [&[(64, 9)][..], &[(64, 8)], &[(64, 9)], &[(64, 9)]];
        assert_eq!(verdict(&five, 5), differs(64, &[2, 4, 5]));
    }

    #[test]
    fn without_a_majority_it_is_a_dispute() {
        let disputed = |position| Verdict::Disputed { position };
        assert_eq!(verdict(&[&[(128, 9)], &[(128, 2)]], 3), disputed(128), "the other is wrong");
        assert_eq!(verdict(&[&[(128, 9)], &[(128, 8)]], 3), disputed(128));
        assert_eq!(verdict(&[&[(64, 9)]], 2), disputed(64));
        assert_eq!(verdict(&[&[(64, 9)]], 3), disputed(64), "the third does not answer");
    }

    #[test]
    fn positions_that_only_one_remembers_say_nothing() {
        assert_eq!(verdict(&[&[(64, 1), (192, 7)], &[(129, 5)], &[]], 3), Verdict::Agrees);
        assert_eq!(verdict(&[], 1), Verdict::Agrees);
    }
}
