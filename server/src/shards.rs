//! One server as several processes that share its ports.
//!
//! A process may only have so many descriptors, and each connection takes one. So the parent makes a listening socket for
//! each process and port (SO_REUSEPORT: the kernel spreads connections over them by a hash of their addresses), starts the
//! processes with their sockets, and from then on passes signals on and waits. All sockets exist before the first process
//! accepts, so none gets more than its share. Every limit and every count is that of one process; the parent adds
//! nothing up and restarts nothing: when one process ends, it ends the others and says so, and whoever supervises it decides.

use std::env;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::{io, process};

use agent::cli::{Exit, Failure};
use anyhow::Context as _;
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::daemon::Listener;
use crate::notify;
use crate::signals::{Request, Signals};

/// Which of several processes one is, as its parent says it on the command line: `INDEX:PARENT:DESCRIPTOR,…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    pub index: usize,
    parent: u32,
    descriptors: Vec<RawFd>,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (index, rest) = text.split_once(':')?;
            let (parent, descriptors) = rest.split_once(':')?;
            let descriptors: Result<_, _> = descriptors.split(',').map(str::parse).collect();
            let (index, parent) = (index.parse().ok()?, parent.parse().ok()?);
            Some(Self { index, parent, descriptors: descriptors.ok()? })
        };
        parse().ok_or_else(|| "is not for people: --processes starts what it needs".into())
    }
}

impl Shard {
    /// Becomes that process: ends with its parent from now on, and takes over its sockets.
    ///
    /// # Safety
    /// As for [`Listener::adopt`]: to be called once, before other descriptors are opened.
    ///
    /// # Errors
    /// When the parent is gone already, or its sockets are not what they should be.
    pub unsafe fn take_over(&self) -> io::Result<Vec<Listener>> {
        set_parent_process_death_signal(Some(Signal::TERM))?;
        // It may have died before that.
        if getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs()) != Some(self.parent) {
            return Err(io::Error::other("the process that started this one is gone"));
        }
        // SAFETY: the caller says so.
        unsafe { Listener::adopt(self.descriptors.iter().copied()) }
    }
}

/// The processes that are still running, by index.
struct Crew {
    children: Vec<Option<Child>>,
    /// The first that ended without being asked, and how.
    failure: Option<(usize, ExitStatus)>,
    stopping: bool,
}

/// Starts `count` processes like this one, each with a socket of its own on every address, and waits for their end.
/// `lines` is how many lines each says on standard output once it serves; of those, the first process's are repeated
/// here, and of the others' those that differ.
///
/// # Errors
/// When an address cannot be had, or one of the processes ends unasked: with its exit code.
pub fn run(count: usize, addresses: &[SocketAddr], reuse_port: bool, lines: usize) -> anyhow::Result<()> {
    let mut crew = Crew { children: Vec::new(), failure: None, stopping: false };
    let mut outputs = Vec::new();
    for (index, listeners) in sockets(count, addresses, reuse_port)?.into_iter().enumerate() {
        let mut child = start(index, &listeners).with_context(|| format!("start process {index}"))?;
        outputs.extend(child.stdout.take());
        crew.children.push(Some(child));
        // The parent's own copies are closed here: a connection in the queue of a process that ended is refused.
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(supervise(&mut crew, outputs, lines));
    // A child that ended early may have left the thread that reads from it waiting for the others.
    runtime.shutdown_background();
    outcome
}

/// Every process's sockets. All of them exist before any process accepts.
fn sockets(count: usize, addresses: &[SocketAddr], reuse_port: bool) -> anyhow::Result<Vec<Vec<Listener>>> {
    let mut shares: Vec<Vec<Listener>> = (0..count).map(|_| Vec::new()).collect();
    for address in addresses {
        let (asked, mut address) = (*address, *address);
        let failed = |error| Listener::failure(asked, false, &error);
        if !reuse_port {
            // SO_REUSEPORT alone would let a second server in without a word.
            Listener::probe(asked).map_err(failed)?;
        }
        for share in &mut shares {
            let listener = Listener::bind(address, true).map_err(failed)?;
            address = listener.address();
            share.push(listener);
        }
    }
    Ok(shares)
}

fn start(index: usize, listeners: &[Listener]) -> io::Result<Child> {
    let descriptors: Vec<String> =
        listeners.iter().map(|listener| listener.as_raw_fd().to_string()).collect();
    listeners.iter().try_for_each(|listener| listener.hand_down(true))?;
    Command::new(env::current_exe()?)
        .args(env::args_os().skip(1))
        .arg(format!("--shard={index}:{}:{}", process::id(), descriptors.join(",")))
        // Only the parent speaks to the service manager.
        .env_remove("NOTIFY_SOCKET")
        // Ctrl-C reaches a whole group at once; here it comes from the parent, once.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
}

async fn supervise(crew: &mut Crew, outputs: Vec<ChildStdout>, lines: usize) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("install signal handlers")?;
    let mut ended = signal(SignalKind::child()).context("install signal handlers")?;
    let mut announced = spawn_blocking(move || announcements(outputs, lines));
    let mut serving = false;
    crew.reap();
    while crew.running() > 0 {
        tokio::select! {
            said = &mut announced, if !serving => {
                serving = true;
                if let Some(said) = said.context("read what the processes say")? {
                    announce(&said)?;
                    info!(name: "serving", processes = crew.running(), "all processes serve");
                    notify::ready();
                }
            }
            request = signals.next() => match request {
                Request::Stop(_) => {
                    notify::stopping();
                    crew.stop(Signal::TERM);
                }
                Request::Reload => {
                    notify::reloading();
                    crew.signal(Signal::HUP);
                    notify::ready();
                }
            },
            _ = ended.recv() => crew.reap(),
        }
    }
    let Some((index, status)) = crew.failure else { return Ok(()) };
    let exit = match status.code() {
        Some(code) if code == i32::from(Exit::Unavailable.code()) => Exit::Unavailable,
        Some(code) if code == i32::from(Exit::NoPermission.code()) => Exit::NoPermission,
        Some(code) if code == i32::from(Exit::Config.code()) => Exit::Config,
        Some(code) if code == i32::from(Exit::Usage.code()) => Exit::Usage,
        Some(_) | None => Exit::Internal,
    };
    Err(Failure::new(exit, format!("process {index} ended unasked ({status}), and the others were ended"))
        .into())
}

