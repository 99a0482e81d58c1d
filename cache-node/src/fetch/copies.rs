//! Giving away a copy of what is stored here, for a node that is about to leave.

use shoal_proto::{NodeId, ObjectId, ObjectKey};

use super::Fetcher;
use crate::transfer::{CopyRequest, Source};

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// The node takes a copy, of so many bytes.
    Taken(u64),
    /// It does not, or could not be asked.
    Refused,
    /// There is nothing to give: the object is gone, or a purge covers it.
    Gone,
}

impl Fetcher {
    /// Asks a node to take a copy of what is stored here.
    pub async fn give_copy(&self, key: ObjectKey, object: ObjectId, to: NodeId) -> Given {
        let stored = self.inner.store.get(&key).await.filter(|it| it.object_id() == object);
        let Some(stored) = stored else { return Given::Gone };
        let head = stored.manifest().head();
        if self.inner.directory.fenced(head) {
            return Given::Gone;
        }
        let view = self.inner.directory.view();
        let Some(member) = view.member(to) else { return Given::Refused };
        // What to ask the origin for is not known of what is stored: only its site is.
        let site = head.site.to_string();
        let (authority, target) = (String::new(), String::new());
        let source = Source { site, authority, target, part: None };
        let holder = self.inner.directory.node_id();
        let copy = CopyRequest { key, object: Some(object), holder, lease: None, source };
        match self.inner.peers.take_copy(member, copy).await {
            Ok(true) => Given::Taken(stored.manifest().length()),
            Ok(false) => Given::Refused,
            Err(error) => {
                tracing::debug!(peer = member.name, %error, "a copy was not taken");
                Given::Refused
            }
        }
    }
}
