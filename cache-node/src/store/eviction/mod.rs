//! Who leaves first: size-aware S3-FIFO (Yang et al., "FIFO queues are all you need for cache
//! eviction", SOSP 2023), with all sizes and all bounds in bytes.
//!
//! Pure: no I/O, no clock, no randomness, no lock. It decides and forgets; the caller deletes.
//! The disk tier (objects) and the memory tier (chunks) use the same core.
//!
//! | queue | holds | leaves when |
//! |---|---|---|
//! | small | what came new, a tenth of the bytes | used again: to main; else out, to ghost |
//! | main | what was used again, or came back soon | not used since its last turn: out |
//! | ghost | fingerprints of what left small | used up, or half as many bytes again as the cache has left after it |
//!
//! Whoever asks may have a victim spared ([`S3Fifo::victim_sparing`]), a bounded number of times a
//! search: so last copies leave last. [`Departed`] remembers what a larger cache would still have.
//!
//! A scan of things asked for once passes through small and never pushes main out.
//!
//! Invariants: [`S3Fifo::bytes`] is the sum over all entries; a victim was an entry and is none
//! any more; a search for a victim ends after a bounded number of turns; what is held is no victim.
//! It must not know: files, objects, budgets, time.

mod ghost;
mod queue;
mod s3fifo;

pub use ghost::Departed;
pub use s3fifo::S3Fifo;

#[cfg(test)]
mod tests;
