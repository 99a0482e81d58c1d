//! What a process has used so far, as Linux tells in `/proc` (proc(5)).

use std::{fs, time::Duration};

/// Clock ticks in a second, as `/proc` counts them on every architecture that Shoal runs on.
const TICKS_PER_S: u64 = 100;

/// Processor time and memory of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time since it started.
    pub cpu: Duration,
    /// Resident memory now, in bytes.
    pub rss_bytes: u64,
    /// The most that it has been, in bytes.
    pub rss_peak_bytes: u64,
    /// What of it is the process's own now, in bytes.
    pub rss_anonymous_bytes: u64,
    /// What of it are pages of files now, in bytes: the system takes them back when it needs them.
    pub rss_file_bytes: u64,
}

/// What process `pid` has used; zero when it is gone.
#[must_use]
pub fn of(pid: u32) -> Usage {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let status = read("status");
    Usage {
        cpu: cpu(&read("stat")).unwrap_or_default(),
        rss_bytes: memory(&status, "VmRSS:").unwrap_or_default(),
        rss_peak_bytes: memory(&status, "VmHWM:").unwrap_or_default(),
        rss_anonymous_bytes: memory(&status, "RssAnon:").unwrap_or_default(),
        // Files of a file system in memory count as shared memory.
        rss_file_bytes: ["RssFile:", "RssShmem:"].iter().filter_map(|f| memory(&status, f)).sum(),
    }
}

/// What process `pid` and those that it started, and these, have used together; memory that they
/// share counts for each.
#[must_use]
pub fn of_tree(pid: u32) -> Usage {
    let mut sum = Usage::default();
    let mut left = vec![pid];
    while let Some(pid) = left.pop() {
        let own = of(pid);
        sum.cpu += own.cpu;
        sum.rss_bytes += own.rss_bytes;
        sum.rss_peak_bytes += own.rss_peak_bytes;
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for thread in threads {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            left.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    sum
}

/// Fields 14 and 15 of `stat`; the second field, in parentheses, may hold anything.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1_000 / TICKS_PER_S))
}

fn memory(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The machine's load over the last minute; zero when it is not known.
#[must_use]
pub fn machine_load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a) b (c) R 1 1 1 0 -1 4194560 10 0 0 0 250 50 0 0 20 0 5 0 100";
        assert_eq!(cpu(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu("42 (cut"), None);
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        assert_eq!(memory("VmPeak:  9 kB\nVmRSS:\t    2048 kB\n", "VmRSS:"), Some(2 << 20));
        assert_eq!(memory("Name: x\n", "VmRSS:"), None);
    }

    #[test]
    fn this_process_has_used_something() {
        assert!(of(std::process::id()).rss_bytes > 0);
        assert_eq!(of(u32::MAX), Usage::default());
    }
}
