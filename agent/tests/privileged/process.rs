//! Processes that end with the test that started them, whichever way it ends.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take that should be immediate.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A child whose output is read by the line. Killed and waited for when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
}

/// What an ended process left.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<String>,
    pub(crate) stderr: Vec<String>,
}

/// Lines of a pipe, read on a thread of their own so that the writer never blocks on us.
pub(crate) struct Lines(Receiver<String>);

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self(receiver)
    }

    /// The next line; `None` at the end of the pipe.
    pub(crate) fn next(&self, within: Duration) -> anyhow::Result<Option<String>> {
        match self.0.recv_timeout(within) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => bail!("no line within {within:?}"),
        }
    }

    /// The first line that begins with `start`, without it.
    pub(crate) fn after(&self, start: &str) -> anyhow::Result<Option<String>> {
        let deadline = Instant::now() + SOON;
        while let Some(line) = self.next(deadline.saturating_duration_since(Instant::now()))? {
            if let Some(rest) = line.strip_prefix(start) {
                return Ok(Some(rest.trim().to_owned()));
            }
        }
        Ok(None)
    }

    fn rest(&self) -> Vec<String> {
        self.0.iter().collect()
    }
}

impl Process {
    /// Starts `command` with all three streams piped.
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let name = name.rsplit('/').next().unwrap_or(&name).to_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let stdout = Lines::of(child.stdout.take().context("no stdout")?);
        let stderr = Lines::of(child.stderr.take().context("no stderr")?);
        Ok(Self { name, child, stdout, stderr })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to its stdin.
    pub(crate) fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        let stdin = self.child.stdin.as_mut().context("no stdin")?;
        writeln!(stdin, "{line}").with_context(|| format!("{} does not listen", self.name))
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("signalling {}", self.name))
    }

    pub(crate) fn is_running(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for the end and takes what was not read of its output.
    pub(crate) fn finish(mut self, within: Duration) -> anyhow::Result<Ended> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Ended { status, stdout: self.stdout.rest(), stderr: self.stderr.rest() });
            }
            if Instant::now() > deadline {
                bail!("{} did not end within {within:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command, within: Duration) -> anyhow::Result<Ended> {
    Process::start(command)?.finish(within)
}

/// Waits until `done` says so.
pub(crate) fn until(
    what: &str,
    within: Duration,
    mut done: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + within;
    while !done()? {
        if Instant::now() > deadline {
            bail!("{what}: not within {within:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
