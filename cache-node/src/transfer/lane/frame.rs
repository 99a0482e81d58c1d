//! PURE. Frames' headers, and what may be in them.

use prost::Message;
use shoal_proto::RpcError;
use shoal_proto::limits::{CHUNK_BYTES_MAX, CHUNK_RANGES_MAX};
use tonic::{Code, Status};

/// Bytes of a header.
pub(in crate::transfer) const HEADER_BYTES: usize = 16;
/// Longest request: its ranges, a key, an id, a growth.
const ASK_BYTES_MAX: u32 = 16 * CHUNK_RANGES_MAX as u32 + 1_024;
/// Longest refusal.
const REFUSED_BYTES_MAX: u32 = 8 * 1024;
/// Longest message of a refusal, in characters.
const MESSAGE_CHARS_MAX: usize = 1_024;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transfer) enum Kind {
    Ask,
    Cancel,
    Chunk,
    End,
    Refused,
}

impl Kind {
    const ALL: [(Self, u8, u32); 5] = [
        (Self::Ask, 1, ASK_BYTES_MAX),
        (Self::Cancel, 2, 0),
        (Self::Chunk, 3, CHUNK_BYTES_MAX),
        (Self::End, 4, 0),
        (Self::Refused, 5, REFUSED_BYTES_MAX),
    ];
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transfer) struct Header {
    pub(in crate::transfer) kind: Kind,
    pub(in crate::transfer) number: u32,
    pub(in crate::transfer) index: u32,
    pub(in crate::transfer) length: u32,
}

/// A header that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::transfer) enum BadFrame {
    #[error("a frame of kind {0}; expected 1 to 5")]
    Kind(u8),
    #[error("a frame of {length} bytes; expected at most {most}")]
    Length { length: u32, most: u32 },
    #[error("{0}")]
    Order(&'static str),
}

impl BadFrame {
    /// What its sender is told of it, and what is counted.
    pub(in crate::transfer) fn status(self) -> Status {
        match self {
            Self::Length { .. } => Status::out_of_range(self.to_string()),
            Self::Kind(_) | Self::Order(_) => Status::internal(self.to_string()),
        }
    }
}

impl Header {
    /// A header of what has no index.
    pub(in crate::transfer) fn of(kind: Kind, number: u32, length: usize) -> Self {
        Self { kind, number, index: 0, length: u32::try_from(length).unwrap_or(u32::MAX) }
    }

    /// As it is sent.
    pub(in crate::transfer) fn encode(self) -> [u8; HEADER_BYTES] {
        let kind = Kind::ALL.iter().find(|(kind, ..)| *kind == self.kind);
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = kind.map_or(0, |(_, code, _)| *code);
        let numbers = [self.number, self.index, self.length];
        for (to, number) in bytes[4..].chunks_exact_mut(4).zip(numbers) {
            to.copy_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    /// What was sent, unless it may not be.
    pub(in crate::transfer) fn decode(bytes: [u8; HEADER_BYTES]) -> Result<Self, BadFrame> {
        let [code, _, _, _, n0, n1, n2, n3, i0, i1, i2, i3, l0, l1, l2, l3] = bytes;
        let kind = Kind::ALL.iter().find(|(_, known, _)| *known == code);
        let (kind, _, most) = *kind.ok_or(BadFrame::Kind(code))?;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        if length > most {
            return Err(BadFrame::Length { length, most });
        }
        let number = u32::from_be_bytes([n0, n1, n2, n3]);
        Ok(Self { kind, number, index: u32::from_be_bytes([i0, i1, i2, i3]), length })
    }
}

/// A refusal, as gRPC's status has it.
#[derive(Clone, PartialEq, Eq, Message)]
pub(in crate::transfer) struct Refused {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(bytes = "bytes", tag = "3")]
    details: bytes::Bytes,
}

impl From<&Status> for Refused {
    fn from(status: &Status) -> Self {
        let message = status.message().chars().take(MESSAGE_CHARS_MAX).collect();
        let details = bytes::Bytes::copy_from_slice(status.details());
        Self { code: status.code() as i32, message, details }
    }
}

impl From<Refused> for RpcError {
    fn from(refused: Refused) -> Self {
        let Refused { code, message, details } = refused;
        Status::with_details(Code::from_i32(code), message, details).into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_proto::ErrorKind;

    use super::*;

    #[test]
    fn a_refusal_is_the_error_that_it_was() {
        let sent = RpcError::new(ErrorKind::NotFound, "no such object here");
        let refused = Refused::from(&Status::from(sent.clone())).encode_to_vec();
        assert_eq!(RpcError::from(Refused::decode(&*refused).unwrap()), sent);
    }

    #[test]
    fn what_is_longer_than_it_may_be_is_no_frame() {
        for (kind, _, most) in Kind::ALL {
            let header = Header { kind, number: 7, index: 9, length: most };
            assert_eq!(Header::decode(header.encode()), Ok(header));
            let longer = Header { length: most + 1, ..header }.encode();
            let refused = Header::decode(longer).unwrap_err();
            assert_eq!(refused.status().code(), Code::OutOfRange);
        }
        let unknown = Header::decode([9; HEADER_BYTES]).unwrap_err();
        assert_eq!((unknown, unknown.status().code()), (BadFrame::Kind(9), Code::Internal));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_a_bounded_frame_or_none(bytes in any::<[u8; HEADER_BYTES]>()) {
            if let Ok(header) = Header::decode(bytes) {
                prop_assert!(header.length <= CHUNK_BYTES_MAX);
            }
        }
    }
}
