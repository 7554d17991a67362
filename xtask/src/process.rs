//! Processes that end with the verb that started them: on its end, its error, its panic, Ctrl-C and SIGTERM.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, geteuid, kill_process, kill_process_group};

/// How long a process may take to end when asked, before it is killed.
const GRACE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(50);

/// Says whether somebody wants this program to end. Without it a signal would end the program between two
/// instructions and leave its children behind.
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(crate) fn install() -> anyhow::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
        {
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("installing a signal handler")?;
        }
        Ok(Self(flag))
    }

    /// An error once a signal came.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Sleeps, interruptibly.
    pub(crate) fn pause(&self, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.check()?;
            std::thread::sleep(left.min(POLL));
        }
        Ok(())
    }

    /// Waits until `done` yields something.
    pub(crate) fn wait_for<T>(
        &self,
        what: &str,
        within: Duration,
        mut done: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + within;
        loop {
            self.check()?;
            if let Some(found) = done()? {
                return Ok(found);
            }
            if Instant::now() > deadline {
                bail!("{what}: nothing within {} s", within.as_secs());
            }
            std::thread::sleep(POLL);
        }
    }
}

/// A child, ended and waited for when dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    name: String,
    group: bool,
}

impl Running {
    /// Starts `command` in a process group of its own, so that what it starts itself can be ended with it.
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        Self::spawn(command.process_group(0).stdin(Stdio::null()), true)
    }

    /// Starts `command` in this program's own group, which alone may use the terminal.
    pub(crate) fn start_in_foreground(command: &mut Command) -> anyhow::Result<Self> {
        Self::spawn(command, false)
    }

    fn spawn(command: &mut Command, group: bool) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("cannot run {name}"))?;
        Ok(Self { child, name, group })
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, stop: &Stop) -> anyhow::Result<ExitStatus> {
        loop {
            stop.check()?;
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Asks it to end, and makes it if it does not.
    pub(crate) fn end(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(POLL);
        }
        self.signal(Signal::KILL);
        self.child.wait()
    }

    /// Asks it to end, and does not wait.
    pub(crate) fn ask_to_end(&mut self) {
        self.signal(Signal::TERM);
    }

    fn signal(&mut self, signal: Signal) {
        // Once waited for, its number may be somebody else's.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let pid = Pid::from_child(&self.child);
        let sent = if self.group { kill_process_group(pid, signal) } else { kill_process(pid, signal) };
        if sent.is_err() && self.name == "sudo" {
            // sudo belongs to root, and hands on what root sends it.
            let (signal, pid) = (format!("-{}", signal.as_raw()), self.child.id().to_string());
            let _ = Command::new("sudo").args(["-n", "kill", &signal, &pid]).status();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Whether this program may attach eBPF programs itself.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}
