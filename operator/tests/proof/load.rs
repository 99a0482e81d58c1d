//! The load, and its sums: lines of JSON that it writes each second, followed into a file.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::kube::{Kube, NAMESPACE};
use crate::objects;

const NAME: &str = "load";
/// The load sees failures up to its timeout after they were caused; what is in flight is waited for.
const LINE_WITHIN_S: f64 = 60.0;

/// The sums at one time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) verified: u64,
    pub(crate) failed: u64,
    pub(crate) wrong: u64,
    pub(crate) resent: u64,
    pub(crate) received_bytes: u64,
}

/// A load that runs.
pub(crate) struct Load<'a> {
    kube: &'a Kube,
    file: PathBuf,
    follower: Child,
    told: usize,
}

impl<'a> Load<'a> {
    pub(crate) fn start(kube: &'a Kube) -> Self {
        let _ = kube.kubectl(&["delete", "pod", NAME, "--ignore-not-found", "--wait"]);
        kube.apply(&[objects::load(kube, NAME)]).unwrap();
        let running = || match kube.get("pod", NAME)["status"]["phase"] == "Running" {
            true => Ok(()),
            false => Err("it does not run".to_owned()),
        };
        kube.wait(60.0, "the load", running).unwrap();
        let file = kube.settings.out.join("load.log");
        let log = File::create(&file).unwrap();
        let follower = Command::new("kubectl")
            .args(["--namespace", NAMESPACE, "logs", "--follow", NAME])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let load = Self { kube, file, follower, told: 0 };
        let begun = || match load.last() {
            Some(sums) if sums.verified > 0 => Ok(()),
            _ => Err("no request was answered".to_owned()),
        };
        kube.wait(60.0, "the load", begun).unwrap();
        load
    }

    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        let lines = text.lines().filter(|line| line.starts_with("{\"at_ms\""));
        lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn last(&self) -> Option<Sums> {
        let line = self.lines().pop()?;
        let count = |key: &str| line[key].as_u64().unwrap_or_default();
        Some(Sums {
            verified: count("verified"),
            failed: count("failed"),
            wrong: count("wrong"),
            resent: count("resent"),
            received_bytes: count("received_bytes"),
        })
    }

    /// The sums from now on: of the second that follows.
    pub(crate) fn sums(&self) -> Sums {
        let seen = self.lines().len();
        let more = || match self.lines().len() > seen {
            true => Ok(()),
            false => Err("it says nothing any more".to_owned()),
        };
        self.kube.wait(LINE_WITHIN_S, "the load", more).unwrap();
        self.last().unwrap_or_default()
    }

    /// Failures that were not taken yet.
    pub(crate) fn failures(&mut self) -> Vec<Value> {
        let lines = self.lines();
        let new = lines.iter().flat_map(|line| line["failures"].as_array().cloned());
        let all: Vec<Value> = new.flatten().collect();
        let fresh = all.get(self.told..).unwrap_or_default().to_vec();
        self.told = all.len();
        fresh
    }

    /// Ends it; its own report is the end of its log.
    pub(crate) fn stop(mut self) {
        let _ = self.kube.kubectl(&["delete", "pod", NAME, "--wait"]);
        let _ = self.follower.wait();
    }
}
