//! The agent where it can see only a part of the host's cgroups, as in a container with a cgroup namespace of its own.

use std::process::Command;

use agent::document::{Degraded, Snapshot};
use anyhow::{Context as _, ensure};
use procfs::process::Process as ProcProcess;

use crate::agent_process::{command, refusals};
use crate::binaries;
use crate::containers::Group;
use crate::process::{Ended, SOON, run};
use crate::runner::Skip;

const PROBE: &str = "connections outside of this cgroup";

pub(crate) fn a_part_of_the_host_is_refused_or_said() -> anyhow::Result<()> {
    // In the root nothing of this is said.
    let whole = run(&mut command(&["snapshot", "--json", "--settle", "0"])?, SOON)?;
    refusals(&whole)?;
    let whole: Snapshot = document(&whole)?;
    ensure!(said(&whole.host.degraded).is_none(), "{:?}", whole.host.degraded);

    let group = Group::new(&format!("headroom-part-{}", std::process::id()))?;
    let refused = run(&mut contained(&group, true, "snapshot --json --settle 0")?, SOON)?;
    ensure!(refused.status.code() == Some(69), "{}: {:?}", refused.status, refused.stderr);
    ensure!(refused.stdout.is_empty() && refused.stderr.len() == 1, "{:?}", refused.stderr);
    ensure!(refused.stderr[0].contains("--this-cgroup"), "{:?}", refused.stderr);

    let part = run(&mut contained(&group, true, "snapshot --json --settle 0 --this-cgroup")?, SOON)?;
    let part: Snapshot = document(&part)?;
    ensure!(said(&part.host.degraded).is_some_and(|said| said.reason.contains("--this-cgroup")), "{part:?}");

    let stream =
        run(&mut contained(&group, true, "run --duration 1s --interval 200ms --this-cgroup")?, SOON)?;
    ensure!(stream.status.success(), "{}: {:?}", stream.status, stream.stderr);
    let mut ticks = 0;
    for line in &stream.stdout {
        let event: serde_json::Value = serde_json::from_str(line)?;
        let degraded = match event["event"].as_str() {
            Some("agent_started") => &event["agent_started"]["host"]["degraded"],
            Some("tick") => &event["tick"]["degraded"],
            _ => continue,
        };
        ticks += 1;
        let degraded: Vec<Degraded> = serde_json::from_value(degraded.clone())?;
        ensure!(said(&degraded).is_some(), "{line}");
    }
    ensure!(ticks >= 3, "{ticks} documents");

    let check = run(&mut contained(&group, true, "check")?, SOON)?;
    ensure!(check.status.code() == Some(69), "{}: {:?}", check.status, check.stdout);

    // A namespace of its own is no hindrance where the host's hierarchy is mounted all the same.
    let mounted = run(&mut contained(&group, false, "snapshot --json --settle 0")?, SOON)?;
    let mounted: Snapshot = document(&mounted)?;
    ensure!(said(&mounted.host.degraded).is_none(), "{:?}", mounted.host.degraded);
    Ok(())
}

fn said(degraded: &[Degraded]) -> Option<&Degraded> {
    degraded.iter().find(|missing| missing.probe == PROBE)
}

fn document(ended: &Ended) -> anyhow::Result<Snapshot> {
    ensure!(ended.status.success(), "{}: {:?}", ended.status, ended.stderr);
    serde_json::from_str(&ended.stdout.join("\n")).context("the snapshot is not what the schema says")
}

/// The agent in `group` and in a cgroup namespace that has it for its root; with a hierarchy of its own as container
/// managers mount one, or with the host's.
fn contained(group: &Group, own_mount: bool, arguments: &str) -> anyhow::Result<Command> {
    let mounts = ProcProcess::myself()?.mountinfo()?;
    let root = mounts.into_iter().find(|mount| mount.fs_type == "cgroup2");
    let root = root.ok_or_else(|| Skip("no cgroup v2 hierarchy is mounted".into()))?.mount_point;
    let agent = binaries::path("headroom-agent")?;
    let mount = match own_mount {
        true => format!("umount -l {root}; mount -t cgroup2 none {root};", root = root.display()),
        false => String::new(),
    };
    let script = format!(
        "set -e; {enter}; exec unshare --cgroup --mount sh -c 'set -e; {mount} exec {agent} {arguments}'",
        enter = group.enter(),
        agent = agent.display(),
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]);
    Ok(shell)
}
