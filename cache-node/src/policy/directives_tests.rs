//! Cache directives, line by line.

use http::HeaderValue;

use super::*;

fn headers(name: &'static str, lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(name, HeaderValue::from_str(line).unwrap());
    }
    headers
}

fn response(lines: &[&str]) -> ResponseDirectives {
    ResponseDirectives::of(&headers("cache-control", lines), &Rules::default())
}

#[test]
fn seconds_are_exact_and_saturate() {
    for (line, seconds) in [
        ("max-age=5", 5),
        ("MAX-AGE=5", 5),
        ("max-age=\"5\"", 5),
        ("max-age=0005", 5),
        ("foo, max-age=5 ,bar", 5),
        (" ,,max-age=5,", 5),
        ("max-age=2147483648", 2_147_483_648),
        ("max-age=99999999999999999999999", u64::MAX),
        ("max-age=-1", 0),
        ("max-age=+5", 0),
        ("max-age=5.0", 0),
        ("max-age=5s", 0),
        ("max-age=5 6", 0),
        ("max-age= 5", 0),
        ("max-age =5", 0),
        ("max-age='5'", 0),
        ("max-age=", 0),
        ("max-age", 0),
        ("max-age:5", 0),
        ("max-age=\"5", 0),
        ("max-age=5, max-age=5", 5),
        ("max-age=5, max-age=6", 0),
        ("max-age=6, max-age=nonsense", 0),
    ] {
        assert_eq!(response(&[line]).max_age, Some(seconds), "{line}");
    }
    assert_eq!(response(&["max-age=5", "max-age=6"]).max_age, Some(0));
    assert_eq!(response(&["xmax-age=5, max-ages=5, x-max-age=5"]).max_age, None);
}

#[test]
fn quoted_text_is_no_directive() {
    let read = response(&["ext=\"max-age=100, no-store, \\\", private\", s-maxage=7"]);
    assert_eq!(read.max_age, None);
    assert!(!read.no_store && !read.private);
    assert_eq!(read.s_maxage, Some(7));
    assert_eq!(response(&["max-age=1, ext=\"max-age=100\""]).max_age, Some(1));
}

#[test]
fn an_open_quote_takes_all_freshness_away() {
    let read = response(&["max-age=100, s-maxage=50, stale-if-error=9, public, x=\"no-store"]);
    assert_eq!((read.max_age, read.s_maxage, read.stale_if_error), (Some(0), Some(0), None));
    assert!(!read.allows_authorized);
    let read = response(&["x=\"open", "no-store"]);
    assert!(read.no_store, "a quote does not reach into the next line");
}

#[test]
fn what_restricts_counts_however_written() {
    for line in ["no-store", "No-Store", "no-store=x", "no-store;", "no-store max-age=5"] {
        assert!(response(&[line]).no_store, "{line}");
    }
    for line in ["private", "PRIVATE=\"x, y\"", "private=", "private; max-age=100", "a, private"] {
        assert!(response(&[line]).private, "{line}");
    }
    for line in ["no-cache", "no-cache=\"set-cookie\"", "no-cache=set-cookie"] {
        assert!(response(&[line]).no_cache, "{line}");
    }
    assert!(response(&["proxy-revalidate"]).must_revalidate);
    assert!(response(&["must-revalidate"]).must_revalidate);
    assert!(response(&["must-understand"]).must_understand);
    assert!(!response(&["xno-store, no-storex, privates"]).no_store);
}

#[test]
fn what_permits_counts_only_when_well_formed() {
    for line in ["public", "Public", "s-maxage=5", "s-maxage=0", "must-revalidate"] {
        assert!(response(&[line]).allows_authorized, "{line}");
    }
    for line in ["public=1", "public;", "s-maxage=x", "proxy-revalidate", "max-age=5", ""] {
        assert!(!response(&[line]).allows_authorized, "{line}");
    }
}

#[test]
fn stale_windows_are_read() {
    let read = response(&["max-age=1, stale-while-revalidate=5, stale-if-error=x"]);
    assert_eq!((read.stale_while_revalidate, read.stale_if_error), (Some(5), Some(0)));
}

