//! The edge over real sockets: raw bytes and an HTTP/2 client before it, real origins behind it.
//! The read path is the simplest that can be: a map of whole objects over the origin client.

mod answers;
mod connections;
mod failures;
mod floods;
mod hostile;
mod interim;
mod poison;
mod purge;
mod rig;
mod secure;
mod trailers;
mod tunnels;
