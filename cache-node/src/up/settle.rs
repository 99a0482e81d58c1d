//! What becomes of the site when a cluster that was there before is asked for another one. The index
//! counts, not the members' files: without a word the flags would have no effect.
//!
//! Decided: what the command line asks for becomes the site where nobody but `shoal up` has changed
//! it; what somebody set by a call stays, and so does everything where no flag asks. Either way it is
//! said.

use std::path::Path;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};
use serde_json::{Map, Value};

use super::UpError;
use super::plan::{Plan, SITE_NAME};
use crate::admin::client::{self, Order};
use crate::config::definition;
use crate::files;

/// For one call.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// The file with the definition that `shoal up` gave last.
const GIVEN_FILE: &str = "site.json";
/// What calls answer of a site beside its keys.
const ANSWERED: [&str; 2] = ["revision", "source"];

/// What is to be settled.
pub(super) struct Question<'a> {
    pub(super) plan: &'a Plan,
    /// The data directory.
    pub(super) folder: &'a Path,
    pub(super) token_file: &'a Path,
    /// The cluster was there before.
    pub(super) is_old: bool,
    /// The command line says something of the site.
    pub(super) is_asked: bool,
}

/// Settles it; what to tell, and the origin that counts where that is not the plan's.
pub(super) async fn settle(
    question: &Question<'_>,
) -> Result<Option<(String, Option<String>)>, UpError> {
    let wanted = definition::whole(&question.plan.site);
    if !question.is_old {
        question.keep(&wanted)?;
        return Ok(None);
    }
    let Ok((StatusCode::OK, found)) = question.call(Method::GET, "", Value::Null).await else {
        return Ok(None);
    };
    let given = question.given()?;
    match decide(&found, &wanted, given.as_ref(), question.is_asked) {
        Decision::Same => {
            question.keep(&wanted)?;
            Ok(None)
        }
        Decision::Keep(origin, why) => Ok(Some((question.kept(&origin, why), Some(origin)))),
        Decision::Update(revision) => {
            let (put, query) = (Value::Object(wanted.clone()), format!("?expect={revision}"));
            match question.call(Method::PUT, &query, put).await {
                Ok((StatusCode::OK, _)) => {
                    question.keep(&wanted)?;
                    let origin = &question.plan.origin;
                    Ok(Some((
                        format!("site {SITE_NAME:?} is as asked for now, origin {origin}"),
                        None,
                    )))
                }
                refused => {
                    let why = match refused {
                        Ok((_, body)) => body["error"]["message"].as_str().map(str::to_owned),
                        Err(error) => Some(error),
                    };
                    let origin = found["origin"].as_str().unwrap_or_default().to_owned();
                    let why = why.unwrap_or_else(|| "the cluster refuses the change".to_owned());
                    Ok(Some((question.kept(&origin, &why), Some(origin))))
                }
            }
        }
    }
}

/// PURE.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Same,
    /// The site stays, with that origin, for that reason.
    Keep(String, &'static str),
    /// It becomes what is wanted, if it is of that revision still.
    Update(String),
}

fn decide(
    found: &Value,
    wanted: &Map<String, Value>,
    given: Option<&Map<String, Value>>,
    is_asked: bool,
) -> Decision {
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    let mut keys = found.as_object().cloned().unwrap_or_default();
    for key in ANSWERED {
        keys.remove(key);
    }
    let is_ours = text("source") == "file" || given == Some(&keys);
    if keys == *wanted {
        Decision::Same
    } else if !is_asked {
        Decision::Keep(text("origin"), "no flag asks for another")
    } else if !is_ours {
        Decision::Keep(text("origin"), "it was changed by a call since, which counts")
    } else {
        Decision::Update(text("revision"))
    }
}

impl Question<'_> {
    async fn call(
        &self,
        method: Method,
        query: &str,
        body: Value,
    ) -> Result<(StatusCode, Value), String> {
        let plan = self.plan;
        let Some(member) = plan.nodes.first().or(plan.super_nodes.first()) else {
            return Err("the cluster has no member".to_owned());
        };
        let secret = std::fs::read_to_string(self.token_file).map_err(|error| error.to_string())?;
        let mut token = HeaderValue::from_str(&format!("Bearer {}", secret.trim()))
            .map_err(|_| "the token is none".to_owned())?;
        token.set_sensitive(true);
        let path = format!("/v1/sites/{SITE_NAME}{query}");
        let order = Order { method, path, body, token: Some(token) };
        let answered = client::call(&member.admin.to_string(), order, CALL_DEADLINE).await;
        let (status, body) = answered.map_err(|error| error.to_string())?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    fn given(&self) -> Result<Option<Map<String, Value>>, UpError> {
        let text = files::read_small(&self.folder.join(GIVEN_FILE))?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    fn keep(&self, given: &Map<String, Value>) -> Result<(), UpError> {
        let text = Value::Object(given.clone()).to_string();
        let path = self.folder.join(GIVEN_FILE);
        Ok(files::write_whole(&path, text.as_bytes(), files::PLAIN_MODE)?)
    }

    fn kept(&self, origin: &str, why: &str) -> String {
        let plan = self.plan;
        let admin = plan.nodes.first().or(plan.super_nodes.first());
        let admin = admin.map_or(String::new(), |member| member.admin.to_string());
        let (wanted, token) = (&plan.origin, self.token_file.display());
        format!(
            "site {SITE_NAME:?} stays as it was, origin {origin}: {why}; to change it: shoal site \
             set {SITE_NAME} origin={wanted} --admin http://{admin} --token-file {token}"
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_nobody_else_changed_is_updated_and_what_somebody_did_is_not() {
        let site = |origin: &str, source: &str| json!({ "name": "default", "origin": origin, "source": source, "revision": "7" });
        let keys = |origin: &str| match json!({ "name": "default", "origin": origin }) {
            Value::Object(keys) => keys,
            _ => Map::new(),
        };
        let update = Decision::Update("7".to_owned());
        let keep = |why| Decision::Keep("http://old".to_owned(), why);
        let (old, wanted) = (keys("http://old"), keys("http://new"));
        let decided = |found: &Value, given, asked| decide(found, &wanted, given, asked);
        assert_eq!(decided(&site("http://new", "index"), None, true), Decision::Same);
        assert_eq!(decided(&site("http://old", "file"), None, true), update);
        assert_eq!(decided(&site("http://old", "index"), Some(&old), true), update);
        let changed = keep("it was changed by a call since, which counts");
        assert_eq!(decided(&site("http://old", "index"), None, true), changed);
        assert_eq!(decided(&site("http://old", "index"), Some(&wanted), true), changed);
        let unasked = keep("no flag asks for another");
        assert_eq!(decided(&site("http://old", "file"), None, false), unasked);
    }
}
