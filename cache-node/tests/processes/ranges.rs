//! Ranges of large objects that nobody has yet, or that others have: what is asked for comes, and
//! no more; each byte leaves the origin once, and whoever asks for all of it gets all of it.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tempfile::TempDir;

use crate::common::{Asked, Client, Cluster, Reply, Scripted, Setup, Then, turn, until};

const MIB: usize = 1024 * 1024;
/// For a copy to be taken.
const NOTICED: Duration = Duration::from_secs(20);
const LARGE: usize = 12 * MIB + 777;
const SMALL: usize = 3 * MIB + 5;

/// The bytes of a version of an object.
fn body(version: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 5) as u8 ^ (at >> 13) as u8 ^ version.wrapping_mul(73)).collect()
}

/// What an origin does with ranges.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Right,
    /// Some three million bytes a second on each connection.
    RightSlowly,
    /// All of it, whatever was asked for.
    IgnoresRange,
    /// Its validator is weak.
    Weak,
    /// It has none.
    NoValidator,
    /// The range next to the one that was asked for.
    Elsewhere,
    /// Another length of the whole at each answer.
    LiesAboutTheWhole,
    /// Less than it says.
    Short,
    /// `416` to every range.
    Refuses,
    /// Ranges may not be stored.
    Private,
}

struct Origin {
    scripted: Scripted,
    sent: Arc<AtomicU64>,
    version: Arc<AtomicU8>,
}

impl Origin {
    fn start(does: Does, length: usize) -> Self {
        let (sent, version) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU8::new(1)));
        let (counted, now) = (sent.clone(), version.clone());
        let bodies = [body(1, length), body(2, length)];
        let scripted = Scripted::start(move |asked, out| {
            let version = now.load(Ordering::Relaxed);
            let whole = &bodies[usize::from(version) - 1];
            does.answer((asked, version), whole, out, &counted)
        });
        Self { scripted, sent, version }
    }

    /// Bytes of bodies sent so far.
    fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed) as usize
    }
}

impl Does {
    fn answer(
        self,
        (asked, version): (&Asked, u8),
        whole: &[u8],
        out: &mut TcpStream,
        sent: &AtomicU64,
    ) -> std::io::Result<Then> {
        let length = whole.len();
        let tag = match self {
            Self::Weak => format!("etag: W/\"v{version}\"\r\n"),
            Self::NoValidator => String::new(),
            _ => format!("etag: \"v{version}\"\r\n"),
        };
        let ranged = asked.range.filter(|_| self != Self::IgnoresRange);
        let mut fresh = "cache-control: max-age=3600\r\n";
        let Some((first, last)) = ranged else {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n{tag}{fresh}\r\n");
            out.write_all(head.as_bytes())?;
            return self.send(out, whole, sent);
        };
        if self == Self::Refuses || first >= length {
            let head = "HTTP/1.1 416 No\r\ncontent-length: 0\r\n";
            out.write_all(format!("{head}content-range: bytes */{length}\r\n\r\n").as_bytes())?;
            return Ok(Then::Keep);
        }
        let first = if self == Self::Elsewhere && first > 0 { first - 1 } else { first };
        let end = (last.min(length - 1)) + 1;
        let total = if self == Self::LiesAboutTheWhole { length + asked.before } else { length };
        if self == Self::Private {
            fresh = "cache-control: private, max-age=3600\r\n";
        }
        let range = format!("content-range: bytes {first}-{}/{total}\r\n", end - 1);
        let size = format!("content-length: {}\r\n", end - first);
        let head = format!("HTTP/1.1 206 Partial Content\r\n{size}{range}{tag}{fresh}\r\n");
        out.write_all(head.as_bytes())?;
        let end = if self == Self::Short { end - 100 } else { end };
        let then = self.send(out, &whole[first..end], sent)?;
        Ok(if self == Self::Short { Then::Close } else { then })
    }

    fn send(self, out: &mut TcpStream, bytes: &[u8], sent: &AtomicU64) -> std::io::Result<Then> {
        for piece in bytes.chunks(64 * 1024) {
            if self == Self::RightSlowly {
                std::thread::sleep(Duration::from_millis(20));
            }
            out.write_all(piece)?;
            sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        Ok(Then::Keep)
    }
}

fn ranged(client: &mut Client, range: &str) -> std::io::Result<Reply> {
    client.request("GET", "/o", &[("range", range)])
}

/// A cluster before an origin, with a turn of its own.
struct Scene {
    _turn: MutexGuard<'static, ()>,
    origin: Origin,
    /// What the origin has at first.
    right: Vec<u8>,
    cluster: Cluster,
    _folder: TempDir,
}

impl Scene {
    fn start(does: Does, length: usize, nodes: usize) -> Self {
        Self::with((does, length), nodes, &[])
    }

