//! Step two: bitcode to BPF, with bpf-linker as a library.

use std::path::{Path, PathBuf};

use agent_ebpf::abi::names;
use bpf_linker::{Cpu, Linker, LinkerInput, LinkerOptions, OptLevel, OutputType};

use super::BuildError;

/// What to make of the bitcode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emit {
    /// The BPF object the agent embeds.
    Object,
    /// BPF assembly.
    Assembly,
    /// LLVM IR after linking.
    Ir,
}

impl Emit {
    fn file_name(self) -> &'static str {
        match self {
            Emit::Object => "headroom.bpf.o",
            Emit::Assembly => "headroom.bpf.s",
            Emit::Ir => "headroom.bpf.ll",
        }
    }

    fn output_type(self) -> OutputType {
        match self {
            Emit::Object => OutputType::Object,
            Emit::Assembly => OutputType::Assembly,
            Emit::Ir => OutputType::LlvmAssembly,
        }
    }
}

/// bpf-linker reports the back end's complaints through `tracing` only.
pub(super) fn link(bitcode: &Path, target_dir: &Path, emit: Emit) -> Result<PathBuf, BuildError> {
    let complaints = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::ERROR)
        .with_writer(std::io::stderr)
        .without_time()
        .finish();
    tracing::subscriber::with_default(complaints, || link_quietly(bitcode, target_dir, emit))
}

fn link_quietly(bitcode: &Path, target_dir: &Path, emit: Emit) -> Result<PathBuf, BuildError> {
    let output = target_dir.join(emit.file_name());
    let linker = Linker::new(LinkerOptions {
        target: Some(c"bpf".to_owned()),
        // v3 (32-bit ALU, atomics) is the newest that the oldest supported kernel understands.
        cpu: Cpu::V3,
        cpu_features: c"".to_owned(),
        optimize: OptLevel::Aggressive,
        unroll_loops: false,
        ignore_inline_never: false,
        llvm_args: Vec::new(),
        // Expanded in order, a struct copy becomes a call of `memset`, and the verifier refuses that function.
        disable_expand_memcpy_in_order: true,
        disable_memory_builtins: false,
        allow_bpf_trap: false,
        btf: true,
    });
    linker
        .link_to_file([LinkerInput::new_from_file(bitcode)], &output, emit.output_type(), exported())
        .map_err(|error| BuildError::Link { path: bitcode.to_owned(), message: error.to_string() })?;
    if linker.has_errors() {
        let message = "the LLVM BPF back end reported errors; they stand above".to_owned();
        return Err(BuildError::Link { path: bitcode.to_owned(), message });
    }
    Ok(output)
}

/// Everything the loader must find by name. What is not exported is inlined or dropped, and a map that is not exported
/// loses its name.
fn exported() -> impl Iterator<Item = &'static str> {
    let offsets = names::OFFSETS.iter().map(|(global, ..)| *global);
    let lists =
        [names::PROGRAMS, names::MAPS, names::GLOBALS, names::FUNCTIONS, names::PRIVATE, &["LICENSE"]];
    lists.into_iter().flatten().copied().chain(offsets)
}
