//! The main job on real input: a real nginx with thousands of real files and a few of over 100 MB,
//! fetched through every node of a cluster, compared byte by byte, each leaving nginx once.
//!
//! `SHOAL_NGINX_FILES` sets how many small files are fetched; `all` takes the whole tree.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use crate::common::{Client, Process, Setup, free_port, turn, until};

/// Small files that are fetched unless the variable says otherwise.
const FILES_DEFAULT: usize = 2_000;
/// A tree with fewer files is not what this test is about.
const FILES_MIN: usize = 1_000;
/// A large file has more bytes than this.
const LARGE_BYTES_MIN: u64 = 100_000_000;
/// Clients that fetch at the same time.
const CLIENTS: usize = 4;
/// For nginx to listen, and for its log to be written.
const NGINX_DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn each_file_leaves_nginx_once() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let (tree, small) = small_files();
    let large = large_files(&folder.path().join("large"));
    let nginx = Nginx::start(folder.path(), &tree);
    let cluster = Setup::new(&folder.path().join("cluster"), &nginx.url).members(3, 3).start();
    let (one_by_one, all_at_once) = large.split_at(1);

    let one_by_one = [&small[..], one_by_one].concat();
    for node in 0..3 {
        let bytes = fetch_all(cluster.edge_url(node), &one_by_one);
        println!("node-{node}: {} files, {bytes} bytes, as the originals", one_by_one.len());
    }
    std::thread::scope(|scope| {
        for node in 0..3 {
            let edge = cluster.edge_url(node);
            scope.spawn(move || fetch_all(edge, all_at_once));
        }
    });
    part_of(&mut cluster.edge(2), &all_at_once[0]);

    let expected = one_by_one.len() + all_at_once.len();
    let log = nginx.log_of(expected);
    let twice: Vec<_> = log.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "more than once: {twice:?}");
    let asked = one_by_one.iter().chain(all_at_once).map(|page| format!("GET {} 200", page.target));
    let missing: Vec<_> = asked.filter(|line| !log.contains_key(line)).collect();
    assert!(missing.is_empty() && log.len() == expected, "{} lines: {missing:?}", log.len());
    for node in ["node-1", "node-2"] {
        assert!(cluster.metric(node, "shoal_peer_bytes_total") > 0.0, "{node} asked no peer");
    }
    println!("{expected} files of {}, each once in nginx's log", tree.display());
    assert!(cluster.stop().success());
}

/// A file and how it is asked for.
#[derive(Clone, Debug)]
struct Page {
    file: PathBuf,
    target: String,
}

impl Page {
    fn new(file: PathBuf, below: &Path, prefix: &str) -> Self {
        let inside = file.strip_prefix(below).unwrap().to_str().unwrap().to_owned();
        Self { file, target: format!("{prefix}{}", percent_encoded(&inside)) }
    }
}

/// All but letters, digits, `/` and the marks that RFC 3986 calls unreserved.
fn percent_encoded(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let encode =
        |byte: u8| if plain(byte) { char::from(byte).into() } else { format!("%{byte:02X}") };
    path.bytes().map(encode).collect()
}

/// The toolchain's own documentation or, where it is not installed, the sources of the crates that
/// this workspace is built from; evenly spread files of it.
fn small_files() -> (PathBuf, Vec<Page>) {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo"))).unwrap();
    let trees = [sysroot().join("share/doc/rust/html"), home.join("registry/src")];
    let walked = trees.into_iter().map(|tree| {
        let mut files = Vec::new();
        walk(&tree, &mut files);
        files.sort();
        (tree, files)
    });
    let (tree, files) = walked.into_iter().find(|(_, files)| files.len() >= FILES_MIN).unwrap();
    let wanted = match std::env::var("SHOAL_NGINX_FILES").ok().as_deref() {
        Some("all") => files.len(),
        Some(count) => count.parse().unwrap(),
        None => FILES_DEFAULT,
    };
    let step = files.len().div_ceil(wanted.max(1)).max(1);
    let chosen = files.into_iter().step_by(step);
    let pages = chosen.map(|file| Page::new(file, &tree, "/")).collect();
    (tree, pages)
}

