//! The Python environment in the target directory, which the privileged tests use too.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::ensure;

use super::target_dir;
use crate::process::{Running, Stop};

const PACKAGE: &str = "websockets>=15,<18";

/// Its interpreter, which can import websockets. What else is in it stays.
pub(super) fn interpreter(stop: &Stop) -> anyhow::Result<PathBuf> {
    let environment = target_dir().join("venv");
    let python = environment.join("bin/python");
    let imports = || {
        let mut command = Command::new(&python);
        command.args(["-c", "import websockets.asyncio"]).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    if !imports() {
        run(stop, Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        run(stop, Command::new(&python).args(["-m", "pip", "install", "--quiet", PACKAGE]))?;
    }
    Ok(python)
}

fn run(stop: &Stop, command: &mut Command) -> anyhow::Result<()> {
    let status = Running::start(command)?.wait(stop)?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}
