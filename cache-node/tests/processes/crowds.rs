//! Everybody asks at once for what nobody has.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::common::{Origin, Setup, turn};

const NODES: usize = 6;
const CLIENTS: usize = 2_000;
const LENGTH: usize = 65_536;
/// Longest silence of an edge.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Open files beside the clients' connections.
const SPARE_FILES: u64 = 200;

/// Makes room for every client's connection.
fn many_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = CLIENTS as u64 + SPARE_FILES;
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).unwrap();
    }
}

fn connected(url: &str) -> TcpStream {
    let stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(SILENCE_MAX)).unwrap();
    stream
}

fn body(mut client: TcpStream) -> Vec<u8> {
    let mut response = Vec::new();
    client.read_to_end(&mut response).unwrap();
    assert!(response.starts_with(b"HTTP/1.1 200 "), "{}", response.escape_ascii());
    let head = response.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    response.split_off(head + 4)
}

#[test]
fn a_flash_crowd_is_one_request_of_the_origin() {
    let _turn = turn();
    many_files();
    let folder = tempfile::tempdir().unwrap();
    // Slow enough that all of them come while it runs.
    let origin = Origin::start(&["--rate", "16KiB"]);
    let cluster = Setup::new(folder.path(), origin.url()).members(1, NODES).start();
    let target = format!("/o/{LENGTH}/crowd");
    let edge = |client: usize| cluster.edge_url(client % NODES);
    let mut clients: Vec<_> = (0..CLIENTS).map(|client| connected(edge(client))).collect();
    for (client, connection) in clients.iter_mut().enumerate() {
        let host = edge(client).strip_prefix("http://").unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).unwrap();
    }
    let bodies: Vec<_> = clients.into_iter().map(body).collect();
    assert_eq!((bodies.len(), origin.requests_for(&target)), (CLIENTS, 1));
    let expected = origin.body(&target);
    assert!(bodies.iter().all(|body| *body == expected), "a body differs");
}
