//! A running origin, servers that lie, a client that shows the raw reply, and the binary itself.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use shoal_loadtest::{
    content::{Content, ObjectName},
    origin::{Origin, stats::StatsDocument},
    scenario::OriginScenario,
    tasks::Group,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};
use tokio_util::sync::CancellationToken;

pub(crate) const SEED: u64 = 7;

/// An origin in this process; stops when dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: Group,
}

impl Running {
    pub(crate) async fn plain() -> Self {
        Self::start(OriginScenario::loopback(SEED)).await
    }

    pub(crate) async fn start(scenario: OriginScenario) -> Self {
        let origin = Origin::bind(&scenario).await.unwrap();
        let (stop, tasks) = (CancellationToken::new(), Group::new());
        let address = origin.address();
        tasks.spawn(origin.serve(stop.clone()));
        Self { address, stop, tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) async fn get(&self, path: &str) -> Raw {
        self.ask("GET", path, &[]).await
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Raw {
        request(self.address, method, path, fields, b"").await
    }

    pub(crate) async fn stats(&self) -> StatsDocument {
        serde_json::from_slice(&self.get("/_origin/stats").await.body).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.abort();
    }
}

/// A reply as it came over the wire, with chunks joined.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) status: u16,
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// False when the connection ended before the body did.
    pub(crate) whole: bool,
}

impl Raw {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// Sends one request on a connection of its own and reads until the server closes it.
pub(crate) async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    body: &[u8],
) -> Raw {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    let (mut reader, mut writer) = stream.split();
    let send = async {
        writer.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        writer.write_all(body).await.unwrap();
    };
    let mut bytes = Vec::new();
    let receive = async {
        let _reset_counts_as_end = reader.read_to_end(&mut bytes).await;
    };
    futures::join!(send, receive);
    parse(method, &bytes)
}

fn parse(method: &str, bytes: &[u8]) -> Raw {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let fields: BTreeMap<String, String> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let rest = &bytes[end + 4..];
    let chunked = fields.get("transfer-encoding").is_some_and(|value| value == "chunked");
    let (body, whole) = if chunked { join_chunks(rest) } else { (rest.to_vec(), true) };
    let declared = fields.get("content-length").map(|value| value.parse::<usize>().unwrap());
    let complete = method == "HEAD" || declared.is_none_or(|length| length == body.len());
    Raw { status, fields, body, whole: whole && complete }
}

fn join_chunks(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let data = &rest[end + 2..];
        if size == 0 {
            return (body, true);
        }
        if data.len() < size + 2 {
            body.extend_from_slice(&data[..data.len().min(size)]);
            return (body, false);
        }
        body.extend_from_slice(&data[..size]);
        rest = &data[size + 2..];
    }
    (body, false)
}

/// What the origin should have sent for `path`.
pub(crate) fn bytes_of(path: &str) -> Vec<u8> {
    let size = ObjectName::parse(path).unwrap().size_bytes();
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    Content::new(SEED).read(path, 0, &mut bytes).unwrap();
    bytes
}

/// How a false edge answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// The right bytes, and a `Cache-Status`.
    None,
    /// One byte in the middle is another.
    FlippedByte,
    /// Half of the declared body, then the end of the connection.
    Truncated,
    /// Half of the body, declared as the whole.
    ShortLength,
    /// One byte more than the object has.
    Surplus,
    /// 503.
    Unavailable,
    /// The connection ends without a reply.
    Closed,
    /// Nothing, for a long time.
    Silent,
    /// The right bytes, a little later, one request after the other.
    Slow,
    /// The right bytes for the host `demo.local`, 421 for others.
    OneHost,
}

pub(crate) const SLOW_MS: u64 = 100;

/// An edge that answers with `lie` until its tasks are dropped.
pub(crate) struct FalseEdge {
    pub(crate) address: SocketAddr,
    tasks: Group,
    seen: Arc<AtomicU64>,
}

impl FalseEdge {
    pub(crate) async fn start(lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Group::new();
        let connections = tasks.clone();
        let seen = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&seen);
        tasks.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(answer(stream, lie, Arc::clone(&counter)));
            }
        });
        Self { address, tasks, seen }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests whose heads it has read.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Relaxed)
    }
}

impl Drop for FalseEdge {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

async fn answer(mut stream: TcpStream, lie: Lie, seen: Arc<AtomicU64>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    seen.fetch_add(1, Relaxed);
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap();
    let mut body = bytes_of(path);
    let (size, half) = (body.len(), body.len() / 2);
    let (mut status, mut length) = ("200 OK", size);
    match lie {
        Lie::None => {}
        Lie::FlippedByte => body[half] ^= 1,
        Lie::Truncated => body.truncate(half),
        Lie::ShortLength => {
            body.truncate(half);
            length = half;
        }
        Lie::Surplus => {
            body.push(0);
            length = size + 1;
        }
        Lie::Unavailable => status = "503 Service Unavailable",
        Lie::Closed => return,
        Lie::Silent => tokio::time::sleep(Duration::from_secs(3600)).await,
        Lie::Slow => tokio::time::sleep(Duration::from_millis(SLOW_MS)).await,
        Lie::OneHost if head.to_lowercase().contains("\r\nhost: demo.local\r\n") => {}
        Lie::OneHost => status = "421 Misdirected Request",
    }
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\
         Cache-Status: far; fwd=miss, near; hit; detail=memory\r\n\r\n"
    );
    if stream.write_all(head.as_bytes()).await.is_ok() {
        let _gone = stream.write_all(&body).await;
    }
}

/// What the binary said and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Starts the binary with these words.
pub(crate) fn start(words: &[&str]) -> Child {
    start_reading(words, Stdio::null())
}

/// Starts the binary with these words and this standard input.
pub(crate) fn start_reading(words: &[&str], input: Stdio) -> Child {
    Command::new(env!("CARGO_BIN_EXE_shoal-loadtest"))
        .args(words)
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Waits for the binary to end.
pub(crate) async fn end(child: Child) -> Said {
    let output = child.wait_with_output().await.unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs the binary with the words of `line` to its end.
pub(crate) async fn loadtest(line: &str) -> Said {
    end(start(&line.split_whitespace().collect::<Vec<_>>())).await
}

/// Sends a signal to a process that a test started.
pub(crate) async fn signal(child: &Child, name: &str) {
    let pid = child.id().unwrap().to_string();
    let status = Command::new("kill").args(["-s", name, &pid]).status().await.unwrap();
    assert!(status.success());
}
