//! Every parser of ours behind one door: bytes in, and what must hold of what is read. The targets of
//! `fuzz/` call these for hours, a test here calls them with seeded nonsense for a moment. Members
//! never do.
//!
//! Invariants: a probe panics only when a parser breaks a promise; none has state, reads a clock or
//! opens anything.

use http::header::{
    AGE, CACHE_CONTROL, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use prost::Message;
use shoal_proto::wire::{check_node_info, v1};
use shoal_proto::{Freshness, Labels, Manifest, ObjectHead, ObjectKey};

use crate::config::definition;
use crate::policy::choices::{KeyConfig, TtlConfig};
use crate::policy::directives::RequestDirectives;
use crate::policy::freshness::{Times, freshness};
use crate::policy::named::Named;
use crate::policy::range::{self, Part};
use crate::policy::rules::{ClientDirectives, Rules};
use crate::policy::site::{SiteConfig, Sites, host_of};
use crate::policy::storable::{RequestFacts, ResponseFacts, storable};
use crate::policy::{conditional, date, doors, explain, hop, invalidate, label, vary};
use crate::supernode::raft;
use crate::text::{cache_status, units};
use crate::transfer;

/// A parser and what must hold of it.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Its name, which is its target's too.
    pub name: &'static str,
    /// Runs it.
    pub run: fn(&[u8]),
    /// What it takes, well formed or nearly.
    pub seeds: &'static [&'static [u8]],
}

/// All of them.
pub const PROBES: [Probe; 12] = [
    Probe {
        name: "cache_control",
        run: cache_control,
        seeds: &[
            b"max-age=60, s-maxage=\"5\", private=\"a,b\", no-cache",
            b"stale-while-revalidate=9;stale-if-error=99999999999999999999",
            b"public, max-age=1, max-age=2, must-understand, =, \"",
        ],
    },
    Probe {
        name: "targeted",
        run: targeted,
        seeds: &[b"max-age=60, private;a=?1, b=(1 2);c, d=:YQ==:", b"no-store, max-age=1.5"],
    },
    Probe {
        name: "range",
        run: range,
        seeds: &[b"bytes=0-1, 5-, -3", b"bytes=18446744073709551615-", b"bytes 0-1/10"],
    },
    Probe { name: "vary", run: vary, seeds: &[b"accept-encoding, *", b"Accept,,accept", b", a b"] },
    Probe {
        name: "dates",
        run: dates,
        seeds: &[
            b"Sun, 06 Nov 1994 08:49:37 GMT",
            b"Sunday, 06-Nov-94 08:49:37 GMT",
            b"Sun Nov  6 08:49:37 1994",
        ],
    },
    Probe {
        name: "preconditions",
        run: preconditions,
        seeds: &[b"W/\"a\", \"b\",*", b"\"a\"", b"Sun, 06 Nov 1994 08:49:37 GMT"],
    },
    Probe {
        name: "cache_status",
        run: status,
        seeds: &[b"shoal; hit; ttl=-5; detail=\"a\\\"b\", \"c\"; fwd=uri-miss; fwd-status=200"],
    },
    Probe {
        name: "authority",
        run: authority,
        seeds: &[b"http://u@a.test:80/x?y#z", b"http://[::1]:65536/", b"a.test.:8080", b"//evil/x"],
    },
    Probe {
        name: "key_rules",
        run: key_rules,
        seeds: &[b"/a?b=1&utm_x=2&&c", b"/?=&=&a", b"/%2e%2E/%zz?%26=%3d"],
    },
    Probe {
        name: "site",
        run: site,
        seeds: &[
            b"{\"hosts\":[\"a.test\"],\"origin\":\"http://o.test\",\"key\":{\"query\":\"all\"}}",
            b"{\"hosts\":[\"*\"],\"origin\":\"http://0\",\"purge\":{\"from\":[\"10.0.0.0/8\"]}}",
            b"{\"ttl\":{\"negative_s\":{\"5xx\":1}},\"path\":[{\"glob\":\"*\"}]}",
        ],
    },
    Probe {
        name: "messages",
        run: messages,
        seeds: &[b"\x0a\x04\x08\x01\x12\x00", b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b""],
    },
    Probe {
        name: "frames",
        run: frames,
        seeds: &[
            b"\x01\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x10",
            b"\x05\0\0\0\0\0\0\x01\0\0\0\0\xff\xff\xff\xff",
        ],
    },
];

/// Runs the probe of that name; nothing when there is none.
pub fn run(name: &str, bytes: &[u8]) {
    PROBES.iter().filter(|probe| probe.name == name).for_each(|probe| (probe.run)(bytes));
}

const NOW_MS: u64 = 784_111_777_000;
const TIMES: Times = Times { request_ms: NOW_MS - 250, response_ms: NOW_MS };

