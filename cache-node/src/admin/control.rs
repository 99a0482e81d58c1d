//! The control calls: what a member lets others do to it and to the cluster, under `/v1/`. One
//! table says which there are; `guard` decides who may call them, before a handler sees a byte.
//!
//! Invariant: a handler runs on the member's own runtime, not on the admin thread, and has a
//! deadline. Must not know what the handlers do.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shoal_proto::{ErrorKind, RpcError};
use tokio::runtime::Handle;

use super::tokens::{Caller, Target, Verb};
use crate::tasks;

/// For a handler to answer; recovering and catching up take their time.
const CALL_DEADLINE: Duration = Duration::from_secs(120);

/// What a call's target says beside the endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// What stands in the place of `{..}` in the endpoint's path.
    pub(super) name: String,
    /// The query, without its question mark.
    pub(super) query: String,
}

/// A call that was allowed in general; see [`Call::allow`].
#[derive(Debug)]
pub struct Call {
    /// The body; null when there was none.
    pub body: Value,
    asked: Asked,
    caller: Caller,
    verb: Verb,
}

impl Call {
    /// The body as `T`.
    ///
    /// # Errors
    /// `invalid` when it is not one.
    pub fn read<T: for<'de> Deserialize<'de>>(&self) -> Result<T, ControlError> {
        // An absent body reads as one that leaves everything out.
        let body =
            if self.body.is_null() { Value::Object(Default::default()) } else { self.body.clone() };
        serde_json::from_value(body).map_err(|error| {
            ControlError::invalid(format!("the body: {error}"), "docs/control-api.md has its form")
        })
    }

    /// What stands in the place of `{..}` in the call's path; empty where nothing does.
    pub fn name(&self) -> &str {
        &self.asked.name
    }

    /// The only parameter that the call takes in its query, where it is given.
    ///
    /// # Errors
    /// `invalid` when the query says anything else.
    pub fn parameter(&self, key: &str) -> Result<Option<&str>, ControlError> {
        if self.asked.query.is_empty() {
            return Ok(None);
        }
        let value = self.asked.query.strip_prefix(key).and_then(|rest| rest.strip_prefix('='));
        value.filter(|value| !value.contains('&')).map(Some).ok_or_else(|| {
            let remedy = format!("the call takes {key:?} in its query, and nothing else");
            ControlError::invalid("an unknown parameter", remedy)
        })
    }

    /// The name of the caller's token, for logs.
    pub fn caller(&self) -> &str {
        self.caller.name()
    }

    /// Checks that the caller may do this to `target`.
    ///
    /// # Errors
    /// `scope` when not.
    pub fn allow(&self, target: Target<'_>) -> Result<(), ControlError> {
        if self.caller.may(self.verb, target) {
            return Ok(());
        }
        let verb = self.verb.name();
        let (what, scope) = match target {
            Target::Everything => ("the whole cluster".to_owned(), verb.to_owned()),
            Target::Site(site) => {
                (format!("site {site:?} as a whole"), format!("{verb}:site={site}"))
            }
            Target::Path(site, _) => {
                (format!("that part of site {site:?}"), format!("{verb}:site={site}"))
            }
        };
        let name = self.caller.name();
        Err(ControlError::scope(
            format!("token {name:?} may not {verb} {what}"),
            format!("use a token with the scope {scope:?}"),
        ))
    }
}

/// Why a call came to nothing, for the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}; {remedy}")]
pub struct ControlError {
    #[serde(skip, default)]
    status: StatusCode,
    /// A word for programs; docs/control-api.md lists them.
    pub code: String,
    /// What happened.
    pub message: String,
    /// What would help.
    pub remedy: String,
}

impl ControlError {
    /// An error of one's own kind.
    pub fn new(
        status: StatusCode,
        code: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { status, code: code.to_owned(), message: message.into(), remedy: remedy.into() }
    }

