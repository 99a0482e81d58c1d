//! A request's steps: received, looked up, passed or answered; one function each.
//!
//! Invariants: what is asked is known in full (site, authority, target) before anything is looked
//! up; path and query stay as they came; only `GET` and `HEAD` without a body touch the cache.

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::{BoxFuture, Either};
use http::header::{AUTHORIZATION, CONNECTION, HOST, RANGE, TRANSFER_ENCODING, UPGRADE, VIA};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use shoal_proto::ObjectKey;

use super::access::{self, Entry, Pending};
use super::body::{self, ClientBody};
use super::interim::{Outlet, relay};
use super::respond::{self, Forwarded, Reply};
use super::stream::{Abort, Handle};
use super::{Edge, ReadPath, hit, purge, tunnel};
use crate::clock;
use crate::fetch::{FetchError, FetchRequest, Fetched, Interims, OriginRequest};
use crate::policy::directives::RequestDirectives;
use crate::policy::key::object_key;
use crate::policy::site::Site;
use crate::policy::{hop, invalidate, serve};

/// How often a request may have come through Shoal before it is taken for a loop.
const HOPS_MAX: usize = 4;
/// Longest path and query of a request, in bytes.
const TARGET_BYTES_MAX: usize = 8 * 1024;

/// What a client asked.
pub(super) struct Asked {
    pub(super) site: Arc<Site>,
    pub(super) authority: String,
    pub(super) target: String,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    /// For a response that only the connection's end delimits.
    abort: Option<Abort>,
    /// For informational responses, where the client understands them.
    pub(super) outlet: Option<Outlet>,
    /// The client came by TLS.
    secure: bool,
    /// Where the client's connection comes from.
    pub(super) client: Option<IpAddr>,
}

impl Asked {
    /// The key of a URL of this site.
    pub(super) fn url<R>(&self, edge: &Edge<R>, target: &str) -> ObjectKey {
        let whole = edge.sites.with(|sites| sites.get(self.site.name()));
        let site = whole.map_or_else(|| Arc::clone(&self.site), |whole| whole.at(target));
        object_key(&edge.secret, &site, &self.authority, &site.key.target(target))
    }
}

/// What a request comes to, at once or later.
type Answered = Result<Response<ClientBody>, Infallible>;
/// Small where it is at once: a connection has room for one in itself.
pub(super) type Answer = Either<Ready<Answered>, BoxFuture<'static, Answered>>;

/// Answers a request, whatever happens: at once where it hits what is in memory.
pub(super) fn answer<R: ReadPath>(
    edge: &Arc<Edge<R>>,
    request: Request<Incoming>,
    handle: &Handle,
) -> Answer {
    let start = clock::monotonic();
    let head = *request.method() == Method::HEAD;
    let pending = edge.access.as_ref().map(|log| {
        let entry = Entry::of(&request, clock::unix_ms(), handle.client);
        Pending { entry, log: Arc::clone(log), start }
    });
    // RFC 9112 section 6.1: a `Content-Length` beside it, which hyper takes away unseen, may be there
    // to smuggle a request past somebody: nothing more is read from this connection.
    let smuggled = request.headers().contains_key(TRANSFER_ENCODING);
    let http1 = request.version() < Version::HTTP_2;
    let turn = handle.turn();
    let finish = move |edge: &Edge<R>, reply: Reply| {
        let mut response = deliver(edge, reply, head, (clock::since(start), pending));
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let leaves = http1 && edge.leaving.load(Ordering::Relaxed);
        if !switches && (smuggled || leaves) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response.map(|body| body.in_turn(turn)))
    };
    if let Some(reply) = hit::reply(edge, &request, handle.secure) {
        return Either::Left(ready(finish(edge, reply)));
    }
    let (edge, handle) = (Arc::clone(edge), handle.clone());
    Either::Right(Box::pin(async move {
        let reply = decide(&edge, request, handle).await;
        finish(&edge, reply)
    }))
}

/// Which step answers.
async fn decide<R: ReadPath>(
    edge: &Edge<R>,
    mut request: Request<Incoming>,
    handle: Handle,
) -> Reply {
    let upgrade = request.headers().contains_key(UPGRADE);
    // A tunnel is a turn of the connection that lasts as long as the tunnel does.
    let upgrade = upgrade.then(|| (hyper::upgrade::on(&mut request), handle.turn()));
    let (asked, body) = match receive(edge, request, handle) {
        Ok(received) => received,
        Err((status, detail)) => return Reply::refused(status, detail),
    };
    if purge::is_meant(&asked) {
        return purge::answer(edge, &asked).await;
    }
    if !asked.site.allows(&asked.method) {
        return Reply::not_allowed(asked.site.methods());
    }
    if let Some(upgrade) = upgrade
        && let Some(protocol) = tunnel::wanted(&asked, &body)
    {
        return tunnel::open(edge, asked, protocol, upgrade).await;
    }
    match is_cacheable(&asked, &body) {
        true => look_up(edge, asked).await,
        false => pass(edge, asked, body).await,
    }
}

