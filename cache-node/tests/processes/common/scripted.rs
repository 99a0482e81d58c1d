//! An origin that does what a test says, right or wrong, byte by byte.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What the origin was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) target: String,
    /// The first and the last byte of the range that was asked for; no last one is the end.
    pub(crate) range: Option<(usize, usize)>,
    /// How many requests for the target there were before.
    pub(crate) before: usize,
}

/// How an answer ends.
pub(crate) enum Then {
    /// The connection stays.
    Keep,
    /// The connection is closed in good order.
    Close,
    /// The connection is reset.
    Reset,
}

/// The origin; it ends with the test's process.
pub(crate) struct Scripted {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Scripted {
    /// Answers with what `script` writes.
    pub(crate) fn start(
        script: impl Fn(&Asked, &mut TcpStream) -> std::io::Result<Then> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (seen, script) = (asked.clone(), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, script) = (seen.clone(), script.clone());
                // A peer that hangs up is no fault of this origin's.
                thread::spawn(move || drop(serve(stream, &seen, script.as_ref())));
            }
        });
        Self { url, asked }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What it was asked for `target` so far.
    pub(crate) fn asked_for(&self, target: &str) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.target == target).cloned().collect()
    }
}

/// Writes slowly: a byte, then a pause, again and again.
pub(crate) fn trickle(out: &mut TcpStream, bytes: &[u8], pause: Duration) -> std::io::Result<()> {
    for byte in bytes {
        out.write_all(std::slice::from_ref(byte))?;
        thread::sleep(pause);
    }
    Ok(())
}

fn serve(
    stream: TcpStream,
    seen: &Mutex<Vec<Asked>>,
    script: &dyn Fn(&Asked, &mut TcpStream) -> std::io::Result<Then>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut out = stream;
    while let Some(first) = lines.next().transpose()? {
        let target = first.split(' ').nth(1).unwrap_or("/").to_owned();
        let mut range = None;
        for line in lines.by_ref() {
            let line = line?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some((first, last)) =
                line.strip_prefix("range: bytes=").and_then(|range| range.split_once('-'))
            {
                range = Some((first.parse().unwrap(), last.parse().unwrap_or(usize::MAX)));
            }
        }
        let asked = {
            let mut seen = seen.lock().unwrap();
            let before = seen.iter().filter(|asked| asked.target == target).count();
            seen.push(Asked { target, range, before });
            seen.last().cloned().unwrap()
        };
        match script(&asked, &mut out)? {
            Then::Keep => {}
            Then::Close => return Ok(()),
            Then::Reset => {
                return socket2::SockRef::from(&out).set_linger(Some(Duration::ZERO));
            }
        }
    }
    Ok(())
}
