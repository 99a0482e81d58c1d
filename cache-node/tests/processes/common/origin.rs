//! The deterministic origin as a process: it counts what leaves it and can misbehave on request.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::{Client, Process, binary};

/// For the origin to listen.
const READY_DEADLINE: Duration = Duration::from_secs(20);

/// A running `shoal-loadtest origin`.
pub(crate) struct Origin {
    url: String,
    _process: Process,
    _folder: TempDir,
}

impl Origin {
    /// Starts one with further flags.
    pub(crate) fn start(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(binary("shoal-loadtest"));
        command.args(["origin", "--json", "--listen", "127.0.0.1:0"]).args(flags);
        let mut process = Process::start(&mut command, &folder.path().join("origin.log"));
        let facts: Value = serde_json::from_str(&process.first_line(READY_DEADLINE)).unwrap();
        let url = facts["listen"].as_str().unwrap().to_owned();
        Self { url, _process: process, _folder: folder }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What the origin itself gives for `target`; this request counts too.
    pub(crate) fn body(&self, target: &str) -> Vec<u8> {
        Client::new(&self.url).get(target).unwrap().body
    }

    /// Requests of all paths, those for its own pages left out.
    pub(crate) fn requests(&self) -> u64 {
        self.stats()["totals"]["requests"].as_u64().unwrap()
    }

    /// Requests for `target`, its query included.
    pub(crate) fn requests_for(&self, target: &str) -> u64 {
        self.stats()["paths"][target]["requests"].as_u64().unwrap_or_default()
    }

    /// Body bytes sent for `target`, its query included.
    pub(crate) fn bytes_for(&self, target: &str) -> u64 {
        self.stats()["paths"][target]["body_bytes"].as_u64().unwrap_or_default()
    }

    fn stats(&self) -> Value {
        let reply = Client::new(&self.url).get("/_origin/stats").unwrap();
        serde_json::from_slice(&reply.body).unwrap()
    }
}
