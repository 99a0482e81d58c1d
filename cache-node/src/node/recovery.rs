//! Going on from one survivor of a tier that lost its majority: takes the data directory, so that no
//! process runs on it, and hands it to the tier's own recovery.

use std::path::Path;

use crate::identity::{Identity, IdentityError};
use crate::supernode::raft::recovery::{self, RecoveryError, Survivor};

pub use crate::supernode::raft::recovery::{Dropped, Prospect, Recovered};

/// Why a directory is not recovered.
#[derive(Debug, thiserror::Error)]
pub enum Unrecovered {
    /// The directory cannot be had.
    #[error(transparent)]
    Directory(#[from] IdentityError),
    /// Its data cannot be recovered.
    #[error(transparent)]
    Data(#[from] RecoveryError),
}

/// Says what recovering `data_dir` would do; changes nothing.
///
/// # Errors
/// When a process runs on it, or it must not be recovered.
pub async fn inspect(data_dir: &Path) -> Result<Prospect, Unrecovered> {
    let (_held, survivor) = survivor(data_dir)?;
    Ok(recovery::inspect(&survivor).await?)
}

/// Recovers `data_dir`, when `token` is what [`inspect`] gave.
///
/// # Errors
/// When a process runs on it, the facts have changed, or the disk fails.
pub async fn recover(data_dir: &Path, token: &str) -> Result<Recovered, Unrecovered> {
    let (_held, survivor) = survivor(data_dir)?;
    Ok(recovery::recover(&survivor, token).await?)
}

fn survivor(data_dir: &Path) -> Result<(Identity, Survivor), IdentityError> {
    let (held, facts) = Identity::reopen(data_dir)?;
    let survivor = Survivor {
        cluster_id: facts.cluster_id,
        node_id: held.node_id,
        name: facts.name,
        dir: data_dir.to_owned(),
    };
    Ok((held, survivor))
}
