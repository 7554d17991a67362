//! The memory cgroup a process is in, on v1, v2 and hybrid hosts.

use std::path::{Path, PathBuf};

use crate::model::CgroupMemory;

/// A process's memory cgroup.
pub(super) struct Group {
    /// Path in its hierarchy, as /proc/PID/cgroup gives it.
    pub(super) path: String,
    version: Version,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// The v1 memory controller's group where there is one, else the v2 group.
pub(super) fn of(pid: u32) -> Option<Group> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    parse(&text)
}

fn parse(text: &str) -> Option<Group> {
    let entries = text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        Some((controllers, path))
    });
    let (mut v1, mut v2) = (None, None);
    for (controllers, path) in entries {
        if controllers.split(',').any(|controller| controller == "memory") {
            v1 = Some(path);
        } else if controllers.is_empty() {
            v2 = Some(path);
        }
    }
    let group = |path: &str, version| Group { path: path.to_owned(), version };
    v1.map(|path| group(path, Version::V1)).or_else(|| v2.map(|path| group(path, Version::V2)))
}

impl Group {
    /// The nearest limited ancestor's use and limit; `None` where nothing is limited.
    pub(super) fn memory(&self) -> Option<CgroupMemory> {
        let root = mount_point(self.version)?;
        let mut directory = root.join(self.path.trim_start_matches('/'));
        let mut nearest: Option<CgroupMemory> = None;
        // Every ancestor's limit holds as well; the one with the least room left decides.
        while directory.starts_with(&root) {
            if let Some(memory) = self.read(&directory) {
                let room = |memory: &CgroupMemory| memory.limit.saturating_sub(memory.used);
                if nearest.as_ref().is_none_or(|nearest| room(&memory) < room(nearest)) {
                    nearest = Some(memory);
                }
            }
            if !directory.pop() {
                break;
            }
        }
        nearest
    }

    fn read(&self, directory: &Path) -> Option<CgroupMemory> {
        let (limit, used) = match self.version {
            Version::V1 => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            Version::V2 => ("memory.max", "memory.current"),
        };
        // v2 says "max" and v1 a number near 2^63 where there is no limit: neither is one.
        let limit = value(&directory.join(limit)).filter(|limit| *limit < 1 << 62)?;
        Some(CgroupMemory { limit, used: value(&directory.join(used))? })
    }
}

fn value(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn mount_point(version: Version) -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let (path, kind, options) = (fields.get(1)?, fields.get(2)?, fields.get(3)?);
        let matches = match version {
            Version::V1 => *kind == "cgroup" && options.split(',').any(|option| option == "memory"),
            Version::V2 => *kind == "cgroup2",
        };
        matches.then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_hosts_memory_is_in_the_v1_hierarchy() {
        let hybrid =
            parse("4:memory:/system.slice/web.service\n1:cpu,cpuacct:/\n0::/elsewhere\n").expect("found");
        assert_eq!(hybrid.path, "/system.slice/web.service");
        assert!(hybrid.version == Version::V1);
        let unified = parse("0::/system.slice/web.service\n").expect("found");
        assert!(unified.version == Version::V2);
        assert!(parse("").is_none());
    }
}
