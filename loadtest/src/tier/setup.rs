//! Has `shoal up` make a tier's certificates, configurations and first votes, and then end.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{SuperNode, Tier, TierError, TierOptions, certificates::Authority, data_of};
use crate::process::{Process, find_program};

/// For `shoal up` to tell its facts.
const UP_DEADLINE: Duration = Duration::from_secs(90);
/// Where ports are looked for, below those that clients' connections take.
const PORTS: std::ops::Range<u16> = 20_000..31_000;
/// Ports that one layout may use.
const PORTS_PER_LAYOUT: u16 = 600;
/// Offsets from the first port, as docs/up-json.md says.
const NODE_OFFSETS: [u16; 3] = [0, 100, 300];
const SUPER_NODE_OFFSETS: [u16; 2] = [200, 400];
/// The same for the one origin.
const ORIGIN_OFFSET: (u16, u16) = (500, 1);

/// What `shoal up` is to lay out.
#[derive(Clone, Debug)]
pub struct UpOptions {
    /// The program `shoal`.
    pub program: PathBuf,
    /// A folder, which is made; what is laid out is in `tier` below it.
    pub folder: PathBuf,
    /// Super-nodes.
    pub super_nodes: u16,
    /// Nodes.
    pub nodes: u16,
    /// Base URL of the nodes' origin; one of its own when left out.
    pub origin: Option<String>,
    /// Plain text in place of mutual TLS.
    pub insecure: bool,
    /// More flags.
    pub more: Vec<String>,
}

/// What was laid out.
#[derive(Debug, Deserialize)]
pub struct Facts {
    /// Base URL of the origin.
    pub origin: String,
    /// Its process, where it is the cluster's own.
    pub demo_origin_pid: Option<u32>,
    /// Its super-nodes.
    pub super_nodes: Vec<MemberFacts>,
    /// Its nodes.
    pub nodes: Vec<MemberFacts>,
}

/// One member.
#[derive(Debug, Deserialize)]
pub struct MemberFacts {
    /// Its name, and that of its folder.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// Base URL of its edge, where it has one.
    pub edge: Option<String>,
    /// Base URL of its admin listener.
    pub admin: String,
    /// Its cluster address.
    pub cluster: String,
}

#[derive(Deserialize)]
struct Record {
    cluster_id: String,
}

/// Has `shoal up` make certificates and configurations, and end.
///
/// # Errors
/// When it does not come up.
pub async fn up(options: &UpOptions) -> Result<Facts, TierError> {
    let (mut up, facts) = stay_up(options).await?;
    up.stop().await?;
    Ok(facts)
}

/// Has `shoal up` run a cluster, until the process is stopped.
///
/// # Errors
/// When it does not come up.
pub async fn stay_up(options: &UpOptions) -> Result<(Process, Facts), TierError> {
    let file = |path: &Path, source| TierError::File { path: path.to_owned(), source };
    std::fs::create_dir_all(&options.folder).map_err(|source| file(&options.folder, source))?;
    let base_port = base_port(options)?;
    let mut args = vec![
        "up".to_owned(),
        "--json".to_owned(),
        format!("--nodes={}", options.nodes),
        format!("--super-nodes={}", options.super_nodes),
        format!("--base-port={base_port}"),
        format!("--data-dir={}", options.folder.join("tier").display()),
    ];
    match &options.origin {
        Some(origin) => args.push(format!("--origin={origin}")),
        None => args.push("--demo-origin".to_owned()),
    }
    if options.insecure {
        args.push("--insecure".to_owned());
    }
    args.extend(options.more.iter().cloned());
    let log = options.folder.join("up.log");
    let mut up = Process::start("up", &options.program, &args, &log, true)?;
    match facts(&mut up).await {
        Ok(facts) => Ok((up, facts)),
        Err(error) => {
            up.stop().await?;
            Err(error)
        }
    }
}

pub(super) async fn lay_out(options: &TierOptions) -> Result<Tier, TierError> {
    let program = find_program("shoal", options.shoal.as_deref()).ok_or(TierError::NoProgram)?;
    let wanted = UpOptions {
        program: program.clone(),
        folder: options.folder.clone(),
        super_nodes: options.super_nodes,
        nodes: 0,
        origin: Some("http://127.0.0.1:9".to_owned()),
        insecure: options.insecure,
        more: Vec::new(),
    };
    let facts = up(&wanted).await?;
    let folder = options.folder.join("tier");
    let record = folder.join("cluster.json");
    let text = std::fs::read_to_string(&record);
    let text = text.map_err(|source| TierError::File { path: record, source })?;
    let strange = |reason| TierError::Up { reason, said: text.clone() };
    let Record { cluster_id } = read(&text).map_err(strange)?;
    let authority = match options.insecure {
        true => None,
        false => Some(Authority::open(&folder.join("ca"), &cluster_id)?),
    };
    let super_nodes = facts.super_nodes.into_iter().map(|facts| SuperNode {
        data: data_of(&folder, &facts.name),
        config: folder.join(&facts.name).join("config.toml"),
        name: facts.name,
        address: facts.cluster,
        admin: facts.admin,
        process: None,
    });
    let super_nodes = super_nodes.collect();
    Ok(Tier { super_nodes, cluster_id, program, folder: options.folder.clone(), authority })
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn strange(reason: String, up: &Process) -> TierError {
    TierError::Up { reason, said: up.log_tail() }
}

/// The one line that `shoal up` writes once all members are ready.
async fn facts(up: &mut Process) -> Result<Facts, TierError> {
    let mut line = String::new();
    let told = match up.output() {
        Some(output) => {
            let mut lines = BufReader::new(output);
            tokio::time::timeout(UP_DEADLINE, lines.read_line(&mut line)).await
        }
        None => Ok(Ok(0)),
    };
    match told {
        Ok(Ok(read_bytes)) if read_bytes > 0 => read(&line).map_err(|reason| strange(reason, up)),
        Ok(Ok(_)) => Err(strange("it ended".to_owned(), up)),
        Ok(Err(error)) => Err(strange(error.to_string(), up)),
        Err(_) => Err(strange(format!("nothing within {UP_DEADLINE:?}"), up)),
    }
}

/// A first port whose tier's ports are all free; processes that look at once start apart.
fn base_port(options: &UpOptions) -> Result<u16, TierError> {
    let places = (PORTS.end - PORTS.start) / PORTS_PER_LAYOUT;
    let first = u16::try_from(std::process::id() % u32::from(places)).unwrap_or_default();
    let bases = (0..places).map(|turn| {
        let place = (first + turn) % places;
        PORTS.start + place * PORTS_PER_LAYOUT
    });
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let of_nodes = NODE_OFFSETS.map(|offset| (offset, options.nodes));
    let of_super_nodes = SUPER_NODE_OFFSETS.map(|offset| (offset, options.super_nodes));
    let used: Vec<_> = of_nodes.into_iter().chain(of_super_nodes).chain([ORIGIN_OFFSET]).collect();
    let all_free = |base: &u16| {
        let mut ports =
            used.iter().flat_map(|(offset, count)| (0..*count).map(move |i| offset + i));
        ports.all(|port| is_free(base + port))
    };
    let found = bases.into_iter().find(all_free);
    found.ok_or(TierError::NoPorts { from: PORTS.start, to: PORTS.end })
}
