//! The benchmark of the edge beside real servers, and its documentation.

use std::{collections::BTreeSet, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{
    documented::{documented, keys},
    support::{end, loadtest, start},
};

const DOCUMENT: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/loadtest-http-json.md"));

/// What is measured with is no part of a build.
fn is_here(programs: &[&str]) -> bool {
    let folders = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
    let found = |name: &&str| {
        folders.split(':').any(|folder| std::path::Path::new(folder).join(name).is_file())
    };
    let many = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
    many && programs.iter().all(found)
}

#[tokio::test]
async fn everybody_is_measured_and_every_key_is_documented() {
    if !is_here(&["nginx", "varnishd", "wrk", "h2load", "taskset"]) {
        println!("needs two processors and what `ci/deps.sh http` installs: not run");
        return;
    }
    let line = "http --tls --objects 1KiB,300KiB --duration 1s --rounds 1 --connections 4 --idle 50 \
                --misses 20 --json";
    let said = loadtest(line).await;
    assert_eq!(said.code, 0, "{said:?}");
    let report = said.json();
    let runs = report["results"]["medians"].as_array().unwrap();
    // Varnish speaks no TLS.
    assert_eq!(runs.len(), 2 * (4 + 4 + 2), "{report}");
    assert!(runs.iter().all(|run| run["requests_per_s"].as_f64().unwrap() > 10.0), "{report}");
    assert_eq!(report["results"]["misses"].as_array().unwrap().len(), 4, "{report}");
    assert_eq!(report["results"]["idle"].as_array().unwrap().len(), 3, "{report}");

    let mut found = BTreeSet::new();
    keys(&report, "", &mut found);
    let documented = documented(DOCUMENT);
    let undocumented: Vec<_> = found.difference(&documented).collect();
    assert!(undocumented.is_empty(), "not in docs/loadtest-http-json.md: {undocumented:?}");
    let vanished: Vec<_> = documented.difference(&found).collect();
    assert!(vanished.is_empty(), "documented, but not reported: {vanished:?}");
}

/// Processes whose command line names the folder.
fn processes_in(folder: &str) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(folder)).count()
}

#[tokio::test]
async fn ctrl_c_takes_down_all_processes() {
    if !is_here(&["nginx", "wrk", "h2load", "taskset"]) {
        println!("needs two processors and what `ci/deps.sh http` installs: not run");
        return;
    }
    let line = "http --against nginx --objects 1KiB --duration 10m --idle 0 --misses 0 --json";
    let mut child = start(&line.split(' ').collect::<Vec<_>>());
    let pid = child.id().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut heard = String::new();
    while !heard.contains("round 1") {
        heard = said.next_line().await.unwrap().expect("it ended before it began");
    }
    let own = format!("/shoal-http-{pid}-");
    assert!(processes_in(&own) >= 4, "two nginx, a node, a super-node");
    let of = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    kill_process(of, Signal::INT).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), end(child)).await;
    assert_eq!(ended.expect("it does not end").code, 1);
    let mut looks = 0;
    while processes_in(&own) > 0 {
        looks += 1;
        assert!(looks < 100, "processes are left behind");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn what_cannot_be_measured_is_said() {
    let said = loadtest("http --cores 4096").await;
    assert_eq!(said.code, 64, "{said:?}");
    let said = loadtest("http --cores 64 --objects 1KiB").await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("--cores 64"), "{}", said.err);
}
