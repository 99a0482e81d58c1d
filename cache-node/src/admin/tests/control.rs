//! Control calls over real sockets: nothing runs without a token that allows it.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::admin::client::Order;
use crate::admin::tokens::{SecretHash, Target, Token, Verb};
use crate::metrics::Refusal;

const DEADLINE: Duration = Duration::from_secs(10);

fn token(name: &str, scopes: &[&str]) -> Token {
    Token {
        name: name.into(),
        secret: SecretHash::of(format!("secret-of-{name}").as_bytes()),
        scopes: scopes.iter().map(|scope| scope.parse().unwrap()).collect(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    site: String,
}

/// A listener with one call, which counts what it did.
fn counting() -> (Running, Arc<AtomicU64>) {
    let tokens = vec![
        token("root", &["*"]),
        token("docs", &["purge:site=docs"]),
        token("reader", &["read"]),
    ];
    let running = start_with(Tokens::new(tokens));
    let done = Arc::new(AtomicU64::new(0));
    let counted = done.clone();
    let control = Control::new().with((Method::POST, "/v1/try"), Verb::Purge, move |call: Call| {
        let counted = counted.clone();
        async move {
            let Wish { site } = call.read()?;
            call.allow(Target::Site(&site))?;
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(json!({ "by": call.caller(), "site": site }))
        }
    });
    running.control.send_replace(Some(Arc::new(control)));
    (running, done)
}

async fn call(running: &Running, secret: Option<&str>, body: Value) -> (u16, Value) {
    let token = secret.map(|secret| format!("Bearer {secret}").parse().unwrap());
    let order = Order { method: Method::POST, path: "/v1/try".into(), body, token };
    let address = running.handle.address().to_string();
    let (code, body) = client::call(&address, order, DEADLINE).await.unwrap();
    (code.as_u16(), serde_json::from_slice(&body).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_token_lets_in_what_its_scopes_say() {
    let (running, done) = counting();
    let docs = json!({ "site": "docs" });
    let (code, answer) = call(&running, Some("secret-of-docs"), docs.clone()).await;
    assert_eq!((code, answer), (200, json!({ "by": "docs", "site": "docs" })));
    let (code, _) = call(&running, Some("secret-of-root"), json!({ "site": "apt" })).await;
    assert_eq!((code, done.load(Ordering::Relaxed)), (200, 2));
    assert_eq!(running.calls.calls.get(), 2);

    let refused = [
        (None, docs.clone(), 401, "token-missing", Refusal::TokenMissing),
        (Some("secret-of-nobody"), docs.clone(), 401, "token-unknown", Refusal::TokenUnknown),
        (Some("secret-of-reader"), docs.clone(), 403, "scope", Refusal::Scope),
        (Some("secret-of-root"), json!({ "sites": 1 }), 400, "invalid", Refusal::Invalid),
    ];
    for (secret, body, status, word, kind) in refused {
        let before = running.calls.refusals.of(kind).get();
        let (code, answer) = call(&running, secret, body).await;
        assert_eq!((code, answer["error"]["code"].as_str()), (status, Some(word)), "{answer}");
        assert!(!answer["error"]["remedy"].as_str().unwrap().is_empty());
        assert_eq!(running.calls.refusals.of(kind).get(), before + 1);
    }
    let (code, answer) = call(&running, Some("secret-of-docs"), json!({ "site": "apt" })).await;
    assert_eq!((code, answer["error"]["code"].as_str()), (403, Some("scope")), "{answer}");
    assert_eq!(done.load(Ordering::Relaxed), 2, "a refused call has no effect");
    running.handle.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn without_tokens_nobody_is_let_in() {
    let running = start();
    let (code, answer) = call(&running, Some("any"), Value::Null).await;
    assert_eq!((code, answer["error"]["code"].as_str()), (503, Some("unavailable")), "{answer}");
    let nothing = Control::new().with((Method::POST, "/v1/try"), Verb::Read, |_| async {
        panic!("a call without a token ran");
    });
    running.control.send_replace(Some(Arc::new(nothing)));
    let (code, answer) = call(&running, Some("any"), Value::Null).await;
    assert_eq!((code, answer["error"]["code"].as_str()), (403, Some("no-tokens")), "{answer}");
    assert!(answer["error"]["remedy"].as_str().unwrap().contains("admin.tokens"), "{answer}");
    assert_eq!(running.calls.refusals.of(Refusal::NoTokens).get(), 1);
    running.handle.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn malformed_calls_are_named() {
    let (running, done) = counting();
    let ask = |head: &str, body: &str| {
        let length = body.len();
        let request = format!(
            "{head} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\
             authorization: bearer secret-of-root\r\n\r\n{body}"
        );
        say(&running, &request)
    };
    let lost = ask("POST /v1/nothing", "");
    assert!(lost.starts_with("HTTP/1.1 404") && lost.contains("docs/control-api.md"), "{lost}");
    let method = ask("GET /v1/try", "");
    assert!(method.starts_with("HTTP/1.1 405") && method.contains("allow: POST"), "{method}");
    let text = ask("POST /v1/try", "{\"site\": private}");
    assert!(text.starts_with("HTTP/1.1 400") && !text.contains("private"), "{text}");
    let long = format!(
        "POST /v1/try HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\
         authorization: Bearer secret-of-root\r\n\r\n",
        guard::BODY_BYTES_MAX + 1
    );
    let long = say(&running, &long);
    assert!(long.starts_with("HTTP/1.1 413"), "{long}");
    assert_eq!(running.calls.refusals.of(Refusal::Invalid).get(), 4);
    assert_eq!(done.load(Ordering::Relaxed), 0);
    running.handle.stop();
}
