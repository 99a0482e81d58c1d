//! One request to an edge, over HTTP/1.1, or what TLS agrees on; the body as it comes, with progress
//! on a terminal.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::net::TcpStream;
use tower_service::Service;

use super::GetArgs;
use crate::cli::exit::Failure;
use crate::clock;
use crate::tasks::Tasks;
use crate::text::units::format_size;

/// Longest silence of an edge.
const SILENCE: Duration = Duration::from_secs(60);
/// Bodies from here on have their progress shown, in bytes.
const PROGRESS_BYTES: u64 = 1024 * 1024;
/// Between two pictures of it.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What came.
pub(super) struct Answer {
    pub(super) version: Version,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) bytes: u64,
    pub(super) first_byte: Duration,
    pub(super) took: Duration,
    /// Why it is a failure, if it is one.
    pub(super) failed: Option<String>,
}

/// Asks, and writes the body where it is wanted.
pub(super) async fn get(args: &GetArgs, uri: &Uri, headers: &HeaderMap) -> Result<Answer, Failure> {
    let driver = Tasks::new();
    let connector = HttpsConnector::from((
        Dial { to: args.connect_to.clone() },
        Arc::new(tls(args.cacert.as_deref())?),
    ));
    let client = Client::builder(Driven(driver.clone())).build::<_, Empty<Bytes>>(connector);
    let mut request = Request::new(Empty::new());
    *request.method_mut() = if args.head { Method::HEAD } else { Method::GET };
    *request.uri_mut() = uri.clone();
    let agent = concat!("shoal/", env!("CARGO_PKG_VERSION"));
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(agent));
    request.headers_mut().extend(headers.clone());
    let begun = clock::monotonic();
    let asked = tokio::time::timeout(SILENCE, client.request(request));
    let response = asked.await.map_err(|_| silent(&args.url))?;
    let response =
        response.map_err(|error| Failure::run(format!("{}: {}", args.url, chain(&error))))?;
    let first_byte = clock::since(begun);
    let (parts, body) = response.into_parts();
    let mut answer = Answer {
        version: parts.version,
        status: parts.status,
        headers: parts.headers,
        bytes: 0,
        first_byte,
        took: first_byte,
        failed: None,
    };
    if args.fail && (answer.status.is_client_error() || answer.status.is_server_error()) {
        answer.failed = Some(format!("{}: {}", args.url, answer.status));
        driver.stop();
        return Ok(answer);
    }
    answer.bytes = write(args, &answer, body).await?;
    answer.took = clock::since(begun);
    driver.stop();
    Ok(answer)
}

async fn write(args: &GetArgs, answer: &Answer, mut body: Incoming) -> Result<u64, Failure> {
    let mut out = open(args)?;
    let unwritten =
        |error: io::Error| Failure::run(format!("the body could not be written: {error}"));
    if (args.include || args.head) && !args.control.json {
        out.write_all(&head(answer)).map_err(unwritten)?;
    }
    let mut progress = Progress::new(args, answer);
    let mut bytes = 0;
    loop {
        let frame = tokio::time::timeout(SILENCE, body.frame()).await;
        let Some(frame) = frame.map_err(|_| silent(&args.url))? else { break };
        let frame = frame.map_err(|error| {
            Failure::run(format!(
                "{}: the body broke off after {bytes} bytes: {}",
                args.url,
                chain(&error)
            ))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        match out.write_all(&data) {
            // Whoever reads us has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(bytes),
            written => written.map_err(unwritten)?,
        }
        bytes += data.len() as u64;
        progress.at(bytes);
    }
    progress.end();
    out.flush().map_err(unwritten)?;
    Ok(bytes)
}

/// Where the body goes.
fn open(args: &GetArgs) -> Result<Box<dyn Write>, Failure> {
    match &args.output {
        Some(path) if path.as_os_str() != "-" => {
            let file = File::create(path);
            let wrong = |error| Failure::usage(format!("-o is {}: {error}", path.display()));
            Ok(Box::new(io::BufWriter::new(file.map_err(wrong)?)))
        }
        _ if args.control.json => Ok(Box::new(io::sink())),
        _ => Ok(Box::new(io::stdout().lock())),
    }
}

fn head(answer: &Answer) -> Vec<u8> {
    let mut text = format!("{:?} {}\r\n", answer.version, answer.status).into_bytes();
    for (name, value) in &answer.headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text
}

fn silent(url: &str) -> Failure {
    Failure::run(format!("{url}: no word within {} s", SILENCE.as_secs()))
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A line on standard error, of large bodies, where a person sees it.
struct Progress {
    shown: bool,
    length: Option<u64>,
    at: Instant,
}

impl Progress {
    fn new(args: &GetArgs, answer: &Answer) -> Self {
        let length = answer.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let to_terminal = args.output.is_none() && io::stdout().is_terminal();
        let large = length.is_none_or(|length: u64| length >= PROGRESS_BYTES);
        let shown = large && !args.silent && !to_terminal && io::stderr().is_terminal();
        Self { shown, length, at: clock::monotonic() }
    }

    fn at(&mut self, bytes: u64) {
        if !self.shown || clock::since(self.at) < PROGRESS_EVERY {
            return;
        }
        self.at = clock::monotonic();
        let of = self.length.map_or(String::new(), |length| format!(" of {}", format_size(length)));
        // Progress is a courtesy: a closed terminal ends nothing.
        let _ = write!(io::stderr(), "\r{}{of}      ", format_size(bytes));
    }

    fn end(&self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r{:40}\r", "");
        }
    }
}

fn tls(authorities: Option<&Path>) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Failure::run)?;
    let mut roots = RootCertStore::empty();
    let mut config = match authorities {
        Some(path) => {
            let wrong = |error: &dyn std::fmt::Display| {
                Failure::usage(format!("--cacert is {}: {error}; expected PEM", path.display()))
            };
            let read = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
            for authority in read {
                let authority = authority.map_err(|error| wrong(&error))?;
                roots.add(authority).map_err(|error| wrong(&error))?;
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        None => match builder.clone().with_native_roots() {
            Ok(native) => native.with_no_client_auth(),
            // It matters only to https, which then says so.
            Err(_) => builder.with_root_certificates(roots).with_no_client_auth(),
        },
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Spawns what drives the connection.
#[derive(Clone)]
struct Driven(Tasks);

impl<F> hyper::rt::Executor<F> for Driven
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, work: F) {
        self.0.spawn_until_stopped("get", work);
    }
}

/// Opens connections to where the URL says, or elsewhere.
#[derive(Clone)]
struct Dial {
    to: Option<String>,
}

impl Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let own = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(own);
        let named = || format!("{}:{port}", uri.host().unwrap_or_default());
        let to = self.to.clone().unwrap_or_else(named);
        Box::pin(async move {
            let stream = TcpStream::connect(&to).await.map_err(|error| format!("{to}: {error}"))?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}