    /// The call itself is wrong: 400.
    pub fn invalid(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message, remedy)
    }

    /// What the call is about is not there: 404.
    pub fn not_found(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", message, remedy)
    }

    /// What the call expects is not so (any more): 409.
    pub fn conflict(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message, remedy)
    }

    /// It cannot be done now: 503.
    pub fn unavailable(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message, remedy)
    }

    pub(super) fn scope(message: String, remedy: String) -> Self {
        Self::new(StatusCode::FORBIDDEN, "scope", message, remedy)
    }

    /// Its HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<RpcError> for ControlError {
    fn from(error: RpcError) -> Self {
        match error.kind {
            ErrorKind::Invalid => Self::invalid(error.message, "correct the call"),
            ErrorKind::NotFound => Self::not_found(error.message, "look at `shoal status`"),
            ErrorKind::Denied => Self::new(
                StatusCode::FORBIDDEN,
                "denied",
                error.message,
                "the tier refuses this member; look at its log",
            ),
            ErrorKind::Corrupt | ErrorKind::Bug => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                error.message,
                "look at the logs of the super-nodes",
            ),
            ErrorKind::Retry | ErrorKind::Redirect | ErrorKind::Closed => Self::unavailable(
                error.message,
                "try again; `shoal status` shows whether the tier has a leader",
            ),
        }
    }
}

/// What a handler comes to.
pub type Answer = Pin<Box<dyn Future<Output = Result<Value, ControlError>> + Send>>;

type Handler = Arc<dyn Fn(Call) -> Answer + Send + Sync>;

pub(super) struct Endpoint {
    pub(super) method: Method,
    path: &'static str,
    pub(super) verb: Verb,
    handler: Handler,
}

impl Endpoint {
    /// The name in `path`, empty where the endpoint takes none; `None` when it is another's path.
    pub(super) fn name<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self.path.split_once('{') {
            None => (path == self.path).then_some(""),
            Some((above, _)) => {
                path.strip_prefix(above).filter(|name| !name.is_empty() && !name.contains('/'))
            }
        }
    }
}

/// The table of the control calls that a member answers.
pub struct Control {
    endpoints: Vec<Endpoint>,
    runtime: Handle,
}

impl Control {
    /// No calls yet; handlers will run on the runtime of now.
    pub fn new() -> Self {
        Self { endpoints: Vec::new(), runtime: Handle::current() }
    }

    /// With the call `method path`, which needs a scope for `verb`. `path` begins with `/v1/`; it may
    /// end in `{..}`, which stands for one name.
    #[must_use]
    pub fn with<F, A>(
        mut self,
        (method, path): (Method, &'static str),
        verb: Verb,
        handler: F,
    ) -> Self
    where
        F: Fn(Call) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Value, ControlError>> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |call| Box::pin(handler(call)));
        self.endpoints.push(Endpoint { method, path, verb, handler });
        self
    }

    /// With a call that lists all calls, itself among them.
    #[must_use]
    pub fn with_list(self) -> Self {
        const LIST: &str = "/v1/calls";
        let own = (&Method::GET, LIST, Verb::Read);
        let others = self.endpoints.iter().map(|of| (&of.method, of.path, of.verb));
        let calls: Vec<Value> = others
            .chain([own])
            .map(|(method, path, verb)| {
                json!({ "method": method.as_str(), "path": path, "scope": verb.name() })
            })
            .collect();
        let list = json!({ "calls": calls });
        self.with((Method::GET, LIST), Verb::Read, move |_: Call| {
            let list = list.clone();
            async move { Ok(list) }
        })
    }
}

impl Control {
    /// The calls at `path`, one a method.
    pub(super) fn at(&self, path: &str) -> Vec<&Endpoint> {
        self.endpoints.iter().filter(|endpoint| endpoint.name(path).is_some()).collect()
    }

    /// Runs the endpoint's handler on the member's own runtime.
    pub(super) async fn run(
        &self,
        endpoint: &Endpoint,
        caller: Caller,
        (asked, body): (Asked, Value),
    ) -> Result<Value, ControlError> {
        let call = Call { body, asked, caller, verb: endpoint.verb };
        let answer = (endpoint.handler)(call);
        let ran = tasks::on(&self.runtime, "control-call", async move {
            tokio::time::timeout(CALL_DEADLINE, answer).await
        });
        let late = "what was asked may still come to pass; look at `shoal status`";
        match ran.await {
            Ok(Ok(answered)) => answered,
            Ok(Err(_)) => {
                let message = format!("no result within {} s", CALL_DEADLINE.as_secs());
                Err(ControlError::unavailable(message, late))
            }
            Err(lost) => Err(ControlError::unavailable(lost.to_string(), late)),
        }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let calls = self.endpoints.iter().map(|of| format!("{} {}", of.method, of.path));
        f.debug_list().entries(calls).finish()
    }
}
