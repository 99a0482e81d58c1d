//! Rules of sites on a real cluster: what is in keys, how long things are fresh, which headers go
//! where, and which origin is asked.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::{Client, Cluster, Head, Scripted, Setup, Then, free_port, turn};

const HOST: &str = "rules.test";
const MIB: usize = 1024 * 1024;

/// An origin that answers every target with its count of requests, and says nothing of caching but
/// what the path asks for.
fn origin() -> Scripted {
    Scripted::start(|asked, out: &mut TcpStream| {
        let path = asked.target.split('?').next().unwrap_or_default();
        let (status, more) = match path {
            "/gone" => ("404 Not Found", ""),
            "/cookie" => ("200 OK", "Set-Cookie: a=1\r\nCache-Control: max-age=600\r\n"),
            "/private" => ("200 OK", "Cache-Control: private\r\n"),
            "/tagged" => ("200 OK", "X-Keys: one, two\r\nCache-Control: max-age=600\r\n"),
            _ => ("200 OK", ""),
        };
        let body = format!("{} {}", asked.target, asked.before);
        write!(
            out,
            "HTTP/1.1 {status}\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nX-Inner: 1\r\n{more}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        Ok(Then::Keep)
    })
}

fn set(cluster: &Cluster, folder: &Path, site: &Value) {
    let file = folder.join("site.json");
    fs::write(&file, site.to_string()).unwrap();
    let done = cluster.control("node-0", &["site", "set", file.to_str().unwrap()]);
    assert_eq!(done.code, Some(0), "{}{}", done.output, done.errors);
}

fn site(origin: &str, more: Value) -> Value {
    let mut site = json!({ "name": "rules", "hosts": [HOST], "origin": origin });
    let Value::Object(more) = more else { panic!("{more}") };
    site.as_object_mut().unwrap().extend(more);
    site
}

struct Asker<'a>(&'a Cluster);

impl Asker<'_> {
    fn ask(&self, target: &str, headers: &[(&str, &str)]) -> (String, Head) {
        let mut edge = Client::for_host(self.0.edge_url(0), HOST);
        let reply = edge.request("GET", target, headers).unwrap();
        (String::from_utf8(reply.body).unwrap(), reply.head)
    }

    fn body(&self, target: &str) -> String {
        self.ask(target, &[]).0
    }
}

#[test]
fn keys_times_headers_and_paths_are_as_the_site_says() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = origin();
    let setup = Setup::new(folder.path(), origin.url()).members(1, 1).flags(&["--host", "a.test"]);
    let cluster = setup.start();
    let asker = Asker(&cluster);
    set(
        &cluster,
        folder.path(),
        &site(
            origin.url(),
            json!({
                "methods": ["GET", "HEAD"],
                "tags": ["x-keys"],
                "key": { "ignore": ["utm_*"], "sort": true, "headers": ["x-tenant"] },
                "ttl": { "default_s": 600, "negative_s": { "404": 600 } },
                "response_headers": { "set": { "X-Outer": "2" }, "remove": ["X-Inner"] },
                "path": [
                    { "prefix": "/api/", "bypass": true },
                    { "glob": "/forced*", "ttl": { "forced_s": 600 }, "key": { "query": "none" } },
                ],
            }),
        ),
    );

    // What does not count reaches nobody, and what counts tells objects apart.
    assert_eq!(asker.body("/a?b=2&utm_source=x&a=1"), "/a?a=1&b=2 0");
    assert_eq!(asker.body("/a?a=1&b=2"), "/a?a=1&b=2 0");
    assert_eq!(asker.ask("/a?a=1&b=2", &[("x-tenant", "t")]).0, "/a?a=1&b=2 1");
    assert_eq!(asker.ask("/a?a=1&b=2", &[("x-tenant", "t")]).0, "/a?a=1&b=2 1");
    let purged = cluster.control("node-0", &["purge", &format!("http://{HOST}/a?b=2&a=1")]);
    assert_eq!(purged.code, Some(0), "{}", purged.errors);
    assert_eq!(asker.ask("/a?a=1&b=2", &[("x-tenant", "t")]).0, "/a?a=1&b=2 2", "all are purged");

    // Errors are kept as long as they say, private things not at all, cookies by default neither.
    assert_eq!((asker.body("/gone"), asker.body("/gone")), ("/gone 0".into(), "/gone 0".into()));
    assert_ne!(asker.body("/private"), asker.body("/private"));
    assert_ne!(asker.body("/cookie"), asker.body("/cookie"));
    assert_ne!(asker.body("/api/x"), asker.body("/api/x"));
    let (body, head) = asker.ask("/api/x", &[]);
    assert!(head.header("cache-status").contains("fwd=bypass"), "{body} {head:?}");
    assert_eq!(asker.body("/forced?x=1"), "/forced 0");
    assert_eq!(asker.body("/forced?x=2"), "/forced 0");

    let (_, head) = asker.ask("/tagged", &[]);
    let headers = ["x-outer", "x-inner", "x-keys"].map(|name| head.header(name).to_owned());
    assert_eq!(headers, ["2", "", ""]);
    let purged = cluster.control("node-0", &["purge", "--tag", "two", "--site", "rules"]);
    assert_eq!(purged.code, Some(0), "{}", purged.errors);
    assert_eq!(asker.body("/tagged"), "/tagged 1");
    let mut edge = Client::for_host(cluster.edge_url(0), HOST);
    let refused = edge.request("DELETE", "/a", &[]).unwrap().head;
    assert_eq!((refused.status, refused.header("allow")), (405, "GET, HEAD"));

    set(&cluster, folder.path(), &site(origin.url(), json!({ "set_cookie": "strip" })));
    let (first, head) = asker.ask("/cookie", &[]);
    assert_eq!((asker.body("/cookie"), head.header("set-cookie")), (first, ""));
    set(&cluster, folder.path(), &site(origin.url(), json!({ "set_cookie": "store" })));
    let purged = cluster.control("node-0", &["purge", &format!("http://{HOST}/cookie")]);
    assert_eq!(purged.code, Some(0), "{}", purged.errors);
    asker.body("/cookie");
    assert_eq!(asker.ask("/cookie", &[]).1.header("set-cookie"), "a=1");
    assert!(cluster.stop().success());
}

