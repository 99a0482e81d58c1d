//! A client as plain as can be, HTTP/1.1 on one connection: for warming up, for first bytes, for
//! connections that stay. It keeps no body.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::clock::Clock;

/// Longest head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes read at a time.
const READ_BYTES: usize = 256 * 1024;
/// Longest wait for one answer, its body included.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// A kept connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    address: SocketAddr,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) first_byte_us: u64,
    pub(super) bytes: u64,
    /// Of the body.
    pub(super) hash: blake3::Hash,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, address })
    }

    /// Asks for `path` and reads all of the answer.
    pub(super) async fn get(&mut self, path: &str) -> io::Result<Answer> {
        let answer = tokio::time::timeout(ANSWER_DEADLINE, self.ask(path)).await;
        answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn ask(&mut self, path: &str) -> io::Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        let clock = Clock::start();
        self.stream.write_all(request.as_bytes()).await?;
        let mut buffer = vec![0; 4096];
        let (mut filled, mut first_byte_us) = (0, None);
        let (head, length) = loop {
            if filled == buffer.len() {
                buffer.resize((filled * 2).min(HEAD_BYTES_MAX), 0);
            }
            let read = self.stream.read(&mut buffer[filled..]).await?;
            first_byte_us.get_or_insert_with(|| clock.now().as_micros() as u64);
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            if let Some(head) = head(&buffer[..filled]) {
                break head;
            }
        };
        let status = status(&buffer).ok_or(io::ErrorKind::InvalidData)?;
        let length = length.ok_or(io::ErrorKind::InvalidData)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&buffer[head..filled]);
        let mut left = length.saturating_sub((filled - head) as u64);
        buffer.resize(READ_BYTES, 0);
        while left > 0 {
            let most = left.min(READ_BYTES as u64) as usize;
            let read = self.stream.read(&mut buffer[..most]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            hasher.update(&buffer[..read]);
            left -= read as u64;
        }
        let first_byte_us = first_byte_us.unwrap_or_default();
        Ok(Answer { status, first_byte_us, bytes: length, hash: hasher.finalize() })
    }
}

/// Where the head ends, and what it says of the body's length.
fn head(bytes: &[u8]) -> Option<(usize, Option<u64>)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&bytes[..end]);
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    Some((end + 4, length))
}

fn status(bytes: &[u8]) -> Option<u16> {
    std::str::from_utf8(bytes.get(9..12)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_found_when_they_are_whole() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel";
        assert_eq!(head(text), Some((text.len() - 3, Some(5))));
        assert_eq!(head(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n"), None);
        assert_eq!(status(text), Some(200));
    }
}