/// What each process says once it serves; `None` when one ends before that.
fn announcements(outputs: Vec<ChildStdout>, lines: usize) -> Option<Vec<Vec<String>>> {
    let read = |output| {
        let said: Vec<String> = BufReader::new(output).lines().map_while(Result::ok).take(lines).collect();
        (said.len() == lines).then_some(said)
    };
    outputs.into_iter().map(read).collect()
}

/// Repeats what the first process says, and what others say otherwise.
fn announce(said: &[Vec<String>]) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut stdout = io::stdout().lock();
    let first = said.first().map_or(&[][..], Vec::as_slice);
    let others = said.iter().skip(1).flatten().filter(|line| !first.contains(line));
    for line in first.iter().chain(others) {
        writeln!(stdout, "{line}").context("write to stdout")?;
    }
    stdout.flush().context("write to stdout")
}

impl Crew {
    fn running(&self) -> usize {
        self.children.iter().flatten().count()
    }

    fn signal(&self, signal: Signal) {
        for child in self.children.iter().flatten() {
            if let Err(error) = kill_process(Pid::from_child(child), signal) {
                warn!(name: "signal_failed", %error, pid = child.id(), "cannot pass a signal on");
            }
        }
    }

    fn stop(&mut self, signal: Signal) {
        self.stopping = true;
        self.signal(signal);
    }

    /// Notes who ended. The first that did so unasked takes the others along.
    fn reap(&mut self) {
        for (index, place) in self.children.iter_mut().enumerate() {
            let Some(Ok(Some(status))) = place.as_mut().map(Child::try_wait) else { continue };
            *place = None;
            let unasked = !self.stopping || !status.success();
            if unasked && self.failure.is_none() {
                self.failure = Some((index, status));
            }
        }
        if self.failure.is_some() && !self.stopping {
            self.stop(Signal::TERM);
        }
    }
}

/// Whatever goes wrong here, no process is left behind.
impl Drop for Crew {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            // It may have ended just now.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shard_is_told() {
        let shard = Shard { index: 3, parent: 77, descriptors: vec![5, 6] };
        assert_eq!("3:77:5,6".parse(), Ok(shard));
        for wrong in ["", "3", "3:77", "3:77:", "3:77:5,x", "-1:77:5"] {
            assert!(wrong.parse::<Shard>().unwrap_err().contains("not for people"), "{wrong}");
        }
    }

    #[test]
    fn each_process_has_a_socket_on_each_address_and_port_0_is_one_port() {
        let any = "127.0.0.1:0".parse().unwrap();
        let shares = sockets(3, &[any, any], false).unwrap();
        let ports: Vec<Vec<u16>> =
            shares.iter().map(|share| share.iter().map(|one| one.address().port()).collect()).collect();
        assert_eq!(ports.len(), 3);
        assert!(ports.iter().all(|share| *share == ports[0] && share.len() == 2), "{ports:?}");
        assert_ne!(ports[0][0], ports[0][1]);
        let taken = sockets(2, &[shares[0][0].address()], false).unwrap_err();
        assert!(taken.to_string().contains("cannot listen"), "{taken}");
        assert_eq!(sockets(2, &[shares[0][0].address()], true).unwrap().len(), 2);
    }
}
