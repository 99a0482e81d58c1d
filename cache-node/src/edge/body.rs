//! Bodies to and from clients.
//!
//! Invariants: a body of known length ends in an error unless exactly that many bytes came; bytes
//! are counted as they are handed to the connection; an upload is read only as fast as it is
//! forwarded, and its silence is limited.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, TRAILER};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use prometheus::IntCounter;
use tokio::time::Sleep;

use super::access::Pending;
use super::stream::{Abort, Turn};
use crate::fetch::{BodyError, BodyStream, RequestBody, Trailers};

/// A response's body.
pub(super) struct ClientBody {
    source: Source,
    /// Bytes yet to come, where known.
    left: Option<u64>,
    sent: Option<IntCounter>,
    /// For a body that nothing but the connection's end delimits.
    abort: Option<Abort>,
    log: Option<Box<Pending>>,
    /// For a client that takes what may come after.
    trailers: Option<Trailers>,
    turn: Option<Turn>,
}

enum Source {
    Empty,
    Whole(Bytes),
    Stream(BodyStream),
}

impl ClientBody {
    /// No body.
    pub(super) fn empty() -> Self {
        Self::of(Source::Empty, Some(0))
    }

    /// A short text made here.
    pub(super) fn text(text: String) -> Self {
        Self::whole(text.into())
    }

    /// All of a body at once.
    pub(super) fn whole(bytes: Bytes) -> Self {
        let length = bytes.len() as u64;
        Self::of(Source::Whole(bytes), Some(length))
    }

    fn of(source: Source, left: Option<u64>) -> Self {
        Self { source, left, sent: None, abort: None, log: None, trailers: None, turn: None }
    }

    /// `length` bytes, or as many as come.
    pub(super) fn stream(stream: BodyStream, length: Option<u64>) -> Self {
        Self::of(Source::Stream(stream), length)
    }

    /// With what comes after it, if anything does.
    pub(super) fn trailed(self, trailers: Trailers) -> Self {
        Self { trailers: Some(trailers), ..self }
    }

    /// Counts what is sent.
    pub(super) fn counted(mut self, sent: IntCounter) -> Self {
        self.sent = Some(sent);
        self
    }

    /// Has a line in the access log when it ends, or is dropped.
    pub(super) fn logged(mut self, mut pending: Pending) -> Self {
        pending.entry.whole = self.is_end_stream();
        self.log = Some(Box::new(pending));
        self
    }

    /// For HTTP/1.0: a failure resets the connection where its end would pass for the body's.
    pub(super) fn aborting(mut self, abort: Abort) -> Self {
        self.abort = self.left.is_none().then_some(abort);
        self
    }

    /// Its end is that of its request's turn on the connection.
    pub(super) fn in_turn(mut self, turn: Turn) -> Self {
        self.turn = Some(turn);
        self
    }

    fn break_off(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.source = Source::Empty;
        if let Some(abort) = &self.abort {
            abort.set();
        }
        tracing::info!(%error, "a response broke off, cutting its connection");
        Poll::Ready(Some(Err(error)))
    }

    fn forward(&mut self, bytes: Bytes) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(left) = &mut self.left {
            let Some(rest) = left.checked_sub(bytes.len() as u64) else {
                return self.break_off(BodyError("longer than announced".to_owned()));
            };
            *left = rest;
        }
        if let Some(sent) = &self.sent {
            sent.inc_by(bytes.len() as u64);
        }
        let ends = self.left == Some(0);
        if let Some(pending) = &mut self.log {
            pending.entry.bytes += bytes.len() as u64;
            pending.entry.whole = ends;
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let polled = match &mut this.source {
            Source::Empty => None,
            Source::Whole(whole) => {
                let whole = std::mem::take(whole);
                this.source = Source::Empty;
                Some(Ok(whole))
            }
            Source::Stream(stream) => ready!(stream.as_mut().poll_next(cx)),
        };
        match polled {
            Some(Ok(bytes)) => this.forward(bytes),
            Some(Err(error)) => this.break_off(error),
            None if this.left.is_some_and(|left| left > 0) => {
                this.break_off(BodyError("shorter than announced".to_owned()))
            }
            None => {
                if let Some(pending) = &mut this.log {
                    pending.entry.whole = true;
                }
                let trailers = this.trailers.take().and_then(|trailers| trailers.take());
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Empty) || (self.left == Some(0) && self.trailers.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A client's body, for its origin.
pub(super) fn upload(body: Incoming, headers: &HeaderMap, silence_max: Duration) -> RequestBody {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let trailers = Trailers::new(headers.get(TRAILER).cloned());
    let stream = Upload { body, silence_max, silence: None, trailers: trailers.clone() };
    RequestBody { length, stream: Box::pin(stream), trailers }
}

struct Upload {
    body: Incoming,
    silence_max: Duration,
    /// Armed while the client is waited for.
    silence: Option<Pin<Box<Sleep>>>,
    trailers: Trailers,
}

impl Stream for Upload {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
                let silence_max = this.silence_max;
                let timer =
                    this.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(silence_max)));
                ready!(timer.as_mut().poll(cx));
                let reason = format!("the client was silent for {} ms", silence_max.as_millis());
                return Poll::Ready(Some(Err(BodyError(reason))));
            };
            this.silence = None;
            match frame {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(BodyError(error.to_string())))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => return Poll::Ready(Some(Ok(bytes))),
                    Err(frame) => {
                        frame.into_trailers().into_iter().for_each(|come| this.trailers.put(come));
                    }
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};
    use http_body_util::BodyExt;

    use super::*;

    fn body(parts: &'static [&'static str], length: Option<u64>) -> ClientBody {
        let parts =
            futures::stream::iter(parts).map(|part| Ok(Bytes::from_static(part.as_bytes())));
        ClientBody::stream(Box::pin(parts), length)
    }

    fn outcome(body: ClientBody) -> Result<Bytes, BodyError> {
        body.collect().now_or_never().unwrap().map(|whole| whole.to_bytes())
    }

    #[test]
    fn a_body_is_as_long_as_announced_or_fails() {
        for (length, whole) in [(Some(5), true), (None, true), (Some(4), false), (Some(6), false)] {
            assert_eq!(outcome(body(&["hel", "lo"], length)).is_ok(), whole, "{length:?}");
        }
        assert!(outcome(body(&[], Some(1))).is_err());
        assert_eq!(outcome(body(&[], Some(0))), Ok(Bytes::new()));
    }

    #[test]
    fn what_is_handed_over_is_counted() {
        let sent = IntCounter::new("sent", "sent").unwrap();
        let mut started = body(&["hel", "lo"], Some(5)).counted(sent.clone());
        started.frame().now_or_never().unwrap().unwrap().unwrap();
        assert_eq!((sent.get(), started.is_end_stream()), (3, false));
        started.frame().now_or_never().unwrap().unwrap().unwrap();
        assert_eq!((sent.get(), started.is_end_stream()), (5, true));
    }
}
