//! Memory of a cgroup.

use std::path::Path;

use super::super::text;
use super::Version;
use crate::model::CgroupMemory;

pub(super) fn read(version: Version, folder: &Path, path: String) -> Option<CgroupMemory> {
    let (limit, used, cache) = match version {
        Version::V1 => {
            ("memory.limit_in_bytes", "memory.usage_in_bytes", ["total_inactive_file", "total_active_file"])
        }
        Version::V2 => ("memory.max", "memory.current", ["inactive_file", "active_file"]),
    };
    // v2 says "max" and v1 a number near 2^63 where there is no limit: neither is one.
    let limit = text::value(folder.join(limit)).filter(|limit| *limit < 1 << 62)?;
    let used = text::value(folder.join(used))?;
    // File pages make room before anything fails, in the end even those of running programs.
    let stat = text::read(folder.join("memory.stat")).unwrap_or_default();
    let pages = |name: &str| {
        let value = |line: &str| line.strip_prefix(name)?.trim().parse::<u64>().ok();
        stat.lines().find_map(value).unwrap_or(0)
    };
    let reclaimable: u64 = cache.map(pages).iter().sum();
    Some(CgroupMemory { path, limit, used: used.saturating_sub(reclaimable) })
}

pub(super) fn room(memory: &CgroupMemory) -> u64 {
    memory.limit.saturating_sub(memory.used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_file_pages_are_not_counted_as_used() {
        let folder = tempfile::tempdir().expect("folder");
        let write = |file: &str, text: &str| {
            std::fs::write(folder.path().join(file), text).expect("written");
        };
        write("memory.max", "max\n");
        write("memory.current", "450\n");
        let read = || read(Version::V2, folder.path(), "/slice".into());
        assert_eq!(read(), None);
        write("memory.max", "500\n");
        write("memory.stat", "anon 400\ninactive_file 30\nactive_file 20\n");
        assert_eq!(read(), Some(CgroupMemory { path: "/slice".into(), used: 400, limit: 500 }));
    }
}
