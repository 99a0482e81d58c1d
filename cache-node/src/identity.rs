//! Who this member is: a random id, drawn on the first start, kept in its data directory and
//! checked on every later one. A directory belongs to one member of one cluster, and to one process
//! at a time; a mismatch is refused before anything is changed.
//!
//! Must not know what else the data directory holds.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shoal_proto::{ClusterId, NodeId};

use crate::clock;
use crate::files::{self, FileError, FolderLock};
use crate::membership::ConfiguredRole;

/// The file in the data directory.
const IDENTITY_FILE: &str = "identity.json";

/// A member's identity, with its data directory held.
#[derive(Debug)]
pub struct Identity {
    /// Its number.
    pub node_id: NodeId,
    /// Its data directory.
    pub data_dir: PathBuf,
    _lock: FolderLock,
}

/// What configuration says the member is.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Its cluster.
    pub cluster_id: &'a ClusterId,
    /// Its name.
    pub name: &'a str,
    /// Its role.
    pub role: ConfiguredRole,
}

/// A data directory that this member cannot have.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The directory cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The directory is another's.
    #[error(
        "data directory {} belongs to {what} {recorded:?}, the configuration says {configured:?}; \
         use another node.data_dir, or set {key} back to {recorded:?}",
        path.display()
    )]
    Mismatch {
        /// The directory.
        path: PathBuf,
        /// Which fact differs.
        what: &'static str,
        /// The fact in the directory.
        recorded: String,
        /// The fact in the configuration.
        configured: String,
        /// The configuration's key for it.
        key: &'static str,
    },
    /// The file is not one that Shoal wrote.
    #[error(
        "{}: {reason}; restore the file, or move the data directory away to start as a new member",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system has no randomness to give.
    #[error("no random node id: {0}")]
    Random(std::io::Error),
}

impl IdentityError {
    /// Whether the configuration is at fault, not the machine.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Mismatch { .. })
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    cluster_id: String,
    node_id: String,
    name: String,
    role: String,
}

/// Whose an existing directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// Its name.
    pub name: String,
}

impl Identity {
    /// Takes an existing data directory for whom it belongs to.
    ///
    /// # Errors
    /// When it belongs to nobody, another process has it, or it cannot be read.
    pub fn reopen(data_dir: &Path) -> Result<(Self, Owner), IdentityError> {
        let path = data_dir.join(IDENTITY_FILE);
        let nobody = || unreadable(&path, "there is no such file: this is no data directory");
        read(&path)?.ok_or_else(nobody)?;
        let lock = FolderLock::take(data_dir)?;
        let record = read(&path)?.ok_or_else(nobody)?;
        let cluster_id = record.cluster_id.parse().map_err(|error| unreadable(&path, error))?;
        let node_id = node_id(&path, &record)?;
        let owner = Owner { cluster_id, name: record.name };
        Ok((Self { node_id, data_dir: data_dir.to_owned(), _lock: lock }, owner))
    }

    /// Takes `data_dir` for the member that `claim` names; makes both on a first start.
    ///
    /// # Errors
    /// When the directory is another member's, another process has it, or it cannot be written.
    pub fn open(data_dir: &Path, claim: Claim<'_>) -> Result<Self, IdentityError> {
        // A mismatch is found before even the lock file is touched.
        let path = data_dir.join(IDENTITY_FILE);
        if let Some(record) = read(&path)? {
            check(data_dir, &record, claim)?;
        }
        files::make_folder(data_dir)?;
        let lock = FolderLock::take(data_dir)?;
        let node_id = match read(&path)? {
            Some(record) => {
                check(data_dir, &record, claim)?;
                node_id(&path, &record)?
            }
            None => create(&path, claim)?,
        };
        Ok(Self { node_id, data_dir: data_dir.to_owned(), _lock: lock })
    }
}

fn create(path: &Path, claim: Claim<'_>) -> Result<NodeId, IdentityError> {
    let node_id = NodeId(clock::random_u64().map_err(IdentityError::Random)?);
    let record = Record {
        cluster_id: claim.cluster_id.to_string(),
        node_id: node_id.to_string(),
        name: claim.name.to_owned(),
        role: claim.role.name().to_owned(),
    };
    let mut text =
        serde_json::to_string_pretty(&record).map_err(|error| unreadable(path, error))?;
    text.push('\n');
    files::write_whole(path, text.as_bytes(), files::PLAIN_MODE)?;
    Ok(node_id)
}

fn read(path: &Path) -> Result<Option<Record>, IdentityError> {
    let Some(text) = files::read_small(path)? else {
        return Ok(None);
    };
    serde_json::from_str(&text).map(Some).map_err(|error| unreadable(path, error))
}

fn check(data_dir: &Path, record: &Record, claim: Claim<'_>) -> Result<(), IdentityError> {
    let Record { cluster_id, node_id: _, name, role } = record;
    let facts = [
        ("cluster", cluster_id, claim.cluster_id.as_str(), "cluster.id"),
        ("member", name, claim.name, "node.name"),
        ("role", role, claim.role.name(), "node.role"),
    ];
    match facts.into_iter().find(|(_, recorded, configured, _)| recorded != configured) {
        None => Ok(()),
        Some((what, recorded, configured, key)) => Err(IdentityError::Mismatch {
            path: data_dir.to_owned(),
            what,
            recorded: recorded.clone(),
            configured: configured.to_owned(),
            key,
        }),
    }
}