/// The bytes as header lines of one name; those that are no values are left out.
fn lines(name: &HeaderName, bytes: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(16) {
        headers.extend(HeaderValue::from_bytes(line).ok().map(|value| (name.clone(), value)));
    }
    headers
}

fn any_site() -> Option<SiteConfig> {
    let least = serde_json::json!({ "name": "a", "hosts": ["*"], "origin": "http://o.test" });
    serde_json::from_value(least).ok()
}

fn is_sane(headers: &HeaderMap) {
    let rules = Rules::default();
    let facts = freshness(headers, TIMES, &rules);
    assert!(facts.age_ms(NOW_MS) >= 250, "younger than its journey");
    assert!(!facts.is_fresh(NOW_MS) || facts.lifetime_ms > 0, "fresh without a lifetime");
    let _ = explain::lifetime(headers, StatusCode::OK, &rules);
    let Some(site) = any_site().and_then(|site| Sites::new(vec![site]).ok()?.get("a")) else {
        return;
    };
    let response = ResponseFacts { status: StatusCode::OK, headers, length: Some(1), times: TIMES };
    let asked = RequestFacts { method: &Method::GET, authorized: false };
    let kept = storable(asked, response, &site).is_ok();
    assert!(!kept || !vary::is_unbounded(headers), "stored, and nothing selects it");
}

fn cache_control(bytes: &[u8]) {
    let headers = lines(&CACHE_CONTROL, bytes);
    is_sane(&headers);
    for listens in [ClientDirectives::Ignore, ClientDirectives::Safe, ClientDirectives::All] {
        let _ = RequestDirectives::of(&headers, listens);
    }
    is_sane(&lines(&AGE, bytes));
}

fn targeted(bytes: &[u8]) {
    for name in ["cdn-cache-control", "shoal-cache-control", "surrogate-control"] {
        is_sane(&lines(&HeaderName::from_static(name), bytes));
    }
}

fn range(bytes: &[u8]) {
    for length in [None, Some(0), Some(1), Some(1_000), Some(u64::MAX)] {
        let within = |range: &std::ops::Range<u64>| {
            assert!(range.start < range.end, "an empty part");
            assert!(length.is_some_and(|length| range.end <= length), "beyond the end");
        };
        match range::select(Some(bytes), length) {
            Part::Bytes(range) => within(&range),
            Part::Several(ranges) => ranges.iter().for_each(within),
            Part::Whole | Part::Unsatisfiable => {}
        }
        let _ = range::answers(Some(bytes), &(0..1), 10);
    }
    let _ = crate::policy::parts::first_question(lines(&RANGE, bytes).get(RANGE));
}

fn vary(bytes: &[u8]) {
    let headers = lines(&VARY, bytes);
    is_sane(&headers);
    let (secret, asked) = ([7; 32], lines(&HeaderName::from_static("accept"), bytes));
    let stored = vary::marked(hop::to_stored(&headers), &secret, &asked);
    let head = head(stored);
    if !vary::is_unbounded(&headers) {
        assert!(vary::selects(&head, &secret, &asked), "its own request does not select it");
    }
}

fn dates(bytes: &[u8]) {
    if let Some(unix_ms) = date::parse(bytes) {
        let written = date::format(unix_ms);
        assert_eq!(date::parse(written.as_bytes()), Some(unix_ms), "{written}");
    }
}

fn head(headers: Vec<shoal_proto::Header>) -> ObjectHead {
    ObjectHead {
        key: ObjectKey::new([1; 32]),
        site: "a".to_owned(),
        status: 200,
        headers,
        length: Some(10),
        chunk_size: 1,
        freshness: Freshness::default(),
        fence_position: 0,
        labels: Labels::default(),
    }
}

fn preconditions(bytes: &[u8]) {
    let mut said = lines(&http::header::ETAG, bytes);
    said.extend(lines(&http::header::LAST_MODIFIED, bytes));
    let stored = head(hop::to_stored(&said));
    for name in [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_RANGE] {
        let asked = lines(&name, bytes);
        let _ = conditional::preconditions(&asked, &stored);
        let _ = conditional::range_applies(&asked, &stored);
    }
    let _ = conditional::refreshed(&stored.headers, &said);
    let upgrade = lines(&http::header::UPGRADE, bytes);
    assert_eq!(doors::UpgradeRules::default().wanted(&upgrade), None, "off by default");
}

fn status(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let read = cache_status::read(&text);
    assert!(read.iter().all(|handled| !handled.cache.is_empty() || text.contains("\"\"")));
}

