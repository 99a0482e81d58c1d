//! One request: which part of the origin answers it.

use std::{convert::Infallible, sync::Arc};

use futures::StreamExt;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyStream;
use hyper::body::Incoming;
use thiserror::Error;

use super::{
    State, echo,
    knobs::Knobs,
    object,
    pages::{self, Reply},
    select, stats,
    stats::Tally,
};
use crate::content::{OBJECT_PREFIX, ObjectName};

const CONTROL_PREFIX: &str = "/_origin/";

/// Why a reply could not be made.
#[derive(Debug, Error)]
enum ReplyError {
    #[error("a header of the reply is not valid: {0}")]
    Head(#[from] http::Error),
    #[error("the counts cannot be written: {0}")]
    Stats(#[from] serde_json::Error),
}

/// Answers any request; what goes wrong is told in the reply.
///
/// # Errors
/// Never.
pub async fn handle(state: Arc<State>, request: Request<Incoming>) -> Result<Reply, Infallible> {
    if let Some(rest) = request.uri().path().strip_prefix(CONTROL_PREFIX) {
        return Ok(control(&state, request.method(), rest).unwrap_or_else(failed));
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let tally = state.stats.begin(path, asked(request.headers()));
    if !state.latency.is_zero() {
        tokio::time::sleep(state.latency).await;
    }
    let reply = match request.uri().path() {
        "/" => Ok(pages::start(state.cache_control.clone(), &tally)),
        "/echo" => echo::echo(request, tally).map_err(ReplyError::from),
        path if path.starts_with(OBJECT_PREFIX) => object(&state, request, tally).await,
        path => Ok(pages::text(StatusCode::NOT_FOUND, &not_found(path), &tally)),
    };
    Ok(reply.unwrap_or_else(failed))
}

fn asked(headers: &HeaderMap) -> stats::Asked {
    stats::Asked {
        conditional: select::is_conditional(headers),
        range: headers.contains_key(header::RANGE),
    }
}

fn control(state: &State, method: &Method, name: &str) -> Result<Reply, ReplyError> {
    match (name, method) {
        ("stats", &Method::GET | &Method::HEAD) => Ok(pages::stats(&state.stats.document())?),
        ("stats", _) => Ok(pages::method_not_allowed("GET, HEAD")),
        ("reset", &Method::POST) => {
            state.stats.reset();
            Ok(pages::empty(StatusCode::NO_CONTENT))
        }
        ("reset", _) => Ok(pages::method_not_allowed("POST")),
        _ => Ok(pages::empty(StatusCode::NOT_FOUND)),
    }
}

async fn object(
    state: &State,
    request: Request<Incoming>,
    tally: Tally,
) -> Result<Reply, ReplyError> {
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let object = match ObjectName::parse(path) {
        Ok(object) => object,
        Err(error) => return Ok(pages::text(StatusCode::NOT_FOUND, &error.to_string(), &tally)),
    };
    let knobs = match Knobs::parse(head.uri.query().unwrap_or("")) {
        Ok(knobs) => knobs,
        Err(error) => return Ok(pages::text(StatusCode::BAD_REQUEST, &error.to_string(), &tally)),
    };
    if !knobs.delay.is_zero() {
        tokio::time::sleep(knobs.delay).await;
    }
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return Ok(unsafe_method(&head.method, knobs.status, body).await);
    }
    let asked = object::Asked { object, knobs, method: &head.method, headers: &head.headers };
    Ok(object::reply(state, &asked, tally)?)
}

/// Takes and forgets the body: enough for a cache to see an unsafe method succeed, or fail with
/// the status that the query asks for.
async fn unsafe_method(method: &Method, status: Option<StatusCode>, body: Incoming) -> Reply {
    let mut frames = BodyStream::new(body);
    while let Some(Ok(_)) = frames.next().await {}
    let mut reply = pages::empty(status.unwrap_or(StatusCode::NO_CONTENT));
    if let Ok(method) = method.as_str().parse() {
        reply.headers_mut().insert("x-method", method);
    }
    reply
}

fn not_found(path: &str) -> String {
    format!("nothing is at {path}: objects are at /o/<size>/<name>, for example /o/4096/a")
}

fn failed(error: ReplyError) -> Reply {
    let mut reply = pages::empty(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(text) = error.to_string().parse() {
        reply.headers_mut().insert("x-error", text);
    }
    reply
}
