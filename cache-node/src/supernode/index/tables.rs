//! PURE. How the index lies in RocksDB: column families, keys and values.
//!
//! | family | key | value |
//! |---|---|---|
//! | `members` | `m` and a node id | a `MemberRecord` |
//! | `members` | `f` and the id of a node that will not be back | empty |
//! | `members` | `r` and the id of a retired super-node | the position at which it was |
//! | `heads` | an object key | an `IndexHead` |
//! | `holders` | an object id and a node id | empty when complete, else a bitmap |
//! | `held` | a node id and an object id | the object's key |
//! | `fences` | a matcher | the newest position at which it was fenced |
//!
//! Numbers are big endian, so that keys sort as they count.

use shoal_proto::id::HASH_BYTES;
use shoal_proto::{NodeId, ObjectId, ObjectKey};

pub(super) const MEMBERS: &str = "members";
pub(super) const HEADS: &str = "heads";
pub(super) const HOLDERS: &str = "holders";
pub(super) const HELD: &str = "held";
pub(super) const FENCES: &str = "fences";

/// The column families that hold the index, all of it and nothing else.
pub const COLUMN_FAMILIES: [&str; 5] = [MEMBERS, HEADS, HOLDERS, HELD, FENCES];

const NODE_BYTES: usize = 8;
/// Length of keys made of a hash and a node id.
pub(super) const PAIR_BYTES: usize = HASH_BYTES + NODE_BYTES;

const MEMBER_TAG: u8 = b'm';
const FORGOTTEN_TAG: u8 = b'f';
const RETIRED_TAG: u8 = b'r';

/// A key of `holders` or `held`.
pub(super) type Pair = [u8; PAIR_BYTES];

pub(super) fn member_key(node: NodeId) -> [u8; 1 + NODE_BYTES] {
    tagged(MEMBER_TAG, node)
}

pub(super) fn forgotten_key(node: NodeId) -> [u8; 1 + NODE_BYTES] {
    tagged(FORGOTTEN_TAG, node)
}

/// The node of a `forgotten_key`; `None` for other keys of the family.
pub(super) fn forgotten_node(key: &[u8]) -> Option<NodeId> {
    tagged_node(FORGOTTEN_TAG, key)
}

pub(super) fn retired_key(node: NodeId) -> [u8; 1 + NODE_BYTES] {
    tagged(RETIRED_TAG, node)
}

/// The super-node of a `retired_key`; `None` for other keys of the family.
pub(super) fn retired_node(key: &[u8]) -> Option<NodeId> {
    tagged_node(RETIRED_TAG, key)
}

fn tagged_node(wanted: u8, key: &[u8]) -> Option<NodeId> {
    let (&tag, rest) = key.split_first()?;
    (tag == wanted).then(|| node(rest)).flatten()
}

/// Whether a key of `members` is a member's.
pub(super) fn is_member_key(key: &[u8]) -> bool {
    key.first() == Some(&MEMBER_TAG)
}

fn tagged(tag: u8, node: NodeId) -> [u8; 1 + NODE_BYTES] {
    let mut key = [tag; 1 + NODE_BYTES];
    key[1..].copy_from_slice(&node.0.to_be_bytes());
    key
}

pub(super) fn holder_key(object: &ObjectId, node: NodeId) -> Pair {
    let mut key = [0; PAIR_BYTES];
    key[..HASH_BYTES].copy_from_slice(object.as_bytes());
    key[HASH_BYTES..].copy_from_slice(&node.0.to_be_bytes());
    key
}

pub(super) fn held_key(node: NodeId, object: &ObjectId) -> Pair {
    let mut key = [0; PAIR_BYTES];
    key[..NODE_BYTES].copy_from_slice(&node.0.to_be_bytes());
    key[NODE_BYTES..].copy_from_slice(object.as_bytes());
    key
}

/// The node of a `holder_key`.
pub(super) fn holder_node(key: &[u8]) -> Option<NodeId> {
    node(key.get(HASH_BYTES..)?)
}

/// The object of a `held_key`.
pub(super) fn held_object(key: &[u8]) -> Option<ObjectId> {
    ObjectId::try_from(key.get(NODE_BYTES..)?).ok()
}

fn node(bytes: &[u8]) -> Option<NodeId> {
    <[u8; NODE_BYTES]>::try_from(bytes).ok().map(|id| NodeId(u64::from_be_bytes(id)))
}

/// What a fence matches, as a key of `fences`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Fenced {
    Key(ObjectKey),
    Site(String),
    /// Not a matcher: the newest fence that is no longer kept.
    Floor,
    /// Not a matcher: the newest site's fence that is no longer kept.
    HeadsFloor,
}

impl Fenced {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (tag, rest): (u8, &[u8]) = match self {
            Self::Key(key) => (b'k', key.as_bytes()),
            Self::Site(site) => (b's', site.as_bytes()),
            Self::Floor => (b'f', &[]),
            Self::HeadsFloor => (b'h', &[]),
        };
        [&[tag], rest].concat()
    }

    pub(super) fn decode(key: &[u8]) -> Option<Self> {
        let (tag, rest) = key.split_first()?;
        match tag {
            b'k' => ObjectKey::try_from(rest).ok().map(Self::Key),
            b's' => String::from_utf8(rest.to_vec()).ok().map(Self::Site),
            b'f' => Some(Self::Floor),
            b'h' => Some(Self::HeadsFloor),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_give_back_what_they_were_made_of() {
        let object = ObjectId::new([7; 32]);
        let node = NodeId(0x0102_0304_0506_0708);
        assert_eq!(holder_node(&holder_key(&object, node)), Some(node));
        assert_eq!(held_object(&held_key(node, &object)), Some(object));
        assert_eq!(forgotten_node(&forgotten_key(node)), Some(node));
        assert_eq!(forgotten_node(&member_key(node)), None);
        assert_eq!(retired_node(&retired_key(node)), Some(node));
        assert_eq!(retired_node(&forgotten_key(node)), None);
        assert!(is_member_key(&member_key(node)));
    }

    #[test]
    fn fences_round_trip() {
        let key = Fenced::Key(ObjectKey::new([1; 32]));
        for fenced in [key, Fenced::Site("docs".into()), Fenced::Floor, Fenced::HeadsFloor] {
            assert_eq!(Fenced::decode(&fenced.encode()), Some(fenced));
        }
        assert_eq!(Fenced::decode(b"k123"), None);
    }
}
