//! Connections that know whether they have served a request before.
//!
//! A server may close an idle connection at the very moment at which a client takes it for another
//! request: what comes of that is no failure of the server, and HTTP's clients send such a request
//! again (RFC 9112, section 9.3.1). It can happen on a connection that has served before, and on no
//! other.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use http::{Extensions, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{CaptureConnection, Connected, Connection, HttpConnector},
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tower_service::Service;

/// Whether a connection has served.
#[derive(Clone, Debug, Default)]
struct Served(Arc<AtomicBool>);

/// Notes that the connection of a request has served it.
pub fn note(connection: &CaptureConnection) {
    if let Some(Served(served)) = of(connection) {
        served.store(true, Ordering::Relaxed);
    }
}

/// Whether the connection of a request had served another one before.
#[must_use]
pub fn had_served(connection: &CaptureConnection) -> bool {
    of(connection).is_some_and(|Served(served)| served.load(Ordering::Relaxed))
}

fn of(connection: &CaptureConnection) -> Option<Served> {
    let mut extras = Extensions::new();
    if let Some(connected) = connection.connection_metadata().as_ref() {
        connected.get_extras(&mut extras);
    }
    extras.remove()
}

/// Makes connections that know it.
#[derive(Clone, Debug)]
pub struct Connector(pub HttpConnector);

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = <HttpConnector as Service<Uri>>::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let made = self.0.call(uri);
        Box::pin(async move { Ok(Stream { io: made.await?, served: Served::default() }) })
    }
}

/// Such a connection.
#[derive(Debug)]
pub struct Stream {
    io: TokioIo<TcpStream>,
    served: Served,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.connected().extra(self.served.clone())
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