fn node_id(path: &Path, record: &Record) -> Result<NodeId, IdentityError> {
    match u64::from_str_radix(&record.node_id, 16) {
        Ok(id) if id != 0 => Ok(NodeId(id)),
        _ => Err(unreadable(path, format!("node_id {:?} is no id", record.node_id))),
    }
}

fn unreadable(path: &Path, reason: impl ToString) -> IdentityError {
    IdentityError::Unreadable { path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn open(
        data_dir: &Path,
        cluster: &str,
        name: &str,
        role: ConfiguredRole,
    ) -> Result<NodeId, String> {
        let cluster_id: ClusterId = cluster.parse().unwrap();
        let claim = Claim { cluster_id: &cluster_id, name, role };
        Identity::open(data_dir, claim).map(|id| id.node_id).map_err(|error| error.to_string())
    }

    #[test]
    fn an_identity_is_drawn_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("deep/data");
        let first = open(&data_dir, "a", "node-0", ConfiguredRole::Node).unwrap();
        assert_eq!(open(&data_dir, "a", "node-0", ConfiguredRole::Node), Ok(first));
        assert_eq!(fs::metadata(&data_dir).unwrap().permissions().mode() & 0o777, 0o700);
        let other =
            open(&folder.path().join("other"), "a", "node-1", ConfiguredRole::Node).unwrap();
        assert_ne!(first, other);
    }

    #[test]
    fn another_members_directory_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), "a", "node-0", ConfiguredRole::Node).unwrap();
        fs::remove_file(folder.path().join(files::LOCK_FILE)).unwrap();
        let before = fs::read(folder.path().join(IDENTITY_FILE)).unwrap();
        let claims = [
            ("b", "node-0", ConfiguredRole::Node, "cluster \"a\"", "cluster.id back to \"a\""),
            (
                "a",
                "node-1",
                ConfiguredRole::Node,
                "member \"node-0\"",
                "node.name back to \"node-0\"",
            ),
            ("a", "node-0", ConfiguredRole::Super, "role \"node\"", "node.role back to \"node\""),
        ];
        for (cluster, name, role, whose, remedy) in claims {
            let refused = open(folder.path(), cluster, name, role).unwrap_err();
            assert!(refused.contains(whose) && refused.contains(remedy), "{refused}");
        }
        assert_eq!(fs::read(folder.path().join(IDENTITY_FILE)).unwrap(), before);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn two_processes_never_share_a_directory() {
        let folder = tempfile::tempdir().unwrap();
        let cluster_id: ClusterId = "a".parse().unwrap();
        let claim = Claim { cluster_id: &cluster_id, name: "node-0", role: ConfiguredRole::Node };
        let held = Identity::open(folder.path(), claim).unwrap();
        let refused = Identity::open(folder.path(), claim).unwrap_err();
        assert!(matches!(refused, IdentityError::File(FileError::InUse { .. })), "{refused}");
        assert!(!refused.is_configuration());
        drop(held);
    }

    #[test]
    fn an_existing_directory_says_whose_it_is() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Identity::reopen(folder.path()).unwrap_err().to_string().contains("no data dir"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let node_id = open(folder.path(), "a", "s-0", ConfiguredRole::Super).unwrap();
        let (held, owner) = Identity::reopen(folder.path()).unwrap();
        assert_eq!(
            (held.node_id, owner.cluster_id.as_str(), &owner.name[..]),
            (node_id, "a", "s-0")
        );
        let refused = Identity::reopen(folder.path()).unwrap_err();
        assert!(matches!(refused, IdentityError::File(FileError::InUse { .. })), "{refused}");
    }

    #[test]
    fn a_spoilt_file_is_named_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        for spoilt in ["", "{}", r#"{"cluster_id":"a","node_id":"0","name":"n","role":"node"}"#] {
            fs::write(folder.path().join(IDENTITY_FILE), spoilt).unwrap();
            let refused = open(folder.path(), "a", "n", ConfiguredRole::Node).unwrap_err();
            assert!(refused.contains(IDENTITY_FILE) && refused.contains("move"), "{refused}");
        }
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let refused =
            open(Path::new("/proc/shoal/data"), "a", "n", ConfiguredRole::Node).unwrap_err();
        assert!(refused.contains("/proc/shoal/data"), "{refused}");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

        #[test]
        fn an_identity_file_of_any_bytes_is_refused_and_left_alone(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(IDENTITY_FILE);
            fs::write(&path, &bytes).unwrap();
            let cluster: ClusterId = "test".parse().unwrap();
            let claim = Claim { cluster_id: &cluster, name: "a", role: ConfiguredRole::Node };
            proptest::prop_assert!(Identity::open(folder.path(), claim).is_err());
            proptest::prop_assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    }
}
