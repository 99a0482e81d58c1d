//! Asks every member for its own status, and puts a cluster's together.

use std::time::Duration;

use futures::StreamExt;
use http::StatusCode;

use super::client;
use super::status::StatusDocument;

/// Members asked at a time.
const ASKED_AT_ONCE_MAX: usize = 32;
/// Members asked at all; figures of more are missing.
const ASKED_MAX: usize = 1_024;

/// What the member whose admin listener is at `address` (`host:port`) says of itself.
///
/// # Errors
/// Why there is no status, for people.
pub async fn ask(address: &str, deadline: Duration) -> Result<StatusDocument, String> {
    let (code, body) =
        client::get(address, "/status", deadline).await.map_err(|error| error.to_string())?;
    if code != StatusCode::OK {
        return Err(format!("it answers {code}; is that an admin listener of Shoal's?"));
    }
    serde_json::from_slice(&body).map_err(|error| format!("its answer is no status: {error}"))
}

/// What the members in `first`'s view say of themselves, those that answer; and `first`.
pub async fn ask_members(first: &StatusDocument, deadline: Duration) -> Vec<StatusDocument> {
    let others = first.members.iter().filter(|member| member.node_id != first.node_id);
    let others = others.filter(|member| !member.admin_address.is_empty()).take(ASKED_MAX);
    let asked = others.map(|member| async {
        let answer = ask(&member.admin_address, deadline).await.ok()?;
        // Another member, or another cluster, may have taken the address since.
        let itself = answer.node_id == member.node_id && answer.cluster_id == first.cluster_id;
        itself.then_some(answer)
    });
    let asked: Vec<_> = asked.collect();
    let mut answers: Vec<StatusDocument> = futures::stream::iter(asked)
        .buffer_unordered(ASKED_AT_ONCE_MAX)
        .filter_map(std::future::ready)
        .collect()
        .await;
    answers.push(first.clone());
    answers
}
