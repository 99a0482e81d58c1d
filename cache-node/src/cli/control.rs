//! What all commands that ask or change a running cluster share: whom to call, with which token, for
//! how long, and how its refusals read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use http::{HeaderValue, Method};
use serde::Deserialize;
use serde_json::Value;

use super::exit::Failure;
use crate::admin::ControlError;
use crate::admin::client::{self, Order};
use crate::text::units::{DURATION_EXPECTED, parse_duration};

/// The variable with a token's secret, beside the flag `--token-file`.
const TOKEN_VARIABLE: &str = "SHOAL_TOKEN";

/// The flags of control calls.
#[derive(Clone, Debug, Args)]
pub(super) struct ControlArgs {
    /// The admin listener of a member: URL or host:port
    #[arg(long, env = "SHOAL_ADMIN", default_value = "http://127.0.0.1:9400", value_name = "URL")]
    pub(super) admin: String,
    /// The file with the token; without it, SHOAL_TOKEN holds the token itself
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// How long to wait for the result
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = timeout)]
    pub(super) timeout: Duration,
    /// Print one JSON document
    #[arg(long)]
    pub(super) json: bool,
}

/// A member's refusal, as it travels.
#[derive(Deserialize)]
struct Refused {
    error: ControlError,
}

impl ControlArgs {
    /// Calls the member, and returns its answer.
    ///
    /// # Errors
    /// When the flags are wrong, the member cannot be asked, or it refuses.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Value,
    ) -> Result<Value, Failure> {
        self.ask(method, path, body).await?.map_err(|error| refusal(&error))
    }

    /// The same, with the refusal for whoever can do something about it.
    ///
    /// # Errors
    /// When the flags are wrong, or the member cannot be asked.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Value,
    ) -> Result<Result<Value, ControlError>, Failure> {
        let address = address(&self.admin)?;
        let order = Order { method, path: path.to_owned(), body, token: self.token()? };
        let unreachable = |error| {
            Failure::run(format!(
                "no answer from http://{address}: {error}\n\
                 Give the admin address of a running member with --admin or SHOAL_ADMIN."
            ))
        };
        let answer = client::call(&address, order, self.timeout).await;
        let (code, body) = answer.map_err(unreachable)?;
        let read = serde_json::from_slice::<Value>(&body);
        if code.is_success() {
            let strange = |error| Failure::run(format!("http://{address}: not JSON: {error}"));
            return read.map_err(strange).map(Ok);
        }
        let refused = read.ok().and_then(|body| serde_json::from_value::<Refused>(body).ok());
        match refused {
            Some(Refused { error }) => Ok(Err(error)),
            None => Err(Failure::run(format!(
                "http://{address} answers {code}; is that an admin listener of Shoal's?"
            ))),
        }
    }

    fn token(&self) -> Result<Option<HeaderValue>, Failure> {
        let (secret, place) = match &self.token_file {
            Some(file) => (read_token(file)?, format!("--token-file {}", file.display())),
            None => match std::env::var(TOKEN_VARIABLE) {
                Ok(secret) if !secret.trim().is_empty() => (secret, TOKEN_VARIABLE.to_owned()),
                _ => return Ok(None),
            },
        };
        // What is wrong with it is not shown: it is a secret.
        let wrong = |_| Failure::usage(format!("{place} holds no token; expected one word"));
        let mut value =
            HeaderValue::from_str(&format!("Bearer {}", secret.trim())).map_err(wrong)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// How a refusal reads.
pub(super) fn refusal(error: &ControlError) -> Failure {
    Failure::run(format!("{}\n{}", error.message, error.remedy))
}

fn read_token(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| {
        let file = file.display();
        let hint = "expected the file with the token; `shoal up` prints where its own is";
        Failure::usage(format!("--token-file is {file}: {error}; {hint}"))
    })
}

/// Reads a `--timeout`.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|timeout| !timeout.is_zero())
        .ok_or_else(|| format!("expected {DURATION_EXPECTED}"))
}

/// The `host:port` of an `--admin`.
pub(super) fn address(admin: &str) -> Result<String, Failure> {
    let rest = admin.strip_prefix("http://").unwrap_or(admin);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let authority = rest.parse::<http::uri::Authority>().ok();
    match authority.filter(|authority| authority.port_u16().is_some()) {
        Some(authority) if !rest.contains('@') => Ok(authority.to_string()),
        _ => {
            let expected = "expected host:port or http://host:port of a member's admin listener";
            Err(Failure::usage(format!("--admin (or SHOAL_ADMIN) is {admin:?}; {expected}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_addresses() {
        for right in ["127.0.0.1:9400", "http://127.0.0.1:9400", "http://127.0.0.1:9400/"] {
            assert_eq!(address(right).unwrap(), "127.0.0.1:9400");
        }
        for wrong in ["", "localhost", "https://a:1", "http://a:1/status", "a:port", "u@a:1"] {
            let refused = address(wrong).unwrap_err();
            assert_eq!(refused.code(), crate::cli::exit::USAGE, "{wrong}");
            assert!(refused.text().contains("expected host:port"), "{wrong}");
        }
    }

    #[test]
    fn a_token_comes_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let args = |token_file| ControlArgs {
            admin: String::new(),
            token_file: Some(token_file),
            timeout: Duration::from_secs(1),
            json: false,
        };
        let missing = args(file.clone()).token().unwrap_err();
        assert_eq!(missing.code(), crate::cli::exit::USAGE);
        assert!(missing.text().contains("--token-file"), "{}", missing.text());
        std::fs::write(&file, "s3cret\n").unwrap();
        let token = args(file.clone()).token().unwrap().unwrap();
        assert_eq!(token, "Bearer s3cret");
        assert!(token.is_sensitive());
        std::fs::write(&file, "s3cret\nmore\n").unwrap();
        let wrong = args(file).token().unwrap_err().text();
        assert!(!wrong.contains("s3cret"), "{wrong}");
    }
}
