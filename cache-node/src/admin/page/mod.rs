//! The status page: files that are part of the binary, and the document they show. Works without
//! a network beyond this listener, and runs no script of anybody else.
//!
//! Invariant: however many pages are open, members are asked once a second at most.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::Full;
use tokio::sync::Mutex;

use super::{Report, StatusDocument, gather};
use crate::clock;

/// For a member to answer.
const MEMBER_DEADLINE: Duration = Duration::from_millis(1_500);
/// A gathered report is shown to everybody for so long.
const REPORT_LIFE: Duration = Duration::from_secs(1);

/// Nothing but the page's own files, and nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// Path, type, content.
const FILES: [(&str, &str, &str); 5] = [
    ("/", "text/html; charset=utf-8", include_str!("index.html")),
    ("/page/style.css", "text/css; charset=utf-8", include_str!("style.css")),
    ("/page/main.js", "text/javascript; charset=utf-8", include_str!("main.js")),
    ("/page/charts.js", "text/javascript; charset=utf-8", include_str!("charts.js")),
    ("/page/swarm.js", "text/javascript; charset=utf-8", include_str!("swarm.js")),
];

/// Whether whoever asks for `/` is a browser: scripts get the plain list.
pub(super) fn wanted(headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|types| types.contains("text/html"))
}

/// A file of the page.
pub(super) fn file(path: &str) -> Option<Response<Full<Bytes>>> {
    let (_, kind, content) = FILES.iter().find(|file| file.0 == path)?;
    let mut response = Response::new(Full::new(Bytes::from_static(content.as_bytes())));
    let said = [
        (CONTENT_TYPE, *kind),
        // The next version of the binary brings other files under the same names.
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in said {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Some(response)
}

/// The newest report of all members.
#[derive(Debug, Default)]
pub(super) struct Clusters(Mutex<Option<(Instant, Vec<u8>)>>);

impl Clusters {
    /// The report, gathered anew when it is too old; those who wait meanwhile share it.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub(super) async fn report(
        &self,
        status: &Arc<dyn Fn() -> StatusDocument + Send + Sync>,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let mut last = self.0.lock().await;
        if let Some((at, report)) = last.as_ref()
            && clock::since(*at) < REPORT_LIFE
        {
            return Ok(report.clone());
        }
        let first = status();
        let answers = gather::ask_members(&first, MEMBER_DEADLINE).await;
        let report = serde_json::to_vec(&Report::new(&first, &answers, clock::unix_ms()))?;
        *last = Some((clock::monotonic(), report.clone()));
        Ok(report)
    }
}
