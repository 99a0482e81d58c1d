//! What nodes sent to one another during a run, by their own account: how evenly the load of uploads
//! is spread over them.

use serde::Serialize;

use crate::{scenario::EdgeUrl, tier::metrics};

/// The sample that counts what a node sends to others.
const SENT: &str = "shoal_peer_bytes_total{direction=\"out\"}";

/// Bytes sent to other nodes, by node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Uploads {
    /// In the order in which the nodes were named.
    pub bytes: Vec<u64>,
    /// The busiest node's by the mean; none when nothing was sent.
    pub busiest_by_mean: Option<f64>,
}

/// What every node has sent so far; none when one does not say.
pub async fn read(admins: &[EdgeUrl]) -> Option<Vec<u64>> {
    let asked = admins.iter().map(|admin| metrics::counter(admin.authority(), SENT));
    futures::future::join_all(asked).await.into_iter().collect()
}

impl Uploads {
    /// What was sent between two readings of the same nodes (PURE).
    #[must_use]
    pub fn between(before: &[u64], after: &[u64]) -> Self {
        let sent = |(before, after): (&u64, &u64)| after.saturating_sub(*before);
        let bytes: Vec<u64> = before.iter().zip(after).map(sent).collect();
        let mean = bytes.iter().sum::<u64>() as f64 / bytes.len().max(1) as f64;
        let busiest = bytes.iter().copied().max().unwrap_or(0) as f64;
        Self { bytes, busiest_by_mean: (mean > 0.0).then(|| busiest / mean) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_is_held_against_the_mean() {
        let uploads = Uploads::between(&[5, 5, 5], &[15, 25, 35]);
        assert_eq!((uploads.bytes, uploads.busiest_by_mean), (vec![10, 20, 30], Some(1.5)));
        assert_eq!(Uploads::between(&[5], &[5]).busiest_by_mean, None, "nothing was sent");
        assert_eq!(Uploads::between(&[], &[]).busiest_by_mean, None);
    }
}
