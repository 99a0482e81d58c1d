//! PURE. Which stored response answers which request: `Vary` (RFC 9111 section 4.1).
//!
//! A stored response that varies carries the mark of the request that selected it: a keyed hash of
//! the values that its `Vary` names, so that nothing a client sent is kept. It answers requests
//! that come to the same mark, and no others; another variant has a key of its own, made out of the
//! URL's key and its mark.
//!
//! Invariants: a member of `Vary` that cannot be a header name counts as `*`; absent and empty are
//! different; what is normalised away never changes what a value means.

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, COOKIE,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use shoal_proto::{Header, ObjectHead, ObjectKey};

/// The stored header that holds the mark. It never leaves a node but to its peers.
pub const MARK: &str = "shoal-selected";
/// Most request headers that a stored response may vary by.
const NAMES_MAX: usize = 16;

/// What selects among responses.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Selecting {
    /// More than request headers: `*`.
    Anything,
    /// These, in order, each once; none when the response does not vary.
    Names(Vec<HeaderName>),
}

fn selecting<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Selecting {
    let mut names = Vec::new();
    for member in lines.flat_map(|line| line.split(|byte| *byte == b',')) {
        let member = member.trim_ascii();
        if member.is_empty() {
            continue;
        }
        match HeaderName::from_bytes(member) {
            Ok(name) if member != b"*" => names.push(name),
            _ => return Selecting::Anything,
        }
    }
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    if names.len() > NAMES_MAX { Selecting::Anything } else { Selecting::Names(names) }
}

fn of_stored(stored: &[Header]) -> Selecting {
    let lines = stored.iter().filter(|header| header.name == "vary");
    selecting(lines.map(|header| header.value.as_ref()))
}

/// Whether a response varies by more than can be held apart.
pub fn is_unbounded(response: &HeaderMap) -> bool {
    let lines = response.get_all(http::header::VARY).iter().map(HeaderValue::as_bytes);
    selecting(lines) == Selecting::Anything
}

/// The stored headers with the mark of the request that selected the response.
pub fn marked(mut stored: Vec<Header>, secret: &[u8; 32], request: &HeaderMap) -> Vec<Header> {
    stored.retain(|header| header.name != MARK);
    if let Selecting::Names(names) = of_stored(&stored)
        && !names.is_empty()
    {
        let mark = mark(secret, &names, request).to_hex();
        let value = Bytes::copy_from_slice(mark.as_bytes());
        stored.push(Header { name: MARK.to_owned(), value });
    }
    stored
}

/// Whether a stored response is one that these request headers select.
pub fn selects(stored: &ObjectHead, secret: &[u8; 32], request: &HeaderMap) -> bool {
    if stored.header("vary").is_none() {
        return true;
    }
    match of_stored(&stored.headers) {
        Selecting::Anything => false,
        Selecting::Names(names) if names.is_empty() => true,
        Selecting::Names(names) => {
            let expected = mark(secret, &names, request).to_hex();
            stored.header(MARK).is_some_and(|mark| mark.as_ref() == expected.as_bytes())
        }
    }
}

/// The key of the variant for a request that `other`, stored under the URL's key or for another
/// variant, does not answer.
pub fn key(
    secret: &[u8; 32],
    url: &ObjectKey,
    other: &ObjectHead,
    request: &HeaderMap,
) -> Option<ObjectKey> {
    let Selecting::Names(names) = of_stored(&other.headers) else { return None };
    let mut hasher = blake3::Hasher::new_keyed(secret);
    hasher.update(b"shoal variant v1");
    hasher.update(url.as_bytes());
    hasher.update(mark(secret, &names, request).as_bytes());
    Some(ObjectKey::new(*hasher.finalize().as_bytes()))
}

fn mark(secret: &[u8; 32], names: &[HeaderName], request: &HeaderMap) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    hasher.update(b"shoal selected v1");
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for name in names {
        part(name.as_str().as_bytes());
        match request.contains_key(name) {
            true => part(&normalised(name, request)),
            false => part(b"\0absent"),
        }
    }
    hasher.finalize()
}

/// A request's values of a header in one form: lines joined by commas, without the white space
/// around them that lists may have; in lower case where case has no meaning, and in order where
/// order has none.
fn normalised(name: &HeaderName, request: &HeaderMap) -> Vec<u8> {
    let lines: Vec<&[u8]> = request.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if [AUTHORIZATION, COOKIE].contains(name) {
        return lines.join(&b"; "[..]);
    }
    let mut members: Vec<Vec<u8>> = Vec::new();
    let joined = lines.join(&b","[..]);
    let mut rest = &joined[..];
    while !rest.is_empty() {
        let (piece, after, _) = super::directives::split_piece(rest, b',');
        rest = after;
        let piece = piece.trim_ascii();
        if !piece.is_empty() {
            members.push(piece.to_vec());
        }
    }
    if [ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE].contains(name) {
        for member in &mut members {
            member.retain(|byte| !matches!(byte, b' ' | b'\t'));
            member.make_ascii_lowercase();
        }
    }
    // Of the other lists, some origins take the first for the dearest (RFC 9110 section 12.5.4).
    if name == ACCEPT_ENCODING {
        members.sort_unstable();
        members.dedup();
    }
    members.join(&b","[..])
}

#[cfg(test)]
#[path = "vary_tests.rs"]
mod tests;
