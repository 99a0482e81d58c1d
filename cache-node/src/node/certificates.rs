//! Looks for a member's new certificate, so that it is replaced without a restart.

use std::time::Duration;

use crate::tasks;
use crate::tls::Security;

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Takes in what the files say, again and again, for as long as it is polled. A set of files that does
/// not fit together is told of once, and not used.
pub(super) async fn follow(security: Security) {
    let mut refused: Option<String> = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let looked = {
            let security = security.clone();
            tasks::blocking("certificates", move || security.look()).await
        };
        let reason = match looked {
            Ok(Ok(changed)) => {
                if changed {
                    tracing::info!("this member has a new certificate");
                }
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(lost) => Some(lost.to_string()),
        };
        if reason != refused
            && let Some(reason) = &reason
        {
            tracing::warn!(reason, "this member's certificate stays as it was");
        }
        refused = reason;
    }
}
