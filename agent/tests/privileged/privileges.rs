//! What the agent's threads may do once it has attached.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use agent::document::{Body, Envelope};
use anyhow::{Context as _, ensure};
use caps::Capability;

use crate::agent_process::Run;
use crate::binaries;
use crate::load;
use crate::pace::patient;
use crate::process::{Process, SOON, until};
use crate::runner::Skip;

/// What docs/capabilities.md says of each thread, by its name.
fn allowed(thread: &str) -> u64 {
    let set = |capabilities: &[Capability]| capabilities.iter().fold(0, |set, one| set | one.bitmask());
    match thread {
        "engine" => set(&[Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH]),
        "namespaces" | "namespace" => set(&[Capability::CAP_SYS_ADMIN]),
        _ => 0,
    }
}

pub(crate) fn no_thread_keeps_what_it_does_not_need() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Skip("not root: there are no privileges to give up".into()).into());
    }
    let (server, address) = load::server()?;
    let port = address.port().to_string();
    let mut run = Run::attach(&["--port", &port, "--interval", "200ms"])?;
    check(run.process.pid(), "headroom-agent", &["headroom-agent", "engine", "namespaces"])?;

    // And all of it works: connections are seen, swept, and their process is read.
    let clients = load::load(address, 5, 5, &[])?;
    let pid = server.pid();
    run.until("a process with its descriptors", patient(SOON), |tick, _| {
        tick.processes.iter().any(|process| {
            process.pid == pid && process.connections == 5 && process.descriptors.open.is_some()
        })
    })?;
    check(run.process.pid(), "headroom-agent", &["headroom-agent", "engine", "namespaces"])?;
    drop((clients, server));
    Ok(())
}

pub(crate) fn threads_that_serve_readers_keep_nothing() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Skip("not root: there are no privileges to give up".into()).into());
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("agent.sock");
    let output = format!("unix:{}", path.display());
    let mut agent = crate::agent_process::command(&[
        "run",
        "--port",
        "21998",
        "--interval",
        "200ms",
        "--output",
        &output,
    ])?;
    let agent = Process::start(&mut agent)?;
    let mut joined = None;
    until("joining", patient(SOON), || {
        joined = UnixStream::connect(&path).ok();
        Ok(joined.is_some())
    })?;
    let reader = joined.context("joined")?;
    reader.set_read_timeout(Some(SOON))?;
    let mut lines = BufReader::new(reader).lines();
    // Whoever is told of something is served by all threads there are.
    let first: Envelope = serde_json::from_str(&lines.next().context("a line")??)?;
    ensure!(matches!(first.body, Body::AgentStarted(_) | Body::Tick(_)), "{}", first.event);
    check(agent.pid(), "headroom-agent", &["headroom-agent", "engine", "namespaces", "readers", "reader"])
}

pub(crate) fn the_dashboard_that_runs_the_agent_keeps_no_more() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Skip("not root: there are no privileges to give up".into()).into());
    }
    let mut headroom = std::process::Command::new(binaries::path("headroom")?);
    let dashboard = Process::start(headroom.args(["--once", "--port", "21999", "--settle", "60s"]))?;
    let ready = || Ok(threads(dashboard.pid())?.iter().any(|(name, _)| name == "engine"));
    until("the agent", patient(SOON), ready)?;
    let settled = || Ok(check(dashboard.pid(), "headroom", &["headroom", "engine", "namespaces"]).is_ok());
    // Threads give up what they have one after the other.
    let _ = until("giving up", patient(Duration::from_secs(5)), settled);
    check(dashboard.pid(), "headroom", &["headroom", "engine", "namespaces"])
}

/// Every thread of the process has at most what it may keep, and those of these names are there.
fn check(pid: u32, program: &str, names: &[&str]) -> anyhow::Result<()> {
    let threads = threads(pid)?;
    for (name, status) in &threads {
        let hexadecimal = |key: &str| -> anyhow::Result<u64> {
            let value = status.get(key).with_context(|| format!("{name} of {program} has no {key}"))?;
            Ok(u64::from_str_radix(value, 16)?)
        };
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            let more = hexadecimal(set)? & !allowed(name);
            ensure!(more == 0, "{name} of {program}: {set} has {more:x} beyond what it needs");
        }
        for set in ["CapInh", "CapAmb"] {
            ensure!(hexadecimal(set)? == 0, "{name} of {program}: {set}");
        }
        ensure!(status.get("NoNewPrivs").is_some_and(|value| value == "1"), "{name} of {program}");
    }
    for name in names {
        ensure!(
            threads.iter().any(|(thread, _)| thread == name),
            "no thread {name} in {program}: {threads:?}"
        );
    }
    Ok(())
}

type Status = BTreeMap<String, String>;

/// Name and status of each thread.
fn threads(pid: u32) -> anyhow::Result<Vec<(String, Status)>> {
    let mut threads = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // It may have ended meanwhile.
        let Ok(text) = std::fs::read_to_string(thread?.path().join("status")) else {
            continue;
        };
        let status: Status = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
            .collect();
        threads.push((status.get("Name").cloned().unwrap_or_default(), status));
    }
    Ok(threads)
}