#[test]
fn while_an_origin_is_away_the_next_is_asked() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = origin();
    let setup = Setup::new(folder.path(), origin.url()).members(1, 1).flags(&["--host", "a.test"]);
    let cluster = setup.start();
    let asker = Asker(&cluster);
    let away = format!("http://127.0.0.1:{}", free_port());
    let more = json!({
        "more_origins": [origin.url()],
        "health": { "failures": 1, "retry_ms": 600_000 },
    });
    set(&cluster, folder.path(), &site(&away, more));
    for number in 0..4 {
        let (body, head) = asker.ask(&format!("/{number}"), &[]);
        assert_eq!((head.status, body), (200, format!("/{number} 0")));
    }
    let mut edge = Client::for_host(cluster.edge_url(0), HOST);
    let reply = edge.request("DELETE", "/0", &[]).unwrap();
    assert_eq!(reply.head.status, 200, "the first is tried last by now");

    // Asked how they are, the first is found well before anybody needs it.
    let more = json!({
        "more_origins": [away],
        "health": { "failures": 1, "retry_ms": 600_000, "path": "/health", "every_ms": 100 },
    });
    set(&cluster, folder.path(), &site(origin.url(), more));
    crate::common::until("the health check", std::time::Duration::from_secs(30), || {
        (!origin.asked_for("/health").is_empty()).then_some(())
    });
    assert_eq!(asker.body("/last"), "/last 0");
    assert!(cluster.stop().success());
}

#[test]
fn a_prefetch_costs_the_origin_one_request_an_object() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = crate::common::Origin::start(&[]);
    let cluster = Setup::new(folder.path(), origin.url()).members(1, 3).start();
    let targets = ["/o/300000/a", "/o/3000000/b", "/o/1/c"];
    let list = folder.path().join("urls");
    let urls: String =
        targets.iter().map(|target| format!("# \n{}{target}\n", cluster.edge_url(0))).collect();
    fs::write(&list, urls).unwrap();
    let wanted = ["prefetch", "--file", list.to_str().unwrap(), "--json"];
    let done = cluster.control("node-1", &wanted);
    assert_eq!(done.code, Some(0), "{}{}", done.output, done.errors);
    let report: Value = serde_json::from_str(&done.output).unwrap();
    assert_eq!((&report["done"], &report["total"]), (&json!(9), &json!(9)), "{report}");
    assert_eq!(origin.requests(), targets.len() as u64, "{report}");
    for node in 0..3 {
        for target in targets {
            let reply = cluster.edge(node).get(target).unwrap();
            let status = reply.head.header("cache-status").to_owned();
            assert!(status.contains("; hit"), "node {node}, {target}: {status}");
        }
    }
    assert_eq!(origin.requests(), targets.len() as u64);

    let again = cluster.control(
        "node-0",
        &["prefetch", &format!("{}/o/1/c", cluster.edge_url(0)), "--to", "node-0,node-2", "--json"],
    );
    let report: Value = serde_json::from_str(&again.output).unwrap();
    assert_eq!((&report["done"], &report["bytes"]), (&json!(2), &json!(0)), "{report}");
    let missing = format!("{}/status/404", cluster.edge_url(0));
    let failed = cluster.control("node-0", &["prefetch", &missing, "--to", "node-0"]);
    assert_eq!(failed.code, Some(1), "{}{}", failed.output, failed.errors);
    assert!(failed.errors.contains("1 of 1 failed"), "{}", failed.errors);
    let nobody = cluster.control("node-0", &["prefetch", &missing, "--to", "zone=nowhere"]);
    assert!(nobody.errors.contains("no such node"), "{}", nobody.errors);
    assert!(cluster.stop().success());
}

