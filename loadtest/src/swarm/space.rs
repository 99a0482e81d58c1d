//! Connections from within a network namespace. A socket belongs to the namespace in which it was
//! made, whoever uses it later: a thread enters the namespace, connects, hands the socket over and
//! ends.

use std::{fs::File, io, net::SocketAddr, os::fd::AsFd, path::Path, time::Duration};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
};

use crate::tasks::thread;

/// Where `ip netns` keeps namespaces (ip-netns(8)).
pub(super) const SPACES: &str = "/run/netns";
/// For a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// For a whole page.
const PAGE_DEADLINE: Duration = Duration::from_secs(5);
/// Longest page, in bytes.
const PAGE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Connects to `address` from within `space`.
pub(super) async fn connect(space: &str, address: SocketAddr) -> io::Result<TcpStream> {
    let (done, connected) = oneshot::channel();
    let path = Path::new(SPACES).join(space);
    thread("connect", move || {
        let connect = || {
            let space = File::open(path)?;
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?;
            let stream = std::net::TcpStream::connect_timeout(&address, CONNECT_DEADLINE)?;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        // Whoever waited may be gone.
        drop(done.send(connect()));
    })?;
    let stream: io::Result<_> = connected.await.map_err(io::Error::other)?;
    TcpStream::from_std(stream?)
}

/// The body of the page at `path`; an error unless it is answered with 200.
pub(super) async fn page(space: &str, address: SocketAddr, path: &str) -> io::Result<String> {
    let read = async {
        let mut stream = connect(space, address).await?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut text = Vec::new();
        stream.take(PAGE_BYTES_MAX).read_to_end(&mut text).await?;
        String::from_utf8(text).map_err(io::Error::other)
    };
    let text = tokio::time::timeout(PAGE_DEADLINE, read).await.map_err(io::Error::other)??;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(io::Error::other(format!("{path}: {}", head.lines().next().unwrap_or_default()))),
    }
}
