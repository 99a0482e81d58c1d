//! Waits until every member says that it is ready, or one ends, or time is up.

use std::time::{Duration, Instant};

use futures::future::join_all;
use http::StatusCode;
use tokio::net::TcpStream;

use super::UpError;
use super::children::{Children, DEMO_ORIGIN_NAME};
use super::plan::Plan;
use crate::admin::client;
use crate::clock;

/// For all members to be ready.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// For one answer.
const ASK_DEADLINE: Duration = Duration::from_secs(1);
/// Between two rounds of questions.
const ROUND_PAUSE: Duration = Duration::from_millis(100);
/// Longest answer that is quoted, in characters.
const REASON_CHARS_MAX: usize = 200;

/// A process and what it said last.
struct Waiting {
    name: String,
    said: String,
}

/// Waits for all of `plan`.
///
/// # Errors
/// Names the first that ended, or those that are not ready in time, and shows a log's end.
pub(super) async fn wait(plan: &Plan, children: &mut Children) -> Result<(), UpError> {
    let started = clock::monotonic();
    loop {
        let round = round(plan);
        let waiting = tokio::select! {
            waiting = round => waiting,
            end = children.next_end() => {
                let tail = children.log_tail(&end.name);
                let (name, status, log) = (end.name, end.status, end.log);
                return Err(UpError::Ended { name, status, log, tail });
            }
        };
        if waiting.is_empty() {
            return Ok(());
        }
        if is_late(started) {
            return Err(late(&waiting, children));
        }
        tokio::time::sleep(ROUND_PAUSE).await;
    }
}

fn is_late(started: Instant) -> bool {
    clock::since(started) >= READY_DEADLINE
}

fn late(waiting: &[Waiting], children: &Children) -> UpError {
    let who = waiting.iter().map(|one| format!("{} ({})", one.name, one.said));
    let first = waiting.first().map_or("", |one| one.name.as_str());
    UpError::NotReady {
        after: READY_DEADLINE,
        who: who.collect::<Vec<_>>().join(", "),
        log: children.log(first),
        tail: children.log_tail(first),
    }
}

/// Asks everyone once; returns those that are not ready.
async fn round(plan: &Plan) -> Vec<Waiting> {
    let origin = async {
        let listen = plan.demo_origin.as_ref()?.listen;
        let connected = tokio::time::timeout(ASK_DEADLINE, TcpStream::connect(listen)).await;
        let said = match connected {
            Ok(Ok(_)) => return None,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no connection".to_owned(),
        };
        Some(Waiting { name: DEMO_ORIGIN_NAME.to_owned(), said })
    };
    let members = join_all(plan.members().map(|member| async {
        let said = not_ready(&member.admin.to_string()).await?;
        Some(Waiting { name: member.name.clone(), said })
    }));
    let (origin, members) = futures::join!(origin, members);
    origin.into_iter().chain(members.into_iter().flatten()).collect()
}

/// Why the member with its admin listener at `address` is not ready; `None` when it is.
async fn not_ready(address: &str) -> Option<String> {
    match client::get(address, "/readyz", ASK_DEADLINE).await {
        Ok((StatusCode::OK, _)) => None,
        Ok((_, body)) => {
            let reason = String::from_utf8_lossy(&body);
            Some(reason.trim().chars().take(REASON_CHARS_MAX).collect())
        }
        Err(error) => Some(error.to_string()),
    }
}
