//! Reading the origin's own counts, before and after a run.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use thiserror::Error;

use super::request::{HttpClient, chain};
use crate::{origin::stats::StatsDocument, scenario::EdgeUrl};

/// For one reading.
pub const COUNTS_TIMEOUT_MS: u64 = 10_000;
/// The longest document that is read.
pub const COUNTS_MAX_BYTES: usize = 64 << 20;
/// Fills may go on for a moment after the last reply: the counts are read again until two readings
/// this far apart agree.
pub const COUNTS_REST_MS: u64 = 300;
/// Readings after which the last one is taken as it is.
pub const COUNTS_READINGS_MAX: usize = 20;

/// Why there are no counts.
#[derive(Debug, Error)]
#[error(
    "--origin {origin}: cannot read its counts at /_origin/stats: {reason}; give the address of a \
     running `shoal-loadtest origin`"
)]
pub struct CountsError {
    origin: EdgeUrl,
    reason: String,
}

/// Reads the counts once.
///
/// # Errors
/// When the origin does not answer in time, or with something else than its counts.
pub async fn read(client: &HttpClient, origin: &EdgeUrl) -> Result<StatsDocument, CountsError> {
    let failed = |reason: String| CountsError { origin: origin.clone(), reason };
    let timeout = Duration::from_millis(COUNTS_TIMEOUT_MS);
    match tokio::time::timeout(timeout, fetch(client, origin)).await {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(failed(format!("no answer within {COUNTS_TIMEOUT_MS} ms"))),
    }
}

/// Reads the counts until they stand still.
///
/// # Errors
/// As [`read`].
pub async fn read_at_rest(
    client: &HttpClient,
    origin: &EdgeUrl,
) -> Result<StatsDocument, CountsError> {
    let mut last = read(client, origin).await?;
    for _ in 1..COUNTS_READINGS_MAX {
        tokio::time::sleep(Duration::from_millis(COUNTS_REST_MS)).await;
        let next = read(client, origin).await?;
        let rests = next.totals == last.totals;
        last = next;
        if rests {
            break;
        }
    }
    Ok(last)
}

async fn fetch(client: &HttpClient, origin: &EdgeUrl) -> Result<StatsDocument, String> {
    let request = Request::get(format!("{origin}/_origin/stats"))
        .body(Empty::<Bytes>::new())
        .map_err(|error| chain(&error))?;
    let response = client.request(request).await.map_err(|error| chain(&error))?;
    if response.status() != StatusCode::OK {
        return Err(format!("it answers {}", response.status()));
    }
    let body = Limited::new(response.into_body(), COUNTS_MAX_BYTES).collect().await;
    let body = body.map_err(|error| chain(error.as_ref()))?.to_bytes();
    serde_json::from_slice(&body)
        .map_err(|error| format!("its answer is no such document: {error}"))
}
