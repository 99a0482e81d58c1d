//! What all process tests share. Every process is stopped when its guard goes out of scope.

mod browser;
mod cluster;
mod http;
mod origin;
mod process;
mod scripted;
mod versions;

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) use browser::Browser;
pub(crate) use cluster::{Cluster, Setup};
pub(crate) use http::{Client, Head, Reply};
pub(crate) use origin::Origin;
pub(crate) use process::{Finished, Paused, Process, run, shoal, until};
pub(crate) use scripted::{Asked, Scripted, Then, trickle};
pub(crate) use versions::{Versions, version_of};

/// From a cluster's base port to the last port it takes.
const CLUSTER_PORTS: u16 = 510;

static TURN: Mutex<()> = Mutex::new(());

/// Waits until no other test of this program has a cluster.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The binary of that name, built into the same folder as `shoal`.
pub(crate) fn binary(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_BIN_EXE_shoal")).with_file_name(name);
    assert!(path.exists(), "{} is missing: cargo build --workspace", path.display());
    path
}

/// Holds a port of the loopback for as long as the listener lives.
pub(crate) fn take_port(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    take_port(0).unwrap().local_addr().unwrap().port()
}

/// A base port with every port free that `shoal up` derives from it, below the ports that the
/// system gives to outgoing connections. Processes begin their search apart from one another.
pub(crate) fn free_base_port() -> u16 {
    let bases: Vec<u16> = (20_000..32_000 - CLUSTER_PORTS).step_by(10).collect();
    let start = (std::process::id() as usize).wrapping_mul(53) % bases.len();
    let mut search = bases.iter().cycle().skip(start).take(bases.len());
    let free = |base: &u16| {
        let groups = [0, 100, 200, 300, 400, 500];
        groups.iter().all(|group| (0..5).all(|i| take_port(base + group + i).is_ok()))
    };
    *search.find(|base| free(base)).unwrap()
}
