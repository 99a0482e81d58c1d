//! The super-node tier.

pub mod index;
