//! The operator's own binary, as a process.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::plane::{Plane, free_port};

/// The operator's process.
pub(crate) struct Operator {
    child: Child,
    port: u16,
}

/// Where an operator works.
pub(crate) struct Place {
    pub(crate) kubeconfig: PathBuf,
    pub(crate) namespace: &'static str,
    pub(crate) admin_port: u16,
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Operator {
    pub(crate) fn start(plane: &Plane, name: &str, place: &Place) -> Self {
        let port = free_port();
        let log = plane.file(&format!("{name}.log"));
        let child = Command::new(env!("CARGO_BIN_EXE_shoal-operator"))
            .args([
                "run",
                "--namespaces",
                place.namespace,
                "--lease-namespace",
                place.namespace,
                "--identity",
                name,
            ])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--admin-port", &place.admin_port.to_string()])
            .args(["--log-level", "info,shoal_operator=debug"])
            .env("KUBECONFIG", &place.kubeconfig)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn();
        Self { child: child.unwrap(), port }
    }

    /// Status and text of one of its pages.
    pub(crate) fn page(&self, path: &str) -> (u16, String) {
        let output = Command::new("curl")
            .args(["-s", "-m", "5", "-w", "\n%{http_code}"])
            .arg(format!("http://127.0.0.1:{}{path}", self.port))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap_or(("", "0"));
        (status.parse().unwrap_or(0), body.to_owned())
    }

    pub(crate) fn figure(&self, name: &str) -> f64 {
        let (_, text) = self.page("/metrics");
        let own = text.lines().filter(|line| line.starts_with(name));
        own.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Asks it to end, and waits.
    pub(crate) fn end(mut self) -> bool {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap().success()
    }
}
