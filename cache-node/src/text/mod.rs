//! PURE. What people write and read on a terminal: sizes, durations, tables, suggestions. Must not
//! know what the figures mean.

pub mod cache_status;
pub mod suggest;
pub mod table;
pub mod units;