fn authority(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = host_of(&text);
    let Some(sites) = any_site().and_then(|site| Sites::new(vec![site]).ok()) else { return };
    if let Ok(named) = Named::read(&sites, &text) {
        assert!(named.target.starts_with('/') && !named.authority.contains('@'), "{named:?}");
        let location = lines(&http::header::LOCATION, bytes);
        let answer = (StatusCode::CREATED, &location);
        let targets = invalidate::targets(&named.site, &named.authority, &named.target, answer);
        assert!(targets.iter().all(|target| target.starts_with('/')), "{targets:?}");
    }
}

fn key_rules(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Some(plain) = any_site() else { return };
    let ignore = vec!["utm_*".to_owned(), "b".to_owned()];
    let sorted = KeyConfig { ignore, sort: true, ..KeyConfig::default() };
    for key in [KeyConfig::default(), sorted] {
        let config = SiteConfig { key, ttl: TtlConfig::default(), ..plain.clone() };
        let Some(site) = Sites::new(vec![config]).ok().and_then(|sites| sites.get("a")) else {
            return;
        };
        let once = site.key.target(&text).into_owned();
        assert_eq!(site.key.target(&once), once, "what counts, counts twice");
        let _ = label::labels(&[7; 32], "a", &text, (&HeaderMap::new(), &[]));
    }
}

fn site(bytes: &[u8]) {
    if let Ok(config) = definition::read_kept("a", bytes) {
        let kept = definition::kept(&config);
        assert_eq!(definition::read_kept("a", &kept), Ok(config), "it reads back as another");
    }
    let text = String::from_utf8_lossy(bytes);
    let _ = units::parse_size(&text);
    let _ = units::parse_duration(&text);
}

fn messages(bytes: &[u8]) {
    if let Ok(manifest) = v1::Manifest::decode(bytes)
        && let Ok(manifest) = Manifest::try_from(manifest)
    {
        let again = Manifest::try_from(v1::Manifest::from(&manifest));
        assert_eq!(again.map(|again| again.id()).ok(), Some(manifest.id()));
    }
    if let Ok(info) = v1::NodeInfo::decode(bytes)
        && check_node_info(&info).is_ok()
    {
        assert!(info.node_id != 0 && !info.name.is_empty());
    }
    let _ = raft::is_entry(bytes);
}

fn frames(bytes: &[u8]) {
    let _ = transfer::is_frame(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cases of each probe; `SHOAL_PROBE_CASES` asks for more.
    const CASES: u64 = 3_000;

    /// A small generator of its own, so that a seed means the same for ever.
    struct Rng(u64);

    impl Rng {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % end.max(1) as u64) as usize
        }

        /// A seed, bent.
        fn case(&mut self, seeds: &[&[u8]]) -> Vec<u8> {
            const PIECES: [&[u8]; 14] = [
                b",",
                b";",
                b"=",
                b"\"",
                b"\\",
                b"\n",
                b"*",
                b"/",
                b"%",
                b"\xff",
                b"\0",
                b"18446744073709551616",
                b"-1",
                b"bytes=",
            ];
            let mut bytes = seeds[self.below(seeds.len())].to_vec();
            for _ in 0..=self.below(5) {
                let at = self.below(bytes.len() + 1);
                match self.below(5) {
                    0 => drop(bytes.drain(at..(at + self.below(9)).min(bytes.len()))),
                    1 => drop(bytes.splice(at..at, PIECES[self.below(PIECES.len())].to_vec())),
                    2 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                    3 => {
                        let other = seeds[self.below(seeds.len())];
                        let from = self.below(other.len() + 1);
                        bytes.truncate(at);
                        bytes.extend_from_slice(&other[from..]);
                    }
                    _ => {
                        let twice = bytes[at..].to_vec();
                        bytes.extend(twice);
                    }
                }
                bytes.truncate(4_096);
            }
            bytes
        }
    }

    #[test]
    fn parsers_hold_against_seeded_nonsense() {
        let cases = std::env::var("SHOAL_PROBE_CASES").ok().and_then(|cases| cases.parse().ok());
        for (number, probe) in PROBES.iter().enumerate() {
            let mut rng = Rng(0x9e37_79b9_7f4a_7c15 ^ number as u64);
            probe.seeds.iter().for_each(|seed| (probe.run)(seed));
            for case in 0..cases.unwrap_or(CASES) {
                let bytes = rng.case(probe.seeds);
                let ran = std::panic::catch_unwind(|| (probe.run)(&bytes));
                let shown = String::from_utf8_lossy(&bytes);
                assert!(ran.is_ok(), "{} case {case}: {shown:?}", probe.name);
            }
        }
    }

    #[test]
    fn every_probe_has_a_target() {
        let targets = include_str!("../../fuzz/Cargo.toml");
        for probe in PROBES {
            assert!(targets.contains(&format!("name = \"{}\"", probe.name)), "{}", probe.name);
        }
    }
}
