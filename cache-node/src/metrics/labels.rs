//! The closed lists of what metrics' labels may say, and one counter for each.

use prometheus::{IntCounter, IntCounterVec};

/// Where the bytes of a response came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// This node's memory.
    Memory,
    /// This node's disk.
    Disk,
    /// Another node.
    Peer,
    /// The origin, to be cached.
    Origin,
    /// The origin, passed through uncached.
    Pass,
    /// Made here: errors, `304`.
    Edge,
}

impl Tier {
    /// All tiers, in the order of the read path.
    pub const ALL: [Self; 6] =
        [Self::Memory, Self::Disk, Self::Peer, Self::Origin, Self::Pass, Self::Edge];

    /// Its name in labels, `Cache-Status` and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Peer => "peer",
            Self::Origin => "origin",
            Self::Pass => "pass",
            Self::Edge => "edge",
        }
    }
}

/// One counter a tier.
#[derive(Clone, Debug)]
pub struct PerTier([IntCounter; Tier::ALL.len()]);

impl PerTier {
    pub(super) fn new(vec: &IntCounterVec) -> Self {
        Self(Tier::ALL.map(|tier| vec.with_label_values(&[tier.name()])))
    }

    /// The tier's counter.
    pub fn of(&self, tier: Tier) -> &IntCounter {
        &self.0[tier as usize]
    }
}

/// Why a control call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The member knows no token.
    NoTokens,
    /// The call brought none.
    TokenMissing,
    /// The call brought one that the member does not know.
    TokenUnknown,
    /// The token does not allow it.
    Scope,
    /// The call itself is wrong.
    Invalid,
}

impl Refusal {
    const ALL: [Self; 5] =
        [Self::NoTokens, Self::TokenMissing, Self::TokenUnknown, Self::Scope, Self::Invalid];

    /// Its name in labels and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoTokens => "no-tokens",
            Self::TokenMissing => "token-missing",
            Self::TokenUnknown => "token-unknown",
            Self::Scope => "scope",
            Self::Invalid => "invalid",
        }
    }
}

/// One counter a reason.
#[derive(Clone, Debug)]
pub struct PerRefusal([IntCounter; Refusal::ALL.len()]);

impl PerRefusal {
    pub(super) fn new(vec: &IntCounterVec) -> Self {
        Self(Refusal::ALL.map(|refusal| vec.with_label_values(&[refusal.name()])))
    }

    /// The reason's counter.
    pub fn of(&self, refusal: Refusal) -> &IntCounter {
        &self.0[refusal as usize]
    }
}
