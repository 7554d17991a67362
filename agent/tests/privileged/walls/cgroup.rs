//! A memory cgroup with a limit, of either version, removed at the end.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::runner::Skip;

pub(super) struct Group {
    folder: PathBuf,
    pub(super) limit: u64,
}

impl Group {
    /// Below the root of the version that has the memory controller here.
    pub(super) fn new(limit: u64) -> anyhow::Result<Self> {
        let name = format!("headroom-wall-{}", std::process::id());
        let v1 = PathBuf::from("/sys/fs/cgroup/memory");
        let (root, file) = if v1.join("memory.limit_in_bytes").exists() {
            (v1, "memory.limit_in_bytes")
        } else {
            let root = PathBuf::from("/sys/fs/cgroup");
            let offered = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
            if !offered.split_whitespace().any(|controller| controller == "memory") {
                return Err(Skip("no memory controller is mounted here".into()).into());
            }
            std::fs::write(root.join("cgroup.subtree_control"), "+memory")
                .map_err(|error| Skip(format!("memory cgroups cannot be made here: {error}")))?;
            (root, "memory.max")
        };
        let folder = root.join(name);
        std::fs::create_dir(&folder)
            .map_err(|error| Skip(format!("memory cgroups cannot be made here: {error}")))?;
        let group = Self { folder, limit };
        let path = group.folder.join(file);
        std::fs::write(&path, limit.to_string()).with_context(|| format!("writing {}", path.display()))?;
        Ok(group)
    }

    /// As ceilings name it: others may be limited here as well.
    pub(super) fn scope(&self) -> String {
        format!("cgroup:/{}", self.folder.file_name().unwrap_or_default().display())
    }

    /// What a shell says to enter it.
    pub(super) fn enter(&self) -> String {
        format!("echo $$ > {}", self.folder.join("cgroup.procs").display())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that has just ended leaves the group a moment later.
        let deadline = Instant::now() + Duration::from_secs(5);
        while std::fs::remove_dir(&self.folder).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
