//! Hosts of our own: one network namespace each, on one bridge a zone; zones are joined by a
//! backbone that nothing limits. Every host's line is shaped in both directions: what it sends, by
//! its own interface; what it receives, by the bridge's port towards it.
//!
//! Invariant: nothing of the machine's own network is touched, and all of it is gone when this goes
//! out of scope. What a killed run left behind is removed by the next one.

use std::{fs, io, net::Ipv4Addr, path::Path, process::Command};

use serde::Deserialize;
use thiserror::Error;

use super::space::SPACES;

/// What every namespace's name starts with; this process's id follows.
const PREFIX: &str = "shoalswarm";
/// The namespace with the bridges.
const HUB: &str = "hub";
/// Time that a packet may wait for its turn on a line, as a switch's buffer has it.
const QUEUE_MS: u64 = 20;
/// What a line may send at once, in bytes: the kernel hands packets over 64 KiB at a time.
const BURST_BYTES: u64 = 66 * 1024;
/// Most bytes that the kernel hands over as one packet: a full line drops all of it, where a switch
/// drops one packet on the wire. Smaller ones cost more of the processor.
const HANDED_OVER_BYTES_MAX: u64 = 6_000;

/// The lines could not be laid.
#[derive(Debug, Error)]
pub enum LabError {
    /// Not root.
    #[error("network namespaces and traffic shaping need root; run this as root")]
    NotRoot,
    /// A program is missing.
    #[error("{program}: {source}; install iproute2 (Debian: apt-get install iproute2)")]
    NoProgram {
        /// Which.
        program: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// A command failed.
    #[error("{command}: {said}")]
    Refused {
        /// All of it.
        command: String,
        /// What it said.
        said: String,
    },
}

/// A host to be made.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// Its name.
    pub(super) name: String,
    /// Its zone; none: on the backbone.
    pub(super) zone: Option<u16>,
}

/// Namespaces, gone when this goes out of scope.
#[derive(Debug)]
pub(super) struct Lab {
    hosts: Vec<Host>,
    zones: u16,
}

#[derive(Deserialize)]
struct Link {
    ifname: String,
    stats64: Stats,
}

#[derive(Deserialize)]
struct Stats {
    rx: Counter,
    tx: Counter,
}

#[derive(Deserialize)]
struct Counter {
    bytes: u64,
}

impl Lab {
    /// Makes hosts and lines of so many bits a second.
    pub(super) fn new(
        hosts: Vec<Host>,
        zones: u16,
        rate_bits_per_s: u64,
    ) -> Result<Self, LabError> {
        if !rustix::process::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        sweep();
        let lab = Self { hosts, zones };
        let hub = space(HUB);
        ip(&["netns", "add", &hub])?;
        lab.bridge("backbone")?;
        for zone in 0..zones {
            let (bridge, inner, outer) =
                (format!("zone{zone}"), format!("out{zone}"), format!("in{zone}"));
            lab.bridge(&bridge)?;
            ip(&["-n", &hub, "link", "add", &inner, "type", "veth", "peer", "name", &outer])?;
            ip(&["-n", &hub, "link", "set", &inner, "master", &bridge, "up"])?;
            ip(&["-n", &hub, "link", "set", &outer, "master", "backbone", "up"])?;
        }
        for at in 0..lab.hosts.len() {
            lab.host(at, rate_bits_per_s)?;
        }
        Ok(lab)
    }

    fn bridge(&self, name: &str) -> Result<(), LabError> {
        ip(&["-n", &space(HUB), "link", "add", name, "type", "bridge"])?;
        ip(&["-n", &space(HUB), "link", "set", name, "up"])
    }

