//! What a process and the kernel use, from /proc.

use std::path::PathBuf;

use anyhow::Context as _;

/// Caches that hold nothing but sockets and what watches them.
const SLABS: [&str; 6] = ["TCP", "sock_inode_cache", "filp", "eventpoll_epi", "eventpoll_pwq", "ep_head"];

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Memory {
    pub(super) resident: f64,
    pub(super) anonymous: f64,
}

fn read(process: u32, file: &str) -> anyhow::Result<String> {
    let path = PathBuf::from(format!("/proc/{process}/{file}"));
    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// User and system time of a process so far.
pub(super) fn cpu_seconds(process: u32) -> anyhow::Result<f64> {
    let ticks = cpu_ticks(&read(process, "stat")?).context("/proc/PID/stat is malformed")?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Fields 14 and 15; the second may hold spaces and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    Some(fields.next()?.ok()? + fields.next()?.ok()?)
}

pub(super) fn memory(process: u32) -> anyhow::Result<Memory> {
    let status = read(process, "status")?;
    let bytes = |field| kib(&status, field).with_context(|| format!("/proc/PID/status has no {field}"));
    Ok(Memory { resident: bytes("VmRSS:")?, anonymous: bytes("RssAnon:")? })
}

/// What a line `field NUMBER kB` says, in bytes.
pub(super) fn kib(text: &str, field: &str) -> Option<f64> {
    let value = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: f64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024.0)
}

/// Descriptors that a process has open.
pub(super) fn descriptors(process: u32) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{process}/fd"))?.count())
}

/// Bytes of objects in use in [`SLABS`], all together. Root alone may read them; a cache that the kernel has merged
/// into another is not among them.
pub(super) fn slabs() -> Option<f64> {
    in_use(&std::fs::read_to_string("/proc/slabinfo").ok()?)
}

fn in_use(slabinfo: &str) -> Option<f64> {
    let mut sum = 0.0;
    for line in slabinfo.lines() {
        let mut fields = line.split_whitespace();
        if fields.next().is_some_and(|name| SLABS.contains(&name)) {
            let active: f64 = fields.next()?.parse().ok()?;
            let size: f64 = fields.nth(1)?.parse().ok()?;
            sum += active * size;
        }
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_read_behind_any_name() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194560 0 0 0 0 120 34 0 0 20 0 1 0 5 0 0";
        assert_eq!(cpu_ticks(stat), Some(154));
        assert_eq!(cpu_ticks("7 (a) S 1"), None);
    }

    #[test]
    fn sizes_are_kibibytes() {
        let text = "MemTotal:       100 kB\nMemAvailable:    50 kB\n";
        assert_eq!(kib(text, "MemAvailable:"), Some(51_200.0));
        assert_eq!(kib(text, "Missing:"), None);
    }

    #[test]
    fn slabs_count_objects_in_use_of_the_caches_of_sockets() {
        let text = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize> ...\n\
            TCP                 10     13   2368   13    8 : tunables 0 0 0\n\
            TCPv6              999    999   2496   13    8 : tunables 0 0 0\n\
            filp                 5     64    192   21    1 : tunables 0 0 0\n";
        assert_eq!(in_use(text), Some(10.0 * 2368.0 + 5.0 * 192.0));
    }

    #[test]
    fn this_process_uses_something() {
        let own = std::process::id();
        assert!(memory(own).unwrap().resident > 100_000.0);
        assert!(descriptors(own).unwrap() > 2);
        assert!(cpu_seconds(own).unwrap() >= 0.0);
    }
}
