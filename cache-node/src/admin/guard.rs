//! The door to the control calls: who calls, and may they?
//!
//! Invariants: without a token that allows it nothing runs; a body is bounded, in bytes and in
//! time; every refusal is counted, and logged once per peer and kind, without a word of the request.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use serde_json::Value;

use super::control::{Asked, Control, ControlError, Endpoint};
use super::tokens::{Caller, SECRET_BYTES_MAX, Tokens, Verb};
use super::{JSON_TYPE, encoded, response};
use crate::metrics::{AdminMetrics, Refusal};
use crate::refusals::Refusals;

/// Where the control calls are.
pub(super) const ROOT: &str = "/v1/";
/// Largest body of a call, in bytes.
pub(super) const BODY_BYTES_MAX: usize = 1024 * 1024;
/// For a body to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

type Refused = (Refusal, ControlError);

/// Who is let in, and what is told of those who are not.
#[derive(Debug)]
pub(super) struct Guard {
    tokens: Tokens,
    metrics: AdminMetrics,
    told: Refusals<IpAddr, Refusal>,
}

impl Guard {
    pub(super) fn new(tokens: Tokens, metrics: AdminMetrics) -> Self {
        Self { tokens, metrics, told: Refusals::default() }
    }

    /// Answers one call under [`ROOT`].
    pub(super) async fn answer<B>(
        &self,
        request: Request<B>,
        peer: IpAddr,
        control: Option<Arc<Control>>,
    ) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes>,
        B::Error: std::fmt::Display,
    {
        let Some(control) = control else {
            let why = "this member is starting";
            return told(&ControlError::unavailable(why, "wait until /readyz answers 200"));
        };
        match self.call(request, &control).await {
            Ok(value) => {
                self.metrics.calls.inc();
                encoded(JSON_TYPE, serde_json::to_vec(&value))
            }
            Err((Some(kind), error)) => {
                self.count(peer, kind);
                refusal(kind, &error)
            }
            Err((None, error)) => told(&error),
        }
    }

    async fn call<B>(
        &self,
        request: Request<B>,
        control: &Control,
    ) -> Result<Value, (Option<Refusal>, ControlError)>
    where
        B: Body<Data = Bytes>,
        B::Error: std::fmt::Display,
    {
        let refused = |(kind, error)| (Some(kind), error);
        let endpoint = endpoint(control, &request).map_err(refused)?;
        let caller = self.caller(request.headers(), endpoint.verb).map_err(refused)?;
        let name = endpoint.name(request.uri().path()).unwrap_or_default().to_owned();
        let asked = Asked { name, query: request.uri().query().unwrap_or_default().to_owned() };
        let body = body(request.into_body()).await.map_err(refused)?;
        control.run(endpoint, caller, (asked, body)).await.map_err(|error| match error.status() {
            StatusCode::FORBIDDEN if error.code == "scope" => (Some(Refusal::Scope), error),
            StatusCode::BAD_REQUEST => (Some(Refusal::Invalid), error),
            _ => (None, error),
        })
    }

    fn count(&self, peer: IpAddr, kind: Refusal) {
        self.metrics.refusals.of(kind).inc();
        if self.told.first(peer, kind) {
            tracing::warn!(%peer, reason = kind.name(), "a control call was refused");
        }
    }

    /// Who calls, if they may do anything of that kind.
    fn caller(&self, headers: &HeaderMap, verb: Verb) -> Result<Caller, Refused> {
        let unauthorized = |code: &str, message: &str, remedy: &str| {
            ControlError::new(StatusCode::UNAUTHORIZED, code, message, remedy)
        };
        if self.tokens.is_empty() {
            let error = ControlError::new(
                StatusCode::FORBIDDEN,
                "no-tokens",
                "this member has no token that would allow control calls",
                "add [[admin.tokens]] to its configuration (docs/control-api.md)",
            );
            return Err((Refusal::NoTokens, error));
        }
        let Some(secret) = bearer(headers) else {
            let remedy = "send \"Authorization: Bearer TOKEN\"; shoal's commands take it from \
                          --token-file or SHOAL_TOKEN";
            let error = unauthorized("token-missing", "the call brings no token", remedy);
            return Err((Refusal::TokenMissing, error));
        };
        let Some(caller) = self.tokens.caller(secret) else {
            let remedy = "compare --token-file or SHOAL_TOKEN with that member's [[admin.tokens]]";
            let error =
                unauthorized("token-unknown", "this member does not know the token", remedy);
            return Err((Refusal::TokenUnknown, error));
        };
        if !caller.has(verb) {
            let message = format!("token {:?} has no scope {:?}", caller.name(), verb.name());
            let remedy = format!("use a token with the scope {:?}", verb.name());
            return Err((Refusal::Scope, ControlError::scope(message, remedy)));
        }
        Ok(caller)
    }
}

