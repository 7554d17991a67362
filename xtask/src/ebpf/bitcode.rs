//! Step one: the programs as one LLVM bitcode module.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{BuildError, toolchain, workspace_root};

/// Variables of an outer cargo that would change the inner build: flags meant for the host, wrappers such as clippy's
/// driver, another target.
const OUTER: &[&str] = &[
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
    "CARGO_MAKEFLAGS",
    "MAKEFLAGS",
    "CLIPPY_ARGS",
];

pub(super) fn compile(target_dir: &Path) -> Result<PathBuf, BuildError> {
    let bitcode = target_dir.join("headroom.bc");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(&cargo);
    command
        .current_dir(workspace_root())
        .args(["rustc", "--quiet", "--locked", "--profile", "ebpf", "--package", "agent-ebpf"])
        .args(["--bin", "headroom-ebpf", "--features", "programs", "--target-dir"])
        .arg(target_dir)
        .arg("--")
        // A path of its own: cargo's carries a hash, and a stale module beside the new one would be linked twice.
        .arg(format!("--emit=llvm-bc={}", bitcode.display()))
        // Nothing is linked for the host; cargo insists on a linker all the same.
        .args(["-C", "linker=/bin/true"])
        .args(["-C", "relocation-model=static", "-C", "embed-bitcode=yes", "-C", "force-unwind-tables=no"])
        .stdin(Stdio::null())
        // A build script's stdout is read by cargo as directives.
        .stdout(Stdio::null());
    for name in OUTER {
        command.env_remove(name);
    }
    command.env("RUSTC", toolchain::rustc());
    // A fresh cargo does not run rustc again, so a module deleted by hand would stay missing.
    if !bitcode.exists() {
        let _ = std::fs::remove_dir_all(target_dir.join("ebpf"));
    }
    let status = command
        .status()
        .map_err(|source| BuildError::Spawn { command: format!("`{cargo} rustc`"), source })?;
    if status.success() && bitcode.exists() { Ok(bitcode) } else { Err(BuildError::Compile) }
}
