//! Building the eBPF object on stable Rust: rustc makes bitcode for the host target, bpf-linker turns it into BPF.
//!
//! docs/architecture.md ("Building eBPF on stable Rust") says why.

mod bitcode;
mod inspect;
mod link;
mod toolchain;

use std::path::{Path, PathBuf};

use thiserror::Error;

pub use inspect::{Contents, Program, STACK_LIMIT, inspect};
pub use link::Emit;

/// Why the object could not be built. Each message says what to do.
#[derive(Debug, Error)]
pub enum BuildError {
    /// No C compiler.
    #[error(
        "no C compiler: `{0}` cannot be run; install one (Debian: apt-get install gcc) or set CC to its name"
    )]
    NoCompiler(String),
    /// The compiler is not the pinned one.
    #[error(
        "the eBPF build needs rustc {expected} (LLVM {llvm}), but `{rustc}` is {found}; run it through rustup \
         (rust-toolchain.toml pins the version)"
    )]
    Toolchain {
        /// Path of the compiler that was asked.
        rustc: String,
        /// The pinned release.
        expected: &'static str,
        /// The LLVM major version bpf-linker was built for.
        llvm: &'static str,
        /// What the compiler said it is.
        found: String,
    },
    /// The toolchain has no libLLVM.
    #[error(
        "no libLLVM in {0}: bpf-linker loads the one that comes with rustup's toolchain; distribution toolchains \
         keep it elsewhere, so install the pinned one with rustup"
    )]
    NoLlvm(PathBuf),
    /// A command of the build cannot be run.
    #[error("cannot run {command}: {source}")]
    Spawn {
        /// The command.
        command: String,
        /// Why.
        source: std::io::Error,
    },
    /// rustc refused the programs; its own messages stand above.
    #[error("compiling agent-ebpf failed; rustc's messages stand above")]
    Compile,
    /// bpf-linker refused the bitcode.
    #[error("linking {path}: {message}")]
    Link {
        /// The bitcode.
        path: PathBuf,
        /// bpf-linker's words.
        message: String,
    },
    /// A file of the build cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The object is not what the agent will look for.
    #[error("the object {0}")]
    Contents(String),
}

/// Builds the object (or its assembly or IR) into `target_dir` and returns its path.
///
/// `target_dir` must not be a target directory that another cargo holds locked at the moment: a build script passes a
/// folder under its `OUT_DIR`.
pub fn build(target_dir: &Path, emit: Emit) -> Result<PathBuf, BuildError> {
    toolchain::check()?;
    let bitcode = bitcode::compile(target_dir)?;
    let output = link::link(&bitcode, target_dir, emit)?;
    if matches!(emit, Emit::Object) {
        inspect(&output)?.check()?;
    }
    Ok(output)
}

/// The workspace's root folder.
pub fn workspace_root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}
