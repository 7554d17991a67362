//! `cargo xtask vm-test`: the agent on kernels other than this host's, in emulated machines.
//!
//! Emulation (QEMU's TCG) needs no special hardware and no privilege. It is ten to twenty times slower than the host:
//! good for what loads, attaches and counts, worthless for what it costs.

mod cpio;
mod debian;
mod initramfs;
mod libraries;
mod machine;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;
use xtask::ebpf::Contents;

use self::machine::Machine;
use super::{build_ebpf, cargo, executable, target_dir, verifier};
use crate::process::{Running, Stop};
use crate::setup;
use crate::skip::Skip;
use crate::tally::Tally;

/// What runs in a machine is built along with what it starts, in the profile that `cargo xtask test` uses.
const BUILD: &str =
    "build --workspace --bins --test privileged --locked --message-format=json-render-diagnostics";
const PROFILE_DIR: &str = "debug";

/// The tests that need little beside the binaries. The others start Python, or a shell with `setpriv` and `unshare`.
const TESTS: &[&str] = &[
    "load::",
    "segments::",
    "stream::the_stream_is_whole",
    "stream::a_closed_pipe_is_no_error",
    "memory::",
    "kill::",
    "limits::a_servers_watches_are_those_of_its_user",
    "limits::a_full_accept_queue_is_told",
];

/// Far beyond what a run takes (about two minutes on two cores).
const LIMIT: Duration = Duration::from_secs(300);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The kernel to test on [default: each].
    #[arg(long, value_enum)]
    kernel: Option<Kernel>,
    /// Write what the programs take of these kernels' verifiers into docs/verifier.md instead of comparing it.
    #[arg(long)]
    accept: bool,
}

/// Debian's kernel series for cloud machines.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Kernel {
    #[value(name = "6.1")]
    V6_1,
    #[value(name = "6.12")]
    V6_12,
}

impl Kernel {
    fn series(self) -> debian::Series {
        match self {
            Kernel::V6_1 => debian::Series { version: "6.1", suite: "bookworm" },
            Kernel::V6_12 => debian::Series { version: "6.12", suite: "trixie" },
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let stop = Stop::install()?;
    prepare(&stop)?;
    let contents = build_ebpf::object()?;
    let tests = build(&stop)?;
    let chosen = arguments.kernel.map_or(Kernel::value_variants().to_vec(), |kernel| vec![kernel]);
    let mut failed = Vec::new();
    for kernel in chosen {
        let version = kernel.series().version;
        println!("\n==> Linux {version}");
        let begun = Instant::now();
        let outcome = boot(&stop, kernel, &contents, &tests, arguments.accept, &mut Tally::default());
        stop.check()?;
        let seconds = begun.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => println!("==> Linux {version}: ok, {seconds:.0} s"),
            Err(error) => {
                println!("==> Linux {version}: FAILED after {seconds:.0} s: {error:#}");
                failed.push(version);
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed on Linux {}", failed.join(", "));
    }
    Ok(())
}

/// Makes sure that machines can be emulated here.
pub(super) fn prepare(stop: &Stop) -> anyhow::Result<()> {
    if !cfg!(target_arch = "x86_64") {
        return Err(Skip("the machines are x86-64, and this host's binaries are not".to_owned()).into());
    }
    let outcome = setup::emulator(stop);
    stop.check()?;
    outcome.map_err(|error| Skip(format!("{error:#}")).into())
}

/// Boots a kernel, runs the tests there, and checks what its verifier says of the programs. `tests` is the privileged
/// tests' executable; the rest of what goes into the machine has been built with it. Adds what the tests count to
/// `tally`.
pub(super) fn boot(
    stop: &Stop,
    kernel: Kernel,
    contents: &Contents,
    tests: &Path,
    accept: bool,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let series = kernel.series();
    let folder = target_dir().join("vm");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let kernel = debian::kernel(stop, &folder, &series);
    stop.check()?;
    // Without a network there is nothing to boot.
    let kernel = kernel.map_err(|error| Skip(format!("no Linux {} to boot: {error:#}", series.version)))?;
    println!("{}", kernel.name);
    let initramfs = folder.join(format!("initramfs-{}.cpio", series.version));
    initramfs::write(&initramfs, &programs(tests)?, &kernel.modules)?;
    let log = folder.join(format!("serial-{}.log", series.version));
    let machine =
        Machine { image: &kernel.image, initramfs: &initramfs, arguments: TESTS, log: &log, limit: LIMIT };
    let mut lines = Vec::new();
    let outcome = machine.run(stop, &mut lines);
    for counts in lines.iter().filter_map(|line| Tally::of_line(line)) {
        *tally += counts;
    }
    outcome?;
    let document =
        lines.iter().find(|line| line.starts_with("{\"schema\"")).context("it printed no check")?;
    verifier::check(contents, document, accept)
}

/// Builds what goes into a machine; returns the privileged tests' executable.
fn build(stop: &Stop) -> anyhow::Result<PathBuf> {
    let mut running = Running::start(cargo(BUILD).stdout(Stdio::piped()))?;
    let pipe = running.child.stdout.take().context("no stdout")?;
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(pipe).lines().map_while(Result::ok);
        lines.filter_map(|line| executable(&line, "privileged")).last()
    });
    let status = running.wait(stop)?;
    ensure!(status.success(), "the build failed: {status}");
    reader.join().ok().flatten().context("the privileged tests were not built")
}

/// Path in the machine and file here.
fn programs(tests: &Path) -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    let binaries = target_dir().join(PROFILE_DIR);
    Ok(vec![
        ("init", binaries.join("vm-init")),
        ("bin/headroom-agent", binaries.join("headroom-agent")),
        ("bin/headroom-server", binaries.join("headroom-server")),
        ("bin/headroom-load", binaries.join("headroom-load")),
        ("bin/privileged", tests.to_owned()),
        ("bin/ss", libraries::command("ss")?),
    ])
}
