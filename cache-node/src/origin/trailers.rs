//! What comes after a body (RFC 9110 section 6.5), on its way past whoever streams that body.
//!
//! Invariants: only of what passes through, since nothing stored keeps it; read once, after the
//! body has ended; what must not be in trailers does not get here.

use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, HeaderValue};

use crate::policy::hop;

/// The trailers of one message, once they have come.
#[derive(Clone, Debug, Default)]
pub struct Trailers {
    /// The message's `Trailer`: the names that may come.
    declared: Option<HeaderValue>,
    came: Arc<Mutex<Option<HeaderMap>>>,
}

impl Trailers {
    /// None yet; `declared` is the message's `Trailer`.
    pub fn new(declared: Option<HeaderValue>) -> Self {
        Self { declared, came: Arc::default() }
    }

    /// The message's `Trailer`.
    pub fn declared(&self) -> Option<&HeaderValue> {
        self.declared.as_ref()
    }

    /// They have come.
    pub fn put(&self, mut trailers: HeaderMap) {
        hop::keep_trailers(&mut trailers);
        *self.came.lock().unwrap_or_else(PoisonError::into_inner) = Some(trailers);
    }

    /// Those that came.
    pub fn take(&self) -> Option<HeaderMap> {
        let came = self.came.lock().unwrap_or_else(PoisonError::into_inner).take();
        came.filter(|trailers| !trailers.is_empty())
    }
}
