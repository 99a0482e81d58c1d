//! A small client for admin listeners: one GET, one deadline, a bounded answer.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header::HOST};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::tasks::Tasks;

/// Largest answer: a status document of the largest cluster.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AskError {
    /// Nobody listens there, or the connection failed.
    #[error("{0}")]
    Unreachable(String),
    /// Nothing came in time.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// The answer is not HTTP, or too long.
    #[error("not the answer of an admin listener: {0}")]
    Strange(String),
}

/// Asks the admin listener at `address` (`host:port`) for `path`.
///
/// # Errors
/// When there is no whole answer within `deadline`.
pub async fn get(
    address: &str,
    path: &str,
    deadline: Duration,
) -> Result<(StatusCode, Bytes), AskError> {
    let asked = ask(address, path);
    tokio::time::timeout(deadline, asked).await.unwrap_or(Err(AskError::Deadline(deadline)))
}

async fn ask(address: &str, path: &str) -> Result<(StatusCode, Bytes), AskError> {
    let strange = |error: &dyn std::fmt::Display| AskError::Strange(error.to_string());
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| AskError::Unreachable(error.to_string()))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| strange(&error))?;
    let request = Request::get(path)
        .header(HOST, address)
        .body(Empty::<Bytes>::new())
        .map_err(|error| strange(&error))?;
    let driver = Tasks::new();
    driver.spawn_until_stopped("admin-client", async move {
        let _ = connection.await;
    });
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| strange(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok((status, body.map_err(|error| strange(&error))?.to_bytes()))
    };
    let answer = answer.await;
    driver.stop();
    answer
}