    fn with((does, length): (Does, usize), nodes: usize, flags: &[&str]) -> Self {
        let turn = turn();
        let origin = Origin::start(does, length);
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup::new(folder.path(), origin.scripted.url()).members(1, nodes);
        let cluster = setup.flags(flags).start();
        Self { _turn: turn, origin, right: body(1, length), cluster, _folder: folder }
    }
}

/// What a right answer to that range is, or an error if one had to be.
fn assert_range(cluster: &Cluster, node: usize, range: std::ops::Range<usize>, right: &[u8]) {
    let text = format!("bytes={}-{}", range.start, range.end - 1);
    let reply = ranged(&mut cluster.edge(node), &text).unwrap();
    assert_eq!(reply.head.status, 206, "{text}");
    let said = format!("bytes {}-{}/{}", range.start, range.end - 1, right.len());
    assert_eq!(reply.head.header("content-range"), said);
    assert!(reply.body == right[range], "{text}: wrong bytes");
}

fn assert_whole(cluster: &Cluster, node: usize, right: &[u8]) {
    let reply = cluster.edge(node).get("/o").unwrap();
    assert_eq!(reply.head.status, 200);
    assert!(reply.body == right, "{} of {} bytes", reply.body.len(), right.len());
}

#[test]
fn a_range_of_a_large_object_that_nobody_has_brings_its_parts_alone() {
    let scene = Scene::start(Does::Right, LARGE, 2);
    let Scene { origin, right, cluster, .. } = &scene;

    assert_range(cluster, 0, 5 * MIB + 9..5 * MIB + 109, right);
    assert_eq!(origin.sent(), MIB, "the part that covers it");
    assert_range(cluster, 0, 5 * MIB + 50..5 * MIB + 90, right);
    assert_range(cluster, 1, 5 * MIB..6 * MIB, right);
    assert_eq!(origin.sent(), MIB, "another node has it");
    assert_range(cluster, 1, 6 * MIB - 5..7 * MIB + 5, right);
    assert_eq!(origin.sent(), 3 * MIB);
    assert_range(cluster, 0, LARGE - 10..LARGE, right);
    assert_eq!(origin.sent(), 3 * MIB + 777, "the last part is short");

    let head = cluster.edge(0).request("HEAD", "/o", &[]);
    // A `HEAD` has no body, which this client does not know: the length is in its error or head.
    if let Ok(reply) = head {
        assert_eq!(reply.head.header("content-length"), LARGE.to_string());
    }
    let reply = ranged(&mut cluster.edge(0), &format!("bytes={LARGE}-")).unwrap();
    assert_eq!((reply.head.status, reply.body.len()), (416, 0));
    let reply = ranged(&mut cluster.edge(1), "bytes=-20").unwrap();
    assert!(reply.head.status == 206 && reply.body == right[LARGE - 20..]);
    let reply = ranged(&mut cluster.edge(1), "bytes=0-3,2000000-2000003").unwrap();
    assert_eq!(reply.head.status, 206);
    assert!(reply.head.header("content-type").starts_with("multipart/byteranges"));
    let has = |wanted: &[u8]| reply.body.windows(wanted.len()).any(|seen| seen == wanted);
    assert!(has(&right[..4]) && has(&right[2_000_000..2_000_004]));
    assert_eq!(origin.sent(), 5 * MIB + 777);

    // Whoever wants all of it gets the rest from the origin, and the origin sends nothing twice.
    std::thread::scope(|scope| {
        for node in [0, 1, 0, 1] {
            let (cluster, right) = (&cluster, &right);
            scope.spawn(move || assert_whole(cluster, node, right));
        }
    });
    assert_eq!(origin.sent(), LARGE);
    assert_whole(cluster, 0, right);
    assert_range(cluster, 1, 0..LARGE, right);
    assert_eq!(origin.sent(), LARGE);
}

#[test]
fn many_who_ask_for_ranges_at_once_share_what_comes() {
    let scene = Scene::start(Does::Right, LARGE, 3);
    let Scene { origin, right, cluster, .. } = &scene;
    std::thread::scope(|scope| {
        for client in 0..12 {
            let (cluster, right) = (&cluster, &right);
            let from = 4 * MIB + client * 1000;
            scope.spawn(move || assert_range(cluster, client % 3, from..from + 2 * MIB, right));
        }
    });
    assert_eq!(origin.sent(), 3 * MIB, "three parts, each once");
}

#[test]
fn a_small_object_is_filled_whole_whatever_is_asked_for_of_it() {
    let scene = Scene::start(Does::Right, SMALL, 2);
    let Scene { origin, right, cluster, .. } = &scene;
    assert_range(cluster, 0, MIB + 5..MIB + 100, right);
    assert_whole(cluster, 0, right);
    assert_whole(cluster, 1, right);
    assert_range(cluster, 1, SMALL - 3..SMALL, right);
    assert_eq!(origin.sent(), SMALL, "each byte once");
}

/// The one of three nodes that has nothing of an object of which there are two copies, once the
/// index knows of them: until then it would follow the fill.
fn stranger(cluster: &Cluster) -> (usize, String) {
    let found = until("two nodes have it", NOTICED, || {
        let has =
            |node: &usize| cluster.metric(&format!("node-{node}"), "shoal_store_objects") > 0.0;
        let others: Vec<usize> = (0..3).filter(|node| !has(node)).collect();
        <[usize; 1]>::try_from(others).ok().map(|[other]| (other, format!("node-{other}")))
    });
    std::thread::sleep(Duration::from_millis(500));
    found
}

#[test]
fn chunks_come_from_who_has_the_whole() {
    let scene = Scene::start(Does::Right, LARGE, 3);
    let Scene { origin, right, cluster, .. } = &scene;
    assert_whole(cluster, 0, right);
    let (other, name) = stranger(cluster);
    assert_range(cluster, other, 5 * MIB + 9..5 * MIB + 109, right);
    assert_eq!(origin.sent(), LARGE);
    let stored = cluster.metric(&name, "shoal_store_bytes");
    assert!((1.0..2e6).contains(&stored), "{stored} bytes for a range");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert_whole(cluster, other, right));
        }
    });
    assert_eq!(origin.sent(), LARGE);
    assert!(cluster.metric(&name, "shoal_store_bytes") >= LARGE as f64);
    // All of it is here by now, and nobody else is needed.
    (0..3).filter(|node| *node != other).for_each(|node| cluster.kill(&format!("node-{node}")));
    assert_range(cluster, other, 0..LARGE, right);
    assert_eq!(origin.sent(), LARGE);
}

