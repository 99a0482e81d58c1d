//! What HTTP caching allows (RFC 9110, 9111, 5861, 9213): pure decisions over heads, in words that
//! the read path and the edge execute.
//!
//! Invariants: nothing here reads a clock (`now_ms` is an argument), opens a socket or keeps state;
//! arithmetic saturates; what cannot be parsed never makes a response fresher, more shareable or
//! longer lived. It must not know of tiers, peers, leases or connections.
//!
//! | module | purpose |
//! |---|---|
//! | [`site`] | origins, their host names and limits, validated |
//! | [`key`] | the identity of a cacheable response |
//! | [`hop`] | which headers travel, and which end here |
//! | [`directives`] | `Cache-Control`, `CDN-Cache-Control` |
//! | [`freshness`] | lifetime and age |
//! | [`storable`] | what may be stored |
//! | [`serve`] | what a stored response may be used for |
//! | [`conditional`] | preconditions, validators, updates by `304` |
//! | [`range`] | byte ranges |
//! | [`resume`] | going on with an object whose fetching broke off |
//! | [`label`] | what purges by prefix and tag match |
//! | [`named`] | what a URL names, for purges |
//! | [`invalidate`] | what an unsafe request invalidates |
//!
//! Chosen, where the RFCs leave a choice: no heuristic freshness; `Set-Cookie` and `Vary` are not
//! stored; client `Cache-Control` is ignored, lest anybody could bust the cache.
//! Not here: the choice among `Vary` variants.

pub mod conditional;
pub mod date;
pub mod directives;
pub mod freshness;
pub mod hop;
pub mod invalidate;
pub mod key;
pub mod label;
pub mod named;
pub mod range;
pub mod resume;
pub mod serve;
pub mod site;
pub mod storable;
mod structured;
