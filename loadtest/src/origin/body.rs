//! An object's bytes on their way out: generated slice by slice, paced, counted, and broken off
//! or held up where the request asked for it. No body is ever in memory as a whole.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use thiserror::Error;
use tokio::time::Sleep;

use super::{
    bucket::{Pacer, SLICE_MAX_BYTES},
    stats::Tally,
};
use crate::content::ContentReader;

/// Wait between the last byte and a deliberate cut, in which the connection sends what it holds.
pub const CUT_LINGER_MS: u64 = 50;

/// Why a body ended early.
#[derive(Debug, Error)]
pub enum BodyError {
    /// The query asked for it.
    #[error("cut off as the query asked")]
    Cut,
    /// The request's own body broke off while it was echoed.
    #[error("the request's body broke off: {0}")]
    Request(#[from] hyper::Error),
}

impl From<Infallible> for BodyError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Where a body of a known length is held up or broken off (PURE).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// Bytes that the head declares.
    pub length_bytes: u64,
    /// Break off after so many bytes.
    pub cut_bytes: Option<u64>,
    /// Pause after so many bytes, for so long.
    pub stall: Option<(u64, Duration)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Send(usize),
    Stall(Duration),
    Cut,
    End,
}

impl Script {
    fn next(&self, sent: u64, stalled: bool, slice_bytes: usize) -> Step {
        let stall = self.stall.filter(|(at, _)| !stalled && *at < self.length_bytes);
        let cut = self.cut_bytes.filter(|at| *at < self.length_bytes);
        match (stall, cut) {
            (Some((at, pause)), _) if sent >= at => return Step::Stall(pause),
            (_, Some(at)) if sent >= at => return Step::Cut,
            _ if sent >= self.length_bytes => return Step::End,
            _ => {}
        }
        let stops = [Some(self.length_bytes), cut, stall.map(|(at, _)| at)];
        let stop = stops.into_iter().flatten().min().unwrap_or(self.length_bytes);
        let room = usize::try_from(stop - sent).unwrap_or(usize::MAX);
        Step::Send(room.min(slice_bytes))
    }
}

/// The body of one reply; see the module.
#[derive(Debug)]
pub struct ObjectBody {
    reader: ContentReader,
    script: Script,
    pacer: Option<Arc<Pacer>>,
    tally: Tally,
    chunked: bool,
    sent: u64,
    stalled: bool,
    lingered: bool,
    /// Bytes that the pacer has granted for the end of the sleep.
    granted: Option<usize>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl ObjectBody {
    /// A body that reads `script.length_bytes` from `reader`. `chunked` hides its length.
    #[must_use]
    pub fn new(
        reader: ContentReader,
        script: Script,
        pacer: Option<Arc<Pacer>>,
        tally: Tally,
        chunked: bool,
    ) -> Self {
        Self {
            reader,
            script,
            pacer,
            tally,
            chunked,
            sent: 0,
            stalled: false,
            lingered: false,
            granted: None,
            sleep: None,
        }
    }

    fn wait(&mut self, pause: Duration) {
        self.sleep = Some(Box::pin(tokio::time::sleep(pause)));
    }

    /// True when the slice has to wait for its turn.
    fn must_wait(&mut self, bytes: usize) -> bool {
        let pause = self.pacer.as_ref().map_or(Duration::ZERO, |pacer| pacer.reserve(bytes));
        if pause.is_zero() {
            return false;
        }
        self.granted = Some(bytes);
        self.wait(pause);
        true
    }

    fn slice(&mut self, bytes: usize) -> Frame<Bytes> {
        let mut slice = BytesMut::zeroed(bytes);
        let len = self.reader.read(&mut slice);
        slice.truncate(len);
        self.sent += len as u64;
        self.tally.body_bytes(len);
        Frame::data(slice.freeze())
    }
}

impl Body for ObjectBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = self.get_mut();
        loop {
            if let Some(sleep) = body.sleep.as_mut() {
                ready!(sleep.as_mut().poll(context));
                body.sleep = None;
            }
            if let Some(bytes) = body.granted.take() {
                return Poll::Ready(Some(Ok(body.slice(bytes))));
            }
            let slice_bytes = body.pacer.as_ref().map_or(SLICE_MAX_BYTES, |p| p.slice_bytes());
            match body.script.next(body.sent, body.stalled, slice_bytes) {
                Step::Send(bytes) if body.must_wait(bytes) => {}
                Step::Send(bytes) => return Poll::Ready(Some(Ok(body.slice(bytes)))),
                Step::Stall(pause) => {
                    body.stalled = true;
                    body.wait(pause);
                }
                Step::Cut if body.lingered => return Poll::Ready(Some(Err(BodyError::Cut))),
                Step::Cut => {
                    body.lingered = true;
                    body.wait(Duration::from_millis(CUT_LINGER_MS));
                }
                Step::End => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.sent >= self.script.length_bytes
    }

    fn size_hint(&self) -> SizeHint {
        if self.chunked {
            return SizeHint::default();
        }
        SizeHint::with_exact(self.script.length_bytes - self.sent)
    }
}

/// Any other body, counted as it is sent. Its length stays known.
#[derive(Debug)]
pub struct Counted<B> {
    body: B,
    tally: Tally,
}

impl<B> Counted<B> {
    /// Counts `body` into `tally`.
    #[must_use]
    pub fn new(body: B, tally: Tally) -> Self {
        Self { body, tally }
    }
}

impl<B> Body for Counted<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let counted = self.get_mut();
        let frame = ready!(Pin::new(&mut counted.body).poll_frame(context));
        if let Some(data) = frame.as_ref().and_then(|f| f.as_ref().ok()).and_then(Frame::data_ref) {
            counted.tally.body_bytes(data.len());
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(script: Script) -> Vec<Step> {
        let (mut sent, mut stalled, mut steps) = (0, false, Vec::new());
        loop {
            let step = script.next(sent, stalled, 4);
            steps.push(step);
            match step {
                Step::Send(bytes) => sent += bytes as u64,
                Step::Stall(_) => stalled = true,
                Step::Cut | Step::End => return steps,
            }
        }
    }

    const PAUSE: Duration = Duration::from_millis(5);

    #[test]
    fn a_plain_body_is_sent_in_slices() {
        let script = Script { length_bytes: 10, ..Script::default() };
        assert_eq!(steps(script), [Step::Send(4), Step::Send(4), Step::Send(2), Step::End]);
        assert_eq!(steps(Script::default()), [Step::End]);
    }

    #[test]
    fn stalls_and_cuts_come_at_their_byte() {
        let stall = Some((5, PAUSE));
        let script = Script { length_bytes: 10, cut_bytes: Some(7), stall };
        let wanted = [Step::Send(4), Step::Send(1), Step::Stall(PAUSE), Step::Send(2), Step::Cut];
        assert_eq!(steps(script), wanted);
        let script = Script { length_bytes: 10, cut_bytes: Some(0), stall: None };
        assert_eq!(steps(script), [Step::Cut]);
    }

    #[test]
    fn what_lies_beyond_the_end_never_happens() {
        let stall = Some((3, PAUSE));
        let script = Script { length_bytes: 3, cut_bytes: Some(3), stall };
        assert_eq!(steps(script), [Step::Send(3), Step::End]);
    }
}
