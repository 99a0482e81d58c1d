//! `kubectl` and `helm` as processes, as people use them, and waiting by the clock.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::settings::Settings;

/// The namespace of the cluster, its origin and its load.
pub(crate) const NAMESPACE: &str = "shoal-proof";
/// The namespace of the operator.
pub(crate) const OPERATOR: &str = "shoal-system";
/// The cluster's name.
pub(crate) const CLUSTER: &str = "demo";
/// The pool's name.
pub(crate) const POOL: &str = "edge";
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(1_500);

/// The Kubernetes cluster.
pub(crate) struct Kube {
    pub(crate) settings: Settings,
}

/// Time since something began.
pub(crate) struct Watch(Instant);

impl Watch {
    #[expect(clippy::disallowed_methods, reason = "a test waits by the clock")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

pub(crate) fn sleep_s(seconds: u64) {
    sleep(Duration::from_secs(seconds));
}

fn run(program: &str, args: &[&str], input: &str) -> Result<String, String> {
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| format!("{program}: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // What it does not read it does not want.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("{program} {}: {said}", args.join(" ")))
}

impl Kube {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// `kubectl` in the proof's namespace.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        run("kubectl", &[&["--namespace", NAMESPACE], args].concat(), "")
    }

    pub(crate) fn helm(&self, args: &[&str], values: &Value) -> Result<String, String> {
        run("helm", &[args, &["--values", "-"]].concat(), &values.to_string())
    }

    pub(crate) fn apply(&self, objects: &[Value]) -> Result<(), String> {
        let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        let args = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        run("kubectl", &args, &list.to_string()).map(|_| ())
    }

    /// The objects of a kind; none while the server does not answer.
    pub(crate) fn list(&self, kind: &str, selector: &str) -> Vec<Value> {
        let text = self.kubectl(&["get", kind, "-l", selector, "-o", "json"]).unwrap_or_default();
        let list: Value = serde_json::from_str(&text).unwrap_or_default();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    pub(crate) fn get(&self, kind: &str, name: &str) -> Value {
        let text = self.kubectl(&["get", kind, name, "-o", "json"]).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    pub(crate) fn patch(&self, kind: &str, name: &str, patch: &Value) -> Result<(), String> {
        let patch = patch.to_string();
        self.kubectl(&["patch", kind, name, "--type=merge", "-p", &patch]).map(|_| ())
    }

    /// Looks until `holds` says so.
    pub(crate) fn wait(
        &self,
        within_s: f64,
        what: &str,
        mut holds: impl FnMut() -> Result<(), String>,
    ) -> Result<(), String> {
        let watch = Watch::start();
        loop {
            let Err(not_yet) = holds() else { return Ok(()) };
            if watch.seconds() > within_s {
                return Err(format!("{what} within {within_s} s: {not_yet}"));
            }
            sleep(LOOK_EVERY);
        }
    }

    /// Waits until the cluster and its pool are as wanted and up.
    pub(crate) fn settled(&self, within_s: f64) -> Result<(), String> {
        self.wait(within_s, "cluster and pool are not ready", || {
            self.is_ready("cachecluster", CLUSTER)?;
            self.is_ready("cachepool", POOL)
        })
    }

    /// Whether the object's condition Ready is true, and about what was applied last.
    pub(crate) fn is_ready(&self, kind: &str, name: &str) -> Result<(), String> {
        let object = self.get(kind, name);
        let generation = &object["metadata"]["generation"];
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let of = |which: &str| conditions.iter().find(|c| c["type"] == which).cloned();
        let ready = of("Ready").unwrap_or_default();
        let current = ready["observedGeneration"] == *generation && !generation.is_null();
        if current && ready["status"] == "True" {
            return Ok(());
        }
        let progress = of("Progressing").unwrap_or_default();
        Err(format!("{kind} {name}: {} {}", ready["message"], progress["message"]))
    }
}

/// An object's name.
pub(crate) fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// Whether a pod is ready and stays.
pub(crate) fn serves(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = |conditions: &Vec<Value>| {
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    pod["metadata"]["deletionTimestamp"].is_null() && conditions.is_some_and(ready)
}
