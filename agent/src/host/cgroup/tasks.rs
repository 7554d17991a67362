//! Processes and threads of a cgroup. Both versions name the files alike.

use std::path::Path;

use super::super::text;
use super::Version;
use crate::model::CgroupTasks;

pub(super) fn read(_version: Version, folder: &Path, path: String) -> Option<CgroupTasks> {
    // "max" is no limit.
    let limit = text::value(folder.join("pids.max"))?;
    Some(CgroupTasks { path, limit, used: text::value(folder.join("pids.current"))? })
}

pub(super) fn room(tasks: &CgroupTasks) -> u64 {
    tasks.limit.saturating_sub(tasks.used)
}
