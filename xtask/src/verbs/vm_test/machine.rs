//! An emulated machine, from its kernel's first line to the result.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::process::{Running, Stop};

/// What vm-init prints last, and what may follow.
const RESULT: &str = "headroom-vm: ";
const PASSED: &str = "passed";
const FAILED: &str = "failed: ";
/// What the kernel prints when it cannot go on. Then it ends the machine, or hangs.
const PANIC: &str = "Kernel panic";
/// Time for the rest of what it has to say.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// Lines shown of a run that failed.
const TAIL: usize = 30;
const POLL: Duration = Duration::from_millis(200);

/// A machine to boot.
pub(super) struct Machine<'a> {
    pub(super) image: &'a Path,
    pub(super) initramfs: &'a Path,
    /// For its first process.
    pub(super) arguments: &'a [&'a str],
    /// Where all it prints goes.
    pub(super) log: &'a Path,
    pub(super) limit: Duration,
}

impl Machine<'_> {
    /// Boots it, waits for the result, and adds what it prints to `lines`.
    pub(super) fn run(&self, stop: &Stop, lines: &mut Vec<String>) -> anyhow::Result<()> {
        let outcome = self.result(stop, lines);
        stop.check()?;
        if outcome.is_err() {
            println!("the last lines of {}:", self.log.display());
            for line in &lines[lines.len().saturating_sub(TAIL)..] {
                println!("  {line}");
            }
        }
        outcome
    }

    fn result(&self, stop: &Stop, lines: &mut Vec<String>) -> anyhow::Result<()> {
        let mut log = File::create(self.log).with_context(|| format!("creating {}", self.log.display()))?;
        let mut running = Running::start(&mut self.command())?;
        let serial = read(running.child.stdout.take().context("no stdout")?);
        let mut deadline = Instant::now() + self.limit;
        let mut panic = None;
        loop {
            stop.check()?;
            let late = Instant::now() > deadline;
            let line = match serial.recv_timeout(POLL) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) if !late => continue,
                Err(_) => match panic {
                    Some(panic) => bail!("{panic}"),
                    None if late => bail!("no result within {} s", self.limit.as_secs()),
                    None => bail!("the machine ended without a result"),
                },
            };
            writeln!(log, "{line}")?;
            if let Some((_, result)) = line.split_once(RESULT) {
                // Left alone it powers off, which is quieter than being ended.
                while serial.recv_timeout(LAST_WORDS).is_ok() {}
                ensure!(result == PASSED, "{}", result.trim_start_matches(FAILED));
                return Ok(());
            }
            if line.starts_with("test ") {
                println!("{line}");
            }
            if panic.is_none() && line.contains(PANIC) {
                panic = Some(line.clone());
                deadline = Instant::now() + LAST_WORDS;
            }
            lines.push(line);
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command
            // The emulator: KVM is not there on every machine that tests run on.
            .args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1G"])
            .args(["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"])
            .arg("-kernel")
            .arg(self.image)
            .arg("-initrd")
            .arg(self.initramfs)
            .arg("-append")
            .arg(format!("console=ttyS0 quiet panic=-1 -- {}", self.arguments.join(" ")))
            .stdout(Stdio::piped());
        command
    }
}

/// Lines of the serial line, which need not be UTF-8 and end in "\r\n".
fn read(pipe: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}
