//! The index's place in the state database. Stands in until the index itself is merged: it keeps
//! every batch of commands under its position, which is enough to see what was applied.

use std::sync::Arc;

use prost::Message;
use rocksdb::{DB, WriteBatch};
use shoal_proto::wire::v1;

/// The index's column families in the state database.
pub const COLUMN_FAMILIES: [&str; 1] = ["applied"];

/// The index could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The database failed.
    #[error("index: {0}")]
    Store(#[from] rocksdb::Error),
    /// A column family is missing.
    #[error("index: column family {0:?} is missing")]
    Missing(&'static str),
}

/// The replicated index.
pub struct Index {
    db: Arc<DB>,
}

impl Index {
    /// The index in `db`.
    ///
    /// # Errors
    /// When a column family is missing.
    pub fn open(db: Arc<DB>) -> Result<Self, IndexError> {
        let index = Self { db };
        index.family()?;
        Ok(index)
    }

    fn family(&self) -> Result<&rocksdb::ColumnFamily, IndexError> {
        let name = COLUMN_FAMILIES[0];
        self.db.cf_handle(name).ok_or(IndexError::Missing(name))
    }

    /// Adds the effects of `group` to `batch`.
    ///
    /// # Errors
    /// When the database fails.
    pub fn apply(
        &self,
        group: &[(u64, v1::CommandBatch)],
        batch: &mut WriteBatch,
    ) -> Result<Vec<Vec<v1::CommandReply>>, IndexError> {
        let family = self.family()?;
        let one = |(position, commands): &(u64, v1::CommandBatch)| {
            batch.put_cf(family, position.to_be_bytes(), commands.encode_to_vec());
            vec![v1::CommandReply::default(); commands.commands.len()]
        };
        Ok(group.iter().map(one).collect())
    }

    /// What [`Index::apply`] added last is written.
    pub fn committed(&self) {}

    /// The database was replaced under the index.
    ///
    /// # Errors
    /// When the database fails.
    pub fn reload(&self) -> Result<(), IndexError> {
        Ok(())
    }
}