#[test]
fn what_nobody_else_has_any_more_comes_from_the_origin() {
    let scene = Scene::start(Does::Right, LARGE, 3);
    let Scene { origin, right, cluster, .. } = &scene;
    assert_whole(cluster, 0, right);
    let (other, _) = stranger(cluster);
    assert_range(cluster, other, 2 * MIB..2 * MIB + 10, right);
    (0..3).filter(|node| *node != other).for_each(|node| cluster.kill(&format!("node-{node}")));
    let before = origin.sent();
    assert_whole(cluster, other, right);
    let again = origin.sent() - before;
    assert!((1..LARGE).contains(&again), "{again} of {LARGE} bytes once more");
    assert_whole(cluster, other, right);
    assert_eq!(origin.sent(), before + again);
}

/// Right bytes, or an error that shows; and right bytes for whoever wants all of it.
#[test]
fn origins_that_do_ranges_wrong_spoil_nothing() {
    let _turn = turn();
    for does in [
        Does::IgnoresRange,
        Does::Weak,
        Does::NoValidator,
        Does::Elsewhere,
        Does::LiesAboutTheWhole,
        Does::Short,
        Does::Refuses,
        Does::Private,
    ] {
        let origin = Origin::start(does, LARGE);
        let folder = tempfile::tempdir().unwrap();
        let cluster = Setup::new(folder.path(), origin.scripted.url()).members(1, 2).start();
        let right = body(1, LARGE);
        let wanted = 5 * MIB + 9..8 * MIB + 109;
        for node in [0, 1, 0] {
            let text = format!("bytes={}-{}", wanted.start, wanted.end - 1);
            match ranged(&mut cluster.edge(node), &text) {
                Ok(reply) if reply.head.status == 206 => {
                    assert!(reply.body == right[wanted.clone()], "{does:?}: wrong bytes");
                }
                Ok(reply) if reply.head.status == 200 => {
                    assert!(reply.body == right, "{does:?}: wrong bytes");
                }
                Ok(reply) => assert!(reply.head.status >= 500, "{does:?}: {:?}", reply.head),
                Err(_) => {
                    assert!(matches!(does, Does::Short | Does::LiesAboutTheWhole), "{does:?}")
                }
            }
        }
        if does != Does::Short {
            assert_whole(&cluster, 1, &right);
        }
    }
}

