//! What varies, on real clusters: every client gets the variant that it asked for, whichever node
//! it asks; purges and unsafe requests reach all of them; and what is stale is served while it is
//! validated, where its origin allows that.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::{Cluster, Setup, run, shoal, turn, until};

const NODES: usize = 2;

/// An origin that answers in the language asked for, with the version of now.
#[derive(Clone)]
struct Languages {
    url: String,
    version: Arc<AtomicU64>,
    asked: Arc<AtomicU64>,
}

impl Languages {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let origin = Self { url, version: Arc::default(), asked: Arc::default() };
        let shared = origin.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let origin = shared.clone();
                thread::spawn(move || drop(origin.serve(stream)));
            }
        });
        origin
    }

    fn serve(&self, mut out: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(out.try_clone()?).lines();
        while let Some(first) = lines.next().transpose()? {
            let (mut language, mut known) = (String::from("-"), String::new());
            for line in lines.by_ref() {
                let line = line?.to_ascii_lowercase();
                match line.split_once(": ") {
                    Some(("accept-language", value)) => language = value.to_owned(),
                    Some(("if-none-match", value)) => known = value.to_owned(),
                    _ if line.is_empty() => break,
                    _ => {}
                }
            }
            self.asked.fetch_add(1, Ordering::SeqCst);
            let body = format!("{language} {}", self.version.load(Ordering::SeqCst));
            let etag = format!("\"{}\"", body.replace(' ', "-"));
            let control = if first.contains("/swr") {
                "max-age=1, stale-while-revalidate=600"
            } else {
                "max-age=3600"
            };
            let head = format!("etag: {etag}\r\nvary: Accept-Language\r\ncache-control: {control}");
            let length = body.len();
            let answer = match (first.starts_with("POST"), known == etag) {
                (true, _) => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
                (_, true) => format!("HTTP/1.1 304 Not Modified\r\n{head}\r\n\r\n"),
                _ => {
                    format!("HTTP/1.1 200 OK\r\n{head}\r\ncontent-length: {length}\r\n\r\n{body}")
                }
            };
            out.write_all(answer.as_bytes())?;
        }
        Ok(())
    }

    fn change(&self) -> u64 {
        self.version.fetch_add(1, Ordering::SeqCst) + 1
    }
}

fn read(cluster: &Cluster, node: usize, target: &str, language: &str) -> (String, String) {
    let headers = [("accept-language", language)];
    let reply = cluster.edge(node).request("GET", target, &headers).unwrap();
    assert_eq!(reply.head.status, 200);
    assert_eq!(reply.head.header("shoal-selected"), "", "marks stay inside");
    let body = String::from_utf8(reply.body).unwrap();
    (body, reply.head.header("cache-status").to_owned())
}

/// Every language at every node is of that version.
fn all_are_of(cluster: &Cluster, version: u64) {
    for language in ["en", "de", "fr"] {
        for node in 0..NODES {
            let (body, status) = read(cluster, node, "/page", language);
            assert_eq!(body, format!("{language} {version}"), "node {node}: {status}");
        }
    }
}

#[test]
fn every_client_gets_its_variant_and_purges_reach_them_all() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Languages::start();
    let cluster = Setup::new(folder.path(), &origin.url).members(1, NODES).start();
    all_are_of(&cluster, 0);
    assert_eq!(origin.asked.load(Ordering::SeqCst), 3, "each variant once, for all nodes");
    let (_, status) = read(&cluster, 1, "/page", "de");
    assert!(status.contains("; hit;"), "{status}");

    let version = origin.change();
    let token = fs::read_to_string(cluster.data_dir().join("admin-token")).unwrap();
    let admin = cluster.admin_url("node-1").to_owned();
    let page = format!("{}/page", cluster.edge_url(0));
    let mut purge = shoal(&["purge", "--admin", &admin, "--yes", &page]);
    let purged = run(purge.env("SHOAL_TOKEN", token));
    assert_eq!(purged.code, Some(0), "{}{}", purged.output, purged.errors);
    all_are_of(&cluster, version);

    let version = origin.change();
    let posted = cluster.edge(0).request("POST", "/page", &[("content-length", "0")]).unwrap();
    assert_eq!(posted.head.status, 204);
    all_are_of(&cluster, version);
}

#[test]
fn a_stale_answer_is_given_while_it_is_validated() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Languages::start();
    let cluster = Setup::new(folder.path(), &origin.url).members(1, 1).start();
    assert_eq!(read(&cluster, 0, "/swr", "en").0, "en 0");
    thread::sleep(Duration::from_millis(1_200));
    let version = origin.change();
    let (body, status) = read(&cluster, 0, "/swr", "en");
    assert_eq!(body, "en 0", "{status}");
    assert!(status.starts_with("shoal; hit; ttl="), "{status}");
    let new = format!("en {version}");
    until("the new version", Duration::from_secs(10), || {
        (read(&cluster, 0, "/swr", "en").0 == new).then_some(())
    });
    let asked = [("cache-control", "only-if-cached")];
    let reply = cluster.edge(0).request("GET", "/never-asked", &asked).unwrap();
    assert_eq!(reply.head.status, 504);
}

#[test]
fn without_the_tier_variants_stay_apart() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Languages::start();
    let cluster = Setup::new(folder.path(), &origin.url).members(1, NODES).start();
    for language in ["en", "de"] {
        assert_eq!(read(&cluster, 0, "/page", language).0, format!("{language} 0"));
    }
    cluster.kill("super-0");
    let version = origin.change();
    // Once the nodes' sessions have run out, nothing counts without the origin's word.
    for node in 0..NODES {
        until("the origin's word", Duration::from_secs(45), || {
            (read(&cluster, node, "/page", "en").0 == format!("en {version}")).then_some(())
        });
    }
    for _ in 0..2 {
        all_are_of(&cluster, version);
    }
}
