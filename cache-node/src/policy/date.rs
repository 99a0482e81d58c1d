//! HTTP dates (RFC 9110 section 5.6.7): the preferred form, RFC 850's and asctime's, by their
//! exact grammar but for letter case, which caches are to overlook (RFC 9111 section 4.2); wrong
//! zones, weekdays that do not fit and loose forms are refused.

use std::time::{Duration, UNIX_EPOCH};

/// The last second that an HTTP date can write: 9999-12-31T23:59:59Z.
const DATE_MS_MAX: u64 = 253_402_300_799_000;

/// The longest form is RFC 850's with a Wednesday, in bytes.
const DATE_BYTES_MAX: usize = 33;

/// A date as Unix time in milliseconds.
pub fn parse(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= DATE_BYTES_MAX)?;
    let time = httpdate::parse_http_date(text);
    let time = time.or_else(|_| httpdate::parse_http_date(&in_usual_case(text))).ok()?;
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

/// `sUN, 06 NOV 1994 08:49:37 gmt` as `Sun, 06 Nov 1994 08:49:37 GMT`.
fn in_usual_case(text: &str) -> String {
    let mut usual = text.to_ascii_lowercase();
    let mut within = false;
    let mut starts = Vec::new();
    for (at, byte) in usual.bytes().enumerate() {
        if byte.is_ascii_alphabetic() && !within {
            starts.push(at);
        }
        within = byte.is_ascii_alphabetic();
    }
    for at in starts {
        let capitals = if usual[at..] == *"gmt" { 3 } else { 1 };
        if let Some(letters) = usual.get_mut(at..at + capitals) {
            letters.make_ascii_uppercase();
        }
    }
    usual
}

/// The preferred form of a Unix time in milliseconds.
pub fn format(unix_ms: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(unix_ms.min(DATE_MS_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOV_6_1994_MS: u64 = 784_111_777_000;

    #[test]
    fn the_three_forms_are_read_and_nothing_else() {
        for good in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "sUn, 06 NOV 1994 08:49:37 gMt",
            "SUNDAY, 06-nov-94 08:49:37 gmt",
            "sun nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse(good.as_bytes()), Some(NOV_6_1994_MS), "{good}");
        }
        for bad in [
            "",
            "0",
            "-1",
            "784111777",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 AEST",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun, 06  Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>, text in "[a-zA-Z0-9:, -]{0,40}", any: String) {
            parse(&bytes);
            parse(text.as_bytes());
            parse(any.as_bytes());
        }
    }

    #[test]
    fn dates_are_written_in_the_preferred_form() {
        assert_eq!(format(NOV_6_1994_MS + 999), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(format(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
