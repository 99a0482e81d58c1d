//! Super-nodes over real sockets with mutual TLS, asked by a real client.

mod agreement;
mod decoders;
mod keys;
mod purges;
mod recovery;
mod rig;
mod sessions;
mod sites;
mod strangers;
mod tiers;

use std::time::Duration;

/// For anything that must happen.
const PATIENCE: Duration = Duration::from_secs(30);
