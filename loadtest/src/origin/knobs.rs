//! The query parameters that bend one reply (PURE): parsed once, before anything is sent.
//!
//! A parameter that is not known here is ignored, since it still makes another key at a cache; a
//! known one with a bad value is refused, since a test that believes in it would test nothing.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use thiserror::Error;

use crate::{
    percent::{decode, pairs},
    scenario::origin::WAIT_MAX_MS,
};

/// What the query asks of one reply. Without a query, nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Knobs {
    /// `cc`: Cache-Control; empty for none.
    pub cache_control: Option<HeaderValue>,
    /// `expires`: seconds from now, in place of Cache-Control.
    pub expires_s: Option<i64>,
    /// `age`: an Age header, as written.
    pub age: Option<HeaderValue>,
    /// `vary`: the header that Vary names.
    pub vary: Option<HeaderName>,
    /// `status`: in place of 200, 206 or 304.
    pub status: Option<StatusCode>,
    /// `set-cookie=1`
    pub set_cookie: bool,
    /// `no-validators=1`: neither ETag nor Last-Modified.
    pub no_validators: bool,
    /// `no-length=1`: chunked.
    pub no_length: bool,
    /// `cut`: close the connection after so many bytes of body.
    pub cut_bytes: Option<u64>,
    /// `delay-ms`: wait before the head.
    pub delay: Duration,
    /// `stall-at`: pause after so many bytes of body.
    pub stall_at_bytes: Option<u64>,
    /// `stall-ms`: length of that pause.
    pub stall: Duration,
}

/// A parameter with a value that it does not take.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the parameter {name}={value} is refused: {remedy}")]
pub struct KnobError {
    name: String,
    value: String,
    remedy: String,
}

/// Expiry beyond ten years in either direction says nothing more and strains date formats.
const EXPIRES_MAX_S: i64 = 315_360_000;

impl Knobs {
    /// Reads a query.
    ///
    /// # Errors
    /// A known parameter with a value that it does not take.
    pub fn parse(query: &str) -> Result<Self, KnobError> {
        let mut knobs = Self::default();
        for (name, value) in pairs(query) {
            let set = knobs.set(name, value);
            set.map_err(|remedy| KnobError { name: name.into(), value: value.into(), remedy })?;
        }
        Ok(knobs)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "cc" => self.cache_control = Some(header(value)?),
            "expires" => self.expires_s = Some(expires(value)?),
            "age" => self.age = Some(header(value)?),
            "vary" => self.vary = Some(header_name(value)?),
            "status" => self.status = Some(status(value)?),
            "set-cookie" => self.set_cookie = flag(value)?,
            "no-validators" => self.no_validators = flag(value)?,
            "no-length" => self.no_length = flag(value)?,
            "cut" => self.cut_bytes = Some(bytes(value)?),
            "delay-ms" => self.delay = wait(value)?,
            "stall-at" => self.stall_at_bytes = Some(bytes(value)?),
            "stall-ms" => self.stall = wait(value)?,
            _ => {}
        }
        Ok(())
    }
}

fn flag(value: &str) -> Result<bool, String> {
    match value {
        "1" => Ok(true),
        "0" => Ok(false),
        _ => Err("write 1 or 0".to_owned()),
    }
}

fn bytes(value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| "write a number of bytes".to_owned())
}

fn wait(value: &str) -> Result<Duration, String> {
    let ms = value.parse().ok().filter(|ms| *ms <= WAIT_MAX_MS);
    ms.map(Duration::from_millis)
        .ok_or_else(|| format!("write a number of milliseconds up to {WAIT_MAX_MS}"))
}

fn expires(value: &str) -> Result<i64, String> {
    let seconds = value.parse().ok().filter(|s: &i64| s.unsigned_abs() <= EXPIRES_MAX_S as u64);
    seconds.ok_or_else(|| format!("write seconds from now, at most {EXPIRES_MAX_S} either way"))
}

fn header(value: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_bytes(&decode(value)).map_err(|_| "no header can hold this text".to_owned())
}

fn header_name(value: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(&decode(value)).map_err(|_| "write the name of one header".to_owned())
}

fn status(value: &str) -> Result<StatusCode, String> {
    let code = value.parse().ok().filter(|code| (200..=599).contains(code));
    code.and_then(|code: u16| StatusCode::from_u16(code).ok())
        .ok_or_else(|| "write a status between 200 and 599".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_parameter() {
        let query = "cc=public%2C%20max-age%3D5&expires=-10&age=abc&vary=Accept&status=404\
                     &set-cookie=1&no-validators=1&no-length=1&cut=7&delay-ms=20&stall-at=3\
                     &stall-ms=40&version=x&unknown=1";
        let wanted = Knobs {
            cache_control: Some(HeaderValue::from_static("public, max-age=5")),
            expires_s: Some(-10),
            age: Some(HeaderValue::from_static("abc")),
            vary: Some(http::header::ACCEPT),
            status: Some(StatusCode::NOT_FOUND),
            set_cookie: true,
            no_validators: true,
            no_length: true,
            cut_bytes: Some(7),
            delay: Duration::from_millis(20),
            stall_at_bytes: Some(3),
            stall: Duration::from_millis(40),
        };
        assert_eq!(Knobs::parse(query), Ok(wanted));
        assert_eq!(Knobs::parse(""), Ok(Knobs::default()));
        assert_eq!(Knobs::parse("version=1&x=%00"), Ok(Knobs::default()));
    }

    #[test]
    fn bad_values_are_refused_by_name() {
        let bad = [
            "status=99",
            "status=600",
            "status=x",
            "cut=-1",
            "delay-ms=600001",
            "stall-ms=a",
            "no-length=yes",
            "cc=%0A",
            "vary=a%20b",
            "expires=1.5",
            "expires=999999999999",
        ];
        for query in bad {
            let message = Knobs::parse(query).unwrap_err().to_string();
            assert!(message.contains(query), "{query}: {message}");
        }
    }
}
