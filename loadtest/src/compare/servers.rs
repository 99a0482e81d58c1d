//! The servers and their origin, as processes on chosen processors.
//!
//! Invariants: everything listens on loopback, in a folder of its own, and is gone when this is
//! dropped; no two of those measured run at once but for what they do by themselves.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    CompareError,
    configs::{self, Doors},
    plain::{Answer, Connection},
    results::{Name, Protocol},
};
use crate::{
    clock::Clock,
    process::{Process, find_program, usage},
    scenario::HttpScenario,
    tier::{
        TierError,
        setup::{self, UpOptions},
    },
};

/// For a server to answer for the first time.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks, in milliseconds.
const LOOK_EVERY_MS: u64 = 50;
/// Connections that a node lets in: more than stay idle.
const CONNECTIONS_MAX: u32 = 30_000;

/// A server that is measured.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: Name,
    pub(super) doors: Doors,
    process: Process,
    /// Keeps the index for a node.
    _beside: Option<Process>,
}

impl Server {
    /// Where clients that speak so connect to, and with which scheme; none where it does not.
    pub(super) fn url(&self, protocol: Protocol, path: &str) -> Option<String> {
        let (scheme, address) = match protocol {
            Protocol::Http1 => ("http", self.doors.http1),
            Protocol::Http2 => ("http", self.doors.http2),
            Protocol::Http1Tls | Protocol::Http2Tls => ("https", self.doors.tls?),
        };
        Some(format!("{scheme}://{address}{path}"))
    }

    /// What it and all processes that it has started have used.
    pub(super) fn usage(&self) -> usage::Usage {
        usage::of_tree(self.process.pid())
    }

    /// An answer of that length to come, asked for until it does.
    pub(super) async fn answers(&mut self, path: &str) -> Result<Answer, CompareError> {
        let address = self.doors.http1;
        wait_for(&mut self.process, address, path).await
    }
}

async fn wait_for(
    process: &mut Process,
    address: SocketAddr,
    path: &str,
) -> Result<Answer, CompareError> {
    let clock = Clock::start();
    loop {
        let answer = match Connection::open(address).await {
            Ok(mut connection) => connection.get(path).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) if answer.status == 200 => return Ok(answer),
            _ if process.ended().is_none() && clock.now() < READY_DEADLINE => {}
            failed => {
                let what = failed.map_or_else(
                    |error| error.to_string(),
                    |answer| format!("answers {path} with {}", answer.status),
                );
                return Err(CompareError::NotReady { what, said: process.log_tail() });
            }
        }
        tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
    }
}

/// Programs and places.
pub(super) struct Lab<'a> {
    pub(super) scenario: &'a HttpScenario,
    pub(super) folder: PathBuf,
    pub(super) origin: SocketAddr,
}

/// Everything that runs. nginx's workers outlive a master that is killed: it is to be stopped in
/// order, whatever happens.
#[derive(Default)]
pub(super) struct Running {
    origin: Option<Process>,
    pub(super) servers: Vec<Server>,
}

impl Running {
    /// Ends all of it.
    pub(super) async fn stop(self) -> Result<(), CompareError> {
        let mut stopped = Ok(());
        for server in self.servers {
            stopped = stopped.and(server.stop().await);
        }
        if let Some(mut origin) = self.origin {
            stopped = stopped.and(origin.stop().await.map_err(TierError::from).map_err(Into::into));
        }
        stopped
    }
}

/// Which processors servers and clients have.
pub(super) fn processors(scenario: &HttpScenario) -> Result<(String, String), CompareError> {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = scenario.cores;
    if all <= cores {
        return Err(CompareError::Processors { all, cores });
    }
    Ok((format!("0-{}", cores - 1), format!("{cores}-{}", all - 1)))
}

pub(super) fn program(name: &'static str) -> Result<PathBuf, CompareError> {
    let daemons =
        ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(|folder| Path::new(folder).join(name));
    let beside = daemons.into_iter().find(|path| path.is_file());
    find_program(name, None).or(beside).ok_or(CompareError::NoProgram(name))
}

/// A port that nobody has.
fn port() -> Result<SocketAddr, CompareError> {
    let address = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    Ok(address?)
}

impl<'a> Lab<'a> {
    /// Starts the origin over the files in `files` below `folder`.
    pub(super) async fn start(
        scenario: &'a HttpScenario,
        folder: &Path,
        (running, path): (&mut Running, &str),
    ) -> Result<Self, CompareError> {
        let listen = port()?;
        let own = folder.join("origin");
        std::fs::create_dir_all(&own)?;
        let config = own.join("nginx.conf");
        std::fs::write(&config, configs::origin(&own, listen))?;
        std::fs::rename(folder.join("files"), own.join("files"))?;
        let (_, clients) = processors(scenario)?;
        let args = ["-c", &config.display().to_string()].map(str::to_owned);
        let process = pinned("origin", &clients, &program("nginx")?, &args, &own)?;
        wait_for(running.origin.insert(process), listen, path).await?;
        Ok(Self { scenario, folder: folder.to_owned(), origin: listen })
    }

