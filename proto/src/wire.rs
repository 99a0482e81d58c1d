//! The generated messages, and the only conversions between them and Shoal's own types. What a
//! conversion lets through is within the limits: nothing behind it checks again.

use crate::id::ObjectKey;
use crate::limits;
use crate::manifest::{Freshness, Header, Labels, Manifest, ObjectHead, hashes_from_wire};
use crate::{ErrorKind, RpcError};

/// The generated messages and services.
pub mod v1 {
    #![expect(missing_docs, reason = "generated; the .proto files hold the documentation")]
    #![expect(unused_qualifications, reason = "generated")]
    #![expect(clippy::excessive_nesting, reason = "generated")]
    #![expect(clippy::too_many_lines, reason = "generated")]
    #![expect(clippy::large_enum_variant, reason = "generated")]
    #![expect(clippy::allow_attributes, reason = "generated")]
    #![expect(clippy::allow_attributes_without_reason, reason = "generated")]
    tonic::include_proto!("shoal.v1");
}

/// A message that breaks a rule: names the field, its value and the rule.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("field {field} is {value}, expected {expected}")]
pub struct WireError {
    /// The field's name in the .proto file.
    pub field: &'static str,
    /// Its value, or its size when it is large.
    pub value: String,
    /// What would be right.
    pub expected: String,
}

impl WireError {
    /// An error about one field.
    pub fn field(field: &'static str, value: impl ToString, expected: impl Into<String>) -> Self {
        Self { field, value: value.to_string(), expected: expected.into() }
    }
}

impl From<WireError> for RpcError {
    fn from(error: WireError) -> Self {
        Self::new(ErrorKind::Invalid, error.to_string())
    }
}

impl From<WireError> for tonic::Status {
    fn from(error: WireError) -> Self {
        RpcError::from(error).into()
    }
}

/// A 32-byte identifier out of a message's field.
///
/// # Errors
/// When it is not 32 bytes long.
pub fn id_from<'a, T>(field: &'static str, bytes: &'a [u8]) -> Result<T, WireError>
where
    T: TryFrom<&'a [u8]>,
{
    T::try_from(bytes).map_err(|_| WireError::field(field, bytes.len(), "32 bytes"))
}

impl ObjectHead {
    pub(crate) fn check(&self) -> Result<(), WireError> {
        let block: usize = self.headers.iter().map(|h| h.name.len() + h.value.len()).sum();
        if self.headers.len() > limits::HEADERS_MAX || block > limits::HEADER_BLOCK_BYTES_MAX {
            return Err(WireError::field("headers", block, "at most 256 headers in 64 KiB"));
        }
        if self.site.len() > limits::NAME_BYTES_MAX {
            return Err(WireError::field("site", self.site.len(), "at most 128 bytes"));
        }
        if !(limits::CHUNK_BYTES_MIN..=limits::CHUNK_BYTES_MAX).contains(&self.chunk_size) {
            return Err(WireError::field("chunk_size", self.chunk_size, "256 KiB to 1 MiB"));
        }
        if !(100..1000).contains(&self.status) {
            return Err(WireError::field("status", self.status, "100 to 999"));
        }
        let bytes_max = u64::from(limits::CHUNKS_MAX) * u64::from(self.chunk_size);
        if self.length.is_some_and(|length| length > bytes_max) {
            let length = self.length.unwrap_or_default();
            return Err(WireError::field("length", length, "at most 65,536 chunks"));
        }
        Ok(())
    }
}

impl From<&ObjectHead> for v1::ObjectHead {
    fn from(head: &ObjectHead) -> Self {
        let ObjectHead {
            key,
            site,
            status,
            headers,
            length,
            chunk_size,
            freshness,
            fence_position,
            labels,
        } = head;
        let header = |h: &Header| v1::Header { name: h.name.clone(), value: h.value.clone() };
        Self {
            key: key.to_wire(),
            site: site.clone(),
            status: u32::from(*status),
            headers: headers.iter().map(header).collect(),
            length: *length,
            chunk_size: *chunk_size,
            freshness: Some(freshness.into()),
            fence_position: *fence_position,
            labels: labels_to_wire(labels),
        }
    }
}

impl TryFrom<v1::ObjectHead> for ObjectHead {
    type Error = WireError;

