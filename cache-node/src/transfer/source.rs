//! What chunks are read from for other nodes: an object that is stored, or one that grows.

use std::sync::Arc;

use bytes::Bytes;
use tonic::Status;

use super::live::{End, Live};
use super::server::store_error;
use crate::store::{StoreError, StoredObject};

/// An object to read chunks of.
#[derive(Clone)]
pub(super) enum Source {
    /// Whole.
    Stored(Arc<StoredObject>),
    /// Some of it is there.
    Growing(Arc<Live>),
}

impl Source {
    /// How many chunks it has; `None` while that is not known.
    pub(super) fn chunk_count(&self) -> Option<u32> {
        match self {
            Self::Stored(stored) => Some(stored.manifest().chunk_count()),
            Self::Growing(live) => live.chunk_count(),
        }
    }

    /// A chunk; `None` when it is not there yet.
    pub(super) async fn read(&self, index: u32) -> Result<Option<Bytes>, Status> {
        let read = match self {
            Self::Stored(stored) => stored.read_chunk(index).await.map(|(data, _)| data),
            Self::Growing(live) => match live.end() {
                Some(End::Done(stored)) => stored.read_chunk(index).await.map(|(data, _)| data),
                _ => live.read_chunk(index).await,
            },
        };
        match read {
            Ok(data) => Ok(Some(data)),
            Err(StoreError::NoChunk { .. }) => Ok(None),
            Err(error) => Err(store_error(error)),
        }
    }
}
