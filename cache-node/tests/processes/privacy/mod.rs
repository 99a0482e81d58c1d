//! What clients ask and who they are is nobody's business but their node's and the origin's. A
//! cluster at work is asked in every way with words that stand nowhere else: in path and query,
//! cookie, `Authorization`, user agent, and the client's own address. Then every file of every
//! member, before and after its stop, every log, every admin page, and every message between
//! members is searched for them, as they are, percent-decoded, in hexadecimal and in base64.
//!
//! The members talk in plain text here (`insecure`), through a tap that takes HTTP/2 apart. Files
//! are searched at work too, while RocksDB's logs still hold everything uncompressed.

mod canaries;
mod tap;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::canaries::{AGENT, CLIENT, COOKIE, FORWARDED, PATH, QUERY, Search, TOKEN};
use self::tap::Tap;
use crate::common::{Client, Origin, Process, free_base_port, run, shoal, turn, until};

const READY_DEADLINE: Duration = Duration::from_secs(90);
/// Where members say that they are: the tap listens there.
const TAPPED: &str = "127.77.1.1";
const SUPERS: usize = 3;
const NODES: usize = 3;

struct Cluster {
    folder: PathBuf,
    base: u16,
    origin: String,
}

impl Cluster {
    fn name(&self, i: usize) -> String {
        if i < SUPERS { format!("super-{i}") } else { format!("node-{}", i - SUPERS) }
    }

    fn port(&self, group: u16, i: usize) -> u16 {
        self.base + group + u16::try_from(i).unwrap()
    }

    fn admin(&self, i: usize) -> String {
        format!("http://127.0.0.1:{}", self.port(100, i))
    }

    /// From where the tap listens to where the member does.
    fn line(&self, i: usize) -> (SocketAddr, SocketAddr) {
        let at = |host: &str| format!("{host}:{}", self.port(200, i)).parse().unwrap();
        (at(TAPPED), at("127.0.0.1"))
    }

    fn config(&self, i: usize) -> String {
        let folder = self.folder.to_str().unwrap();
        let (name, super_node) = (self.name(i), i < SUPERS);
        let role = if super_node { "super" } else { "node" };
        let seeds: Vec<_> = (0..SUPERS).map(|i| format!("\"{}\"", self.line(i).0)).collect();
        let mut text = format!(
            "[node]\nname = {name:?}\nrole = {role:?}\ndata_dir = \"{folder}/data/{name}\"\n\
             advertise = {TAPPED:?}\n\
             [cluster]\nid = \"private\"\nlisten = \"{}\"\nsuper_nodes = [{}]\nbootstrap = {}\n\
             secret_file = \"{folder}/secret\"\ninsecure = true\n\
             [admin]\nlisten = \"127.0.0.1:{}\"\n\
             tokens = [{{ name = \"test\", file = \"{folder}/token\", scopes = [\"*\"] }}]\n",
            self.line(i).1,
            seeds.join(", "),
            i == 0,
            self.port(100, i),
        );
        if !super_node {
            text.push_str(&format!(
                "[edge]\nlisten = \"127.0.0.1:{}\"\n[store]\nbudget = \"64MiB\"\n\
                 [[site]]\nname = \"private-site\"\nhosts = [\"127.0.0.1\"]\norigin = {:?}\n",
                self.port(0, i),
                self.origin,
            ));
        }
        text
    }

    fn start(&self, i: usize) -> Process {
        let config = self.folder.join(format!("{}.toml", self.name(i)));
        fs::write(&config, self.config(i)).unwrap();
        let number = fs::read_dir(self.folder.join("logs")).unwrap().count();
        let log = self.folder.join(format!("logs/{}-{number}.log", self.name(i)));
        let command = &mut shoal(&["node", "--config", config.to_str().unwrap()]);
        Process::start(command, &log)
    }

    fn until_ready(&self, members: std::ops::Range<usize>) {
        for i in members {
            until(&format!("{} is ready", self.name(i)), READY_DEADLINE, || {
                let reply = Client::new(&self.admin(i)).get("/readyz").ok()?;
                (reply.head.status == 200).then_some(())
            });
        }
    }

    fn until_mode(&self, mode: &str) {
        for i in SUPERS..SUPERS + NODES {
            until(&format!("{} is in mode {mode}", self.name(i)), READY_DEADLINE, || {
                let reply = Client::new(&self.admin(i)).get("/status").ok()?;
                let status: Value = serde_json::from_slice(&reply.body).ok()?;
                (status["mode"]["name"] == mode).then_some(())
            });
        }
    }

    /// Sends a request from the client's own address and reads the whole answer.
    fn ask(&self, node: usize, method: &str, target: &str, extra: &str) -> String {
        let port = self.port(0, SUPERS + node);
        let text = format!(
            "{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
             Cookie: session={COOKIE}\r\nUser-Agent: {AGENT}\r\nX-Forwarded-For: {FORWARDED}\r\n\
             {extra}\r\n"
        );
        let answer = async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(format!("{CLIENT}:0").parse().unwrap()).unwrap();
            let to = format!("127.0.0.1:{port}").parse().unwrap();
            let mut stream = socket.connect(to).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            String::from_utf8_lossy(&answer).into_owned()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(answer)
    }

