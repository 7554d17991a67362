//! headroom-server's compression with clients that have nothing to do with this project, whatever they offer, across
//! parking.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::binaries;
use crate::process::Process;
use crate::python;
use crate::servers::NODE_PATH;

const PATIENCE: Duration = Duration::from_secs(60);

/// Who keeps its window in the server's settings, the largest windows, and whether any client may keep both.
const SETTINGS: [(&str, &str, bool); 4] =
    [("none", "12", false), ("both", "15", true), ("both", "10", true), ("client", "15", false)];

pub(crate) fn python_websockets_is_understood() -> anyhow::Result<()> {
    for settings in SETTINGS {
        let (_server, port) = server(settings)?;
        judge(python::result(python::start("compressed.py", &[&port])?)?, 64, settings)?;
    }
    Ok(())
}

pub(crate) fn javascript_ws_is_understood() -> anyhow::Result<()> {
    for settings in SETTINGS {
        let (_server, port) = server(settings)?;
        let mut command = Command::new("node");
        command.env("NODE_PATH", NODE_PATH).arg(python::path("compressed.js")).arg(&port);
        let ended = Process::start(&mut command)?.finish(PATIENCE)?;
        ensure!(ended.status.success(), "compressed.js ended: {}", ended.stderr.join("\n"));
        let last = ended.stdout.last().context("compressed.js printed nothing")?;
        judge(serde_json::from_str(last)?, 80, settings)?;
    }
    Ok(())
}

fn server((takeover, bits, _): (&str, &str, bool)) -> anyhow::Result<(Process, String)> {
    let mut command = Command::new(binaries::path("headroom-server")?);
    command.args(["--listen", "ws://127.0.0.1:0", "--idle-after", "5ms", "--deflate-min-size", "0B"]);
    command.args(["--deflate-takeover", takeover]);
    command.args(["--deflate-server-window-bits", bits, "--deflate-client-window-bits", bits]);
    let server = Process::start(&mut command)?;
    let address = server.stdout.after("listening on ws://")?.context("headroom-server did not start")?;
    let (_, port) = address.rsplit_once(':').context("no port")?;
    let port = port.to_owned();
    Ok((server, port))
}

fn judge(told: Value, connections: u64, (takeover, bits, keeps): (&str, &str, bool)) -> anyhow::Result<()> {
    ensure!(told["connections"] == connections, "{takeover} {bits}: {told}");
    ensure!((told["kept"].as_u64() > Some(0)) == keeps, "{takeover} {bits}: {told}");
    Ok(())
}
