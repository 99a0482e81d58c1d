//! PURE. What an operator names by a URL: the site that serves it and the path there, read as the
//! edge reads a client's request, so that both come to the same key.

use std::sync::Arc;

use http::Uri;
use http::uri::Scheme;
use shoal_proto::ObjectKey;

use super::key::object_key;
use super::site::{Site, Sites};

/// A URL that a site serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The site.
    pub site: Arc<Site>,
    /// Host and port, as in the URL.
    pub authority: String,
    /// Path and query, as in the URL.
    pub target: String,
}

/// Why a URL names nothing: what is wrong, and what would help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {remedy}")]
pub struct NamedError {
    /// What is wrong.
    pub problem: String,
    /// What would help.
    pub remedy: String,
}

impl Named {
    /// Reads `url`.
    ///
    /// # Errors
    /// When it is no URL of HTTP's, or no site serves its host.
    pub fn read(sites: &Sites, url: &str) -> Result<Self, NamedError> {
        let malformed = || NamedError {
            problem: format!("{url:?} is no URL"),
            remedy: "write it as clients do: http://HOST/PATH".to_owned(),
        };
        let uri: Uri = url.parse().map_err(|_| malformed())?;
        let of_http = uri.scheme().is_some_and(|s| *s == Scheme::HTTP || *s == Scheme::HTTPS);
        let authority = uri.authority().filter(|authority| of_http && !authority.host().is_empty());
        let authority = authority.ok_or_else(malformed)?.to_string();
        if authority.contains('@') {
            return Err(malformed());
        }
        let site = sites.find(&authority).ok_or_else(|| unknown(sites, &authority))?;
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let site = site.at(&target);
        Ok(Self { site, authority, target })
    }

    /// Its key.
    pub fn key(&self, secret: &[u8; 32]) -> ObjectKey {
        object_key(secret, &self.site, &self.authority, &self.site.key.target(&self.target))
    }

    /// Its path, without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or(&self.target)
    }
}

fn unknown(sites: &Sites, authority: &str) -> NamedError {
    NamedError {
        problem: format!("no site serves {authority:?}"),
        remedy: format!("name a host of one of the sites {}", names(sites)),
    }
}

/// The site called `name`.
///
/// # Errors
/// When there is none.
pub fn site(sites: &Sites, name: &str) -> Result<Arc<Site>, NamedError> {
    sites.get(name).ok_or_else(|| NamedError {
        problem: format!("there is no site {name:?}"),
        remedy: format!("name one of {}", names(sites)),
    })
}

fn names(sites: &Sites) -> String {
    let mut names: Vec<_> = sites.iter().map(|site| site.name()).collect();
    names.sort_unstable();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sites() -> Sites {
        let text = |name: &str, host: &str| {
            format!("name = {name:?}\nhosts = [{host:?}]\norigin = \"http://o.test\"")
        };
        let of = |name, host| toml::from_str(&text(name, host)).unwrap();
        Sites::new(vec![of("docs", "docs.test"), of("apt", "*.apt.test")]).unwrap()
    }

    #[test]
    fn a_url_is_read_as_the_edge_reads_requests() {
        let sites = sites();
        let read = |url| Named::read(&sites, url).unwrap();
        let named = read("http://Docs.test:8080/a/b?q=1#part");
        assert_eq!((named.site.name(), named.target.as_str()), ("docs", "/a/b?q=1"));
        assert_eq!(named.path(), "/a/b");
        assert_eq!(read("https://docs.test").target, "/");
        assert_eq!(read("https://docs.test?q").target, "/?q");
        let secret = [7; 32];
        let asked = object_key(&secret, &named.site, "docs.test", "/a/b?q=1");
        assert_eq!(named.key(&secret), asked);
    }

    #[test]
    fn what_names_nothing_says_what_would() {
        let sites = sites();
        let refused = |url| Named::read(&sites, url).unwrap_err().to_string();
        for wrong in
            ["", "/a", "docs.test/a", "ftp://docs.test/", "http:///a", "http://u@docs.test/"]
        {
            assert!(refused(wrong).contains("http://HOST/PATH"), "{wrong}");
        }
        let unknown = refused("http://other.test/a");
        assert!(unknown.contains("\"other.test\"") && unknown.contains("apt, docs"), "{unknown}");
        let unknown = site(&sites, "doc").unwrap_err().to_string();
        assert!(unknown.contains("\"doc\"") && unknown.contains("apt, docs"), "{unknown}");
    }
}