    fn try_from(wire: v1::ObjectHead) -> Result<Self, WireError> {
        let status = u16::try_from(wire.status)
            .map_err(|_| WireError::field("status", wire.status, "100 to 999"))?;
        let header = |h: v1::Header| Header { name: h.name, value: h.value };
        let head = Self {
            key: id_from::<ObjectKey>("key", &wire.key)?,
            site: wire.site,
            status,
            headers: wire.headers.into_iter().map(header).collect(),
            length: wire.length,
            chunk_size: wire.chunk_size,
            freshness: wire.freshness.as_ref().map(Freshness::from).unwrap_or_default(),
            fence_position: wire.fence_position,
            labels: labels_from(wire.labels.as_ref())?,
        };
        head.check()?;
        Ok(head)
    }
}

/// Labels as they travel; `None` where nobody knows them.
pub fn labels_to_wire(labels: &Labels) -> Option<v1::Labels> {
    let Labels { hashes, every_tag } = labels;
    let known = !hashes.is_empty() || *every_tag;
    known.then(|| v1::Labels { hashes: hashes.clone(), every_tag: *every_tag })
}

/// Labels out of a message's field.
///
/// # Errors
/// When there are too many.
pub fn labels_from(wire: Option<&v1::Labels>) -> Result<Labels, WireError> {
    let Some(v1::Labels { hashes, every_tag }) = wire else { return Ok(Labels::default()) };
    if hashes.len() > limits::LABELS_MAX {
        return Err(WireError::field("labels", hashes.len(), "at most 49 hashes"));
    }
    Ok(Labels { hashes: hashes.clone(), every_tag: *every_tag })
}

impl From<&Freshness> for v1::Freshness {
    fn from(f: &Freshness) -> Self {
        let Freshness {
            response_time_ms,
            initial_age_ms,
            lifetime_ms,
            validate_always,
            never_stale,
            stale_while_revalidate_ms,
            stale_if_error_ms,
        } = *f;
        Self {
            response_time_ms,
            initial_age_ms,
            lifetime_ms,
            validate_always,
            never_stale,
            stale_while_revalidate_ms,
            stale_if_error_ms,
        }
    }
}

impl From<&v1::Freshness> for Freshness {
    fn from(f: &v1::Freshness) -> Self {
        Self {
            response_time_ms: f.response_time_ms,
            initial_age_ms: f.initial_age_ms,
            lifetime_ms: f.lifetime_ms,
            validate_always: f.validate_always,
            never_stale: f.never_stale,
            stale_while_revalidate_ms: f.stale_while_revalidate_ms,
            stale_if_error_ms: f.stale_if_error_ms,
        }
    }
}

impl From<&Manifest> for v1::Manifest {
    fn from(manifest: &Manifest) -> Self {
        let joined: Vec<u8> = manifest.hashes().iter().flat_map(|hash| *hash.as_bytes()).collect();
        Self { head: Some(manifest.head().into()), chunk_hashes: joined.into() }
    }
}

impl TryFrom<v1::Manifest> for Manifest {
    type Error = WireError;

    fn try_from(wire: v1::Manifest) -> Result<Self, WireError> {
        let head = wire.head.ok_or_else(|| WireError::field("head", "missing", "a head"))?;
        let head = ObjectHead::try_from(head)?;
        let length =
            head.length.ok_or_else(|| WireError::field("length", "missing", "a length"))?;
        Self::new(head, length, hashes_from_wire(&wire.chunk_hashes)?)
    }
}

/// The facts of a member, checked against the limits.
///
/// # Errors
/// When the id is 0, a name is empty or too long, or the role is missing.
pub fn check_node_info(info: &v1::NodeInfo) -> Result<(), WireError> {
    if info.node_id == 0 {
        return Err(WireError::field("node_id", 0, "a number above 0"));
    }
    if info.role() == v1::Role::Unspecified {
        return Err(WireError::field("role", info.role, "node or super"));
    }
    let names = [("name", &info.name), ("zone", &info.zone), ("version", &info.version)];
    for (field, value) in names {
        if value.len() > limits::NAME_BYTES_MAX || (field == "name" && value.is_empty()) {
            return Err(WireError::field(field, format!("{value:?}"), "1 to 128 bytes"));
        }
    }
    let addresses = [
        ("cluster_address", &info.cluster_address),
        ("edge_address", &info.edge_address),
        ("admin_address", &info.admin_address),
    ];
    for (field, value) in addresses {
        if value.len() > limits::ADDRESS_BYTES_MAX {
            return Err(WireError::field(field, value.len(), "at most 256 bytes"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
