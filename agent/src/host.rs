//! The host behind one small trait: what the model needs to know of limits and use, read from /proc and /sys.

mod cgroup;
mod conntrack;
mod container;
mod interfaces;
mod listening;
pub(crate) mod mounts;
pub(crate) mod namespaces;
mod process;
mod processors;
mod slab;
mod tcp;
mod text;

use crate::document::{Degraded, Host as HostDocument};
use crate::model::{HostDescriptors, HostMemory, HostTasks, LocalPorts, Reading, SlabCost};
use text::number;

pub use interfaces::{NicError, NicPackets, NicSpeed};

/// A host that can be asked for its limits and their use.
pub trait Host {
    /// Reads everything once. `pids` are the processes to look at.
    fn read(&mut self, pids: &[u32]) -> Reading;
    /// Slab objects of a TCP connection, where the kernel tells.
    fn slab(&self) -> Result<SlabCost, String>;
    /// Inode number of the network namespace whose interfaces it reads; `None` where that cannot be told.
    fn netns(&self) -> Option<u32>;
    /// Ports that `connect` chooses from in that namespace.
    fn local_ports(&self) -> Option<LocalPorts>;
}

/// The machine this runs on.
#[derive(Debug, Default)]
pub struct ProcHost {
    interfaces: interfaces::Interfaces,
}

impl ProcHost {
    /// `speeds` override what drivers say; `packets` are what no driver says.
    pub fn new(speeds: Vec<NicSpeed>, packets: Vec<NicPackets>) -> Self {
        Self { interfaces: interfaces::Interfaces::new(speeds, packets) }
    }
}

impl Host for ProcHost {
    fn read(&mut self, pids: &[u32]) -> Reading {
        let mut missing = Missing::default();
        let mut cgroups = cgroup::Cgroups::new();
        let netns = namespaces::own();
        let processes: Vec<_> = pids.iter().filter_map(|pid| process::read(*pid, &mut cgroups)).collect();
        Reading {
            memory: missing.note("/proc/meminfo", memory()),
            tcp: missing.note("/proc/net/sockstat", tcp::memory()),
            descriptors: missing.note("/proc/sys/fs/file-nr", descriptors()),
            descriptors_max: text::value("/proc/sys/fs/nr_open"),
            interfaces: missing.note("/proc/net/dev", self.interfaces.read()).unwrap_or_default(),
            conntrack: conntrack::read(netns, &processes),
            epoll_watches_max: text::value("/proc/sys/fs/epoll/max_user_watches"),
            listening: missing.note("listening sockets", listening::read()).unwrap_or_default(),
            overflows: missing.note("/proc/net/netstat", tcp::overflows()),
            local_ports: missing.note("local ports", tcp::local_ports()),
            tasks: missing.note("/proc/loadavg", tasks()),
            memory_maps_max: text::value("/proc/sys/vm/max_map_count"),
            cpu: missing.note("/proc/stat", processors::read()),
            processes,
            netns,
            degraded: missing.0,
        }
    }

    fn slab(&self) -> Result<SlabCost, String> {
        slab::read()
    }

    fn netns(&self) -> Option<u32> {
        namespaces::own()
    }

    fn local_ports(&self) -> Option<LocalPorts> {
        tcp::local_ports().ok()
    }
}

/// What could not be read, and why.
#[derive(Default)]
struct Missing(Vec<Degraded>);

impl Missing {
    fn note<T, E: std::fmt::Display>(&mut self, probe: &str, read: Result<T, E>) -> Option<T> {
        let noted = |error: E| self.0.push(Degraded { probe: probe.into(), reason: error.to_string() });
        read.map_err(noted).ok()
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

fn memory() -> Result<HostMemory, String> {
    use procfs::Current as _;
    let info = procfs::Meminfo::current().map_err(|error| error.to_string())?;
    let available = info.mem_available.ok_or("no MemAvailable")?;
    Ok(HostMemory { total: info.mem_total, available })
}

fn descriptors() -> Result<HostDescriptors, String> {
    let text = text::named("/proc/sys/fs/file-nr")?;
    let mut words = text.split_whitespace();
    // The second field, free handles, has been 0 since 2.6.
    let allocated = number(words.next())?;
    let max = number(words.nth(1))?;
    Ok(HostDescriptors { allocated, max })
}

/// `0.20 0.18 0.12 1/80 11206`: of the fourth field, what is behind the slash counts all of the host's threads.
fn tasks() -> Result<HostTasks, String> {
    let load = text::named("/proc/loadavg")?;
    let used = number(load.split_whitespace().nth(3).and_then(|tasks| tasks.split('/').nth(1)))?;
    let limit = |name: &str| number(Some(text::named(&format!("/proc/sys/kernel/{name}"))?.trim()));
    Ok(HostTasks { used, pid_max: limit("pid_max")?, threads_max: limit("threads-max")? })
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
        assert_eq!(this.netns, reading.netns);
        assert_eq!(this.uid, Some(rustix::process::getuid().as_raw()));
        let tasks = reading.tasks.expect("loadavg");
        assert!(
            this.threads >= 1 && tasks.used >= this.threads && tasks.used < tasks.threads_max,
            "{tasks:?}"
        );
        let cpu = reading.cpu.expect("stat");
        assert!(cpu.cores > 0 && cpu.busy_seconds >= this.cpu_seconds, "{cpu:?}");
        assert!(reading.degraded.is_empty(), "{:?}", reading.degraded);
    }

    #[test]
    fn a_process_that_is_gone_is_left_out() {
        // Beyond the largest pid the kernel hands out (PID_MAX_LIMIT).
        assert!(ProcHost::default().read(&[4_194_305]).processes.is_empty());
    }
}
