//! What the machine says about a valid configuration: warnings, never faults, since disks and
//! memory can grow.

use std::path::Path;

use super::Config;
use crate::text::units::format_size;

/// Warnings about `config` on this machine.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let Some(cache) = &config.cache else {
        return Vec::new();
    };
    let mut warnings = Vec::new();
    let budget = cache.store.budget_bytes;
    if let Some(free) = free_bytes(&config.node.data_dir).filter(|free| *free < budget) {
        warnings.push(format!(
            "store.budget is {}, the disk of {} has {} free; expected at most that",
            format_size(budget),
            config.node.data_dir.display(),
            format_size(free),
        ));
    }
    let memory = cache.store.memory_bytes;
    if let Some(total) = memory_bytes().filter(|total| *total < memory) {
        warnings.push(format!(
            "store.memory is {}, the machine has {}; expected well below that",
            format_size(memory),
            format_size(total),
        ));
    }
    warnings
}

/// Bytes that this user can still write to the disk of `path`, which need not exist yet.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|folder| folder.exists())?;
    let disk = rustix::fs::statvfs(existing).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

/// The memory that this process may use, in bytes: the machine's, or less where a control group
/// says so.
pub(crate) fn memory_bytes() -> Option<u64> {
    machine_bytes().into_iter().chain(group_bytes()).min()
}

/// What the process's control group, or the one that a container sees as the root, allows.
fn group_bytes() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    let files = [
        format!("/sys/fs/cgroup{path}/memory.max"),
        "/sys/fs/cgroup/memory.max".to_owned(),
        "/sys/fs/cgroup/memory/memory.limit_in_bytes".to_owned(),
    ];
    let limit = |file: &String| std::fs::read_to_string(file).ok()?.trim().parse().ok();
    files.iter().filter_map(limit).min()
}

fn machine_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_of_a_path_that_is_not_there_yet_is_known() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free_bytes(&folder.path().join("not/yet")).is_some_and(|free| free > 0));
    }
}
