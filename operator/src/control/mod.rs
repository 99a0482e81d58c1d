//! The members' control API over HTTP, with the operator's token: one request, one deadline, a
//! bounded answer. See `docs/control-api.md`.
//!
//! Must not know what is asked for, or why.

pub mod documents;

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use crate::tasks::Tasks;

/// Where members listen for control calls.
pub const ADMIN_PORT: u16 = 9400;
/// Largest answer.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A call that only reads.
const READ_DEADLINE: Duration = Duration::from_secs(4);
/// A call that changes something; the member's own limit is 120 s.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// Why a call came to nothing.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CallError {
    /// Nobody answered; it may have taken effect all the same.
    #[error("{address} does not answer: {reason}")]
    Unreachable {
        /// Whom.
        address: String,
        /// Why.
        reason: String,
    },
    /// The member refused, in its own words.
    #[error("{address} refused ({status} {code}): {message}; {remedy}")]
    Refused {
        /// Who.
        address: String,
        /// HTTP's status.
        status: u16,
        /// The word for programs.
        code: String,
        /// The sentence for people.
        message: String,
        /// What would help.
        remedy: String,
    },
    /// The answer is not what was expected.
    #[error("{address} answered something strange: {reason}")]
    Strange {
        /// Who.
        address: String,
        /// What.
        reason: String,
    },
}

impl CallError {
    /// The call, or what it is about, is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Asking again without a change will not help.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Refused { status: 400..=499, .. })
    }
}

/// Asks members, with the operator's token.
#[derive(Clone)]
pub struct Caller {
    token: Option<String>,
    port: u16,
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Caller {
    /// Calls with `token`, where there is one.
    #[must_use]
    pub fn new(token: Option<String>, port: u16) -> Self {
        Self { token, port }
    }

    /// Reads `path` at `host`.
    ///
    /// # Errors
    /// When there is no whole answer of this form in time.
    pub async fn get<T: DeserializeOwned>(&self, host: IpAddr, path: &str) -> Result<T, CallError> {
        let bytes = self.call(host, (Method::GET, path), Bytes::new(), READ_DEADLINE).await?;
        self.read(host, &bytes)
    }

    /// Reads the text at `path` at `host`.
    ///
    /// # Errors
    /// When there is no whole answer in time.
    pub async fn text(&self, host: IpAddr, path: &str) -> Result<String, CallError> {
        let bytes = self.call(host, (Method::GET, path), Bytes::new(), READ_DEADLINE).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Has something changed at `host`.
    ///
    /// # Errors
    /// When it was refused, or when nobody said that it was done.
    pub async fn send<T: DeserializeOwned>(
        &self,
        host: IpAddr,
        (method, path): (Method, &str),
        body: &serde_json::Value,
    ) -> Result<T, CallError> {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let bytes = self.call(host, (method, path), body, WRITE_DEADLINE).await?;
        let bytes = if bytes.is_empty() { Bytes::from_static(b"null") } else { bytes };
        self.read(host, &bytes)
    }

    fn address(&self, host: IpAddr) -> String {
        std::net::SocketAddr::new(host, self.port).to_string()
    }

    fn read<T: DeserializeOwned>(&self, host: IpAddr, bytes: &[u8]) -> Result<T, CallError> {
        serde_json::from_slice(bytes).map_err(|error| CallError::Strange {
            address: self.address(host),
            reason: error.to_string(),
        })
    }

    async fn call(
        &self,
        host: IpAddr,
        what: (Method, &str),
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        let address = self.address(host);
        let asked = self.ask(&address, what, body);
        let answer = tokio::time::timeout(deadline, asked).await.unwrap_or_else(|_| {
            let reason = format!("nothing came within {deadline:?}");
            Err(CallError::Unreachable { address: address.clone(), reason })
        });
        let (status, bytes) = answer?;
        if status.is_success() { Ok(bytes) } else { Err(refused(address, status, &bytes)) }
    }

    async fn ask(
        &self,
        address: &str,
        (method, path): (Method, &str),
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let away = |error: &dyn std::fmt::Display| CallError::Unreachable {
            address: address.to_owned(),
            reason: error.to_string(),
        };
        let mut request = Request::builder().method(method).uri(path).header(HOST, address);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body)).map_err(|error| away(&error))?;
        let stream = TcpStream::connect(address).await.map_err(|error| away(&error))?;
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|error| away(&error))?;
        let driver = Tasks::new();
        driver.spawn("control-call", async move {
            let _ = connection.await;
        });
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| away(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok((status, body.map_err(|error| away(&error))?.to_bytes()))
        };
        let answer = answer.await;
        driver.stop();
        answer
    }
}

fn refused(address: String, status: StatusCode, bytes: &[u8]) -> CallError {
    let body: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let word = |key: &str| body["error"][key].as_str().unwrap_or_default().to_owned();
    CallError::Refused {
        address,
        status: status.as_u16(),
        code: word("code"),
        message: word("message"),
        remedy: word("remedy"),
    }
}
