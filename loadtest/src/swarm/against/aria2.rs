//! aria2 on every node. The origin's host has a seeder in place of an origin, which has all of the
//! object, and a tracker. As much can leave that host as leaves the origin for Shoal.
//!
//! Clients start before, told of the torrent and held back; at the barrier all are let go, and only
//! then ask the tracker for others. A node is done when aria2 has verified every piece; the files
//! are compared byte for byte after that.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use futures::future::join_all;

use super::{Ground, rpc::Rpc, torrent::Torrent};
use crate::{
    clock::Clock,
    process::Process,
    swarm::{
        SwarmError,
        clients::{self, ms},
        cluster::ORIGIN,
        results::Get,
    },
    tasks::Group,
    tier::TierError,
};

/// The client.
pub(super) const ARIA2: &str = "aria2c";
/// The tracker.
pub(super) const TRACKER: &str = "opentracker";
const TRACKER_PORT: u16 = 6969;
const PEER_PORT: u16 = 6881;
/// The object's file.
const NAME: &str = "object";
/// Bytes compared at a time.
const PIECE_BYTES: usize = 64 * 1024;
/// For aria2 to answer.
const STARTS: Duration = Duration::from_secs(60);
/// For the tracker to have heard of the seeder.
const SETTLES: Duration = Duration::from_secs(3);
/// Between two looks at a download, in milliseconds.
const LOOK_EVERY_MS: u64 = 100;

/// What aria2 got on every node, and what left the origin's host meanwhile.
pub(super) async fn run(ground: &Ground<'_>) -> Result<(Vec<Get>, u64), SwarmError> {
    let connections = Group::new();
    let (mut processes, torrent) = tracker_and_seeder(ground, &connections).await?;
    for place in &ground.places {
        let folder = ground.folder.join(&place.name);
        let args = [vec!["--pause=true".to_owned()], options(&folder, &torrent)].concat();
        processes.push(ground.run(&place.name, ARIA2, args)?);
    }
    let mut rpcs = Vec::new();
    for (place, process) in ground.places.iter().zip(&processes[2..]) {
        rpcs.push(answers(&place.space, process, &connections).await?);
    }
    tokio::time::sleep(SETTLES).await;
    let before = ground.sent();
    let clock = Clock::start();
    let downloads = ground.places.iter().zip(rpcs).map(async |(place, rpc)| {
        let ended = download(rpc, ground, clock).await;
        let elapsed_ms = ms(clock.now());
        let failure = ended.err();
        let (node, zone) = (place.name.clone(), place.zone);
        Get { node, zone, elapsed_ms, failure, ..Get::default() }
    });
    let mut gets = join_all(downloads).await;
    let sent = ground.sent().saturating_sub(before);
    connections.abort();
    for process in &mut processes {
        process.kill().await.map_err(TierError::from)?;
    }
    let right = ground.folder.join(ORIGIN).join(NAME);
    for get in gets.iter_mut().filter(|get| get.failure.is_none()) {
        let same = same(&right, &ground.folder.join(&get.node).join(NAME));
        get.failure = same.map_err(|error| error.to_string()).err();
    }
    Ok((gets, sent))
}

/// Starts both; the torrent's place.
async fn tracker_and_seeder(
    ground: &Ground<'_>,
    connections: &Group,
) -> Result<(Vec<Process>, PathBuf), SwarmError> {
    let (space, address) = ground.origin()?;
    let folder = ground.folder.join(ORIGIN);
    std::fs::create_dir_all(&folder)?;
    let path = format!("/o/{}/torrent", ground.scenario.size_bytes);
    clients::write_body(&path, BufWriter::new(File::create(folder.join(NAME))?))?;
    let url = format!("http://{address}:{TRACKER_PORT}/announce");
    let body = BufReader::new(File::open(folder.join(NAME))?);
    let torrent = Torrent::of(body, NAME, &url)?;
    let at = ground.folder.join("object.torrent");
    std::fs::write(&at, &torrent.file)?;
    // It gives up its rights and sees this folder alone.
    let jail = ground.folder.join("tracker");
    std::fs::create_dir_all(&jail)?;
    std::fs::write(jail.join("torrents"), format!("{}\n", torrent.info_hash))?;
    let port = TRACKER_PORT.to_string();
    let (address, jail) = (address.to_string(), jail.display().to_string());
    let args = ["-i", &address, "-p", &port, "-P", &port, "-d", &jail, "-w", "/torrents"];
    let tracker = ground.run(ORIGIN, TRACKER, args.map(str::to_owned).to_vec())?;
    let has_all = vec!["--bt-seed-unverified=true".to_owned()];
    let seeder = ground.run(ORIGIN, ARIA2, [has_all, options(&folder, &at)].concat())?;
    let mut rpc = answers(&space, &seeder, connections).await?;
    let clock = Clock::start();
    while rpc.completed().await?.ok() != Some(ground.scenario.size_bytes) {
        if clock.now() >= STARTS {
            let said = seeder.log_tail();
            return Err(SwarmError::NotReady { name: "aria2's seeder".to_owned(), said });
        }
        tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
    }
    Ok((vec![tracker, seeder], at))
}

/// Nothing that is not needed, nothing that limits.
fn options(folder: &Path, torrent: &Path) -> Vec<String> {
    let own = std::process::id();
    [
        "--no-conf=true",
        "--enable-rpc=true",
        &format!("--rpc-listen-port={}", super::rpc::PORT),
        &format!("--dir={}", folder.display()),
        &format!("--listen-port={PEER_PORT}"),
        &format!("--stop-with-process={own}"),
        "--disable-ipv6=true",
        "--enable-dht=false",
        "--bt-enable-lpd=false",
        "--enable-peer-exchange=true",
        "--bt-max-peers=0",
        "--seed-ratio=0.0",
        "--file-allocation=none",
        "--allow-overwrite=true",
        "--auto-save-interval=0",
        "--summary-interval=0",
        "--show-console-readout=false",
        "--console-log-level=warn",
        &torrent.display().to_string(),
    ]
    .map(str::to_owned)
    .to_vec()
}

/// A connection to an aria2 that answers.
async fn answers(space: &str, process: &Process, connections: &Group) -> Result<Rpc, SwarmError> {
    let clock = Clock::start();
    loop {
        match Rpc::connect(space, connections).await {
            Ok(rpc) => return Ok(rpc),
            Err(_) if clock.now() < STARTS => {
                tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
            }
            Err(_) => {
                let said = process.log_tail();
                return Err(SwarmError::NotReady { name: ARIA2.to_owned(), said });
            }
        }
    }
}

/// Lets it go and waits until all is there.
async fn download(mut rpc: Rpc, ground: &Ground<'_>, clock: Clock) -> Result<(), String> {
    rpc.unpause().await.map_err(|error| error.to_string())?;
    let limit = ground.scenario.limit();
    while clock.now() < limit {
        if rpc.completed().await.map_err(|error| error.to_string())?? == ground.scenario.size_bytes
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
    }
    Err(format!("not whole within {} s", limit.as_secs()))
}

/// An error unless both files hold the same.
fn same(right: &Path, other: &Path) -> io::Result<()> {
    let (mut right, mut other) = (File::open(right)?, File::open(other)?);
    if right.metadata()?.len() != other.metadata()?.len() {
        return Err(io::Error::other("its file has another length"));
    }
    let (mut wanted, mut found) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    loop {
        let read = right.read(&mut wanted)?;
        if read == 0 {
            return Ok(());
        }
        other.read_exact(&mut found[..read])?;
        if wanted[..read] != found[..read] {
            return Err(io::Error::other("its file holds other bytes"));
        }
    }
}
