//! What the packet programs cost, as the kernel counts it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Duration;

use agent_ebpf::abi::names;
use aya::TestRun as _;
use aya::programs::links::CgroupAttachMode;
use aya::programs::{CgroupSkb, CgroupSkbAttachType, TestRunOptions};
use aya::sys::{Stats, enable_stats};

use super::cgroup::Cgroup;
use super::load::{LoadError, Options, Programs};

/// Run time and runs of a program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Runs {
    /// Total run time, the statistics' own cost of some 20 ns a run included.
    pub time: Duration,
    /// Number of runs.
    pub count: u64,
}

impl Runs {
    /// Runs between an earlier reading and this one.
    pub fn since(self, earlier: Runs) -> Runs {
        Runs { time: self.time.saturating_sub(earlier.time), count: self.count.saturating_sub(earlier.count) }
    }

    /// Mean time of a run in nanoseconds.
    pub fn nanoseconds(self) -> Option<f64> {
        (self.count > 0).then(|| self.time.as_nanos() as f64 / self.count as f64)
    }
}

/// Has the kernel keep run-time statistics while it lives (`kernel.bpf_stats_enabled`, for everybody).
pub struct Statistics(#[expect(dead_code, reason = "held open")] OwnedFd);

impl Statistics {
    /// Turns them on.
    pub fn enable() -> std::io::Result<Self> {
        enable_stats(Stats::RunTime).map(Self).map_err(|error| error.io_error)
    }
}

impl Programs {
    /// Run-time statistics of the two packet programs together; zero while statistics are off.
    pub fn packet_runs(&self) -> Runs {
        self.runs(&[names::INGRESS, names::EGRESS])
    }

    /// The same of the empty program.
    pub fn empty_runs(&self) -> Runs {
        self.runs(&[names::EMPTY])
    }

    fn runs(&self, programs: &[&str]) -> Runs {
        let infos = programs.iter().filter_map(|name| self.ebpf.program(name)?.info().ok());
        infos.fold(Runs::default(), |sum, info| Runs {
            time: sum.time + info.run_time(),
            count: sum.count + info.run_count(),
        })
    }

    /// Attaches nothing but the empty program, to both packet hooks: the hook's own cost.
    pub fn load_empty() -> Result<Self, LoadError> {
        let mut programs = Self::prepare(&Options::default())?;
        let cgroup = Cgroup::find()?.open(true)?;
        programs.attach_empty(&cgroup).map_err(|reason| LoadError::Program {
            program: names::EMPTY,
            hook: "cgroup_skb",
            reason,
        })?;
        Ok(programs)
    }

    fn attach_empty(&mut self, cgroup: &File) -> Result<(), String> {
        let program: &mut CgroupSkb = self.packet_program(names::EMPTY)?;
        program.load().map_err(|error| error.to_string())?;
        for direction in [CgroupSkbAttachType::Ingress, CgroupSkbAttachType::Egress] {
            program.attach(cgroup, direction, CgroupAttachMode::Single).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Runs the egress program (or the empty one) on an Ethernet frame `repeat` times without any traffic, on a socket
    /// that nothing tracks. Returns nanoseconds per run.
    pub fn test_run(&mut self, empty: bool, frame: &[u8], repeat: u32) -> Result<u64, String> {
        let program = self.packet_program(if empty { names::EMPTY } else { names::EGRESS })?;
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
        let result = program.test_run(options).map_err(|error| error.to_string())?;
        Ok(result.duration.as_nanos() as u64)
    }

    pub(super) fn packet_program(&mut self, name: &str) -> Result<&mut CgroupSkb, String> {
        let program = self.ebpf.program_mut(name).ok_or("not in the object")?;
        program.try_into().map_err(|error: aya::programs::ProgramError| error.to_string())
    }
}
