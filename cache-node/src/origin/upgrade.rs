//! Requests to switch to another protocol (RFC 9110 section 7.8), over HTTP/1.1 and on a connection
//! of their own.
//!
//! Invariants: an origin that switches has said that it switches to what was asked for; one that
//! does not has given an ordinary response. Nothing is tried twice: a handshake is for one
//! connection.

use http::header::{CONNECTION, TE, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{OriginClient, OriginError, OriginRequest, OriginUrl, head, response};
use crate::policy::hop;
use crate::policy::site::Site;

/// Bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What an origin made of it.
pub enum Switched {
    /// It switched.
    To {
        /// The end-to-end headers of its `101`.
        headers: HeaderMap,
        /// What is spoken from here on.
        stream: Box<dyn Duplex>,
    },
    /// It did not, and answered.
    Not(super::OriginResponse),
}

impl std::fmt::Debug for Switched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::To { .. } => f.write_str("To"),
            Self::Not(response) => f.debug_tuple("Not").field(response).finish(),
        }
    }
}

impl OriginClient {
    /// Asks the site's origin to switch to `protocol`.
    ///
    /// # Errors
    /// When it gives no answer, or none that can be trusted.
    pub async fn switch(
        &self,
        site: &Site,
        request: OriginRequest,
        protocol: &str,
    ) -> Result<Switched, OriginError> {
        let switched = self.switch_uncounted(site, request, protocol).await;
        if switched.is_err() {
            self.metrics.failures.inc();
        }
        switched
    }

    async fn switch_uncounted(
        &self,
        site: &Site,
        request: OriginRequest,
        protocol: &str,
    ) -> Result<Switched, OriginError> {
        // A tunnel has limits of its own: it does not take the place of a response that ends.
        let slot = self.slot(site).await?;
        let Some(origin) = self.health.order(site).into_iter().next() else {
            return Err(super::timeout(site));
        };
        let unusable = |reason: &str| malformed(&origin, reason);
        let mut head = head((site, &origin), &request, None)?;
        let headers = head.headers_mut();
        headers.remove(TE);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        let named = HeaderValue::from_str(protocol).map_err(|_| unusable("no such protocol"))?;
        headers.insert(UPGRADE, named);
        let answered = self.attempt(&self.fresh, site, head, None).await;
        let mut answered = match answered {
            Ok(answered) => answered,
            Err(failure) => {
                self.health.failed(site, &origin, 1);
                return Err(failure.into_error(site, &origin));
            }
        };
        self.health.answered(site, &origin);
        if answered.status() != StatusCode::SWITCHING_PROTOCOLS {
            let checked = response::check(answered, &Method::GET).map_err(unusable)?;
            let (silence, metrics) = (site.between_bytes_timeout, self.metrics.clone());
            return Ok(Switched::Not(checked.into_response(silence, metrics, slot)));
        }
        let to = answered.headers().get(UPGRADE).and_then(|value| value.to_str().ok());
        if !to.is_some_and(|to| to.eq_ignore_ascii_case(protocol)) {
            return Err(unusable("a protocol switch that was not asked for"));
        }
        let mut headers = answered.headers().clone();
        hop::keep_end_to_end(&mut headers);
        let opened = hyper::upgrade::on(&mut answered);
        let opened = tokio::time::timeout(site.connect_timeout, opened).await;
        let stream = opened.map_err(|_| unusable("a protocol switch that never came"))?;
        let stream = stream.map_err(|error| unusable(&super::chain(&error)))?;
        Ok(Switched::To { headers, stream: Box::new(TokioIo::new(stream)) })
    }
}

fn malformed(origin: &OriginUrl, reason: &str) -> OriginError {
    OriginError::Malformed { origin: origin.to_string(), reason: reason.to_owned() }
}
