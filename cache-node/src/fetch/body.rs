//! Body streams: of stored objects and of growing ones. A stream that cannot reach its end ends in
//! an error, and never looks finished.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use tokio::sync::watch;

use super::heal::Healer;
use super::page::Pager;
use super::types::{BodyError, BodyStream};
use crate::store::{StoreError, StoredObject};
use crate::transfer::{End, Live, Progress};

/// Chunks read ahead of the client.
const READ_AHEAD_CHUNKS: usize = 2;

/// Where chunks come from that a stored object should have, or may have not.
pub(super) struct Backup {
    /// Gets what the disk has lost.
    pub(super) healer: Option<Healer>,
    /// Gets what is not here.
    pub(super) pager: Pager,
}

/// The bytes `range` of a stored object; all of them for `None`. What is not here of it, `backup`
/// gets elsewhere.
pub(super) fn stored(
    object: Arc<StoredObject>,
    backup: Arc<Backup>,
    range: Option<Range<u64>>,
) -> BodyStream {
    let size = u64::from(object.manifest().head().chunk_size);
    let range = range.unwrap_or(0..object.manifest().length());
    if range.is_empty() {
        return Box::pin(stream::empty());
    }
    let chunks = (range.start / size)..=((range.end - 1) / size);
    let end = (*chunks.end() + 1) as u32;
    let pieces = stream::iter(chunks).map(move |index| {
        let (object, backup, range) = (object.clone(), backup.clone(), range.clone());
        async move {
            let data = whole_chunk(&object, &backup, (index as u32, end)).await?;
            Ok(cut(&data, index * size, &range))
        }
    });
    Box::pin(pieces.buffered(READ_AHEAD_CHUNKS))
}

async fn whole_chunk(
    object: &StoredObject,
    backup: &Backup,
    (index, end): (u32, u32),
) -> Result<Bytes, BodyError> {
    let damaged = match object.read_chunk(index).await {
        Ok((data, _)) => return Ok(data),
        Err(StoreError::NoChunk { .. }) => return backup.pager.chunk(object, (index, end)).await,
        Err(error) => error,
    };
    let manifest = object.manifest();
    let start = u64::from(index) * u64::from(manifest.head().chunk_size);
    let range = start..start + u64::from(manifest.chunk_length(index));
    match (damaged, &backup.healer, manifest.hash(index)) {
        (StoreError::Corrupt { .. }, Some(healer), Some(hash)) => healer.chunk(range, hash).await,
        (damaged, ..) => Err(BodyError(damaged.to_string())),
    }
}

/// The bytes `range` of a growing object, as they come; all of them for `None`.
pub(super) fn live(live: Arc<Live>, range: Option<Range<u64>>) -> BodyStream {
    let range = range.unwrap_or(0..u64::MAX);
    let reader = Reader { watched: live.watch(), offset: range.start, end: range.end, live };
    Box::pin(stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(reader))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    }))
}

struct Reader {
    live: Arc<Live>,
    watched: watch::Receiver<Progress>,
    offset: u64,
    end: u64,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            // The end is read first: whatever it finished is seen by the checks below it.
            let end = self.watched.borrow_and_update().end.clone();
            if let Some(End::Done(object)) = &end {
                self.end = self.end.min(object.manifest().length());
            }
            if self.offset >= self.end {
                return Ok(None);
            }
            if let Some(bytes) = self.available().await? {
                self.offset += bytes.len() as u64;
                return Ok(Some(bytes));
            }
            match end {
                Some(End::Done(_)) => return Err(BodyError("chunks are missing".to_owned())),
                Some(End::Failed(reason)) => return Err(BodyError(reason)),
                None => {}
            }
            if self.watched.changed().await.is_err() {
                return Err(BodyError("the fill was abandoned".to_owned()));
            }
        }
    }

    async fn available(&self) -> Result<Option<Bytes>, BodyError> {
        let size = u64::from(self.live.head().chunk_size);
        let index = (self.offset / size) as u32;
        let start = u64::from(index) * size;
        let wanted = self.offset..self.end;
        if self.live.has_chunk(index) {
            let data = self.live.read_chunk(index).await.map_err(|e| BodyError(e.to_string()))?;
            return Ok(Some(cut(&data, start, &wanted)).filter(|bytes| !bytes.is_empty()));
        }
        self.live.reads(index);
        let from = (self.offset - start) as usize;
        Ok(self.live.tail_from(index, from).map(|tail| cut(&tail, self.offset, &wanted)))
    }
}

/// The part of `data`, which begins at `start`, that lies within `range`.
fn cut(data: &Bytes, start: u64, range: &Range<u64>) -> Bytes {
    let length = data.len() as u64;
    let from = range.start.saturating_sub(start).min(length);
    let to = range.end.saturating_sub(start).min(length);
    data.slice(from as usize..to.max(from) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_to_the_range() {
        let data = Bytes::from_static(b"0123456789");
        assert_eq!(cut(&data, 100, &(0..1000)), "0123456789");
        assert_eq!(cut(&data, 100, &(103..106)), "345");
        assert_eq!(cut(&data, 100, &(95..101)), "0");
        assert_eq!(cut(&data, 100, &(200..300)), "");
    }
}
