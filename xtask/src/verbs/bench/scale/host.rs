//! The limits in force on this host.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;

use anyhow::Context as _;
use rustix::process::{Resource, getrlimit};

use super::needs::Limits;
use crate::verbs::usage::kib;

const PAGE: u64 = 4096;

pub(super) fn limits() -> anyhow::Result<Limits> {
    let [first, last] = numbers("/proc/sys/net/ipv4/ip_local_port_range")?;
    let [used, _, maximum] = numbers("/proc/sys/fs/file-nr")?;
    let [_, _, tcp_pages] = numbers("/proc/sys/net/ipv4/tcp_mem")?;
    Ok(Limits {
        memory_available: memory_available()?,
        cgroup_left: left(&["memory"], &[("memory.max", "memory.current"), (V1_LIMIT, V1_USAGE)]),
        descriptors: getrlimit(Resource::Nofile).maximum,
        files_left: maximum.saturating_sub(used),
        ports: last.saturating_sub(first) + 1,
        epoll_watches: one("/proc/sys/fs/epoll/max_user_watches"),
        conntrack_left: conntrack_left()?,
        tcp_memory: tcp_pages * PAGE,
        tasks_left: tasks_left()?,
    })
}

const V1_LIMIT: &str = "memory.limit_in_bytes";
const V1_USAGE: &str = "memory.usage_in_bytes";

pub(super) fn memory_available() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    Ok(kib(&text, "MemAvailable:").context("no MemAvailable in /proc/meminfo")? as u64)
}

/// TCP sockets that are not in TIME_WAIT, both ends of each connection of this network namespace.
pub(super) fn tcp_sockets() -> anyhow::Result<u64> {
    in_use(&std::fs::read_to_string("/proc/net/sockstat")?).context("/proc/net/sockstat is malformed")
}

fn in_use(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP: inuse "))?;
    line.split_whitespace().next()?.parse().ok()
}

fn numbers<const N: usize>(path: &str) -> anyhow::Result<[u64; N]> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let numbers: Vec<u64> = text.split_whitespace().map_while(|word| word.parse().ok()).collect();
    numbers.try_into().ok().with_context(|| format!("{path} holds {text:?}"))
}

fn one(path: &str) -> Option<u64> {
    numbers::<1>(path).ok().map(|[number]| number)
}

/// Left of the connection tracking table, if a connection over loopback takes a place in it.
fn conntrack_left() -> anyhow::Result<Option<u64>> {
    let count = || one("/proc/sys/net/netfilter/nf_conntrack_count");
    let (Some(before), Some(maximum)) = (count(), one("/proc/sys/net/netfilter/nf_conntrack_max")) else {
        return Ok(None);
    };
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let probes: Result<Vec<TcpStream>, _> =
        (0..8).map(|_| TcpStream::connect(listener.local_addr()?)).collect();
    let _probes = probes?;
    let after = count().unwrap_or(before);
    Ok((after >= before + 8).then(|| maximum.saturating_sub(after)))
}

fn tasks_left() -> anyhow::Result<u64> {
    let loadavg = std::fs::read_to_string("/proc/loadavg")?;
    let tasks = loadavg.split(['/', ' ']).nth(4).and_then(|tasks| tasks.parse::<u64>().ok());
    let tasks = tasks.context("/proc/loadavg names no tasks")?;
    let limits = [one("/proc/sys/kernel/threads-max"), one("/proc/sys/kernel/pid_max")];
    let host = limits.into_iter().flatten().min().unwrap_or(u64::MAX).saturating_sub(tasks);
    Ok(left(&["pids"], &[("pids.max", "pids.current")]).map_or(host, |cgroup| cgroup.min(host)))
}

/// The least that is left in this process's cgroup and those above it. `files` are pairs of limit and usage.
fn left(controllers: &[&str], files: &[(&str, &str)]) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let mut least = None;
    for (mount, path) in hierarchies(&text, controllers) {
        let mut folder = mount.join(path.trim_start_matches('/'));
        while folder.starts_with(&mount) {
            for (limit, usage) in files {
                let read = |file: &str| one(folder.join(file).to_str()?);
                // Version 1 says "no limit" with a number beyond all memory.
                let limit = read(limit).filter(|limit| *limit < 1 << 60);
                if let (Some(limit), Some(usage)) = (limit, read(usage)) {
                    let left = limit.saturating_sub(usage);
                    least = Some(least.map_or(left, |least: u64| least.min(left)));
                }
            }
            if !folder.pop() {
                break;
            }
        }
    }
    least
}

/// Where the hierarchies that may limit are mounted, and this process's place in them, from /proc/self/cgroup.
fn hierarchies(text: &str, controllers: &[&str]) -> Vec<(PathBuf, String)> {
    let root = PathBuf::from("/sys/fs/cgroup");
    text.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (named, path) = (fields.next()?, fields.next()?);
            if named.is_empty() {
                // The one hierarchy of version 2; in a hybrid setup it is one folder down.
                let unified = root.join("unified");
                return Some((if unified.exists() { unified } else { root.clone() }, path.to_owned()));
            }
            named
                .split(',')
                .any(|name| controllers.contains(&name))
                .then(|| (root.join(named), path.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_in_use_are_those_of_tcp() {
        let text = "sockets: used 300\nTCP: inuse 12 orphan 0 tw 5 alloc 14 mem 1\nUDP: inuse 2 mem 0\n";
        assert_eq!(in_use(text), Some(12));
        assert_eq!(in_use("sockets: used 300\n"), None);
    }

    #[test]
    fn hierarchies_of_either_version() {
        let text = "8:pids:/a\n4:memory:/b/c\n9:name=systemd:/\n0::/d\n";
        let found = hierarchies(text, &["memory"]);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], (PathBuf::from("/sys/fs/cgroup/memory"), "/b/c".to_owned()));
        assert_eq!(found[1].1, "/d");
    }

    #[test]
    fn this_host_has_limits() {
        let limits = limits().unwrap();
        assert!(limits.memory_available > 0 && limits.ports > 0 && limits.tasks_left > 0);
        assert!(tcp_sockets().is_ok());
    }
}
