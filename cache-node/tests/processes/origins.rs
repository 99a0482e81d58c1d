//! Origins that are not there, too slow, or break off, and hosts that nobody configured: clients
//! get an honest answer or a cut connection, and nothing wrong is kept.

use crate::common::{Client, Cluster, Origin, Setup, free_port, turn};

fn small(folder: &tempfile::TempDir, origin: &str) -> Setup {
    Setup::new(folder.path(), origin).members(1, 1)
}

/// Fails unless the answer says which cache failed, and that it did.
fn says_why(status_line: &str) {
    let told = status_line.contains("fwd=") && status_line.contains("detail=");
    assert!(told, "Cache-Status: {status_line:?}");
}

#[test]
fn an_unreachable_origin_is_a_502() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let cluster = small(&folder, &format!("http://127.0.0.1:{}", free_port())).start();
    for _ in 0..2 {
        let reply = cluster.edge(0).get("/a").unwrap();
        assert_eq!(reply.head.status, 502);
        says_why(reply.head.header("cache-status"));
    }
    assert_eq!(cluster.metric("node-0", "shoal_store_objects"), 0.0);
}

#[test]
fn a_slow_origin_is_a_504() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let cluster = small(&folder, origin.url()).flags(&["--first-byte-timeout", "1s"]).start();
    let reply = cluster.edge(0).get("/o/1000/slow?delay-ms=20000").unwrap();
    assert_eq!(reply.head.status, 504);
    says_why(reply.head.header("cache-status"));
    // The next one is asked anew, and is quick.
    let reply = cluster.edge(0).get("/o/1000/quick").unwrap();
    assert_eq!((reply.head.status, reply.body.len()), (200, 1000));
}

#[test]
fn a_body_that_breaks_off_is_cut_and_not_kept() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let cluster = small(&folder, origin.url()).start();
    // With a length that is not reached, and chunked without its end; within the first chunk of
    // the object, and after it.
    for target in [
        "/o/1000000/a?cut=1000",
        "/o/1000000/b?cut=400000",
        "/o/1000000/c?no-length=1&cut=1000",
        "/o/1000000/d?no-length=1&cut=400000",
    ] {
        for asked in 1..=2 {
            is_broken(&mut cluster.edge(0), target);
            assert!(origin.requests_for(target) >= asked, "{target} was taken from a cache");
        }
    }
    assert_eq!(cluster.metric("node-0", "shoal_store_objects"), 0.0);
}

/// The client sees the fault: in the head, or as a body without its end.
fn is_broken(client: &mut Client, target: &str) {
    if let Ok(reply) = client.get(target) {
        let (status, length) = (reply.head.status, reply.body.len());
        assert_eq!(status, 502, "{target}: {length} bytes looked like a whole body");
    }
}

#[test]
fn an_unknown_host_is_refused_and_never_fetched() {
    let _turn = turn();
    let origin = Origin::start(&[]);
    for (flags, status) in [(&[][..], 421), (&["--unknown-host", "404"], 404)] {
        let folder = tempfile::tempdir().unwrap();
        let cluster = small(&folder, origin.url()).flags(flags).start();
        for host in ["elsewhere.example", "127.0.0.1.elsewhere.example", "169.254.169.254"] {
            let mut client = Client::for_host(cluster.edge_url(0), host);
            assert_eq!(client.get("/o/10/a").unwrap().head.status, status, "{host}");
        }
        // The same edge serves the host that it knows.
        assert_eq!(cluster.edge(0).get("/o/10/known").unwrap().head.status, 200);
        assert_eq!(origin.requests_for("/o/10/a"), 0);
    }
    assert_eq!(origin.requests(), 2);
}

#[test]
fn many_clients_of_many_nodes_are_one_fill() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    // Slow enough that all of them come while it runs.
    let origin = Origin::start(&["--rate", "4MiB"]);
    let cluster = Setup::new(folder.path(), origin.url()).members(1, 3).start();
    let target = "/o/6000000/wanted";
    let bodies = ask_everywhere(&cluster, target, 4);
    assert_eq!(bodies.len(), 12);
    assert_eq!(origin.requests_for(target), 1);
    let expected = origin.body(target);
    assert!(bodies.iter().all(|body| *body == expected), "a body differs");
}

/// The bodies that `clients` clients of each of three nodes get at the same time.
fn ask_everywhere(cluster: &Cluster, target: &str, clients: usize) -> Vec<Vec<u8>> {
    std::thread::scope(|scope| {
        let asked = (0..3 * clients)
            .map(|client| scope.spawn(move || cluster.edge(client % 3).get(target).unwrap().body));
        let asked: Vec<_> = asked.collect();
        asked.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn responses_that_forbid_it_are_not_kept() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let cluster = small(&folder, origin.url()).start();
    for target in ["/o/100/a?cc=no-store", "/o/100/b?cc=private", "/o/100/c?set-cookie=1"] {
        for asked in 1..=2 {
            let reply = cluster.edge(0).get(target).unwrap();
            assert_eq!((reply.head.status, reply.body.len()), (200, 100), "{target}");
            assert_eq!(origin.requests_for(target), asked, "{target}");
        }
    }
    let reply = cluster.edge(0).request("POST", "/echo", &[("Content-Length", "0")]).unwrap();
    assert_eq!(reply.head.status, 200);
    assert_eq!(cluster.metric("node-0", "shoal_store_objects"), 0.0);
}
