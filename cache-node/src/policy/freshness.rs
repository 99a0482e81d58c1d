//! Lifetime and age of a response in a shared cache (RFC 9111 section 4.2).
//!
//! Invariants: nothing is invented (no heuristics, section 4.2.2); what is malformed or repeated
//! with another value gives no lifetime; the origin's clock is compared with itself alone, so that
//! one that runs fast or slow changes nothing.

use http::header::{AGE, DATE, ETAG, EXPIRES, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue};
use shoal_proto::Freshness;

use super::date;
use super::directives::{ResponseDirectives, delta_seconds};
use super::rules::{Rules, UnclearAge};

const SECOND_MS: u64 = 1_000;

/// When a request was sent and its response head came, in Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When the request was sent to the origin.
    pub request_ms: u64,
    /// When the response head was received.
    pub response_ms: u64,
}

/// The freshness facts of a response.
pub fn freshness(headers: &HeaderMap, times: Times, rules: &Rules) -> Freshness {
    let directives = ResponseDirectives::of(headers, rules);
    let window = |seconds: Option<u64>| seconds.unwrap_or(0).saturating_mul(SECOND_MS);
    Freshness {
        response_time_ms: times.response_ms,
        initial_age_ms: initial_age_ms(headers, times, rules.unclear_age),
        lifetime_ms: explicit_lifetime_ms(headers, times, rules).unwrap_or(0),
        validate_always: directives.no_cache,
        // RFC 9111 sections 4.2.4, 5.2.2.2, 5.2.2.8 and 5.2.2.10.
        never_stale: directives.must_revalidate
            || directives.no_cache
            || directives.s_maxage.is_some(),
        stale_while_revalidate_ms: window(directives.stale_while_revalidate),
        stale_if_error_ms: window(directives.stale_if_error),
    }
}

/// `freshness_lifetime` where the origin stated one (RFC 9111 section 4.2.1): `s-maxage`, then
/// `max-age`, then `Expires` less `Date`.
pub fn explicit_lifetime_ms(headers: &HeaderMap, times: Times, rules: &Rules) -> Option<u64> {
    let directives = ResponseDirectives::of(headers, rules);
    if let Some(seconds) = directives.s_maxage.or(directives.max_age) {
        return Some(seconds.saturating_mul(SECOND_MS));
    }
    if directives.targeted {
        return None;
    }
    let mut lines = headers.get_all(EXPIRES).iter();
    let expires = lines.next()?;
    if lines.any(|other| other != expires) {
        return Some(0);
    }
    // RFC 9111 section 5.3: an invalid date, "0" above all, is in the past.
    let Some(expires_ms) = date::parse(expires.as_bytes()) else { return Some(0) };
    let date_ms = headers.get(DATE).and_then(|value| date::parse(value.as_bytes()));
    Some(expires_ms.saturating_sub(date_ms.unwrap_or(times.response_ms)))
}

/// `corrected_age_value` (RFC 9111 section 4.2.3), which may stand for `corrected_initial_age`.
/// The alternative, `apparent_age`, would count an origin's slow clock as age.
fn initial_age_ms(headers: &HeaderMap, times: Times, unclear: UnclearAge) -> u64 {
    let delay_ms = times.response_ms.saturating_sub(times.request_ms);
    let mut lines = headers.get_all(AGE).iter();
    let Some(value) = lines.next().map(HeaderValue::as_bytes) else { return delay_ms };
    // RFC 9111 section 5.1: the first member of a list counts, an invalid one is ignored.
    let first = value.split(|byte| *byte == b',').next().unwrap_or_default();
    let age = delta_seconds(first.trim_ascii());
    let clear = age.is_some() && first.len() == value.len() && lines.next().is_none();
    if !clear && unclear == UnclearAge::Stale {
        return u64::MAX;
    }
    age.unwrap_or(0).saturating_mul(SECOND_MS).saturating_add(delay_ms)
}