#[test]
fn several_nodes_fill_one_object_together_where_a_site_says_so() {
    let scene = Scene::with((Does::RightSlowly, LARGE), 3, &["--site", "parts=\"all\""]);
    let Scene { origin, right, cluster, .. } = &scene;
    std::thread::scope(|scope| {
        for node in 0..3 {
            let (cluster, right) = (&cluster, &right);
            scope.spawn(move || assert_whole(cluster, node, right));
        }
    });
    assert_eq!(origin.sent(), LARGE, "each byte once");
    let asked = ["node-0", "node-1", "node-2"];
    let asked = asked.map(|node| cluster.metric(node, "shoal_origin_requests_total"));
    assert!(asked.iter().all(|asked| *asked >= 1.0), "not all of them helped: {asked:?}");
}

#[test]
fn a_site_may_keep_nothing_in_parts() {
    let scene = Scene::with((Does::Right, LARGE), 1, &["--site", "parts=\"off\""]);
    let Scene { origin, cluster, .. } = &scene;
    assert_range(cluster, 0, 5 * MIB..5 * MIB + 7, &body(1, LARGE));
    assert!(origin.scripted.asked_for("/o").iter().all(|asked| asked.range.is_none()));
}

#[test]
fn parts_of_two_versions_never_meet() {
    let scene = Scene::start(Does::Right, LARGE, 2);
    let Scene { origin, cluster, .. } = &scene;
    let (old, new) = (body(1, LARGE), body(2, LARGE));
    assert_range(cluster, 0, 5 * MIB..6 * MIB, &old);
    assert_range(cluster, 1, 6 * MIB..7 * MIB, &old);
    origin.version.store(2, Ordering::Relaxed);
    assert_range(cluster, 0, 5 * MIB..6 * MIB, &old);
    // The first part that is not here belongs to the new version, and so does all of the answer.
    assert_range(cluster, 0, 8 * MIB..10 * MIB, &new);
    assert_range(cluster, 0, 5 * MIB..6 * MIB, &new);
    // Here the answer had begun with the old one: it breaks off.
    match ranged(&mut cluster.edge(1), &format!("bytes={}-{}", 6 * MIB, 9 * MIB)) {
        Ok(reply) => assert!(reply.body == new[6 * MIB..=9 * MIB], "{:?}", reply.head),
        Err(error) => println!("broke off: {error}"),
    }
    assert_whole(cluster, 0, &new);
    assert_range(cluster, 0, 0..LARGE, &new);
}

#[test]
fn a_purge_reaches_every_part() {
    let scene = Scene::start(Does::Right, LARGE, 2);
    let Scene { origin, right, cluster, .. } = &scene;
    for node in [0, 1] {
        assert_range(cluster, node, 5 * MIB..7 * MIB, right);
    }
    assert_eq!(origin.sent(), 2 * MIB);
    // What a successful unsafe request changed is not served any more.
    let reply = cluster.edge(0).request("DELETE", "/o", &[("content-length", "0")]).unwrap();
    assert_eq!(reply.head.status, 200);
    let before = origin.sent();
    assert_range(cluster, 1, 5 * MIB..7 * MIB, right);
    assert_eq!(origin.sent() - before, 2 * MIB, "both parts anew");
}

#[test]
fn a_large_object_gives_way_in_part_and_is_whole_again_when_asked_for() {
    let _turn = turn();
    let (large, small) = (body(1, 70 * MIB), body(2, 3 * MIB));
    let sent = Arc::new(AtomicU64::new(0));
    let (bodies, counted) = ([large.clone(), small.clone()], sent.clone());
    let origin = Scripted::start(move |asked, out| {
        let whole = &bodies[usize::from(asked.target != "/o")];
        Does::Right.answer((asked, 1), whole, out, &counted)
    });
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--store-budget", "80MiB"];
    let cluster = Setup::new(folder.path(), origin.url()).members(1, 1).flags(&flags).start();
    assert_whole(&cluster, 0, &large);
    let kept = || cluster.metric("node-0", "shoal_store_bytes");
    for number in 0..6 {
        let reply = cluster.edge(0).get(&format!("/small/{number}")).unwrap();
        assert!(reply.body == small, "{number}: wrong bytes");
        assert!(kept() <= 80.0 * MIB as f64);
    }
    until("a part of it is gone", NOTICED, || {
        (cluster.metric("node-0", "shoal_store_parts_evicted_total") > 0.0).then_some(())
    });
    let before = sent.load(Ordering::Relaxed);
    assert_range(&cluster, 0, 0..MIB, &large);
    assert_eq!(sent.load(Ordering::Relaxed), before, "its beginning is here");
    assert_whole(&cluster, 0, &large);
    let again = sent.load(Ordering::Relaxed) - before;
    assert!((1..70 * MIB as u64).contains(&again), "{again} bytes once more");
    assert!(kept() <= 80.0 * MIB as f64);
}
