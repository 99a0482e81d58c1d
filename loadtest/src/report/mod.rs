//! The report of a run: one document, shown as a table, as JSON or as an HTML page.
//!
//! The three forms read the same [`Report`] and nothing else, so they cannot disagree. Its JSON
//! keys are documented in `docs/loadtest-json.md`; a test holds the two together.

pub mod compare;
pub mod document;
pub mod grid;
pub mod html;
pub mod index;
pub mod policy;
pub mod svg;
pub mod swarm;
pub mod table;
pub mod transfer;

pub use document::Report;