    /// Everything that a client may do, on both nodes, under paths that `tag` tells apart.
    fn ask_all(&self, tag: &str) {
        let path = format!("{PATH}-{tag}?{QUERY}");
        let large = format!("/o/3000000{}-{tag}?{QUERY}", &PATH[7..]);
        let basic = format!("Authorization: Bearer {TOKEN}\r\n");
        for node in [0, 1, 2, 0] {
            for target in [&path, &large] {
                let answer = self.ask(node, "GET", target, "");
                assert!(answer.starts_with("HTTP/1.1 200"), "{target}: {}", &answer[..40]);
            }
            self.ask(node, "HEAD", &path, "");
            self.ask(node, "GET", &path, "Range: bytes=5-9\r\n");
            self.ask(node, "GET", &path, "If-None-Match: \"cnryToken4c1e\"\r\n");
            self.ask(node, "GET", &format!("{path}&private=1"), &basic);
            self.ask(node, "GET", &format!("{path}&cc=no-store"), &basic);
            self.ask(node, "GET", &format!("{path}&status=503"), "");
            self.ask(node, "GET", &format!("{path}&cut=100"), "");
            self.ask(node, "NONSENSE\u{1}", &path, "");
            self.ask(node, "GET", &path, &format!("Host: {TOKEN}\r\n"));
        }
        self.ask(1, "DELETE", &path, "");
        self.ask(0, "GET", &path, "");
    }

    fn purge(&self, tag: &str) {
        let url = format!("http://127.0.0.1:{}{PATH}-{tag}?{QUERY}", self.port(0, SUPERS));
        let token = self.folder.join("token");
        let arguments = [
            "purge",
            &url,
            "--admin",
            &self.admin(SUPERS),
            "--token-file",
            token.to_str().unwrap(),
        ];
        let purged = run(&mut shoal(&arguments));
        assert_eq!(purged.code, Some(0), "{}", purged.errors);
    }

    /// What every member shows.
    fn pages(&self) -> Vec<(String, Vec<u8>)> {
        let mut pages = Vec::new();
        for i in 0..SUPERS + NODES {
            for page in ["/metrics", "/status", "/readyz", "/livez"] {
                let reply = Client::new(&self.admin(i)).get(page).unwrap();
                pages.push((format!("{}{page}", self.name(i)), reply.body));
            }
        }
        pages
    }
}

fn searched(search: &Search, cluster: &Cluster) {
    for (page, body) in cluster.pages() {
        assert_eq!(search.find(&body), [""; 0], "{page}");
    }
    let read = search.files(&cluster.folder.join("data"));
    assert!(read > 100_000, "only {read} bytes on disk");
    assert!(search.files(&cluster.folder.join("logs")) > 500, "hardly a line was logged");
}

fn set_up(folder: &Path, origin: &Origin) -> Cluster {
    fs::create_dir_all(folder.join("logs")).unwrap();
    fs::write(folder.join("secret"), "5e".repeat(32)).unwrap();
    fs::write(folder.join("token"), "70".repeat(32)).unwrap();
    let origin = origin.url().to_owned();
    Cluster { folder: folder.to_owned(), base: free_base_port(), origin }
}

#[test]
fn nothing_of_a_client_is_kept_told_or_shown() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let cluster = set_up(folder.path(), &origin);
    let lines: Vec<_> = (0..SUPERS + NODES).map(|i| cluster.line(i)).collect();
    let tap = Tap::start(&lines);
    let mut members: Vec<_> = (0..SUPERS + NODES).map(|i| cluster.start(i)).collect();
    cluster.until_ready(0..SUPERS + NODES);
    cluster.until_mode("super-node");
    cluster.ask_all("tier");
    cluster.purge("tier");

    // Without the tier nodes ask one another; then they tell the tier what they did.
    members.drain(..SUPERS).for_each(drop);
    cluster.until_mode("pure");
    cluster.ask_all("pure");
    members.extend((0..SUPERS).map(|i| cluster.start(i)));
    cluster.until_ready(0..SUPERS);
    cluster.until_mode("super-node");
    cluster.ask_all("again");

    let search = Search::new();
    let said = tap.said();
    for service in ["Index/Acquire", "Index/Publish", "Index/Announce", "Index/Purge"]
        .into_iter()
        .chain(["Peer/GetManifest", "Peer/TakeCopy", "Home/Acquire", "Raft/Append"])
    {
        let path = format!("/shoal.v1.{service}");
        let heard = said.windows(path.len()).any(|window| window == path.as_bytes());
        assert!(heard, "{service} was never heard");
    }
    assert_eq!(search.find(&said), [""; 0], "in {} bytes between members", said.len());
    searched(&search, &cluster);

    // An origin that is gone makes errors, which are logged; a stop flushes everything.
    assert!(origin.requests_for(&format!("{PATH}-tier?{QUERY}")) > 0);
    drop(origin);
    let gone = cluster.ask(0, "GET", &format!("{PATH}-gone?{QUERY}"), "");
    assert!(gone.starts_with("HTTP/1.1 502"), "{gone}");
    searched(&search, &cluster);
    members.iter_mut().for_each(Process::terminate);
    members.iter_mut().for_each(|member| assert!(member.wait(READY_DEADLINE).success()));
    search.files(&cluster.folder.join("data"));
    search.files(&cluster.folder.join("logs"));
    assert_eq!(search.find(&tap.said()), [""; 0]);
}
