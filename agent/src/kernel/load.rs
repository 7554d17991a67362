//! Loading and attaching the programs.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use agent_ebpf::abi::names;
use aya::maps::{MapData, RingBuf};
use aya::programs::links::CgroupAttachMode;
use aya::programs::{CgroupSkbAttachType, Iter, Program, ProgramError};
use aya::{Ebpf, EbpfError, EbpfLoader};
use aya_log::EbpfLogger;
use thiserror::Error;

use super::btf::{Btf, BtfError};
use super::cgroup::Cgroup;
use super::iterator::Iterator;
use super::namespaces::Namespaces;
use super::offsets::Offsets;
use super::pages::Pages;
use super::read::Probes as _;
use super::slots::Slots;
use super::{object, privilege};
use crate::cli::{Exit, Failure};
use crate::document::Degraded;

/// Why nothing can be measured here.
#[derive(Debug, Error)]
pub enum LoadError {
    /// Capabilities are missing.
    #[error("missing {}: run as root or grant exactly these (see docs/capabilities.md)", .0.join(", "))]
    Privilege(Vec<&'static str>),
    /// No usable BTF.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// aya cannot read the kernel's BTF.
    #[error("cannot parse the kernel's BTF: {0}")]
    KernelBtf(#[from] aya::BtfError),
    /// No cgroup v2 hierarchy.
    #[error(
        "no cgroup v2 hierarchy is mounted (none in /proc/self/mounts); mount one: mount -t cgroup2 none /sys/fs/cgroup/unified"
    )]
    NoCgroup,
    /// The hierarchy is that of a container.
    #[error(
        "only a part of the host's cgroups is mounted ({path} has a cgroup.events, so it is not their root): connections \
         elsewhere would not be seen; start the agent in the host's cgroup namespace, or say --this-cgroup to go on with \
         this part"
    )]
    PartOfHost {
        /// Its mount point.
        path: PathBuf,
    },
    /// The cgroup root cannot be opened.
    #[error("cannot open the cgroup v2 root {path}: {source}")]
    Cgroup {
        /// Its mount point.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The object's maps or globals were refused.
    #[error("the kernel refused the eBPF object: {0}")]
    Object(#[from] EbpfError),
    /// A map cannot be opened.
    #[error("opening a map: {0}")]
    Map(#[from] aya::maps::MapError),
    /// The programs' log cannot be read.
    #[error("opening the kernel-side log: {0}")]
    Logs(String),
    /// A map is missing.
    #[error("the object has no map {0}")]
    NoMap(&'static str),
    /// The kernel gave no random number.
    #[error("getrandom: {0}")]
    Random(std::io::Error),
    /// A thread cannot give up what it does not need.
    #[error("{0}")]
    KeptPrivilege(String),
    /// A thread cannot be started.
    #[error("starting the thread {name}: {error}")]
    Thread {
        /// Its name.
        name: &'static str,
        /// Why.
        error: std::io::Error,
    },
    /// A program that everything rests on was refused.
    #[error("the kernel refused {program} ({hook}): {reason}")]
    Program {
        /// Program name.
        program: &'static str,
        /// Where it would attach.
        hook: &'static str,
        /// The kernel's reason.
        reason: String,
    },
}

/// Each hook, and whether it attached or why not.
pub type Attempts = Vec<(&'static Hook, Result<(), String>)>;

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let exit = match &error {
            LoadError::Privilege(_) => Exit::NoPermission,
            _ => Exit::Unavailable,
        };
        Failure::new(exit, error.to_string())
    }
}

/// What to load for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Track only these ports; empty tracks all.
    pub ports: Vec<u16>,
    /// Whether a part of the host's cgroups will do, where no more can be seen.
    pub this_cgroup: bool,
    /// Kernel-side log level as the `log` crate counts (0 off, 4 debug); records go to its global logger. Off costs
    /// nothing: the logging code is removed when the programs load.
    pub log_level: u8,
}

/// The loaded object. Dropping it detaches and frees everything.
pub struct Programs {
    pub(super) ebpf: Ebpf,
    /// Mapped once: opening a ring buffer maps its pages.
    pub(super) events: RingBuf<MapData>,
    /// What the programs log, where that is asked for.
    pub(super) logs: Option<EbpfLogger<&'static dyn log::Log>>,
    /// Iterators that were read before, by program.
    pub(super) iterators: HashMap<&'static str, Arc<Iterator>>,
    pub(super) namespaces: Namespaces,
    pub(super) slots: Slots,
    /// A pass that is under way.
    pub(super) pages: Option<Pages>,
    /// [`Options::this_cgroup`].
    this_cgroup: bool,
    /// Programs that read members which this kernel's structures lack.
    unusable: BTreeMap<&'static str, BtfError>,
    /// Hooks that attached.
    pub hooks: Vec<&'static str>,
    /// Hooks that did not, and why.
    pub degraded: Vec<Degraded>,
}

/// A hook, what attaches to it and what is lost without it.
pub struct Hook {
    /// Name for people.
    pub name: &'static str,
    /// The program.
    pub program: &'static str,
    /// What it attaches to.
    pub target: &'static str,
    /// Whether the agent can do nothing without it.
    pub required: bool,
    /// What is lost without it.
    pub loss: &'static str,
}

/// The hook that close events come from.
pub const DESTROY_HOOK: &str = "tp_btf/tcp_destroy_sock";

/// The hook that retransmissions by listener come from.
pub const RETRANSMIT_HOOK: &str = "tp_btf/tcp_retransmit_skb";

/// The hook that epoll watches and memory mappings come from.
pub const TASK_HOOK: &str = "iter/task";

/// All hooks the agent uses.
pub const HOOKS: &[Hook] = &[
    Hook {
        name: "cgroup_skb/ingress",
        program: names::INGRESS,
        target: "ingress",
        required: true,
        loss: "received frames, client-side connections: everything rests on it",
    },
    Hook {
        name: "cgroup_skb/egress",
        program: names::EGRESS,
        target: "egress",
        required: true,
        loss: "sent frames, server-side connections: everything rests on it",
    },
    Hook {
        name: DESTROY_HOOK,
        program: names::DESTROY,
        target: "tcp_destroy_sock",
        required: false,
        loss: "close events and final counts; closed connections disappear at the next sweep",
    },
    Hook {
        name: RETRANSMIT_HOOK,
        program: names::RETRANSMIT,
        target: "tcp_retransmit_skb",
        required: false,
        loss: "retransmissions by listener; those of each connection remain",
    },
    Hook {
        name: "iter/tcp (older connections)",
        program: names::CANDIDATES,
        target: "tcp",
        required: false,
        loss: "connections that were open before the agent",
    },
    Hook {
        name: "iter/tcp",
        program: names::SOCKETS,
        target: "tcp",
        required: false,
        loss: "per-connection counts and kernel memory; totals by listener remain",
    },
    Hook {
        name: "iter/task_file",
        program: names::OWNERS,
        target: "task_file",
        required: false,
        loss: "process and descriptor of each connection; the descriptor ceiling of its process",
    },
    Hook {
        name: TASK_HOOK,
        program: names::TASKS,
        target: "task",
        required: false,
        loss: "use of the epoll and memory-mapping ceilings",
    },
];

impl Programs {
    /// Loads everything and attaches what attaches.
    pub fn load(options: &Options) -> Result<Self, LoadError> {
        let mut programs = Self::prepare(options)?;
        let outcomes = programs.attach_all()?;
        for (hook, outcome) in outcomes {
            match outcome {
                Ok(()) => programs.hooks.push(hook.name),
                Err(reason) if hook.required => {
                    return Err(LoadError::Program { program: hook.program, hook: hook.name, reason });
                }
                Err(reason) => programs.degraded.push(Degraded { probe: hook.name.into(), reason }),
            }
        }
        // While this thread has the privileges that both take.
        programs.make_iterators();
        programs.namespaces.start().map_err(LoadError::KeptPrivilege)?;
        programs.switch(true)?;
        release_free_memory();
        Ok(programs)
    }

    /// Has all programs work, or none of them. They attach and detach one after the other; in between, some would count what
    /// others do not see.
    pub(crate) fn switch(&mut self, on: bool) -> Result<(), LoadError> {
        let map = self.ebpf.map_mut(names::SWITCH).ok_or(LoadError::NoMap(names::SWITCH))?;
        Ok(aya::maps::Array::<_, u32>::try_from(map)?.set(0, u32::from(on), 0)?)
    }

    /// Leaves the calling thread with what reading takes from now on, and nothing else.
    pub(crate) fn keep_privileges_for_reading(&mut self) -> Result<(), LoadError> {
        let works = || {
            let listeners = self.listeners().is_ok();
            // Where the hook is missing there is nothing to read either.
            let readable = |iterator: &Arc<Iterator>| iterator.open().is_ok();
            listeners && self.iterators.values().all(readable)
        };
        privilege::keep_for_engine(works).map_err(LoadError::KeptPrivilege)
    }

    pub(super) fn prepare(options: &Options) -> Result<Self, LoadError> {
        let missing = privilege::missing_capabilities();
        if !missing.is_empty() {
            return Err(LoadError::Privilege(missing));
        }
        let btf = Btf::of_kernel()?;
        let offsets = Offsets::resolve(|structure, path| btf.offset_of(structure, path))?;
        drop(btf);
        let mut ebpf = load_object(options, &offsets)?;
        let events = ebpf.take_map(names::EVENTS).ok_or(LoadError::NoMap(names::EVENTS))?;
        let events = RingBuf::try_from(events)?;
        // Before anything attaches: a flow is judged by its first packets.
        watch(&mut ebpf, &options.ports)?;
        let logs = match options.log_level {
            0 => None,
            _ => Some(EbpfLogger::init(&mut ebpf).map_err(|error| LoadError::Logs(error.to_string()))?),
        };
        Ok(Programs {
            ebpf,
            events,
            logs,
            iterators: HashMap::new(),
            namespaces: Namespaces::default(),
            slots: Slots::default(),
            pages: None,
            this_cgroup: options.this_cgroup,
            unusable: offsets.unusable,
            hooks: Vec::new(),
            degraded: Vec::new(),
        })
    }

    /// Loads every program, which is the verifier's work and takes its time, and then attaches them.
    pub(super) fn attach_all(&mut self) -> Result<Attempts, LoadError> {
        let found = Cgroup::find()?;
        let cgroup = found.open(self.this_cgroup)?;
        self.degraded.extend(found.degraded());
        let loaded: Attempts = {
            // Tens of megabytes while it lives.
            let btf = aya::Btf::from_sys_fs()?;
            HOOKS
                .iter()
                .map(|hook| (hook, self.with_program(hook, |program| load(program, hook, &btf))))
                .collect()
        };
        let attach = |(hook, outcome): (&'static Hook, Result<(), String>)| {
            let attached =
                outcome.and_then(|()| self.with_program(hook, |program| attach(program, hook, &cgroup)));
            (hook, attached)
        };
        Ok(loaded.into_iter().map(attach).collect())
    }

    fn with_program(
        &mut self,
        hook: &Hook,
        job: impl FnOnce(&mut Program) -> Result<(), ProgramError>,
    ) -> Result<(), String> {
        if let Some(missing) = self.unusable.get(hook.program) {
            return Err(missing.to_string());
        }
        let program = self.ebpf.program_mut(hook.program).ok_or("it is not in the object")?;
        job(program).map_err(|error| reason(&error))
    }
}

fn load(program: &mut Program, hook: &Hook, btf: &aya::Btf) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSkb(program) => program.load(),
        Program::BtfTracePoint(program) => program.load(hook.target, btf),
        // An iterator attaches when it is read.
        program => TryInto::<&mut Iter>::try_into(program)?.load(hook.target, btf),
    }
}

