//! The access log: one line a response, as JSON or in the Common Log Format, once its last byte was
//! handed over or its client has gone.
//!
//! Invariants: off unless a file is named; clients' addresses are cut short unless an operator wants
//! them whole; a line is one line, whatever a client sent; requests never wait for the log, lines
//! that find no room are counted and dropped.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use http::header::HOST;
use http::{Method, Request, StatusCode, Version};
use prometheus::IntCounter;
use serde_json::json;
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::sync::mpsc;

use crate::policy::date;

/// Lines that wait to be written.
const LINES_MAX: usize = 8_192;
/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 64 * 1024;

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// The Common Log Format of web servers.
    Common,
}

/// How much is told of a client's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessAddresses {
    /// Nothing.
    None,
    /// Its network: the first 24 bits of IPv4, 48 of IPv6.
    #[default]
    Truncated,
    /// All of it.
    Full,
}

/// Where lines go.
#[derive(Clone, Debug)]
pub struct AccessLog {
    format: AccessFormat,
    addresses: AccessAddresses,
    lines: mpsc::Sender<String>,
    lost: IntCounter,
}

/// What is written later.
#[derive(Debug)]
pub struct AccessLines {
    lines: mpsc::Receiver<String>,
    file: File,
}

impl AccessLog {
    /// A log that ends in the file at `path`, which is appended to.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub async fn open(
        path: &Path,
        (format, addresses): (AccessFormat, AccessAddresses),
        lost: IntCounter,
    ) -> std::io::Result<(Self, AccessLines)> {
        let file = File::options().append(true).create(true).open(path).await?;
        let (sender, lines) = mpsc::channel(LINES_MAX);
        Ok((Self { format, addresses, lines: sender, lost }, AccessLines { lines, file }))
    }

    fn write(&self, entry: &Entry) {
        let line = match self.format {
            AccessFormat::Json => entry.json(self.addresses),
            AccessFormat::Common => entry.common(self.addresses),
        };
        if self.lines.try_send(line).is_err() {
            self.lost.inc();
        }
    }
}

impl AccessLines {
    /// Writes lines until nobody logs any more.
    pub async fn write(self) {
        let Self { mut lines, file } = self;
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, file);
        while let Some(line) = lines.recv().await {
            let mut written = file.write_all(line.as_bytes()).await;
            if lines.is_empty() {
                written = written.and(file.flush().await);
            }
            if let Err(error) = written {
                tracing::warn!(%error, "the access log could not be written");
            }
        }
    }
}

/// What is known of a response.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) at_ms: u64,
    pub(super) client: Option<IpAddr>,
    pub(super) method: Method,
    pub(super) host: String,
    pub(super) target: String,
    pub(super) version: Version,
    pub(super) status: StatusCode,
    /// Of `Cache-Status`, this cache's own part included.
    pub(super) cache: String,
    pub(super) tier: &'static str,
    pub(super) first_byte_ms: f64,
    pub(super) took_ms: f64,
    pub(super) bytes: u64,
    /// All that was announced was handed over.
    pub(super) whole: bool,
}

impl Entry {
    /// What a request says, before anybody looks at whether it makes sense.
    pub(super) fn of<B>(request: &Request<B>, at_ms: u64, client: Option<IpAddr>) -> Self {
        let uri = request.uri();
        let named = uri.authority().map(|authority| authority.as_str().to_owned());
        let host = request.headers().get(HOST);
        let asked = || host.map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
        Self {
            at_ms,
            client,
            method: request.method().clone(),
            host: named.or_else(asked).unwrap_or_default(),
            target: uri.path_and_query().map_or(String::new(), ToString::to_string),
            version: request.version(),
            status: StatusCode::OK,
            cache: String::new(),
            tier: "",
            first_byte_ms: 0.0,
            took_ms: 0.0,
            bytes: 0,
            whole: false,
        }
    }

    fn json(&self, addresses: AccessAddresses) -> String {
        let line = json!({
            "time_ms": self.at_ms,
            "client": shown(self.client, addresses),
            "method": self.method.as_str(),
            "host": self.host,
            "target": self.target,
            "version": format!("{:?}", self.version),
            "status": self.status.as_u16(),
            "bytes": self.bytes,
            "whole": self.whole,
            "cache": self.cache,
            "tier": self.tier,
            "first_byte_ms": self.first_byte_ms,
            "took_ms": self.took_ms,
        });
        format!("{line}\n")
    }

