//! The memory cgroup a process is in, on v1, v2 and hybrid hosts.

use std::path::{Path, PathBuf};

use super::mounts;
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

/// The text of /proc/PID/cgroup.
pub(super) fn text(pid: u32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()
}

/// The v1 memory controller's group where there is one, else the v2 group.
pub(super) fn parse(text: &str) -> Option<Group> {
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
    /// Use and limit of the group, or of the ancestor, that has the least room left; `None` where none is limited.
    pub(super) fn memory(&self) -> Option<CgroupMemory> {
        self.memory_below(&mount_point(self.version)?)
    }

    fn memory_below(&self, root: &Path) -> Option<CgroupMemory> {
        let mut directory = root.join(self.path.trim_start_matches('/'));
        let mut nearest: Option<CgroupMemory> = None;
        // Every ancestor's limit holds as well; the one with the least room left decides.
        while directory.starts_with(root) {
            if let Some(memory) = self.read(root, &directory) {
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

    fn read(&self, root: &Path, directory: &Path) -> Option<CgroupMemory> {
        let (limit, used, cache) = match self.version {
            Version::V1 => ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            Version::V2 => ("memory.max", "memory.current", "inactive_file"),
        };
        // v2 says "max" and v1 a number near 2^63 where there is no limit: neither is one.
        let limit = value(&directory.join(limit)).filter(|limit| *limit < 1 << 62)?;
        let used = value(&directory.join(used))?;
        // File pages that nobody uses make room by themselves before anything fails.
        let stat = std::fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
        let reclaimable =
            stat.lines().find_map(|line| line.strip_prefix(cache)?.trim().parse().ok()).unwrap_or(0);
        let path = format!("/{}", directory.strip_prefix(root).ok()?.display());
        Some(CgroupMemory { path, limit, used: used.saturating_sub(reclaimable) })
    }
}

fn value(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn mount_point(version: Version) -> Option<PathBuf> {
    mounts::find(|kind, options| match version {
        Version::V1 => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
        Version::V2 => kind == "cgroup2",
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

    #[test]
    fn the_ancestor_with_the_least_room_decides_and_is_named() {
        let root = tempfile::tempdir().expect("folder");
        let leaf = root.path().join("slice/web");
        std::fs::create_dir_all(&leaf).expect("created");
        let write = |folder: &Path, file: &str, text: &str| {
            std::fs::write(folder.join(file), text).expect("written");
        };
        write(&leaf, "memory.max", "1000\n");
        write(&leaf, "memory.current", "100\n");
        let slice = root.path().join("slice");
        write(&slice, "memory.max", "500\n");
        write(&slice, "memory.current", "450\n");
        write(&slice, "memory.stat", "anon 400\ninactive_file 30\nactive_file 20\n");
        write(root.path(), "memory.max", "max\n");
        let group = Group { path: "/slice/web".into(), version: Version::V2 };
        let memory = group.memory_below(root.path()).expect("limited");
        assert_eq!(memory, CgroupMemory { path: "/slice".into(), used: 420, limit: 500 });
    }
}
