//! PURE. How the index lies in RocksDB: column families, keys and values.
//!
//! | family | key | value |
//! |---|---|---|
//! | `members` | `m` and a node id | a `MemberRecord` |
//! | `members` | `r` and the id of a retired super-node | the position at which it was |
//! | `members` | `s` and a slot | a `SlotRecord` |
//! | `heads` | an object key | an `IndexHead` |
//! | `holders` | an object reference | the slots of nodes that have all of it, see `slot_list` |
//! | `partial` | an object reference and a slot | a bitmap; void where `holders` has the slot |
//! | `fences` | a matcher | the newest position at which it was fenced |
//! | `sites` | `s` and a site's name | a `SiteDefinition` |
//! | `sites` | `r` and the name of a removed site | the position at which it was |
//! | `digest` | `running` | a position and the digest as of it, see `digest` |
//!
//! Numbers are big endian, so that keys sort as they count.

use shoal_proto::id::OBJECT_REF_BYTES;
use shoal_proto::{NodeId, ObjectKey, ObjectRef};

use super::slot_list::Slot;

use crate::fences::{Fenced, Matcher};

pub(super) const MEMBERS: &str = "members";
pub(super) const HEADS: &str = "heads";
pub(super) const HOLDERS: &str = "holders";
pub(super) const PARTIAL: &str = "partial";
pub(super) const FENCES: &str = "fences";
pub(super) const SITES: &str = "sites";
pub(super) const DIGEST: &str = "digest";

/// The column families that hold the index, all of it and nothing else.
pub const COLUMN_FAMILIES: [&str; 7] = [MEMBERS, HEADS, HOLDERS, PARTIAL, FENCES, SITES, DIGEST];

/// The only key of `digest`.
pub(super) const RUNNING: &[u8] = b"running";

const NODE_BYTES: usize = 8;
const SLOT_BYTES: usize = 2;

const MEMBER_TAG: u8 = b'm';
const RETIRED_TAG: u8 = b'r';
const SLOT_TAG: u8 = b's';
const SITE_TAG: u8 = b's';
const REMOVED_SITE_TAG: u8 = b'r';

/// A key of `partial`.
pub(super) type PartialKey = [u8; OBJECT_REF_BYTES + SLOT_BYTES];

pub(super) fn member_key(node: NodeId) -> [u8; 1 + NODE_BYTES] {
    tagged(MEMBER_TAG, node)
}

pub(super) fn slot_key(slot: Slot) -> [u8; 1 + SLOT_BYTES] {
    let [high, low] = slot.to_be_bytes();
    [SLOT_TAG, high, low]
}

/// The slot of a `slot_key`; `None` for other keys of the family.
pub(super) fn slot_of_key(key: &[u8]) -> Option<Slot> {
    let (&tag, rest) = key.split_first()?;
    let slot = rest.try_into().ok().map(Slot::from_be_bytes)?;
    (tag == SLOT_TAG && slot > 0).then_some(slot)
}

pub(super) fn retired_key(node: NodeId) -> [u8; 1 + NODE_BYTES] {
    tagged(RETIRED_TAG, node)
}

/// The super-node of a `retired_key`; `None` for other keys of the family.
pub(super) fn retired_node(key: &[u8]) -> Option<NodeId> {
    let (&tag, rest) = key.split_first()?;
    let node = rest.try_into().ok().map(u64::from_be_bytes)?;
    (tag == RETIRED_TAG).then_some(NodeId(node))
}

fn tagged(tag: u8, node: NodeId) -> [u8; 1 + NODE_BYTES] {
    let mut key = [tag; 1 + NODE_BYTES];
    key[1..].copy_from_slice(&node.0.to_be_bytes());
    key
}

/// Whether a key of `members` is a member's.
pub(super) fn is_member_key(key: &[u8]) -> bool {
    key.first() == Some(&MEMBER_TAG)
}

pub(super) fn site_key(name: &str) -> Vec<u8> {
    [&[SITE_TAG], name.as_bytes()].concat()
}

pub(super) fn removed_site_key(name: &str) -> Vec<u8> {
    [&[REMOVED_SITE_TAG], name.as_bytes()].concat()
}

/// The name in a `removed_site_key`; `None` for other keys of the family.
pub(super) fn removed_site(key: &[u8]) -> Option<String> {
    let (&tag, rest) = key.split_first()?;
    let name = String::from_utf8(rest.to_vec()).ok()?;
    (tag == REMOVED_SITE_TAG).then_some(name)
}

pub(super) fn partial_key(object: ObjectRef, slot: Slot) -> PartialKey {
    let mut key = [0; OBJECT_REF_BYTES + SLOT_BYTES];
    key[..OBJECT_REF_BYTES].copy_from_slice(&object.0);
    key[OBJECT_REF_BYTES..].copy_from_slice(&slot.to_be_bytes());
    key
}

