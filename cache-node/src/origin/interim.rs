//! Informational responses (RFC 9110 section 15.2) on their way in: handed on at once, end-to-end
//! headers only, and never taken for a response. Over HTTP/2 hyper does not show them.

use http::{HeaderMap, Request, StatusCode};
use tokio::sync::mpsc;

use crate::policy::hop;

/// An informational response.
#[derive(Clone, Debug)]
pub struct Interim {
    /// 102 to 199: 100 and 101 are about one connection.
    pub status: StatusCode,
    /// Its end-to-end headers.
    pub headers: HeaderMap,
}

/// Where they go; what does not fit is dropped.
pub type Interims = mpsc::Sender<Interim>;

/// Sends what comes before the response to `request` to `interims`.
pub(super) fn listen<B>(request: &mut Request<B>, interims: Interims) {
    hyper::ext::on_informational(request, move |response| {
        let status = response.status();
        if status == StatusCode::CONTINUE || status == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        let mut headers = response.headers().clone();
        hop::keep_end_to_end(&mut headers);
        if interims.try_send(Interim { status, headers }).is_err() {
            tracing::debug!(status = status.as_u16(), "an informational response was dropped");
        }
    });
}
