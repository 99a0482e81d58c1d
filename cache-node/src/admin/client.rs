//! A small client for admin listeners: one request, one deadline, a bounded answer.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
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

/// A control call; see `docs/control-api.md`.
#[derive(Clone, Debug)]
pub struct Order {
    /// `GET`, `POST`, `PUT` or `DELETE`.
    pub method: Method,
    /// Beginning with `/v1/`.
    pub path: String,
    /// The body, JSON; null for none.
    pub body: serde_json::Value,
    /// The token's secret.
    pub token: Option<HeaderValue>,
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
    let request = Request::get(path).body(Full::default());
    within(deadline, ask(address, request)).await
}

/// Calls the admin listener at `address` (`host:port`).
///
/// # Errors
/// When there is no whole answer within `deadline`.
pub async fn call(
    address: &str,
    order: Order,
    deadline: Duration,
) -> Result<(StatusCode, Bytes), AskError> {
    let Order { method, path, body, token } = order;
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, token);
    }
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    if !body.is_empty() {
        request = request.header(CONTENT_TYPE, super::JSON_TYPE);
    }
    within(deadline, ask(address, request.body(Full::new(body)))).await
}

async fn within<T>(
    deadline: Duration,
    asked: impl Future<Output = Result<T, AskError>>,
) -> Result<T, AskError> {
    tokio::time::timeout(deadline, asked).await.unwrap_or(Err(AskError::Deadline(deadline)))
}

async fn ask(
    address: &str,
    request: Result<Request<Full<Bytes>>, http::Error>,
) -> Result<(StatusCode, Bytes), AskError> {
    let strange = |error: &dyn std::fmt::Display| AskError::Strange(error.to_string());
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| AskError::Unreachable(error.to_string()))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| strange(&error))?;
    let mut request = request.map_err(|error| strange(&error))?;
    let host = HeaderValue::from_str(address).map_err(|error| strange(&error))?;
    request.headers_mut().insert(HOST, host);
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