fn endpoint<'a, B>(control: &'a Control, request: &Request<B>) -> Result<&'a Endpoint, Refused> {
    let path = request.uri().path();
    let here = control.at(path);
    if let Some(found) = here.iter().find(|endpoint| endpoint.method == *request.method()) {
        return Ok(found);
    }
    let error = if here.is_empty() {
        let message = format!("no control call at {path}");
        ControlError::not_found(message, "docs/control-api.md lists them; is this the right role?")
    } else {
        let methods: Vec<_> = here.iter().map(|endpoint| endpoint.method.as_str()).collect();
        let message = format!("{path} takes {}", methods.join(", "));
        let remedy = "use that method";
        ControlError::new(StatusCode::METHOD_NOT_ALLOWED, "method", message, remedy)
    };
    Err((Refusal::Invalid, error))
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"Bearer ";
    let (scheme, secret) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(SCHEME.len())?;
    let fits = scheme.eq_ignore_ascii_case(SCHEME) && secret.len() <= SECRET_BYTES_MAX;
    Some(secret.trim_ascii()).filter(|secret| fits && !secret.is_empty())
}

async fn body<B>(body: B) -> Result<Value, Refused>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let invalid = |status, message: String| {
        let remedy = format!("send one JSON document of at most {BODY_BYTES_MAX} bytes");
        (Refusal::Invalid, ControlError::new(status, "invalid", message, remedy))
    };
    let long = || invalid(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long".to_owned());
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(long());
    }
    let body = std::pin::pin!(body);
    let mut pieces = Vec::new();
    let gathered = tokio::time::timeout(BODY_DEADLINE, gather(body, &mut pieces)).await;
    match gathered {
        Err(_) => {
            let message = format!("the body did not arrive within {} s", BODY_DEADLINE.as_secs());
            return Err(invalid(StatusCode::REQUEST_TIMEOUT, message));
        }
        Ok(Err(why)) => return Err(invalid(StatusCode::BAD_REQUEST, why)),
        Ok(Ok(false)) => return Err(long()),
        Ok(Ok(true)) => {}
    }
    if pieces.is_empty() {
        return Ok(Value::Null);
    }
    // What it holds is not quoted: it may name what should be in no log.
    serde_json::from_slice(&pieces).map_err(|error| {
        let at = format!("the body is not JSON (line {}, column {})", error.line(), error.column());
        invalid(StatusCode::BAD_REQUEST, at)
    })
}

/// Gathers a body; false when it is too long.
async fn gather<B>(mut body: std::pin::Pin<&mut B>, into: &mut Vec<u8>) -> Result<bool, String>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        let Ok(data) = frame.into_data() else { continue };
        if into.len() + data.len() > BODY_BYTES_MAX {
            return Ok(false);
        }
        into.extend_from_slice(&data);
    }
    Ok(true)
}

fn refusal(kind: Refusal, error: &ControlError) -> Response<Full<Bytes>> {
    let mut answer = told(error);
    if matches!(kind, Refusal::TokenMissing | Refusal::TokenUnknown) {
        let scheme = HeaderValue::from_static("Bearer realm=\"shoal\"");
        answer.headers_mut().insert(WWW_AUTHENTICATE, scheme);
    }
    if error.status() == StatusCode::METHOD_NOT_ALLOWED
        && let Some((_, methods)) = error.message.split_once(" takes ")
        && let Ok(methods) = HeaderValue::from_str(methods)
    {
        answer.headers_mut().insert(ALLOW, methods);
    }
    answer
}

fn told(error: &ControlError) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "error": error }).to_string();
    response(error.status(), JSON_TYPE, body.into())
}
