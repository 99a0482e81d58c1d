//! Informational responses (RFC 9110 section 15.2) on their way in: handed on at once, end-to-end
//! headers only, and never taken for a response. Over HTTP/2 hyper does not show them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, Request, StatusCode};
use tokio::sync::Notify;

use crate::policy::hop;

/// Informational responses of one request that wait; more are dropped.
const INTERIMS_MAX: usize = 8;

/// An informational response.
#[derive(Clone, Debug)]
pub struct Interim {
    /// 102 to 199: 100 and 101 are about one connection.
    pub status: StatusCode,
    /// Its end-to-end headers.
    pub headers: HeaderMap,
}

/// Those of one request, on their way to its client. Costs a hit next to nothing.
#[derive(Clone, Debug, Default)]
pub struct Interims(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<VecDeque<Interim>>,
    came: Notify,
}

impl Interims {
    fn put(&self, interim: Interim) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < INTERIMS_MAX {
            waiting.push_back(interim);
            self.0.came.notify_one();
        }
    }

    /// The next one, if it is there.
    pub fn take(&self) -> Option<Interim> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// The next one, once it is there.
    pub async fn next(&self) -> Interim {
        loop {
            if let Some(interim) = self.take() {
                return interim;
            }
            self.0.came.notified().await;
        }
    }
}

/// Sends what comes before the response to `request` to `interims`.
pub(super) fn listen<B>(request: &mut Request<B>, interims: Interims) {
    hyper::ext::on_informational(request, move |response| {
        let status = response.status();
        if status == StatusCode::CONTINUE || status == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        let mut headers = response.headers().clone();
        hop::keep_end_to_end(&mut headers);
        interims.put(Interim { status, headers });
    });
}
