//! The Python environment with the foreign WebSocket implementation, kept in the target directory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::binaries;
use crate::process::{Process, SOON, run};

/// What the scripts are written against: the WebSocket package whose frames frames.py counts, and what impostors.py and
/// encrypted.py speak HTTP/2 and TLS with.
const PACKAGES: &[&str] = &["websockets>=15,<18", "h2>=4.1,<5", "trustme>=1.1,<2"];
const IMPORTS: &str = "import websockets.asyncio, h2.connection, trustme";
const INSTALL: Duration = Duration::from_secs(180);

/// Starts one of this folder's scripts.
pub(crate) fn start(script: &str, arguments: &[&str]) -> anyhow::Result<Process> {
    let mut command = Command::new(interpreter()?);
    // No compiled modules beside the scripts.
    Process::start(command.arg("-B").arg(path(script)).args(arguments))
}

/// Waits for a script's end; its last line is its result.
pub(crate) fn result(script: Process) -> anyhow::Result<Value> {
    let ended = script.finish(SOON)?;
    ensure!(ended.status.success(), "a script ended: {}: {}", ended.status, ended.stderr.join("\n"));
    let last = ended.stdout.last().context("a script printed no result")?;
    serde_json::from_str(last).with_context(|| format!("a script printed {last}"))
}

/// Where a script of this folder is.
pub(crate) fn path(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/privileged").join(script)
}

/// The environment's interpreter; the first call makes the environment.
pub(crate) fn interpreter() -> anyhow::Result<PathBuf> {
    let folder = binaries::folder()?;
    let environment = folder.parent().context("no target directory")?.join("venv");
    let python = environment.join("bin/python");
    let imports = || Command::new(&python).args(["-c", IMPORTS]).output();
    if !imports().is_ok_and(|output| output.status.success()) {
        successful(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
        successful(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES))?;
    }
    Ok(python)
}

fn successful(command: &mut Command) -> anyhow::Result<()> {
    let ended = run(command, INSTALL)?;
    ensure!(ended.status.success(), "{command:?}: {}", ended.stderr.join(" "));
    Ok(())
}