/// Only these are looked up; a `GET` with a body means something only its origin knows.
fn is_cacheable(asked: &Asked, body: &Incoming) -> bool {
    let reads = asked.method == Method::GET || asked.method == Method::HEAD;
    reads && !asked.site.bypass && body.is_end_stream()
}

/// A status and what is wrong.
type Refusal = (StatusCode, &'static str);

/// Where a request leads to.
pub(super) struct Address<'a> {
    pub(super) site: Arc<Site>,
    pub(super) authority: &'a str,
    pub(super) target: Cow<'a, str>,
}

/// Understands what is asked, or refuses it.
pub(super) fn address<'a, R, B>(
    edge: &Edge<R>,
    request: &'a Request<B>,
) -> Result<Address<'a>, Refusal> {
    if *request.method() == Method::TRACE {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "trace"));
    }
    if *request.method() == Method::CONNECT {
        return Err((StatusCode::NOT_IMPLEMENTED, "connect"));
    }
    let authority = authority(request).map_err(|detail| (StatusCode::BAD_REQUEST, detail))?;
    let unknown = (edge.config.unknown_host, "unknown host");
    let site = edge.sites.with(|sites| sites.find(authority)).ok_or(unknown)?;
    if hops(request.headers()) >= HOPS_MAX {
        return Err((StatusCode::LOOP_DETECTED, "loop"));
    }
    let target = match request.uri().path_and_query() {
        Some(target) if target.path() == "*" => {
            return Err((StatusCode::NOT_IMPLEMENTED, "asterisk"));
        }
        Some(target) if target.as_str().starts_with('/') => Cow::Borrowed(target.as_str()),
        Some(target) => Cow::Owned(format!("/{target}")),
        None => Cow::Borrowed("/"),
    };
    if target.len() > TARGET_BYTES_MAX {
        return Err((StatusCode::URI_TOO_LONG, "target too long"));
    }
    let site = site.at(&target);
    Ok(Address { site, authority, target })
}

fn receive<R>(
    edge: &Edge<R>,
    request: Request<Incoming>,
    handle: Handle,
) -> Result<(Asked, Incoming), Refusal> {
    let Address { site, authority, target } = address(edge, &request)?;
    let (authority, target) = (authority.to_owned(), target.into_owned());
    let (parts, body) = request.into_parts();
    let abort = (parts.version == Version::HTTP_10).then_some(handle.abort);
    let outlet = (parts.version == Version::HTTP_11).then_some(handle.outlet);
    let (method, headers, secure) = (parts.method, parts.headers, handle.secure);
    let client = handle.client;
    Ok((Asked { site, authority, target, method, headers, abort, outlet, secure, client }, body))
}

/// The authority that a client asked (RFC 9112 section 3.2, RFC 9113 section 8.3.1).
fn authority<B>(request: &Request<B>) -> Result<&str, &'static str> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err("two Host headers");
    }
    if host.is_none() && request.version() == Version::HTTP_11 {
        return Err("no Host header");
    }
    let host = match host {
        Some(host) => Some(host.to_str().map_err(|_| "bad Host header")?),
        None => None,
    };
    let scheme = request.uri().scheme();
    if scheme.is_some_and(|scheme| *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS) {
        return Err("bad scheme");
    }
    let named = match request.uri().authority() {
        // HTTP/1.1 takes the target's authority, HTTP/2 has no reason for two different ones.
        Some(authority) => {
            let differs = host.is_some_and(|host| !host.eq_ignore_ascii_case(authority.as_str()));
            if differs && request.version() == Version::HTTP_2 {
                return Err("Host is not the authority");
            }
            authority.as_str()
        }
        None => host.ok_or("no host")?,
    };
    let parsed: Authority = named.parse().map_err(|_| "bad Host header")?;
    let port_is_valid = parsed.as_str() == parsed.host() || parsed.port_u16().is_some();
    if parsed.host().is_empty() || parsed.as_str().contains('@') || !port_is_valid {
        return Err("bad Host header");
    }
    Ok(named)
}

/// How often Shoal is named in `Via`.
fn hops(headers: &HeaderMap) -> usize {
    let lines = headers.get_all(VIA).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).filter(|hop| hop.trim().ends_with(" shoal")).count()
}

