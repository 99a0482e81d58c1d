//! Watches in which mode this member is, and shows it: log, metrics, status. The decision is
//! `membership::mode`'s; what follows from a mode is nobody's here.

use std::time::Duration;

use tokio::sync::watch;

use crate::clock;
use crate::membership::mode::{Mode, Modes, Shown, Sight};
use crate::metrics::ModeMetrics;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Looks again and again, for as long as it is polled.
pub(super) async fn watch(
    sight: impl Fn() -> Sight,
    shown: watch::Sender<Option<Shown>>,
    metrics: ModeMetrics,
) {
    let started = clock::monotonic();
    let mut modes = Modes::new(clock::unix_ms());
    loop {
        let now_ms = u64::try_from(clock::since(started).as_millis()).unwrap_or(u64::MAX);
        let changed = modes.on(now_ms, clock::unix_ms(), sight());
        let now = modes.shown();
        if changed {
            tracing::info!(mode = now.mode.name(), why = now.why, "the mode has changed");
            metrics.changed();
        }
        metrics.show(Mode::ALL.map(|mode| (mode.name(), mode == now.mode)));
        shown.send_if_modified(|before| {
            let differs = before.as_ref() != Some(now);
            if differs {
                *before = Some(now.clone());
            }
            differs
        });
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
