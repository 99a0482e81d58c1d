//! What clients can ask of a real cluster beyond responses: `PURGE`, `shoal get` with its
//! explanation, another protocol; and what `shoal up` makes of another origin on old data.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::common::{Client, Cluster, Scripted, Setup, Then, run, shoal, turn, until};

const PURGE: &str = "purge={ from = [\"127.0.0.1\"], token = true }";
const UPGRADE: &str = "upgrade={ protocols = [\"websocket\"], max = 4, idle_ms = 60000 }";

/// An origin that answers every target with its own name and the count of requests for it, fresh
/// for ten minutes, and echoes whoever switches.
fn origin(name: &'static str) -> Scripted {
    Scripted::start(move |asked, out: &mut TcpStream| {
        if asked.target == "/ws" {
            out.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                  Upgrade: websocket\r\n\r\n",
            )?;
            let mut piece = [0; 64];
            while let Ok(count @ 1..) = out.read(&mut piece) {
                out.write_all(&piece[..count])?;
            }
            return Ok(Then::Close);
        }
        let body = format!("{name} {} {}", asked.target, asked.before);
        write!(
            out,
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nETag: \"{name}\"\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        Ok(Then::Keep)
    })
}

fn body(cluster: &Cluster, node: usize, target: &str) -> String {
    String::from_utf8(cluster.edge(node).get(target).unwrap().body).unwrap()
}

#[test]
fn a_purge_by_its_method_is_for_all_nodes_and_an_answer_is_explained() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = origin("one");
    let setup = Setup::new(folder.path(), origin.url()).members(1, 2);
    let cluster = setup.flags(&["--site", PURGE, "--site", UPGRADE]).start();
    for node in [0, 1] {
        assert_eq!(body(&cluster, node, "/a?q"), "one /a?q 0");
    }

    let explained = explained(&cluster, "/a?q");
    assert_eq!(explained["status"], 200);
    assert_eq!(explained["cache_status"][0]["hit"], true, "{explained}");
    let known = &explained["explained"];
    assert_eq!((&known["site"], &known["target"]), (&"default".into(), &"/a?q".into()));
    assert_eq!(known["key"].as_str().unwrap().len(), 64, "{known}");
    assert_eq!(known["here"]["lifetime_from"], "max-age in cache-control");
    assert_eq!((&known["here"]["fresh"], &known["here"]["purged"]), (&true.into(), &"no".into()));
    until("the index knows the other holder", Duration::from_secs(20), || {
        let holders = self::explained(&cluster, "/a?q")["explained"]["holders"].clone();
        (holders[0]["node"] == "node-1").then_some(())
    });

    let purge = |node: usize, target: &str, headers: &[(&str, &str)]| {
        let reply = cluster.edge(node).request("PURGE", target, headers).unwrap();
        (reply.head.status, String::from_utf8(reply.body).unwrap())
    };
    let (status, told) = purge(1, "/a?q", &[]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((status, &told["purged"]), (200, &true.into()), "{told}");
    assert_eq!((&told["nodes_acknowledged"], &told["nodes_expired"]), (&2.into(), &0.into()));
    for node in [0, 1] {
        assert_eq!(body(&cluster, node, "/a?q"), "one /a?q 1", "after the purge, on node {node}");
    }
    assert_eq!(purge(0, "/a?q", &[("shoal-purge", "soft")]).0, 200);
    assert_eq!(body(&cluster, 1, "/a?q"), "one /a?q 2", "stale: the origin was asked again");
    assert_eq!(purge(0, "/nobody-has-it", &[]).0, 404);
    assert_eq!(body(&cluster, 0, "/nobody-has-it"), "one /nobody-has-it 0", "no lease is left");
    assert!(origin.asked_for("/a?q").len() == 3);

    tunnel(&cluster);
    let mut strangers = Client::for_host(cluster.edge_url(0), "other.test");
    assert_eq!(strangers.request("PURGE", "/a?q", &[]).unwrap().head.status, 421);
}

/// An echo through the edge, which ends when the node does.
fn tunnel(cluster: &Cluster) {
    let address = cluster.edge_url(1).strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let ask = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
               Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";
    stream.write_all(ask.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream.write_all(b"\x81\x02hi").unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"\x81\x02hi");
    cluster.stop_member("node-1");
    assert_eq!(stream.read(&mut back).unwrap_or(0), 0, "the tunnel outlives its node");
}

fn explained(cluster: &Cluster, target: &str) -> Value {
    let url = format!("{}{target}", cluster.edge_url(0));
    let done = cluster.control("node-0", &["get", "-v", "--json", &url]);
    assert_eq!(done.code, Some(0), "{}{}", done.output, done.errors);
    serde_json::from_str(&done.output).unwrap()
}

#[test]
fn get_writes_what_came_as_curl_does() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = origin("one");
    let cluster = Setup::new(folder.path(), origin.url()).members(1, 1).start();
    let url = |target: &str| format!("{}{target}", cluster.edge_url(0));
    let plain = run(&mut shoal(&["get", &url("/a")]));
    assert_eq!(
        (plain.code, plain.output.as_str(), plain.errors.as_str()),
        (Some(0), "one /a 0", "")
    );
    let file = folder.path().join("body");
    let path = file.to_str().unwrap();
    let into = run(&mut shoal(&["get", &url("/a"), "-o", path, "-H", "Accept: text/plain"]));
    assert_eq!((into.code, into.output.as_str()), (Some(0), ""));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one /a 0");
    let head = run(&mut shoal(&["get", "-I", &url("/a")]));
    assert!(head.output.starts_with("HTTP/1.1 200 OK\r\n"), "{}", head.output);
    // Without a token it tells what the response tells, and why it is not more.
    let told = run(&mut shoal(&["get", "-v", "--admin", cluster.admin_url("node-0"), &url("/a")]));
    assert_eq!((told.code, told.output.as_str()), (Some(0), "one /a 0"));
    assert!(told.errors.contains("shoal: had it (memory), fresh for "), "{}", told.errors);
    assert!(told.errors.contains("no more"), "{}", told.errors);
    let elsewhere = "http://other.test/a";
    let address = cluster.edge_url(0).strip_prefix("http://").unwrap();
    let failed = run(&mut shoal(&["get", "-f", "--connect-to", address, elsewhere]));
    assert_eq!(failed.code, Some(1), "{}", failed.errors);
    assert!(failed.errors.contains("421") && failed.output.is_empty(), "{}", failed.errors);
    assert_eq!(run(&mut shoal(&["get", "ftp://a/"])).code, Some(64));
}

#[test]
fn another_origin_on_old_data_is_taken_unless_somebody_changed_the_site() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let (one, two, three) = (origin("one"), origin("two"), origin("three"));
    let start = |origin: &str| Setup::new(folder.path(), origin).members(1, 1).start();
    let log = || std::fs::read_to_string(folder.path().join("up.log")).unwrap();
    let cluster = start(one.url());
    assert_eq!(body(&cluster, 0, "/a"), "one /a 0");
    assert!(cluster.stop().success());

    let cluster = start(two.url());
    assert!(log().contains("is as asked for now"), "{}", log());
    assert_eq!(body(&cluster, 0, "/b"), "two /b 0");
    let words = ["site", "set", "default", "connect_timeout_ms=2000"];
    assert_eq!(cluster.control("node-0", &words).code, Some(0));
    assert!(cluster.stop().success());

    let cluster = start(three.url());
    let told = log();
    assert!(told.contains("stays as it was") && told.contains("shoal site set"), "{told}");
    assert_eq!(body(&cluster, 0, "/c"), "two /c 0");
    assert!(cluster.stop().success());
}
