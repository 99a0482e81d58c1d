//! A strict HTTP/1.1 client in one page: a body that is shorter than its framing promised is an
//! error, which is what these tests are about.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longest silence of a server.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Longest line of a head or of chunked framing.
const LINE_BYTES_MAX: u64 = 64 * 1024;
const PIECE_BYTES: usize = 256 * 1024;

/// What takes a body, piece by piece; its error ends the request.
pub(crate) type Sink<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

/// A connection to one server, kept open between requests.
pub(crate) struct Client {
    address: String,
    host: String,
    connection: Option<BufReader<TcpStream>>,
}

/// Status and headers.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    /// The first header of that lower-case name; empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(own, _)| own == name);
        found.map_or("", |(_, value)| value)
    }
}

/// A whole response.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Client {
    /// A client of the server at `http://HOST:PORT`.
    pub(crate) fn new(url: &str) -> Self {
        let address = url.strip_prefix("http://").unwrap().to_owned();
        Self { host: address.clone(), address, connection: None }
    }

    /// The same, but asking for another host.
    pub(crate) fn for_host(url: &str, host: &str) -> Self {
        Self { host: host.to_owned(), ..Self::new(url) }
    }

    pub(crate) fn get(&mut self, target: &str) -> io::Result<Reply> {
        self.request("GET", target, &[])
    }

    pub(crate) fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> io::Result<Reply> {
        self.send((method, target), headers, "")
    }

    /// The same with a body.
    pub(crate) fn send(
        &mut self,
        (method, target): (&str, &str),
        headers: &[(&str, &str)],
        text: &str,
    ) -> io::Result<Reply> {
        let mut body = Vec::new();
        let head = self.exchange((method, target), headers, text, &mut |piece| {
            body.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(Reply { head, body })
    }

    /// Sends a request and hands the body to `sink` as it comes.
    pub(crate) fn stream(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        sink: &mut Sink<'_>,
    ) -> io::Result<Head> {
        self.exchange((method, target), headers, "", sink)
    }

    fn exchange(
        &mut self,
        (method, target): (&str, &str),
        headers: &[(&str, &str)],
        sent: &str,
        sink: &mut Sink<'_>,
    ) -> io::Result<Head> {
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !sent.is_empty() {
            text.push_str(&format!("Content-Length: {}\r\n", sent.len()));
        }
        text.push_str("\r\n");
        text.push_str(sent);
        let kept = self.connection.take();
        // A server may close a connection that it was not using; a new one is asked once.
        let answered = match kept {
            Some(mut connection) => ask(&mut connection, &text).ok().map(|head| (connection, head)),
            None => None,
        };
        let (mut connection, head) = match answered {
            Some(answered) => answered,
            None => {
                let mut connection = self.connect()?;
                let head = ask(&mut connection, &text)?;
                (connection, head)
            }
        };
        let reusable = body(&mut connection, method, &head, sink)?;
        self.connection = reusable.then_some(connection);
        Ok(head)
    }

    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        Ok(BufReader::with_capacity(PIECE_BYTES, stream))
    }
}

fn ask(connection: &mut BufReader<TcpStream>, text: &str) -> io::Result<Head> {
    connection.get_mut().write_all(text.as_bytes())?;
    loop {
        let line = line(connection)?;
        let mut words = line.split(' ');
        let version = words.next().filter(|version| version.starts_with("HTTP/1."));
        let status = words.next().and_then(|status| status.parse().ok());
        let (Some(_), Some(status)) = (version, status) else {
            return Err(invalid(format!("status line {line:?}")));
        };
        let headers = fields(connection)?;
        // Interim responses come before the one that counts.
        if status >= 200 {
            return Ok(Head { status, headers });
        }
    }
}

fn fields(connection: &mut BufReader<TcpStream>) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let line = line(connection)?;
        if line.is_empty() {
            return Ok(headers);
        }
        let (name, value) =
            line.split_once(':').ok_or_else(|| invalid(format!("header line {line:?}")))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn line(connection: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut bytes = Vec::new();
    connection.take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes)?;
    match bytes.strip_suffix(b"\r\n") {
        Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
        None => Err(ErrorKind::UnexpectedEof.into()),
    }
}

/// Reads a body to its end; whether the connection can carry another request.
fn body(
    connection: &mut BufReader<TcpStream>,
    method: &str,
    head: &Head,
    sink: &mut Sink<'_>,
) -> io::Result<bool> {
    let reusable = !head.header("connection").eq_ignore_ascii_case("close");
    if method == "HEAD" || matches!(head.status, 204 | 304) {
        return Ok(reusable);
    }
    if head.header("transfer-encoding").eq_ignore_ascii_case("chunked") {
        loop {
            let size = line(connection)?;
            let digits = size.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(digits, 16).map_err(|_| invalid(size.clone()))?;
            if size == 0 {
                fields(connection)?;
                return Ok(reusable);
            }
            exactly(connection, size, sink)?;
            if !line(connection)?.is_empty() {
                return Err(invalid("no line end after a chunk".to_owned()));
            }
        }
    }
    if let Ok(length) = head.header("content-length").parse() {
        exactly(connection, length, sink)?;
        return Ok(reusable);
    }
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match connection.read(&mut piece)? {
            0 => return Ok(false),
            count => sink(&piece[..count])?,
        }
    }
}

fn exactly(
    connection: &mut BufReader<TcpStream>,
    length: u64,
    sink: &mut Sink<'_>,
) -> io::Result<()> {
    let mut left = length;
    let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(length).unwrap_or(PIECE_BYTES))];
    while left > 0 {
        let wanted = piece.len().min(usize::try_from(left).unwrap_or(PIECE_BYTES));
        let count = connection.read(&mut piece[..wanted])?;
        if count == 0 {
            let text = format!("the body ended {left} bytes before its {length}");
            return Err(io::Error::new(ErrorKind::UnexpectedEof, text));
        }
        sink(&piece[..count])?;
        left -= count as u64;
    }
    Ok(())
}

fn invalid(text: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text)
}
