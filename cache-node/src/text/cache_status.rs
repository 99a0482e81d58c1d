//! PURE. `Cache-Status` (RFC 9211), as far as a reader wants to know: who handled a request, nearest
//! to the client last, and what each says. What is malformed ends the list.

use serde::Serialize;

/// Most members of a list, and most parameters of one.
const MEMBERS_MAX: usize = 32;
const PARAMETERS_MAX: usize = 32;

/// What one cache says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Handled {
    /// The cache's name.
    pub cache: String,
    /// It answered from what it had.
    pub hit: bool,
    /// Why it went forward, where it did.
    pub fwd: Option<String>,
    /// The status that came from there.
    pub fwd_status: Option<u16>,
    /// Seconds of freshness left; negative when stale.
    pub ttl: Option<i64>,
    /// What came was stored.
    pub stored: bool,
    /// It waited for another's request.
    pub collapsed: bool,
    /// Its own word.
    pub detail: Option<String>,
}

/// Reads a field's value, its lines joined.
pub fn read(text: &str) -> Vec<Handled> {
    let mut rest = text.trim();
    let mut all = Vec::new();
    while !rest.is_empty() && all.len() < MEMBERS_MAX {
        let Some((handled, after)) = member(rest) else { break };
        all.push(handled);
        let Some(next) = after.trim_start().strip_prefix(',') else { break };
        rest = next.trim_start();
    }
    all
}

fn member(text: &str) -> Option<(Handled, &str)> {
    let (cache, mut rest) = value(text)?;
    let mut handled = Handled { cache, ..Handled::default() };
    for _ in 0..PARAMETERS_MAX {
        let Some(after) = rest.trim_start().strip_prefix(';') else { break };
        let after = after.trim_start();
        let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.*".contains(c)));
        let (name, after) = after.split_at(end.unwrap_or(after.len()));
        let (given, after) = match after.strip_prefix('=') {
            Some(after) => value(after).map(|(value, after)| (Some(value), after))?,
            None => (None, after),
        };
        handled.take(name, given);
        rest = after;
    }
    Some((handled, rest))
}

impl Handled {
    fn take(&mut self, name: &str, value: Option<String>) {
        let number = || value.as_deref().and_then(|value| value.parse().ok());
        match name {
            "hit" => self.hit = value.is_none() || value.as_deref() == Some("?1"),
            "stored" => self.stored = value.is_none() || value.as_deref() == Some("?1"),
            "collapsed" => self.collapsed = value.is_none() || value.as_deref() == Some("?1"),
            "ttl" => self.ttl = number(),
            "fwd-status" => self.fwd_status = number().and_then(|n| u16::try_from(n).ok()),
            "fwd" => self.fwd = value,
            "detail" => self.detail = value,
            _ => {}
        }
    }
}

/// A token, number, boolean or string, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let plain = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:/?@".contains(c);
        let end = text.find(|c| !plain(c)).unwrap_or(text.len());
        let (bare, rest) = text.split_at(end);
        return (!bare.is_empty()).then(|| (bare.to_owned(), rest));
    };
    let mut read = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                read.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((read, &quoted[at + 1..])),
            _ => read.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_in_order() {
        let text = "\"CDN, one\"; hit; ttl=-3, shoal; fwd=uri-miss; fwd-status=200; stored; \
                    collapsed=?1;detail=\"no \\\"use\\\"\"";
        let all = read(text);
        assert_eq!((all[0].cache.as_str(), all[0].hit, all[0].ttl), ("CDN, one", true, Some(-3)));
        let shoal = &all[1];
        assert_eq!((shoal.fwd.as_deref(), shoal.fwd_status), (Some("uri-miss"), Some(200)));
        assert!(shoal.stored && shoal.collapsed && !shoal.hit);
        assert_eq!(shoal.detail.as_deref(), Some("no \"use\""));
    }

    #[test]
    fn what_is_malformed_ends_the_list() {
        for text in ["", ",", "=", "\"open", ";hit"] {
            assert_eq!(read(text), [], "{text}");
        }
        assert_eq!(read("a; hit, \"open").len(), 1);
        assert_eq!(read("a; ttl=x; fwd-status=99999")[0].ttl, None);
        assert_eq!(read(&"a,".repeat(1_000)).len(), MEMBERS_MAX);
    }
}
