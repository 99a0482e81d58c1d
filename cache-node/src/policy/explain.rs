//! PURE. Where a response's lifetime comes from, in words for people: `shoal get -v` shows them.

use http::{HeaderMap, StatusCode};

use super::directives::ResponseDirectives;
use super::rules::Rules;

/// What made a response's lifetime, and its value there.
pub fn lifetime(headers: &HeaderMap, status: StatusCode, rules: &Rules) -> (String, String) {
    let rules = rules.of_status(status);
    let seconds = |seconds: Option<u64>| seconds.unwrap_or_default().to_string();
    if rules.forced_ttl_s.is_some() {
        return ("the site's ttl.forced_s".to_owned(), seconds(rules.forced_ttl_s));
    }
    let own = Rules { default_ttl_s: None, ..rules.clone().into_owned() };
    let stated = ResponseDirectives::of(headers, &own);
    let field = match rules.targeted.iter().find(|name| headers.contains_key(*name)) {
        Some(name) if stated.targeted => name.as_str(),
        _ => "cache-control",
    };
    if stated.s_maxage.is_some() {
        return (format!("s-maxage in {field}"), seconds(stated.s_maxage));
    }
    if stated.max_age.is_some() {
        return (format!("max-age in {field}"), seconds(stated.max_age));
    }
    if let Some(expires) = headers.get("expires").filter(|_| !stated.targeted) {
        let text = String::from_utf8_lossy(expires.as_bytes()).into_owned();
        return ("expires".to_owned(), text);
    }
    match rules.default_ttl_s {
        Some(default) if status.is_client_error() || status.is_server_error() => {
            ("the site's ttl.negative_s".to_owned(), default.to_string())
        }
        Some(default) => ("the site's ttl.default_s".to_owned(), default.to_string()),
        None => ("nothing: validated each time".to_owned(), String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::headers_tests::headers;
    use super::*;

    #[test]
    fn a_lifetime_has_one_source() {
        let plain = Rules::default();
        let timed = Rules { default_ttl_s: Some(9), ..Rules::default() };
        let forced = Rules { forced_ttl_s: Some(7), ..Rules::default() };
        for (text, rules, source, value) in [
            ("cache-control: max-age=5, s-maxage=6", &plain, "s-maxage in cache-control", "6"),
            ("cache-control: max-age=5", &plain, "max-age in cache-control", "5"),
            (
                "cdn-cache-control: max-age=4 | cache-control: max-age=5",
                &plain,
                "max-age in cdn-cache-control",
                "4",
            ),
            ("expires: 0", &plain, "expires", "0"),
            ("etag: \"1\"", &plain, "nothing: validated each time", ""),
            ("etag: \"1\"", &timed, "the site's ttl.default_s", "9"),
            ("cache-control: max-age=5", &timed, "max-age in cache-control", "5"),
            ("cache-control: no-store", &forced, "the site's ttl.forced_s", "7"),
        ] {
            let found = lifetime(&headers(text), StatusCode::OK, rules);
            assert_eq!(found, (source.to_owned(), value.to_owned()), "{text}");
        }
    }
}
