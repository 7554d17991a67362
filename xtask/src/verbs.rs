//! One file per verb.

pub(crate) mod bench;
pub(crate) mod build_ebpf;
pub(crate) mod conformance;
mod crowd;
pub(crate) mod demo;
pub(crate) mod fuzz;
mod listening;
mod python;
pub(crate) mod test;
mod usage;
mod verifier;
pub(crate) mod vm_test;

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use xtask::ebpf::workspace_root;

/// The cargo that runs this program, in the workspace, with `arguments` between spaces.
fn cargo(arguments: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace_root()).args(arguments.split_whitespace());
    command
}

/// Where that cargo builds.
pub(crate) fn target_dir() -> PathBuf {
    // A relative path counts from where a cargo runs: for those started here, the root.
    let chosen = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace_root().join(chosen)
}

/// The path of a target's executable, from a line of cargo's messages.
fn executable(line: &str, target: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let found = message["target"]["name"] == target;
    message["executable"].as_str().filter(|_| found).map(PathBuf::from)
}
