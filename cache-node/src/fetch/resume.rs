//! Goes on with an object whose filler was lost. What comes after the last chunk that it named is
//! asked of the origin; what is missing before that, mates of the swarm have, and what none of them
//! has is asked of the origin too, alone.

use std::ops::Range;
use std::sync::Arc;

use super::job::{Job, Step};
use shoal_proto::ObjectHead;

use crate::directory::Lease;
use crate::policy::resume::{self, Continues};
use crate::transfer::{FillEntry, Live};

impl Job {
    /// Continues an object: `Range` with `If-Range` where the version can be named; otherwise all
    /// of it again, each chunk held against what is known of it.
    pub(super) async fn resume(
        &mut self,
        entry: &FillEntry,
        lease: Option<Lease>,
        live: Arc<Live>,
    ) -> Step {
        self.inner.metrics.fills_resumed.inc();
        live.take_over(lease.map(|lease| lease.id));
        let known = u64::from(live.known_in_order()) * u64::from(live.head().chunk_size);
        let end = live.head().length.unwrap_or(u64::MAX);
        let rest = known.min(end)..end;
        entry.live(live.clone());
        let (poured, mended) =
            futures::join!(self.fetch_part(&live, rest.clone()), self.mend(&live, known.min(end)));
        let poured = match mended {
            Ok(()) => poured,
            Err(reason) => Err(reason),
        };
        self.finish_poured(&live, poured, lease).await
    }

    /// Gathers what is missing before `known`.
    async fn mend(&self, live: &Arc<Live>, known: u64) -> Result<(), String> {
        let size = u64::from(live.head().chunk_size);
        let chunks = u32::try_from(known.div_ceil(size)).unwrap_or(u32::MAX);
        if holes(live, chunks).is_empty() {
            return Ok(());
        }
        if let Err(error) = self.inner.gatherer.mend(live, chunks).await {
            tracing::debug!(%error, "no mate has what the lost filler had");
        }
        for hole in holes(live, chunks) {
            let part = u64::from(hole.start) * size..(u64::from(hole.end) * size).min(known);
            self.fetch_part(live, part).await?;
        }
        Ok(())
    }

    /// Fetches a part of the object from the origin; where it ended.
    pub(super) async fn fetch_part(
        &self,
        live: &Arc<Live>,
        part: Range<u64>,
    ) -> Result<u64, String> {
        if part.is_empty() {
            return Ok(part.end);
        }
        // A part of a larger whole lies elsewhere there.
        let (whole, within) = match &self.request.part {
            None => (ObjectHead::clone(live.head()), part.clone()),
            Some(of) => {
                let start = of.range().start;
                let within = start + part.start..start.saturating_add(part.end);
                (of.whole(ObjectHead::clone(live.head())), within)
            }
        };
        let asked = self.ask(resume::headers(&whole, &within)).await;
        let response = asked.map_err(|error| error.to_string())?;
        let answer = (response.status, &response.headers, response.length);
        let from = match resume::continues(&whole, &within, answer) {
            Continues::AtOffset => part,
            Continues::FromStart if self.request.part.is_none() => 0..u64::MAX,
            Continues::FromStart | Continues::No => {
                return Err("the origin has another version of the object now".to_owned());
            }
        };
        self.pour(live, response.body, from).await
    }
}

/// Runs of chunks below `count` that are not here.
fn holes(live: &Live, count: u32) -> Vec<Range<u32>> {
    let mut holes: Vec<Range<u32>> = Vec::new();
    for chunk in (0..count).filter(|chunk| !live.has_chunk(*chunk)) {
        match holes.last_mut() {
            Some(last) if last.end == chunk => last.end += 1,
            _ => holes.push(chunk..chunk + 1),
        }
    }
    holes
}
