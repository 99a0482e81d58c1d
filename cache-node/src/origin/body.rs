//! Bodies to and from origins.
//!
//! Invariants: a received body ends without error only when it is as long as was declared; silence
//! has a limit; nothing is read ahead of the reader.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::Stream;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;

use super::trailers::Trailers;
use crate::clock;
use crate::metrics::OriginMetrics;

/// Body bytes, in order.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

/// Why a body broke off.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the body broke off: {0}")]
pub struct BodyError(pub String);

/// The body of a request.
pub struct RequestBody {
    /// Its length in bytes, where declared.
    pub length: Option<u64>,
    /// Its bytes.
    pub stream: BodyStream,
    /// What may come after them.
    pub trailers: Trailers,
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestBody").field("length", &self.length).finish_non_exhaustive()
    }
}

/// When an upload last made progress.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Arc<Mutex<Option<Instant>>>);

impl Progress {
    pub(super) fn last(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn made(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock::monotonic());
    }
}

/// A request's body on its way out.
pub(super) struct SendBody {
    stream: Option<BodyStream>,
    left: Option<u64>,
    trailers: Trailers,
    progress: Progress,
}

impl SendBody {
    pub(super) fn empty() -> Self {
        let trailers = Trailers::default();
        Self { stream: None, left: Some(0), trailers, progress: Progress::default() }
    }

    pub(super) fn new(body: RequestBody, progress: Progress) -> Self {
        let RequestBody { length, stream, trailers } = body;
        Self { stream: Some(stream), left: length, trailers, progress }
    }
}

impl Body for SendBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        let polled = std::task::ready!(stream.as_mut().poll_next(cx));
        self.progress.made();
        let Some(read) = polled else {
            self.stream = None;
            return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        };
        Poll::Ready(Some(read.and_then(|bytes| {
            if let Some(left) = &mut self.left {
                *left = left
                    .checked_sub(bytes.len() as u64)
                    .ok_or_else(|| BodyError("longer than declared".to_owned()))?;
            }
            Ok(Frame::data(bytes))
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A response's body on its way in.
pub(super) struct OriginBody {
    incoming: Option<Incoming>,
    left: Option<u64>,
    silence_max: Duration,
    /// Armed while the origin is waited for.
    silence: Option<Pin<Box<Sleep>>>,
    metrics: OriginMetrics,
    trailers: Trailers,
    _slot: OwnedSemaphorePermit,
}

impl OriginBody {
    /// `length`: how many bytes must come, where known.
    pub(super) fn new(
        incoming: Incoming,
        length: Option<u64>,
        silence_max: Duration,
        metrics: OriginMetrics,
        slot: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            incoming: Some(incoming),
            left: length,
            silence_max,
            silence: None,
            metrics,
            trailers: Trailers::default(),
            _slot: slot,
        }
    }

    /// The same, and what comes after it goes there.
    pub(super) fn with_trailers(self, trailers: Trailers) -> Self {
        Self { trailers, ..self }
    }

    fn break_off(&mut self, reason: String) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.incoming = None;
        self.metrics.failures.inc();
        Poll::Ready(Some(Err(BodyError(reason))))
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let silence_max = self.silence_max;
        let timer = self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(silence_max)));
        timer.as_mut().poll(cx)
    }
}

impl Stream for OriginBody {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
            let Poll::Ready(frame) = Pin::new(incoming).poll_frame(cx) else {
                std::task::ready!(this.poll_silence(cx));
                let limit_ms = this.silence_max.as_millis();
                return this.break_off(format!("the origin was silent for {limit_ms} ms"));
            };
            this.silence = None;
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return this.break_off(super::chain(&error)),
                None if this.left.is_some_and(|left| left > 0) => {
                    let left = this.left.unwrap_or(0);
                    return this.break_off(format!("the origin left {left} bytes out"));
                }
                None => {
                    this.incoming = None;
                    return Poll::Ready(None);
                }
            };
            let bytes = match frame.into_data() {
                Ok(bytes) => bytes,
                Err(frame) => {
                    frame.into_trailers().into_iter().for_each(|come| this.trailers.put(come));
                    continue;
                }
            };
            if bytes.is_empty() {
                continue;
            }
            if let Some(left) = &mut this.left {
                let Some(rest) = left.checked_sub(bytes.len() as u64) else {
                    return this.break_off("the origin sent more than it declared".to_owned());
                };
                *left = rest;
            }
            this.metrics.bytes.inc_by(bytes.len() as u64);
            return Poll::Ready(Some(Ok(bytes)));
        }
    }
}
