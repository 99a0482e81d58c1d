//! Goes on with a response whose object proves damaged on disk. The store has dropped the object by
//! then: it is fetched again like any other, from a peer or the origin, and the damaged chunk comes
//! from there if it is the chunk that the response began with.
//!
//! Invariant: what comes is held against the manifest of the object that is being sent; another
//! version never goes on with it.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use shoal_proto::ChunkHash;

use super::types::{BodyError, Fetched};
use super::{FetchRequest, Fetcher};

/// How a reader gets at what its own disk has lost.
pub(super) struct Healer {
    fetcher: Fetcher,
    request: FetchRequest,
}

impl Healer {
    /// For the response to `request`.
    pub(super) fn new(fetcher: Fetcher, request: FetchRequest) -> Self {
        // What was stored whole is to be had whole.
        let request = FetchRequest { range: None, whole: true, ..request };
        Self { fetcher, request }
    }

    /// The chunk with that hash, which lies at `range` of the object's body.
    ///
    /// # Errors
    /// When the object cannot be had again, or has another version now.
    pub(super) async fn chunk(
        &self,
        range: Range<u64>,
        hash: ChunkHash,
    ) -> Result<Bytes, BodyError> {
        let length = (range.end - range.start) as usize;
        // What this finds is read without another try: damage twice is a disk to be replaced.
        let mut request = self.request.clone();
        let found = self.fetcher.find(&mut request).await;
        let fetched = found.map(|found| found.fetched(&self.fetcher.inner, request, None));
        let object = match fetched {
            Ok(Fetched::Object(object)) => object,
            Ok(Fetched::Pass(_)) => return Err(other_version()),
            Err(error) => return Err(BodyError(error.to_string())),
        };
        let mut body = object.body(Some(range));
        let mut chunk = BytesMut::with_capacity(length);
        while let Some(piece) = body.next().await {
            let piece = piece?;
            if chunk.len() + piece.len() > length {
                return Err(other_version());
            }
            chunk.extend_from_slice(&piece);
        }
        let chunk = chunk.freeze();
        if ChunkHash::of(&chunk) == hash { Ok(chunk) } else { Err(other_version()) }
    }
}

fn other_version() -> BodyError {
    BodyError("it was damaged on disk, and has another version by now".to_owned())
}