fn sysroot() -> PathBuf {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(["--print", "sysroot"]).output().unwrap();
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.map_while(Result::ok) {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&path, files),
            // nginx answers 403 for what its user may not read.
            Ok(kind) if kind.is_file() && path.to_str().is_some() => files.push(path),
            _ => {}
        }
    }
}

/// The compiler's own libraries of over 100 MB, and the standard library's archives put together.
fn large_files(folder: &Path) -> Vec<Page> {
    fs::create_dir_all(folder).unwrap();
    let mut files = Vec::new();
    walk(&sysroot().join("lib"), &mut files);
    files.sort();
    let size = |file: &PathBuf| fs::metadata(file).map_or(0, |meta| meta.len());
    let (large, others): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|file| size(file) > LARGE_BYTES_MIN);
    for file in &large {
        symlink(file, folder.join(file.file_name().unwrap())).unwrap();
    }
    let mut together = File::create(folder.join("archives.bin")).unwrap();
    let mut written = 0;
    for file in
        others.iter().filter(|file| file.extension().is_some_and(|end| end == "rlib")).cycle()
    {
        written += io::copy(&mut File::open(file).unwrap(), &mut together).unwrap();
        if written > LARGE_BYTES_MIN {
            break;
        }
    }
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> = names.map(|file| Page::new(file, folder, "/large/")).collect();
    pages.sort_by(|a, b| a.target.cmp(&b.target));
    assert!(pages.len() >= 2, "{pages:?}");
    pages
}

/// Fetches every page from one edge with several clients at once; the bytes that came.
fn fetch_all(edge: &str, pages: &[Page]) -> u64 {
    let next = AtomicUsize::new(0);
    let found = Mutex::new((0, Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Client::new(edge);
                while let Some(page) = pages.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let compared = compare(&mut client, page);
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    match compared {
                        Ok(bytes) => found.0 += bytes,
                        Err(error) => found.1.push(format!("{}: {error}", page.target)),
                    }
                }
            });
        }
    });
    let (bytes, wrong) = found.into_inner().unwrap();
    assert!(wrong.is_empty(), "{edge}: {} wrong:\n{}", wrong.len(), wrong.join("\n"));
    bytes
}

fn compare(client: &mut Client, page: &Page) -> io::Result<u64> {
    let mut original = File::open(&page.file)?;
    let mut expected = Vec::new();
    let mut at = 0;
    let head = client.stream("GET", &page.target, &[], &mut |piece| {
        expected.resize(piece.len(), 0);
        original.read_exact(&mut expected)?;
        if expected != piece {
            return Err(io::Error::other(format!("differs within {} bytes of {at}", piece.len())));
        }
        at += piece.len() as u64;
        Ok(())
    })?;
    let length = original.metadata()?.len();
    if head.status != 200 || at != length {
        return Err(io::Error::other(format!("status {}, {at} of {length} bytes", head.status)));
    }
    Ok(at)
}

/// A range in the middle of a large page is what stands there.
fn part_of(client: &mut Client, page: &Page) {
    let (first, last) = (LARGE_BYTES_MIN - 1_000, LARGE_BYTES_MIN - 1);
    let range = format!("bytes={first}-{last}");
    let reply = client.request("GET", &page.target, &[("Range", &range)]).unwrap();
    assert_eq!(reply.head.status, 206);
    let length = fs::metadata(&page.file).unwrap().len();
    assert_eq!(reply.head.header("content-range"), format!("bytes {first}-{last}/{length}"));
    let original = File::open(&page.file).unwrap();
    let mut expected = vec![0; reply.body.len()];
    std::os::unix::fs::FileExt::read_exact_at(&original, &mut expected, first).unwrap();
    assert!(reply.body.len() == 1_000 && reply.body == expected, "another part came");
}