/// The object and the slot of a `partial_key`.
pub(super) fn partial_parts(key: &[u8]) -> Option<(ObjectRef, Slot)> {
    let (object, slot) = key.split_first_chunk()?;
    Some((ObjectRef(*object), Slot::from_be_bytes(slot.try_into().ok()?)))
}

/// A key of `fences`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum FenceEntry {
    /// A fence, by what it matches.
    Fenced(Fenced),
    /// The newest fence that is no longer kept.
    Floor,
    /// Heads from before it are not looked at any more: fences that may cover them are not kept.
    HeadsFloor,
    /// No head is covered by a fence up to here.
    Checked,
}

/// Added to a matcher's tag for a soft fence: the capital letter.
const SOFT: u8 = b'a' - b'A';

impl FenceEntry {
    pub(super) fn encode(&self) -> Vec<u8> {
        let own = |tag: u8| vec![tag];
        let Fenced { matcher, soft } = match self {
            Self::Fenced(fenced) => fenced,
            Self::Floor => return own(b'f'),
            Self::HeadsFloor => return own(b'h'),
            Self::Checked => return own(b'c'),
        };
        let label = |label: &u64, site: &String| [&label.to_be_bytes(), site.as_bytes()].concat();
        let (tag, rest) = match matcher {
            Matcher::Key(key) => (b'k', key.as_bytes().to_vec()),
            Matcher::Site(site) => (b's', site.as_bytes().to_vec()),
            Matcher::Prefix(site, of) => (b'p', label(of, site)),
            Matcher::Tag(site, of) => (b't', label(of, site)),
        };
        [vec![if *soft { tag - SOFT } else { tag }], rest].concat()
    }

    pub(super) fn decode(key: &[u8]) -> Option<Self> {
        let (tag, rest) = key.split_first()?;
        match tag {
            b'f' => return Some(Self::Floor),
            b'h' => return Some(Self::HeadsFloor),
            b'c' => return Some(Self::Checked),
            _ => {}
        }
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let label = |bytes: &[u8]| {
            let (label, site) = bytes.split_first_chunk::<8>()?;
            Some((text(site)?, u64::from_be_bytes(*label)))
        };
        let matcher = match tag.to_ascii_lowercase() {
            b'k' => Matcher::Key(ObjectKey::try_from(rest).ok()?),
            b's' => Matcher::Site(text(rest)?),
            b'p' => label(rest).map(|(site, of)| Matcher::Prefix(site, of))?,
            b't' => label(rest).map(|(site, of)| Matcher::Tag(site, of))?,
            _ => return None,
        };
        Some(Self::Fenced(Fenced { matcher, soft: tag.is_ascii_uppercase() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_give_back_what_they_were_made_of() {
        let object = ObjectRef([7; OBJECT_REF_BYTES]);
        assert_eq!(partial_parts(&partial_key(object, 0x0102)), Some((object, 0x0102)));
        assert_eq!(partial_parts(&[7; OBJECT_REF_BYTES]), None);
        assert_eq!(slot_of_key(&slot_key(0x0102)), Some(0x0102));
        assert_eq!(slot_of_key(&slot_key(0)), None, "no slot is 0");
        assert_eq!(slot_of_key(&member_key(NodeId(1))), None);
        assert_eq!(retired_node(&retired_key(NodeId(9))), Some(NodeId(9)));
        assert_eq!(retired_node(&member_key(NodeId(9))), None);
        assert_eq!(removed_site(&removed_site_key("docs")), Some("docs".to_owned()));
        assert_eq!(removed_site(&site_key("docs")), None);
        assert!(is_member_key(&member_key(NodeId(1))) && !is_member_key(&slot_key(1)));
    }

    #[test]
    fn fences_round_trip() {
        let site = || "docs".to_owned();
        let matchers = [
            Matcher::Key(ObjectKey::new([1; 32])),
            Matcher::Site(site()),
            Matcher::Prefix(site(), 1),
            Matcher::Tag(site(), u64::MAX),
        ];
        let fences = matchers.into_iter().flat_map(|matcher| {
            [false, true].map(|soft| FenceEntry::Fenced(Fenced { matcher: matcher.clone(), soft }))
        });
        let others = [FenceEntry::Floor, FenceEntry::HeadsFloor, FenceEntry::Checked];
        for entry in fences.chain(others) {
            assert_eq!(FenceEntry::decode(&entry.encode()), Some(entry));
        }
        for wrong in [&b"k123"[..], b"", b"x", b"t1234567"] {
            assert_eq!(FenceEntry::decode(wrong), None);
        }
    }
}
