//! Replies with objects: the head from the request, the object and the knobs; the body streams.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, Response, StatusCode, header, response::Builder};
use http_body_util::BodyExt;

use super::{
    State,
    body::{ObjectBody, Script},
    knobs::Knobs,
    pages::{self, Reply},
    select::{Selection, Validators, select},
    stats::Tally,
};
use crate::{clock, content::ObjectName};

/// Last-Modified of every object without a version: 14 November 2023, 22:13:20 GMT.
pub const LAST_MODIFIED_UNIX_S: u64 = 1_700_000_000;

/// Versions have other dates, spread over the year that follows.
const VERSION_SPREAD_S: u32 = 365 * 24 * 3600;

/// An object as one request asks for it.
#[derive(Debug)]
pub struct Asked<'a> {
    /// Which object.
    pub object: ObjectName,
    /// How to bend the reply.
    pub knobs: Knobs,
    /// GET or HEAD.
    pub method: &'a Method,
    /// The request's headers.
    pub headers: &'a HeaderMap,
}

/// Answers GET and HEAD of an object.
///
/// # Errors
/// When a knob's text makes no valid header.
pub fn reply(state: &State, asked: &Asked<'_>, tally: Tally) -> Result<Reply, http::Error> {
    let Asked { object, knobs, method, headers } = asked;
    let size = object.size_bytes();
    let validators = (!knobs.no_validators).then(|| Validators {
        etag: state.content.etag_of(object),
        last_modified: last_modified(object),
    });
    let selection = match knobs.status {
        Some(_) => Selection::Whole,
        None => select(method, headers, validators.as_ref(), size),
    };
    let builder = metadata(state, asked, validators.as_ref());
    let (status, first, length) = match selection {
        Selection::Whole => (knobs.status.unwrap_or(StatusCode::OK), 0, size),
        Selection::Part { first, last } => (StatusCode::PARTIAL_CONTENT, first, last + 1 - first),
        Selection::NotModified => {
            tally.not_modified();
            return finish_empty(builder, StatusCode::NOT_MODIFIED);
        }
        Selection::Unsatisfiable => {
            let builder = builder.header(header::CONTENT_RANGE, format!("bytes */{size}"));
            return finish_empty(builder, StatusCode::RANGE_NOT_SATISFIABLE);
        }
    };
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return finish_empty(builder, status);
    }
    let mut builder = builder
        .status(status)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_TYPE, "application/octet-stream");
    if matches!(selection, Selection::Part { .. }) {
        let range = format!("bytes {first}-{}/{size}", first + length - 1);
        builder = builder.header(header::CONTENT_RANGE, range);
    }
    if !knobs.no_length {
        builder = builder.header(header::CONTENT_LENGTH, length);
    }
    if *method == Method::HEAD {
        return finish(builder, pages::empty(status));
    }
    let script = Script {
        length_bytes: length,
        cut_bytes: knobs.cut_bytes,
        stall: knobs.stall_at_bytes.map(|at| (at, knobs.stall)),
    };
    let reader = state.content.open(object, first);
    let body = ObjectBody::new(reader, script, state.pacer.clone(), tally, knobs.no_length);
    builder.body(body.boxed_unsync())
}

/// Headers that a 304 carries as well.
fn metadata(state: &State, asked: &Asked<'_>, validators: Option<&Validators>) -> Builder {
    let knobs = &asked.knobs;
    let mut builder = Response::builder();
    if let Some(Validators { etag, last_modified }) = validators {
        builder = builder
            .header(header::ETAG, etag)
            .header(header::LAST_MODIFIED, httpdate::fmt_http_date(*last_modified));
    }
    match (&knobs.cache_control, knobs.expires_s) {
        (Some(value), _) if !value.is_empty() => {
            builder = builder.header(header::CACHE_CONTROL, value);
        }
        (None, None) => builder = builder.header(header::CACHE_CONTROL, &state.cache_control),
        _ => {}
    }
    if let Some(seconds) = knobs.expires_s {
        builder = builder.header(header::EXPIRES, httpdate::fmt_http_date(from_now(seconds)));
    }
    if let Some(age) = &knobs.age {
        builder = builder.header(header::AGE, age);
    }
    if let Some(name) = &knobs.vary {
        builder = builder.header(header::VARY, name.as_str());
        if let Some(value) = asked.headers.get(name) {
            builder = builder.header("x-varied-on", value);
        }
    }
    if knobs.set_cookie {
        builder = builder.header(header::SET_COOKIE, "session=loadtest; Path=/");
    }
    builder
}

fn finish_empty(builder: Builder, status: StatusCode) -> Result<Reply, http::Error> {
    finish(builder.status(status), pages::empty(status))
}

fn finish(builder: Builder, body: Reply) -> Result<Reply, http::Error> {
    builder.body(body.into_body())
}

fn last_modified(object: &ObjectName) -> SystemTime {
    let base = SystemTime::UNIX_EPOCH + Duration::from_secs(LAST_MODIFIED_UNIX_S);
    if object.version().is_empty() {
        return base;
    }
    let hash = blake3::hash(object.version());
    let [a, b, c, d, ..] = *hash.as_bytes();
    let spread = u32::from_le_bytes([a, b, c, d]) % VERSION_SPREAD_S;
    base + Duration::from_secs(1 + u64::from(spread))
}

fn from_now(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { clock::wall() - distance } else { clock::wall() + distance }
}
