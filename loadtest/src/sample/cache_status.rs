//! Reading `Cache-Status` (RFC 9211) far enough to say where a reply came from (PURE).
//!
//! The last member of the list is the cache nearest to the client. The values form a closed set,
//! so that a reply cannot grow the report.

/// What the nearest cache did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Handling {
    /// Served without asking anybody: `hit`.
    Hit,
    /// Went forward, for the reason that `fwd` gives.
    Forward(Reason),
    /// The member has neither `hit` nor `fwd`.
    Unstated,
    /// No `Cache-Status` header that can be read.
    #[default]
    Absent,
}

/// Values of `fwd` (RFC 9211 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// `bypass`
    Bypass,
    /// `method`
    Method,
    /// `uri-miss`
    UriMiss,
    /// `vary-miss`
    VaryMiss,
    /// `miss`
    Miss,
    /// `request`
    Request,
    /// `stale`
    Stale,
    /// `partial`
    Partial,
    /// Any other text.
    Other,
}

/// Where the bytes came from: the `detail` parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The node's memory.
    Memory,
    /// The node's disk.
    Disk,
    /// Other nodes.
    Peer,
    /// The origin.
    Origin,
    /// No `detail`, or one that is not known here.
    #[default]
    Unstated,
}

/// One reply's cache status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheStatus {
    /// What the cache did.
    pub handling: Handling,
    /// Where the bytes came from.
    pub source: Source,
}

impl CacheStatus {
    /// Reads the values of all `Cache-Status` lines, in their order.
    pub fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let last = lines
            .flat_map(|line| split_outside_quotes(line, ','))
            .map(str::trim)
            .filter(|member| !member.is_empty())
            .last();
        last.map_or_else(Self::default, Self::from_member)
    }

    fn from_member(member: &str) -> Self {
        let mut status = Self { handling: Handling::Unstated, source: Source::Unstated };
        for parameter in split_outside_quotes(member, ';').skip(1) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = value.trim().trim_matches('"');
            match name.trim() {
                "hit" if value != "?0" => status.handling = Handling::Hit,
                "fwd" => status.handling = Handling::Forward(Reason::from_token(value)),
                "detail" => status.source = Source::from_token(value),
                _ => {}
            }
        }
        status
    }
}

impl Handling {
    /// The name in reports: `hit`, `fwd=miss`, ...
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Forward(reason) => reason.name(),
            Self::Unstated => "unstated",
            Self::Absent => "none",
        }
    }
}

impl Reason {
    const NAMES: [(Self, &'static str); 9] = [
        (Self::Bypass, "fwd=bypass"),
        (Self::Method, "fwd=method"),
        (Self::UriMiss, "fwd=uri-miss"),
        (Self::VaryMiss, "fwd=vary-miss"),
        (Self::Miss, "fwd=miss"),
        (Self::Request, "fwd=request"),
        (Self::Stale, "fwd=stale"),
        (Self::Partial, "fwd=partial"),
        (Self::Other, "fwd=other"),
    ];

    fn from_token(token: &str) -> Self {
        let known = Self::NAMES.iter().find(|(_, name)| name.strip_prefix("fwd=") == Some(token));
        known.map_or(Self::Other, |&(reason, _)| reason)
    }

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(reason, _)| *reason == self).map_or("fwd=other", |(_, name)| name)
    }
}

impl Source {
    fn from_token(token: &str) -> Self {
        match token {
            "memory" => Self::Memory,
            "disk" => Self::Disk,
            "peer" => Self::Peer,
            "origin" => Self::Origin,
            _ => Self::Unstated,
        }
    }

    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Peer => "peer",
            Self::Origin => "origin",
            Self::Unstated => "unstated",
        }
    }
}

/// Splits at `separator`, but not inside a quoted string (RFC 9651 section 3.3.3).
fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    text.split(move |c| {
        if escaped {
            escaped = false;
            return false;
        }
        match c {
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        c == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &[&str]) -> (&'static str, &'static str) {
        let status = CacheStatus::parse(lines.iter().copied());
        (status.handling.name(), status.source.name())
    }

    #[test]
    fn reads_hits_and_forwards() {
        assert_eq!(parse(&["shoal; hit; ttl=30; detail=memory"]), ("hit", "memory"));
        assert_eq!(parse(&["shoal;fwd=uri-miss;detail=origin"]), ("fwd=uri-miss", "origin"));
        assert_eq!(parse(&["shoal;fwd=miss;fwd-status=200;detail=\"peer\""]), ("fwd=miss", "peer"));
        assert_eq!(parse(&["shoal; fwd=whatever; detail=moon"]), ("fwd=other", "unstated"));
        assert_eq!(parse(&["shoal"]), ("unstated", "unstated"));
        assert_eq!(parse(&["shoal; hit=?0; fwd=stale"]), ("fwd=stale", "unstated"));
    }

    #[test]
    fn the_last_member_is_the_nearest_cache() {
        assert_eq!(parse(&["far; hit; detail=disk, near; fwd=miss"]), ("fwd=miss", "unstated"));
        assert_eq!(parse(&["far; hit", "near; fwd=stale; detail=peer"]), ("fwd=stale", "peer"));
    }

    #[test]
    fn quoted_text_separates_nothing() {
        assert_eq!(parse(&["\"a, b; fwd=miss\"; hit; detail=disk"]), ("hit", "disk"));
        assert_eq!(parse(&["\"a\\\"; fwd=miss, b\"; hit"]), ("hit", "unstated"));
    }

    #[test]
    fn no_header_is_none() {
        assert_eq!(parse(&[]), ("none", "unstated"));
        assert_eq!(parse(&["", " , "]), ("none", "unstated"));
    }
}
