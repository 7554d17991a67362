//! One process's descriptors and memory.

use procfs::process::{LimitValue, Process};

use super::{cgroup, container};
use crate::document::Descriptors;
use crate::model::ProcessReading;

/// `None` where the process is gone. What cannot be read of a living one is `None` in its field.
pub(super) fn read(pid: u32) -> Option<ProcessReading> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    let stat = process.stat().ok()?;
    let status = process.status().ok();
    let limits = process.limits().ok();
    let limit = |value: LimitValue| match value {
        LimitValue::Value(value) => Some(value),
        LimitValue::Unlimited => None,
    };
    let cgroups = cgroup::text(pid);
    let group = cgroups.as_deref().and_then(cgroup::parse);
    let whereabouts = cgroups.as_deref().map(container::parse).unwrap_or_default();
    let kib = |value: Option<u64>| value.map(|kib| kib * 1024);
    Some(ProcessReading {
        pid,
        comm: stat.comm,
        cgroup_memory: group.as_ref().and_then(cgroup::Group::memory),
        cgroup: group.map(|group| group.path),
        container: whereabouts.container,
        pod_uid: whereabouts.pod_uid,
        descriptors: Descriptors {
            open: open_descriptors(pid),
            soft_limit: limits.as_ref().and_then(|limits| limit(limits.max_open_files.soft_limit)),
            hard_limit: limits.as_ref().and_then(|limits| limit(limits.max_open_files.hard_limit)),
        },
        resident_bytes: kib(status.as_ref().and_then(|status| status.vmrss)),
        anonymous_bytes: kib(status.as_ref().and_then(|status| status.rssanon)),
    })
}

/// Since 6.2 the directory's size is the count (fs/proc/fd.c, `proc_fd_getattr`); before, entries are counted.
fn open_descriptors(pid: u32) -> Option<u64> {
    let path = format!("/proc/{pid}/fd");
    match rustix::fs::stat(&path).ok()?.st_size {
        0 => Some(std::fs::read_dir(&path).ok()?.count() as u64),
        count => u64::try_from(count).ok(),
    }
}