/// An origin of large objects that says nothing of caching, and sends what it is asked for of them.
fn large_origin(whole: Vec<u8>) -> Scripted {
    Scripted::start(move |asked, out: &mut TcpStream| {
        let more = "ETag: \"1\"\r\nSet-Cookie: a=1\r\nX-Inner: 1\r\nX-Keys: one, two\r\n";
        let (first, last) = asked.range.unwrap_or((0, usize::MAX));
        let (last, length) = (last.min(whole.len() - 1), whole.len());
        let range = format!("Content-Range: bytes {first}-{last}/{length}\r\n");
        let (status, range) = match asked.range {
            Some(_) => ("206 Partial Content", range),
            None => ("200 OK", String::new()),
        };
        let size = last + 1 - first;
        write!(out, "HTTP/1.1 {status}\r\n{more}{range}Content-Length: {size}\r\n\r\n")?;
        out.write_all(&whole[first..=last])?;
        Ok(Then::Keep)
    })
}

#[test]
fn rules_count_for_objects_in_parts() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let whole: Vec<u8> = (0..9 * MIB + 5).map(|at| (at / 7) as u8 ^ (at >> 11) as u8).collect();
    let origin = large_origin(whole.clone());
    let setup = Setup::new(folder.path(), origin.url()).members(1, 1).flags(&["--host", "a.test"]);
    let cluster = setup.start();
    let rules = json!({
        "set_cookie": "strip",
        "tags": ["x-keys"],
        "key": { "ignore": ["utm_*"], "headers": ["x-tenant"] },
        "ttl": { "default_s": 600 },
        "response_headers": { "remove": ["X-Inner"] },
        "path": [{ "prefix": "/raw/", "bypass": true }],
    });
    set(&cluster, folder.path(), &site(origin.url(), rules));
    let asked = |target: &str| {
        let asked = origin.asked_for(target);
        assert!(asked.iter().all(|asked| asked.range.is_some()), "{asked:?}");
        asked.len()
    };
    let part = |target: &str, more: &[(&str, &str)]| {
        let headers = [&[("range", "bytes=5242880-5242979")][..], more].concat();
        let mut edge = Client::for_host(cluster.edge_url(0), HOST);
        let reply = edge.request("GET", target, &headers).unwrap();
        assert_eq!(reply.head.status, 206, "{target}: {:?}", reply.head);
        assert!(reply.body == whole[5 * MIB..5 * MIB + 100], "{target}: wrong bytes");
        reply.head
    };

    let head = part("/o?utm_source=x", &[]);
    let headers = ["set-cookie", "x-inner", "x-keys"].map(|name| head.header(name).to_owned());
    assert_eq!(headers, ["", "", ""]);
    part("/o?utm_source=y", &[]);
    assert_eq!((asked("/o"), asked("/o?utm_source=x")), (1, 0), "fresh, and one for both");
    part("/o", &[("x-tenant", "t")]);
    part("/o", &[("x-tenant", "t")]);
    assert_eq!(asked("/o"), 2, "another object, with parts of its own");
    let url = format!("http://{HOST}/o?utm_source=z");
    for purge in [&["purge", &url][..], &["purge", "--tag", "two", "--site", "rules"][..]] {
        let before = asked("/o");
        let purged = cluster.control("node-0", purge);
        assert_eq!(purged.code, Some(0), "{}", purged.errors);
        part("/o", &[("x-tenant", "t")]);
        part("/o", &[]);
        assert_eq!(asked("/o"), before + 2, "{purge:?} reaches the parts of both");
    }
    for time in 1..=2 {
        assert_eq!(part("/raw/o", &[]).header("set-cookie"), "a=1");
        assert_eq!(asked("/raw/o"), time, "nothing of it is kept");
    }

    // A prefetch brings the parts that are not here, and asks for none of those that are.
    let before = asked("/o");
    let prefetch = || {
        let done = cluster.control("node-0", &["prefetch", &url, "--json"]);
        assert_eq!(done.code, Some(0), "{}{}", done.output, done.errors);
        let report: Value = serde_json::from_str(&done.output).unwrap();
        report["bytes"].as_u64().unwrap()
    };
    assert_eq!(prefetch(), (whole.len() - MIB) as u64);
    assert_eq!(asked("/o"), before + 9, "one request a part");
    assert_eq!(prefetch(), 0);
    let mut edge = Client::for_host(cluster.edge_url(0), HOST);
    assert!(edge.get("/o").unwrap().body == whole);
    assert_eq!(asked("/o"), before + 9);
    assert!(cluster.stop().success());
}