/// A running nginx.
struct Nginx {
    url: String,
    log: PathBuf,
    _process: Process,
    _scratch: TempDir,
}

impl Nginx {
    /// Serves `tree` at `/` and `folder`'s `large/` at `/large/`, fresh for an hour.
    fn start(folder: &Path, tree: &Path) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let at = scratch.path();
        let port = free_port();
        let (own, large) = (at.display(), folder.join("large"));
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("    {kind}_temp_path {own}/{kind};\n"));
        let config = format!(
            "daemon off;\nmaster_process off;\npid {own}/pid;\nerror_log {own}/error.log warn;\n\
             events {{ worker_connections 512; }}\n\
             http {{\n{}\
             \x20   types {{ text/html html; text/css css; image/svg+xml svg; }}\n\
             \x20   default_type application/octet-stream;\n\
             \x20   log_format one '$request_method $request_uri $status';\n\
             \x20   access_log {own}/access.log one;\n\
             \x20   sendfile on;\n    etag on;\n    expires 1h;\n\
             \x20   server {{\n        listen 127.0.0.1:{port};\n\
             \x20       location / {{ root \"{}\"; }}\n\
             \x20       location /large/ {{ alias \"{}/\"; }}\n\
             \x20   }}\n}}\n",
            temporary.concat(),
            tree.display(),
            large.display(),
        );
        let file = at.join("nginx.conf");
        File::create(&file).unwrap().write_all(config.as_bytes()).unwrap();
        let mut command = Command::new(program());
        command.arg("-p").arg(at).arg("-c").arg(&file).arg("-e").arg("stderr");
        let mut process = Process::start(&mut command, &at.join("said.log"));
        let url = format!("http://127.0.0.1:{port}");
        until("nginx listens", NGINX_DEADLINE, || {
            assert!(!process.has_ended(), "nginx: {}", process.last_words());
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self { url, log: at.join("access.log"), _process: process, _scratch: scratch }
    }

    /// How often each line stands in the access log, once it has `expected` lines: nginx writes
    /// one after the last byte of its response has left.
    fn log_of(&self, expected: usize) -> BTreeMap<String, usize> {
        until("the access log is written", NGINX_DEADLINE, || {
            let text = fs::read_to_string(&self.log).unwrap();
            let mut lines = BTreeMap::new();
            for line in text.lines() {
                *lines.entry(line.to_owned()).or_insert(0) += 1;
            }
            (text.lines().count() >= expected).then_some(lines)
        })
    }
}

/// nginx stands where an ordinary user's PATH does not look.
fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let mut found = folders.map(|folder| folder.join("nginx")).filter(|file| file.exists());
    found.next().unwrap_or_else(|| panic!("nginx is missing: ci/deps.sh"))
}

#[test]
fn odd_names_are_encoded() {
    assert_eq!(percent_encoded("std/macro.is!.html"), "std/macro.is%21.html");
    assert_eq!(percent_encoded("a b/\u{e9}"), "a%20b/%C3%A9");
}

#[test]
fn a_wrong_byte_would_be_seen() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("large")).unwrap();
    let original = folder.path().join("page");
    fs::write(&original, "as it is").unwrap();
    let nginx = Nginx::start(folder.path(), folder.path());
    let page = |file: &Path| Page { file: file.to_owned(), target: "/page".to_owned() };
    let mut client = Client::new(&nginx.url);
    assert_eq!(compare(&mut client, &page(&original)).unwrap(), 8);
    for other in ["as it iS", "as it", "as it is not"] {
        let changed = folder.path().join("changed");
        fs::write(&changed, other).unwrap();
        assert!(compare(&mut client, &page(&changed)).is_err(), "{other}");
    }
    assert_eq!(nginx.log_of(4), BTreeMap::from([("GET /page 200".to_owned(), 4)]));
}
