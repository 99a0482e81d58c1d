//! What a stored response may be used for, now (RFC 9111 section 4, RFC 5861).
//!
//! Invariants: `no-cache` is always validated; `must-revalidate`, `proxy-revalidate` and `s-maxage`
//! are never served stale, the origin's absence included; a window ends to the millisecond.
//! Not here: fences, which outweigh all of this and belong to the index.

use shoal_proto::Freshness;

use super::directives::RequestDirectives;

/// What to do with a stored response that a request found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnHit {
    /// Serve it: it is fresh.
    Serve,
    /// Serve it stale, and validate it in the background (RFC 5861 section 3).
    ServeAndRefresh,
    /// Serve it stale: the client said that it puts up with that (RFC 9111 section 5.2.1.2).
    ServeStale,
    /// Validate it before it is served.
    Validate,
}

/// How the origin failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginTrouble {
    /// No response at all, or one that broke off.
    Unreachable,
    /// A response with this status.
    Status(u16),
}

/// What to do with a stored response at `now_ms`, for a client that accepts it as it is
/// ([`accepts`]). What of a client's directives is listened to was decided as they were read.
pub fn on_hit(stored: &Freshness, client: &RequestDirectives, now_ms: u64) -> OnHit {
    if stored.is_fresh(now_ms) {
        return OnHit::Serve;
    }
    // RFC 9111 section 4.2.4.
    if stored.never_stale || stored.validate_always {
        return OnHit::Validate;
    }
    let staleness_ms = staleness_ms(stored, now_ms);
    if staleness_ms < stored.stale_while_revalidate_ms {
        return OnHit::ServeAndRefresh;
    }
    match client.max_stale {
        Some(seconds) if staleness_ms <= seconds.saturating_mul(1_000) => OnHit::ServeStale,
        _ => OnHit::Validate,
    }
}

/// Whether nothing stored, however fresh, is an answer to the client (RFC 9111 sections 5.2.1.4 and
/// 5.2.1.5): its request goes to the origin and its response is not stored.
pub fn wants_origin(client: &RequestDirectives) -> bool {
    client.no_cache || client.no_store
}

/// Whether the client accepts a stored response of that age (RFC 9111 sections 5.2.1.1 and 5.2.1.3).
pub fn accepts(stored: &Freshness, client: &RequestDirectives, now_ms: u64) -> bool {
    let age_ms = stored.age_ms(now_ms);
    let left_s = stored.lifetime_ms.saturating_sub(age_ms) / 1_000;
    let young = |max: u64| age_ms <= max.saturating_mul(1_000);
    client.max_age.is_none_or(young) && client.min_fresh.is_none_or(|min| left_s >= min)
}

/// How long past its lifetime a response is, in milliseconds.
fn staleness_ms(stored: &Freshness, now_ms: u64) -> u64 {
    stored.age_ms(now_ms).saturating_sub(stored.lifetime_ms)
}

