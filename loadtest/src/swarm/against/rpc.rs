//! What is said to aria2, over its JSON-RPC on a host's own loopback. One connection a process.

use std::{io, net::Ipv4Addr};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Deserialize;

use crate::{swarm::space, tasks::Group};

/// Where aria2 listens for it.
pub(super) const PORT: u16 = 6800;
/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// A connection to one aria2.
pub(super) struct Rpc {
    sender: SendRequest<Full<Bytes>>,
}

/// How far a download is.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Progress {
    completed_length: String,
    #[serde(default)]
    error_message: String,
}

#[derive(Deserialize)]
struct Answer<T> {
    result: T,
}

impl Rpc {
    /// Connects from within `space`.
    pub(super) async fn connect(space: &str, connections: &Group) -> io::Result<Self> {
        let stream = space::connect(space, (Ipv4Addr::LOCALHOST, PORT).into()).await?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        connections.spawn(async move {
            // How it ends, the next call sees too.
            drop(connection.await);
        });
        Ok(Self { sender })
    }

    /// Lets everything that was held back begin.
    pub(super) async fn unpause(&mut self) -> io::Result<()> {
        let _: serde_json::Value = self.call("aria2.unpauseAll", "[]").await?;
        Ok(())
    }

    /// Bytes that are there, of the one object that it was given, running or held back; or why it
    /// failed.
    pub(super) async fn completed(&mut self) -> io::Result<Result<u64, String>> {
        let keys = r#"["completedLength","errorMessage"]"#;
        let mut found: Vec<Progress> = self.call("aria2.tellActive", &format!("[{keys}]")).await?;
        for list in ["aria2.tellWaiting", "aria2.tellStopped"] {
            if found.is_empty() {
                found = self.call(list, &format!("[0,1,{keys}]")).await?;
            }
        }
        let Some(first) = found.into_iter().next() else { return Ok(Ok(0)) };
        Ok(match first.error_message.is_empty() {
            true => Ok(first.completed_length.parse().unwrap_or_default()),
            false => Err(first.error_message),
        })
    }

    async fn call<T: for<'a> Deserialize<'a>>(
        &mut self,
        method: &str,
        params: &str,
    ) -> io::Result<T> {
        let call = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        let request = Request::post("/jsonrpc")
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(call)))
            .map_err(io::Error::other)?;
        self.sender.ready().await.map_err(io::Error::other)?;
        let answer = self.sender.send_request(request).await.map_err(io::Error::other)?;
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(io::Error::other)?.to_bytes();
        let answer: Answer<T> = serde_json::from_slice(&body)?;
        Ok(answer.result)
    }
}
