//! Several ranges of an object as one body: `multipart/byteranges` (RFC 9110 section 14.6).
//!
//! Invariants: the length is known before the first byte is sent; parts are read one after the
//! other, as the client takes them.

use std::ops::Range;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use http::HeaderValue;

use crate::clock;
use crate::fetch::{BodyStream, FetchedObject};
use crate::policy::range::content_range;

/// Random bytes of a boundary: nobody can put it into a body beforehand.
const BOUNDARY_BYTES: usize = 16;

/// A body of several parts.
pub(super) struct Multipart {
    /// Its `Content-Type`.
    pub(super) content_type: String,
    /// Its length in bytes.
    pub(super) length: u64,
    /// Its bytes.
    pub(super) body: BodyStream,
}

impl Multipart {
    /// The `ranges` of an object of `length` bytes; `None` when there is no randomness to be had.
    pub(super) fn new(
        object: FetchedObject,
        (ranges, length): (Vec<Range<u64>>, u64),
        part_type: Option<&HeaderValue>,
    ) -> Option<Self> {
        let mut random = [0; BOUNDARY_BYTES];
        clock::random(&mut random).ok()?;
        let boundary = format!("shoal-{:032x}", u128::from_be_bytes(random));
        let parts: Vec<_> = ranges
            .into_iter()
            .enumerate()
            .map(|(n, range)| (part_head(n == 0, &boundary, part_type, (&range, length)), range))
            .collect();
        let tail = Bytes::from(format!("\r\n--{boundary}--\r\n"));
        let sized = parts.iter().map(|(head, range)| head.len() as u64 + range.end - range.start);
        let length = sized.sum::<u64>() + tail.len() as u64;
        let bodies = stream::iter(parts).flat_map(move |(head, range)| {
            stream::iter([Ok(head)]).chain(object.body(Some(range)))
        });
        let body = Box::pin(bodies.chain(stream::iter([Ok(tail)])));
        let content_type = format!("multipart/byteranges; boundary={boundary}");
        Some(Self { content_type, length, body })
    }
}

fn part_head(
    first: bool,
    boundary: &str,
    part_type: Option<&HeaderValue>,
    (range, length): (&Range<u64>, u64),
) -> Bytes {
    let mut head = Vec::with_capacity(256);
    head.extend_from_slice(if first { b"--" } else { b"\r\n--" });
    head.extend_from_slice(boundary.as_bytes());
    if let Some(part_type) = part_type {
        head.extend_from_slice(b"\r\nContent-Type: ");
        head.extend_from_slice(part_type.as_bytes());
    }
    head.extend_from_slice(b"\r\nContent-Range: ");
    head.extend_from_slice(content_range(range, length).as_bytes());
    head.extend_from_slice(b"\r\n\r\n");
    Bytes::from(head)
}
