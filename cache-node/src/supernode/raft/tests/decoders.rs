//! What super-nodes send one another and keep on disk, from arbitrary bytes: refused or read, never
//! a panic, and what is read is what was written.

use std::path::Path;

use proptest::prelude::*;
use shoal_proto::wire::v1;

use crate::rpc::arbitrary::{decoded, message_bytes};
use crate::supernode::raft::snapshot::check_manifest;
use crate::supernode::raft::wire;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn messages_are_refused_or_read(bytes in message_bytes()) {
        if let Some(Ok(entry)) = decoded::<v1::LogEntry>(&bytes).map(wire::entry_from) {
            let again = wire::entry_from(wire::entry_to(entry.clone()));
            prop_assert_eq!(again.map(|entry| entry.log_id), Ok(entry.log_id));
        }
        if let Some(Ok(members)) = decoded::<v1::Membership>(&bytes).map(wire::members_from) {
            prop_assert_eq!(wire::members_from(wire::members_to(&members)), Ok(members));
        }
        if let Some(Ok(meta)) = decoded::<v1::AppliedState>(&bytes).map(wire::meta_from) {
            prop_assert_eq!(wire::meta_from(wire::meta_to(&meta)), Ok(meta));
        }
        let _ = decoded::<v1::AppendRequest>(&bytes).map(wire::append_from);
        let _ = decoded::<v1::AppendReply>(&bytes).map(wire::appended_from);
        let _ = decoded::<v1::VoteRequest>(&bytes).map(wire::vote_request_from);
        let _ = decoded::<v1::VoteReply>(&bytes).map(wire::vote_reply_from);
    }

    #[test]
    fn a_snapshots_manifest_names_nothing_outside_its_directory(bytes in message_bytes()) {
        let manifest = decoded::<v1::SnapshotManifest>(&bytes);
        if let Some(manifest) = manifest.filter(|manifest| check_manifest(manifest).is_ok()) {
            for file in &manifest.files {
                let path = Path::new("/a/b").join(&file.name);
                prop_assert_eq!(path.parent(), Some(Path::new("/a/b")));
                prop_assert!(!file.name.contains(['/', '\\', '\0']) && file.name != "..");
            }
        }
    }
}
