//! Chunks in frames of our own, on connections beside gRPC: what gRPC costs, a copy of each byte
//! more on either side, HTTP/2's frames and their bookkeeping, is most of what a transfer costs
//! (`docs/adr/0021`). Everything else that peers say to one another stays gRPC's.
//!
//! A frame is [`HEADER_BYTES`] of header and what the header says follows, numbers big-endian:
//!
//! | kind | from | number | index | length | then |
//! |---|---|---|---|---|---|
//! | 1 ask | caller | the request's, never used twice | 0 | of a `GetChunksRequest` | it |
//! | 2 cancel | caller | a request's | 0 | 0 | |
//! | 3 chunk | holder | a request's | the chunk's | the chunk's | it |
//! | 4 end | holder | a request's | 0 | 0 | |
//! | 5 refused | holder | a request's | 0 | of a `Refused` | it |
//!
//! Requests of a lane are answered one after the other, in the order in which they were made, each
//! by chunks and one end, or by one refusal. Chunks that are not there are left out.
//!
//! | file | purpose |
//! |---|---|
//! | `frame` | PURE: headers, and what may be in them |
//! | `server` | answers |
//! | `client` | asks; one lane a member |

mod client;
pub(super) mod frame;
pub(super) mod server;
#[cfg(test)]
mod tests;

pub use client::Lanes;
pub use server::LaneService;
