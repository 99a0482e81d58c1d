//! The head of a request as it goes out.
//!
//! Invariants: an origin sees `Host` as its site says, `Via`, no hop-by-hop header but those made
//! here, and nothing that names the client.

use http::header::{CONNECTION, HOST, TE, TRAILER, TRANSFER_ENCODING, VIA};
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};

use super::{OriginError, OriginRequest, RequestBody};
use crate::policy::doors::takes_trailers;
use crate::policy::site::{HostHeader, OriginUrl, Site};
use crate::policy::{hop, surrogate};

/// Shoal's entry in `Via` (RFC 9110 section 7.6.3).
const VIA_SHOAL: &[u8] = b"1.1 shoal";
/// Which targeted control an origin may use.
const SURROGATE_CAPABILITY: HeaderName = HeaderName::from_static("surrogate-capability");

/// The head of a request as it goes out; the connection adds nothing but `Content-Length`.
pub(super) fn head(
    (site, origin): (&Site, &OriginUrl),
    request: &OriginRequest,
    body: Option<&RequestBody>,
) -> Result<Request<()>, OriginError> {
    let unusable = |error: http::Error| OriginError::Unreachable {
        origin: origin.to_string(),
        reason: format!("the request cannot be sent: {error}"),
    };
    let uri = Uri::builder()
        .scheme(origin.scheme.clone())
        .authority(origin.authority.clone())
        .path_and_query(request.target.as_str())
        .build()
        .map_err(unusable)?;
    let host = match site.host_header() {
        HostHeader::Origin => HeaderValue::from_str(origin.authority.as_str()),
        HostHeader::Client => HeaderValue::from_str(&site.host_for(&request.client_authority)),
    };
    let mut headers = hop::pass_headers(&request.headers);
    site.request_headers.apply(&mut headers);
    headers.insert(HOST, host.map_err(|error| unusable(error.into()))?);
    append(&mut headers, VIA, VIA_SHOAL);
    if site.rules.is_surrogate() {
        append(&mut headers, SURROGATE_CAPABILITY, surrogate::CAPABILITY.as_bytes());
    }
    if body.is_some_and(|body| body.length.is_none()) {
        // Otherwise hyper takes an unsized body of a GET for none. HTTP/2 drops it again.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        headers.extend(request.headers.get(TRAILER).map(|names| (TRAILER, names.clone())));
    }
    if takes_trailers(&request.headers) {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        // RFC 9110 section 10.1.4, over HTTP/1.1; over HTTP/2 it would take `TE` away again.
        if origin.scheme == Scheme::HTTP || site.host_header() == HostHeader::Client {
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
    }
    let mut head = Request::new(());
    *head.method_mut() = request.method.clone();
    *head.uri_mut() = uri;
    *head.headers_mut() = headers;
    Ok(head)
}

/// Adds a member at a list header's end.
fn append(headers: &mut HeaderMap, name: HeaderName, member: &[u8]) {
    let mut list = headers.get(&name).map_or(Vec::new(), |value| value.as_bytes().to_vec());
    if !list.is_empty() {
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(member);
    if let Ok(list) = HeaderValue::from_bytes(&list) {
        headers.insert(name, list);
    }
}
