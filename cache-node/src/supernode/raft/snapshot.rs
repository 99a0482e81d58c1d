//! A snapshot's file: length-delimited records; what was applied, then every pair of the index's
//! column families, then a BLAKE3 digest of all before. The same bytes go over the wire.
//!
//! A file is read twice when it matters: once to check it whole, and only then to use it.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blake3::Hasher;
use prost::Message;
use rocksdb::{DB, IteratorMode, WriteBatch};
use shoal_proto::wire::v1;
use shoal_proto::wire::v1::snapshot_record::Record;

use super::disk::other;

/// Longest record, in bytes.
const RECORD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Written to the state database at once, in bytes.
const LOAD_BATCH_BYTES: usize = 1024 * 1024;
/// Buffer for reading and writing a file, in bytes.
const BUFFER_BYTES: usize = 1024 * 1024;
/// Longest length prefix, in bytes.
const PREFIX_BYTES_MAX: usize = 10;

/// An open snapshot. The open file stays readable when its name is gone.
#[derive(Clone, Debug)]
pub(super) struct SnapshotFile {
    pub(super) path: PathBuf,
    pub(super) file: Arc<File>,
}

impl SnapshotFile {
    /// The snapshot at `path`, if there is one.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => Ok(Some(Self { path: path.to_owned(), file: Arc::new(file) })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the snapshot holds, by its first record alone.
    pub(super) fn head(&self) -> io::Result<v1::AppliedState> {
        let mut records = Records::new(&self.file)?;
        head(records.next()?)
    }

    /// Reads the whole file and checks its digest; every pair goes to `each`.
    pub(super) fn check(
        &self,
        mut each: impl FnMut(v1::SnapshotPair) -> io::Result<()>,
    ) -> io::Result<v1::AppliedState> {
        let mut records = Records::new(&self.file)?;
        let applied = head(records.next()?)?;
        loop {
            let digest = records.hasher.finalize();
            match records.next()? {
                Record::Pair(pair) => each(pair)?,
                Record::Digest(found) if digest.as_bytes()[..] == found[..] => break,
                Record::Digest(_) => return Err(corrupt("its digest does not match")),
                Record::Applied(_) => return Err(corrupt("a second head")),
            }
        }
        match records.input.read(&mut [0])? {
            0 => Ok(applied),
            _ => Err(corrupt("bytes after the digest")),
        }
    }
}

fn head(record: Record) -> io::Result<v1::AppliedState> {
    match record {
        Record::Applied(applied) => Ok(applied),
        _ => Err(corrupt("no head")),
    }
}

fn corrupt(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("snapshot: {what}"))
}

struct Records<'a> {
    input: BufReader<&'a File>,
    hasher: Hasher,
}

impl<'a> Records<'a> {
    fn new(mut file: &'a File) -> io::Result<Self> {
        file.rewind()?;
        Ok(Self { input: BufReader::with_capacity(BUFFER_BYTES, file), hasher: Hasher::new() })
    }

    fn next(&mut self) -> io::Result<Record> {
        let mut prefix = Vec::with_capacity(PREFIX_BYTES_MAX);
        while prefix.last().is_none_or(|byte| byte & 0x80 != 0) {
            let mut byte = [0];
            self.input.read_exact(&mut byte)?;
            prefix.push(byte[0]);
            if prefix.len() > PREFIX_BYTES_MAX {
                return Err(corrupt("no length before a record"));
            }
        }
        let length = prost::decode_length_delimiter(&prefix[..]).map_err(other)?;
        if length > RECORD_BYTES_MAX {
            return Err(corrupt("a record is too long"));
        }
        let mut record = vec![0; length];
        self.input.read_exact(&mut record)?;
        self.hasher.update(&prefix).update(&record);
        let record = v1::SnapshotRecord::decode(&record[..]).map_err(other)?.record;
        record.ok_or_else(|| corrupt("an empty record"))
    }
}

struct Writer {
    out: BufWriter<File>,
    hasher: Hasher,
}

impl Writer {
    fn record(&mut self, record: Record) -> io::Result<()> {
        let bytes = v1::SnapshotRecord { record: Some(record) }.encode_length_delimited_to_vec();
        self.hasher.update(&bytes);
        self.out.write_all(&bytes)
    }
}

/// Writes `families` of `db`, as of `snapshot`, into a new file at `path`; durable on return.
pub(super) fn write(
    path: &Path,
    db: &DB,
    snapshot: &rocksdb::Snapshot<'_>,
    applied: v1::AppliedState,
    families: &[&str],
) -> io::Result<()> {
    let out = BufWriter::with_capacity(BUFFER_BYTES, File::create(path)?);
    let mut writer = Writer { out, hasher: Hasher::new() };
    writer.record(Record::Applied(applied))?;
    for name in families {
        let family = family(db, name)?;
        for item in snapshot.iterator_cf(family, IteratorMode::Start) {
            let (key, value) = item.map_err(other)?;
            writer.record(Record::Pair(v1::SnapshotPair {
                column_family: (*name).to_owned(),
                key: key.into(),
                value: value.into(),
            }))?;
        }
    }
    let digest = writer.hasher.finalize();
    writer.record(Record::Digest(digest.as_bytes().to_vec().into()))?;
    writer.out.into_inner().map_err(|error| error.into_error())?.sync_all()
}

/// Replaces `families` of `db` by what `file` holds. Not atomic: to be done again when interrupted.
pub(super) fn load(file: &SnapshotFile, db: &DB, families: &[&str]) -> io::Result<()> {
    for name in families {
        clear(db, name)?;
    }
    let mut batch = WriteBatch::default();
    file.check(|pair| {
        batch.put_cf(family(db, &pair.column_family)?, pair.key, pair.value);
        match batch.size_in_bytes() > LOAD_BATCH_BYTES {
            true => db.write(std::mem::take(&mut batch)).map_err(other),
            false => Ok(()),
        }
    })?;
    db.write(batch).map_err(other)
}

fn clear(db: &DB, name: &str) -> io::Result<()> {
    let family = family(db, name)?;
    let last = db.iterator_cf(family, IteratorMode::End).next().transpose().map_err(other)?;
    let Some((last, _)) = last else { return Ok(()) };
    let end = [&last[..], &[0]].concat();
    let mut batch = WriteBatch::default();
    batch.delete_range_cf(family, &[][..], &end[..]);
    db.write(batch).map_err(other)
}

/// The column family called `name`.
pub(super) fn family<'a>(db: &'a DB, name: &str) -> io::Result<&'a rocksdb::ColumnFamily> {
    db.cf_handle(name).ok_or_else(|| corrupt(&format!("column family {name:?} is unknown")))
}
