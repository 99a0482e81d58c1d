//! Percent-decoding and query strings (PURE), as RFC 3986 section 2.1 has them: `+` is a plus.

/// Decodes `%XX`; anything that is not two hexadecimal digits after a `%` stays as it is.
#[must_use]
pub fn decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        match escaped(first, tail) {
            Some(byte) => {
                decoded.push(byte);
                rest = &tail[2..];
            }
            None => {
                decoded.push(first);
                rest = tail;
            }
        }
    }
    decoded
}

fn escaped(first: u8, tail: &[u8]) -> Option<u8> {
    let (&[high, low], _) = tail.split_first_chunk::<2>()?;
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let value = digit(high)? * 16 + digit(low)?;
    if first == b'%' { u8::try_from(value).ok() } else { None }
}

/// The `name=value` pairs of a query, names and values still encoded; a bare name has value "".
pub fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_escapes_and_leaves_the_rest() {
        assert_eq!(decode("public%2C%20max-age%3d5"), b"public, max-age=5");
        assert_eq!(decode("a+b"), b"a+b");
        assert_eq!(decode("100%"), b"100%");
        assert_eq!(decode("%zz%4"), b"%zz%4");
        assert_eq!(decode("%25%34"), b"%4");
    }

    #[test]
    fn splits_a_query() {
        let found: Vec<_> = pairs("a=1&b&&c=x=y").collect();
        assert_eq!(found, [("a", "1"), ("b", ""), ("c", "x=y")]);
        assert_eq!(pairs("").count(), 0);
    }
}
