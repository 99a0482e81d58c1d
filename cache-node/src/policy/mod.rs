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
//! | [`address`] | which addresses an origin may have |
//! | [`key`] | the identity of a cacheable response |
//! | [`vary`] | which variant answers which request |
//! | [`hop`] | which headers travel, and which end here |
//! | [`rules`] | where the RFCs leave a choice: what a site chose |
//! | [`choices`] | what else a site chooses, as configured: keys, times, headers, paths |
//! | [`doors`] | who may purge by `PURGE`, which protocols connections may switch to |
//! | [`directives`] | `Cache-Control` and the targeted fields |
//! | [`surrogate`] | `Surrogate-Control` as one of them |
//! | [`freshness`] | lifetime and age |
//! | [`explain`] | where a lifetime comes from, for people |
//! | [`storable`] | what may be stored |
//! | [`serve`] | what a stored response may be used for |
//! | [`conditional`] | preconditions, validators, updates by `304` |
//! | [`range`] | byte ranges |
//! | [`resume`] | going on with an object whose fetching broke off |
//! | [`parts`] | large objects that are kept in parts |
//! | [`label`] | what purges by prefix and tag match |
//! | [`named`] | what a URL names, for purges |
//! | [`invalidate`] | what an unsafe request invalidates |
//!
//! Chosen, where the RFCs leave a choice: no heuristic freshness; `Set-Cookie` is not stored unless a
//! site says so; of a
//! client's `Cache-Control` counts only what costs the origin nothing, unless a site wants more.

pub mod address;
pub mod choices;
pub mod conditional;
pub mod date;
pub mod directives;
pub mod doors;
pub mod explain;
pub mod freshness;
#[cfg(test)]
mod headers_tests;
pub mod hop;
pub mod invalidate;
pub mod key;
pub mod label;
pub mod named;
pub mod parts;
pub mod range;
pub mod resume;
pub mod rules;
pub mod serve;
pub mod site;
pub mod storable;
mod structured;
pub mod surrogate;
pub mod vary;
