//! One process's descriptors, memory, processor time and cgroups.

use std::path::Path;

use procfs::process::{LimitValue, Process};

use super::cgroup::{self, Cgroups};
use super::{container, namespaces};
use crate::document::Descriptors;
use crate::model::ProcessReading;

/// `None` where the process is gone. What cannot be read of a living one is `None` in its field.
pub(super) fn read(pid: u32, cgroups: &mut Cgroups) -> Option<ProcessReading> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    let stat = process.stat().ok()?;
    let status = process.status().ok();
    let limits = process.limits().ok();
    let limit = |value: LimitValue| match value {
        LimitValue::Value(value) => Some(value),
        LimitValue::Unlimited => None,
    };
    let text = cgroup::text(pid);
    let group = |controller| text.as_deref().and_then(|text| cgroup::group(text, controller));
    let memory = group("memory");
    let whereabouts = text.as_deref().map(container::parse).unwrap_or_default();
    let kib = |value: Option<u64>| value.map(|kib| kib * 1024);
    Some(ProcessReading {
        pid,
        comm: stat.comm,
        cgroup_memory: memory.as_ref().and_then(|group| cgroups.memory(group)),
        cgroup_tasks: group("pids").and_then(|group| cgroups.tasks(&group)),
        cgroup_cpu: group("cpu").and_then(|group| cgroups.cpu(&group)),
        cgroup: memory.map(|group| group.path),
        container: whereabouts.container,
        pod_uid: whereabouts.pod_uid,
        descriptors: Descriptors {
            open: open_descriptors(pid),
            soft_limit: limits.as_ref().and_then(|limits| limit(limits.max_open_files.soft_limit)),
            hard_limit: limits.as_ref().and_then(|limits| limit(limits.max_open_files.hard_limit)),
        },
        resident_bytes: kib(status.as_ref().and_then(|status| status.vmrss)),
        anonymous_bytes: kib(status.as_ref().and_then(|status| status.rssanon)),
        uid: status.map(|status| status.ruid),
        threads: u64::try_from(stat.num_threads).unwrap_or(0),
        cpu_seconds: (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64,
        netns: namespaces::inode(Path::new(&format!("/proc/{pid}/ns/net"))),
        // Only the kernel's own structures tell; see `abi::Task`.
        memory_maps: None,
        user_watches: None,
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
