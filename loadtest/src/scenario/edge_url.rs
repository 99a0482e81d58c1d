//! The address of an edge or of the origin (PURE): `http://host:port`, nothing more.

use std::{fmt, str::FromStr};

use http::Uri;
use thiserror::Error;

const HTTP_PORT: u16 = 80;

/// A plain-HTTP server's address. Two spellings of one address are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeUrl {
    authority: String,
}

/// Why a URL is no address here.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EdgeUrlError {
    /// Not a URL.
    #[error("`{0}` is no URL; write for example http://127.0.0.1:8080")]
    Malformed(String),
    /// Another scheme than plain HTTP.
    #[error("`{0}` does not start with http://; the load test speaks plain HTTP only")]
    Scheme(String),
    /// A path or a query.
    #[error("`{0}` has a path; give the address alone, for example http://127.0.0.1:8080")]
    Path(String),
}

impl FromStr for EdgeUrl {
    type Err = EdgeUrlError;

    fn from_str(text: &str) -> Result<Self, EdgeUrlError> {
        let text = text.trim();
        let malformed = || EdgeUrlError::Malformed(text.to_owned());
        if !text.starts_with("http://") {
            return Err(EdgeUrlError::Scheme(text.to_owned()));
        }
        let uri: Uri = text.parse().map_err(|_| malformed())?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(EdgeUrlError::Path(text.to_owned()));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(malformed)?;
        if uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
            return Err(malformed());
        }
        let port = uri.port_u16().unwrap_or(HTTP_PORT);
        Ok(Self { authority: format!("{}:{port}", host.to_ascii_lowercase()) })
    }
}

impl EdgeUrl {
    /// Host and port.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

impl fmt::Display for EdgeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, EdgeUrlError> {
        text.parse::<EdgeUrl>().map(|url| url.to_string())
    }

    #[test]
    fn addresses_are_normalised() {
        assert_eq!(parse("http://127.0.0.1:8080").unwrap(), "http://127.0.0.1:8080");
        assert_eq!(parse(" http://Edge.example/ ").unwrap(), "http://edge.example:80");
        assert_eq!(parse("http://[::1]:81").unwrap(), "http://[::1]:81");
    }

    #[test]
    fn anything_else_is_refused_with_the_remedy() {
        assert!(matches!(parse("127.0.0.1:8080"), Err(EdgeUrlError::Scheme(_))));
        assert!(matches!(parse("https://a:1"), Err(EdgeUrlError::Scheme(_))));
        assert!(matches!(parse("http://a:1/x"), Err(EdgeUrlError::Path(_))));
        assert!(matches!(parse("http://a:1/?x"), Err(EdgeUrlError::Path(_))));
        assert!(matches!(parse("http://"), Err(EdgeUrlError::Malformed(_))));
        assert!(matches!(parse("http://a b"), Err(EdgeUrlError::Malformed(_))));
        assert!(matches!(parse("http://me@a:1"), Err(EdgeUrlError::Malformed(_))));
    }
}
