//! The operator as a whole: definitions, lease, controllers, listener; and how it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::context::Context;
use crate::controller;
use crate::health::{self, Readiness};
use crate::lease::{Election, LOOK_EVERY};
use crate::metrics::Metrics;
use crate::tasks::Tasks;

/// The lease's name.
const LEASE: &str = "shoal-operator";
/// Between two looks for the definitions.
const DEFINITIONS_EVERY: Duration = Duration::from_secs(10);
/// For everything to end.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// How the operator runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where `/livez`, `/readyz` and `/metrics` are.
    pub listen: SocketAddr,
    /// The namespaces that it looks after; all when empty.
    pub namespaces: Vec<String>,
    /// Where its lease is.
    pub lease_namespace: String,
    /// Its name among others.
    pub identity: String,
    /// Where members listen for control calls.
    pub admin_port: u16,
}

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no way to the API server.
    #[error("no API server: {0}; run it in a pod with a service account, or set KUBECONFIG")]
    Client(#[from] kube::Error),
    /// The configuration of the way there.
    #[error("no API server: {0}; run it in a pod with a service account, or set KUBECONFIG")]
    Infer(#[from] kube::config::InferConfigError),
    /// The operating system refused.
    #[error("{what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// Figures cannot be registered.
    #[error("figures: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Another has the lease now.
    #[error("the lease was lost; another operator may act now")]
    LostLease,
    /// A task ended that must not.
    #[error("a part of the operator ended; its log says why")]
    Ended,
}

/// Runs until a signal, or until it must not go on.
///
/// # Errors
/// When it cannot start, or must not go on.
pub async fn run(options: Options) -> Result<(), RunError> {
    let system = |what: &'static str| move |source| RunError::System { what, source };
    let mut terminate = signal(SignalKind::terminate()).map_err(system("signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("signals"))?;
    let metrics = Metrics::new()?;
    let (tell, ready) = watch::channel(Some("starting".to_owned()));
    let tasks = Tasks::new();
    let listening = health::serve(&tasks, options.listen, metrics.clone(), ready).await;
    let address = listening.map_err(system("the operator's listener"))?;
    tracing::info!(%address, identity = options.identity, "listening");
    let client = Client::try_from(kube::Config::infer().await?)?;
    let own = (options.identity.as_str(), options.lease_namespace.as_str());
    let mut election = Election::new(client.clone(), own.1, LEASE, own.0);
    definitions(&tasks, &client, &options, (metrics.clone(), tell));
    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = tasks.stopped() => Err(RunError::Ended),
        error = act(&tasks, &client, &options, (&metrics, &mut election)) => Err(error),
    };
    metrics.leading.set(0);
    // Nothing of ours acts any more when another may begin.
    if !tasks.shutdown(STOP_GRACE).await {
        tracing::warn!("some tasks did not end in time");
    }
    if ended.is_ok() {
        election.let_go().await;
    }
    ended
}

/// Looks for the definitions, and says whether there is anything to work on.
fn definitions(
    tasks: &Tasks,
    client: &Client,
    options: &Options,
    (metrics, tell): (Metrics, watch::Sender<Readiness>),
) {
    let (client, namespaces) = (client.clone(), options.namespaces.clone());
    tasks.spawn("definitions", async move {
        loop {
            let why = why_not(&client, &namespaces).await;
            metrics.definitions.set(i64::from(why.is_none()));
            if let Some(why) = &why
                && tell.borrow().as_ref() != Some(why)
            {
                tracing::warn!(why, "not ready");
            }
            let _ = tell.send(why);
            tokio::time::sleep(DEFINITIONS_EVERY).await;
        }
    });
}

async fn why_not(client: &Client, namespaces: &[String]) -> Readiness {
    match controller::missing_definitions(client, namespaces).await {
        Ok(missing) if missing.is_empty() => None,
        Ok(missing) => Some(format!(
            "the API server has no {}; apply deploy/crds, or let the chart do it",
            missing.join(", ")
        )),
        Err(error) => Some(format!("the API server does not say what it has: {error}")),
    }
}

/// Waits for the definitions and the lease, then acts for as long as it has the lease.
async fn act(
    tasks: &Tasks,
    client: &Client,
    options: &Options,
    (metrics, election): (&Metrics, &mut Election),
) -> RunError {
    while metrics.definitions.get() == 0 {
        tokio::time::sleep(LOOK_EVERY.min(DEFINITIONS_EVERY) / 5).await;
    }
    while !election.turn().await {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    metrics.leading.set(1);
    tracing::info!(identity = options.identity, "leading");
    let identity = options.identity.clone();
    let context = Context::new(client.clone(), metrics.clone(), options.admin_port, identity);
    let context = Arc::new(context);
    if options.namespaces.is_empty() {
        controller::start(tasks, &context, None);
    }
    for namespace in &options.namespaces {
        controller::start(tasks, &context, Some(namespace));
    }
    while election.turn().await {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    RunError::LostLease
}
