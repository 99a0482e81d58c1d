//! PURE. Tokens of admin calls and what each allows.
//!
//! Invariants: a secret itself is never kept, only its SHA-256; every known token is compared, in
//! constant time, whichever matches; without tokens nothing is allowed.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::text::suggest::nearest;

/// Shortest secret, in bytes: 128 bits in hexadecimal.
pub const SECRET_BYTES_MIN: usize = 32;
/// Longest secret, in bytes.
pub const SECRET_BYTES_MAX: usize = 512;
/// Most tokens of one member.
pub const TOKENS_MAX: usize = 256;
/// Most scopes of one token.
pub const SCOPES_MAX: usize = 64;

/// What a token may be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Purges; may be limited to a site, and to a path prefix of it.
    Purge,
    /// Changes of the tier's membership.
    Members,
    /// Checks of the index.
    Verify,
    /// Draining of a node.
    Drain,
    /// Recovery from the loss of a majority.
    Recover,
    /// Changes of sites; may be limited to one.
    Sites,
    /// Prefetches; may be limited to a site, and to a path prefix of it.
    Prefetch,
    /// Reads that are no secret within the organisation, such as the list of members.
    Read,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Purge,
        Self::Members,
        Self::Verify,
        Self::Drain,
        Self::Recover,
        Self::Sites,
        Self::Prefetch,
        Self::Read,
    ];

    /// Its name in scopes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Purge => "purge",
            Self::Members => "members",
            Self::Verify => "verify",
            Self::Drain => "drain",
            Self::Recover => "recover",
            Self::Sites => "sites",
            Self::Prefetch => "prefetch",
            Self::Read => "read",
        }
    }
}

/// One thing that a token allows: `purge`, `purge:site=docs`, `purge:site=docs:prefix=/a/`,
/// `sites:site=docs`, or `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// For what; `None` for everything.
    verb: Option<Verb>,
    /// Only for this site.
    site: Option<String>,
    /// Only for paths under this one, which ends in `/`.
    prefix: Option<String>,
}

/// What a call touches, for scopes that are limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// No single site.
    Everything,
    /// A whole site, or a part of it that no path names.
    Site(&'a str),
    /// The paths of a site that are this one, or begin with it.
    Path(&'a str, &'a str),
}

impl Scope {
    /// The scope that allows everything.
    pub const EVERYTHING: &'static str = "*";

    fn allows(&self, verb: Verb, target: Target<'_>) -> bool {
        let Some(own) = self.verb else { return true };
        let (site, path) = match target {
            Target::Everything => (None, None),
            Target::Site(site) => (Some(site), None),
            Target::Path(site, path) => (Some(site), Some(path)),
        };
        let in_site = self.site.as_deref().is_none_or(|own| site == Some(own));
        let under = |own: &str| path.is_some_and(|path| path.starts_with(own));
        own == verb && in_site && self.prefix.as_deref().is_none_or(under)
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == Self::EVERYTHING {
            return Ok(Self { verb: None, site: None, prefix: None });
        }
        let (word, limits) = text.split_once(':').map_or((text, None), |(w, l)| (w, Some(l)));
        let verb = Verb::ALL.into_iter().find(|verb| verb.name() == word);
        let verb = verb.ok_or_else(|| {
            let known = Verb::ALL.map(Verb::name);
            match nearest(word, known) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("expected one of {}, or \"*\"", known.join(", ")),
            }
        })?;
        let Some(limits) = limits else {
            return Ok(Self { verb: Some(verb), site: None, prefix: None });
        };
        if !matches!(verb, Verb::Purge | Verb::Sites | Verb::Prefetch) {
            let can = "only \"purge\", \"sites\" and \"prefetch\" can be limited to a site";
            return Err(format!("expected no limit: {can}"));
        }
        let has_prefix = verb != Verb::Sites;
        let expected = || match has_prefix {
            true => format!(
                "expected \"{word}:site=NAME\" or \"{word}:site=NAME:prefix=/PATH/\"; the prefix \
                 begins and ends with '/'"
            ),
            false => format!("expected \"{word}:site=NAME\""),
        };
        let limits = limits.strip_prefix("site=").ok_or_else(expected)?;
        let (site, prefix) = match limits.split_once(":prefix=") {
            Some((site, prefix)) if has_prefix => (site, Some(prefix)),
            _ => (limits, None),
        };
        let right = |prefix: &str| prefix.starts_with('/') && prefix.ends_with('/');
        if site.is_empty() || site.contains(':') || !prefix.is_none_or(right) {
            return Err(expected());
        }
        let prefix = prefix.map(str::to_owned);
        Ok(Self { verb: Some(verb), site: Some(site.to_owned()), prefix })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verb.map_or(Self::EVERYTHING, Verb::name))?;
        if let Some(site) = &self.site {
            write!(f, ":site={site}")?;
        }
        if let Some(prefix) = &self.prefix {
            write!(f, ":prefix={prefix}")?;
        }
        Ok(())
    }
}

/// A secret's SHA-256, which is all that is kept of it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHash(blake3::Hash);

impl SecretHash {
    /// The hash of `secret`.
    pub fn of(secret: &[u8]) -> Self {
        Self(blake3::Hash::from_bytes(Sha256::digest(secret).into()))
    }