    fn host(&self, at: usize, rate_bits_per_s: u64) -> Result<(), LabError> {
        let host = &self.hosts[at];
        let (hub, own, port) = (space(HUB), space(&host.name), format!("port{at}"));
        let bridge = host.zone.map_or("backbone".to_owned(), |zone| format!("zone{zone}"));
        ip(&["netns", "add", &own])?;
        let pair = ["type", "veth", "peer", "name", "eth0", "netns", &own];
        ip(&[&["-n", &hub, "link", "add", &port][..], &pair].concat())?;
        ip(&["-n", &hub, "link", "set", &port, "master", &bridge, "up"])?;
        let address = format!("{}/16", address(at));
        ip(&["-n", &own, "address", "add", &address, "dev", "eth0"])?;
        ip(&["-n", &own, "link", "set", "eth0", "up"])?;
        ip(&["-n", &own, "link", "set", "lo", "up"])?;
        let most = HANDED_OVER_BYTES_MAX.to_string();
        for (space, interface) in [(&own, "eth0"), (&hub, port.as_str())] {
            ip(&["-n", space, "link", "set", "dev", interface, "gso_max_size", &most])?;
        }
        shape(&own, "eth0", rate_bits_per_s)?;
        shape(&hub, &port, rate_bits_per_s)
    }

    /// The namespace and the address of a host.
    pub(super) fn place(&self, name: &str) -> Option<(String, Ipv4Addr)> {
        let at = self.hosts.iter().position(|host| host.name == name)?;
        Some((space(name), address(at)))
    }

    /// Bytes on all lines of hosts whose names begin so: sent and received by them, so far.
    pub(super) fn carried(&self, prefix: &str) -> (u64, u64) {
        let ports: Vec<String> = (self.hosts.iter().enumerate())
            .filter(|(_, host)| host.name.starts_with(prefix))
            .map(|(at, _)| format!("port{at}"))
            .collect();
        let links = links(&[]).unwrap_or_default();
        // What comes out of a port goes to its host.
        let of = |link: &Link| (link.stats64.rx.bytes, link.stats64.tx.bytes);
        let all = links.iter().filter(|link| ports.contains(&link.ifname)).map(of);
        all.fold((0, 0), |(sent, received), (up, down)| (sent + up, received + down))
    }

    /// Bytes that have entered each zone so far, in their order.
    pub(super) fn entered(&self) -> Vec<u64> {
        (0..self.zones).map(|zone| sent_bytes(&format!("in{zone}")).unwrap_or_default()).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let hosts = self.hosts.iter().map(|host| space(&host.name));
        for space in hosts.chain([space(HUB)]) {
            // Half a lab, when it was not all made: what is not there need not go.
            drop(ip(&["netns", "delete", &space]));
        }
    }
}

/// Removes what is left of runs whose process is gone.
fn sweep() {
    for entry in fs::read_dir(SPACES).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let gone = pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists());
        if gone {
            drop(ip(&["netns", "delete", &name]));
        }
    }
}

fn space(host: &str) -> String {
    format!("{PREFIX}{}-{host}", std::process::id())
}

fn address(at: usize) -> Ipv4Addr {
    let number = u16::try_from(at + 1).unwrap_or(u16::MAX);
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 89, high, low)
}

fn shape(space: &str, interface: &str, rate_bits_per_s: u64) -> Result<(), LabError> {
    let (rate, burst, wait) =
        (format!("{rate_bits_per_s}bit"), BURST_BYTES.to_string(), format!("{QUEUE_MS}ms"));
    let filter = ["tbf", "rate", &rate, "burst", &burst, "latency", &wait];
    call("tc", &[&["-n", space, "qdisc", "add", "dev", interface, "root"][..], &filter].concat())
        .map(drop)
}

fn sent_bytes(port: &str) -> Option<u64> {
    links(&["dev", port])?.first().map(|link| link.stats64.tx.bytes)
}

fn links(which: &[&str]) -> Option<Vec<Link>> {
    let show = ["-n", &space(HUB), "-s", "-j", "link", "show"];
    serde_json::from_str(&call("ip", &[&show[..], which].concat()).ok()?).ok()
}

fn ip(arguments: &[&str]) -> Result<(), LabError> {
    call("ip", arguments).map(drop)
}

fn call(program: &'static str, arguments: &[&str]) -> Result<String, LabError> {
    let done = Command::new(program).args(arguments).output();
    let done = done.map_err(|source| LabError::NoProgram { program, source })?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let command = format!("{program} {}", arguments.join(" "));
    Err(LabError::Refused { command, said: String::from_utf8_lossy(&done.stderr).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_one_network_and_apart() {
        assert_eq!(address(0), Ipv4Addr::new(10, 89, 0, 1));
        assert_eq!(address(255), Ipv4Addr::new(10, 89, 1, 0));
    }
}
