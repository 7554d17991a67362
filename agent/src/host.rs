//! The host behind one small trait: what the model needs to know of limits and use, read from /proc and /sys.

mod cgroup;
mod container;
mod interfaces;
pub(crate) mod mounts;
pub(crate) mod namespaces;
mod process;
mod slab;

use crate::document::{Degraded, Host as HostDocument};
use crate::model::{HostDescriptors, HostMemory, Reading, SlabCost, TcpMemory};

pub use interfaces::{NicSpeed, NicSpeedError};

/// A host that can be asked for its limits and their use.
pub trait Host {
    /// Reads everything once. `pids` are the processes to look at.
    fn read(&mut self, pids: &[u32]) -> Reading;
    /// Slab objects of a TCP connection, where the kernel tells.
    fn slab(&self) -> Result<SlabCost, String>;
    /// Inode number of the network namespace whose interfaces it reads; `None` where that cannot be told.
    fn netns(&self) -> Option<u32>;
}

/// The machine this runs on.
#[derive(Debug, Default)]
pub struct ProcHost {
    speeds: Vec<NicSpeed>,
}

impl ProcHost {
    /// `speeds` override what drivers say.
    pub fn new(speeds: Vec<NicSpeed>) -> Self {
        Self { speeds }
    }
}

impl Host for ProcHost {
    fn read(&mut self, pids: &[u32]) -> Reading {
        let mut reading = Reading::default();
        let mut missing = |probe: &str, reason: String| {
            reading.degraded.push(Degraded { probe: probe.into(), reason });
        };
        reading.memory = memory().map_err(|reason| missing("/proc/meminfo", reason)).ok();
        reading.tcp = tcp().map_err(|reason| missing("/proc/net/sockstat", reason)).ok();
        reading.descriptors = descriptors().map_err(|reason| missing("/proc/sys/fs/file-nr", reason)).ok();
        reading.descriptors_max =
            descriptors_max().map_err(|reason| missing("/proc/sys/fs/nr_open", reason)).ok();
        reading.interfaces = interfaces::read(&self.speeds)
            .map_err(|reason| missing("/proc/net/dev", reason))
            .unwrap_or_default();
        reading.processes = pids.iter().filter_map(|pid| process::read(*pid)).collect();
        reading
    }

    fn slab(&self) -> Result<SlabCost, String> {
        slab::read()
    }

    fn netns(&self) -> Option<u32> {
        namespaces::own()
    }
}

/// Name, kernel and lockdown state; hooks are filled in by the loader.
pub fn describe() -> HostDocument {
    let system = rustix::system::uname();
    HostDocument {
        name: system.nodename().to_string_lossy().into_owned(),
        kernel: system.release().to_string_lossy().into_owned(),
        lockdown: lockdown(),
        hooks: Vec::new(),
        degraded: Vec::new(),
    }
}

/// The bracketed word of `none [integrity] confidentiality`.
fn lockdown() -> Option<String> {
    let text = std::fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

fn read_text(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

fn memory() -> Result<HostMemory, String> {
    use procfs::Current as _;
    let info = procfs::Meminfo::current().map_err(|error| error.to_string())?;
    let available = info.mem_available.ok_or("no MemAvailable")?;
    Ok(HostMemory { total: info.mem_total, available })
}

fn tcp() -> Result<TcpMemory, String> {
    let page = rustix::param::page_size() as u64;
    let sockstat = read_text("/proc/net/sockstat")?;
    let line = sockstat.lines().find(|line| line.starts_with("TCP:")).ok_or("no TCP line")?;
    let mut words = line.split_whitespace();
    words.find(|word| *word == "mem");
    let used = number(words.next())?;
    let limit = number(read_text("/proc/sys/net/ipv4/tcp_mem")?.split_whitespace().nth(2))?;
    Ok(TcpMemory { used: used * page, limit: limit * page })
}

fn descriptors() -> Result<HostDescriptors, String> {
    let text = read_text("/proc/sys/fs/file-nr")?;
    let mut words = text.split_whitespace();
    // The second field, free handles, has been 0 since 2.6.
    let allocated = number(words.next())?;
    let max = number(words.nth(1))?;
    Ok(HostDescriptors { allocated, max })
}

fn descriptors_max() -> Result<u64, String> {
    number(Some(read_text("/proc/sys/fs/nr_open")?.trim()))
}

fn number(word: Option<&str>) -> Result<u64, String> {
    let word = word.ok_or("a number is missing")?;
    word.parse().map_err(|_| format!("{word:?} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_can_be_read() {
        let reading = ProcHost::default().read(&[std::process::id()]);
        let memory = reading.memory.expect("every Linux has meminfo");
        assert!(memory.available <= memory.total);
        assert!(reading.descriptors.expect("file-nr").allocated > 0);
        assert!(reading.descriptors_max.expect("nr_open") > 0);
        let this = &reading.processes[0];
        assert_eq!(this.pid, std::process::id());
        assert!(this.descriptors.open.expect("own descriptors") >= 3);
        assert!(this.anonymous_bytes.expect("own memory") <= this.resident_bytes.expect("own memory"));
    }

    #[test]
    fn a_process_that_is_gone_is_left_out() {
        // Beyond the largest pid the kernel hands out (PID_MAX_LIMIT).
        assert!(ProcHost::default().read(&[4_194_305]).processes.is_empty());
    }
}
