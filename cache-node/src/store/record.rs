//! The catalog's rows about bodies, as they are written. PURE.
//!
//! Invariant: any bytes are read or refused, never believed beyond their shape.

use prost::Message;
use shoal_proto::ObjectId;

use super::absent::bytes_for;
use super::{FileId, charge};

/// Before the file number of a body without a record.
pub(super) const LEFTOVER_PREFIX: &[u8] = b"leftover/";
/// Before the file number and the chunk of a place in a file that may hold more than its record says.
pub(super) const HOLE_PREFIX: &[u8] = b"hole/";

/// Where a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a file of its own.
    File,
    /// In the catalog, or nowhere when it is empty.
    Inline,
}

/// What is known of an object without its manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) file: FileId,
    pub(super) place: Place,
    pub(super) object_id: ObjectId,
    pub(super) length: u64,
    pub(super) chunks: u32,
    /// Unix time in milliseconds at which it was finished.
    pub(super) stored_ms: u64,
    /// Bytes of the budget that it takes.
    pub(super) charge_bytes: u64,
    /// A bit for each chunk that is not here, as [`super::absent`] writes them.
    pub(super) absent: Vec<u8>,
    /// 0 where an earlier version wrote it.
    pub(super) chunk_size: u32,
}

impl Record {
    pub(super) fn row(&self) -> BodyRow {
        BodyRow { file: self.file, place: self.place }
    }
}

/// A body, as a leftover names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyRow {
    pub(super) file: FileId,
    pub(super) place: Place,
}

impl BodyRow {
    pub(super) fn key(self) -> Vec<u8> {
        [LEFTOVER_PREFIX, &self.file.0.to_be_bytes()].concat()
    }

    pub(super) fn value(self) -> [u8; 1] {
        [u8::from(self.place == Place::Inline)]
    }

    pub(super) fn read(key: &[u8], value: &[u8]) -> Option<Self> {
        let number = key.strip_prefix(LEFTOVER_PREFIX)?.try_into().ok()?;
        let place = if value == [1] { Place::Inline } else { Place::File };
        Some(Self { file: FileId(u64::from_be_bytes(number)), place })
    }
}

/// A place in a body file whose chunk is being written or given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HoleRow {
    pub(super) file: FileId,
    pub(super) chunk: u32,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

impl HoleRow {
    pub(super) fn key(self) -> Vec<u8> {
        [HOLE_PREFIX, &self.file.0.to_be_bytes(), &self.chunk.to_be_bytes()].concat()
    }

    pub(super) fn value(self) -> Vec<u8> {
        [self.offset.to_be_bytes(), self.bytes.to_be_bytes()].concat()
    }

    pub(super) fn read(key: &[u8], value: &[u8]) -> Option<Self> {
        let (file, chunk) = key.strip_prefix(HOLE_PREFIX)?.split_at_checked(8)?;
        let (offset, bytes) = value.split_at_checked(8)?;
        Some(Self {
            file: FileId(u64::from_be_bytes(file.try_into().ok()?)),
            chunk: u32::from_be_bytes(chunk.try_into().ok()?),
            offset: u64::from_be_bytes(offset.try_into().ok()?),
            bytes: u64::from_be_bytes(bytes.try_into().ok()?),
        })
    }
}

/// [`Record`] as it is written.
#[derive(Clone, PartialEq, Message)]
struct StoredRecord {
    #[prost(fixed64, tag = "1")]
    file: u64,
    #[prost(bool, tag = "2")]
    inline: bool,
    #[prost(bytes = "vec", tag = "3")]
    object_id: Vec<u8>,
    #[prost(uint64, tag = "4")]
    length: u64,
    #[prost(uint32, tag = "5")]
    chunks: u32,
    #[prost(uint64, tag = "6")]
    stored_ms: u64,
    /// 0 where an earlier version wrote it.
    #[prost(uint64, tag = "7")]
    charge_bytes: u64,
    #[prost(bytes = "vec", tag = "8")]
    absent: Vec<u8>,
    #[prost(uint32, tag = "9")]
    chunk_size: u32,
}

impl Record {
    pub(super) fn encode(&self) -> Vec<u8> {
        let stored = StoredRecord {
            file: self.file.0,
            inline: self.place == Place::Inline,
            object_id: self.object_id.as_bytes().to_vec(),
            length: self.length,
            chunks: self.chunks,
            stored_ms: self.stored_ms,
            charge_bytes: self.charge_bytes,
            absent: self.absent.clone(),
            chunk_size: self.chunk_size,
        };
        stored.encode_to_vec()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let stored = StoredRecord::decode(bytes).ok()?;
        let StoredRecord { length, chunks, absent, .. } = stored;
        if !absent.is_empty() && absent.len() != bytes_for(chunks) {
            return None;
        }
        Some(Self {
            file: FileId(stored.file),
            place: if stored.inline { Place::Inline } else { Place::File },
            object_id: ObjectId::try_from(&stored.object_id[..]).ok()?,
            length,
            chunks,
            stored_ms: stored.stored_ms,
            charge_bytes: match stored.charge_bytes {
                0 => charge::of_old_record(length, chunks),
                bytes => bytes,
            },
            absent,
            chunk_size: stored.chunk_size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_round_trips() {
        let record = Record {
            file: FileId(u64::MAX),
            place: Place::File,
            object_id: ObjectId::new([3; 32]),
            length: 1 << 36,
            chunks: 65_536,
            stored_ms: 1_764_000_000_000,
            charge_bytes: 1 << 37,
            absent: Vec::new(),
            chunk_size: 1 << 20,
        };
        assert_eq!(Record::decode(&record.encode()), Some(record.clone()));
        let some = Record { absent: vec![7; 8192], ..record.clone() };
        assert_eq!(Record::decode(&some.encode()), Some(some));
        let short = Record { absent: vec![7; 8191], ..record.clone() };
        assert_eq!(Record::decode(&short.encode()), None);
        let inline = Record { file: FileId(0), place: Place::Inline, length: 0, ..record.clone() };
        assert_eq!(Record::decode(&inline.encode()), Some(inline));
        assert_eq!(Record::decode(b"\xff"), None);
        assert_eq!(Record::decode(b""), None, "no object id");
        let old = Record { charge_bytes: 0, ..record };
        assert!(Record::decode(&old.encode()).unwrap().charge_bytes >= old.length);
    }

    proptest::proptest! {
        #[test]
        fn a_record_of_any_bytes_is_refused_or_read(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        ) {
            if let Some(record) = Record::decode(&bytes) {
                proptest::prop_assert_eq!(Record::decode(&record.encode()), Some(record));
            }
        }
    }

    #[test]
    fn a_hole_round_trips() {
        let (file, chunk) = (FileId(u64::MAX - 1), 65_535);
        let row = HoleRow { file, chunk, offset: 1 << 36, bytes: 1 << 20 };
        assert_eq!(HoleRow::read(&row.key(), &row.value()), Some(row));
        assert_eq!(HoleRow::read(b"hole/short", &[0]), None);
    }

    #[test]
    fn a_leftover_round_trips() {
        for place in [Place::File, Place::Inline] {
            let row = BodyRow { file: FileId(u64::MAX - 1), place };
            assert_eq!(BodyRow::read(&row.key(), &row.value()), Some(row));
        }
        assert_eq!(BodyRow::read(b"leftover/short", &[0]), None);
    }
}
