//! What the benchmark of the index found, for people and for programs. Knows nothing of processes
//! and members: it shows what it is given.

pub mod document;
pub mod html;
pub mod table;

pub use document::IndexReport;