/// Whether a stored response may be served at `now_ms` although the origin did not validate it.
///
/// An origin that cannot be reached allows a plain stale response (RFC 9111 section 4.2.4), unless
/// `stale-if-error` states a window, which then ends it. A server error needs that window
/// (RFC 5861 section 4).
pub fn may_serve_stale_on_error(stored: &Freshness, trouble: OriginTrouble, now_ms: u64) -> bool {
    if stored.never_stale || stored.validate_always {
        return false;
    }
    let window_ms = stored.stale_if_error_ms;
    let within = staleness_ms(stored, now_ms) < window_ms;
    match trouble {
        OriginTrouble::Unreachable => within || window_ms == 0,
        OriginTrouble::Status(500 | 502..=504) => within,
        OriginTrouble::Status(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: u64 = 1_000_000;

    fn stored() -> Freshness {
        Freshness { response_time_ms: START_MS, lifetime_ms: 10_000, ..Freshness::default() }
    }

    fn after(stored: &Freshness, passed_ms: u64) -> OnHit {
        on_hit(stored, &RequestDirectives::default(), START_MS + passed_ms)
    }

    #[test]
    fn a_response_is_served_while_fresh_and_not_a_millisecond_longer() {
        assert_eq!(after(&stored(), 9_999), OnHit::Serve);
        assert_eq!(after(&stored(), 10_000), OnHit::Validate);
        let aged = Freshness { initial_age_ms: 4_000, ..stored() };
        assert_eq!(after(&aged, 5_999), OnHit::Serve);
        assert_eq!(after(&aged, 6_000), OnHit::Validate);
        assert_eq!(after(&Freshness { lifetime_ms: 0, ..stored() }, 0), OnHit::Validate);
        assert_eq!(after(&Freshness { validate_always: true, ..stored() }, 0), OnHit::Validate);
    }

    #[test]
    fn stale_while_revalidate_ends_with_its_window() {
        let windowed = Freshness { stale_while_revalidate_ms: 5_000, ..stored() };
        assert_eq!(after(&windowed, 9_999), OnHit::Serve);
        assert_eq!(after(&windowed, 10_000), OnHit::ServeAndRefresh);
        assert_eq!(after(&windowed, 14_999), OnHit::ServeAndRefresh);
        assert_eq!(after(&windowed, 15_000), OnHit::Validate);
        let strict = Freshness { never_stale: true, ..windowed };
        assert_eq!(after(&strict, 10_000), OnHit::Validate);
    }

    #[test]
    fn an_absent_origin_allows_stale_unless_forbidden() {
        let allows = |stored: &Freshness, passed_ms| {
            may_serve_stale_on_error(stored, OriginTrouble::Unreachable, START_MS + passed_ms)
        };
        assert!(allows(&stored(), 10_000));
        assert!(allows(&stored(), 10_000_000));
        assert!(!allows(&Freshness { never_stale: true, ..stored() }, 10_000));
        assert!(!allows(&Freshness { validate_always: true, ..stored() }, 10_000));
        let windowed = Freshness { stale_if_error_ms: 5_000, ..stored() };
        assert!(allows(&windowed, 14_999));
        assert!(!allows(&windowed, 15_000));
    }

    #[test]
    fn a_server_error_needs_stale_if_error() {
        let windowed = Freshness { stale_if_error_ms: 5_000, ..stored() };
        for (status, expected) in
            [(500, true), (502, true), (503, true), (504, true), (501, false), (404, false)]
        {
            let trouble = OriginTrouble::Status(status);
            assert_eq!(may_serve_stale_on_error(&windowed, trouble, START_MS + 12_000), expected);
            assert!(!may_serve_stale_on_error(&windowed, trouble, START_MS + 15_000));
            assert!(!may_serve_stale_on_error(&stored(), trouble, START_MS + 10_000));
            let strict = Freshness { never_stale: true, ..windowed };
            assert!(!may_serve_stale_on_error(&strict, trouble, START_MS + 12_000));
        }
    }

    #[test]
    fn clients_may_want_younger_responses() {
        let accepted = |client: RequestDirectives| accepts(&stored(), &client, START_MS + 4_000);
        let none = RequestDirectives::default();
        assert!(accepted(none));
        assert!(!accepted(RequestDirectives { max_age: Some(0), ..none }));
        assert!(!accepted(RequestDirectives { max_age: Some(3), ..none }));
        assert!(accepted(RequestDirectives { max_age: Some(4), ..none }));
        assert!(accepted(RequestDirectives { min_fresh: Some(6), ..none }));
        assert!(!accepted(RequestDirectives { min_fresh: Some(7), ..none }));
        assert!(wants_origin(&RequestDirectives { no_cache: true, ..none }));
        assert!(wants_origin(&RequestDirectives { no_store: true, ..none }));
        assert!(!wants_origin(&none));
    }

    #[test]
    fn clients_may_put_up_with_stale_ones_unless_the_origin_forbids() {
        let of = |stored: &Freshness, seconds, passed_ms| {
            let client = RequestDirectives { max_stale: Some(seconds), ..Default::default() };
            on_hit(stored, &client, START_MS + passed_ms)
        };
        assert_eq!(of(&stored(), 5, 9_999), OnHit::Serve);
        assert_eq!(of(&stored(), 5, 15_000), OnHit::ServeStale);
        assert_eq!(of(&stored(), 5, 15_001), OnHit::Validate);
        assert_eq!(of(&stored(), u64::MAX, u64::MAX / 2), OnHit::ServeStale);
        let strict = Freshness { never_stale: true, ..stored() };
        assert_eq!(of(&strict, 5, 11_000), OnHit::Validate);
        let validated = Freshness { validate_always: true, ..stored() };
        assert_eq!(of(&validated, 5, 0), OnHit::Validate);
    }

    #[test]
    fn extremes_saturate() {
        let forever = Freshness { lifetime_ms: u64::MAX, ..stored() };
        assert_eq!(on_hit(&forever, &RequestDirectives::default(), u64::MAX - 1), OnHit::Serve);
        let old = Freshness { initial_age_ms: u64::MAX, ..stored() };
        assert_eq!(after(&old, 1), OnHit::Validate);
        assert!(may_serve_stale_on_error(&old, OriginTrouble::Unreachable, u64::MAX));
    }
}
