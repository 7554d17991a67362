//! The first process of the machine that `cargo xtask vm-test` boots: runs the agent's check and the privileged tests,
//! prints the result line, and powers off.
//!
//! The kernel hands it what stands behind `--` on its command line: names of tests.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the serial line is all there is")]

use std::fs;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, ensure};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};

/// Where the initramfs has the binaries.
const BINARIES: &str = "/bin";
/// File system, mount point.
const MOUNTS: &[(&str, &str)] = &[
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("cgroup2", "/sys/fs/cgroup"),
];
/// Where it has the modules, named in the order in which they are loaded.
const MODULES: &str = "/modules";
/// MODULE_INIT_COMPRESSED_FILE of `linux/module.h`.
const COMPRESSED: i32 = 4;
/// IFF_UP and IFF_LOOPBACK of `linux/if.h`.
const LOOPBACK_UP: &str = "0x9";

fn main() -> ExitCode {
    if !rustix::process::getpid().is_init() {
        eprintln!("vm-init is the first process of a virtual machine and nothing else");
        return ExitCode::FAILURE;
    }
    // vm_test/machine.rs looks for these lines.
    match run() {
        Ok(()) => println!("headroom-vm: passed"),
        Err(error) => println!("headroom-vm: failed: {error:#}"),
    }
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        eprintln!("cannot power off: {error}");
    }
    // The kernel panics when its first process ends, and so ends the machine.
    ExitCode::FAILURE
}

fn run() -> anyhow::Result<()> {
    for (kind, target) in MOUNTS {
        fs::create_dir_all(target).with_context(|| format!("creating {target}"))?;
        mount(*kind, *target, *kind, MountFlags::empty(), None)
            .with_context(|| format!("mounting {target}"))?;
    }
    fs::write("/sys/class/net/lo/flags", LOOPBACK_UP).context("bringing lo up")?;
    modules()?;
    // Says which hooks there are and what the programs took of the verifier. The caller reads it.
    start(Command::new(format!("{BINARIES}/headroom-agent")).args(["check", "--json"]))?;
    start(
        Command::new(format!("{BINARIES}/privileged"))
            .args(std::env::args_os().skip(1))
            .env("HEADROOM_BIN_DIR", BINARIES)
            .env("PATH", BINARIES)
            // Emulation is slow.
            .env("HEADROOM_TEST_SLOWNESS", "2")
            // A test that skips itself here would prove nothing.
            .env("CI", "true"),
    )
}

fn modules() -> anyhow::Result<()> {
    let entries = fs::read_dir(MODULES).with_context(|| format!("reading {MODULES}"))?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    for path in files {
        let flags = if path.extension().is_some_and(|extension| extension == "ko") { 0 } else { COMPRESSED };
        let file = fs::File::open(&path)?;
        finit_module(file, c"", flags).with_context(|| format!("loading {}", path.display()))?;
    }
    Ok(())
}

fn start(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("running {name}"))?;
    ensure!(status.success(), "{name}: {status}");
    Ok(())
}
