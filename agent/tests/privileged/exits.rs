//! How the agent refuses.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::agent_process::command;
use crate::binaries;
use crate::process::{SOON, run};
use crate::runner::Skip;

pub(crate) fn each_refusal_is_one_line_and_a_documented_code() -> anyhow::Result<()> {
    refuses(&mut command(&["snapshot", "--no-such-flag"])?, 64, &["--no-such-flag"])?;
    refuses(&mut command(&["run", "--interval", "soon"])?, 64, &["soon"])?;
    refuses(
        &mut command(&["run", "--config", "/nonexistent/headroom.toml"])?,
        78,
        &["/nonexistent/headroom.toml"],
    )?;
    let root = rustix::process::geteuid().is_root();
    let scratch = Scratch::new()?;
    let agent = scratch.agent()?;
    refuses(&mut unprivileged(&agent, root), 77, &["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"])?;
    if !root {
        return Err(
            Skip("not root: hiding cgroup v2 and BTF from the agent takes a mount namespace".into()).into()
        );
    }
    let unmount = r#"awk '$3 == "cgroup2" { print $2 }' /proc/self/mounts | xargs -r umount -l"#;
    refuses(&mut namespaced(unmount, &agent), 69, &["cgroup"])?;
    let hide = format!("mount --bind {} /sys/kernel/btf", scratch.0.path().join("empty").display());
    refuses(&mut namespaced(&hide, &agent), 69, &["BTF"])
}

fn refuses(command: &mut Command, code: i32, names: &[&str]) -> anyhow::Result<()> {
    let ended = run(command, SOON)?;
    let said = ended.stderr.join("\n");
    ensure!(ended.status.code() == Some(code), "{command:?}: {} instead of {code}: {said}", ended.status);
    ensure!(ended.stderr.len() == 1, "{command:?}: {} lines on stderr: {said}", ended.stderr.len());
    ensure!(ended.stdout.is_empty(), "{command:?}: says {} on stdout", ended.stdout.join("\n"));
    for name in names {
        ensure!(said.contains(name), "{command:?}: does not name {name}: {said}");
    }
    Ok(())
}

/// The agent as nobody, who cannot be counted on to reach the build folder.
fn unprivileged(agent: &Path, root: bool) -> Command {
    if !root {
        let mut command = Command::new(agent);
        command.args(["snapshot", "--json"]);
        return command;
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(agent)
        .args(["snapshot", "--json"]);
    command
}

/// The agent in a mount namespace of its own, in which `change` was made.
fn namespaced(change: &str, agent: &Path) -> Command {
    let mut command = Command::new("unshare");
    let script = format!("set -e; {change}; exec {} snapshot --json --settle 0", agent.display());
    command.args(["--mount", "sh", "-c", &script]);
    command
}

/// A folder that everyone can read.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir()?;
        std::fs::create_dir(folder.path().join("empty"))?;
        Ok(Self(folder))
    }

    fn agent(&self) -> anyhow::Result<std::path::PathBuf> {
        let copy = self.0.path().join("headroom-agent");
        std::fs::copy(binaries::path("headroom-agent")?, &copy).context("copying headroom-agent")?;
        Ok(copy)
    }
}
