//! Origins that do wrong: they reset, lie about lengths, trickle, ignore ranges, change versions in
//! between. Clients get right bytes, or see that they did not; nothing wrong is kept.

use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

use crate::common::{Asked, Client, Cluster, Scripted, Setup, Then, trickle, turn, until};

const CHUNK: usize = 256 * 1024;
/// For a test's node to notice something.
const NOTICED: Duration = Duration::from_secs(20);

/// The bytes of a version of an object.
fn body(version: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 7) as u8 ^ (at >> 11) as u8 ^ version.wrapping_mul(101)).collect()
}

fn head(status: &str, version: u8, length: usize) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\netag: \"v{version}\"\r\n\
         cache-control: max-age=3600\r\n"
    )
}

fn whole(out: &mut TcpStream, version: u8, length: usize) -> std::io::Result<Then> {
    out.write_all(format!("{}\r\n", head("200 OK", version, length)).as_bytes())?;
    out.write_all(&body(version, length))?;
    Ok(Then::Keep)
}

/// What a client got, and whether it looked whole.
fn got(client: &mut Client, target: &str) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let head = client.stream("GET", target, &[], &mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    });
    let whole = head.is_ok_and(|head| head.status == 200);
    (bytes, whole)
}

/// Waits until the node has so many objects: one is finished a moment after its body was sent.
fn keeps(cluster: &Cluster, objects: f64) {
    until(&format!("{objects} objects are stored"), NOTICED, || {
        (cluster.metric("node-0", "shoal_store_objects") == objects).then_some(())
    });
}

#[test]
fn a_reset_at_any_byte_is_seen_and_nothing_is_kept() {
    let _turn = turn();
    let length = CHUNK + 40_000;
    let origin = Scripted::start(move |asked, out| {
        let mut answer = format!("{}\r\n", head("200 OK", 1, length)).into_bytes();
        let head_bytes = answer.len();
        answer.extend(body(1, length));
        let (part, at) = asked.target[1..].split_once('/').unwrap();
        let at: usize = at.parse().unwrap();
        let end = if part == "head" { at.min(head_bytes) } else { head_bytes + at };
        out.write_all(&answer[..end])?;
        // What was written is to arrive before the reset does.
        std::thread::sleep(Duration::from_millis(100));
        Ok(if end == answer.len() { Then::Keep } else { Then::Reset })
    });
    let folder = tempfile::tempdir().unwrap();
    let cluster = Setup::new(folder.path(), origin.url()).members(1, 1).start();
    let in_head = [0, 1, 9, 17, 40].map(|at| format!("/head/{at}"));
    let in_body = [0, 1, 1_000, CHUNK - 1, CHUNK, CHUNK + 1, length - 1];
    let in_body = in_body.map(|at| format!("/body/{at}"));
    for target in in_head.iter().chain(&in_body) {
        let (bytes, whole) = got(&mut cluster.edge(0), target);
        assert!(!whole, "{target}: {} bytes looked like a whole body", bytes.len());
        let right = body(1, length);
        let came = &bytes[..];
        assert!(target.starts_with("/head") || right.starts_with(came) || came.len() < 300);
    }
    assert_eq!(cluster.metric("node-0", "shoal_store_objects"), 0.0);
    let target = format!("/body/{length}");
    assert!(got(&mut cluster.edge(0), &target) == (body(1, length), true));
    keeps(&cluster, 1.0);
}

#[test]
fn a_length_that_lies_spoils_neither_this_body_nor_the_next() {
    let _turn = turn();
    let origin = Scripted::start(|asked, out| match asked.target.as_str() {
        "/more" => {
            whole(out, 1, 1_000)?;
            out.write_all(format!("{}\r\nevil", head("200 OK", 9, 4)).as_bytes())?;
            Ok(Then::Keep)
        }
        "/less" => {
            out.write_all(format!("{}\r\n", head("200 OK", 1, 2_000)).as_bytes())?;
            out.write_all(&body(1, 1_000))?;
            Ok(Then::Close)
        }
        _ => whole(out, 2, 500),
    });
    let folder = tempfile::tempdir().unwrap();
    let cluster = Setup::new(folder.path(), origin.url()).members(1, 1).start();
    let (_, looked_whole) = got(&mut cluster.edge(0), "/less");
    assert!(!looked_whole, "half a body looked whole");
    for next in ["/a", "/b", "/c"] {
        // The length is what the origin says; what follows it belongs to nobody.
        assert!(got(&mut cluster.edge(0), "/more") == (body(1, 1_000), true));
        assert!(got(&mut cluster.edge(0), next) == (body(2, 500), true), "{next}");
    }
    keeps(&cluster, 4.0);
}

