//! The benchmark of a node's edge beside other caches: the same objects, the same clients, the same
//! origin and the same processors, in one run.
//!
//! | file | purpose |
//! |---|---|
//! | `servers` | the processes |
//! | `configs` | what the others are told |
//! | `clients`, `parse` | the load generators, and what they say |
//! | `plain` | a client for warming up, first bytes and connections that stay |
//! | `results` | what it came to |
//! | `targets` | what it is to come to |

mod clients;
mod configs;
mod parse;
mod plain;
pub mod results;
mod servers;
pub mod targets;

use std::{
    io::{self, Write, stderr},
    path::Path,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::{
    rng::Rng,
    scenario::{HttpScenario, http::Rival},
    tier::TierError,
};
use plain::Connection;
use results::{Idle, Misses, Name, Paced, Protocol, Results, middle};
use servers::{Lab, Running, Server};

/// Requests for each object before anything is measured: what is hot has been asked for before.
const WARM_UPS: u32 = 3;
/// For memory to come to rest.
const REST: Duration = Duration::from_millis(1_500);
/// Length of what is asked for once, in bytes.
const MISS_BYTES: usize = 1 << 10;

/// Why nothing was measured.
#[derive(Debug, Error)]
pub enum CompareError {
    /// A program that is not there.
    #[error("{0} is not on PATH; `ci/deps.sh http` installs it on Debian")]
    NoProgram(&'static str),
    /// Nowhere for the clients.
    #[error("{all} processors are here, --cores {cores} leaves none for the clients")]
    Processors {
        /// How many there are.
        all: usize,
        /// How many a server gets.
        cores: usize,
    },
    /// No node.
    #[error(transparent)]
    Tier(#[from] TierError),
    /// A server that does not answer.
    #[error("a server does not answer: {what}; its log ends:\n{said}")]
    NotReady {
        /// What it does.
        what: String,
        /// The end of its log.
        said: String,
    },
    /// A server that answers wrongly.
    #[error("{server} sends other bytes than the origin has")]
    Wrong {
        /// Which.
        server: &'static str,
    },
    /// A client that failed.
    #[error("{what}\n{said}")]
    Client {
        /// What happened.
        what: String,
        /// What it said.
        said: String,
    },
    /// No certificate.
    #[error("a certificate cannot be made: {0}; this is a mistake in the benchmark")]
    Certificate(#[from] rcgen::Error),
    /// No place for files, or no connections.
    #[error("{0}; set TMPDIR to a folder that can be written to, and check `ulimit -n`")]
    Folder(io::Error),
}

/// The path of the hot object of that length.
fn path_of(object_bytes: u64) -> String {
    format!("/hot-{object_bytes}")
}

/// Runs everything that `scenario` asks for; all processes are gone when it returns, or when it is
/// dropped.
///
/// # Errors
/// When it cannot begin, or a server fails.
pub async fn bench(
    scenario: &HttpScenario,
    stop: &CancellationToken,
) -> Result<Results, CompareError> {
    let prefix = format!("shoal-http-{}-", std::process::id());
    let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
    let mut results = Results::default();
    let mut running = Running::default();
    let ended = tokio::select! {
        ended = measure(scenario, folder.path(), (&mut running, &mut results)) => ended,
        () = stop.cancelled() => {
            results.interrupted = true;
            Ok(())
        }
    };
    let stopped = running.stop().await;
    results.sum_up();
    ended.and(stopped).map(|()| results)
}

async fn measure(
    scenario: &HttpScenario,
    folder: &Path,
    (running, results): (&mut Running, &mut Results),
) -> Result<(), CompareError> {
    raise_limit();
    let hashes = files(scenario, &folder.join("files"))?;
    if scenario.tls {
        certificate(folder)?;
    }
    let smallest = scenario.objects.iter().copied().min().unwrap_or(1);
    let lab = Lab::start(scenario, folder, (&mut *running, &path_of(smallest))).await?;
    let names = names(scenario);
    let servers = &mut running.servers;
    for name in &names {
        say(&format!("{}: starting", name.text()));
        servers.push(lab.server(*name).await?);
        if let Some(server) = servers.last_mut() {
            idle(scenario, server, (smallest, &mut results.idle)).await?;
            warm(scenario, server, &hashes).await?;
        }
    }
    misses(scenario, &lab, (servers, &mut results.misses)).await?;
    let protocols = match scenario.tls {
        true => &[Protocol::Http1, Protocol::Http2, Protocol::Http1Tls, Protocol::Http2Tls][..],
        false => &[Protocol::Http1, Protocol::Http2],
    };
    let mut paced = Vec::new();
    for round in 1..=scenario.rounds {
        for protocol in protocols {
            for object in &scenario.objects {
                say(&format!("round {round}: {}, {object} bytes", protocol.text()));
                for server in servers.iter() {
                    let run = clients::load(scenario, server, (*protocol, *object), folder).await?;
                    results.runs.extend(run);
                }
            }
        }
        let rate = half_of_nginx(results, smallest);
        for server in servers.iter().filter(|_| rate > 0.0) {
            paced.push(clients::pace(scenario, server, (smallest, rate), folder).await?);
        }
    }
    results.paced = names.iter().filter_map(|name| medians(*name, &paced)).collect();
    Ok(())
}

fn names(scenario: &HttpScenario) -> Vec<Name> {
    let rivals = scenario.against.iter().map(|rival| match rival {
        Rival::Nginx => Name::Nginx,
        Rival::Varnish => Name::Varnish,
    });
    std::iter::once(Name::Shoal).chain(rivals).collect()
}

/// Half of the highest rate that nginx has come to; Shoal's where nginx is not there.
fn half_of_nginx(results: &Results, object_bytes: u64) -> f64 {
    let rate = |name| {
        let of = (name, Protocol::Http1, object_bytes);
        let runs = results.runs.iter();
        let runs = runs.filter(move |run| (run.server, run.protocol, run.object_bytes) == of);
        runs.map(|run| run.requests_per_s).fold(0.0, f64::max)
    };
    let nginx = rate(Name::Nginx);
    if nginx > 0.0 { nginx / 2.0 } else { rate(Name::Shoal) / 2.0 }
}

fn medians(server: Name, all: &[Paced]) -> Option<Paced> {
    let own: Vec<&Paced> = all.iter().filter(|paced| paced.server == server).collect();
    let median = |of: fn(&Paced) -> f64| middle(own.iter().map(|paced| of(paced)).collect());
    (!own.is_empty()).then(|| Paced {
        server,
        requests_per_s: median(|paced| paced.requests_per_s),
        p50_us: median(|paced| paced.p50_us as f64) as u64,
        p99_us: median(|paced| paced.p99_us as f64) as u64,
    })
}

/// Writes the origin's files; the hashes of the hot ones, in the scenario's order.
fn files(scenario: &HttpScenario, folder: &Path) -> Result<Vec<blake3::Hash>, CompareError> {
    std::fs::create_dir_all(folder)?;
    let mut rng = Rng::new(1, 0);
    let mut hashes = Vec::new();
    for object in &scenario.objects {
        let words = std::iter::repeat_with(|| rng.next_u64().to_le_bytes());
        let bytes: Vec<u8> = words.flatten().take(*object as usize).collect();
        hashes.push(blake3::hash(&bytes));
        std::fs::write(folder.join(&path_of(*object)[1..]), bytes)?;
    }
    for miss in 0..scenario.misses {
        std::fs::write(folder.join(format!("miss-{miss}")), vec![b'x'; MISS_BYTES])?;
    }
    Ok(hashes)
}

fn certificate(folder: &Path) -> Result<(), CompareError> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    std::fs::write(folder.join("cert.pem"), made.cert.pem())?;
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem())?;
    Ok(())
}

/// Every hot object has been asked for, and is what the origin has.
async fn warm(
    scenario: &HttpScenario,
    server: &mut Server,
    hashes: &[blake3::Hash],
) -> Result<(), CompareError> {
    for (object, hash) in scenario.objects.iter().zip(hashes) {
        for _ in 0..WARM_UPS {
            if server.answers(&path_of(*object)).await?.hash != *hash {
                return Err(CompareError::Wrong { server: server.name.text() });
            }
        }
    }
    Ok(())
}

/// Memory of a server that has just started, without and with connections that stay.
async fn idle(
    scenario: &HttpScenario,
    server: &mut Server,
    (object_bytes, idle): (u64, &mut Vec<Idle>),
) -> Result<(), CompareError> {
    let path = path_of(object_bytes);
    server.answers(&path).await?;
    if scenario.idle == 0 {
        return Ok(());
    }
    let rss_before_bytes = server.usage().rss_bytes;
    let mut connections = Vec::new();
    for _ in 0..scenario.idle {
        let mut connection = Connection::open(server.doors.http1).await?;
        connection.get(&path).await?;
        connections.push(connection);
    }
    tokio::time::sleep(REST).await;
    let rss_bytes = server.usage().rss_bytes;
    let (server, connections) = (server.name, scenario.idle);
    idle.push(Idle { server, connections, rss_before_bytes, rss_bytes });
    Ok(())
}

/// First bytes of what nobody has asked for, one after the other: from the origin alone, and through
/// each server. They take turns.
async fn misses(
    scenario: &HttpScenario,
    lab: &Lab<'_>,
    (servers, misses): (&[Server], &mut Vec<Misses>),
) -> Result<(), CompareError> {
    let mut ways = vec![(None, Connection::open(lab.origin).await?, Vec::new())];
    for server in servers {
        let connection = Connection::open(server.doors.http1).await?;
        ways.push((Some(server.name), connection, Vec::new()));
    }
    for miss in 0..scenario.misses {
        for (_, connection, times) in &mut ways {
            let answer = connection.get(&format!("/miss-{miss}")).await?;
            times.push(answer.first_byte_us);
        }
    }
    for (server, _, times) in ways {
        let Some((p50_us, p99_us)) = parse::percentiles(times) else { continue };
        misses.push(Misses { server, p50_us, p99_us });
    }
    Ok(())
}

/// As many files as this process and its children may have: most systems begin with few.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, connections fail, which is told.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn say(text: &str) {
    // When stderr is closed there is nobody to tell.
    drop(writeln!(stderr(), "{text}"));
}
