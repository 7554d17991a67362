//! What the build needs of the machine, checked before it can fail in an obscure way.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::BuildError;

/// The release rust-toolchain.toml pins.
const RELEASE: &str = "1.95.0";
/// The LLVM it carries, and the one the pinned bpf-linker speaks.
const LLVM: &str = "22";

pub(super) fn rustc() -> String {
    std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into())
}

pub(super) fn check() -> Result<(), BuildError> {
    compiler()?;
    let rustc = rustc();
    let version = run(Command::new(&rustc).arg("-vV"))?;
    let field = |name: &str| {
        version
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
            .unwrap_or("unknown")
            .to_owned()
    };
    let (release, llvm) = (field("release:"), field("LLVM version:"));
    if release != RELEASE || llvm.split('.').next() != Some(LLVM) {
        let found = format!("{release} (LLVM {llvm})");
        return Err(BuildError::Toolchain { rustc, expected: RELEASE, llvm: LLVM, found });
    }
    libllvm(Path::new(run(Command::new(&rustc).args(["--print", "sysroot"]))?.trim()))
}

/// Build scripts and procedural macros are linked by the host's C compiler.
fn compiler() -> Result<(), BuildError> {
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    // CC may hold a launcher and flags: ccache gcc -m64.
    let mut words = cc.split_whitespace();
    let program = words.next().unwrap_or("cc");
    match Command::new(program).args(words).arg("--version").output() {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err(BuildError::NoCompiler(cc)),
    }
}

fn libllvm(sysroot: &Path) -> Result<(), BuildError> {
    let lib: PathBuf = sysroot.join("lib");
    let entries = std::fs::read_dir(&lib).map_err(|source| BuildError::File { path: lib.clone(), source })?;
    let found = entries
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with(&format!("libLLVM-{LLVM}")));
    if found { Ok(()) } else { Err(BuildError::NoLlvm(lib)) }
}

fn run(command: &mut Command) -> Result<String, BuildError> {
    let output =
        command.output().map_err(|source| BuildError::Spawn { command: format!("{command:?}"), source })?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