    fn common(&self, addresses: AccessAddresses) -> String {
        let client = shown(self.client, addresses).unwrap_or_else(|| "-".to_owned());
        // "Sun, 06 Nov 1994 08:49:37 GMT" as "06/Nov/1994:08:49:37 +0000".
        let date = date::format(self.at_ms);
        let words: Vec<&str> = date.split(' ').collect();
        let [_, day, month, year, time, _] = words[..] else { return String::new() };
        let (method, target) = (self.method.as_str(), escaped(&self.target));
        let (version, status, bytes) = (self.version, self.status.as_u16(), self.bytes);
        format!(
            "{client} - - [{day}/{month}/{year}:{time} +0000] \
             \"{method} {target} {version:?}\" {status} {bytes}\n"
        )
    }
}

fn escaped(text: &str) -> String {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    let one =
        |byte: u8| if plain(byte) { char::from(byte).into() } else { format!("\\x{byte:02x}") };
    text.bytes().map(one).collect()
}

fn shown(client: Option<IpAddr>, addresses: AccessAddresses) -> Option<String> {
    let client = client?.to_canonical();
    let shown = match (addresses, client) {
        (AccessAddresses::None, _) => return None,
        (AccessAddresses::Full, _) => client,
        (AccessAddresses::Truncated, IpAddr::V4(v4)) => {
            IpAddr::V4((u32::from(v4) & 0xffff_ff00).into())
        }
        (AccessAddresses::Truncated, IpAddr::V6(v6)) => {
            IpAddr::V6((u128::from(v6) & (u128::MAX << 80)).into())
        }
    };
    Some(shown.to_string())
}

/// An entry that is written when it is dropped: whatever became of the response by then.
pub(super) struct Pending {
    pub(super) entry: Entry,
    pub(super) log: Arc<AccessLog>,
    pub(super) start: std::time::Instant,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.entry.took_ms = millis(crate::clock::since(self.start));
        self.log.write(&self.entry);
    }
}

/// To the microsecond.
pub(super) fn millis(took: std::time::Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(target: &str, client: &str) -> Entry {
        Entry {
            at_ms: 784_111_777_000,
            client: Some(client.parse().unwrap()),
            method: Method::GET,
            host: "a.test".into(),
            target: target.into(),
            version: Version::HTTP_11,
            status: StatusCode::OK,
            cache: "shoal; hit".into(),
            tier: "memory",
            first_byte_ms: 0.25,
            took_ms: 1.5,
            bytes: 10,
            whole: true,
        }
    }

    #[test]
    fn lines_are_as_web_servers_write_them() {
        let line = entry("/a?b=\"c\"\\\n", "192.0.2.77").common(AccessAddresses::Truncated);
        assert_eq!(
            line,
            "192.0.2.0 - - [06/Nov/1994:08:49:37 +0000] \
             \"GET /a?b=\\x22c\\x22\\x5c\\x0a HTTP/1.1\" 200 10\n"
        );
    }

    #[test]
    fn json_is_one_object_a_line() {
        let line = entry("/a\"\n", "192.0.2.77").json(AccessAddresses::Full);
        assert_eq!(line.matches('\n').count(), 1);
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&read["client"], &read["target"]), (&json!("192.0.2.77"), &json!("/a\"\n")));
        assert_eq!((&read["status"], &read["tier"]), (&json!(200), &json!("memory")));
    }

    #[test]
    fn addresses_are_cut_to_their_networks() {
        let of = |client: &str, addresses| shown(Some(client.parse().unwrap()), addresses);
        let truncated = |client| of(client, AccessAddresses::Truncated).unwrap();
        assert_eq!(truncated("192.0.2.77"), "192.0.2.0");
        assert_eq!(truncated("::ffff:192.0.2.77"), "192.0.2.0");
        assert_eq!(truncated("2001:db8:1:2:3::4"), "2001:db8:1::");
        assert_eq!(of("192.0.2.77", AccessAddresses::None), None);
        assert_eq!(of("192.0.2.77", AccessAddresses::Full).as_deref(), Some("192.0.2.77"));
        assert_eq!(shown(None, AccessAddresses::Full), None);
    }

    #[tokio::test]
    async fn lines_reach_the_file_and_requests_never_wait() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let lost = IntCounter::new("lost", "lost").unwrap();
        let how = (AccessFormat::Common, AccessAddresses::Truncated);
        let (log, lines) = AccessLog::open(&path, how, lost.clone()).await.unwrap();
        for _ in 0..LINES_MAX + 5 {
            log.write(&entry("/", "192.0.2.1"));
        }
        assert_eq!(lost.get(), 5);
        drop(log);
        lines.write().await;
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), LINES_MAX);
    }
}