/// `GET` and `HEAD`: from the cache, or through it.
async fn look_up<R: ReadPath>(edge: &Edge<R>, asked: Asked) -> Reply {
    let interims = asked.outlet.as_ref().map(|_| Interims::default());
    let relayed = asked.outlet.as_ref().zip(interims.clone());
    let target = asked.site.key.target(&asked.target).into_owned();
    let url = object_key(&edge.secret, &asked.site, &asked.authority, &target);
    let request = FetchRequest {
        site: Arc::clone(&asked.site),
        key: asked.site.key.key(&edge.secret, url, &asked.headers, asked.secure),
        method: asked.method.clone(),
        target,
        client_authority: asked.authority.clone(),
        headers: hop::fill_headers(&asked.headers),
        authorized: asked.headers.contains_key(AUTHORIZATION),
        client: RequestDirectives::of(&asked.headers, asked.site.rules.client_directives),
        range: range(&asked),
        part: None,
        whole: false,
        avoid: None,
        interims,
    };
    let forwarded = match serve::wants_origin(&request.client) {
        true => Forwarded::Request,
        false => Forwarded::Miss,
    };
    match relay(relayed, edge.read_path.get(request)).await {
        Ok(Fetched::Object(object)) => {
            respond::object((&asked.method, &asked.headers), object, clock::unix_ms())
        }
        Ok(Fetched::Pass(response)) => respond::passed(&asked, response, forwarded),
        Err(error) => fail(&asked, &error, forwarded),
    }
    .edited(&asked.site)
    .aborting(asked.abort)
}

/// The one `Range` of a `GET`.
fn range(asked: &Asked) -> Option<HeaderValue> {
    let mut ranges = asked.headers.get_all(RANGE).iter();
    let range = ranges.next().filter(|_| asked.method == Method::GET)?;
    ranges.next().is_none().then(|| range.clone())
}

/// Everything else: straight to the origin, streamed both ways.
async fn pass<R: ReadPath>(edge: &Edge<R>, asked: Asked, upload: Incoming) -> Reply {
    let forwarded = match asked.method {
        _ if asked.site.bypass => Forwarded::Bypass,
        Method::GET | Method::HEAD => Forwarded::Request,
        _ => Forwarded::Method,
    };
    let silence_max = Duration::from_millis(edge.config.upload_silence_ms);
    let body = (!upload.is_end_stream()).then(|| body::upload(upload, &asked.headers, silence_max));
    let interims = asked.outlet.as_ref().map(|_| Interims::default());
    let relayed = asked.outlet.as_ref().zip(interims.clone());
    let request = OriginRequest {
        method: asked.method.clone(),
        target: asked.target.clone(),
        client_authority: asked.authority.clone(),
        headers: asked.headers.clone(),
        body,
        interims,
    };
    let answer = edge.read_path.pass(Arc::clone(&asked.site), request);
    match relay(relayed, answer).await {
        Ok(response) => {
            if invalidate::is_unsafe(&asked.method) {
                let answer = (response.status, &response.headers);
                invalidate(edge, &asked, answer).await;
            }
            respond::passed(&asked, response, forwarded)
        }
        Err(error) => fail(&asked, &error, forwarded),
    }
    .edited(&asked.site)
    .aborting(asked.abort)
}

/// Before the client hears of its success: what it changed is not served any more.
async fn invalidate<R: ReadPath>(edge: &Edge<R>, asked: &Asked, answer: (StatusCode, &HeaderMap)) {
    let targets = invalidate::targets(&asked.site, &asked.authority, &asked.target, answer);
    for target in targets {
        edge.read_path.invalidate(&asked.site, asked.url(edge, &target)).await;
    }
}

/// An honest error instead of the response that could not be had.
pub(super) fn fail(asked: &Asked, error: &FetchError, forwarded: Forwarded) -> Reply {
    tracing::info!(site = asked.site.name(), %error, "a request failed");
    match error {
        FetchError::Unreachable { .. } => {
            Reply::failed(StatusCode::BAD_GATEWAY, forwarded, "origin unreachable")
        }
        FetchError::Malformed { .. } | FetchError::OtherVersion { .. } => {
            Reply::failed(StatusCode::BAD_GATEWAY, forwarded, "origin response malformed")
        }
        FetchError::Timeout { .. } => {
            Reply::failed(StatusCode::GATEWAY_TIMEOUT, forwarded, "origin timed out")
        }
        FetchError::NotCached => Reply::refused(StatusCode::GATEWAY_TIMEOUT, "only-if-cached"),
        FetchError::Closed => {
            Reply::failed(StatusCode::SERVICE_UNAVAILABLE, forwarded, "shutting down")
        }
    }
}

/// Counts and sends.
fn deliver<R>(
    edge: &Edge<R>,
    reply: Reply,
    head: bool,
    (took, pending): (Duration, Option<Pending>),
) -> Response<ClientBody> {
    let metrics = &edge.metrics;
    metrics.requests.of(reply.tier).inc();
    metrics.first_byte_seconds.observe(took.as_secs_f64());
    if reply.failed {
        metrics.errors.inc();
    }
    let sent = metrics.response_bytes.of(reply.tier).clone();
    let response =
        reply.response.map(|body| if head { ClientBody::empty() } else { body.counted(sent) });
    let Some(mut pending) = pending else { return response };
    let said = response.headers().get(respond::CACHE_STATUS);
    let said = said.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    pending.entry.status = response.status();
    pending.entry.cache = said.unwrap_or_default();
    pending.entry.tier = reply.tier.name();
    pending.entry.first_byte_ms = access::millis(took);
    response.map(|body| body.logged(pending))
}
