//! Errors by what the caller should do about them, and how they travel in a gRPC status.

use prost::Message;
use tonic::{Code, Status};

use crate::wire::v1;

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The same call may go through later or elsewhere.
    Retry,
    /// Somebody else is to be asked.
    Redirect,
    /// The call is wrong and stays wrong.
    Invalid,
    /// What was asked for is not there.
    NotFound,
    /// The caller is not who it says it is, or may not do this.
    Denied,
    /// Stored or received bytes do not match their hash.
    Corrupt,
    /// The other side is shutting down.
    Closed,
    /// A fault of Shoal's own.
    Bug,
}

impl ErrorKind {
    const ALL: [(Self, &'static str, Code); 8] = [
        (Self::Retry, "retry", Code::Unavailable),
        (Self::Redirect, "redirect", Code::FailedPrecondition),
        (Self::Invalid, "invalid", Code::InvalidArgument),
        (Self::NotFound, "not-found", Code::NotFound),
        (Self::Denied, "denied", Code::PermissionDenied),
        (Self::Corrupt, "corrupt", Code::DataLoss),
        (Self::Closed, "closed", Code::Aborted),
        (Self::Bug, "bug", Code::Internal),
    ];

    /// Its stable name on the wire and in metrics.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or("bug", |(_, name, _)| name)
    }

    fn code(self) -> Code {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or(Code::Internal, |(.., c)| *c)
    }
}

/// An error from another member, or on the way to it.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}: {message}", kind.name())]
pub struct RpcError {
    /// What to do about it.
    pub kind: ErrorKind,
    /// What happened.
    pub message: String,
    /// Whom to ask instead, for [`ErrorKind::Redirect`]; empty when unknown.
    pub address: String,
}

impl RpcError {
    /// An error with no address.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), address: String::new() }
    }

    /// "Ask `address` instead"; empty when nobody is known.
    pub fn redirect(message: impl Into<String>, address: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Redirect, message: message.into(), address: address.into() }
    }
}

impl From<RpcError> for Status {
    fn from(error: RpcError) -> Self {
        let detail = v1::ErrorDetail { kind: error.kind.name().to_owned(), address: error.address };
        Status::with_details(error.kind.code(), error.message, detail.encode_to_vec().into())
    }
}

impl From<Status> for RpcError {
    fn from(status: Status) -> Self {
        let detail = v1::ErrorDetail::decode(status.details()).unwrap_or_default();
        let named = ErrorKind::ALL.iter().find(|(_, name, _)| *name == detail.kind);
        // A status without our detail comes from the transport: connection lost, deadline passed.
        let kind = named.map_or_else(|| kind_of(status.code()), |(kind, ..)| *kind);
        Self { kind, message: status.message().to_owned(), address: detail.address }
    }
}

fn kind_of(code: Code) -> ErrorKind {
    match code {
        Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => ErrorKind::Invalid,
        Code::NotFound => ErrorKind::NotFound,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Denied,
        Code::DataLoss => ErrorKind::Corrupt,
        _ => ErrorKind::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_wire() {
        for (kind, ..) in ErrorKind::ALL {
            let sent = RpcError { kind, message: "why".into(), address: "10.0.0.1:7400".into() };
            assert_eq!(RpcError::from(Status::from(sent.clone())), sent);
        }
    }

    #[test]
    fn a_transport_error_is_worth_a_retry() {
        let lost = RpcError::from(Status::unknown("connection reset"));
        assert_eq!(lost.kind, ErrorKind::Retry);
    }
}
