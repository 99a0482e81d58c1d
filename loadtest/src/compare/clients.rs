//! The clients: wrk for HTTP/1.1, h2load for HTTP/2 and for fixed rates.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::process::Command;

use super::{
    CompareError,
    parse::{self, Seen},
    results::{Paced, Protocol, Run},
    servers::{Server, processors, program},
};
use crate::scenario::HttpScenario;

/// An object from so many bytes on gets requests for at least [`LONG`]: few of them end.
const LARGE_FROM_BYTES: u64 = 16 << 20;
const LONG: Duration = Duration::from_secs(5);
/// For a client to end after its time.
const END: Duration = Duration::from_secs(60);

/// Asks a server for an object for a while; none where it does not speak that protocol.
pub(super) async fn load(
    scenario: &HttpScenario,
    server: &Server,
    (protocol, object_bytes): (Protocol, u64),
    folder: &Path,
) -> Result<Option<Run>, CompareError> {
    let Some(url) = server.url(protocol, &super::path_of(object_bytes)) else { return Ok(None) };
    let large = object_bytes >= LARGE_FROM_BYTES;
    let duration = if large { scenario.duration.max(LONG) } else { scenario.duration };
    let before = server.usage();
    let seen = match protocol {
        Protocol::Http1 | Protocol::Http1Tls => wrk(scenario, &url, duration).await?,
        Protocol::Http2 | Protocol::Http2Tls => {
            h2load(scenario, &url, (duration, &[]), folder).await?
        }
    };
    let after = server.usage();
    if seen.failed > 0 {
        let (name, protocol) = (server.name.text(), protocol.text());
        let what = format!("{} requests to {name} over {protocol} failed", seen.failed);
        return Err(CompareError::Client { what, said: url });
    }
    let cpu_s = after.cpu.saturating_sub(before.cpu).as_secs_f64().max(0.001);
    let requests = seen.requests as f64;
    Ok(Some(Run {
        server: server.name,
        protocol,
        object_bytes,
        requests_per_s: requests / seen.elapsed_s,
        gb_per_s: seen.bytes / 1e9 / seen.elapsed_s,
        p50_us: seen.p50_us,
        p99_us: seen.p99_us,
        busy_cores: cpu_s / seen.elapsed_s,
        cpu_us_per_request: if requests > 0.0 { cpu_s * 1e6 / requests } else { 0.0 },
        requests_per_core_s: requests / cpu_s,
        gb_per_core_s: seen.bytes / 1e9 / cpu_s,
        rss_bytes: after.rss_bytes,
    }))
}

/// Asks a server for the smallest object at a fixed rate.
pub(super) async fn pace(
    scenario: &HttpScenario,
    server: &Server,
    (object_bytes, rate): (u64, f64),
    folder: &Path,
) -> Result<Paced, CompareError> {
    let path = super::path_of(object_bytes);
    let url = server.url(Protocol::Http1, &path).unwrap_or_default();
    let each = (rate / f64::from(scenario.connections)).max(1.0).round();
    let args = ["--h1".to_owned(), format!("--rps={each}")];
    let seen = h2load(scenario, &url, (scenario.duration, &args), folder).await?;
    let (p50_us, p99_us) = seen.p50_us.zip(seen.p99_us).unwrap_or_default();
    let requests_per_s = seen.requests as f64 / seen.elapsed_s;
    Ok(Paced { server: server.name, requests_per_s, p50_us, p99_us })
}

async fn wrk(scenario: &HttpScenario, url: &str, duration: Duration) -> Result<Seen, CompareError> {
    let threads = threads(scenario).to_string();
    let connections = scenario.connections.to_string();
    let seconds = format!("{}s", duration.as_secs().max(1));
    let args = ["-t", &threads, "-c", &connections, "-d", &seconds];
    let args = args.into_iter().chain(["--timeout", "60s", "--latency", url]);
    let said = run(scenario, "wrk", args.map(str::to_owned).collect(), duration).await?;
    parse::wrk(&said).ok_or(CompareError::Client { what: "wrk says nothing".to_owned(), said })
}

async fn h2load(
    scenario: &HttpScenario,
    url: &str,
    (duration, more): (Duration, &[String]),
    folder: &Path,
) -> Result<Seen, CompareError> {
    let log = folder.join("h2load.log");
    let mut args: Vec<String> = more.to_vec();
    args.extend([
        format!("--threads={}", threads(scenario)),
        format!("--clients={}", scenario.connections),
        format!("--duration={}", duration.as_secs().max(1)),
        format!("--log-file={}", log.display()),
        "--max-concurrent-streams=1".to_owned(),
        url.to_owned(),
    ]);
    let said = run(scenario, "h2load", args, duration).await?;
    let seen = parse::h2load(&said);
    let what = "h2load says nothing".to_owned();
    let mut seen = seen.ok_or(CompareError::Client { what, said })?;
    let times = parse::log(&std::fs::read_to_string(&log).unwrap_or_default());
    (seen.p50_us, seen.p99_us) = times.unzip();
    Ok(seen)
}

/// As many as processors, but no more than connections.
fn threads(scenario: &HttpScenario) -> usize {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    all.saturating_sub(scenario.cores).clamp(1, scenario.connections.into())
}

async fn run(
    scenario: &HttpScenario,
    name: &'static str,
    args: Vec<String>,
    duration: Duration,
) -> Result<String, CompareError> {
    let (_, clients) = processors(scenario)?;
    let mut command = Command::new(program("taskset")?);
    command.arg("-c").arg(clients).arg(program(name)?).args(args);
    command.stdin(Stdio::null()).kill_on_drop(true).process_group(0);
    let failed = |what: String| CompareError::Client { what, said: String::new() };
    let output = tokio::time::timeout(duration + END, command.output()).await;
    let output = output.map_err(|_| failed(format!("{name} does not end")))?;
    let output = output.map_err(|error| failed(format!("{name}: {error}")))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(said),
        false => Err(CompareError::Client {
            what: format!("{name} failed"),
            said: said + &String::from_utf8_lossy(&output.stderr),
        }),
    }
}