fn attach(program: &mut Program, hook: &Hook, cgroup: &File) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSkb(program) => {
            let direction = match hook.program {
                names::INGRESS => CgroupSkbAttachType::Ingress,
                _ => CgroupSkbAttachType::Egress,
            };
            // Links always allow others beside them; any other mode is passed as flags that links do not take.
            program.attach(cgroup, direction, CgroupAttachMode::Single)?;
        }
        Program::BtfTracePoint(program) => {
            program.attach()?;
        }
        _ => {}
    }
    Ok(())
}

/// Tells the programs which ports are wanted.
fn watch(ebpf: &mut Ebpf, ports: &[u16]) -> Result<(), LoadError> {
    let map = ebpf.map_mut(names::PORTS).ok_or(LoadError::NoMap(names::PORTS))?;
    let mut map = aya::maps::HashMap::<_, u16, u8>::try_from(map)?;
    for port in ports {
        map.insert(port, 1, 0)?;
    }
    Ok(())
}

/// Creates the maps and patches the globals.
fn load_object(options: &Options, offsets: &Offsets) -> Result<Ebpf, LoadError> {
    let filter = u32::from(!options.ports.is_empty());
    let mut loader = EbpfLoader::new();
    for (global, offset) in &offsets.values {
        loader.override_global(global, offset, true);
    }
    loader.override_global(names::FILTER_PORTS, &filter, true);
    loader.override_global(names::LOG_LEVEL, &options.log_level, true);
    let flow_key = random().map_err(LoadError::Random)?;
    loader.override_global(names::FLOW_KEY, &flow_key, true);
    Ok(loader.load(object::bytes())?)
}

/// Nobody's guess.
fn random() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(bytes))
}

/// The verifier's log is long and its last lines say it all.
fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let tail: Vec<&str> = log.lines().rev().filter(|line| !line.is_empty()).take(4).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            format!("{io_error}; verifier: {}", tail.join(" | "))
        }
        error => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            text
        }
    }
}

/// Hands free heap pages back to the kernel: glibc would keep what parsing BTF needed for good.
fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim has no preconditions and is thread-safe.
    unsafe {
        libc::malloc_trim(0);
    }
}
