//! The operator against a real API server: what it accepts and refuses, and what it makes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod acts;
mod alone;
mod members;
mod operator;
mod plane;
mod rules;
