//! An origin whose every response says which version it is of, so that a test can tell an old one
//! from a new one. All paths change together.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Bytes of a body.
const BODY_BYTES: usize = 40_000;
/// Pieces of a slow body, and the pause between two.
const PIECES: usize = 20;
const PIECE_PAUSE: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Counts {
    version: AtomicU64,
    bodies: AtomicU64,
    not_modified: AtomicU64,
}

/// The origin; it ends with the test's process.
pub(crate) struct Versions {
    url: String,
    counts: Arc<Counts>,
}

impl Versions {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let counts = Arc::new(Counts::default());
        let shared = counts.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let counts = shared.clone();
                // A peer that hangs up is no fault of this origin's.
                thread::spawn(move || drop(serve(stream, &counts)));
            }
        });
        Self { url, counts }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Everything changes; the version from now on.
    pub(crate) fn change(&self) -> u64 {
        self.counts.version.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Responses with a body so far.
    pub(crate) fn bodies(&self) -> u64 {
        self.counts.bodies.load(Ordering::SeqCst)
    }

    /// Responses `304` so far.
    pub(crate) fn not_modified(&self) -> u64 {
        self.counts.not_modified.load(Ordering::SeqCst)
    }
}

/// The version that a response is of.
pub(crate) fn version_of(body: &[u8]) -> u64 {
    assert_eq!(body.len(), BODY_BYTES, "a body is short");
    let text = String::from_utf8_lossy(&body[..20]);
    text.trim().parse().unwrap()
}

fn serve(stream: TcpStream, counts: &Counts) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut out = stream;
    while let Some(first) = lines.next().transpose()? {
        let target = first.split(' ').nth(1).unwrap_or("/").to_owned();
        let mut known = String::new();
        for line in lines.by_ref() {
            let line = line?;
            if line.is_empty() {
                break;
            }
            if let Some(tag) = line.to_ascii_lowercase().strip_prefix("if-none-match:") {
                known = tag.trim().to_owned();
            }
        }
        answer(&mut out, counts, (&target, &known))?;
    }
    Ok(())
}

fn answer(
    out: &mut TcpStream,
    counts: &Counts,
    (target, known): (&str, &str),
) -> std::io::Result<()> {
    let version = counts.version.load(Ordering::SeqCst);
    let etag = format!("\"v{version}\"");
    // Objects are tagged by the last letter of their path.
    let tag = target.chars().last().unwrap_or('x');
    let head = format!(
        "etag: {etag}\r\ncache-control: max-age=3600\r\nsurrogate-key: all tag-{tag}\r\n\r\n"
    );
    if known == etag {
        counts.not_modified.fetch_add(1, Ordering::SeqCst);
        return out.write_all(format!("HTTP/1.1 304 Not Modified\r\n{head}").as_bytes());
    }
    counts.bodies.fetch_add(1, Ordering::SeqCst);
    let mut body = format!("{version:<20}{target} ").into_bytes();
    body.resize(BODY_BYTES, b'.');
    let length = body.len();
    out.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n{head}").as_bytes())?;
    for piece in body.chunks(BODY_BYTES / PIECES) {
        if target.contains("slow") {
            thread::sleep(PIECE_PAUSE);
        }
        out.write_all(piece)?;
    }
    Ok(())
}
