//! What the kernel alone tells of processes that hold connections.

use std::collections::BTreeMap;

use agent_ebpf::abi::Task;

use crate::kernel::{Probes, ReadError};
use crate::model::{Holder, Reading};

/// As of the last sweep, by process id.
#[derive(Debug, Default)]
pub(super) struct Tasks(BTreeMap<u32, Task>);

impl Tasks {
    /// Asks anew. To be done with a sweep, so that use and connections are of the same moment.
    pub(super) fn read(
        &mut self,
        probes: &mut impl Probes,
        holders: &BTreeMap<u32, Holder>,
    ) -> Result<(), ReadError> {
        self.0.clear();
        probes.tasks(&mut |task| {
            if holders.contains_key(&task.pid) {
                self.0.insert(task.pid, *task);
            }
        })
    }

    /// Adds it to what the host says.
    pub(super) fn complete(&self, reading: &mut Reading) {
        for process in &mut reading.processes {
            let task = self.0.get(&process.pid);
            process.memory_maps = task.map(|task| task.mappings);
            process.user_watches = task.map(|task| u64::try_from(task.watches).unwrap_or(0));
        }
    }
}
