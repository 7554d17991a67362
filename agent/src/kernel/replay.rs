//! Packets through the loaded tracker without traffic, for tests: the kernel's build against the host's.

use agent_ebpf::abi::{Replay, names};
use aya::TestRun as _;
use aya::maps::{Array, MapData};
use aya::programs::{CgroupSkb, TestRunOptions};

use super::load::{LoadError, Options, Programs};
use super::record::MapValue;

// SAFETY: made of plain integers without padding (the ABI module asserts its size), and so any bytes are one.
unsafe impl aya::Pod for MapValue<Replay> {}

/// The replay program, loaded and attached to nothing.
pub struct Replayer {
    programs: Programs,
    state: Array<MapData, MapValue<Replay>>,
}

impl Replayer {
    /// Loads it.
    pub fn load() -> Result<Self, LoadError> {
        let mut programs = Programs::prepare(&Options::default())?;
        let map = programs.ebpf.take_map(names::REPLAYED).ok_or(LoadError::NoMap(names::REPLAYED))?;
        let state = Array::try_from(map)?;
        let program: &mut CgroupSkb = programs
            .packet_program(names::REPLAY)
            .map_err(|reason| LoadError::Program { program: names::REPLAY, hook: "test run", reason })?;
        program.load().map_err(|error| LoadError::Program {
            program: names::REPLAY,
            hook: "test run",
            reason: error.to_string(),
        })?;
        Ok(Self { programs, state })
    }

    /// Runs one Ethernet frame on `state` and returns what became of it.
    pub fn run(&mut self, state: &Replay, frame: &[u8]) -> Result<Replay, String> {
        self.state.set(0, MapValue(*state), 0).map_err(|error| error.to_string())?;
        let program = self.programs.packet_program(names::REPLAY)?;
        let options = TestRunOptions { data_in: Some(frame), repeat: 1, ..TestRunOptions::new() };
        program.test_run(options).map_err(|error| error.to_string())?;
        let MapValue(state) = self.state.get(&0, 0).map_err(|error| error.to_string())?;
        Ok(state)
    }
}
