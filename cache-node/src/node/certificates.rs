//! Looks for new certificates, so that they are replaced without a restart.

use std::fmt::Display;
use std::time::Duration;

use crate::tasks;
use crate::tls::Security;

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Follows the files of this member's own identity.
pub(super) fn of_member(security: &Security) -> impl Future<Output = ()> + Send + use<> {
    let security = security.clone();
    follow("this member", move || security.look())
}

/// Takes in what the files of `whose` certificate say, again and again, for as long as it is polled;
/// `look` does it, and says whether they had changed. Files that cannot be used are told of once.
pub(super) async fn follow<E: Display + Send + 'static>(
    whose: &'static str,
    look: impl Fn() -> Result<bool, E> + Clone + Send + 'static,
) {
    let mut refused: Option<String> = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let reason = match tasks::blocking("certificates", look.clone()).await {
            Ok(Ok(changed)) => {
                if changed {
                    tracing::info!(whose, "there is a new certificate");
                }
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(lost) => Some(lost.to_string()),
        };
        if reason != refused
            && let Some(reason) = &reason
        {
            tracing::warn!(whose, reason, "the certificate stays as it was");
        }
        refused = reason;
    }
}