#[test]
fn cdn_cache_control_overrides_both_ways_or_not_at_all() {
    for (cdn, max_age, no_store) in [
        ("max-age=60", Some(60), false),
        ("no-store", None, true),
        ("max-age=60, no-store=?0", Some(60), false),
        ("max-age=60;x=1, unknown=(a b)", Some(60), false),
        ("max-age=999999999999999", Some(999_999_999_999_999), false),
        // Ignored as a whole: Cache-Control holds.
        ("", Some(1), true),
        ("max-age=60,", Some(1), true),
        ("max-age=\"60\"", Some(1), true),
        ("max-age=60.5", Some(1), true),
        ("max-age=-60", Some(1), true),
        ("max-age", Some(1), true),
        ("MAX-AGE=60", Some(1), true),
        ("max-age=60 no-store", Some(1), true),
        ("max-age=9999999999999999", Some(1), true),
    ] {
        let mut both = headers("cache-control", &["max-age=1, no-store"]);
        both.insert("cdn-cache-control", HeaderValue::from_str(cdn).unwrap());
        let read = ResponseDirectives::of(&both, &Rules::default());
        assert_eq!((read.max_age, read.no_store), (max_age, no_store), "{cdn:?}");
        assert_eq!(read.targeted, max_age != Some(1), "{cdn:?}");
    }
    let lines = headers("cdn-cache-control", &["max-age=60", "private=\"x\", s-maxage=9"]);
    let read = ResponseDirectives::of(&lines, &Rules::default());
    assert!(read.private && read.allows_authorized);
    assert_eq!((read.max_age, read.s_maxage), (Some(60), Some(9)));
}

#[test]
fn requests_have_directives_of_their_own() {
    let asked = headers("cache-control", &["No-Cache, min-fresh=5, max-age=0", "only-if-cached"]);
    let read = RequestDirectives::of(&asked, ClientDirectives::All);
    assert!(read.no_cache && read.only_if_cached && !read.no_store);
    assert_eq!((read.max_age, read.min_fresh), (Some(0), Some(5)));
    let none = RequestDirectives::default();
    assert_eq!(RequestDirectives::of(&HeaderMap::new(), ClientDirectives::All), none);
    assert_eq!(RequestDirectives::of(&asked, ClientDirectives::Ignore), none);
    let safe = RequestDirectives::of(&asked, ClientDirectives::Safe);
    assert_eq!(safe, RequestDirectives { only_if_cached: true, ..none });
}

#[test]
fn requests_may_put_up_with_stale_responses() {
    let of = |line| {
        RequestDirectives::of(&headers("cache-control", &[line]), ClientDirectives::Safe).max_stale
    };
    assert_eq!(of("max-stale"), Some(u64::MAX));
    assert_eq!(of("max-stale=5"), Some(5));
    assert_eq!(of("max-stale=x"), Some(0));
    assert_eq!(of("max-age=5"), None);
}

#[test]
fn pragma_counts_where_cache_control_is_absent() {
    let of = |lines: &[(&'static str, &str)], listens| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        RequestDirectives::of(&headers, listens).no_cache
    };
    let pragma = ("pragma", "foo, No-Cache");
    assert!(of(&[pragma], ClientDirectives::All));
    assert!(!of(&[pragma, ("cache-control", "foo")], ClientDirectives::All));
    assert!(!of(&[pragma], ClientDirectives::Safe));
}

proptest::proptest! {
    #[test]
    fn any_value_is_survived(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..60),
        text in "[a-z=,\"\\\\ 0-9-]{0,40}",
    ) {
        for value in [HeaderValue::from_bytes(&bytes), HeaderValue::from_str(&text)] {
            let Ok(value) = value else { continue };
            let mut headers = HeaderMap::new();
            headers.append("cache-control", value.clone());
            headers.append("cdn-cache-control", value);
            ResponseDirectives::of(&headers, &Rules::default());
            RequestDirectives::of(&headers, ClientDirectives::All);
        }
    }

    #[test]
    fn quoting_hides_everything(inner in "[a-z=, 0-9-]{0,40}") {
        let hidden = response(&[&format!("ext=\"{inner}\"")]);
        proptest::prop_assert_eq!(hidden, ResponseDirectives::default());
    }
}
