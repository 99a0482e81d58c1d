//! The read path, top to bottom: memory, disk, peers, origin; one fill per key.

mod types;

pub use types::{
    BodyError, BodyStream, FetchError, FetchRequest, Fetched, FetchedObject, Lookup, OriginRequest,
    OriginResponse, RequestBody,
};
