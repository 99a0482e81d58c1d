//! `PURGE` at the edge: who may, what it answers, and that nothing of it reaches an origin.

use super::rig::*;

/// An origin whose answers are fresh for a minute, raw, for as many connections as come.
async fn origin() -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (listener, address) = bind().await;
    let tasks = crate::tasks::Tasks::new();
    tasks.spawn("origin", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let answer = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1\r\n\
                          Connection: close\r\n\r\nx";
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address.to_string()
}

async fn purge(rig: &Rig, path: &str, lines: &str) -> Answer {
    rig.ask(&format!("PURGE {path} HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n")).await
}

async fn is_stored(rig: &Rig, path: &str) -> bool {
    rig.get(path, "").await.cache_status().starts_with("shoal; hit")
}

#[tokio::test]
async fn nobody_purges_unless_the_site_says_so() {
    let rig = Rig::with_site(&origin().await, "").await;
    rig.get("/x", "").await;
    let refused = purge(&rig, "/x", "Authorization: Bearer secret\r\n").await;
    assert_eq!(refused.status(), 405);
    assert!(!refused.header("allow").unwrap().contains("PURGE"));
    assert!(is_stored(&rig, "/x").await, "a refused purge has no effect");
}

#[tokio::test]
async fn clients_of_the_listed_ranges_purge() {
    let keys = "purge = { from = [\"127.0.0.0/8\"] }\n";
    let rig = Rig::with_site(&origin().await, keys).await;
    rig.get("/x?q", "").await;
    let done = purge(&rig, "/x?q", "").await;
    assert_eq!(done.status(), 200);
    assert_eq!(done.header("cache-control"), Some("no-store"));
    let body: serde_json::Value = serde_json::from_str(done.body()).unwrap();
    assert_eq!((&body["purged"], &body["position"]), (&true.into(), &7.into()));
    assert!(!is_stored(&rig, "/x?q").await);
    assert_eq!(purge(&rig, "/never", "").await.status(), 404, "nobody had it");
    assert_eq!(purge(&rig, "/x", "Shoal-Purge: Soft\r\n").await.status(), 404);
    assert_eq!(purge(&rig, "/x", "Shoal-Purge: gently\r\n").await.status(), 400);
    assert_eq!(purge(&rig, "/x", "Host: b.test\r\n").await.status(), 400);
}

#[tokio::test]
async fn others_do_not_whatever_they_say_of_themselves() {
    let keys = "purge = { from = [\"10.0.0.0/8\"] }\n";
    let rig = Rig::with_site(&origin().await, keys).await;
    rig.get("/x", "").await;
    for lines in [
        "",
        "X-Forwarded-For: 10.0.0.1\r\n",
        "Forwarded: for=10.0.0.1\r\nX-Real-IP: 10.0.0.1\r\n",
        "Authorization: Bearer secret\r\n",
    ] {
        assert_eq!(purge(&rig, "/x", lines).await.status(), 403, "{lines}");
    }
    assert!(is_stored(&rig, "/x").await);
}

#[tokio::test]
async fn a_token_purges_what_its_scope_says() {
    let keys = "purge = { token = true }\n";
    let rig = Rig::with_site(&origin().await, keys).await;
    rig.get("/mine/x", "").await;
    for (path, lines, status) in [
        ("/mine/x", "", 403),
        ("/mine/x", "Authorization: Bearer wrong\r\n", 403),
        ("/mine/x", "Authorization: Basic secret\r\n", 403),
        ("/mine/x", "Authorization: Bearer\r\n", 403),
        ("/other", "Authorization: Bearer secret\r\n", 403),
        ("/mine/x", "Authorization: bearer secret\r\n", 200),
    ] {
        assert_eq!(purge(&rig, path, lines).await.status(), status, "{path} {lines}");
    }
    assert!(!is_stored(&rig, "/mine/x").await);
}

#[tokio::test]
async fn a_site_that_names_the_method_passes_it_on() {
    let rig = Rig::with_site(&origin().await, "methods = [\"GET\", \"PURGE\"]\n").await;
    let passed = purge(&rig, "/x", "").await;
    assert_eq!((passed.status(), passed.body()), (200, "x"));
    let rig = Rig::with_site(&origin().await, "methods = [\"GET\"]\n").await;
    assert_eq!(purge(&rig, "/x", "").await.header("allow"), Some("GET"));
}
