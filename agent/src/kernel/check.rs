//! Trying every hook without keeping any, and what the kernel says of the programs it took.

use aya::programs::{Program, ProgramInfo};
use serde::Serialize;

use super::load::{Attempts, LoadError, Options, Programs};

/// What came of trying everything.
pub struct Checked {
    /// Each hook, and whether it attached.
    pub hooks: Attempts,
    /// The programs that loaded.
    pub programs: Vec<Figures>,
}

/// A loaded program's size and what it took to verify it, as the kernel reports them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Name in the object.
    pub name: String,
    /// Instructions the verifier processed on all paths together; absent before Linux 5.16.
    pub verified_instructions: Option<u32>,
    /// Size of the program behind the verifier, which drops dead code and inlines helpers.
    pub translated_bytes: Option<u32>,
    /// Size of its machine code; absent where the kernel interprets programs.
    pub jited_bytes: Option<u32>,
}

impl Figures {
    fn new(name: &str, info: &ProgramInfo) -> Self {
        Self {
            name: name.to_owned(),
            verified_instructions: info.verified_instruction_count(),
            translated_bytes: info.size_translated(),
            jited_bytes: Some(info.size_jitted()).filter(|bytes| *bytes > 0),
        }
    }
}

impl Programs {
    /// Tries every hook and says what came of it; everything is detached again.
    pub fn check(options: &Options) -> Result<Checked, LoadError> {
        let mut programs = Self::prepare(options)?;
        let hooks = programs.attach_all()?;
        programs.load_unhooked();
        Ok(Checked { hooks, programs: programs.figures() })
    }

    /// Loads what has no hook of its own: programs that the benchmark and tests run, and that say there why they fail.
    fn load_unhooked(&mut self) {
        for (_, program) in self.ebpf.programs_mut() {
            if let Program::CgroupSkb(program) = program {
                // Those that have a hook are loaded already, or were refused.
                let _ = program.load();
            }
        }
    }

    fn figures(&self) -> Vec<Figures> {
        // A program that was refused has no information.
        let loaded = |(name, program): (&str, &Program)| Some(Figures::new(name, &program.info().ok()?));
        let mut figures: Vec<Figures> = self.ebpf.programs().filter_map(loaded).collect();
        figures.sort_by(|a, b| a.name.cmp(&b.name));
        figures
    }
}
