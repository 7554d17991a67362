//! A file of events on a disk that is full.

use std::path::{Path, PathBuf};
use std::process::Command;

use agent::document::{Body, Envelope};
use anyhow::{Context as _, ensure};
use rustix::process::Signal;

use crate::agent_process::{Run, command};
use crate::pace::patient;
use crate::process::{Process, SOON, until};
use crate::runner::Skip;

/// Lines are lost, counted and told of in the file once there is room again; each is whole.
pub(crate) fn lines_are_lost_and_the_agent_goes_on() -> anyhow::Result<()> {
    drop(Run::attach(&["--duration", "1s"])?);
    if !rustix::process::geteuid().is_root() {
        return Err(Skip("not root: a small file system cannot be mounted".into()).into());
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("events.jsonl");
    // The file system is the agent's alone, and goes with it. What fills it leaves room for a few lines.
    let script = "set -e; mount -t tmpfs -o size=64k none \"$0\"; head -c 40000 /dev/zero > \"$0/filler\"; exec \"$@\"";
    let agent = command(&["run", "--interval", "50ms"])?;
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "sh", "-c", script]).arg(folder.path()).arg(agent.get_program());
    shell.args(agent.get_args()).arg("--output").arg(format!("file:{}", path.display()));
    let mut agent = Process::start(&mut shell)?;
    let said = agent.stderr.next(patient(SOON))?.context("it says that the disk is full")?;
    ensure!(said.contains("No space left on device"), "{said}");
    let seen = |path: &Path| PathBuf::from(format!("/proc/{}/root{}", agent.pid(), path.display()));
    let (events, filler) = (seen(&path), seen(&folder.path().join("filler")));
    std::fs::remove_file(&filler).with_context(|| format!("removing {}", filler.display()))?;
    let mut text = String::new();
    let told = |text: &str| -> anyhow::Result<bool> {
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        Ok(parse(whole)?
            .iter()
            .any(|event| matches!(&event.body, Body::Tick(tick) if tick.agent.lines_lost > 0)))
    };
    until("lines that say what was lost", patient(SOON), || {
        text = std::fs::read_to_string(&events)?;
        told(&text)
    })?;
    ensure!(agent.is_running()?, "the agent ended");
    agent.signal(Signal::TERM)?;
    let ended = agent.finish(SOON)?;
    ensure!(ended.status.success(), "{}: {:?}", ended.status, ended.stderr);

    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let (mut next, mut lost, mut holes) = (0, 0, 0);
    for event in parse(whole)? {
        holes += event.seq.checked_sub(next).context("numbers go up")?;
        next = event.seq + 1;
        if let Body::LinesLost(missing) = event.body {
            lost += missing.lines;
            holes += 1;
        }
    }
    ensure!(lost > 0 && lost == holes, "{lost} lines are said to be lost, {holes} are missing");
    Ok(())
}

/// A limit on the size of files (RLIMIT_FSIZE) comes with a signal that ends whoever does not expect it.
pub(crate) fn a_limit_of_the_files_size_is_no_end() -> anyhow::Result<()> {
    drop(Run::attach(&["--duration", "1s"])?);
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("events.jsonl");
    let agent = command(&["run", "--interval", "50ms", "--duration", "3s"])?;
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f 16; exec \"$0\" \"$@\""]).arg(agent.get_program()).args(agent.get_args());
    let ended =
        crate::process::run(shell.arg("--output").arg(format!("file:{}", path.display())), patient(SOON))?;
    ensure!(ended.status.success(), "{}: {:?}", ended.status, ended.stderr);
    ensure!(ended.stderr.len() == 1 && ended.stderr[0].contains("lines are lost"), "{:?}", ended.stderr);
    ensure!(std::fs::metadata(&path)?.len() <= 16 << 10, "beyond the limit");
    Ok(())
}

fn parse(text: &str) -> anyhow::Result<Vec<Envelope>> {
    let event = |line| serde_json::from_str(line).with_context(|| format!("not a whole line: {line}"));
    text.lines().map(event).collect()
}
