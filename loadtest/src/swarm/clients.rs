//! One client a node: connected beforehand, held at a barrier, and comparing every byte with a file
//! of what the origin has.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    net::SocketAddr,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tokio::sync::watch;

use super::{results::Get, space};
use crate::{
    clock::Clock,
    content::{Content, ObjectName},
    tasks::Group,
};

/// Bytes compared, or written, at a time.
const PIECE_BYTES: usize = 64 * 1024;
/// A host that the nodes' site serves.
const HOST: &str = "localhost";
/// The origin's seed.
const SEED: u64 = 1;

/// What every client of a round expects.
#[derive(Debug)]
pub(super) struct Expected {
    file: File,
    size_bytes: u64,
    path: String,
}

impl Expected {
    /// Writes what the origin has at `path` to a file without a name in `folder`.
    pub(super) fn write(folder: &Path, path: String, size_bytes: u64) -> io::Result<Self> {
        let file = write_body(&path, BufWriter::new(tempfile::tempfile_in(folder)?))?;
        Ok(Self { file, size_bytes, path })
    }
}

/// Writes what the origin has at `path`.
pub(super) fn write_body(path: &str, mut file: BufWriter<File>) -> io::Result<File> {
    let object = ObjectName::parse(path).map_err(io::Error::other)?;
    let mut reader = Content::new(SEED).open(&object, 0);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = reader.read(&mut piece);
        if read == 0 {
            return file.into_inner().map_err(io::IntoInnerError::into_error);
        }
        file.write_all(&piece[..read])?;
    }
}

/// One node's client, connected.
pub(super) struct Client {
    sender: SendRequest<Empty<Bytes>>,
    expected: Arc<Expected>,
    /// Right bytes so far, for whoever watches.
    progress: Arc<AtomicU64>,
    get: Get,
}

impl Client {
    /// Connects from within a namespace to whoever is to be asked: from a node's own host to the
    /// node no line is in between.
    pub(super) async fn connect(
        (space, address): (&str, SocketAddr),
        get: Get,
        expected: &Arc<Expected>,
        connections: &Group,
    ) -> io::Result<Self> {
        let stream = space::connect(space, address).await?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        connections.spawn(async move {
            // How it ends, the request sees too.
            drop(connection.await);
        });
        Ok(Self { sender, expected: expected.clone(), progress: Arc::default(), get })
    }

    /// How far it is.
    pub(super) fn progress(&self) -> Arc<AtomicU64> {
        self.progress.clone()
    }

    /// Asks once the barrier opens; what came of it, within `limit`.
    pub(super) async fn run(mut self, barrier: watch::Receiver<bool>, limit: Duration) -> Get {
        let mut barrier = barrier;
        // A barrier that is gone opens too: then all is over.
        drop(barrier.wait_for(|open| *open).await);
        let clock = Clock::start();
        let ended = tokio::time::timeout(limit, self.fetch(clock)).await;
        self.get.failure = match ended {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(why),
            Err(_) => Some(format!("not whole within {} s", limit.as_secs())),
        };
        self.get.elapsed_ms = ms(clock.now());
        self.get.received_bytes = self.progress.load(Relaxed);
        self.get
    }

    async fn fetch(&mut self, clock: Clock) -> Result<(), String> {
        let request = Request::get(&self.expected.path)
            .header(header::HOST, HOST)
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let sent = self.sender.send_request(request).await;
        let response = sent.map_err(|error| format!("no answer: {error}"))?;
        if response.status() != StatusCode::OK {
            return Err(format!("answered with {}", response.status()));
        }
        let mut body: Incoming = response.into_body();
        let mut scratch = vec![0; PIECE_BYTES];
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| format!("broke off: {error}"))?;
            let Ok(data) = frame.into_data() else { continue };
            if self.get.first_byte_ms.is_none() {
                self.get.first_byte_ms = Some(ms(clock.now()));
            }
            for piece in data.chunks(PIECE_BYTES) {
                self.compare(piece, &mut scratch)?;
            }
        }
        match self.progress.load(Relaxed) {
            whole if whole == self.expected.size_bytes => Ok(()),
            part => Err(format!("ended after {part} of {} bytes", self.expected.size_bytes)),
        }
    }

    fn compare(&self, piece: &[u8], scratch: &mut [u8]) -> Result<(), String> {
        let at = self.progress.load(Relaxed);
        let wanted = &mut scratch[..piece.len()];
        let read = self.expected.file.read_exact_at(wanted, at);
        read.map_err(|_| format!("more than {} bytes came", self.expected.size_bytes))?;
        if piece != wanted {
            return Err(format!("wrong bytes between {at} and {}", at + piece.len() as u64));
        }
        self.progress.store(at + piece.len() as u64, Relaxed);
        Ok(())
    }
}

pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