#[test]
fn who_trickles_a_body_is_waited_for_and_who_trickles_a_head_is_not() {
    let _turn = turn();
    let second = Duration::from_secs(1);
    let origin = Scripted::start(move |asked, out| {
        let answer = format!("{}\r\n", head("200 OK", 1, 4));
        if asked.target == "/head" {
            trickle(out, answer.as_bytes(), second)?;
        } else {
            out.write_all(answer.as_bytes())?;
            trickle(out, &body(1, 4), second)?;
        }
        Ok(Then::Keep)
    });
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--first-byte-timeout", "3s"];
    let cluster = Setup::new(folder.path(), origin.url()).members(1, 1).flags(&flags).start();
    assert!(got(&mut cluster.edge(0), "/body") == (body(1, 4), true));
    assert_eq!(cluster.edge(0).get("/head").unwrap().head.status, 504);
    keeps(&cluster, 1.0);
}

/// What an origin does when it is asked to go on with a body of which the first part is lost.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Continues {
    /// As it should.
    Rightly,
    /// With all of it.
    FromTheStart,
    /// With all of another version.
    OtherVersion,
    /// With the range of another version.
    OtherRange,
    /// With other bytes than asked for.
    Elsewhere,
    /// With less than it says.
    Short,
}

const LENGTH: usize = 10 * CHUNK;

impl Continues {
    fn answer(self, asked: &Asked, out: &mut TcpStream) -> std::io::Result<Then> {
        let changed = matches!(self, Self::OtherVersion | Self::OtherRange);
        let version = if changed && asked.before > 0 { 2 } else { 1 };
        if asked.before == 0 {
            out.write_all(format!("{}\r\n", head("200 OK", 1, LENGTH)).as_bytes())?;
            out.write_all(&body(1, LENGTH)[..6 * CHUNK])?;
            std::thread::sleep(NOTICED);
            return Ok(Then::Close);
        }
        let ranged = !matches!(self, Self::FromTheStart | Self::OtherVersion);
        let Some((from, last)) = asked.range.filter(|_| ranged) else {
            return whole(out, version, LENGTH);
        };
        let back = if self == Self::Elsewhere { CHUNK } else { 0 };
        let (from, end) = (from - back, last.min(LENGTH - 1) + 1 - back);
        let range = format!("content-range: bytes {from}-{}/{LENGTH}\r\n\r\n", end - 1);
        let answer = head("206 Partial Content", version, end - from) + &range;
        out.write_all(answer.as_bytes())?;
        let end = if self == Self::Short { end - 1_000 } else { end };
        out.write_all(&body(version, LENGTH)[from..end])?;
        Ok(if self == Self::Short { Then::Close } else { Then::Keep })
    }
}

/// One node fills half of it and is killed; what a client of the node that follows gets.
fn taken_over(continues: Continues) {
    let origin = Scripted::start(move |asked, out| continues.answer(asked, out));
    let folder = tempfile::tempdir().unwrap();
    let cluster = Setup::new(folder.path(), origin.url()).members(1, 2).start();
    let target = "/o";
    let (told, heard) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| got(&mut cluster.edge(0), target));
        until("the fill begins", NOTICED, || origin.asked_for(target).pop());
        let follower = scope.spawn(|| {
            let mut bytes = Vec::new();
            let head = cluster.edge(1).stream("GET", target, &[], &mut |piece| {
                bytes.extend_from_slice(piece);
                // Nobody listens any more once the filler is killed.
                let _ = told.send(bytes.len());
                Ok(())
            });
            (bytes, head.is_ok())
        });
        while heard.recv_timeout(NOTICED).unwrap() < 4 * CHUNK {}
        cluster.kill("node-0");
        let (bytes, looked_whole) = follower.join().unwrap();
        assert!(body(1, LENGTH).starts_with(&bytes), "{continues:?}: wrong bytes");
        assert_eq!(looked_whole, bytes.len() == LENGTH, "{continues:?}: {} bytes", bytes.len());
        let right = matches!(continues, Continues::Rightly | Continues::FromTheStart);
        assert_eq!(looked_whole, right, "{continues:?}: {:?}", origin.asked_for(target));
        if !looked_whole {
            assert_eq!(cluster.metric("node-1", "shoal_store_objects"), 0.0, "{continues:?}");
        }
    });
    let asked = origin.asked_for(target);
    let rest = |asked: &Asked| asked.range.is_some_and(|(first, _)| first >= 4 * CHUNK);
    assert!(rest(&asked[1]), "{continues:?}: {asked:?}");
    if continues != Continues::Short {
        // Whoever comes now gets the version that the origin has.
        let changed = matches!(continues, Continues::OtherVersion | Continues::OtherRange);
        let version = if changed { 2 } else { 1 };
        let (bytes, looked_whole) = got(&mut cluster.edge(1), target);
        assert!(looked_whole && bytes == body(version, LENGTH), "{continues:?}");
    }
}

#[test]
fn a_lost_fill_is_continued_with_right_bytes_or_not_at_all() {
    let _turn = turn();
    taken_over(Continues::Rightly);
    taken_over(Continues::FromTheStart);
    taken_over(Continues::OtherVersion);
    taken_over(Continues::OtherRange);
    taken_over(Continues::Elsewhere);
    taken_over(Continues::Short);
}
