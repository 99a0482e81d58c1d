//! Losses under load: members killed, paused and restarted, lines cut in one or both directions,
//! disks that fill up. Whatever is lost, no client's request fails and no byte is wrong.
//!
//! Cut lines need network namespaces, and a full disk a small file system: both are made by the
//! tests themselves, which takes root. Without it those tests say so and end.

mod disks;
mod kills;
mod lab;
mod load;
mod modes;
mod partitions;
mod rolling;
mod selection;
