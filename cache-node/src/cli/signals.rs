//! What ends a long-running command: SIGTERM, SIGINT, SIGHUP, or the end of the process that
//! started it.

use std::future::Future;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::tasks;

/// Starts listening for signals, and returns the future of the first.
///
/// # Errors
/// When the operating system refuses.
pub(super) fn stop() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        let name = tokio::select! {
            () = heard(&mut terminate) => "SIGTERM",
            () = heard(&mut interrupt) => "SIGINT",
            () = heard(&mut hang_up) => "SIGHUP",
        };
        tracing::info!(signal = name, "stopping");
    })
}

async fn heard(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// The end of standard input, whose other end a parent holds: when the parent ends, however it
/// ends, the kernel closes it.
///
/// # Errors
/// When the operating system refuses a thread.
pub(super) fn parent_gone() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let gone = CancellationToken::new();
    let told = gone.clone();
    // A thread, not a task: a read from standard input cannot be cancelled, and must not keep the
    // runtime from ending.
    tasks::thread("parent", move || {
        // What comes in does not matter, nor how it ends.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        gone.cancel();
    })?;
    Ok(async move {
        told.cancelled().await;
        tracing::info!("the parent process is gone, stopping");
    })
}
