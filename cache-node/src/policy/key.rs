//! The identity of a cacheable response: a keyed hash, so that an index or a log names no URL.
//!
//! Invariants: no two inputs share an encoding (every part is preceded by its length); path and
//! query enter exactly as received. Keys of variants are made out of this one: see `vary`.

use shoal_proto::ObjectKey;

use super::site::Site;

/// The key of `target` (path and query, unmodified) for a client that asked `client_authority`.
///
/// The authority enters as the origin will see it in `Host`: requests through different edges or
/// ports share a key where the origin cannot tell them apart (RFC 9111 section 2: the target URI).
pub fn object_key(
    secret: &[u8; 32],
    site: &Site,
    client_authority: &str,
    target: &str,
) -> ObjectKey {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    hasher.update(b"shoal key v1");
    for part in [site.name(), &site.host_for(client_authority), target] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    ObjectKey::new(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::site::Sites;
    use super::*;

    const SECRET: [u8; 32] = [7; 32];

    fn site(name: &str, host_header: &str) -> Arc<Site> {
        let text = format!(
            "name = {name:?}\nhosts = [\"*\"]\norigin = \"http://o.test\"\nhost_header = \
             {host_header:?}"
        );
        Sites::new(vec![toml::from_str(&text).unwrap()]).unwrap().get(name).unwrap()
    }

    #[test]
    fn the_key_is_what_the_origin_can_tell_apart() {
        let own = site("a", "origin");
        let key = |host, target| object_key(&SECRET, &own, host, target);
        assert_eq!(key("edge1:8080", "/x?q=1"), key("edge2", "/x?q=1"));
        for other in ["/x", "/x?q=2", "/X?q=1", "/x?q=1&", "/%78?q=1", "//x?q=1", "/x?Q=1"] {
            assert_ne!(key("edge", "/x?q=1"), key("edge", other), "{other}");
        }
        let asked = site("a", "client");
        let key = |host| object_key(&SECRET, &asked, host, "/x");
        assert_ne!(key("edge1"), key("edge2"));
        assert_eq!(key("Edge1:80"), key("edge1:80"));
    }

    #[test]
    fn sites_secrets_and_borders_between_parts_matter() {
        let a = object_key(&SECRET, &site("a", "client"), "b", "/c");
        assert_ne!(a, object_key(&SECRET, &site("b", "client"), "b", "/c"));
        assert_ne!(a, object_key(&[8; 32], &site("a", "client"), "b", "/c"));
        assert_ne!(a, object_key(&SECRET, &site("a", "client"), "b/", "c"));
        assert_ne!(a, object_key(&SECRET, &site("ab", "client"), "", "/c"));
    }
}