    /// Starts a server, empty.
    pub(super) async fn server(&self, name: Name) -> Result<Server, CompareError> {
        match name {
            Name::Shoal => self.shoal().await,
            Name::Nginx => self.nginx(),
            Name::Varnish => self.varnish(),
        }
    }

    fn doors(&self) -> Result<Doors, CompareError> {
        let tls = if self.scenario.tls { Some(port()?) } else { None };
        Ok(Doors { http1: port()?, http2: port()?, tls })
    }

    fn own(&self, name: Name) -> Result<PathBuf, CompareError> {
        let own = self.folder.join(name.text());
        if own.exists() {
            std::fs::remove_dir_all(&own)?;
        }
        std::fs::create_dir_all(&own)?;
        Ok(own)
    }

    fn nginx(&self) -> Result<Server, CompareError> {
        let (own, doors) = (self.own(Name::Nginx)?, self.doors()?);
        let config = own.join("nginx.conf");
        let cores = self.scenario.cores;
        std::fs::write(&config, configs::cache(&own, &doors, self.origin, cores))?;
        let args = ["-c", &config.display().to_string()].map(str::to_owned);
        self.run(Name::Nginx, doors, (&program("nginx")?, &args, &own))
    }

    fn varnish(&self) -> Result<Server, CompareError> {
        let own = self.own(Name::Varnish)?;
        let doors = self.doors()?;
        // One door for both protocols, and none for TLS.
        let doors = Doors { http2: doors.http1, tls: None, ..doors };
        let config = own.join("cache.vcl");
        std::fs::write(&config, configs::vcl(self.origin))?;
        let args = [
            "-F".to_owned(),
            "-j".to_owned(),
            "none".to_owned(),
            format!("-n{}", own.join("work").display()),
            format!("-a{}", doors.http1),
            format!("-f{}", config.display()),
            "-smalloc,1g".to_owned(),
            "-pfeature=+http2".to_owned(),
        ];
        self.run(Name::Varnish, doors, (&program("varnishd")?, &args, &own))
    }

    async fn shoal(&self) -> Result<Server, CompareError> {
        let own = self.own(Name::Shoal)?;
        let program = find_program("shoal", self.scenario.shoal.as_deref());
        let program = program.ok_or(TierError::NoProgram)?;
        let up = UpOptions {
            program: program.clone(),
            folder: own.clone(),
            super_nodes: 1,
            nodes: 1,
            origin: Some(format!("http://{}", self.origin)),
            insecure: false,
            more: Vec::new(),
        };
        let facts = setup::up(&up).await?;
        let (_, clients) = processors(self.scenario)?;
        let config = |name: &str| own.join("tier").join(name).join("config.toml");
        let args = |name: &str| {
            let config = format!("--config={}", config(name).display());
            vec!["node".to_owned(), "--exit-with-parent".to_owned(), config]
        };
        let mut beside = None;
        for member in &facts.super_nodes {
            beside = Some(pinned(&member.name, &clients, &program, &args(&member.name), &own)?);
        }
        let name = facts.nodes.first().map_or("node-0", |node| node.name.as_str());
        let doors = self.doors()?;
        let doors = Doors { http2: doors.http1, ..doors };
        let mut args = args(name);
        args.push(format!("--edge-listen={}", doors.http1));
        args.push(format!("--connections-max={CONNECTIONS_MAX}"));
        if let Some(tls) = doors.tls {
            args.push(format!("--edge-tls-listen={tls}"));
            args.push(format!("--edge-tls-cert={}", self.folder.join("cert.pem").display()));
            args.push(format!("--edge-tls-key={}", self.folder.join("key.pem").display()));
        }
        let mut server = self.run(Name::Shoal, doors, (&program, &args, &own))?;
        server._beside = beside;
        Ok(server)
    }

    fn run(
        &self,
        name: Name,
        doors: Doors,
        (program, args, own): (&Path, &[String], &Path),
    ) -> Result<Server, CompareError> {
        let (servers, _) = processors(self.scenario)?;
        let process = pinned(name.text(), &servers, program, args, own)?;
        Ok(Server { name, doors, process, _beside: None })
    }
}

impl Server {
    /// Ends it.
    pub(super) async fn stop(mut self) -> Result<(), CompareError> {
        self.process.stop().await.map_err(TierError::from)?;
        if let Some(mut beside) = self._beside {
            beside.stop().await.map_err(TierError::from)?;
        }
        Ok(())
    }
}

/// Starts a program on those processors; its log is in `own`.
fn pinned(
    name: &str,
    processors: &str,
    program: &Path,
    args: &[String],
    own: &Path,
) -> Result<Process, CompareError> {
    let taskset = self::program("taskset")?;
    let before = ["-c".to_owned(), processors.to_owned(), program.display().to_string()];
    let args: Vec<String> = before.into_iter().chain(args.iter().cloned()).collect();
    let log = own.join(format!("{name}.log"));
    Ok(Process::start(name, &taskset, &args, &log, false).map_err(TierError::from)?)
}

impl From<io::Error> for CompareError {
    fn from(source: io::Error) -> Self {
        Self::Folder(source)
    }
}