/// Whether a response can be validated at all (RFC 9110 section 8.8).
pub fn has_validator(headers: &HeaderMap) -> bool {
    headers.get(ETAG).is_some_and(|tag| !tag.is_empty())
        || headers.get(LAST_MODIFIED).is_some_and(|at| date::parse(at.as_bytes()).is_some())
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const NOW_MS: u64 = 784_111_777_000;
    const TIMES: Times = Times { request_ms: NOW_MS - 250, response_ms: NOW_MS };

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn lifetime_s(lines: &[(&str, &str)]) -> Option<u64> {
        explicit_lifetime_ms(&headers(lines), TIMES, &Rules::default()).map(|ms| ms / SECOND_MS)
    }

    #[test]
    fn s_maxage_beats_max_age_beats_expires() {
        let expires = ("expires", "Sun, 06 Nov 1994 08:50:37 GMT");
        let at = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(lifetime_s(&[at, expires]), Some(60));
        assert_eq!(lifetime_s(&[at, expires, ("cache-control", "max-age=5")]), Some(5));
        let both = ("cache-control", "max-age=5, s-maxage=9");
        assert_eq!(lifetime_s(&[at, expires, both]), Some(9));
        assert_eq!(lifetime_s(&[at, expires, ("cache-control", "max-age=x")]), Some(0));
        assert_eq!(lifetime_s(&[("cache-control", "s-maxage=x, max-age=5")]), Some(0));
        assert_eq!(lifetime_s(&[("cache-control", "public")]), None);
        assert_eq!(lifetime_s(&[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]), None);
    }

    #[test]
    fn expires_is_measured_by_the_origins_own_clock() {
        for date in ["Fri, 06 Nov 2015 08:49:37 GMT", "Wed, 06 Nov 1985 08:49:37 GMT"] {
            let expires = date.replace("49:37", "50:07");
            assert_eq!(lifetime_s(&[("date", date), ("expires", &expires)]), Some(30), "{date}");
        }
        for date in [None, Some("nonsense")] {
            let mut lines = vec![("expires", "Sun, 06 Nov 1994 08:50:37 GMT")];
            lines.extend(date.map(|date| ("date", date)));
            assert_eq!(lifetime_s(&lines), Some(60), "without a Date, the time of receipt");
        }
    }

    #[test]
    fn a_bad_expires_has_already_expired() {
        for bad in ["0", "-1", "", "Sun, 06 Nov 2094 08:49:37 UTC", "3600"] {
            assert_eq!(lifetime_s(&[("expires", bad)]), Some(0), "{bad}");
        }
        let (one, two) = ("Sun, 06 Nov 1994 08:50:37 GMT", "Sun, 06 Nov 1994 08:51:37 GMT");
        assert_eq!(lifetime_s(&[("expires", one), ("expires", two)]), Some(0));
        assert_eq!(lifetime_s(&[("expires", one), ("expires", one)]), Some(60));
        let past = "Sun, 06 Nov 1994 08:49:36 GMT";
        assert_eq!(lifetime_s(&[("expires", past)]), Some(0));
    }

    #[test]
    fn age_on_arrival_is_exact() {
        for (age, seconds) in [
            ("20", 20),
            ("020", 20),
            ("20, 7", 20),
            ("99999999999999999999999", u64::MAX),
            ("-20", 0),
            ("+20", 0),
            ("20.0", 0),
            ("20s", 0),
            ("a20", 0),
            ("x, 20", 0),
            ("", 0),
        ] {
            let found = initial_age_ms(&headers(&[("age", age)]), TIMES, UnclearAge::Ignore);
            let expected = u64::saturating_mul(seconds, SECOND_MS).saturating_add(250);
            assert_eq!(found, expected, "{age}");
        }
        let twice = headers(&[("age", "5"), ("age", "90")]);
        let found = initial_age_ms(&twice, TIMES, UnclearAge::Ignore);
        assert_eq!(found, 5_250, "the first of two");
        let slow = headers(&[("date", "Wed, 06 Nov 1985 08:49:37 GMT")]);
        assert_eq!(initial_age_ms(&slow, TIMES, UnclearAge::Stale), 250, "a slow clock");
    }

    #[test]
    fn an_unclear_age_is_stale_where_the_site_wants_it() {
        for (ages, clear) in [
            (&["20"][..], true),
            (&["020"], true),
            (&["20, 7"], false),
            (&["0", "0"], false),
            (&["-20"], false),
            (&["20.0"], false),
            (&["20;a=b"], false),
            (&[""], false),
        ] {
            let lines: Vec<_> = ages.iter().map(|age| ("age", *age)).collect();
            let found = initial_age_ms(&headers(&lines), TIMES, UnclearAge::Stale);
            assert_eq!(found < u64::MAX, clear, "{ages:?}");
        }
    }

    #[test]
    fn facts_are_complete_and_saturate() {
        let control = "max-age=99999999999999999999, stale-while-revalidate=2, stale-if-error=3";
        let facts = freshness(
            &headers(&[("cache-control", control), ("age", "10")]),
            TIMES,
            &Rules::default(),
        );
        assert_eq!(
            facts,
            Freshness {
                response_time_ms: NOW_MS,
                initial_age_ms: 10_250,
                lifetime_ms: u64::MAX,
                validate_always: false,
                never_stale: false,
                stale_while_revalidate_ms: 2_000,
                stale_if_error_ms: 3_000,
            }
        );
        assert!(facts.is_fresh(NOW_MS + 1) && facts.is_fresh(u64::MAX - 1));
    }

    #[test]
    fn some_responses_are_never_stale_or_always_validated() {
        for (control, validate_always, never_stale) in [
            ("max-age=1", false, false),
            ("max-age=1, no-cache", true, true),
            ("max-age=1, must-revalidate", false, true),
            ("max-age=1, proxy-revalidate", false, true),
            ("s-maxage=1", false, true),
        ] {
            let facts =
                freshness(&headers(&[("cache-control", control)]), TIMES, &Rules::default());
            assert_eq!((facts.validate_always, facts.never_stale), (validate_always, never_stale));
        }
    }

    #[test]
    fn a_targeted_field_silences_expires() {
        let lines = [("cdn-cache-control", "public"), ("expires", "Sun, 06 Nov 2094 08:49:37 GMT")];
        assert_eq!(lifetime_s(&lines), None);
    }
}