    /// A hash in 64 hexadecimal digits, as `sha256sum` prints it.
    pub fn from_hex(text: &str) -> Option<Self> {
        // The type is lent for its comparison, which takes the same time whatever differs.
        blake3::Hash::from_hex(text.trim()).ok().map(Self)
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

/// A token as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Who it is for; stands in logs.
    pub name: String,
    /// Its secret's hash.
    pub secret: SecretHash,
    /// What it allows.
    pub scopes: Vec<Scope>,
}

/// Who calls, and what they may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    name: String,
    scopes: Vec<Scope>,
}

impl Caller {
    /// The token's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether any scope is for `verb`, be it for one site only.
    pub fn has(&self, verb: Verb) -> bool {
        self.scopes.iter().any(|scope| scope.verb.is_none_or(|own| own == verb))
    }

    /// Whether `verb` is allowed on `target`.
    pub fn may(&self, verb: Verb, target: Target<'_>) -> bool {
        self.scopes.iter().any(|scope| scope.allows(verb, target))
    }
}

/// Every token that a member knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens(Vec<Token>);

impl Tokens {
    /// These tokens.
    pub fn new(tokens: Vec<Token>) -> Self {
        Self(tokens)
    }

    /// Whether there is none, so that no call is allowed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tokens.
    pub fn iter(&self) -> impl Iterator<Item = &Token> {
        self.0.iter()
    }

    /// Who brings `secret`; `None` for a stranger.
    pub fn caller(&self, secret: &[u8]) -> Option<Caller> {
        let hash = SecretHash::of(secret);
        let mut found = None;
        for token in &self.0 {
            if token.secret.0 == hash.0 {
                found = Some(Caller { name: token.name.clone(), scopes: token.scopes.clone() });
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn caller(scopes: &[&str]) -> Caller {
        let scopes = scopes.iter().map(|scope| scope.parse().unwrap()).collect();
        Caller { name: "ci".into(), scopes }
    }

    #[test]
    fn a_secret_finds_its_token_and_no_other() {
        let token = |name: &str, secret: &str| Token {
            name: name.into(),
            secret: SecretHash::of(secret.as_bytes()),
            scopes: vec![],
        };
        let tokens = Tokens::new(vec![token("a", "first"), token("b", "second")]);
        assert_eq!(tokens.caller(b"second").unwrap().name(), "b");
        assert_eq!(tokens.caller(b"Second"), None);
        assert_eq!(tokens.caller(b""), None);
        assert_eq!(Tokens::default().caller(b"first"), None);
        // `printf abc | sha256sum`
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(SecretHash::from_hex(abc), Some(SecretHash::of(b"abc")));
        assert!(!format!("{tokens:?}").contains("ba78"));
    }

    #[test]
    fn scopes_are_limited_to_what_they_say() {
        let of_site = caller(&["purge:site=docs"]);
        assert!(of_site.has(Verb::Purge) && !of_site.has(Verb::Recover));
        assert!(of_site.may(Verb::Purge, Target::Site("docs")));
        assert!(of_site.may(Verb::Purge, Target::Path("docs", "/a/b")));
        assert!(!of_site.may(Verb::Purge, Target::Site("apt")));
        assert!(!of_site.may(Verb::Purge, Target::Everything));
        let of_part = caller(&["purge:site=docs:prefix=/a/"]);
        assert!(of_part.may(Verb::Purge, Target::Path("docs", "/a/b")));
        for path in ["/a", "/ab", "/", "/b/a/"] {
            assert!(!of_part.may(Verb::Purge, Target::Path("docs", path)), "{path}");
        }
        assert!(!of_part.may(Verb::Purge, Target::Site("docs")));
        let both = caller(&["read", "purge"]);
        assert!(
            both.may(Verb::Purge, Target::Everything) && both.may(Verb::Read, Target::Everything)
        );
        assert!(!both.has(Verb::Members));
        let editor = caller(&["sites:site=docs"]);
        assert!(editor.may(Verb::Sites, Target::Site("docs")));
        assert!(!editor.may(Verb::Sites, Target::Site("apt")));
        assert!(!editor.may(Verb::Purge, Target::Site("docs")));
        let root = caller(&["*"]);
        assert!(Verb::ALL.into_iter().all(|verb| root.may(verb, Target::Everything)));
        assert!(!caller(&[]).has(Verb::Read));
    }

    #[test]
    fn wrong_scopes_say_what_would_be_right() {
        let refused = |text: &str| text.parse::<Scope>().unwrap_err();
        assert!(refused("purg").contains("did you mean \"purge\"?"));
        assert!(refused("everything").contains("expected one of"));
        assert!(refused("recover:site=docs").contains("only \"purge\""));
        assert!(refused("sites:site=a:prefix=/b/").ends_with("\"sites:site=NAME\""));
        for wrong in
            ["purge:", "purge:docs", "purge:site=", "purge:site=a:prefix=b", "purge:site=a:b"]
        {
            assert!(refused(wrong).contains("purge:site=NAME"), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn scopes_read_back_as_written(text in "(\\*|[a-z]{1,8}(:site=[a-z:]{0,5}(:prefix=[/a:]{0,5})?)?)") {
            if let Ok(scope) = text.parse::<Scope>() {
                prop_assert_eq!(scope.to_string(), text);
            }
        }
    }
}
