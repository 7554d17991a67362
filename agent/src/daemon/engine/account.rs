//! What the agent itself costs, and what it had to leave out.

use agent_ebpf::abi::Stat;

use super::Engine;
use crate::daemon::usage;
use crate::document::{Losses, SelfUsage};
use crate::host::Host;
use crate::kernel::{Probes, ReadError};
use crate::model::Clock;

impl<P: Probes, H: Host> Engine<P, H> {
    pub(super) fn usage(&mut self, clock: &Clock) -> SelfUsage {
        let losses = self.losses().map_err(|error| self.degrade("losses", error.to_string())).ok();
        SelfUsage {
            cpu_seconds: usage::process_cpu().as_secs_f64(),
            resident_bytes: usage::resident_bytes(),
            bpf_ns_per_packet: self.probes.packet_nanoseconds(),
            events_dropped: losses.map_or(0, |losses| losses.events) + self.dropped,
            lines_lost: self.lines_lost,
            left_out: self.left_out,
            losses,
            sweep_seconds: self.sweeps.cost().map(|cost| cost.as_secs_f64()),
            sweep_age_seconds: self.sweeps.age(clock.monotonic_ns).map(|age| age.as_secs_f64()),
        }
    }

    fn losses(&mut self) -> Result<Losses, ReadError> {
        Ok(Losses {
            events: self.probes.stat(Stat::EventsLost)?,
            listeners: self.probes.stat(Stat::ListenersFull)?,
            storage: self.probes.stat(Stat::StorageRefused)?,
            handshakes: self.probes.stat(Stat::HandshakesUnparsed)?,
            packets: self.probes.stat(Stat::Contended)?,
            reordered: self.probes.stat(Stat::ReorderFull)?,
            refused: self.probes.stat(Stat::Refused)?,
            refusals: self.probes.stat(Stat::RefusalsUnknown)?,
            heads: self.probes.stat(Stat::HeadsLost)?,
            unasked: self.probes.stat(Stat::UnaskedUpgrades)?,
            reconciled: self.reconciliation.repaired(),
            spilled: self.probes.stat(Stat::ReorderSpilled)?,
            missed: self.probes.stat(Stat::Missed)?,
        })
    }
}
