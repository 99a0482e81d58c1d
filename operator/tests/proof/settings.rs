//! What the variables say; `operator/tests/e2e/run.sh` sets them and says what they mean.

use std::path::PathBuf;

/// The settings of a run.
pub(crate) struct Settings {
    /// Names or parts of names of the steps; empty: all.
    steps: Vec<String>,
    /// The version that is installed, and the one that is upgraded to.
    pub(crate) versions: [String; 2],
    /// What goes before the images' names.
    pub(crate) registry: String,
    /// When images are pulled.
    pub(crate) pull_policy: String,
    /// The origin's image.
    pub(crate) nginx: String,
    /// Requests a second.
    pub(crate) rate: String,
    /// The folder for logs and results.
    pub(crate) out: PathBuf,
    /// Where the pods run, for the report.
    pub(crate) rung: String,
}

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|text| !text.is_empty()).unwrap_or_else(|| default.to_owned())
}

impl Settings {
    pub(crate) fn from_environment() -> Self {
        assert!(std::env::var_os("KUBECONFIG").is_some(), "KUBECONFIG names no cluster");
        let steps = variable("STEPS", "");
        let out = PathBuf::from(variable("E2E_OUT", "e2e"));
        std::fs::create_dir_all(&out).unwrap();
        Self {
            steps: steps
                .split(',')
                .map(|s| s.trim().to_owned())
                .filter(|s| !s.is_empty())
                .collect(),
            versions: [variable("E2E_VERSION", "0.1.0"), variable("E2E_NEXT", "0.2.0")],
            registry: variable("REGISTRY", ""),
            pull_policy: variable("E2E_PULL_POLICY", "IfNotPresent"),
            nginx: variable("E2E_NGINX", "nginx:1.29"),
            rate: variable("E2E_RATE", "60"),
            out,
            rung: variable("E2E_RUNG", "the cluster that KUBECONFIG names"),
        }
    }

    /// Whether a step is asked for.
    pub(crate) fn wants(&self, step: &str) -> bool {
        self.steps.is_empty() || self.names(step)
    }

    /// Whether it is asked for by name.
    pub(crate) fn names(&self, step: &str) -> bool {
        self.steps.iter().any(|part| step.contains(part.as_str()))
    }

    /// An image's whole name.
    pub(crate) fn image(&self, name: &str, version: &str) -> String {
        format!("{}:{version}", self.repository(name))
    }

    /// The same without the version.
    pub(crate) fn repository(&self, name: &str) -> String {
        match self.registry.trim_end_matches('/') {
            "" => name.to_owned(),
            registry => format!("{registry}/{name}"),
        }
    }
}
